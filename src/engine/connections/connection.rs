//! One Network Connection: its phase, what was agreed at CONNECT, what waits to be processed or sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::clock::{Deadline, Now};
use crate::base::compact_address::CompactAddress;
use crate::base::identity::CertificateIdentity;
use crate::base::ids::{Peer, Publisher, SessionId};
use crate::base::send_buffer::SendBuffer;
use crate::engine::config::{Announced, Config, Terms};
use crate::engine::connections::input_buffer::InputBuffer;
use crate::engine::connections::mount::Mount;
use crate::engine::connections::output::OutputCharge;
use crate::engine::connections::timing::Timing;
use crate::engine::inspect::Traffic;
use crate::engine::{Allowance, Answers, Grant, Job};
use crate::message::incoming_aliases::IncomingAliases;
use crate::session::topic_alias::OutgoingAliases;
use crate::transport::{Fault, Transport};
use crate::wire::{ReasonCode, Version};

/// ```text
/// accepted ─CONNECT─► Connecting ─┬─granted──────────► Open ─► gone
///                                 ├─AUTH exchange─► Authenticating ─granted─► Open
///                                 └─not at home───► Leaving ─► another core's Connecting
///
/// Open ─the listener has a mount point─► Mounted
/// ```
#[derive(Debug)]
pub enum Phase {
    /// Only CONNECT may come.
    Connecting {
        /// CONNECT came already, on another core: see [`Connection::connect_received`].
        elsewhere: bool,
        /// A proxy has not sent the client's address yet: the connection counts for no address.
        awaits_address: bool,
    },
    /// CONNECT came and is not answered yet: the access control asks for more or has not decided, or an
    /// earlier connection of the client is still being served. Holds the CONNECT packet.
    Authenticating(Box<Deferred>),
    /// CONNECT named a client whose home is another core: it leaves with this turn.
    Leaving(Box<Deferred>),
    /// CONNACK with success was sent.
    Open {
        /// Index of the session.
        session: SessionId,
        /// When the client was admitted, in seconds of the core's time.
        admitted_s: u32,
        /// The values of CONNACK that hold for the client.
        terms: Terms,
        /// The highest QoS that CONNACK announced.
        maximum_qos: u8,
    },
    /// As [`Self::Open`], of a client whose topics are not those of the engine.
    Mounted {
        /// See [`Self::Open`].
        session: SessionId,
        /// See [`Self::Open`].
        admitted_s: u32,
        /// See [`Self::Open`].
        terms: Terms,
        /// See [`Self::Open`].
        maximum_qos: u8,
    },
}

/// A CONNECT that was not answered at once.
#[derive(Debug)]
pub struct Deferred {
    /// The packet as it came.
    pub connect: Box<[u8]>,
    /// When it came.
    pub received: Now,
    /// The grant of the access control, while the client waits until its earlier connection is served to
    /// the end.
    pub granted: Option<Grant>,
}

/// A reason for which a socket is not read, besides consumers and bounds that are counted
/// ([`Connection::read_holds`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    /// Much of the input is kept for later turns. Its processing continues.
    Backlog = 1,
    /// The CONNECT is being decided on elsewhere, or the connection is about to move to another core.
    Decision = 2,
    /// The client does not read its answers.
    Answers = 4,
    /// A packet of the client takes several turns, or waits for a decision.
    Job = 8,
    /// The connection is broken and the socket closed: input that came before is still processed.
    Closed = 16,
    /// The peer sends no more: input that came before is processed and answered first.
    Ended = 32,
    /// The client has sent DISCONNECT: answers to earlier packets have not left yet.
    Left = 64,
    /// Nothing can be sent to the peer any more. What the peer has sent is still read.
    Deaf = 128,
}

/// The reasons that apply to a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holds(u8);

impl Holds {
    /// The reasons for which input that was read waits, too.
    const OF_INPUT: u8 =
        Hold::Decision as u8 | Hold::Answers as u8 | Hold::Job as u8 | Hold::Left as u8;
    /// The reasons that say that the connection is ending.
    const OF_ENDS: u8 = Hold::Closed as u8 | Hold::Ended as u8 | Hold::Left as u8;

    /// Whether no reason applies.
    pub fn is_empty(self) -> bool {
        self.0 & !(Hold::Deaf as u8) == 0
    }

