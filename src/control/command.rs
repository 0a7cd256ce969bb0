//! Commands to a core, and the way back for their replies.

use std::fmt;
use std::sync::mpsc;
use std::time::Instant;

use crate::base::latencies::Recording;
use crate::base::metrics::Metrics;

/// A command to one core. Each variant carries the way back for its own type of reply.
#[derive(Debug)]
pub enum Command {
    /// Liveness probe: a reply shows that the core takes turns.
    Probe(Reply<()>),
    /// Statistics since the last reply. The reply is given at the end of the turn.
    Statistics {
        /// An empty recording with which the core continues.
        empty: Box<Recording>,
        /// The way back.
        reply: Reply<Statistics>,
    },
    /// A command that the core's engine executes.
    Engine(EngineCommand),
}

/// A command that a core's engine executes, over several turns if need be.
#[derive(Debug)]
pub enum EngineCommand {
    /// Check the credentials and subscriptions of all clients against the access rules in force. The reply is given
    /// when all have been checked.
    CheckAccess(Reply<AccessChecked>),
}

/// What came of [`EngineCommand::CheckAccess`] on one core, and in the same turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessChecked {
    /// Clients disconnected, because their credentials no longer hold.
    pub clients_disconnected: u64,
    /// Subscriptions ended, because the rules no longer allow them.
    pub subscriptions_ended: u64,
}

/// What a core has recorded and counted.
#[derive(Debug)]
pub struct Statistics {
    /// Latencies since the previous reply.
    pub recording: Box<Recording>,
    /// Counters since the start.
    pub metrics: Metrics,
}

impl Command {
    /// Answers a command that was not accepted.
    pub(super) fn refuse(self, refused: Refused) {
        match self {
            Self::Probe(reply) => reply.refuse(refused),
            Self::Statistics { reply, .. } => reply.refuse(refused),
            Self::Engine(EngineCommand::CheckAccess(reply)) => reply.refuse(refused),
        }
    }
}

/// Why a core does not execute a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The core's queue is full.
    Full,
    /// The core has stopped, before the command or while the command waited.
    Stopped,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the core's command queue is full; try again later",
            Self::Stopped => "the core has stopped",
        })
    }
}

impl std::error::Error for Refused {}

type Answer<T> = (usize, Result<T, Refused>);

/// The way back for the reply to one command. Dropping it without a reply answers [`Refused::Stopped`], so that
/// nobody waits for a core that is gone.
#[derive(Debug)]
pub struct Reply<T> {
    core: usize,
    to: Option<mpsc::Sender<Answer<T>>>,
}

impl<T> Reply<T> {
    /// Sends the reply.
    pub fn send(mut self, reply: T) {
        self.answer(Ok(reply));
    }

    fn refuse(mut self, refused: Refused) {
        self.answer(Err(refused));
    }

    fn answer(&mut self, answer: Result<T, Refused>) {
        if let Some(to) = self.to.take() {
            // Nobody waits for the reply any more.
            let _ = to.send((self.core, answer));
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.answer(Err(Refused::Stopped));
    }
}

/// Makes the ways back that one [`Replies`] collects.
#[derive(Debug)]
pub struct ReplyTo<T>(mpsc::Sender<Answer<T>>);

impl<T> ReplyTo<T> {
    /// The way back for a command to this core.
    pub fn core(&self, core: usize) -> Reply<T> {
        Reply { core, to: Some(self.0.clone()) }
    }
}

/// Replies to commands, in the order in which they arrive.
#[derive(Debug)]
pub struct Replies<T>(mpsc::Receiver<Answer<T>>);

/// A collector of replies, and what makes the ways back to it.
pub fn replies<T>() -> (ReplyTo<T>, Replies<T>) {
    let (to, from) = mpsc::channel();
    (ReplyTo(to), Replies(from))
}

impl<T> Replies<T> {
    /// Waits for the next reply, with the core that it comes from. None after `deadline`, and once every core
    /// has answered.
    pub fn next_before(&self, deadline: Instant) -> Option<Answer<T>> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.0.recv_timeout(left).ok()
    }

    /// The next reply that is there already.
    pub fn try_next(&self) -> Option<Answer<T>> {
        self.0.try_recv().ok()
    }
}
