//! Wakes up a core that waits in the kernel, from another thread.

use std::io;

/// Wakes up one core.
#[derive(Debug)]
pub enum Waker {
    /// A core that waits in `mio`.
    Poll(mio::Waker),
    /// A core that watches an eventfd(2).
    #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
    Event(std::sync::Arc<std::os::fd::OwnedFd>),
    /// A core that reads from a socket.
    #[cfg(unix)]
    Stream(std::os::unix::net::UnixStream),
}

impl Waker {
    /// Wakes up the core, or keeps it from sleeping.
    pub fn wake(&self) -> io::Result<()> {
        match self {
            Self::Poll(waker) => waker.wake(),
            #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
            Self::Event(event) => match rustix::io::write(event, &1u64.to_ne_bytes()) {
                // The counter is at its maximum: the core is already being woken up.
                Err(rustix::io::Errno::AGAIN) | Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            },
            #[cfg(unix)]
            Self::Stream(stream) => match std::io::Write::write(&mut &*stream, &[0]) {
                // The socket buffer is full: the core is already being woken up.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                outcome => outcome.map(drop),
            },
        }
    }
}
