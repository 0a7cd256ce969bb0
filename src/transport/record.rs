//! Numbers of TLS record and message types. Knows neither TLS nor the kernel.

/// Content type of alerts (RFC 8446, 5.1).
pub const ALERT: u8 = 21;
/// Content type of handshake messages (RFC 8446, 5.1).
pub const HANDSHAKE: u8 = 22;
/// Content type of application data (RFC 8446, 5.1).
pub const APPLICATION_DATA: u8 = 23;

/// Description of the alert that closes a connection, close_notify (RFC 8446, 6.1).
pub const CLOSE_NOTIFY: u8 = 0;
/// Handshake message that updates keys (RFC 8446, 4).
pub const KEY_UPDATE: u8 = 24;
