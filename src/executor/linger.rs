//! How a connection lingers after the engine has closed it, until the peer has read the last bytes.
//!
//! Closing a socket with unread input makes the kernel reset the connection, and the peer may never see the CONNACK
//! or DISCONNECT that says why. So the last bytes are written, our side is shut down, and input is discarded until
//! the peer closes too, within bounds (RFC 1122, 4.2.2.13).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Connections of a core that linger at most. Further connections are closed at once.
pub const LINGERING_MAX: usize = 4_096;

/// Time within which a peer reads some of its last bytes. Otherwise the connection is closed.
const INTERVAL: Duration = Duration::from_secs(1);

/// Number of intervals that a peer may take for all of them.
const INTERVALS_MAX: u8 = 15;

/// Input that is discarded at most.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;

/// What a peer has left to read its last bytes.
#[derive(Debug)]
pub struct Patience {
    until: Instant,
    /// The peer has read something in this interval.
    has_read: bool,
    intervals: u8,
    discarded: usize,
}

impl Patience {
    /// The first interval begins.
    pub fn new(now: Instant) -> Self {
        Self { until: now + INTERVAL, has_read: false, intervals: 0, discarded: 0 }
    }

    /// The end of this interval.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// So many bytes have been written to the peer.
    pub fn note_written(&mut self, bytes: usize) {
        self.has_read |= bytes > 0;
    }

    /// So many bytes of input are discarded. False once there have been too many.
    pub fn discard(&mut self, bytes: usize) -> bool {
        self.discarded += bytes;
        self.discarded < DISCARDED_BYTES_MAX
    }

    /// An interval has passed. Whether another begins: there are bytes to write, and the peer has read some.
    pub fn extend(&mut self, now: Instant, has_unwritten: bool) -> bool {
        self.intervals += 1;
        self.until = now + INTERVAL;
        std::mem::take(&mut self.has_read) && has_unwritten && self.intervals < INTERVALS_MAX
    }
}

/// The ends of intervals, in order.
#[derive(Debug)]
pub struct Deadlines<K>(VecDeque<(Instant, K)>);

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: Copy> Deadlines<K> {
    /// Adds the end of the interval that has just begun.
    pub fn add(&mut self, patience: &Patience, key: K) {
        self.0.push_back((patience.until, key));
    }

    /// The next one.
    pub fn next(&self) -> Option<Instant> {
        self.0.front().map(|&(until, _)| until)
    }

    /// Takes the next one that has passed.
    pub fn take_passed(&mut self, now: Instant) -> Option<(Instant, K)> {
        self.0.pop_front_if(|&mut (until, _)| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_reads_has_more_time_but_not_for_ever() {
        let now = Instant::now();
        let mut patience = Patience::new(now);
        let mut extended = 0;
        loop {
            patience.note_written(1);
            if !patience.extend(now, true) {
                break;
            }
            extended += 1;
        }
        assert_eq!(extended, INTERVALS_MAX - 1);
    }

    #[test]
    fn a_peer_that_reads_nothing_or_has_everything_has_no_more_time() {
        let now = Instant::now();
        let mut patience = Patience::new(now);
        assert!(!patience.extend(now, true));
        patience.note_written(0);
        assert!(!patience.extend(now, true));
        patience.note_written(5);
        assert!(!patience.extend(now, false));
    }

    #[test]
    fn input_is_discarded_up_to_a_bound() {
        let mut patience = Patience::new(Instant::now());
        assert!(patience.discard(DISCARDED_BYTES_MAX - 1));
        assert!(!patience.discard(1));
    }

    #[test]
    fn deadlines_are_taken_once_they_have_passed() {
        let now = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.add(&Patience::new(now), 7);
        deadlines.add(&Patience::new(now + INTERVAL), 8);
        assert_eq!(deadlines.take_passed(now), None);
        assert_eq!(deadlines.next(), Some(now + INTERVAL));
        assert_eq!(deadlines.take_passed(now + INTERVAL), Some((now + INTERVAL, 7)));
        assert_eq!(deadlines.take_passed(now + INTERVAL), None);
    }
}
