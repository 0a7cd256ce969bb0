//! The thread of one bridge.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::{Receiver, Sender};

use super::board::{Board, Standing};
use super::change::Changing;
use super::course::{Course, Dialect, Outcome, dialects};
use super::encryption::Encryption;
use super::entry::Waits;
use super::watch::Watched;
use super::whole::Whole;
use super::{board, dial, token};
use crate::base::secret_file;
use crate::config::bridge::{Bridge, BridgeQueue, Profile, Server};
use crate::control::bridge::{BridgeDue, BridgeState, BridgeTick, Dialed};
use crate::control::stop::Stop;
use crate::control::{Command, Cores, EngineCommand, replies};
use crate::transport::Transport;
use crate::transport::bridge::{Attempt, Event, FarEnd, Link, Report, Start, Terms, notification};
use crate::wire::Version;

/// Events that wait for the thread at most; further ones are dropped, except that the end of the connection shows anyway.
const EVENTS_MAX: usize = 256;
/// How long the registration of the session may take.
const REGISTRATION: Duration = Duration::from_secs(30);
/// How often it is looked whether others have ended.
const LOOK: Duration = Duration::from_millis(100);
/// Time before the far broker is asked again for what it has refused.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

/// What the thread works with.
pub(super) struct Worker {
    pub terms: Arc<Terms>,
    /// The table, with what its profile sets.
    pub bridge: Bridge,
    pub cores: Cores,
    pub board: Arc<Board>,
    /// The bridge with its other connections.
    pub whole: Arc<Whole>,
    /// Place of the server that the connection is made to, or that the next attempt begins with.
    pub server: usize,
    /// The connection before has ended for the sake of the first server.
    pub is_returning: bool,
    /// How often in succession it has not accepted the bridge then.
    pub failed_returns: u32,
    /// Whether the broker stops.
    pub stop: Stop,
    /// Disconnected once it has stopped.
    pub stopped: Receiver<()>,
    /// What it waits for.
    pub waits: Waits,
    /// Whether it takes no more messages here, and ends once those that it has are sent.
    pub leaves: bool,
    /// Whether the far broker is asked for No Local.
    pub no_local: bool,
    /// Dropped when the session has its subscriptions.
    pub registering: Option<Sender<()>>,
    /// Dropped when the thread ends.
    pub _running: (Sender<()>, Option<Sender<()>>),
}

impl Worker {
    /// Serves the bridge until the broker stops, or a reload ends the bridge.
    pub fn run(mut self) {
        for first in std::mem::take(&mut self.waits.first) {
            // Nothing is sent.
            let _ = first.recv();
        }
        let mut course = Course::new(&self.bridge);
        course.is_stopped |= self.waits.is_stopped;
        self.serve(&mut course);
        if let Some(drops_queue) = course.end {
            self.finish(course.is_given_up, drops_queue);
        }
    }

    fn serve(&mut self, course: &mut Course) {
        loop {
            if !course.is_registered && self.register_until_done(course) {
                return;
            }
            if self.is_early() && !course.is_stopped {
                if self.rest(Some(LOOK), course) {
                    return;
                }
                continue;
            }
            if course.is_idle && !course.is_stopped {
                if self.await_messages(course) {
                    return;
                }
                if !course.is_registered {
                    continue;
                }
            }
            let mut pause = None;
            if !course.is_stopped {
                let outcome = self.attempt(course);
                if self.stop.is_requested() {
                    return;
                }
                pause = self.conclude(outcome, course);
                match pause {
                    None if course.end.is_some() => return,
                    None => continue,
                    Some(_) => {}
                }
            }
            if self.rest(pause, course) {
                return;
            }
        }
    }

    /// Whether others have to end before it connects.
    fn is_early(&mut self) -> bool {
        self.waits.before.retain(|of| !of.is_disconnected());
        !self.waits.before.is_empty()
    }

