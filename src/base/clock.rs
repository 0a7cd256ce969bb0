//! The only time types: instants and deadlines in microseconds of a monotonic clock, which the
//! executor reads once per turn, and instants in nanoseconds for measurements.
//!
//! The engine reads no clock: every input carries a `Now`. A jump of the wall clock therefore
//! changes nothing, and a simulation controls time.

use std::num::NonZero;
use std::time::Duration;

/// An instant: microseconds since the executor started, monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub u64);

/// The instant when something is due, on the same scale as [`Now`]. The value is stored plus one
/// and so never zero, which makes an `Option<Deadline>` no larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(NonZero<u64>);

/// An instant in nanoseconds, on the scale of [`Now`]. Used for measurements only; no decision
/// depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    /// The microsecond that contains this instant.
    pub fn now(self) -> Now {
        Now(self.0 / 1_000)
    }

    /// Nanoseconds since `earlier`; zero if `earlier` is in the future.
    pub fn since_ns(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<Now> for Tick {
    /// The beginning of the microsecond.
    fn from(now: Now) -> Self {
        Self(now.0.saturating_mul(1_000))
    }
}

impl Now {
    /// The instant `duration` after this one; saturates far beyond any uptime.
    pub fn after(self, duration: Duration) -> Deadline {
        Deadline::at_us(self.0.saturating_add(duration.as_micros().try_into().unwrap_or(u64::MAX)))
    }

    /// The instant `seconds` seconds after this one.
    pub fn after_s(self, seconds: u64) -> Deadline {
        Deadline::at_us(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// Whole seconds, which last for 136 years.
    pub fn seconds(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }

    /// Microseconds since `earlier`; zero if `earlier` is in the future.
    pub fn since_us(self, earlier: Now) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Deadline {
    /// The instant `us` microseconds after the executor's start.
    pub fn at_us(us: u64) -> Self {
        Self(NonZero::<u64>::MIN.saturating_add(us))
    }

    /// Microseconds since the executor's start.
    pub fn us(self) -> u64 {
        self.0.get() - 1
    }

    /// Whether the deadline has been reached.
    pub fn is_due(self, now: Now) -> bool {
        self.us() <= now.0
    }

    /// Seconds left, rounded up, so that a message that has not expired never shows zero.
    pub fn seconds_left(self, now: Now) -> u32 {
        self.us().saturating_sub(now.0).div_ceil(1_000_000).min(u64::from(u32::MAX)) as u32
    }

    /// Time left until the deadline; zero once due.
    pub fn time_left(self, now: Now) -> Duration {
        Duration::from_micros(self.us().saturating_sub(now.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_left_rounds_up_and_ends_at_zero() {
        let deadline = Now(500_000).after_s(2);
        assert_eq!(deadline.seconds_left(Now(500_000)), 2);
        assert_eq!(deadline.seconds_left(Now(500_001)), 2);
        assert_eq!(deadline.seconds_left(Now(1_500_001)), 1);
        assert_eq!(deadline.seconds_left(Now(2_500_000)), 0);
        assert!(deadline.is_due(Now(2_500_000)) && !deadline.is_due(Now(2_499_999)));
    }

    #[test]
    fn a_deadline_beyond_the_scale_saturates() {
        assert_eq!(Now(u64::MAX - 1).after_s(u64::MAX), Deadline::at_us(u64::MAX));
    }
}
