//! The thread of one bridge.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError};

use super::backoff::Backoff;
use super::board::{Board, Standing};
use super::encryption::Encryption;
use super::health::{Refused, Takeovers, is_about_identity};
use super::lazy::Traffic;
use super::orders::{Heard, Order};
use super::token::{self, Renewal};
use super::{board, dial, identity, leaving};
use crate::base::log_rate::{self, rated};
use crate::base::secret_file;
use crate::config::bridge::{Bridge, BridgeQueue, Profile, Server, StartMode, Version as Versions};
use crate::control::bridge::{
    BridgeCommand, BridgeDue, BridgeIsStopped, BridgeState, BridgeTick, Dialed,
};
use crate::control::stop::Stop;
use crate::control::{Command, Cores, EngineCommand, replies};
use crate::transport::Transport;
use crate::transport::bridge::{Attempt, Event, FarEnd, Link, Report, Start, Terms, notification};
use crate::wire::{ReasonCode, Version};

/// Events that wait for the thread at most; further ones are dropped, except that the end of the connection shows anyway.
const EVENTS_MAX: usize = 256;
/// How long the registration of the session may take.
const REGISTRATION: Duration = Duration::from_secs(30);
/// Signs of life in a Keep Alive.
const TICKS: u32 = 4;
/// Time before the far broker is asked again for what it has refused.
const AGAIN: Duration = Duration::from_secs(60);
/// Shortest pause after a far broker has refused a name, a password or a Client Identifier.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Return code before 5.0: unacceptable protocol version.
const VERSION_REFUSED: u8 = 1;

/// What the thread works with.
pub(super) struct Worker {
    pub terms: Arc<Terms>,
    pub bridge: Bridge,
    pub cores: Cores,
    pub board: Arc<Board>,
    /// Whether the broker stops.
    pub stop: Stop,
    /// Disconnected once it has stopped.
    pub stopped: Receiver<()>,
}

/// How a connection ended.
#[derive(Debug, Default)]
struct Outcome {
    /// The session from before has ended.
    is_discarded: bool,
    /// How long the far broker had accepted it.
    lasted: Option<Duration>,
    /// Another client has taken the session there over.
    is_taken_over: bool,
    /// It was refused because of the name, the password or the Client Identifier.
    is_identity_refused: bool,
    /// The version is not supported there.
    is_version_refused: bool,
    /// The reason.
    why: Option<String>,
    /// The command that has ended it.
    order: Option<Order>,
    /// It has ended because there was no traffic.
    is_idle: bool,
}

/// What the thread remembers from one connection to the next.
#[derive(Debug)]
pub(super) struct Course {
    /// What becomes of the session at the far broker.
    start: Start,
    backoff: Backoff,
    takeovers: Takeovers,
    /// The protocol versions to try, and the place of the current one.
    dialects: Vec<Dialect>,
    dialect: usize,
    /// No connection is made.
    pub is_stopped: bool,
    /// No connection is made until messages wait.
    pub is_idle: bool,
}

/// A protocol version to try; the second field is the bit of bridges before 5.0.
type Dialect = (Version, bool);

fn dialects(version: Versions, has_bit: bool) -> Vec<Dialect> {
    use Version::{V5, V31, V311};
    let all: &[Dialect] = match version {
        Versions::Auto => &[(V5, false), (V311, true), (V311, false)],
        Versions::V5 => &[(V5, false)],
        Versions::V311 => &[(V311, true), (V311, false)],
        Versions::V31 => &[(V31, true), (V31, false)],
    };
    all.iter().copied().filter(|(_, is_bridge)| has_bit || !is_bridge).collect()
}

impl Worker {
    /// Serves the bridge until the broker stops.
    pub fn run(self) {
        let Some(session_present) = self.register_until_done() else { return };
        self.bound_queue();
        let mut course = Course {
            // A new session uses Packet Identifiers from 1 on, which the far broker may remember from an earlier one.
            start: if session_present { Start::Resume } else { Start::Discard },
            backoff: Backoff::new(&self.bridge.reconnect),
            takeovers: Takeovers::default(),
            dialects: dialects(self.bridge.version, self.bridge.bridge_bit),
            dialect: 0,
            is_stopped: self.bridge.start == StartMode::Manual,
            is_idle: self.bridge.start == StartMode::Lazy,
        };
        if course.is_stopped {
            self.tell(Standing { state: BridgeState::Stopped, ..Standing::default() });
        }
        loop {
            if course.is_idle && !course.is_stopped && self.await_messages(&mut course) {
                return;
            }
            let pause = match course.is_stopped {
                true => None,
                false => {
                    let outcome = self.attempt(&course);
                    if self.stop.is_requested() {
                        return;
                    }
                    match self.conclude(outcome, &mut course) {
                        Some(pause) => Some(pause),
                        None => continue,
                    }
                }
            };
            if self.rest(pause, &mut course) {
                return;
            }
        }
    }

