//! Bridges that connect when messages wait, and disconnect when there is no traffic.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::board::Standing;
use super::course::Course;
use super::worker::Worker;
use crate::config::bridge::{Bridge, StartMode};
use crate::control::bridge::{BridgeQueues, BridgeState, QueueSize};
use crate::control::{Command, EngineCommand};
use crate::transport::bridge::Counters;

/// How often the queue and the traffic are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the cores may take to say what waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// The traffic of a connection that ends without it.
#[derive(Debug)]
pub(super) struct Traffic {
    counters: Arc<Counters>,
    /// How long there may be none; none if the connection stays.
    idle: Option<Duration>,
    /// Messages at the last look, and since when it has been so many.
    seen: (u64, Instant),
}

impl Traffic {
    /// The traffic from now on.
    pub fn new(bridge: &Bridge, counters: &Arc<Counters>) -> Self {
        let counters = Arc::clone(counters);
        let seen = (messages(&counters), Instant::now());
        Self { counters, idle: idle(bridge), seen }
    }

    /// Another table of the bridge holds from now on.
    pub fn adapt(&mut self, bridge: &Bridge) {
        if self.idle.is_none() {
            self.seen = (messages(&self.counters), Instant::now());
        }
        self.idle = idle(bridge);
    }

    /// When to look again, if at all.
    pub fn next_look(&self) -> Option<Instant> {
        self.idle.map(|_| Instant::now() + LOOK)
    }

    /// Whether there was no message for too long.
    pub fn has_ceased(&mut self) -> bool {
        let Some(idle) = self.idle else { return false };
        let now = messages(&self.counters);
        if self.seen.0 != now {
            self.seen = (now, Instant::now());
        }
        self.seen.1.elapsed() >= idle
    }
}

/// How long a bridge may have no traffic; none if it stays connected.
fn idle(bridge: &Bridge) -> Option<Duration> {
    let is_lazy = bridge.start == StartMode::Lazy;
    is_lazy.then(|| Duration::from_secs(bridge.idle_s.into()))
}

fn messages(counters: &Counters) -> u64 {
    counters.sent.load(Ordering::Relaxed) + counters.received.load(Ordering::Relaxed)
}

impl Worker {
    /// Waits until enough messages wait, or an order ends the wait. Returns whether the thread ends.
    pub fn await_messages(&mut self, course: &mut Course) -> bool {
        self.tell(Standing { state: BridgeState::Idle, ..Standing::default() });
        while course.is_idle && course.is_registered {
            self.bound_queue();
            if self.waiting().is_some_and(|waiting| waiting >= self.bridge.lazy_messages.into()) {
                course.is_idle = false;
            } else if self.rest(Some(LOOK), course) {
                return true;
            }
        }
        false
    }

    /// How many messages wait or are in flight; none if the core of the session has not answered.
    pub fn waiting(&self) -> Option<u64> {
        let replies = self.cores.ask_all(|reply| {
            let sessions = Arc::from([self.terms.session.clone()]);
            Command::Engine(EngineCommand::BridgeQueues(BridgeQueues { sessions, reply }))
        });
        let deadline = Instant::now() + PATIENCE;
        while let Some((_, answer)) = replies.next_before(deadline) {
            let queue = answer.ok().and_then(|queues| queues.first().copied().flatten());
            if let Some(QueueSize { messages, inflight, .. }) = queue {
                return Some(messages + inflight);
            }
        }
        None
    }
}
