//! One Network Connection: its phase, what was agreed at CONNECT, what waits to be processed or sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::clock::{Deadline, Now};
use crate::base::identity::CertificateIdentity;
use crate::base::ids::{Publisher, SessionId};
use crate::base::send_buffer::SendBuffer;
use crate::engine::connections::input_buffer::Input;
use crate::engine::{Allowance, Answers, Grant, Job};
use crate::session::topic_alias::{IncomingAliases, OutgoingAliases};
use crate::transport::Transport;
use crate::wire::{ReasonCode, Version};

/// ```text
/// accepted ─CONNECT─► Connecting ─┬─granted──────────► Open ─► gone
///                                 ├─AUTH exchange─► Authenticating ─granted─► Open
///                                 └─not at home───► Leaving ─► another core's Connecting
/// ```
#[derive(Debug)]
pub enum Phase {
    /// Nothing but CONNECT may come.
    Connecting {
        /// It came already, on another core: see [`Connection::connect_received`].
        elsewhere: bool,
        /// A proxy is to say first where the client is: it counts for no address yet.
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
/// ([`Connection::holders`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    /// Much of what was read is to be processed in later turns. That goes on.
    Backlog = 1,
    /// Its CONNECT is being decided on elsewhere, or it is about to leave for another core.
    Decision = 2,
    /// It does not take its answers.
    Answers = 4,
    /// One of its packets takes several turns.
    Job = 8,
    /// It is broken, and its socket gone: what came before is still processed.
    Closed = 16,
    /// Its peer sends no more: what came before is processed and answered first.
    Ended = 32,
    /// Its client has said DISCONNECT: answers to what came before are still to leave.
    Left = 64,
    /// Nothing can be sent to it any more. What it has sent is read all the same.
    Deaf = 128,
}

/// Those that apply to a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holds(u8);

impl Holds {
    /// Those for which what was read waits, too.
    const OF_INPUT: u8 =
        Hold::Decision as u8 | Hold::Answers as u8 | Hold::Job as u8 | Hold::Left as u8;
    /// Those that say that it ends.
    const OF_ENDS: u8 = Hold::Closed as u8 | Hold::Ended as u8 | Hold::Left as u8;

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 & !(Hold::Deaf as u8) == 0
    }

    /// Whether what was read waits, too.
    pub fn holds_input(self) -> bool {
        self.0 & Self::OF_INPUT != 0
    }

    /// Whether it ends as soon as what came is served.
    pub fn is_ending(self) -> bool {
        self.0 & Self::OF_ENDS != 0
    }

    /// Whether this one applies.
    pub fn has(self, hold: Hold) -> bool {
        self.0 & hold as u8 != 0
    }

    /// It applies from here on.
    pub fn set(&mut self, hold: Hold) {
        self.0 |= hold as u8;
    }

    /// It applies no more.
    pub fn clear(&mut self, hold: Hold) {
        self.0 &= !(hold as u8);
    }
}

