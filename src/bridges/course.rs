//! What the thread of a bridge does between connections: what it learns from the last one, and orders that come
//! meanwhile.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::board::Standing;
use super::change::Change;
use super::health::Takeovers;
use super::identity;
use super::orders::{Heard, Order};
use super::worker::{AGAIN, Worker};
use crate::config::bridge::{Bridge, StartMode, Version as Versions};
use crate::control::Reply;
use crate::control::bridge::{BridgeCommand, BridgeIsStopped, BridgeState};
use crate::transport::bridge::Start;
use crate::wire::Version;

/// Shortest pause after a far broker has refused a name, a password or a Client Identifier.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Connections in a row that a far broker ends instead of answering SUBSCRIBE, after which No Local may be the reason.
const NO_LOCAL_DOUBTS: u8 = 2;

/// How a connection ended.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The session from before has ended.
    pub is_discarded: bool,
    /// How long the far broker had accepted it.
    pub lasted: Option<Duration>,
    /// Another client has taken the session there over.
    pub is_taken_over: bool,
    /// It was refused because of the name, the password or the Client Identifier.
    pub is_identity_refused: bool,
    /// TLS has failed, or cannot be begun.
    pub is_tls_failed: bool,
    /// The version is not supported there.
    pub is_version_refused: bool,
    /// The reason.
    pub why: Option<String>,
    /// What a reload has changed meanwhile, and holds from now on.
    pub deferred: Option<Change>,
    /// The order that has ended it.
    pub order: Option<Order>,
    /// It has ended because there was no traffic.
    pub is_idle: bool,
    /// It has ended because the first server is there again.
    pub is_returning: bool,
    /// A server was connected to, which may not have accepted the bridge.
    pub is_reached: bool,
    /// The far broker has nothing left of the bridge.
    pub is_given_up: bool,
    /// The far broker may have ended it because of No Local.
    pub is_no_local_doubted: bool,
    /// The far broker grants subscriptions only without No Local.
    pub is_no_local_refused: bool,
    /// Another table holds since it began: the session may not have the subscriptions of all its rules.
    pub is_adapted: bool,
}

/// What the thread remembers from one connection to the next.
#[derive(Debug)]
pub(super) struct Course {
    /// What becomes of the session at the far broker.
    pub start: Start,
    backoff: Backoff,
    takeovers: Takeovers,
    /// The protocol versions to try, and the place of the current one.
    dialects: Vec<Dialect>,
    dialect: usize,
    /// The session has the subscriptions of the table.
    pub is_registered: bool,
    /// Connections in a row that the far broker may have ended because of No Local.
    no_local_doubts: u8,
    /// No connection is made.
    pub is_stopped: bool,
    /// No connection is made until messages wait.
    pub is_idle: bool,
    /// The table is gone: whether the queue is dropped.
    pub end: Option<bool>,
    /// The far broker has nothing left of the bridge.
    pub is_given_up: bool,
}

/// A protocol version to try; the second field is the bit of bridges before 5.0.
pub(super) type Dialect = (Version, bool);

/// The protocol versions that a bridge tries.
pub(super) fn dialects(bridge: &Bridge) -> Vec<Dialect> {
    use Version::{V5, V31, V311};
    let all: &[Dialect] = match bridge.version {
        Versions::Auto => &[(V5, false), (V311, true), (V311, false)],
        Versions::V5 => &[(V5, false)],
        Versions::V311 => &[(V311, true), (V311, false)],
        Versions::V31 => &[(V31, true), (V31, false)],
    };
    all.iter().copied().filter(|(_, is_bridge)| bridge.bridge_bit || !is_bridge).collect()
}

impl Course {
    /// At the start of the thread.
    pub fn new(bridge: &Bridge) -> Self {
        Self {
            start: Start::Resume,
            backoff: Backoff::new(&bridge.reconnect),
            takeovers: Takeovers::default(),
            dialects: dialects(bridge),
            dialect: 0,
            is_registered: false,
            no_local_doubts: 0,
            is_stopped: bridge.start == StartMode::Manual,
            is_idle: bridge.start == StartMode::Lazy,
            end: None,
            is_given_up: false,
        }
    }

