//! Numbers by which TLS records, and what they hold, are told apart. Knows neither TLS nor kernel.

/// Content type of alerts (RFC 8446, 5.1).
pub const ALERT: u8 = 21;
/// Content type of handshake messages (RFC 8446, 5.1).
pub const HANDSHAKE: u8 = 22;
/// Content type of what TLS is there for (RFC 8446, 5.1).
pub const APPLICATION_DATA: u8 = 23;

/// The description of an alert that nothing follows (RFC 8446, 6.1).
pub const CLOSE_NOTIFY: u8 = 0;
/// The handshake message that says that keys change (RFC 8446, 4).
pub const KEY_UPDATE: u8 = 24;
