//! Commands of operators, on their way to the thread of a bridge.

use std::time::Instant;

use flume::select::SelectError;
use flume::{Receiver, RecvError, Selector, Sender, TrySendError};

use crate::control::bridge::{BridgeCommand, BridgeIsStopped};
use crate::control::{Refused, Replies, Reply, replies};
use crate::transport::bridge::Event;

/// Commands that wait for the thread of a bridge at most.
const WAITING_MAX: usize = 4;

/// A command, and the way back for its outcome.
#[derive(Debug)]
pub(super) struct Order {
    pub command: BridgeCommand,
    pub reply: Reply<Result<(), BridgeIsStopped>>,
}

/// Both ends of the way to one thread.
#[derive(Debug)]
pub(super) struct Orders {
    sender: Sender<Order>,
    receiver: Receiver<Order>,
}

impl Default for Orders {
    fn default() -> Self {
        let (sender, receiver) = flume::bounded(WAITING_MAX);
        Self { sender, receiver }
    }
}

/// What ends a time of waiting.
#[derive(Debug)]
pub(super) enum Heard {
    /// A command.
    Order(Order),
    /// An event of the connection.
    Event(Event),
    /// The connection is gone.
    Gone,
    /// The broker has stopped.
    Stopped,
    /// The time is over.
    Nothing,
}

impl Orders {
    /// Sends a command to the thread. The reply comes when it is carried out.
    pub fn send(&self, command: BridgeCommand) -> Replies<Result<(), BridgeIsStopped>> {
        let (to, replies) = replies();
        let reply = to.core(0);
        match self.sender.try_send(Order { command, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(order)) => order.reply.refuse(Refused::Busy),
            Err(TrySendError::Disconnected(order)) => order.reply.refuse(Refused::Stopped),
        }
        replies
    }

    /// The next command that is there already.
    pub fn next(&self) -> Option<Order> {
        self.receiver.try_recv().ok()
    }

    /// Waits for a command, or for the stop of the broker, until `deadline`.
    pub fn wait(&self, stopped: &Receiver<()>, deadline: Instant) -> Heard {
        let selector = Selector::new()
            .recv(stopped, |_| Heard::Stopped)
            .recv(&self.receiver, |order| order.map_or(Heard::Stopped, Heard::Order));
        within(selector.wait_deadline(deadline))
    }

    /// Waits for a command, or for an event of a connection, until `deadline`.
    pub fn wait_on(&self, events: &Receiver<Event>, deadline: Instant) -> Heard {
        let selector = Selector::new()
            .recv(events, heard)
            .recv(&self.receiver, |order| order.map_or(Heard::Stopped, Heard::Order));
        within(selector.wait_deadline(deadline))
    }
}

fn heard(event: Result<Event, RecvError>) -> Heard {
    event.map_or(Heard::Gone, Heard::Event)
}

fn within(outcome: Result<Heard, SelectError>) -> Heard {
    outcome.unwrap_or(Heard::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_busy_takes_a_few_commands_and_refuses_the_others() {
        let orders = Orders::default();
        let waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| orders.send(BridgeCommand::Reconnect)).collect();
        let refused = orders.send(BridgeCommand::Stop).try_next();
        assert!(matches!(refused, Some((_, Err(Refused::Busy)))), "{refused:?}");
        assert!(waiting.iter().all(|replies| replies.try_next().is_none()));
        orders.next().expect("it waits").reply.send(Ok(()));
        assert!(matches!(waiting[0].try_next(), Some((_, Ok(Ok(()))))));
    }

    #[test]
    fn what_comes_first_ends_the_time_of_waiting() {
        let (orders, far) =
            (Orders::default(), Instant::now() + std::time::Duration::from_secs(60));
        let (running, stopped) = flume::bounded(0);
        let (sender, events) = flume::bounded(1);
        let _reply = orders.send(BridgeCommand::Stop);
        assert!(matches!(orders.wait(&stopped, far), Heard::Order(_)));
        assert!(matches!(orders.wait(&stopped, Instant::now()), Heard::Nothing));
        sender.send(Event::Discarded).expect("there is room");
        assert!(matches!(orders.wait_on(&events, far), Heard::Event(Event::Discarded)));
        drop(sender);
        assert!(matches!(orders.wait_on(&events, far), Heard::Gone));
        drop(running);
        assert!(matches!(orders.wait(&stopped, far), Heard::Stopped));
    }
}
