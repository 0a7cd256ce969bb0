//! One connection of a bridge, between the engine and the far broker. The way out is in `outgoing`, and
//! subscriptions on both sides in `subscribing`.

mod outgoing;
mod subscribing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acknowledgements::Acknowledgements;
use super::echoes::{ECHOES_BYTES, Echoes, Message};
use super::mapping::{InMap, OutMap};
use super::report::{Counters, Event, Refusal, Report};
use super::sent_topics::SentTopics;
use super::subscriptions::FarSubscriptions;
use super::supervision::{Outcome, Supervision};
use super::{notification, path, session};
use crate::config::bridge::{Accepts, Retained};
use crate::message::incoming_aliases::IncomingAliases;
use crate::transport::{Fault, Layer};
use crate::wire::{
    self, Ack, Connack, Disconnect, Frame, PINGREQ, Packet, PacketType, Publish, PublishProperties,
    Qos, ReasonCode, SubscriptionIdentifiers, UserProperties, Version,
};

/// Bytes of the link's own packets that wait for a far broker that does not read them, at most: 64 Ki acknowledgements.
const TO_FAR_BYTES_MAX: usize = 256 * 1024;

/// Bytes of topics for which a far broker sets aliases, at most.
const ALIASES_BYTES_MAX: usize = 4 << 20;

/// What holds for all connections of a bridge.
#[derive(Debug)]
pub struct Terms {
    /// Client Identifier of the session here: [`SESSION_PREFIX`](super::SESSION_PREFIX) and the name of the bridge.
    pub session: Box<str>,
    /// The user by whose rules the bridge may publish and subscribe here; none: no rule applies to it.
    pub user: Option<Box<str>>,
    /// Client Identifier under which rules look at it, if it is not that of the session.
    pub known_as: Option<Box<str>>,
    /// Client Identifier at the far broker.
    pub client_identifier: Box<str>,
    /// Keep Alive in seconds.
    pub keep_alive_s: u16,
    /// Session Expiry Interval at the far broker in seconds.
    pub session_expiry_s: u32,
    /// When retained messages are sent to the far broker.
    pub retained: Retained,
    /// Most brokers that a message may have passed.
    pub hops_max: usize,
    /// Identifier of this broker in the path of messages.
    pub broker: Box<str>,
    /// Maximum Packet Size here.
    pub packet_bytes_max: u32,
    /// Bytes of a packet to the far broker at most, if it accepts more.
    pub sent_bytes_max: Option<u32>,
    /// Receive Maximum here.
    pub receive_maximum: u16,
    /// Topic Alias Maximum here.
    pub topic_alias_maximum: u16,
    /// Whether a session that the far broker has kept gives up its subscriptions to topics that leave.
    pub unsubscribes_out: bool,
    /// What leaves.
    pub out: OutMap,
    /// What comes in.
    pub r#in: InMap,
    /// Name of the bridge, if it has several connections or shared subscriptions: the far broker sends back by one of
    /// them what has come by another, and this broker sends one of them what has come by another.
    pub group: Option<Box<str>>,
    /// What was sent lately, if the far broker may send it back.
    pub echoes: Option<Arc<Echoes>>,
    /// What the far broker accepts beyond what it says.
    pub accepts: Accepts,
    /// The topic on which the far broker is told whether the bridge is connected.
    pub notification: Option<Box<str>>,
}

/// One attempt to connect to the far broker.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Protocol version.
    pub version: Version,
    /// Whether bit 7 of the Protocol Version says before 5.0 that the client is a bridge.
    pub is_bridge: bool,
    /// Whether subscriptions ask for No Local in 5.0.
    pub no_local: bool,
    /// What becomes of a session that the far broker has.
    pub start: Start,
    /// User Name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
}

/// What becomes of a session that the far broker has from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It goes on.
    Resume,
    /// It would go on, but none is expected.
    First,
    /// A new one takes its place.
    Clean,
    /// It ends, and the connection with it.
    Discard,
}

