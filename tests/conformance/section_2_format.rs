//! Chapter 2: the format of a Control Packet.
