//! The time of day in records: the system's clock, except that the time never goes back, not even from one
//! process to the next. A clock that is set while the broker runs, as on a router that gets the time from
//! the network a minute after its start, or that shows 1970 at the next start, does not change the age of
//! sessions and messages. While the system's clock is behind, the time continues from its last value.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Lead of the system's clock, in microseconds, from which it counts as set: more than the clock is slewed in a
/// minute.
const AHEAD_US: u64 = 10_000_000;

/// Interval between checks of the system's clock.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct TimeOfDay {
    zero: Instant,
    /// The time of day at `zero`, in microseconds since 1970.
    at_zero_us: u64,
}

impl TimeOfDay {
    /// The current time, if the last frame was written at `last_us`.
    pub fn after(last_us: u64) -> Self {
        Self { zero: Instant::now(), at_zero_us: system_us().max(last_us) }
    }

    /// The time of day at the start.
    pub fn at_zero_us(&self) -> u64 {
        self.at_zero_us
    }

    /// The time of day.
    pub fn now_us(&self) -> u64 {
        self.at_zero_us + self.elapsed_us()
    }

    /// Checks the system's clock: by how much it was set forward, if it was.
    pub fn check(&mut self) -> Option<Duration> {
        let ahead_us = ahead(self.now_us(), system_us())?;
        self.at_zero_us += ahead_us;
        Some(Duration::from_micros(ahead_us))
    }

    /// A process that has run for as long, with a clock that showed 1970 until now.
    #[cfg(test)]
    pub fn of_1970() -> Self {
        Self { zero: Instant::now(), at_zero_us: 60_000_000 }
    }

    fn elapsed_us(&self) -> u64 {
        self.zero.elapsed().as_micros() as u64
    }
}

fn ahead(now_us: u64, system_us: u64) -> Option<u64> {
    system_us.checked_sub(now_us).filter(|&ahead_us| ahead_us > AHEAD_US)
}

fn system_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_follows_a_clock_that_is_set_forward_and_ignores_one_that_is_set_back() {
        let (now, hour) = (system_us(), 3_600_000_000);
        assert_eq!(ahead(now, now + hour), Some(hour));
        assert_eq!(ahead(now, now + AHEAD_US), None);
        assert_eq!(ahead(now, now - hour), None);
        assert_eq!(ahead(now, 0), None);
    }

    #[test]
    fn a_start_with_a_clock_behind_continues_from_the_time_of_the_last_process() {
        let later_us = system_us() + 86_400_000_000;
        let mut day = TimeOfDay::after(later_us);
        assert_eq!(day.at_zero_us(), later_us);
        assert_eq!(day.check(), None);
        let mut day = TimeOfDay::after(0);
        assert!(day.now_us() >= day.at_zero_us());
        assert_eq!(day.check(), None);
        let mut day = TimeOfDay::of_1970();
        let ahead = day.check().expect("it was set");
        assert!(ahead > Duration::from_secs(40 * 365 * 86_400), "{ahead:?}");
        assert_eq!(day.check(), None);
    }
}