/// What the far broker has said in CONNACK.
#[derive(Clone, Debug)]
pub(super) struct Far {
    /// It has no session from before.
    pub is_new: bool,
    pub maximum_qos: Qos,
    pub retain_available: bool,
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
}

impl Default for Far {
    fn default() -> Self {
        Self {
            is_new: false,
            maximum_qos: Qos::ExactlyOnce,
            retain_available: true,
            receive_maximum: None,
            packet_bytes_max: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Without a far broker: only makes sure that the session exists with its subscriptions.
    Registering,
    /// CONNECT was sent to the far broker.
    Connecting,
    /// The far broker has accepted the connection; the session here is open, or about to be.
    Open,
    /// As [`Phase::Open`], until the far broker has nothing left of the bridge; then the session there ends.
    GivingUp,
    /// Nothing is sent any more.
    Over,
}

/// One connection of a bridge.
#[derive(Debug)]
pub struct Link {
    terms: Arc<Terms>,
    attempt: Attempt,
    report: Report,
    phase: Phase,
    far: Far,
    subscriptions: FarSubscriptions,
    /// Filters of each SUBSCRIBE of the session here that is not answered.
    subscribing: VecDeque<Vec<Box<str>>>,
    acknowledgements: Acknowledgements,
    supervision: Supervision,
    /// Topics of messages that the far broker can refuse.
    sent_topics: SentTopics,
    /// Topics that the far broker has set aliases for.
    aliases: IncomingAliases,
    /// By number: whether the far broker has refused a message for this reason.
    refusals: [bool; Refusal::ALL.len()],
    /// The beginning of a packet of the far broker.
    partial: Vec<u8>,
    /// Packets of the link itself to the far broker.
    to_far: Vec<u8>,
    /// Packets of the link itself to the session.
    to_session: Vec<u8>,
    /// Memory of packets and topics when the engine counted it last: it does when it lets the link receive something or
    /// do what is due, and not when it lets the link send.
    held: usize,
    /// Memory for a topic that is mapped, and for User Properties that are changed.
    topic: String,
    properties: Vec<u8>,
}

impl Link {
    /// A link without a far broker, which makes sure that the session has the subscriptions of the bridge, so that
    /// messages are queued from then on. Also returns the first packets of the session.
    pub fn register(terms: Arc<Terms>, report: Report) -> (Self, Vec<u8>) {
        let attempt = Attempt {
            version: Version::V5,
            is_bridge: false,
            no_local: true,
            start: Start::Resume,
            username: None,
            password: None,
        };
        let mut first = Vec::new();
        session::register(&terms, &mut first);
        let mut link = Self::new(terms, attempt, report, Phase::Registering);
        link.note_subscribing_all();
        (link, first)
    }

    /// A link that connects to the far broker.
    pub fn connect(terms: Arc<Terms>, attempt: Attempt, report: Report) -> Self {
        let no_local = attempt.no_local && attempt.version == Version::V5;
        let mut link = Self::new(terms, attempt, report, Phase::Connecting);
        link.subscriptions = FarSubscriptions::new(no_local);
        session::connect(&link.terms, &link.attempt, &mut link.to_far);
        link
    }

    fn new(terms: Arc<Terms>, attempt: Attempt, report: Report, phase: Phase) -> Self {
        Self {
            terms,
            attempt,
            report,
            phase,
            far: Far::default(),
            subscriptions: FarSubscriptions::default(),
            subscribing: VecDeque::new(),
            acknowledgements: Acknowledgements::default(),
            supervision: Supervision::default(),
            sent_topics: SentTopics::default(),
            aliases: IncomingAliases::default(),
            refusals: [false; Refusal::ALL.len()],
            partial: Vec::new(),
            to_far: Vec::new(),
            to_session: Vec::new(),
            held: 0,
            topic: String::new(),
            properties: Vec::new(),
        }
    }

    /// The reason why the connection is about to end; the first one counts.
    pub fn end(&mut self, why: String) {
        self.report.end(why);
    }

    /// TLS with the far broker has failed.
    pub fn fail_tls(&mut self, why: String) {
        self.report.tell(Event::TlsFailed);
        self.report.end(why);
    }

    /// What holds for the bridge.
    pub fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// Whether the far broker has no session from before: QoS 2 exchanges that it had begun are over.
    pub fn is_far_session_new(&self) -> bool {
        self.is_open() && self.far.is_new
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::GivingUp)
    }

    /// Processes bytes of the far broker: appends packets of a client to `plain`.
    pub fn receive(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Fault> {
        plain.append(&mut self.to_session);
        if self.phase == Phase::Over {
            return Ok(());
        }
        let outcome = match self.partial.is_empty() {
            true => self.take_packets(bytes, plain).map(|used| {
                self.partial.extend_from_slice(&bytes[used..]);
            }),
            false => {
                let mut own = std::mem::take(&mut self.partial);
                own.extend_from_slice(bytes);
                self.take_packets(&own, plain).map(|used| {
                    own.drain(..used);
                    if !own.is_empty() {
                        self.partial = own;
                    }
                })
            }
        };
        plain.append(&mut self.to_session);
        self.note_held();
        let outcome = outcome.and_then(|()| match self.to_far.len() > TO_FAR_BYTES_MAX {
            true => Err(fault("the far broker sends and does not read the answers")),
            false => Ok(()),
        });
        outcome.inspect_err(|fault| self.report.end(fault.what.clone()))
    }

    /// Processes whole packets; returns their number of bytes.
    fn take_packets(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let framed = wire::frame(rest, self.terms.packet_bytes_max as usize);
            match framed.map_err(|violation| fault(violation.what()))? {
                Frame::Incomplete { .. } => return Ok(used),
                Frame::Complete { header, total } => {
                    self.take_packet(&rest[..total], header, plain)?;
                    used += total;
                }
            }
        }
    }

    fn take_packet(
        &mut self,
        frame: &[u8],
        header: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let version = self.attempt.version;
        let Some(packet_type) = wire::packet_type(frame) else {
            return Err(fault("a packet of an unknown type"));
        };
        let phase = if self.is_open() { Phase::Open } else { self.phase };
        match (phase, packet_type) {
            (Phase::Connecting, PacketType::Connack) => self.take_connack(frame, plain),
            (Phase::Open, PacketType::Publish) => {
                let publish = wire::decode_publish(frame, header, version);
                self.take_publish(&publish.map_err(|violation| fault(violation.what()))?, plain)
            }
            (
                Phase::Open,
                PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp,
            ) => self.take_acknowledgement(packet_type, frame, header, plain),
            (Phase::Open, PacketType::Suback) => self.take_suback(frame),
            (Phase::Open, PacketType::Unsuback) => {
                self.take_unsuback();
                Ok(())
            }
            (Phase::Open, PacketType::Pingresp) => {
                self.note_round_trip(|supervision| supervision.note_pingresp());
                Ok(())
            }
            (Phase::Open, PacketType::Disconnect) if version == Version::V5 => {
                let why = match wire::decode(frame, version) {
                    Ok(Packet::Disconnect(of)) => {
                        if of.reason == ReasonCode::SessionTakenOver {
                            self.report.tell(Event::TakenOver);
                        }
                        self.subscriptions.note_end(of.reason as u8);
                        explain(of.reason, of.reason_string)
                    }
                    _ => "DISCONNECT".to_owned(),
                };
                Err(fault(format!("the far broker has disconnected: {why}")))
            }
            _ => Err(fault(format!("unexpected {} from the far broker", packet_type.name()))),
        }
    }

    fn take_connack(&mut self, frame: &[u8], plain: &mut Vec<u8>) -> Result<(), Fault> {
        // A broker that does not know 5.0 answers in its own version.
        let version = match frame.len() {
            4 => self.attempt.version.min(Version::V311),
            _ => self.attempt.version,
        };
        let connack = match wire::decode(frame, version) {
            Ok(Packet::Connack(connack)) => connack,
            Ok(_) => return Err(fault("unexpected packet instead of CONNACK")),
            Err(violation) => return Err(fault(violation.what())),
        };
        if connack.reason != ReasonCode::Success {
            let what = explain(connack.reason, connack.properties.reason_string);
            let code = match version {
                Version::V5 => connack.reason as u8,
                _ => frame[3],
            };
            self.report.tell(Event::Refused { code, what: what.clone() });
            return Err(fault(format!("the far broker has refused the connection: {what}")));
        }
        if version < self.attempt.version {
            return Err(fault("the far broker has answered in another version"));
        }
        self.accept(&connack, plain);
        Ok(())
    }

    fn accept(&mut self, connack: &Connack<'_>, plain: &mut Vec<u8>) {
        let (version, properties) = (self.attempt.version, &connack.properties);
        let accepts = &self.terms.accepts;
        // 3.1 does not tell whether there is a session.
        let session_present = match version {
            Version::V31 => self.attempt.start == Start::Resume,
            _ => connack.session_present,
        };
        self.far = Far {
            is_new: !session_present,
            maximum_qos: match properties.maximum_qos {
                Some(0) => Qos::AtMostOnce,
                Some(1) => Qos::AtLeastOnce,
                _ => Qos::ExactlyOnce,
            }
            .min(Qos::try_from(accepts.qos_max).unwrap_or_default()),
            retain_available: properties.retain_available.unwrap_or(true) && accepts.retain,
            receive_maximum: properties.receive_maximum,
            packet_bytes_max: [
                properties.maximum_packet_size,
                self.terms.sent_bytes_max,
                accepts.packet_bytes_max,
            ]
            .into_iter()
            .flatten()
            .min(),
        };
        if self.attempt.start == Start::Discard {
            // The far broker closes the connection. Until then it has the session, which a connection that comes too
            // early would take over with its end; if it does not, the time for CONNECT ends the connection.
            self.report.tell(Event::Discarded);
            self.phase = Phase::Over;
            return Packet::Disconnect(Disconnect::default()).encode(version, &mut self.to_far);
        }
        Counters::note(&self.report.counters.connects);
        if self.far.is_new && self.attempt.start == Start::Resume {
            Counters::note(&self.report.counters.sessions_lost);
        }
        self.report.tell(Event::Connected { session_present });
        self.phase = Phase::Open;
        session::open(&self.terms, &self.far, plain);
        self.note_subscribing_all();
        if self.terms.unsubscribes_out && session_present {
            let filters: Vec<_> = self.terms.out.remote_filters().map(Into::into).collect();
            self.subscriptions.remember(&filters);
        }
        self.ask_far();
        if let Some(topic) = &self.terms.notification {
            notification::publish(topic, notification::CONNECTED, version, &mut self.to_far);
        }
    }

    /// A message of the far broker, which may have an alias in place of its topic, is published here.
    fn take_publish(&mut self, publish: &Publish<'_>, plain: &mut Vec<u8>) -> Result<(), Fault> {
        let Some(alias) = publish.properties.topic_alias else {
            self.publish_here(publish, plain);
            return Ok(());
        };
        let mut aliases = std::mem::take(&mut self.aliases);
        let topic =
            resolve_alias(&mut aliases, alias, publish.topic, self.terms.topic_alias_maximum);
        let outcome = topic.map(|topic| {
            self.publish_here(&Publish { topic, ..publish.clone() }, plain);
        });
        self.aliases = aliases;
        outcome.map_err(fault)
    }

    fn publish_here(&mut self, publish: &Publish<'_>, plain: &mut Vec<u8>) {
        Counters::note(&self.report.counters.received);
        // First, as an echo is not worth a line in the log.
        if self.is_echo(publish) {
            Counters::note(&self.report.counters.loops);
            return self.decline(publish);
        }
        let passed = path::of(&publish.properties.user_properties);
        if !path::may_enter(passed, &self.terms.broker, self.terms.hops_max) {
            self.report.note_loop(publish.topic, passed);
            return self.decline(publish);
        }
        let mut topic = std::mem::take(&mut self.topic);
        match self.terms.r#in.map_in(publish.topic, &mut topic) {
            Some(_) => {
                let user_properties = &publish.properties.user_properties;
                path::extended(user_properties, &self.terms.broker, &mut self.properties);
                if let Some(group) = &self.terms.group {
                    path::push_group(group, &mut self.properties);
                }
                let properties = PublishProperties {
                    topic_alias: None,
                    subscription_identifiers: SubscriptionIdentifiers::default(),
                    user_properties: UserProperties::encoded(&self.properties),
                    ..publish.properties.clone()
                };
                let publish = Publish { topic: &topic, properties, ..publish.clone() };
                Packet::Publish(publish).encode(Version::V5, plain);
            }
            None => {
                Counters::note(&self.report.counters.unmapped);
                self.decline(publish);
            }
        }
        self.topic = topic;
    }

