//! Control plane: how other threads reach the cores of a running broker.
//!
//! | file | what it does |
//! | --- | --- |
//! | `command` | typed commands to a core, and their typed replies |
//! | `bridge` | connections of bridges to other brokers |
//! | `question`, `answer` | questions and commands of an operator, and their answers |
//! | `drain` | sends clients and sessions to other nodes of the cluster |
//! | `span` | sampled messages, on their way to the exporter of telemetry |
//! | `trace` | packets of some clients, on their way to an operator |
//! | `listener` | listening sockets on their way to cores, and which are open |
//! | `stop` | the request to stop |
//! | `reload` | certificates, access rules and whatever else is read again on SIGHUP |
//! | `webhooks` | events for webhooks, and the queues to the threads that send them |
//! | `turns` | reports a core that does not finish its turn |
//!
//! Each core has an [`Inbox`]: a word of signals ([`crate::base::notifier`]) and a bounded queue of commands. The
//! executor takes both once a turn, in `executor/core.rs` and so on every executor. A core that has nothing to take
//! pays for one load.
//!
//! A thread sends commands through [`Cores`]. Every command is answered: by the core, with [`Refused::Full`] when
//! the queue has no room, or with [`Refused::Stopped`] when the core has ended. So nobody waits for ever, and a slow
//! core delays nobody but those who wait for its reply.
//!
//! What cores tell each other does not pass here but through the mesh (`engine/mesh`).

#[cfg(feature = "admin")]
pub mod answer;
pub mod bridge;
pub mod cluster;
mod command;
pub mod drain;
pub mod listener;
pub mod log;
#[cfg(feature = "admin")]
pub mod question;
#[cfg(not(feature = "admin"))]
#[path = "question_absent.rs"]
pub mod question;
pub mod reload;
#[cfg(feature = "admin")]
pub mod span;
pub mod stop;
#[cfg(test)]
mod tests;
#[cfg(feature = "admin")]
pub mod trace;
pub mod turns;
pub mod webhooks;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::base::notifier::{Notifier, Signal, Signals};
pub use command::{
    AccessChecked, Command, EngineCommand, Refused, Replies, Reply, ReplyTo, Statistics, replies,
};
use turns::Turns;

/// Commands that wait for a core at most.
pub const QUEUE_MAX: usize = 64;

/// All cores of a running broker; clones are the same ones.
#[derive(Clone, Debug)]
pub struct Cores(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    notifiers: Arc<[Notifier]>,
    queues: Box<[Queue]>,
    turns: Box<[Turns]>,
}

/// Commands that wait for one core; none once the core has stopped.
#[derive(Debug)]
struct Queue(Mutex<Option<VecDeque<Command>>>);

impl Queue {
    fn locked(&self) -> std::sync::MutexGuard<'_, Option<VecDeque<Command>>> {
        // No code that can panic runs with the lock held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, command: Command) -> Result<(), (Refused, Command)> {
        match &mut *self.locked() {
            None => Err((Refused::Stopped, command)),
            Some(queue) if queue.len() >= QUEUE_MAX => Err((Refused::Full, command)),
            Some(queue) => {
                queue.push_back(command);
                Ok(())
            }
        }
    }
}

impl Cores {
    /// The cores that these notify, and the inbox of each.
    pub fn new(notifiers: Arc<[Notifier]>) -> (Self, Vec<Inbox>) {
        let queue = |_| Queue(Mutex::new(Some(VecDeque::new())));
        let queues: Box<[_]> = notifiers.iter().map(queue).collect();
        let turns = notifiers.iter().map(|_| Turns::default()).collect();
        let cores = Self(Arc::new(Shared { notifiers, queues, turns }));
        let inboxes = (0..cores.count()).map(|core| Inbox { core, cores: cores.clone() }).collect();
        (cores, inboxes)
    }

    /// The number of cores.
    pub fn count(&self) -> usize {
        self.0.notifiers.len()
    }

    /// Sends a command to a core and wakes the core. A refused command has been answered as well.
    pub fn send(&self, core: usize, command: Command) -> Result<(), Refused> {
        match self.0.queues[core].push(command) {
            Ok(()) => {
                self.0.notifiers[core].notify(Signal::Commands);
                Ok(())
            }
            Err((refused, command)) => {
                command.refuse(refused);
                Err(refused)
            }
        }
    }

    /// Sends a command to every core; `command` makes it from the way back.
    pub fn ask_all<T>(&self, command: impl Fn(Reply<T>) -> Command) -> Replies<T> {
        let (to, replies) = replies();
        for core in 0..self.count() {
            // The refusal is among the replies.
            let _ = self.send(core, command(to.core(core)));
        }
        replies
    }

    /// Asks every core for a sign of life.
    pub fn probe(&self) -> Probe {
        Probe { replies: self.ask_all(Command::Probe), responsive: vec![false; self.count()] }
    }

    /// Signals a core.
    pub fn signal(&self, core: usize, signal: Signal) {
        self.0.notifiers[core].notify(signal);
    }

    /// Wakes a core.
    pub fn wake(&self, core: usize) {
        // The core notices at its next timer.
        if let Err(error) = self.0.notifiers[core].wake() {
            rated!(warn, log_rate::now(), %error, core, "cannot wake a core");
        }
    }

    /// Wakes every core.
    pub fn wake_all(&self) {
        for notifier in &*self.0.notifiers {
            // The core notices at its next timer.
            let _ = notifier.wake();
        }
    }

    /// The turns of each core.
    fn turns(&self) -> &[Turns] {
        &self.0.turns
    }
}

/// A liveness probe of all cores.
#[derive(Debug)]
pub struct Probe {
    replies: Replies<()>,
    responsive: Vec<bool>,
}

impl Probe {
    /// The cores that have taken no turn since the probe was sent.
    pub fn unresponsive(&mut self) -> Vec<usize> {
        while let Some((core, answer)) = self.replies.try_next() {
            self.responsive[core] |= answer.is_ok();
        }
        let cores = self.responsive.iter().enumerate();
        cores.filter(|(_, is_responsive)| !**is_responsive).map(|(core, _)| core).collect()
    }
}

/// One core's end of the control plane. Dropping it answers the commands that wait.
#[derive(Debug)]
pub struct Inbox {
    core: usize,
    cores: Cores,
}

impl Inbox {
    /// All cores, this one included.
    pub fn cores(&self) -> &Cores {
        &self.cores
    }

    /// A turn begins.
    pub fn begin_turn(&self) {
        self.cores.0.turns[self.core].begin();
    }

    /// The turn ends.
    pub fn end_turn(&self) {
        self.cores.0.turns[self.core].end();
    }

    /// Whether something was signalled since signals were taken last: then the core does not sleep. An executor may
    /// have consumed the wake-up with an earlier one.
    pub fn has_signals(&self) -> bool {
        self.cores.0.notifiers[self.core].has_signals()
    }

    /// Takes what was signalled since the last turn.
    #[inline]
    pub fn take_signals(&self) -> Signals {
        self.cores.0.notifiers[self.core].take()
    }

    /// The next command, when [`Signal::Commands`] was among the signals.
    pub fn next_command(&mut self) -> Option<Command> {
        self.cores.0.queues[self.core].locked().as_mut()?.pop_front()
    }

    /// The core has stopped: commands that wait, and those that follow, are answered with that.
    pub fn close(&mut self) {
        let waiting = self.cores.0.queues[self.core].locked().take();
        for command in waiting.into_iter().flatten() {
            command.refuse(Refused::Stopped);
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.close();
    }
}
