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
pub struct LingerTime {
    until: Instant,
    /// The peer has read something in this interval.
    has_read: bool,
    /// Bytes that the peer had not acknowledged when they were counted last.
    unacknowledged: Option<usize>,
    intervals: u8,
    discarded: usize,
}

impl LingerTime {
    /// The first interval begins.
    pub fn new(now: Instant) -> Self {
        let until = now + INTERVAL;
        Self { until, has_read: false, unacknowledged: None, intervals: 0, discarded: 0 }
    }

    /// The end of this interval.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// So many bytes have been written to the peer.
    pub fn note_written(&mut self, bytes: usize) {
        self.has_read |= bytes > 0;
    }

    /// So many bytes are unacknowledged, where the kernel says so. A peer that reads slowly acknowledges bytes long
    /// before the kernel has room for more: a socket becomes writable once most of its buffer is free. The number
    /// rises when the kernel takes the next part of a long send, for which the peer has made room.
    pub fn note_unacknowledged(&mut self, unacknowledged: Option<usize>) {
        let (Some(now), before) = (unacknowledged, self.unacknowledged) else { return };
        self.has_read |= before.is_some_and(|before| now != before);
        self.unacknowledged = unacknowledged;
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
    pub fn add(&mut self, linger_time: &LingerTime, key: K) {
        self.0.push_back((linger_time.until, key));
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
        let mut linger_time = LingerTime::new(now);
        let mut extended = 0;
        loop {
            linger_time.note_written(1);
            if !linger_time.extend(now, true) {
                break;
            }
            extended += 1;
        }
        assert_eq!(extended, INTERVALS_MAX - 1);
    }

    #[test]
    fn a_peer_that_reads_nothing_or_has_everything_has_no_more_time() {
        let now = Instant::now();
        let mut linger_time = LingerTime::new(now);
        assert!(!linger_time.extend(now, true));
        linger_time.note_written(0);
        assert!(!linger_time.extend(now, true));
        linger_time.note_written(5);
        assert!(!linger_time.extend(now, false));
    }

    #[test]
    fn a_peer_that_acknowledges_bytes_has_more_time_though_nothing_can_be_written() {
        let now = Instant::now();
        let mut linger_time = LingerTime::new(now);
        linger_time.note_unacknowledged(Some(100_000));
        linger_time.note_unacknowledged(Some(90_000));
        assert!(linger_time.extend(now, true));
        linger_time.note_unacknowledged(None);
        linger_time.note_unacknowledged(Some(90_000));
        assert!(!linger_time.extend(now, true));
        // The kernel has taken the next part of a send that is not complete.
        linger_time.note_unacknowledged(Some(150_000));
        assert!(linger_time.extend(now, true));
    }

    #[test]
    fn input_is_discarded_up_to_a_bound() {
        let mut linger_time = LingerTime::new(Instant::now());
        assert!(linger_time.discard(DISCARDED_BYTES_MAX - 1));
        assert!(!linger_time.discard(1));
    }

    #[test]
    fn deadlines_are_taken_once_they_have_passed() {
        let now = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.add(&LingerTime::new(now), 7);
        deadlines.add(&LingerTime::new(now + INTERVAL), 8);
        assert_eq!(deadlines.take_passed(now), None);
        assert_eq!(deadlines.next(), Some(now + INTERVAL));
        assert_eq!(deadlines.take_passed(now + INTERVAL), Some((now + INTERVAL, 7)));
        assert_eq!(deadlines.take_passed(now + INTERVAL), None);
    }
}