    /// What was sent, if the far broker sends back some of it: it does not know that the client is a bridge, or that
    /// another client is of the same one.
    fn echoes(&self) -> Option<&Echoes> {
        let is_of_several = self.terms.group.is_some();
        self.terms.echoes.as_deref().filter(|_| is_of_several || !self.has_no_local())
    }

    /// Whether the far broker does not send back to this connection what it has from it.
    fn has_no_local(&self) -> bool {
        match self.attempt.version {
            Version::V5 => self.subscriptions.no_local() && !self.terms.r#in.is_shared(),
            _ => self.attempt.is_bridge && !self.terms.r#in.is_shared(),
        }
    }

    /// Whether a message that was sent on this topic may come back: filters that it matches are all of one connection.
    fn comes_back(&self, topic: &str) -> bool {
        !self.has_no_local() || !self.terms.r#in.matches(topic)
    }

    /// Whether a message of the far broker is one that it has from here.
    fn is_echo(&self, publish: &Publish<'_>) -> bool {
        let Publish { topic, payload, qos, dup, .. } = *publish;
        let is_of =
            |echoes: &Echoes| echoes.take(Message { topic, payload, qos }, dup, Instant::now());
        self.echoes().is_some_and(is_of)
    }

    /// Acknowledges a message of the far broker that is not published here. The session answers a PUBREL that follows.
    fn decline(&mut self, publish: &Publish<'_>) {
        let Some(identifier) = publish.packet_identifier else { return };
        let ack = Ack::new(identifier, ReasonCode::Success);
        match publish.qos {
            Qos::ExactlyOnce => Packet::Pubrec(ack),
            _ => Packet::Puback(ack),
        }
        .encode(self.attempt.version, &mut self.to_far);
    }

