//! How many messages a publisher may send now: a window of messages under way, or a timetable.
//! Pure counting; knows no socket and reads no clock.

/// When a publisher sends.
#[derive(Clone, Debug)]
pub enum Pace {
    /// Closed loop: as many as are under way at most.
    Window(Window),
    /// Open loop: at its times, whatever the broker does.
    Timetable(Timetable),
}

/// At most `window` messages whose deliveries have not all been seen, sent in groups of at least
/// `burst`.
#[derive(Clone, Debug)]
pub struct Window {
    window: u64,
    burst: u64,
    receivers: u64,
    sent: u64,
    /// Deliveries that came or were given up.
    settled: u64,
}

impl Window {
    /// A window for messages that go to `receivers` subscribers each.
    pub fn new(window: u32, burst: u32, receivers: u32) -> Self {
        assert!(receivers > 0 && 0 < burst && burst <= window, "checked on the command line");
        let (window, burst) = (u64::from(window), u64::from(burst));
        Self { window, burst, receivers: u64::from(receivers), sent: 0, settled: 0 }
    }

    fn due(&self) -> u64 {
        // Deliveries are counted over all receivers together: one division a burst instead of a
        // counter for each message. A receiver that falls behind can make the others run ahead by
        // no more than the window.
        let under_way = self.sent - self.settled / self.receivers;
        let free = self.window.saturating_sub(under_way);
        if free >= self.burst { free } else { 0 }
    }
}

/// Message k is due at `first_ns + k * interval_ns`.
#[derive(Clone, Debug)]
pub struct Timetable {
    first_ns: f64,
    interval_ns: f64,
    sent: u64,
}

impl Timetable {
    /// A timetable with an even interval.
    pub fn new(first_ns: f64, interval_ns: f64) -> Self {
        assert!(interval_ns > 0.0, "checked on the command line");
        Self { first_ns, interval_ns, sent: 0 }
    }

    fn due_ns(&self, index: u64) -> u64 {
        (self.first_ns + index as f64 * self.interval_ns) as u64
    }

    /// Go on to the next one; the number of the one that was passed.
    pub fn pass(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    /// When the next one is due.
    pub fn next_ns(&self) -> u64 {
        self.due_ns(self.sent)
    }

    fn due(&self, now_ns: u64) -> u64 {
        let past_ns = now_ns as f64 - self.first_ns;
        if past_ns < 0.0 {
            return 0;
        }
        ((past_ns / self.interval_ns) as u64 + 1).saturating_sub(self.sent)
    }
}

impl Pace {
    /// How many messages to send at `now_ns`.
    #[inline]
    pub fn due(&self, now_ns: u64) -> u64 {
        match self {
            Self::Window(window) => window.due(),
            Self::Timetable(timetable) => timetable.due(now_ns),
        }
    }

    /// Note that the next message goes out; the time for its stamp. In open loop that is when it
    /// was due: a late message was late for its receiver too, whoever held it up.
    #[inline]
    pub fn sent(&mut self, now_ns: u64) -> u64 {
        match self {
            Self::Window(window) => {
                window.sent += 1;
                now_ns
            }
            Self::Timetable(timetable) => {
                timetable.sent += 1;
                timetable.due_ns(timetable.sent - 1)
            }
        }
    }

    /// When the next message is due, if time alone decides.
    pub fn next_ns(&self) -> Option<u64> {
        match self {
            Self::Window(_) => None,
            Self::Timetable(timetable) => Some(timetable.next_ns()),
        }
    }

    /// Note that `deliveries` came or will never come.
    #[inline]
    pub fn settle(&mut self, deliveries: u64) {
        if let Self::Window(window) = self {
            window.settled += deliveries;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lets_no_more_than_itself_go_undelivered() {
        let mut pace = Pace::Window(Window::new(3, 1, 2));
        assert_eq!(pace.due(0), 3);
        for _ in 0..3 {
            assert_eq!(pace.sent(9), 9);
        }
        assert_eq!(pace.due(0), 0);
        pace.settle(1);
        assert_eq!(pace.due(0), 0);
        pace.settle(1);
        assert_eq!(pace.due(0), 1);
    }

    #[test]
    fn a_burst_waits_until_it_is_whole() {
        let mut pace = Pace::Window(Window::new(4, 3, 1));
        (0..4).for_each(|_| _ = pace.sent(0));
        pace.settle(2);
        assert_eq!(pace.due(0), 0);
        pace.settle(1);
        assert_eq!(pace.due(0), 3);
    }

    #[test]
    fn a_timetable_keeps_its_times_however_late_it_is_asked() {
        let mut pace = Pace::Timetable(Timetable::new(100.0, 10.0));
        assert_eq!(pace.due(99), 0);
        assert_eq!((pace.due(100), pace.next_ns()), (1, Some(100)));
        assert_eq!(pace.due(125), 3);
        assert_eq!((pace.sent(125), pace.sent(125), pace.sent(125)), (100, 110, 120));
        assert_eq!(pace.due(125), 0);
    }
}