    /// Whether input that was read waits, too.
    pub fn holds_input(self) -> bool {
        self.0 & Self::OF_INPUT != 0
    }

    /// Whether the connection ends once its input is served.
    pub fn is_ending(self) -> bool {
        self.0 & Self::OF_ENDS != 0
    }

    /// Whether a reason applies.
    pub fn has(self, hold: Hold) -> bool {
        self.0 & hold as u8 != 0
    }

    /// Adds a reason.
    pub fn set(&mut self, hold: Hold) {
        self.0 |= hold as u8;
    }

    /// Removes a reason.
    pub fn clear(&mut self, hold: Hold) {
        self.0 &= !(hold as u8);
    }
}

/// A Network Connection. Most are idle: state that only busy ones need is in [`Extra`].
#[derive(Debug)]
pub struct Connection {
    /// Tells it from an earlier one in the same place.
    pub generation: u32,
    /// The phase.
    pub phase: Phase,
    /// Protocol version, known from CONNECT on.
    pub version: Version,
    /// The address of the client, where it is known.
    address: CompactAddress,
    /// The listener that accepted the connection.
    pub listener: u16,
    /// The reason with which CONNECT is refused, where the connection was one too many.
    pub refusal: Option<ReasonCode>,
    /// When the timer fires; entries of the wheel for another time mean nothing.
    pub timer: Option<Deadline>,
    /// When it was accepted, or, on another core, its CONNECT received; once it is open, when a
    /// packet came last, for Keep Alive.
    pub last_received: Now,
    /// Keep Alive in seconds as agreed; 0 for none.
    pub keep_alive_s: u16,
    /// The client's Maximum Packet Size.
    pub packet_bytes_max: u32,
    /// QoS 1 and 2 messages that may be in flight: the client's Receive Maximum, or the server's bound if lower.
    pub window: u16,
    /// Whether the connection is in the list of those with something to send.
    pub(super) is_dirty: bool,
    /// How many consumers and bounds pause the connection: its socket is not read while there are any.
    pub read_holds: u16,
    /// The other reasons for which the socket is not read.
    pub holds: Holds,
    /// Whether the connection is in a list of those that continue in a later turn.
    pub(in crate::engine) is_ready: bool,
    /// The state of the time limits.
    pub timing: Timing,
    /// Input that could not be processed yet: the start of a packet, or what came while paused.
    input: Option<Box<InputBuffer>>,
    /// Frames to send; none while there are none.
    pub outbox: Option<SendBuffer>,
    /// Bytes of the buffer the executor has and has not written yet.
    pub(super) sending: u32,
    /// Bytes that wait and are on the ledger.
    pub(super) charged: OutputCharge,
    /// Whether the executor has a buffer.
    pub is_sending: bool,
    /// Bytes received and sent.
    pub(in crate::engine) traffic: Traffic,
    /// Whether output, CONNACK first, is withheld until the store has the session.
    pub is_withheld: bool,
    /// Answers that wait for other cores; none while none do.
    pub answers: Option<Box<Answers>>,
    /// The layers between the socket and MQTT; none for plain TCP.
    pub transport: Option<Box<Transport>>,
    /// State that few connections need.
    pub extra: Option<Box<Extra>>,
}

// A million connections have to fit into memory: a change that needs more says here why.
const _: () = assert!(size_of::<Connection>() <= 144);

/// State that few connections need.
#[derive(Debug, Default)]
pub struct Extra {
    /// Aliases the client set.
    pub incoming_aliases: IncomingAliases,
    /// Aliases of the server; none when the client accepts none.
    pub outgoing_aliases: Option<OutgoingAliases>,
    /// The Authentication Method of the CONNECT.
    pub authentication_method: Option<Box<str>>,
    /// Reason Strings and User Properties are sent with CONNACK and DISCONNECT alone
    /// [MQTT-3.1.2-29].
    pub hides_problems: bool,
    /// The client is a bridge before 5.0, whose subscriptions are No Local and Retain As Published.
    pub is_bridge: bool,
    /// What is put before the topics of the client.
    pub(super) mount: Option<Box<Mount>>,
    /// A re-authentication is in progress.
    pub is_reauthenticating: bool,
    /// Until when the client may stay connected.
    pub stays_until: Option<Deadline>,
    /// The rate limit of the client, if there is one.
    pub allowance: Option<Box<Allowance>>,
    /// The consumer is behind: since when it took nothing, and which publishers wait for it.
    pub congestion: Option<Congestion>,
    /// The identity of the certificate, where a proxy has verified it or TLS is in the kernel.
    pub certificate: Option<Box<CertificateIdentity>>,
    /// A packet that takes several turns.
    pub job: Option<Box<Job>>,
    /// Why a layer below MQTT has ended the connection.
    pub fault: Option<Box<Fault>>,
}