/// A Network Connection. Most are idle: what only busy ones need stands elsewhere.
#[derive(Debug)]
pub struct Connection {
    /// Tells it from an earlier one in the same place.
    pub generation: u32,
    /// Where it stands.
    pub phase: Phase,
    /// Protocol version, known from CONNECT on.
    pub version: Version,
    /// Where it comes from, and through which listener.
    pub address: Option<SocketAddr>,
    /// The listener it came through.
    pub listener: u16,
    /// It was one too many: its CONNECT is answered with this.
    pub refusal: Option<ReasonCode>,
    /// When its timer fires; entries of the wheel for another time mean nothing.
    pub timer: Option<Deadline>,
    /// When it was accepted, or, on another core, its CONNECT received; once it is open, when a
    /// packet came last, for Keep Alive.
    pub last_received: Now,
    /// Keep Alive in seconds as agreed; 0 for none.
    pub keep_alive_s: u16,
    /// The client's Maximum Packet Size.
    pub packet_bytes_max: u32,
    /// QoS 1 and 2 messages it takes at a time: its Receive Maximum, or our bound if lower.
    pub window: u16,
    /// It is in the list of connections with something to send.
    pub is_dirty: bool,
    /// How many hold it up: its socket is not read while there are any.
    pub holders: u16,
    /// Why else its socket is not read.
    pub holds: Holds,
    /// It has a turn at its retained replay or its stash coming.
    pub is_ready: bool,
    /// How it stands with its time limits.
    pub timing: Timing,
    /// Input that could not be processed yet: the start of a packet, or what came while paused.
    stash: Option<Box<Input>>,
    /// Frames to be sent; none while there are none.
    pub outbox: Option<SendBuffer>,
    /// Bytes of the buffer the executor has and has not written yet.
    pub sending: usize,
    /// Bytes that wait and are on the ledger.
    pub charged: usize,
    /// The executor has a buffer.
    pub is_sending: bool,
    /// Nothing leaves, CONNACK first, until the store has the session.
    pub is_gated: bool,
    /// Answers that wait for other cores; none while none do.
    pub answers: Option<Box<Answers>>,
    /// What lies between the socket and MQTT; none for plain TCP.
    pub transport: Option<Box<Transport>>,
    /// Rare things.
    pub extra: Option<Box<Extra>>,
}

// A million of them are to fit: whoever needs more than few connections do says why here.
const _: () = assert!(size_of::<Connection>() <= 144);

/// How a connection stands with its time limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing(u8);

impl Timing {
    /// A timer looks whether a packet that has begun is overdue, or it is on the list of those.
    const PACKET_TIMED: u8 = 1;
    /// The time for CONNECT is up by the clock.
    const OVERDUE: u8 = 2;
    /// Something came after that.
    const HEARD: u8 = 4;
    /// It has been given the time for CONNECT once more.
    const EXCUSED: u8 = 8;

    /// See [`Self::set_packet_timed`].
    pub fn is_packet_timed(self) -> bool {
        self.0 & Self::PACKET_TIMED > 0
    }

    /// A timer looks whether a packet that has begun is overdue, or none does.
    pub fn set_packet_timed(&mut self, is_timed: bool) {
        self.0 = self.0 & !Self::PACKET_TIMED | if is_timed { Self::PACKET_TIMED } else { 0 };
    }

    /// The time for CONNECT is up by the clock.
    pub fn note_overdue(&mut self) {
        self.0 |= Self::OVERDUE;
    }

    /// Bytes came before CONNECT was whole.
    pub fn note_heard(&mut self) {
        self.0 |= (self.0 & Self::OVERDUE) << 1;
    }

    /// Gives it the time for CONNECT once more if something came that had lain in its socket, or if it
    /// waited for us; whether that was so.
    pub fn excuse(&mut self, awaits_us: bool) -> bool {
        let is_first = self.0 & Self::EXCUSED == 0;
        let is_excused = is_first && (awaits_us || self.0 & Self::HEARD > 0);
        if is_excused {
            self.0 |= Self::EXCUSED;
        }
        is_excused
    }
}

/// What few connections need.
#[derive(Debug, Default)]
pub struct Extra {
    /// Aliases the client set.
    pub incoming_aliases: IncomingAliases,
    /// Aliases we set; none when the client takes none.
    pub outgoing_aliases: Option<OutgoingAliases>,
    /// The Authentication Method of the CONNECT.
    pub authentication_method: Option<Box<str>>,
    /// Reason Strings and User Properties are sent with CONNACK and DISCONNECT alone
    /// [MQTT-3.1.2-29].
    pub hides_problems: bool,
    /// Re-authentication goes on.
    pub is_reauthenticating: bool,
    /// Until when it may stay.
    pub stays_until: Option<Deadline>,
    /// What it may send, where that is bounded.
    pub allowance: Option<Box<Allowance>>,
    /// The consumer is behind: since when it took nothing, and who waits for it.
    pub congestion: Option<Congestion>,
    /// Whom its certificate names, where a proxy has seen it or its TLS is the kernel's.
    pub certificate: Option<Box<CertificateIdentity>>,
    /// A packet that takes several turns.
    pub job: Option<Box<Job>>,
}

