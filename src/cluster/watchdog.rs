//! Whether this node's connection to the engine still carries anything.
//!
//! A node sends itself an *echo* through the server that it is connected to, every 500 ms. A stopped process does not answer,
//! but the kernel acknowledges what arrives for it, and a client's own ping notices nothing for many seconds. After two
//! seconds without an echo the caller connects to another server.

use crate::base::clock::{Deadline, Now};
use crate::cluster::limits::{ECHO_INTERVAL, ECHO_LIMIT};

/// Bytes of an echo: its number, in little-endian order, after the incarnation of its sender.
pub const ECHO_BYTES: usize = 16;

/// What the caller has to do, see [`Watchdog::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// To publish these bytes to this node's own subject.
    Echo([u8; ECHO_BYTES]),
    /// To leave the server for another one, and to say so with [`Watchdog::connected`].
    Reconnect,
}

/// Watches the connection to the engine.
#[derive(Debug)]
pub struct Watchdog {
    incarnation: u64,
    /// The number of the last echo, and the lowest one that the present connection has sent.
    sent: u64,
    first: u64,
    next_at: Deadline,
    /// When the server is left; none without a connection.
    limit: Option<Deadline>,
    /// When the last echo was sent, for the round trip.
    sent_at: Now,
    round_trip_us: Option<u64>,
    reconnects: u64,
}

impl Watchdog {
    /// A watchdog without a connection. The incarnation is this node's: echoes of an earlier one do not count.
    pub fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            sent: 0,
            first: 1,
            next_at: Deadline::at_us(0),
            limit: None,
            sent_at: Now(0),
            round_trip_us: None,
            reconnects: 0,
        }
    }

    /// The engine is connected, to the same or another server. Earlier echoes do not count any more.
    pub fn connected(&mut self, now: Now) {
        self.first = self.sent + 1;
        self.next_at = Deadline::at_us(now.0);
        self.limit = Some(now.after(ECHO_LIMIT));
    }

    /// The client library has lost its connection and connects again by itself.
    pub fn disconnected(&mut self) {
        self.limit = None;
    }

    /// What is due, until none.
    pub fn poll(&mut self, now: Now) -> Option<Order> {
        let limit = self.limit?;
        if limit.is_due(now) {
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
        let mut echo = [0; ECHO_BYTES];
        echo[..8].copy_from_slice(&self.incarnation.to_le_bytes());
        echo[8..].copy_from_slice(&self.sent.to_le_bytes());
        Some(Order::Echo(echo))
    }

    /// A message on this node's own subject has come. Other bytes than those of an echo are ignored.
    pub fn handle_echo(&mut self, now: Now, bytes: &[u8]) {
        let Ok(echo) = <[u8; ECHO_BYTES]>::try_from(bytes) else { return };
        let (&incarnation, number) = echo.split_first_chunk().expect("eight of sixteen bytes");
        let number = u64::from_le_bytes(number.try_into().expect("the other eight"));
        let is_own = u64::from_le_bytes(incarnation) == self.incarnation;
        if !is_own || number < self.first || number > self.sent || self.limit.is_none() {
            return;
        }
        self.limit = Some(now.after(ECHO_LIMIT));
        if number == self.sent {
            self.round_trip_us = Some(now.since_us(self.sent_at));
        }
    }

    /// When [`poll`](Self::poll) has something; none without a connection.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.limit.map(|limit| limit.min(self.next_at))
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
