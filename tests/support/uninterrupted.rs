//! Calls of sockets with a timeout, repeated after EINTR. Such a call ends with EINTR when its
//! process was stopped or frozen and goes on (signal(7)), whatever `SA_RESTART` says; only the
//! standard library's `read_exact` and `write_all` repeat it themselves.

use std::io::{ErrorKind, Result};

/// The result of the call, which is repeated while it is interrupted.
pub fn uninterrupted<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