    /// Makes sure that the session exists. Returns whether the thread ends.
    fn register_until_done(&mut self, course: &mut Course) -> bool {
        loop {
            match self.register() {
                Ok(session_present) => {
                    if !session_present {
                        // A new session uses Packet Identifiers from 1 on, which the far broker may remember from an
                        // earlier one.
                        course.start = Start::Discard;
                    }
                    course.is_registered = true;
                    self.registering = None;
                    self.set_queue();
                    if course.is_stopped {
                        self.tell(Standing { state: BridgeState::Stopped, ..Standing::default() });
                    }
                    return false;
                }
                Err(why) => {
                    let name = &*self.bridge.name;
                    tracing::error!(bridge = name, why, "cannot open the session of a bridge");
                }
            }
            let pause = Duration::from_secs(self.bridge.reconnect.most_s.into());
            if self.rest(Some(pause), course) {
                return true;
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
                Event::SessionRefused { what, .. } => outcome = Err(what),
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

    /// The servers with their places, in the order in which they are tried.
    fn servers(&self) -> Vec<(usize, Server)> {
        let mut servers: Vec<_> = self.bridge.servers.iter().cloned().enumerate().collect();
        // A reload may have changed their number.
        let first = self.server % servers.len();
        servers.rotate_left(first);
        servers
    }

    /// Connects to the first server that can be reached, and serves the connection until it ends.
    fn attempt(&mut self, course: &Course) -> Outcome {
        let start = match (course.start, self.bridge.clean_start) {
            // Before 5.0, the far broker keeps no session of a connection that begins a new one. In 5.0, Mosquitto 2.0
            // has forgotten such a session after a restart.
            (start, false) => start,
            (_, true) => Start::Clean,
        };
        self.connect(course.dialect(), start, Changing::default())
    }

    /// Ends the session at the far broker by a connection that begins a new one; whether that was possible.
    pub fn discard(&mut self) -> bool {
        dialects(&self.bridge).iter().find_map(|&dialect| {
            let outcome = self.connect(dialect, Start::Discard, Changing::ending());
            match (outcome.is_discarded, outcome.is_version_refused) {
                (true, _) => Some(true),
                (false, true) => None,
                (false, false) => Some(false),
            }
        }) == Some(true)
    }

    /// The attempt with this version, and when its token ends.
    fn prepare(
        &self,
        (version, is_bridge): Dialect,
        start: Start,
    ) -> Result<(Attempt, Option<Duration>), String> {
        let password = password(&self.bridge)?;
        let lasts = match self.bridge.profile {
            Profile::AzureIotHub => Some(token::lasts(password.as_deref(), board::seconds())?),
            _ => None,
        };
        let username = (!self.bridge.username.is_empty()).then(|| self.bridge.username.clone());
        let no_local = self.no_local;
        Ok((Attempt { version, is_bridge, no_local, start, username, password }, lasts))
    }

    fn connect(&mut self, dialect: Dialect, start: Start, changing: Changing) -> Outcome {
        let failed = |why: String| Outcome { why: Some(why), ..Outcome::default() };
        let (attempt, lasts) = match self.prepare(dialect, start) {
            Ok(prepared) => prepared,
            Err(why) => return failed(why),
        };
        let encryption = match Encryption::prepare(&self.bridge) {
            Ok(encryption) => encryption,
            Err(why) => return Outcome { is_tls_failed: true, ..failed(why) },
        };
        let mut whys = Vec::new();
        for (place, server) in &self.servers() {
            // Names that do not resolve, and addresses that do not answer, take their time.
            if !changing.is_last
                && let Some(order) = self.board.orders.next()
            {
                return Outcome { order: Some(order), ..Outcome::default() };
            }
            match dial::connect(server, &self.bridge) {
                Ok(socket) => {
                    self.server = *place;
                    let renews = lasts.map(|lasts| Instant::now() + lasts);
                    let (report, events) = self.report();
                    let handle = socket.try_clone().ok();
                    let link = Link::connect(Arc::clone(&self.terms), attempt, report);
                    let dialed = encryption.begin(server, link).and_then(|far_end| {
                        let transport = Box::new(Transport::to_far_broker(far_end));
                        self.hand_over(Dialed { socket, transport, bytes: Vec::new() })
                    });
                    let expired = encryption.expired();
                    if let Err(why) = dialed {
                        return Outcome { is_reached: true, ..failed(why) };
                    }
                    let watched = Watched::new(self, server, events, handle, renews, changing);
                    let mut outcome = self.watch(watched);
                    outcome.is_given_up &= dialect.0 == Version::V5;
                    outcome.is_reached = true;
                    if outcome.is_tls_failed
                        && let (Some(why), Some(also)) = (&mut outcome.why, expired)
                    {
                        *why += &format!("; {also}");
                    }
                    return outcome;
                }
                Err(error) => whys.push(format!("{server}: {error}")),
            }
        }
        failed(whys.join("; "))
    }

    /// Notes a state, and publishes it.
    pub fn tell(&self, standing: Standing) {
        self.board.set(standing);
        self.publish_state();
    }

    pub fn publish_state(&self) {
        self.whole.publish(|topic, payload| self.publish(topic, payload));
        if let Some(topic) = &self.terms.notification {
            let is_connected = self.board.is_connected();
            let payload =
                if is_connected { notification::CONNECTED } else { notification::NOT_CONNECTED };
            self.publish(topic.to_string(), payload.to_owned());
        }
    }

    /// Publishes a retained message at this broker; an empty one ends it.
    pub fn publish(&self, topic: String, payload: String) {
        let (to, _) = replies();
        let (topic, payload) = (topic.into(), payload.into_bytes().into());
        let command = EngineCommand::PublishState { topic, payload, reply: to.core(0) };
        // Refused by a core that stops.
        let _ = self.cores.send(0, Command::Engine(command));
    }

    /// The bounds of the queue are those of the table from now on.
    pub fn set_queue(&self) {
        self.tick(BridgeDue::Queue(self.bridge.queue));
    }

    /// Bounds the queue, if it has bounds of its own, and lets what is too old leave it.
    pub fn bound_queue(&self) {
        if self.bridge.queue != BridgeQueue::default() {
            self.set_queue();
        }
    }

    /// Lets the connection do what is due.
    pub fn tick(&self, due: BridgeDue) {
        let replies = self.cores.ask_all(|reply| {
            let session = self.terms.session.clone();
            Command::Engine(EngineCommand::BridgeTick(BridgeTick { session, due, reply }))
        });
        drop(replies);
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