    fn take_acknowledgement(
        &mut self,
        packet_type: PacketType,
        frame: &[u8],
        header: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let version = self.attempt.version;
        let ack = wire::decode_ack(packet_type, frame, header, version);
        let ack = ack.map_err(|violation| fault(violation.what()))?;
        if packet_type != PacketType::Pubrel {
            let is_last = packet_type != PacketType::Pubrec || ack.reason.is_error();
            self.supervision.note_acknowledged(is_last);
            let identifier = ack.packet_identifier.get();
            self.note_round_trip(|supervision| supervision.note_answered(identifier));
        }
        if matches!(packet_type, PacketType::Puback | PacketType::Pubrec) && ack.reason.is_error() {
            self.note_refusal(ack.packet_identifier.get(), ack.reason)?;
        }
        let identifier = ack.packet_identifier.get();
        if packet_type == PacketType::Puback && self.acknowledgements.take_puback(identifier, plain)
        {
            return Ok(());
        }
        let encode = match packet_type {
            PacketType::Puback => Packet::Puback(ack),
            PacketType::Pubrec => Packet::Pubrec(ack),
            PacketType::Pubrel => Packet::Pubrel(ack),
            _ => Packet::Pubcomp(ack),
        };
        encode.encode(Version::V5, plain);
        Ok(())
    }