/// A consumer that is behind.
#[derive(Debug)]
pub struct Congestion {
    /// When to look whether it takes anything.
    pub next_look: Deadline,
    /// Bytes and acknowledgements taken since it fell behind.
    pub taken: u64,
    /// The same at the last look.
    pub taken_before: u64,
    /// When it was last seen to take something, or fell behind.
    pub progressed: Now,
    /// Bytes that the kernel had, and the peer had not acknowledged, at the last look; none where the
    /// kernel does not say.
    pub unacknowledged: Option<usize>,
    /// It took nothing for a while: it holds up nobody until it takes again.
    pub is_stuck: bool,
    /// Publishers whose sockets are not read until it has caught up.
    pub waiting: VecDeque<Publisher>,
}

impl Extra {
    /// Whether it holds nothing that a fresh one does not.
    fn is_empty(&self) -> bool {
        self.incoming_aliases.is_empty()
            && self.outgoing_aliases.is_none()
            && self.authentication_method.is_none()
            && !self.hides_problems
            && !self.is_reauthenticating
            && self.stays_until.is_none()
            && self.allowance.is_none()
            && self.congestion.is_none()
            && self.certificate.is_none()
            && self.job.is_none()
    }
}

impl Congestion {
    /// It has just fallen behind.
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

    /// Notes whether the consumer took anything since the last look, by what was written to it and by
    /// what the kernel says of the peer; whether it did.
    pub fn note_progress(&mut self, now: Now, unacknowledged: Option<usize>) -> bool {
        let is_written = self.taken != self.taken_before;
        let is_acknowledged = matches!(
            (self.unacknowledged, unacknowledged), (Some(before), Some(after)) if after < before
        );
        (self.taken_before, self.unacknowledged) = (self.taken, unacknowledged);
        if is_written || is_acknowledged {
            (self.progressed, self.is_stuck) = (now, false);
        }
        is_written || is_acknowledged
    }
}

impl Connection {
    /// Whom its client's certificate names, if it has shown one.
    pub fn certificate(&self) -> Option<&CertificateIdentity> {
        let of_transport = self.transport.as_ref().and_then(|transport| transport.certificate());
        of_transport.or_else(|| self.extra.as_ref()?.certificate.as_deref())
    }

    /// A fresh one.
    pub fn new(generation: u32, address: Option<SocketAddr>, listener: u16, accepted: Now) -> Self {
        Self {
            generation,
            phase: Phase::Connecting { elsewhere: false, awaits_address: false },
            version: Version::V311,
            address,
            listener,
            refusal: None,
            timer: None,
            last_received: accepted,
            keep_alive_s: 0,
            packet_bytes_max: u32::MAX,
            window: u16::MAX,
            is_dirty: false,
            holders: 0,
            holds: Holds::default(),
            is_ready: false,
            timing: Timing::default(),
            stash: None,
            outbox: None,
            sending: 0,
            charged: 0,
            is_sending: false,
            is_gated: false,
            answers: None,
            transport: None,
            extra: None,
        }
    }

    /// Input that could not be processed yet.
    pub fn stash(&self) -> &[u8] {
        self.stash.as_deref().map_or(&[], Input::bytes)
    }

    /// When the first packet of it began; none when there is nothing.
    pub fn stash_began(&self) -> Option<Now> {
        self.stash.as_ref().map(|stash| stash.began)
    }

    /// Lets the time of that packet begin now: so far it was not the client's.
    pub fn restart_stash(&mut self, now: Now) {
        if let Some(stash) = &mut self.stash {
            stash.began = now;
        }
    }

    /// How much more memory it takes with so many more, part of a packet of `need` bytes if that is known.
    pub fn stash_growth(&self, more: usize, need: usize) -> usize {
        match &self.stash {
            Some(stash) => stash.held_with(more, need) - stash.held(),
            None => Input::new(Now(0)).held_with(more, need),
        }
    }

