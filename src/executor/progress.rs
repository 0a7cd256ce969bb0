//! Bytes that the peer has not acknowledged: ioctl(2) with `SIOCOUTQ`, tcp(7) and unix(7). The kernel reports a
//! socket as writable only once there is much room.

#[cfg(target_os = "linux")]
mod kernel {
    #![expect(unsafe_code, reason = "an ioctl that no safe interface has")]

    use std::os::fd::{AsFd, AsRawFd as _};

    /// Bytes that the kernel holds and the peer has not acknowledged; none where the kernel does not say.
    pub fn unacknowledged(socket: &impl AsFd) -> Option<usize> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the kernel writes one number, which outlives the call. SIOCOUTQ is TIOCOUTQ.
        let outcome =
            unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if outcome == 0 { usize::try_from(bytes).ok() } else { None }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    /// Unknown on this system.
    pub fn unacknowledged<S>(_socket: &S) -> Option<usize> {
        None
    }
}

pub use kernel::unacknowledged;
