//! Which of its servers a bridge connects to: the one that its table prefers, and back to it once it is there again.

use std::thread;
use std::time::{Duration, Instant};

use flume::{Receiver, TryRecvError};

use super::course::Outcome;
use super::dial;
use super::running::STACK_BYTES;
use super::worker::Worker;
use crate::config::bridge::Prefer;

/// How often the answer of the first server is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// Longest time between two looks whether the first server is there again.
const RARELY: Duration = Duration::from_secs(3_600);
/// Returns without success, after which that time does not grow any more.
const FAILED_MAX: u32 = 12;

/// Whether the first server is there again, while the bridge is connected to another one. Another thread asks, as names
/// and addresses may take their time.
#[derive(Debug, Default)]
pub(super) struct Returning {
    /// When it is asked next.
    next: Option<Instant>,
    /// Its answer.
    answer: Option<Receiver<bool>>,
}

impl Returning {
    /// Of a connection to the server of the worker.
    pub fn new(worker: &Worker) -> Self {
        let mut of = Self::default();
        of.adapt(worker);
        of
    }

    /// Another table holds from now on.
    pub fn adapt(&mut self, worker: &Worker) {
        let prefers_other = worker.bridge.prefer == Prefer::First && worker.server > 0;
        self.next = prefers_other.then(|| Instant::now() + worker.until_return());
        self.answer = None;
    }

    /// When to call [`Self::is_possible`], if at all.
    pub fn due(&self) -> Option<Instant> {
        self.answer.as_ref().map_or(self.next, |_| Some(Instant::now() + LOOK))
    }

    /// Whether the first server has answered. Asks it if that is due.
    pub fn is_possible(&mut self, worker: &Worker) -> bool {
        match self.answer.as_ref().map(Receiver::try_recv) {
            Some(Ok(true)) => return true,
            Some(Err(TryRecvError::Empty)) => return false,
            Some(Ok(false) | Err(TryRecvError::Disconnected)) => {
                self.answer = None;
                self.next = Some(Instant::now() + worker.until_return());
            }
            None => {}
        }
        if self.next.is_some_and(|next| next <= Instant::now()) {
            self.answer = Some(ask(worker));
        }
        false
    }
}

/// Asks the first server for a connection, which is closed at once.
fn ask(worker: &Worker) -> Receiver<bool> {
    let (sender, answer) = flume::bounded(1);
    let bridge = worker.bridge.clone();
    let name = format!("bridge {}", bridge.name);
    let look = move || {
        let first = bridge.servers.first();
        let is_there = first.is_some_and(|server| dial::connect(server, &bridge).is_ok());
        // The connection may have ended meanwhile.
        let _ = sender.send(is_there);
    };
    // Without a thread there is no answer.
    let _ = thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(look);
    answer
}

impl Worker {
    /// How long to wait before the first server is asked whether it is there again: longer each time when it is, and
    /// does not accept the bridge.
    fn until_return(&self) -> Duration {
        let most = Duration::from_secs(self.bridge.reconnect.most_s.into());
        (most * 2u32.pow(self.failed_returns.min(FAILED_MAX))).clamp(most, RARELY.max(most))
    }

    /// A connection has ended, or was not made.
    pub fn note_end(&mut self, outcome: &Outcome) {
        let is_accepted = outcome.lasted.is_some();
        if std::mem::replace(&mut self.is_returning, outcome.is_returning) {
            self.failed_returns = match self.server == 0 && is_accepted {
                true => 0,
                false => self.failed_returns.saturating_add(1),
            };
        }
        if self.bridge.prefer == Prefer::First && is_accepted {
            self.server = 0;
        }
    }

    /// An attempt to connect is over: chooses the server that the next one begins with.
    pub fn choose_server(&mut self, outcome: &Outcome) {
        self.server = match self.bridge.prefer {
            // A server that can be reached and does not accept the bridge must not keep it from the others.
            Prefer::First if outcome.lasted.is_some() || !outcome.is_reached => 0,
            Prefer::First | Prefer::Any => self.server.wrapping_add(1),
        };
    }
}
