//! The far broker: a model of one, with a session of the bridge.

use std::collections::{BTreeSet, VecDeque};

use ringmq::wire::{
    self, Ack, Connack, ConnackProperties, Packet, PacketIdentifier, Publish, PublishProperties,
    Qos, ReasonCode, Suback, UserProperties, Version,
};

use crate::world::World;

/// Messages that the far broker sends without an acknowledgement, at most.
const WINDOW: usize = 20;
/// Packet Identifiers of the far broker: few, so that each is soon reused.
const IDENTIFIERS: u16 = 50;

/// What the far broker knows of the bridge.
#[derive(Default)]
struct Session {
    /// QoS 2 exchanges between PUBREC and PUBREL.
    received: BTreeSet<u16>,
    is_subscribed: bool,
    pending: VecDeque<Pending>,
}

struct Pending {
    identifier: u16,
    number: u64,
    qos: u8,
    /// PUBREC was received.
    is_released: bool,
    /// Sent on this connection, or an earlier one.
    is_sent: bool,
}

#[derive(Default)]
pub struct Far {
    session: Option<Session>,
    /// The connection that is served.
    link: Option<usize>,
    /// What comes on it is dropped, without an answer.
    pub swallows: bool,
    /// Something was.
    has_swallowed: bool,
    /// Answers wait.
    pub delays: bool,
    owed: Vec<Vec<u8>>,
    last_identifier: u16,
    /// Messages of local clients, in the order in which they came.
    pub received: Vec<usize>,
    /// Messages of QoS 2 before this one may have come more than once.
    pub exactly_once_from: usize,
    /// Messages that the far broker has published, by number: the QoS, and whether the bridge has acknowledged it.
    pub published: Vec<(u8, bool)>,
}

impl Far {
    /// The session is lost. `messages` were published so far at the other end.
    pub fn forget(&mut self, messages: usize) {
        self.session = None;
        self.exactly_once_from = messages;
    }

    /// Nothing is dropped or delayed any more. Returns whether the connection has to end for that.
    pub fn calm(&mut self) -> bool {
        (self.swallows, self.delays) = (false, false);
        std::mem::take(&mut self.has_swallowed)
    }

    /// A client of the far broker publishes a message.
    pub fn publish(&mut self, world: &mut World, link: Option<usize>, qos: u8) {
        let Some(session) = self.session.as_mut().filter(|session| session.is_subscribed) else {
            return;
        };
        let number = self.published.len() as u64;
        if qos == 0 {
            if let Some(link) = link.filter(|_| self.link == link) {
                self.published.push((qos, false));
                send(world, link, number, qos, None, false);
            }
            return;
        }
        if session.pending.len() >= WINDOW {
            return;
        }
        self.published.push((qos, false));
        let is_free = |of: &u16| session.pending.iter().all(|pending| pending.identifier != *of);
        let mut next = (0..IDENTIFIERS).map(|on| (self.last_identifier + on) % IDENTIFIERS + 1);
        let identifier = next.find(is_free).expect("more than the window");
        self.last_identifier = identifier;
        let link = link.filter(|_| self.link == link);
        let is_sent = link.is_some();
        session.pending.push_back(Pending { identifier, number, qos, is_released: false, is_sent });
        if let Some(link) = link {
            send(world, link, number, qos, Some(identifier), false);
        }
    }

    /// Takes what has come on the connection of the bridge.
    pub fn look(&mut self, world: &mut World, link: usize) -> Result<(), String> {
        if self.link != Some(link) {
            self.owed.clear();
            self.has_swallowed = false;
        }
        while let Some(packet) = world.links[link].inbox.pop_front() {
            let packet = wire::decode(&packet, Version::V5)
                .map_err(|violation| format!("the bridge has sent: {violation}"))?;
            self.take(world, link, &packet)?;
        }
        if !self.delays {
            world.links[link].sent.extend(self.owed.drain(..).flatten());
        }
        Ok(())
    }

