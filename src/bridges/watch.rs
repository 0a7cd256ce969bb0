//! A connection as the thread of its bridge sees it: what it hears of it, orders, and what is due.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use flume::Receiver;

use super::board::Standing;
use super::change::{Begun, Change, Changing};
use super::course::Outcome;
use super::health::{Refused, is_about_identity};
use super::lazy::Traffic;
use super::orders::{Heard, Order};
use super::prefer::Returning;
use super::worker::{AGAIN, Worker};
use super::{leaving, token};
use crate::base::log_rate::{self, rated};
use crate::config::bridge::Server;
use crate::control::bridge::{BridgeCommand, BridgeDue, BridgeState, LinkOrder};
use crate::transport::bridge::Event;
use crate::wire::ReasonCode;

/// How often a connection that ends once its queue is sent looks at it.
const LOOK: Duration = Duration::from_secs(1);
/// Signs of life in a Keep Alive.
const TICKS: u32 = 4;
/// Looks at the acknowledgements in the time after which a connection is stalled.
const STALL_LOOKS: u32 = 4;
/// Return code before 5.0: unacceptable protocol version.
const VERSION_REFUSED: u8 = 1;

/// A connection that is watched.
pub(super) struct Watched<'a> {
    server: &'a Server,
    events: Receiver<Event>,
    socket: Option<TcpStream>,
    /// When its token is about to end.
    renews: Option<Instant>,
    changing: Changing,
    /// What a reload has changed, and holds when the connection has ended by itself.
    deferred: Option<Change>,
    outcome: Outcome,
    /// When the far broker has accepted it.
    since: Option<Instant>,
    refused: Refused,
    traffic: Traffic,
    interval: Duration,
    next_tick: Instant,
    /// When it is looked next whether the far broker acknowledges messages.
    next_stall_look: Instant,
    returning: Returning,
    /// When the far broker is asked again for what it has refused.
    again: Option<Instant>,
}

impl<'a> Watched<'a> {
    /// A connection of this bridge that has been handed over to a core. `socket` is its socket.
    pub fn new(
        worker: &Worker,
        server: &'a Server,
        events: Receiver<Event>,
        socket: Option<TcpStream>,
        renews: Option<Instant>,
        changing: Changing,
    ) -> Self {
        let interval = Duration::from_secs(worker.bridge.keep_alive_s.into()) / TICKS;
        Self {
            server,
            events,
            socket,
            renews,
            changing,
            deferred: None,
            outcome: Outcome::default(),
            since: None,
            refused: Refused::default(),
            traffic: Traffic::new(&worker.bridge, &worker.board.counters),
            interval,
            next_tick: Instant::now() + interval,
            next_stall_look: Instant::now() + stall_interval(worker),
            returning: Returning::new(worker),
            again: None,
        }
    }

    /// When something is due.
    fn due(&self) -> Instant {
        let looks = [
            self.again,
            self.traffic.next_look(),
            self.renews,
            self.changing.due(),
            self.returning.due(),
            Some(self.next_stall_look),
        ];
        looks.into_iter().flatten().fold(self.next_tick, Instant::min)
    }

    fn conclude(mut self) -> Outcome {
        self.outcome.lasted = self.since.map(|since| since.elapsed());
        self.outcome.is_adapted = self.changing.is_adapted;
        self.outcome.is_given_up = self.changing.is_given_up;
        if let Some(end) = self.changing.take_end() {
            self.outcome.order = Some(Order::Change(end));
        }
        self.outcome.deferred = self.deferred;
        self.outcome
    }
}

fn stall_interval(worker: &Worker) -> Duration {
    Duration::from_secs(worker.bridge.stalled_s.into()) / STALL_LOOKS
}