    /// The far broker has answered something, which may tell the round trip.
    fn note_round_trip(&mut self, answered: impl FnOnce(&mut Supervision) -> Option<Duration>) {
        if let Some(took) = answered(&mut self.supervision) {
            self.report.counters.note_round_trip(took);
        }
    }

    /// The far broker has refused a message. Fails if the message stays and is sent again on the next connection, as
    /// this one awaits no other answer to it.
    fn note_refusal(&mut self, identifier: u16, reason: ReasonCode) -> Result<(), Fault> {
        let refusal = Refusal::of(reason);
        Counters::note(&self.report.counters.refused[refusal as usize]);
        if !std::mem::replace(&mut self.refusals[refusal as usize], true) {
            let topic = self.sent_topics.find(identifier).map(str::to_owned);
            self.report.tell(Event::MessageRefused { refusal, topic });
        }
        match refusal.drops() {
            true => Ok(()),
            false => Err(fault("the far broker has no quota for a message, which is sent again")),
        }
    }

    /// Whether the link has packets of its own for the far broker.
    pub fn has_something_to_say(&self) -> bool {
        !self.to_far.is_empty()
    }

    /// Whether the link has packets of its own for the session: [`Self::receive`] gives them out.
    pub fn has_input(&self) -> bool {
        !self.to_session.is_empty()
    }