    /// Learns from a connection that has ended. Returns how long to wait before the next one; none for no time.
    fn conclude(&self, outcome: Outcome, course: &mut Course) -> Option<Duration> {
        let name = &*self.bridge.name;
        if outcome.is_discarded {
            course.start = Start::First;
        } else if outcome.lasted.is_some() {
            course.start = Start::Resume;
        }
        if let Some(order) = outcome.order {
            self.carry_out(order, course);
            return None;
        }
        course.is_idle = outcome.is_idle;
        if outcome.is_discarded || outcome.is_idle {
            return None;
        }
        let stable = Duration::from_secs(self.bridge.reconnect.stable_s.into());
        if outcome.lasted.is_some_and(|lasted| lasted >= stable) {
            course.backoff.reset();
        }
        if outcome.is_version_refused {
            course.dialect = (course.dialect + 1) % course.dialects.len();
            if course.dialect > 0 {
                let (version, _) = course.dialects[course.dialect];
                tracing::info!(
                    bridge = name,
                    version = version.name(),
                    "trying another protocol version"
                );
                return None;
            }
        }
        let why = outcome.why.as_deref().unwrap_or("connection lost");
        let backoff = &mut course.backoff;
        let (state, pause) = match self.is_conflict(&outcome, &mut course.takeovers) {
            true => (BridgeState::Conflict, backoff.longest()),
            false if outcome.is_identity_refused => {
                let pause = backoff.next(identity::random()).max(REFUSED_PAUSE);
                (BridgeState::Refused, pause)
            }
            false => (BridgeState::Down, backoff.next(identity::random())),
        };
        self.tell(Standing { state, why: Some(why.to_owned()), ..Standing::default() });
        let retry_ms = pause.as_millis() as u64;
        tracing::warn!(bridge = name, why, retry_ms, "bridge is not connected");
        self.bound_queue();
        Some(pause)
    }

    /// Waits before an attempt, or until a command starts the bridge. Returns whether the broker stops.
    pub fn rest(&self, pause: Option<Duration>, course: &mut Course) -> bool {
        let deadline = pause.map(|pause| Instant::now() + pause);
        loop {
            let until = deadline.unwrap_or_else(|| Instant::now() + AGAIN);
            match self.board.orders.wait(&self.stopped, until) {
                Heard::Order(order) => {
                    if self.carry_out(order, course) {
                        return false;
                    }
                }
                Heard::Stopped => return true,
                _ if deadline.is_some() => return false,
                _ => self.bound_queue(),
            }
        }
    }

