//! In place of kernel TLS, where there is none: nobody asks for it.

use std::io;

use crate::transport::tls::Keys;

fn none<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Readies a socket for keys.
pub fn begin<S>(_socket: &S) -> io::Result<()> {
    none()
}

/// Gives a socket its keys.
pub fn give_keys<S>(_socket: &S, _keys: &Keys) -> io::Result<()> {
    none()
}

/// Whether a receive failed because what comes next is no application data.
pub fn is_other_record(_error: &io::Error) -> bool {
    false
}

/// Whether a receive failed because what came next cannot be opened.
pub fn is_unreadable(_error: &io::Error) -> bool {
    false
}

/// Reads a record of whatever kind.
pub fn read_record<S>(_socket: &S, _bytes: &mut [u8]) -> io::Result<(u8, usize)> {
    none()
}

/// Says that nothing follows.
pub fn say_end<S>(_socket: &S) -> io::Result<()> {
    none()
}

/// What says that nothing follows; there is nobody to say it to.
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
#[derive(Debug, Default)]
pub struct Farewell {}

#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
impl Farewell {
    /// For the kernel to read.
    pub fn message(&mut self) -> *const libc::msghdr {
        std::ptr::null()
    }
}
