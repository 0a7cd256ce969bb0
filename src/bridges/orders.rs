//! Commands of operators and changes by reloads, on their way to the thread of a bridge.

use std::time::Instant;

use flume::select::SelectError;
use flume::{Receiver, RecvError, Selector, Sender};

use super::change::Change;
use crate::control::bridge::{BridgeCommand, BridgeIsStopped};
use crate::control::{Refused, Reply};
use crate::transport::bridge::Event;

/// Commands that wait for the thread of a bridge at most; further ones are refused.
const COMMANDS_MAX: usize = 4;
/// Commands and changes that wait at most. A reload whose change finds no room fails for this bridge.
const WAITING_MAX: usize = COMMANDS_MAX + 8;

/// What the thread of a bridge is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// A command of an operator.
    Command {
        /// What to do.
        command: BridgeCommand,
        /// The way back for its outcome.
        reply: Reply<Result<(), BridgeIsStopped>>,
    },
    /// A reload has found another table, or none any more.
    Change(Change),
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
    /// A command or a change.
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
    /// Sends a command to the thread. The reply is given when it is carried out.
    pub fn send(&self, command: BridgeCommand, reply: Reply<Result<(), BridgeIsStopped>>) {
        if self.sender.len() >= COMMANDS_MAX {
            return reply.refuse(Refused::Busy);
        }
        if let Err(refused) = self.sender.try_send(Order::Command { command, reply })
            && let Order::Command { reply, .. } = refused.into_inner()
        {
            reply.refuse(Refused::Busy);
        }
    }

    /// Whether there is room for a change.
    pub fn has_room(&self) -> bool {
        !self.sender.is_full()
    }

    /// Sends a change to the thread; whether there is room for it.
    pub fn change(&self, change: Change) -> bool {
        self.sender.try_send(Order::Change(change)).is_ok()
    }

    /// The next order that is there already.
    pub fn next(&self) -> Option<Order> {
        self.receiver.try_recv().ok()
    }

    /// Waits for an order, or for the stop of the broker, until `deadline`.
    pub fn wait(&self, stopped: &Receiver<()>, deadline: Instant) -> Heard {
        let selector = Selector::new()
            .recv(stopped, |_| Heard::Stopped)
            .recv(&self.receiver, |order| order.map_or(Heard::Stopped, Heard::Order));
        within(selector.wait_deadline(deadline))
    }

    /// Waits for an event of a connection, or for an order if `takes_orders`, until `deadline`.
    pub fn wait_on(
        &self,
        events: &Receiver<Event>,
        takes_orders: bool,
        deadline: Instant,
    ) -> Heard {
        let mut selector = Selector::new().recv(events, heard);
        if takes_orders {
            selector =
                selector.recv(&self.receiver, |order| order.map_or(Heard::Stopped, Heard::Order));
        }
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
    use crate::control::{Replies, replies};

    fn send(orders: &Orders, command: BridgeCommand) -> Replies<Result<(), BridgeIsStopped>> {
        let (to, replies) = replies();
        orders.send(command, to.core(0));
        replies
    }

    #[test]
    fn a_thread_that_is_busy_takes_a_few_commands_and_changes_and_refuses_the_others() {
        let orders = Orders::default();
        let waiting: Vec<_> =
            (0..COMMANDS_MAX).map(|_| send(&orders, BridgeCommand::Reconnect)).collect();
        let refused = send(&orders, BridgeCommand::Stop).try_next();
        assert!(matches!(refused, Some((_, Err(Refused::Busy)))), "{refused:?}");
        assert!(waiting.iter().all(|replies| replies.try_next().is_none()));
        let change = || orders.change(Change::End { drops_queue: false });
        assert!((COMMANDS_MAX..WAITING_MAX).all(|_| change()), "there is room for changes");
        assert!(!change());
        let Some(Order::Command { reply, .. }) = orders.next() else { panic!("it waits") };
        reply.send(Ok(()));
        assert!(matches!(waiting[0].try_next(), Some((_, Ok(Ok(()))))));
    }

    #[test]
    fn what_comes_first_ends_the_time_of_waiting() {
        let (orders, far) =
            (Orders::default(), Instant::now() + std::time::Duration::from_secs(60));
        let (running, stopped) = flume::bounded(0);
        let (sender, events) = flume::bounded(1);
        let _reply = send(&orders, BridgeCommand::Stop);
        assert!(matches!(orders.wait(&stopped, far), Heard::Order(_)));
        assert!(matches!(orders.wait(&stopped, Instant::now()), Heard::Nothing));
        sender.send(Event::Discarded).expect("there is room");
        let _reply = send(&orders, BridgeCommand::Stop);
        assert!(matches!(orders.wait_on(&events, false, far), Heard::Event(Event::Discarded)));
        assert!(matches!(orders.wait_on(&events, false, Instant::now()), Heard::Nothing));
        assert!(matches!(orders.wait_on(&events, true, far), Heard::Order(_)));
        drop(sender);
        assert!(matches!(orders.wait_on(&events, true, far), Heard::Gone));
        drop(running);
        assert!(matches!(orders.wait(&stopped, far), Heard::Stopped));
    }
}
