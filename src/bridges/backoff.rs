//! Pauses before attempts: longer after each failure, and random, so that the bridges of many brokers do not all come
//! back at once.

use std::time::Duration;

use crate::config::bridge::Reconnect;

/// The pause before the next attempt.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    last: Duration,
}

impl Backoff {
    pub fn new(reconnect: &Reconnect) -> Self {
        let first = Duration::from_millis(reconnect.first_ms.into());
        let most = Duration::from_secs(reconnect.most_s.into()).max(first);
        Self { first, most, last: Duration::ZERO }
    }

    /// The last connection was stable.
    pub fn reset(&mut self) {
        self.last = Duration::ZERO;
    }

    /// The longest pause, after which pauses stay long.
    pub fn longest(&mut self) -> Duration {
        self.last = self.most;
        self.most
    }

    /// The next pause: between the first one and three times the last one, chosen by `random`, and never longer than
    /// the longest ("decorrelated jitter", M. Brooker, Exponential Backoff And Jitter, 2015).
    pub fn next(&mut self, random: u32) -> Duration {
        let from = self.first.as_millis() as u64;
        let to = (3 * self.last.as_millis() as u64).max(from);
        let chosen = from + u64::from(random) % (to - from + 1);
        self.last = Duration::from_millis(chosen).min(self.most);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_anew_after_a_stable_connection() {
        let mut backoff = Backoff::new(&Reconnect { first_ms: 100, most_s: 2, stable_s: 1 });
        assert_eq!(backoff.next(7), Duration::from_millis(100));
        assert_eq!(backoff.next(200), Duration::from_millis(300));
        for _ in 0..50 {
            assert!(backoff.next(u32::MAX) <= Duration::from_secs(2));
        }
        backoff.reset();
        assert_eq!(backoff.next(7), Duration::from_millis(100));
    }
}
