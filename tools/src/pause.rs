//! Waits for sockets with a deadline in nanoseconds: poll has a resolution of milliseconds, too
//! coarse for a timetable, and busy waiting would use a core that the broker may need.

use std::{io, time::Duration};

use mio::Registry;

/// Waits until a socket is ready or `timeout` has passed. Events must be polled afterwards.
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

/// Other systems wait actively: the generator needs a core of its own.
#[cfg(not(target_os = "linux"))]
pub fn wait(_registry: &Registry, _timeout: Duration) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_within_a_millisecond_of_its_deadline() {
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
