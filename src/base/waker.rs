//! Waking a core that waits in the kernel, from another thread.

use std::io;

/// Wakes one core.
#[derive(Debug)]
pub enum Waker {
    /// One that waits in `mio`.
    Poll(mio::Waker),
    /// One that watches an eventfd(2).
    #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
    Event(std::sync::Arc<std::os::fd::OwnedFd>),
    /// One that reads from a socket.
    #[cfg(unix)]
    Stream(std::os::unix::net::UnixStream),
}

impl Waker {
    /// Wakes it, or lets it not fall asleep.
    pub fn wake(&self) -> io::Result<()> {
        match self {
            Self::Poll(waker) => waker.wake(),
            #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
            Self::Event(event) => match rustix::io::write(event, &1u64.to_ne_bytes()) {
                // The counter is at its bound: it wakes already.
                Err(rustix::io::Errno::AGAIN) | Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            },
            #[cfg(unix)]
            Self::Stream(stream) => match std::io::Write::write(&mut &*stream, &[0]) {
                // It has enough to read, and wakes already.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                outcome => outcome.map(drop),
            },
        }
    }
}