impl Worker {
    /// Watches a connection until it ends, its token does, or an order needs another one.
    pub fn watch(&mut self, mut of: Watched<'_>) -> Outcome {
        loop {
            let takes_orders = !of.changing.is_last;
            let due = if self.leaves { of.due().min(Instant::now() + LOOK) } else { of.due() };
            let is_over = match self.board.orders.wait_on(&of.events, takes_orders, due) {
                Heard::Event(event) => self.hear(event, &mut of),
                Heard::Order(order) => self.take(order, &mut of),
                Heard::Gone | Heard::Stopped => true,
                Heard::Nothing => self.do_what_is_due(&mut of),
            };
            if is_over {
                return of.conclude();
            }
        }
    }

    /// An event of the connection. Returns whether the connection has ended.
    fn hear(&self, event: Event, of: &mut Watched<'_>) -> bool {
        let (outcome, server) = (&mut of.outcome, of.server);
        match event {
            Event::Connected { session_present } => {
                of.since = Some(Instant::now());
                // The session may be a new one.
                self.bound_queue();
                self.tell(Standing {
                    state: BridgeState::Up,
                    server: Some(server.to_string()),
                    session_present: Some(session_present),
                    ..Standing::default()
                });
                let bridge = &*self.bridge.name;
                tracing::info!(bridge, %server, session_present, "bridge connected");
            }
            Event::Discarded => outcome.is_discarded = true,
            Event::GivenUp => of.changing.is_given_up = true,
            Event::Unsubscribed(filters) => {
                self.order(&LinkOrder::Unsubscribed(filters.into()));
            }
            Event::Refused { code, what } => {
                outcome.is_version_refused =
                    code == VERSION_REFUSED || code == ReasonCode::UnsupportedProtocolVersion as u8;
                outcome.is_identity_refused = is_about_identity(code);
                outcome.why = Some(format!("the far broker has refused the connection: {what}"));
            }
            Event::Ended { why } => {
                outcome.why = outcome.why.take().or(why);
                return true;
            }
            Event::TlsFailed => outcome.is_tls_failed = true,
            Event::TakenOver => outcome.is_taken_over = true,
            Event::NoLocalDoubted => outcome.is_no_local_doubted = true,
            Event::NoLocalRefused => {
                outcome.is_no_local_refused = true;
                let bridge = &*self.bridge.name;
                tracing::warn!(
                    bridge,
                    "the far broker grants subscriptions only without No Local (MQTT 5.0): what it sends back is \
                     recognised by its path and by what was sent lately"
                );
            }
            other => {
                self.log(other, &mut of.refused);
                let again = of.again.unwrap_or(Instant::now() + AGAIN);
                of.again = of.refused.is_any_there().then_some(again);
            }
        }
        false
    }

    /// An order while there is a connection. Returns whether the connection has ended for it.
    fn take(&mut self, order: Order, of: &mut Watched<'_>) -> bool {
        let is_open = of.since.is_some();
        let order = match order {
            Order::Command { command: BridgeCommand::Start, reply } => {
                reply.send(Ok(()));
                return false;
            }
            Order::Change(change) if is_open => match of.changing.begin(self, change) {
                Begun::Elsewhere(change) => Order::Change(change),
                Begun::Later(change) => {
                    let bridge = &*self.bridge.name;
                    tracing::info!(
                        bridge,
                        "the reload holds for the next connection of the bridge"
                    );
                    of.deferred = Some(change);
                    return false;
                }
                Begun::Here => {
                    of.deferred = None;
                    of.traffic.adapt(&self.bridge);
                    of.returning.adapt(self);
                    of.next_stall_look = Instant::now() + stall_interval(self);
                    let wanted = &self.terms.out;
                    let is_wanted =
                        |filter: &str| wanted.local_filters().any(|(of, _)| of == filter);
                    if of.refused.retain_here(is_wanted) {
                        self.note_refused(&of.refused);
                    }
                    return false;
                }
            },
            order => order,
        };
        leaving::leave(&self.cores, &self.terms.session, &of.events, of.socket.as_ref(), is_open);
        of.outcome.order = Some(order);
        true
    }