    /// A quarter of the Keep Alive has passed. Fails if the far broker has not answered for too long.
    pub fn tick(&mut self) -> Result<(), Fault> {
        if !self.is_open() {
            return Ok(());
        }
        self.note_held();
        match self.supervision.tick() {
            Outcome::Quiet => {}
            Outcome::Ping => {
                self.to_far.extend_from_slice(&PINGREQ);
                // For a Server Keep Alive of this broker.
                self.to_session.extend_from_slice(&PINGREQ);
            }
            Outcome::Dead(why) => {
                self.report.end(why);
                return Err(fault(why));
            }
        }
        Ok(())
    }

    /// A quarter of the time has passed in which the far broker has to acknowledge something. Fails if it has not for
    /// the whole of it, although messages wait for that.
    pub fn check_acknowledgements(&mut self) -> Result<(), Fault> {
        match self.supervision.look() {
            Outcome::Dead(why) if self.is_open() => {
                self.report.end(why);
                Err(fault(why))
            }
            _ => Ok(()),
        }
    }

    /// Memory of what was sent, approximately.
    pub fn state_bytes(&self) -> usize {
        self.echoes().map_or(0, |_| ECHOES_BYTES)
    }

    /// Memory of packets that are not complete, of packets of the link, and of topics.
    pub fn bytes_held(&self) -> usize {
        self.held
    }

    fn note_held(&mut self) {
        let own = self.to_far.capacity() + self.to_session.capacity();
        let topics = self.sent_topics.bytes_held() + self.aliases.bytes();
        self.held = self.partial.capacity() + own + topics;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.phase == Phase::Open && self.subscriptions.is_no_local_in_doubt() {
            self.report.tell(Event::NoLocalDoubted);
        }
    }
}

/// The topic of a message with an alias, which it may set [MQTT-3.3.2-8] [MQTT-3.3.2-9].
fn resolve_alias<'a>(
    aliases: &'a mut IncomingAliases,
    alias: u16,
    topic: &str,
    maximum: u16,
) -> Result<&'a str, &'static str> {
    if alias > maximum {
        return Err("the far broker has sent a Topic Alias above Topic Alias Maximum");
    }
    if !topic.is_empty() {
        let before = aliases.topic(alias).map_or(0, str::len);
        if aliases.bytes() + topic.len().saturating_sub(before) > ALIASES_BYTES_MAX {
            return Err("topics for which the far broker has set aliases take more than 4 MiB");
        }
        aliases.set(alias, topic);
    }
    aliases.topic(alias).ok_or("the far broker has sent a Topic Alias that it has not set")
}

fn fault(what: impl Into<String>) -> Fault {
    Fault { layer: Layer::Bridge, what: what.into() }
}

fn explain(reason: ReasonCode, text: Option<&str>) -> String {
    match text {
        Some(text) => format!("{}: {text}", reason.name()),
        None => reason.name().to_owned(),
    }
}
