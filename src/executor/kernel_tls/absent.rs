//! Stub for platforms without kernel TLS; its functions are never called there.

use std::io;

use crate::transport::tls::Keys;

fn none<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Prepares a socket for keys.
pub fn begin<S>(_socket: &S) -> io::Result<()> {
    none()
}

/// Installs keys on a socket.
pub fn give_keys<S>(_socket: &S, _keys: &Keys) -> io::Result<()> {
    none()
}

/// Whether a receive failed because the next record is not application data.
pub fn is_other_record(_error: &io::Error) -> bool {
    false
}

/// Whether a receive failed because the next record cannot be decrypted.
pub fn is_unreadable(_error: &io::Error) -> bool {
    false
}

/// Reads a record of any content type.
pub fn read_record<S>(_socket: &S, _bytes: &mut [u8]) -> io::Result<(u8, usize)> {
    none()
}

/// Sends the close_notify alert.
pub fn send_close_notify<S>(_socket: &S) -> io::Result<()> {
    none()
}

/// The close_notify alert as a message; never sent.
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
#[derive(Debug, Default)]
pub struct CloseNotify {}

#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
impl CloseNotify {
    /// The message, for sendmsg(2).
    pub fn message(&mut self) -> *const libc::msghdr {
        std::ptr::null()
    }
}
