//! How many messages a publisher may send now: a window of messages in flight, or a timetable. Only
//! counts; uses neither sockets nor a clock.

/// When a publisher sends.
#[derive(Clone, Debug)]
pub enum Pace {
    /// Closed loop: up to a number of messages in flight.
    Window(Window),
    /// Open loop: at scheduled times, whatever the broker does.
    Timetable(Timetable),
}

/// At most `window` undelivered messages, sent in groups of at least `burst`.
#[derive(Clone, Debug)]
pub struct Window {
    window: u64,
    burst: u64,
    receivers: u64,
    sent: u64,
    /// Deliveries that arrived or were given up.
    settled: u64,
}

impl Window {
    /// A window for messages with `receivers` recipients each.
    pub fn new(window: u32, burst: u32, receivers: u32) -> Self {
        assert!(receivers > 0 && 0 < burst && burst <= window, "checked on the command line");
        let (window, burst) = (u64::from(window), u64::from(burst));
        Self { window, burst, receivers: u64::from(receivers), sent: 0, settled: 0 }
    }

    fn due(&self) -> u64 {
        // Deliveries are counted over all receivers together: one division per burst instead of one
        // counter per message. A slow receiver can thereby let the others run ahead by at most the
        // window.
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
    /// A timetable with a constant interval.
    pub fn new(first_ns: f64, interval_ns: f64) -> Self {
        assert!(interval_ns > 0.0, "checked on the command line");
        Self { first_ns, interval_ns, sent: 0 }
    }

    fn due_ns(&self, index: u64) -> u64 {
        (self.first_ns + index as f64 * self.interval_ns) as u64
    }

    /// Advances to the next message; returns the number of the one that was due.
    pub fn pass(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    /// When the next message is due.
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
    /// Number of messages to send at `now_ns`.
    #[inline]
    pub fn due(&self, now_ns: u64) -> u64 {
        match self {
            Self::Window(window) => window.due(),
            Self::Timetable(timetable) => timetable.due(now_ns),
        }
    }

    /// Records that the next message is sent; returns the time for its stamp. In an open loop that
    /// is the scheduled time, so that every delay counts.
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

    /// When the next message is due, if it depends only on time.
    pub fn next_ns(&self) -> Option<u64> {
        match self {
            Self::Window(_) => None,
            Self::Timetable(timetable) => Some(timetable.next_ns()),
        }
    }

    /// Records that `deliveries` arrived or never will.
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
    fn a_window_limits_undelivered_messages() {
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
    fn a_burst_is_sent_as_a_whole() {
        let mut pace = Pace::Window(Window::new(4, 3, 1));
        (0..4).for_each(|_| _ = pace.sent(0));
        pace.settle(2);
        assert_eq!(pace.due(0), 0);
        pace.settle(1);
        assert_eq!(pace.due(0), 3);
    }

    #[test]
    fn a_timetable_keeps_its_times_regardless_of_delays() {
        let mut pace = Pace::Timetable(Timetable::new(100.0, 10.0));
        assert_eq!(pace.due(99), 0);
        assert_eq!((pace.due(100), pace.next_ns()), (1, Some(100)));
        assert_eq!(pace.due(125), 3);
        assert_eq!((pace.sent(125), pace.sent(125), pace.sent(125)), (100, 110, 120));
        assert_eq!(pace.due(125), 0);
    }
}
