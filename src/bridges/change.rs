//! Changes of a running bridge by a reload, on their way to its connection and to its session.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::leaving;
use super::worker::Worker;
use crate::config::bridge::changes::{self, Effect};
use crate::config::bridge::{Bridge, BridgeQueue};
use crate::control::bridge::{BridgeDue, BridgeOrder, KeptBridge, LinkOrder};
use crate::control::{Command, Cores, EngineCommand};
use crate::transport::bridge::Terms;

/// How long the cores may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// After this time a core is asked again: it knows a connection only once its session is open.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a connection may take to end, before its socket is closed.
const END: Duration = Duration::from_secs(10);

/// What a reload makes of a bridge.
#[derive(Debug)]
pub(super) enum Change {
    /// Another table of the same name.
    To(Box<Bridge>, Box<Terms>),
    /// The same for a connection that makes room for others: it takes no more messages, and ends once its queue is sent.
    Leave(Box<Bridge>, Box<Terms>),
    /// The table is gone.
    End {
        /// Whether the session here is dropped with its queue.
        drops_queue: bool,
    },
}

impl Change {
    /// What it means for a bridge with this table; none if the bridge ends.
    fn effect(&self, bridge: &Bridge) -> Option<Effect> {
        match self {
            Self::To(wanted, _) | Self::Leave(wanted, _) => {
                Some(changes::change(bridge, wanted).effect)
            }
            Self::End { .. } => None,
        }
    }
}

/// What becomes of a change for which a connection is there.
#[derive(Debug)]
pub(super) enum Begun {
    /// It is under way.
    Here,
    /// It needs another connection.
    Elsewhere(Change),
    /// It waits until the connection has ended by itself.
    Later(Change),
}

/// A change on its way to the connection that there is.
#[derive(Debug, Default)]
pub(super) struct Changing {
    /// What the core has not taken yet.
    order: Option<LinkOrder>,
    /// When it is asked again.
    again: Option<Instant>,
    /// When the socket is closed.
    closes: Option<Instant>,
    /// The bridge ends: whether its queue is dropped.
    ends: Option<bool>,
    /// Nothing changes any more.
    pub is_last: bool,
    /// The far broker has nothing left of the bridge.
    pub is_given_up: bool,
    /// The bridge has other terms than when the connection began.
    pub is_adapted: bool,
}

impl Changing {
    /// Of a connection that ends the session at the far broker.
    pub fn ending() -> Self {
        Self { is_last: true, ..Self::default() }
    }

    /// When to call [`Self::go_on`], if at all.
    pub fn due(&self) -> Option<Instant> {
        self.again.into_iter().chain(self.closes).min()
    }

    /// A change for a connection that the far broker has accepted.
    pub fn begin(&mut self, worker: &mut Worker, change: Change) -> Begun {
        match (change.effect(&worker.bridge), &change) {
            (Some(Effect::Deferred), Change::To(..)) => return Begun::Later(change),
            (Some(Effect::Deferred | Effect::Reconnects), _) => return Begun::Elsewhere(change),
            _ => {}
        }
        worker.leaves |= matches!(change, Change::Leave(..));
        self.order = Some(match change {
            Change::To(bridge, mut terms) | Change::Leave(bridge, mut terms) => {
                // What CONNECT has announced.
                terms.packet_bytes_max = worker.terms.packet_bytes_max;
                terms.receive_maximum = worker.terms.receive_maximum;
                terms.topic_alias_maximum = worker.terms.topic_alias_maximum;
                worker.adopt(*bridge, *terms);
                self.is_adapted = true;
                LinkOrder::Change(Arc::clone(&worker.terms))
            }
            Change::End { drops_queue } => {
                (self.ends, self.is_last) = (Some(drops_queue), true);
                self.closes = Some(Instant::now() + END);
                LinkOrder::GiveUp
            }
        });
        self.ask(worker);
        Begun::Here
    }

    /// Asks again what was not done, and closes what has not ended in time.
    pub fn go_on(&mut self, worker: &Worker, socket: Option<&TcpStream>) {
        let now = Instant::now();
        if self.again.is_some_and(|again| again <= now) {
            self.ask(worker);
        }
        if self.closes.is_some_and(|closes| closes <= now) {
            self.closes = None;
            leaving::close(socket);
        }
    }

