//! What the clients of a run know of each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Messages that a publisher may be ahead of its slowest subscriber: their queues stay far below their limits.
const LEAD_MAX: u64 = 600;

/// Counts by publisher and subscriber, and the end of the run.
pub struct Traffic {
    is_over: AtomicBool,
    /// Nodes to which no load balancer would send clients, a bit for each.
    closed: AtomicU64,
    subscribers: usize,
    /// For each publisher, the messages for all that each subscriber got.
    got: Vec<Vec<AtomicU64>>,
}

impl Traffic {
    pub fn new(publishers: usize, subscribers: usize) -> Self {
        let got = || (0..subscribers).map(|_| AtomicU64::new(0)).collect();
        Self {
            is_over: AtomicBool::new(false),
            closed: AtomicU64::new(0),
            subscribers,
            got: (0..publishers).map(|_| got()).collect(),
        }
    }

    pub fn subscribers(&self) -> usize {
        self.subscribers
    }

    pub fn end(&self) {
        self.is_over.store(true, Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    /// Clients connect to a node no more, or again.
    pub fn set_open(&self, node: usize, is_open: bool) {
        match is_open {
            true => self.closed.fetch_and(!(1 << node), Relaxed),
            false => self.closed.fetch_or(1 << node, Relaxed),
        };
    }

    pub fn is_open(&self, node: usize) -> bool {
        self.closed.load(Relaxed) & (1 << node) == 0
    }

    pub fn note(&self, publisher: usize, subscriber: usize, is_for_all: bool) {
        if is_for_all {
            self.got[publisher][subscriber].fetch_add(1, Relaxed);
        }
    }

    /// Whether a publisher that has sent so many messages, half of them for all, may send another one.
    pub fn may_send(&self, publisher: usize, sent: u64) -> bool {
        let slowest = self.got[publisher].iter().map(|of| of.load(Relaxed)).min().unwrap_or(0);
        sent / 2 < slowest + LEAD_MAX / 2
    }
}