    /// The protocol version of the next connection.
    pub fn dialect(&self) -> Dialect {
        self.dialects[self.dialect]
    }

    /// Another table holds from now on. A bridge that is stopped stays so.
    fn begin_again(&mut self, bridge: &Bridge) {
        self.backoff = Backoff::new(&bridge.reconnect);
        self.takeovers = Takeovers::default();
        (self.dialects, self.dialect) = (dialects(bridge), 0);
        self.is_registered = false;
        if self.is_idle && bridge.start != StartMode::Lazy {
            self.is_idle = false;
            self.is_stopped = bridge.start == StartMode::Manual;
        }
    }
}

impl Worker {
    /// Learns from a connection that has ended. Returns how long to wait before the next one; none for no time.
    pub fn conclude(&mut self, mut outcome: Outcome, course: &mut Course) -> Option<Duration> {
        if outcome.is_discarded {
            course.start = Start::First;
        } else if outcome.lasted.is_some() {
            course.start = Start::Resume;
        }
        if outcome.is_adapted {
            course.is_registered = false;
            course.backoff = Backoff::new(&self.bridge.reconnect);
        }
        course.is_given_up = outcome.is_given_up;
        self.note_end(&outcome);
        self.learn_of_no_local(&outcome, course);
        if let Some(change) = outcome.deferred.take() {
            self.carry_out(Order::Change(change), course);
        }
        if let Some(order) = outcome.order {
            self.carry_out(order, course);
            return None;
        }
        course.is_idle = outcome.is_idle;
        if outcome.is_discarded || outcome.is_idle || outcome.is_returning {
            return None;
        }
        let stable = Duration::from_secs(self.bridge.reconnect.stable_s.into());
        if outcome.lasted.is_some_and(|lasted| lasted >= stable) {
            course.backoff.reset();
        }
        if outcome.is_version_refused && self.has_next_dialect(course) {
            return None;
        }
        self.choose_server(&outcome);
        match self.bridge.start {
            StartMode::Once => {
                self.end_only_attempt(&outcome, course);
                None
            }
            _ => Some(self.fall_back(&outcome, course)),
        }
    }

    /// A bridge that connects once stays without a connection until it is started.
    fn end_only_attempt(&self, outcome: &Outcome, course: &mut Course) {
        let why = outcome.why.as_deref().unwrap_or("connection lost");
        course.is_stopped = true;
        let state = BridgeState::Stopped;
        self.tell(Standing { state, why: Some(why.to_owned()), ..Standing::default() });
        let bridge = &*self.bridge.name;
        tracing::warn!(
            bridge,
            why,
            "bridge is not connected, and connects again when it is started, as its start is \"once\""
        );
        self.bound_queue();
    }

    /// A far broker may refuse subscriptions with No Local, or end the connection: it is not asked for it any more.
    fn learn_of_no_local(&mut self, outcome: &Outcome, course: &mut Course) {
        course.no_local_doubts = match outcome.is_no_local_doubted {
            true => course.no_local_doubts.saturating_add(1),
            false => 0,
        };
        if outcome.is_no_local_refused {
            self.no_local = false;
        } else if self.no_local && course.no_local_doubts >= NO_LOCAL_DOUBTS {
            self.no_local = false;
            let bridge = &*self.bridge.name;
            tracing::warn!(
                bridge,
                "the far broker ends connections that subscribe with No Local (MQTT 5.0): it is not asked for it any \
                 more, and what it sends back is recognised by its path and by what was sent lately"
            );
        }
    }

    /// Whether there is another protocol version to try.
    fn has_next_dialect(&self, course: &mut Course) -> bool {
        course.dialect = (course.dialect + 1) % course.dialects.len();
        if course.dialect > 0 {
            let (version, _) = course.dialect();
            let bridge = &*self.bridge.name;
            tracing::info!(bridge, version = version.name(), "trying another protocol version");
        }
        course.dialect > 0
    }

