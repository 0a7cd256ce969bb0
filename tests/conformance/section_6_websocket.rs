//! Chapter 6: WebSocket as transport.
