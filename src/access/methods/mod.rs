//! Authentication methods.

#[cfg(feature = "http-hook")]
pub(super) mod http;
#[cfg(feature = "jwt")]
pub(super) mod jwt;
#[cfg(feature = "scram")]
pub(super) mod scram;