    /// Does what is due. Returns whether the connection has ended for it.
    fn do_what_is_due(&mut self, of: &mut Watched<'_>) -> bool {
        let now = Instant::now();
        of.changing.go_on(self, of.socket.as_ref());
        if of.renews.take_if(|renews| *renews <= now).is_some() {
            // Its core sees that, and the session is kept.
            leaving::close(of.socket.as_ref());
            of.outcome.why = Some(token::ENDS.to_owned());
            return false;
        }
        if of.again.is_some_and(|again| again <= now) {
            self.tick(BridgeDue::Subscriptions);
            of.again = Some(now + AGAIN);
        }
        if of.next_tick <= now {
            self.tick(BridgeDue::SignOfLife);
            self.bound_queue();
            of.next_tick = now + of.interval;
        }
        if of.next_stall_look <= now {
            self.tick(BridgeDue::Acknowledgements);
            of.next_stall_look = now + stall_interval(self);
        }
        let may_leave = of.since.is_some() && !of.changing.is_last;
        if may_leave && self.leaves && of.changing.due().is_none() && self.waiting() == Some(0) {
            // Nothing comes any more, and nothing is left.
            of.changing.begin(self, Change::End { drops_queue: false });
        }
        if may_leave && of.traffic.has_ceased() && self.waiting() == Some(0) {
            leaving::leave(&self.cores, &self.terms.session, &of.events, of.socket.as_ref(), true);
            of.outcome.is_idle = true;
        }
        if may_leave && !self.leaves && !of.outcome.is_idle && of.returning.is_possible(self) {
            self.leave_for_first(of);
        }
        of.outcome.is_idle || of.outcome.is_returning
    }

    /// The first server is there again: ends the connection to another one for it.
    fn leave_for_first(&self, of: &mut Watched<'_>) {
        let bridge = &*self.bridge.name;
        if let Some(first) = self.bridge.servers.first() {
            tracing::info!(bridge, server = %first, "the first server is there again; bridge connects to it");
        }
        leaving::leave(&self.cores, &self.terms.session, &of.events, of.socket.as_ref(), true);
        of.outcome.is_returning = true;
        self.tell(Standing::default());
    }

    fn log(&self, event: Event, refused: &mut Refused) {
        let bridge = &*self.bridge.name;
        match event {
            Event::Subscribed { refused: filters } => {
                for (filter, code) in refused.set_there(filters) {
                    tracing::warn!(
                        bridge,
                        filter,
                        code,
                        "the far broker has refused a subscription"
                    );
                }
                if refused.why().is_none() {
                    tracing::info!(bridge, "the far broker has granted all subscriptions");
                }
                self.note_refused(refused);
            }
            Event::SessionRefused { filter, what } => {
                tracing::warn!(bridge, why = what, "this broker does not let the bridge subscribe");
                refused.note_here(filter, what);
                self.note_refused(refused);
            }
            Event::MessageRefused { refusal, topic } => {
                let what = match refusal.drops() {
                    true => "it is dropped",
                    false => "it is sent again on the next connection",
                };
                rated!(
                    warn,
                    log_rate::now(),
                    bridge,
                    topic,
                    reason = refusal.name(),
                    "the far broker has refused a message; {what}"
                );
            }
            Event::Loop { topic, path } => {
                rated!(
                    warn,
                    log_rate::now(),
                    bridge,
                    topic,
                    path,
                    "a message came back by a loop of bridges and is dropped"
                );
            }
            Event::Registered { .. }
            | Event::Discarded
            | Event::GivenUp
            | Event::Unsubscribed(_)
            | Event::Connected { .. }
            | Event::Refused { .. }
            | Event::TakenOver
            | Event::TlsFailed
            | Event::NoLocalRefused
            | Event::NoLocalDoubted
            | Event::Ended { .. } => {}
        }
    }

    /// Notes subscriptions that are refused, or are not any more.
    fn note_refused(&self, refused: &Refused) {
        self.board.degrade(refused.why());
        self.publish_state();
    }
}
