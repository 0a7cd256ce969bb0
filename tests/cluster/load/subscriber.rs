//! Subscribing clients with stored sessions, which change the node.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringmq::wire::{
    self, Ack, Packet, PacketIdentifier, Qos, ReasonCode, Subscribe, SubscribeFilters,
    SubscribeOptions, UserProperties, Version,
};

use super::ledger::Ledger;
use super::link::{Gone, Link};
use super::traffic::Traffic;

/// Acknowledgements that a slow client has ready before it sends them.
const OWED_MAX: usize = 8;

/// A client that gets what is published for all, and what is published for it.
pub struct Subscriber {
    number: usize,
    name: String,
    version: Version,
    has_session: bool,
    is_subscribed: bool,
    /// Number of times that its session was gone.
    pub sessions_lost: u64,
    /// QoS 2 exchanges between PUBREC and PUBREL, and the messages that began them.
    received: BTreeMap<u16, (String, u64)>,
    pub ledger: Ledger,
    /// Collects acknowledgements, so that messages are in flight when it leaves.
    is_lazy: bool,
}

impl Subscriber {
    pub fn new(number: usize, version: Version) -> Self {
        Self {
            number,
            name: format!("subscriber {number}"),
            version,
            has_session: false,
            is_subscribed: false,
            sessions_lost: 0,
            received: BTreeMap::new(),
            ledger: Ledger::default(),
            is_lazy: number % 3 == 1,
        }
    }

    pub fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    /// Connects to a node, and subscribes where its session is new.
    pub fn enter(&mut self, address: SocketAddr) -> Result<Link, Gone> {
        let (mut link, is_there) = Link::open(address, &self.name, self.version)?;
        if self.has_session && !is_there {
            self.sessions_lost += 1;
            self.received.clear();
        }
        self.has_session = true;
        if !is_there || !self.is_subscribed {
            let options = SubscribeOptions {
                qos: Qos::ExactlyOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: 0,
            };
            let own = format!("one/{}/#", self.number);
            link.send(&Packet::Subscribe(Subscribe {
                packet_identifier: PacketIdentifier::new(1).expect("one"),
                subscription_identifier: None,
                user_properties: UserProperties::none(),
                filters: SubscribeFilters::list(&[("all/#", options), (&own, options)]),
            }))?;
        }
        Ok(link)
    }

    /// Takes what comes until something holds.
    pub fn serve(
        &mut self,
        link: &mut Link,
        traffic: &Traffic,
        is_done: impl Fn(&Self) -> bool,
    ) -> Result<(), Gone> {
        let mut owed = Vec::new();
        let mut count = 0;
        while !is_done(self) {
            let packet = link.next()?;
            if let Some(packet) = &packet {
                self.handle(packet, traffic, &mut owed, &mut count)?;
            }
            if !self.is_lazy || count > OWED_MAX || packet.is_none() {
                link.send_bytes(&owed)?;
                (owed, count) = (Vec::new(), 0);
            }
        }
        Ok(())
    }

    fn handle(
        &mut self,
        packet: &[u8],
        traffic: &Traffic,
        owed: &mut Vec<u8>,
        count: &mut usize,
    ) -> Result<(), Gone> {
        let version = self.version;
        let mut owe = |packet: Packet<'_>| {
            packet.encode(version, owed);
            *count += 1;
        };
        let ack = |identifier| Ack::new(identifier, ReasonCode::Success);
        match wire::decode(packet, version).expect("the broker sends valid packets") {
            Packet::Suback(_) => self.is_subscribed = true,
            Packet::Publish(publish) => {
                let identifier = publish.packet_identifier.expect("QoS 1 or 2");
                let is_new = match publish.qos {
                    Qos::ExactlyOnce => {
                        owe(Packet::Pubrec(ack(identifier)));
                        self.begins_exchange(identifier.get(), &publish)
                    }
                    _ => {
                        owe(Packet::Puback(ack(identifier)));
                        true
                    }
                };
                if is_new {
                    self.note(&publish, traffic);
                }
            }
            Packet::Pubrel(released) => {
                self.received.remove(&released.packet_identifier.get());
                owe(Packet::Pubcomp(ack(released.packet_identifier)));
            }
            Packet::Disconnect(_) => return Err(Gone),
            other => panic!("{} received {other:?}", self.name),
        }
        Ok(())
    }

    /// Whether a PUBLISH of QoS 2 begins an exchange, and is not the repetition of one.
    fn begins_exchange(&mut self, identifier: u16, publish: &wire::Publish<'_>) -> bool {
        let message = (publish.topic.to_owned(), number_of(publish));
        match self.received.get(&identifier) {
            None => self.received.insert(identifier, message).is_none(),
            Some(former) => {
                if *former != message {
                    self.ledger.note_reused(identifier, former, &message);
                }
                false
            }
        }
    }

    fn note(&mut self, publish: &wire::Publish<'_>, traffic: &Traffic) {
        let number = number_of(publish);
        if self.ledger.note(publish.topic, number, publish.qos, publish.dup) {
            let mut parts = publish.topic.rsplit('/');
            let publisher = parts.nth(1).and_then(|part| part.parse().ok()).expect("a publisher");
            traffic.note(publisher, self.number, publish.topic.starts_with("all"));
        }
    }
}

fn number_of(publish: &wire::Publish<'_>) -> u64 {
    u64::from_be_bytes(publish.payload.try_into().expect("a number"))
}