    /// Carries out a command while there is no connection. Returns whether the time of waiting is over.
    fn carry_out(&self, order: Order, course: &mut Course) -> bool {
        let Order { command, reply } = order;
        if course.is_stopped && command != BridgeCommand::Start {
            reply.send(match command {
                BridgeCommand::Stop => Ok(()),
                _ => Err(BridgeIsStopped),
            });
            return false;
        }
        let is_over = course.is_stopped || course.is_idle || command != BridgeCommand::Start;
        if is_over {
            tracing::info!(
                bridge = &*self.bridge.name,
                action = command.name(),
                "command to a bridge"
            );
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

    /// Waits; whether the broker stops.
    fn pause(&self, pause: Duration) -> bool {
        matches!(self.stopped.recv_timeout(pause), Err(RecvTimeoutError::Disconnected))
    }

    /// Makes sure that the session exists. None if the broker stops.
    fn register_until_done(&self) -> Option<bool> {
        loop {
            match self.register() {
                Ok(session_present) => return Some(session_present),
                Err(why) => {
                    let name = &*self.bridge.name;
                    tracing::error!(bridge = name, why, "cannot open the session of a bridge");
                }
            }
            if self.pause(Duration::from_secs(self.bridge.reconnect.most_s.into())) {
                return None;
            }
        }
    }

    /// Opens the session with its subscriptions, so that messages are queued until the far broker is there. Returns
    /// whether there was one.
    fn register(&self) -> Result<bool, String> {
        let (ours, socket) = dial::pair().map_err(|error| error.to_string())?;
        let (report, events) = self.report();
        let (link, bytes) = Link::register(Arc::clone(&self.terms), report);
        let transport = Box::new(Transport::to_far_broker(FarEnd::plain(link)));
        self.hand_over(Dialed { socket, transport, bytes })?;
        let deadline = Instant::now() + REGISTRATION;
        let mut outcome = Err("the core has not answered within 30 s".to_owned());
        while let Ok(event) = events.recv_deadline(deadline) {
            match event {
                Event::Registered { session_present } => {
                    outcome = Ok(session_present);
                    break;
                }
                Event::SessionRefused { what } => outcome = Err(what),
                Event::Ended { why } => {
                    return outcome.and(Err(why.unwrap_or_else(|| "connection closed".to_owned())));
                }
                _ => {}
            }
        }
        // The end of this side ends the connection.
        drop(ours);
        while !matches!(events.recv_deadline(deadline), Ok(Event::Ended { .. }) | Err(_)) {}
        outcome
    }

    fn report(&self) -> (Report, Receiver<Event>) {
        let (sender, events) = flume::bounded(EVENTS_MAX);
        (Report::new(sender, Arc::clone(&self.board.counters)), events)
    }

    fn hand_over(&self, dialed: Dialed) -> Result<(), String> {
        // Any core: it hands the connection over to the home core of the session.
        let command = Command::Adopt(Box::new(dialed));
        self.cores.send(0, command).map_err(|refused| refused.to_string())
    }

    /// Connects to the first server that can be reached, and serves the connection until it ends.
    fn attempt(&self, course: &Course) -> Outcome {
        let (version, is_bridge) = course.dialects[course.dialect];
        let start = match (course.start, self.bridge.clean_start) {
            // Before 5.0, the far broker keeps no session of a connection that begins a new one. In 5.0, Mosquitto 2.0
            // has forgotten such a session after a restart.
            (start, false) => start,
            (_, true) => Start::Clean,
        };
        let failed = |why: String| Outcome { why: Some(why), ..Outcome::default() };
        let prepared = password(&self.bridge)
            .and_then(|password| Ok((password, Encryption::prepare(&self.bridge)?)));
        let (password, encryption) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => return failed(why),
        };
        let lasts = match self.bridge.profile {
            Profile::AzureIotHub => token::lasts(password.as_deref(), board::seconds()).map(Some),
            _ => Ok(None),
        };
        let lasts = match lasts {
            Ok(lasts) => lasts,
            Err(why) => return failed(why),
        };
        let username = (!self.bridge.username.is_empty()).then(|| self.bridge.username.clone());
        let attempt = Attempt { version, is_bridge, start, username, password };
        let mut whys = Vec::new();
        for server in &self.bridge.servers {
            // Names that do not resolve, and addresses that do not answer, take their time.
            if let Some(order) = self.board.orders.next() {
                return Outcome { order: Some(order), ..Outcome::default() };
            }
            match dial::connect(server, &self.bridge) {
                Ok(socket) => {
                    let renewal = lasts.and_then(|lasts| Renewal::new(lasts, &socket).ok());
                    let (report, events) = self.report();
                    let handle = socket.try_clone().ok();
                    let link = Link::connect(Arc::clone(&self.terms), attempt, report);
                    let dialed = encryption.begin(server, link).and_then(|far_end| {
                        let transport = Box::new(Transport::to_far_broker(far_end));
                        self.hand_over(Dialed { socket, transport, bytes: Vec::new() })
                    });
                    return match dialed {
                        Ok(()) => self.watch(server, &events, renewal, handle.as_ref()),
                        Err(why) => failed(why),
                    };
                }
                Err(error) => whys.push(format!("{server}: {error}")),
            }
        }
        failed(whys.join("; "))
    }

    /// Watches a connection until it ends, or its token does.
    fn watch(
        &self,
        server: &Server,
        events: &Receiver<Event>,
        mut renewal: Option<Renewal>,
        socket: Option<&TcpStream>,
    ) -> Outcome {
        let name = &*self.bridge.name;
        let interval = Duration::from_secs(self.bridge.keep_alive_s.into()) / TICKS;
        let mut outcome = Outcome::default();
        let mut since = None;
        let mut refused = Refused::default();
        let mut next_tick = Instant::now() + interval;
        let mut again = None;
        let mut traffic = Traffic::new(&self.bridge, &self.board.counters);
        loop {
            let renews = renewal.as_ref().map(Renewal::at);
            let looks = [again, traffic.next_look(), renews].into_iter().flatten();
            match self.board.orders.wait_on(events, looks.fold(next_tick, Instant::min)) {
                Heard::Event(Event::Connected { session_present }) => {
                    since = Some(Instant::now());
                    // The session may be a new one.
                    self.bound_queue();
                    self.tell(Standing {
                        state: BridgeState::Up,
                        server: Some(server.to_string()),
                        session_present: Some(session_present),
                        ..Standing::default()
                    });
                    tracing::info!(bridge = name, %server, session_present, "bridge connected");
                }
                Heard::Event(Event::Discarded) => outcome.is_discarded = true,
                Heard::Event(Event::Refused { code, what }) => {
                    outcome.is_version_refused = code == VERSION_REFUSED
                        || code == ReasonCode::UnsupportedProtocolVersion as u8;
                    outcome.is_identity_refused = is_about_identity(code);
                    outcome.why =
                        Some(format!("the far broker has refused the connection: {what}"));
                }
                Heard::Event(Event::Ended { why }) => {
                    outcome.why = outcome.why.or(why);
                    break;
                }
                Heard::Event(Event::TakenOver) => outcome.is_taken_over = true,
                Heard::Event(other) => {
                    self.log(other, &mut refused);
                    again = refused.is_any_there().then(|| again.unwrap_or(Instant::now() + AGAIN));
                }
                Heard::Order(order) if order.command == BridgeCommand::Start => {
                    order.reply.send(Ok(()));
                }
                Heard::Order(order) => {
                    let is_open = since.is_some();
                    leaving::leave(&self.cores, &self.terms.session, events, socket, is_open);
                    outcome.order = Some(order);
                    break;
                }
                Heard::Gone | Heard::Stopped => break,
                Heard::Nothing if renews.is_some_and(|renews| renews <= Instant::now()) => {
                    outcome.why = renewal.take().map(Renewal::end);
                }
                Heard::Nothing => {
                    let now = Instant::now();
                    if again.is_some_and(|again| again <= now) {
                        self.tick(BridgeDue::Subscriptions);
                        again = Some(now + AGAIN);
                    }
                    if next_tick <= now {
                        self.tick(BridgeDue::SignOfLife);
                        self.bound_queue();
                        next_tick = now + interval;
                    }
                    if since.is_some() && traffic.has_ceased() && self.waiting() == Some(0) {
                        leaving::leave(&self.cores, &self.terms.session, events, socket, true);
                        outcome.is_idle = true;
                        break;
                    }
                }
            }
        }
        outcome.lasted = since.map(|since| since.elapsed());
        outcome
    }

    /// Notes a state, and publishes it.
    pub fn tell(&self, standing: Standing) {
        self.board.set(standing);
        self.publish_state();
    }

    fn publish_state(&self) {
        let (topic, payload) = self.board.publication();
        self.publish(topic, payload);
        if let Some(topic) = &self.terms.notification {
            let is_connected = self.board.is_connected();
            let payload =
                if is_connected { notification::CONNECTED } else { notification::NOT_CONNECTED };
            self.publish(topic.to_string(), payload.to_owned());
        }
    }

    /// Publishes a state at this broker.
    fn publish(&self, topic: String, payload: String) {
        let (to, _) = replies();
        let (topic, payload) = (topic.into(), payload.into_bytes().into());
        let command = EngineCommand::PublishState { topic, payload, reply: to.core(0) };
        // Refused by a core that stops.
        let _ = self.cores.send(0, Command::Engine(command));
    }

    /// Bounds the queue, if it has bounds of its own, and lets what is too old leave it.
    pub fn bound_queue(&self) {
        if self.bridge.queue != BridgeQueue::default() {
            self.tick(BridgeDue::Queue(self.bridge.queue));
        }
    }

    /// Lets the connection do what is due.
    fn tick(&self, due: BridgeDue) {
        let replies = self.cores.ask_all(|reply| {
            let session = self.terms.session.clone();
            Command::Engine(EngineCommand::BridgeTick(BridgeTick { session, due, reply }))
        });
        drop(replies);
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
            Event::SessionRefused { what } => {
                tracing::warn!(bridge, why = what, "this broker does not let the bridge subscribe");
                refused.note_here(what);
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
            | Event::Connected { .. }
            | Event::Refused { .. }
            | Event::TakenOver
            | Event::Ended { .. } => {}
        }
    }

    /// Notes subscriptions that are refused, or are not any more.
    fn note_refused(&self, refused: &Refused) {
        self.board.degrade(refused.why());
        self.publish_state();
    }
}

/// The password, if there is one.
fn password(bridge: &Bridge) -> Result<Option<Vec<u8>>, String> {
    let file = &bridge.password_file;
    if file.as_os_str().is_empty() {
        let password = bridge.password.as_bytes();
        return Ok((!password.is_empty()).then(|| password.to_vec()));
    }
    let line = secret_file::read_line(file);
    let line = line.map_err(|what| format!("password_file {}: {what}", file.display()))?;
    Ok(Some(line.into_bytes()))
}