    /// The end of the bridge, if that is the change.
    pub fn take_end(&mut self) -> Option<Change> {
        self.ends.take().map(|drops_queue| Change::End { drops_queue })
    }

    fn ask(&mut self, worker: &Worker) {
        if let Some(order) = &self.order {
            match worker.order(order) {
                true => (self.order, self.again) = (None, None),
                false => self.again = Some(Instant::now() + AGAIN),
            }
        }
    }
}

impl Worker {
    /// Another table holds from now on.
    pub fn adopt(&mut self, bridge: Bridge, mut terms: Terms) {
        if let (Some(echoes), Some(known)) = (&mut terms.echoes, &self.terms.echoes) {
            *echoes = Arc::clone(known);
        }
        if self.terms.notification != terms.notification {
            self.end_notification();
        }
        self.no_local = true;
        let has_other_queue = self.bridge.queue != bridge.queue;
        (self.bridge, self.terms) = (bridge, Arc::new(terms));
        if has_other_queue {
            self.set_queue();
        }
    }

    /// The topic of the notification has none any more.
    fn end_notification(&self) {
        if let Some(topic) = &self.terms.notification {
            self.publish(topic.to_string(), String::new());
        }
    }

    /// Changes the connection or the session of the bridge; whether a core has done that.
    pub fn order(&self, what: &LinkOrder) -> bool {
        let replies = self.cores.ask_all(|reply| {
            let session = self.terms.session.clone();
            let order = BridgeOrder { session, what: what.clone(), reply };
            Command::Engine(EngineCommand::BridgeOrder(order))
        });
        let deadline = Instant::now() + ANSWER;
        let mut is_done = false;
        while let Some((_, answer)) = replies.next_before(deadline) {
            is_done |= answer == Ok(true);
        }
        is_done
    }

    /// The table of the bridge is gone: its session at the far broker ends, if that has not happened yet, and here it is
    /// kept or dropped.
    pub fn finish(mut self, is_given_up: bool, drops_queue: bool) {
        let bridge = self.bridge.name.clone();
        let is_given_up = is_given_up || self.discard();
        if self.stop.is_requested() {
            return;
        }
        let kept = kept(&self.cores).into_iter().find(|of| *of.name == bridge);
        let KeptBridge { messages, far_subscriptions, .. } = kept.unwrap_or_default();
        if is_given_up {
            self.order(&LinkOrder::Unsubscribed(far_subscriptions.into()));
        } else {
            tracing::warn!(
                bridge,
                client = &*self.terms.client_identifier,
                filters = ?far_subscriptions,
                "the far broker could not be told that the bridge has ended: its session there stays until it expires"
            );
        }
        let session = &*self.terms.session;
        if drops_queue {
            self.order(&LinkOrder::EndSession);
            tracing::info!(bridge, session, messages, "bridge ended, and its queue was dropped");
        } else if self.leaves && self.waiting() == Some(0) {
            self.order(&LinkOrder::EndSession);
            tracing::info!(
                bridge,
                session,
                "a former connection of the bridge has sent its queue and ended"
            );
        } else {
            // Nobody would let them go on.
            self.tick(BridgeDue::Queue(BridgeQueue {
                holds_publishers: false,
                ..self.bridge.queue
            }));
            tracing::warn!(
                bridge,
                session,
                messages,
                "bridge ended; its session is kept with its queue, which goes on: end it with broker ctl session \
                 delete, or let a bridge of this name go on with it"
            );
        }
        self.end_notification();
        self.whole.remove(&self.board);
        self.whole.publish(|topic, payload| self.publish(topic, payload));
    }
}

/// The sessions of bridges that the cores have.
pub(super) fn kept(cores: &Cores) -> Vec<KeptBridge> {
    let replies = cores.ask_all(|reply| Command::Engine(EngineCommand::KeptBridges(reply)));
    let (deadline, mut all) = (Instant::now() + ANSWER, Vec::new());
    while let Some((_, answer)) = replies.next_before(deadline) {
        all.extend(answer.into_iter().flatten());
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