    /// Says that the bridge is not connected; how long to wait.
    fn fall_back(&self, outcome: &Outcome, course: &mut Course) -> Duration {
        let why = outcome.why.as_deref().unwrap_or("connection lost");
        let backoff = &mut course.backoff;
        let (state, pause) = match self.is_conflict(outcome, &mut course.takeovers) {
            true => (BridgeState::Conflict, backoff.longest()),
            false if outcome.is_identity_refused => {
                let pause = backoff.next(identity::random()).max(REFUSED_PAUSE);
                (BridgeState::Refused, pause)
            }
            false if outcome.is_tls_failed => (BridgeState::Tls, backoff.next(identity::random())),
            false => (BridgeState::Down, backoff.next(identity::random())),
        };
        self.tell(Standing { state, why: Some(why.to_owned()), ..Standing::default() });
        let (bridge, retry_ms) = (&*self.bridge.name, pause.as_millis() as u64);
        tracing::warn!(bridge, why, retry_ms, "bridge is not connected");
        self.bound_queue();
        pause
    }

    /// Whether another client uses the Client Identifier of the bridge, so that each ends the other's connection.
    fn is_conflict(&self, outcome: &Outcome, takeovers: &mut Takeovers) -> bool {
        // Both wait that long at most, and have the session in turn.
        let calm_after = AGAIN + 2 * Duration::from_secs(self.bridge.reconnect.most_s.into());
        let Outcome { is_taken_over, lasted, .. } = *outcome;
        let is_conflict = takeovers.note(is_taken_over, lasted, calm_after, Instant::now());
        if is_conflict {
            let (bridge, client) = (&*self.bridge.name, &*self.terms.client_identifier);
            tracing::warn!(
                bridge,
                client,
                "two brokers use one Client Identifier at the far broker, and each ends the other's connection; give \
                 one of them another client_identifier"
            );
        }
        is_conflict
    }

    /// Waits before an attempt, or until an order ends the wait. Returns whether the thread ends.
    pub fn rest(&mut self, pause: Option<Duration>, course: &mut Course) -> bool {
        let deadline = pause.map(|pause| Instant::now() + pause);
        loop {
            let until = deadline.unwrap_or_else(|| Instant::now() + AGAIN);
            match self.board.orders.wait(&self.stopped, until) {
                Heard::Order(order) => {
                    if self.carry_out(order, course) {
                        return course.end.is_some();
                    }
                }
                Heard::Stopped => return true,
                _ if deadline.is_some() => return false,
                _ => self.bound_queue(),
            }
        }
    }

    /// Carries out an order while there is no connection. Returns whether the time of waiting is over.
    fn carry_out(&mut self, order: Order, course: &mut Course) -> bool {
        match order {
            Order::Command { command, reply } => self.obey(command, reply, course),
            Order::Change(Change::End { drops_queue }) => {
                course.end = Some(drops_queue);
                true
            }
            Order::Change(change) => {
                self.leaves |= matches!(change, Change::Leave(..));
                let (Change::To(bridge, terms) | Change::Leave(bridge, terms)) = change else {
                    return false;
                };
                self.adopt(*bridge, *terms);
                course.begin_again(&self.bridge);
                if !course.is_idle && !course.is_stopped {
                    self.tell(Standing::default());
                }
                true
            }
        }
    }

    fn obey(
        &self,
        command: BridgeCommand,
        reply: Reply<Result<(), BridgeIsStopped>>,
        course: &mut Course,
    ) -> bool {
        if course.is_stopped && command != BridgeCommand::Start {
            reply.send(match command {
                BridgeCommand::Stop => Ok(()),
                _ => Err(BridgeIsStopped),
            });
            return false;
        }
        let is_over = course.is_stopped || course.is_idle || command != BridgeCommand::Start;
        if is_over {
            let bridge = &*self.bridge.name;
            tracing::info!(bridge, action = command.name(), "command to a bridge");
            course.backoff.reset();
            course.is_stopped = command == BridgeCommand::Stop;
            course.is_idle = false;
            let state = match course.is_stopped {
                true => BridgeState::Stopped,
                false => BridgeState::Starting,
            };
            self.tell(Standing { state, ..Standing::default() });
        }
        if command == BridgeCommand::ResetSession {
            course.start = Start::Discard;
        }
        reply.send(Ok(()));
        is_over
    }
}