    /// The time of that packet begins once more: it is late because we were. Whether that was still to be
    /// had.
    pub fn excuse_stash(&mut self, now: Now) -> bool {
        self.stash.as_mut().is_some_and(|stash| stash.excuse(now))
    }

    /// Keeps more of it.
    pub fn extend_stash(&mut self, now: Now, bytes: &[u8], need: usize) {
        let fresh = || Box::new(Input::new(now));
        self.stash.get_or_insert_with(fresh).extend(bytes, need);
    }

    /// All of it, for whoever goes on with it.
    pub fn take_stash(&mut self) -> Option<Box<Input>> {
        self.stash.take()
    }

    /// Puts back what could not be processed after all; there is no other.
    pub fn put_back_stash(&mut self, now: Now, mut stash: Box<Input>) {
        debug_assert!(self.stash.is_none() && !stash.bytes().is_empty());
        stash.begin_at(now);
        self.stash = Some(stash);
    }

    /// Whether nothing can be sent to it any more.
    pub fn is_deaf(&self) -> bool {
        self.holds.has(Hold::Deaf)
    }

    /// Bytes that wait to be taken by the client.
    pub fn pending_bytes(&self) -> usize {
        self.sending + self.outbox.as_ref().map_or(0, SendBuffer::len)
    }

    /// One and a half times the Keep Alive: so long may pass after the last packet [MQTT-3.1.2-22].
    pub fn silence_max(&self) -> Duration {
        Duration::from_millis(u64::from(self.keep_alive_s) * 1_500)
    }

    /// When that is over.
    pub fn keep_alive_deadline(&self) -> Deadline {
        self.last_received.after(self.silence_max())
    }

    /// What it has on the ledger besides input.
    pub fn bytes_charged(&self) -> usize {
        let extra = self.extra.as_ref();
        let aliases = extra.map_or(0, |extra| extra.incoming_aliases.bytes());
        let method = extra.and_then(|extra| extra.authentication_method.as_deref());
        let transport = self.transport.as_ref().map_or(0, |transport| transport.state_bytes());
        self.charged + aliases + method.map_or(0, str::len) + transport
    }

    /// Input that it holds, as the ledger has it: what is not processed yet, or being decided on.
    pub fn input_bytes(&self) -> usize {
        let stash = self.stash.as_ref().map_or(0, |stash| stash.held());
        let transport = self.transport.as_ref().map_or(0, |transport| transport.bytes_held());
        // As much again of a CONNECT: the access control has its names and its password, too.
        let connect = match &self.phase {
            Phase::Authenticating(deferred) | Phase::Leaving(deferred) => {
                2 * deferred.connect.len()
            }
            Phase::Connecting { .. } | Phase::Open { .. } => 0,
        };
        stash + transport + connect
    }

    /// Whether the access control counts it for its address: not while a proxy is yet to say which
    /// that is.
    pub fn has_address(&self) -> bool {
        !matches!(self.phase, Phase::Connecting { awaits_address: true, .. })
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
            Phase::Connecting { elsewhere: false, .. } | Phase::Open { .. } => now,
        }
    }

    /// Whether Reason Strings and User Properties may be sent with any packet [MQTT-3.1.2-29].
    pub fn wants_problem_information(&self) -> bool {
        self.extra.as_ref().is_none_or(|extra| !extra.hides_problems)
    }

    /// The session, once open.
    pub fn session(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Open { session } => Some(session),
            _ => None,
        }
    }

    /// Whether it is behind, and still expected to catch up.
    pub fn congestion(&self) -> Option<&Congestion> {
        self.extra.as_ref()?.congestion.as_ref()
    }

    /// The same, to change it.
    pub fn congestion_mut(&mut self) -> Option<&mut Congestion> {
        self.extra.as_mut()?.congestion.as_mut()
    }

    /// It is behind no more: those who waited are the caller's.
    pub fn take_congestion(&mut self) -> Option<Congestion> {
        let extra = self.extra.as_mut()?;
        let congestion = extra.congestion.take();
        if extra.is_empty() {
            self.extra = None;
        }
        congestion
    }
}
