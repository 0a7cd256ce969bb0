//! Whether this node's connection to the engine still carries anything.
//!
//! A node sends itself an *echo* through the server that it is connected to, every 500 ms. A stopped process does not answer,
//! but the kernel acknowledges what arrives for it, and a client's own ping notices nothing for many seconds. After two
//! seconds without an echo the caller connects to another server. A node that was itself stopped in that time waits for
//! another two.

use crate::base::clock::{Deadline, Now};
use crate::cluster::limits::{ECHO_INTERVAL, ECHO_LIMIT};

/// What the caller has to do, see [`Watchdog::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// To send this number to this node itself, on a subject that no other start of a node has.
    Echo(u64),
    /// To leave the server for another one, and to say so with [`Watchdog::connected`].
    Reconnect,
}

/// Watches the connection to the engine.
#[derive(Debug)]
pub struct Watchdog {
    /// The number of the last echo, and the lowest one that the present connection has sent.
    sent: u64,
    first: u64,
    next_at: Deadline,
    /// When the server is left; none without a connection.
    limit: Option<Deadline>,
    /// When the caller last looked.
    looked_at: Now,
    /// When the last echo was sent, for the round trip.
    sent_at: Now,
    round_trip_us: Option<u64>,
    reconnects: u64,
}

impl Default for Watchdog {
    /// A watchdog without a connection.
    fn default() -> Self {
        Self {
            sent: 0,
            first: 1,
            next_at: Deadline::at_us(0),
            limit: None,
            looked_at: Now(0),
            sent_at: Now(0),
            round_trip_us: None,
            reconnects: 0,
        }
    }
}

impl Watchdog {
    /// The engine is connected, to the same or another server. Earlier echoes do not count any more.
    pub fn connected(&mut self, now: Now) {
        self.first = self.sent + 1;
        self.next_at = Deadline::at_us(now.0);
        self.limit = Some(now.after(ECHO_LIMIT));
        self.looked_at = now;
    }

    /// The client library has lost its connection and connects again by itself.
    pub fn disconnected(&mut self) {
        self.limit = None;
    }

    /// What is due, until none.
    pub fn poll(&mut self, now: Now) -> Option<Order> {
        let limit = self.limit?;
        let was_stopped = self.looked_at.after(ECHO_INTERVAL * 2).is_due(now);
        self.looked_at = now;
        if limit.is_due(now) && was_stopped {
            self.limit = Some(now.after(ECHO_LIMIT));
        } else if limit.is_due(now) {
            self.limit = None;
            self.reconnects += 1;
            return Some(Order::Reconnect);
        }
        if !self.next_at.is_due(now) {
            return None;
        }
        self.next_at = now.after(ECHO_INTERVAL);
        self.sent += 1;
        self.sent_at = now;
        Some(Order::Echo(self.sent))
    }

    /// An echo has come. One that another server still had is ignored.
    pub fn handle_echo(&mut self, now: Now, number: u64) {
        if number < self.first || number > self.sent || self.limit.is_none() {
            return;
        }
        self.limit = Some(now.after(ECHO_LIMIT));
        if number == self.sent {
            self.round_trip_us = Some(now.since_us(self.sent_at));
        }
    }

    /// When [`poll`](Self::poll) has something; none without a connection.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        // Not `limit.min(next_at)`: with optimizations, rustc 1.95 takes the result for `Some` without a limit too, as the
        // smaller of two values that are not zero.
        self.limit.map(|limit| Deadline::at_us(limit.us().min(self.next_at.us())))
    }

    /// The time of the last echo on its way through the engine, in microseconds.
    pub fn round_trip_us(&self) -> Option<u64> {
        self.round_trip_us
    }

    /// How often the server was left.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    fn echo(order: Option<Order>) -> u64 {
        match order {
            Some(Order::Echo(number)) => number,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_echo_leaves_every_half_second_and_its_return_keeps_the_server() {
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.poll(Now(0)), None, "no connection");
        assert_eq!(watchdog.poll_timeout(), None);
        watchdog.connected(Now(0));
        for number in 0..100 {
            let now = Now(number * 500 * MS);
            let bytes = echo(watchdog.poll(now));
            assert_eq!(watchdog.poll(now), None);
            assert_eq!(watchdog.poll_timeout(), Some(now.after(ECHO_INTERVAL)));
            watchdog.handle_echo(Now(now.0 + 300), bytes);
            assert_eq!(watchdog.round_trip_us(), Some(300));
        }
        assert_eq!(watchdog.reconnects(), 0);
    }

    #[test]
    fn two_seconds_without_an_echo_change_the_server_once() {
        let mut watchdog = Watchdog::default();
        watchdog.connected(Now(0));
        let last = echo(watchdog.poll(Now(0)));
        watchdog.handle_echo(Now(100 * MS), last);
        for ms in (500..2_100).step_by(500) {
            echo(watchdog.poll(Now(ms * MS)));
        }
        assert_eq!(watchdog.poll(Now(2_099 * MS)), None);
        assert_eq!(watchdog.poll_timeout(), Some(Deadline::at_us(2_100 * MS)));
        assert_eq!(watchdog.poll(Now(2_100 * MS)), Some(Order::Reconnect));
        assert_eq!(watchdog.poll(Now(9_000 * MS)), None);
        assert_eq!(watchdog.reconnects(), 1);
        watchdog.connected(Now(9_000 * MS));
        // An echo that the other server still had says nothing about this one.
        echo(watchdog.poll(Now(9_000 * MS)));
        watchdog.handle_echo(Now(10_900 * MS), last);
        watchdog.handle_echo(Now(10_900 * MS), 99);
        for ms in (9_500..11_000).step_by(500) {
            echo(watchdog.poll(Now(ms * MS)));
        }
        assert_eq!(watchdog.poll(Now(11_000 * MS)), Some(Order::Reconnect));
    }

    #[test]
    fn a_node_that_was_stopped_itself_does_not_blame_the_server() {
        let mut watchdog = Watchdog::default();
        watchdog.connected(Now(0));
        echo(watchdog.poll(Now(0)));
        let bytes = echo(watchdog.poll(Now(30_000 * MS)));
        watchdog.handle_echo(Now(30_001 * MS), bytes);
        echo(watchdog.poll(Now(30_500 * MS)));
        assert_eq!(watchdog.reconnects(), 0);
        // It has the same time again, and no more.
        for ms in (31_000..32_001).step_by(500) {
            echo(watchdog.poll(Now(ms * MS)));
        }
        assert_eq!(watchdog.poll(Now(32_001 * MS)), Some(Order::Reconnect));
    }

    #[test]
    fn a_library_that_connects_again_by_itself_is_left_alone() {
        let mut watchdog = Watchdog::default();
        watchdog.connected(Now(0));
        echo(watchdog.poll(Now(0)));
        watchdog.disconnected();
        assert_eq!(watchdog.poll(Now(5_000 * MS)), None);
        assert_eq!(watchdog.poll_timeout(), None);
        watchdog.connected(Now(5_000 * MS));
        echo(watchdog.poll(Now(5_000 * MS)));
    }
}
