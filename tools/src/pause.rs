//! Waiting for sockets until a moment that is told in nanoseconds: the poll itself counts in
//! milliseconds, which is too coarse for a timetable, and turning without rest would take a core
//! that the broker may want.

use std::{io, time::Duration};

use mio::Registry;

/// Wait until a socket has something or `timeout` has passed. What the sockets have is still to be
/// asked for.
#[cfg(target_os = "linux")]
pub fn wait(registry: &Registry, timeout: Duration) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    if timeout.is_zero() {
        return Ok(());
    }
    let timeout =
        Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(&mut [PollFd::new(registry, PollFlags::IN)], Some(&timeout)) {
        Err(rustix::io::Errno::INTR) | Ok(_) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Elsewhere there is no rest: the generator needs a core of its own.
#[cfg(not(target_os = "linux"))]
pub fn wait(_registry: &Registry, _timeout: Duration) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_as_long_as_it_was_told_to_be_and_no_millisecond_longer() {
        let poll = mio::Poll::new().expect("there are descriptors");
        let spent = |timeout| {
            let begun = crate::clock::now_ns();
            wait(poll.registry(), timeout).expect("nothing can fail");
            Duration::from_nanos(crate::clock::now_ns() - begun)
        };
        let timeout = Duration::from_micros(200);
        let shortest = (0..50).map(|_| spent(timeout)).min().expect("fifty");
        assert!(timeout <= shortest && shortest < Duration::from_millis(1), "{shortest:?}");
    }
}