/// A consumer that is behind.
#[derive(Debug)]
pub struct Congestion {
    /// When to check whether the consumer takes anything.
    pub next_look: Deadline,
    /// Bytes and acknowledgements taken since it fell behind.
    pub taken: u64,
    /// Value of `taken` at the last check.
    pub taken_before: u64,
    /// When the consumer last took something, or fell behind.
    pub progressed: Now,
    /// Bytes that the kernel had, and the peer had not acknowledged, at the last check; none where the
    /// kernel does not say.
    pub unacknowledged: Option<usize>,
    /// The consumer took nothing for a while: nobody waits for it until it takes something again.
    pub is_stuck: bool,
    /// Publishers whose sockets are not read until it has caught up.
    pub waiting: VecDeque<Publisher>,
}

impl Extra {
    /// Whether nothing is set.
    fn is_empty(&self) -> bool {
        self.incoming_aliases.is_empty()
            && self.outgoing_aliases.is_none()
            && self.authentication_method.is_none()
            && !self.hides_problems
            && !self.is_bridge
            && self.mount.is_none()
            && !self.is_reauthenticating
            && self.stays_until.is_none()
            && self.allowance.is_none()
            && self.congestion.is_none()
            && self.certificate.is_none()
            && self.job.is_none()
            && self.fault.is_none()
    }
}

impl Congestion {
    /// A consumer that has just fallen behind.
    pub fn new(now: Now, next_look: Deadline) -> Self {
        Self {
            next_look,
            taken: 0,
            taken_before: 0,
            progressed: now,
            unacknowledged: None,
            is_stuck: false,
            waiting: VecDeque::new(),
        }
    }

    /// Notes whether the consumer took anything since the last check, by what was written to it and by
    /// what the kernel says of the peer; whether it did.
    pub fn note_progress(&mut self, now: Now, unacknowledged: Option<usize>) -> bool {
        let is_written = self.taken != self.taken_before;
        // More are unacknowledged once the kernel takes the next part of a long send, which needs room.
        let is_acknowledged = matches!(
            (self.unacknowledged, unacknowledged), (Some(before), Some(after)) if after != before
        );
        (self.taken_before, self.unacknowledged) = (self.taken, unacknowledged);
        if is_written || is_acknowledged {
            (self.progressed, self.is_stuck) = (now, false);
        }
        is_written || is_acknowledged
    }
}