    fn take(&mut self, world: &mut World, link: usize, packet: &Packet<'_>) -> Result<(), String> {
        if let Packet::Connect(connect) = packet {
            let expiry_s = connect.properties.session_expiry_interval.unwrap_or(0);
            self.begin(world, link, connect.clean_start, expiry_s);
            return Ok(());
        }
        if self.link != Some(link) {
            return Err(format!("{packet:?} before CONNECT"));
        }
        if self.swallows {
            self.has_swallowed = true;
            return Ok(());
        }
        if let Packet::Disconnect(_) = packet {
            world.cut(link);
            return Ok(());
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        let ok = |identifier| Ack::new(identifier, ReasonCode::Success);
        match packet {
            Packet::Subscribe(subscribe) => {
                session.is_subscribed = true;
                let reasons = [2];
                let suback = Suback {
                    packet_identifier: subscribe.packet_identifier,
                    reasons: &reasons,
                    reason_string: None,
                    user_properties: UserProperties::none(),
                };
                self.owe(&Packet::Suback(suback));
            }
            Packet::Publish(publish) => {
                let is_new = match (publish.qos, publish.packet_identifier) {
                    (Qos::ExactlyOnce, Some(identifier)) => {
                        let is_new = session.received.insert(identifier.get());
                        self.owe(&Packet::Pubrec(ok(identifier)));
                        is_new
                    }
                    (_, Some(identifier)) => {
                        self.owe(&Packet::Puback(ok(identifier)));
                        true
                    }
                    (_, None) => true,
                };
                if is_new {
                    let number = publish.payload.first_chunk().map(|of| u64::from_be_bytes(*of));
                    self.received.push(number.ok_or("a message without a number")? as usize);
                }
            }
            Packet::Pubrel(ack) => {
                session.received.remove(&ack.packet_identifier.get());
                self.owe(&Packet::Pubcomp(ok(ack.packet_identifier)));
            }
            Packet::Puback(ack) | Packet::Pubcomp(ack) => {
                let identifier = ack.packet_identifier.get();
                let place = session.pending.iter().position(|of| of.identifier == identifier);
                if let Some(done) = place.and_then(|place| session.pending.remove(place)) {
                    self.published[done.number as usize].1 = true;
                }
            }
            Packet::Pubrec(ack) => {
                let identifier = ack.packet_identifier.get();
                let mut pending = session.pending.iter_mut();
                if let Some(of) = pending.find(|of| of.identifier == identifier) {
                    of.is_released = true;
                    self.published[of.number as usize].1 = true;
                }
                self.owe(&Packet::Pubrel(ok(ack.packet_identifier)));
            }
            Packet::Pingreq | Packet::Unsubscribe(_) => {}
            other => return Err(format!("the bridge has sent {other:?}")),
        }
        Ok(())
    }

    fn begin(&mut self, world: &mut World, link: usize, is_clean: bool, expiry_s: u32) {
        self.link = Some(link);
        self.owed.clear();
        let kept = self.session.take().filter(|_| !is_clean);
        let connack = Connack {
            session_present: kept.is_some(),
            reason: ReasonCode::Success,
            properties: ConnackProperties::default(),
        };
        // At once: what is sent again follows.
        Packet::Connack(connack).encode(Version::V5, &mut world.links[link].sent);
        if expiry_s == 0 {
            return;
        }
        let session = self.session.insert(kept.unwrap_or_default());
        for of in &mut session.pending {
            if of.is_released {
                let identifier = PacketIdentifier::new(of.identifier).expect("from 1");
                let pubrel = Packet::Pubrel(Ack::new(identifier, ReasonCode::Success));
                pubrel.encode(Version::V5, &mut world.links[link].sent);
            } else {
                send(world, link, of.number, of.qos, Some(of.identifier), of.is_sent);
                of.is_sent = true;
            }
        }
    }

    fn owe(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        self.owed.push(bytes);
    }

    /// Everything is at rest.
    pub fn check_settled(&self) -> Result<(), String> {
        let left = self.session.as_ref().map_or(0, |session| session.pending.len());
        match left {
            0 => Ok(()),
            left => Err(format!("the far broker waits for acknowledgements of {left} messages")),
        }
    }
}

fn send(world: &mut World, link: usize, number: u64, qos: u8, identifier: Option<u16>, dup: bool) {
    let payload = number.to_be_bytes();
    let publish = Publish {
        dup,
        qos: Qos::try_from(qos).expect("0 to 2"),
        retain: false,
        topic: "there/x",
        packet_identifier: identifier.and_then(PacketIdentifier::new),
        properties: PublishProperties::default(),
        payload: &payload,
    };
    Packet::Publish(publish).encode(Version::V5, &mut world.links[link].sent);
}