impl Connection {
    /// Whether the client is a bridge before 5.0.
    pub fn is_bridge(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.is_bridge)
    }

    /// The identity of the client's certificate, if it has presented one.
    pub fn certificate(&self) -> Option<&CertificateIdentity> {
        let of_transport = self.transport.as_ref().and_then(|transport| transport.certificate());
        of_transport.or_else(|| self.extra.as_ref()?.certificate.as_deref())
    }

    /// A connection that has just been accepted.
    pub fn new(generation: u32, address: Option<SocketAddr>, listener: u16, accepted: Now) -> Self {
        Self {
            generation,
            phase: Phase::Connecting { elsewhere: false, awaits_address: false },
            version: Version::V311,
            address: address.into(),
            listener,
            refusal: None,
            timer: None,
            last_received: accepted,
            keep_alive_s: 0,
            packet_bytes_max: u32::MAX,
            window: u16::MAX,
            is_dirty: false,
            read_holds: 0,
            holds: Holds::default(),
            is_ready: false,
            timing: Timing::default(),
            input: None,
            outbox: None,
            sending: 0,
            charged: OutputCharge::default(),
            is_sending: false,
            traffic: Traffic::default(),
            is_withheld: false,
            answers: None,
            transport: None,
            extra: None,
        }
    }

    /// Input that could not be processed yet.
    pub fn input(&self) -> &[u8] {
        self.input.as_deref().map_or(&[], InputBuffer::bytes)
    }

    /// When the first packet of the input began; none when nothing is buffered.
    pub fn input_began(&self) -> Option<Now> {
        self.input.as_ref().map(|input| input.began)
    }

    /// Restarts the time of that packet: so far the server made it wait.
    pub fn restart_input(&mut self, now: Now) {
        if let Some(input) = &mut self.input {
            input.began = now;
        }
    }

    /// How much the input grows by `more` bytes, part of a packet of `need` bytes if that is known.
    pub fn input_growth(&self, more: usize, need: usize) -> usize {
        match &self.input {
            Some(input) => input.held_with(more, need) - input.held(),
            None => InputBuffer::new(Now(0)).held_with(more, need),
        }
    }

    /// Restarts the time of that packet once, as it is late because the server was; whether that was still
    /// possible.
    pub fn excuse_input(&mut self, now: Now) -> bool {
        self.input.as_mut().is_some_and(|input| input.excuse(now))
    }

    /// Buffers more input.
    pub fn extend_input(&mut self, now: Now, bytes: &[u8], need: usize) {
        let fresh = || Box::new(InputBuffer::new(now));
        self.input.get_or_insert_with(fresh).extend(bytes, need);
    }

    /// Takes the input.
    pub fn take_input(&mut self) -> Option<Box<InputBuffer>> {
        self.input.take()
    }

    /// Puts back input that could not be processed; nothing else is buffered.
    pub fn put_back_input(&mut self, now: Now, mut input: Box<InputBuffer>) {
        debug_assert!(self.input.is_none() && !input.bytes().is_empty());
        input.begin_at(now);
        self.input = Some(input);
    }

    /// Whether nothing can be sent to the peer any more.
    pub fn is_deaf(&self) -> bool {
        self.holds.has(Hold::Deaf)
    }

    /// Whether input that comes now waits, for a reason of its own or behind input that is kept.
    #[inline]
    pub fn defers_input(&self) -> bool {
        self.is_held() || self.is_ready
    }

    /// Bytes that wait to be taken by the client.
    pub fn pending_bytes(&self) -> usize {
        self.sending as usize + self.outbox.as_ref().map_or(0, SendBuffer::len)
    }

    /// How long the client may be silent: one and a half times the Keep Alive [MQTT-3.1.2-22].
    pub fn silence_max(&self) -> Duration {
        Duration::from_millis(u64::from(self.keep_alive_s) * 1_500)
    }

    /// When the client has been silent for too long.
    pub fn keep_alive_deadline(&self) -> Deadline {
        self.last_received.after(self.silence_max())
    }

    /// The client is admitted to its session.
    pub fn open(&mut self, session: SessionId, terms: Terms, maximum_qos: u8, now: Now) {
        self.phase = Phase::Open { session, admitted_s: now.seconds(), terms, maximum_qos };
    }

    /// Seconds since the client was admitted.
    pub fn seconds_open(&self, now: Now) -> u32 {
        match self.phase {
            Phase::Open { admitted_s, .. } | Phase::Mounted { admitted_s, .. } => {
                now.seconds().saturating_sub(admitted_s)
            }
            _ => 0,
        }
    }

    /// Whether the far end is another broker, of which a bridge is the client.
    pub fn has_far_broker(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.bridge().is_some())
    }

    /// The address of the client, where it is known.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.get()
    }

    /// Notes the address of the client, which a proxy has sent.
    pub fn set_address(&mut self, address: Option<SocketAddr>) {
        self.address = address.into();
    }

    /// Where the connection comes from.
    pub fn peer(&self) -> Peer {
        Peer { address: self.address(), listener: self.listener }
    }

    /// Bytes on the ledger besides input and output.
    pub fn bytes_charged(&self) -> usize {
        let extra = self.extra.as_ref();
        let aliases = extra.map_or(0, |extra| extra.incoming_aliases.bytes());
        let method = extra.and_then(|extra| extra.authentication_method.as_deref());
        let transport = self.transport.as_ref().map_or(0, |transport| transport.state_bytes());
        aliases + method.map_or(0, str::len) + transport
    }

    /// Bytes of input on the ledger: what is not processed yet, or being decided on.
    pub fn input_bytes(&self) -> usize {
        let input = self.input.as_ref().map_or(0, |input| input.held());
        let transport = self.transport.as_ref().map_or(0, |transport| transport.bytes_held());
        // As much again of a CONNECT: the access control has its names and its password, too.
        let connect = match &self.phase {
            Phase::Authenticating(deferred) | Phase::Leaving(deferred) => {
                2 * deferred.connect.len()
            }
            _ => 0,
        };
        input + transport + connect
    }

    /// Whether the access control counts the connection for its address: not before a proxy has sent the
    /// address.
    pub fn has_address(&self) -> bool {
        !matches!(self.phase, Phase::Connecting { awaits_address: true, .. })
    }

    /// The CONNECT that is being decided on.
    pub fn deferred_connect(&self) -> Option<&[u8]> {
        match &self.phase {
            Phase::Authenticating(deferred) | Phase::Leaving(deferred) => Some(&deferred.connect),
            _ => None,
        }
    }

    /// The CONNECT and the grant of a client that waits until its earlier connection is served to the end.
    pub fn take_granted(&mut self) -> Option<(Box<[u8]>, Grant)> {
        match &mut self.phase {
            Phase::Authenticating(deferred) => {
                deferred.granted.take().map(|grant| (deferred.connect.clone(), grant))
            }
            _ => None,
        }
    }

    /// When the CONNECT came that is being decided on; one that has just come, `now`.
    pub fn connect_received(&self, now: Now) -> Now {
        match &self.phase {
            Phase::Connecting { elsewhere: true, .. } => self.last_received,
            Phase::Authenticating(deferred) | Phase::Leaving(deferred) => deferred.received,
            _ => now,
        }
    }

    /// Whether Reason Strings and User Properties may be sent with any packet [MQTT-3.1.2-29].
    pub fn wants_problem_information(&self) -> bool {
        self.extra.as_ref().is_none_or(|extra| !extra.hides_problems)
    }

    /// The session, once open.
    pub fn session(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Open { session, .. } | Phase::Mounted { session, .. } => Some(session),
            _ => None,
        }
    }

    /// Whether the client is admitted.
    pub fn is_open(&self) -> bool {
        self.session().is_some()
    }

    /// The largest size of the next packet: that of CONNECT until the client is admitted.
    #[inline]
    pub(in crate::engine) fn packet_bytes_max(&self, config: &Config) -> usize {
        self.taken(config).0
    }

    /// The largest size of the next packet, and the session, if packets are taken as they are.
    #[inline]
    pub(in crate::engine) fn taken(&self, config: &Config) -> (usize, Option<SessionId>) {
        match self.phase {
            Phase::Open { session, terms, .. } => {
                (config.announced(terms).packet_bytes_max as usize, Some(session))
            }
            Phase::Mounted { terms, .. } => {
                (config.announced(terms).packet_bytes_max as usize, None)
            }
            _ => (config.limits.connect_bytes_max as usize, None),
        }
    }

    /// What CONNACK announced to the client.
    pub(in crate::engine) fn announced<'a>(&self, config: &'a Config) -> &'a Announced {
        match self.phase {
            Phase::Open { terms, .. } | Phase::Mounted { terms, .. } => config.announced(terms),
            _ => config.announced(config.terms),
        }
    }

    /// The highest QoS that CONNACK announced; none before.
    pub fn announced_qos(&self) -> Option<u8> {
        match self.phase {
            Phase::Open { maximum_qos, .. } | Phase::Mounted { maximum_qos, .. } => {
                Some(maximum_qos)
            }
            _ => None,
        }
    }

    /// The congestion of a consumer that is behind.
    pub fn congestion(&self) -> Option<&Congestion> {
        self.extra.as_ref()?.congestion.as_ref()
    }

    /// The congestion, to change it.
    pub fn congestion_mut(&mut self) -> Option<&mut Congestion> {
        self.extra.as_mut()?.congestion.as_mut()
    }

    /// Ends the congestion. The caller resumes the publishers that waited.
    pub fn take_congestion(&mut self) -> Option<Congestion> {
        let extra = self.extra.as_mut()?;
        let congestion = extra.congestion.take();
        if extra.is_empty() {
            self.extra = None;
        }
        congestion
    }
}
