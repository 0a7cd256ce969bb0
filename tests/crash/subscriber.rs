//! Subscribing clients that check what they receive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ringmq::wire::{
    self, Ack, Packet, PacketIdentifier, Qos, ReasonCode, Subscribe, SubscribeFilters,
    SubscribeOptions, UserProperties, Version,
};

use crate::link::{Gone, Link, check_session};

/// Messages received by the members of a shared subscription.
#[derive(Default)]
pub struct Group {
    /// By topic, the number of times each number was received.
    counts: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Group {
    fn note(&self, name: &str, topic: &str, number: u64, qos: Qos) {
        let mut counts = self.counts.lock().expect("no member panicked");
        let of_topic = counts.entry(topic.to_owned()).or_default();
        let place = number as usize;
        if of_topic.len() <= place {
            of_topic.resize(place + 1, 0);
        }
        of_topic[place] = of_topic[place].saturating_add(1);
        let is_again = qos == Qos::ExactlyOnce && of_topic[place] > 1;
        assert!(!is_again, "{name} got {topic} {number}, which its group already received");
    }

    /// The first number of a topic, from 1 to `last`, that no member received.
    pub fn missing(&self, topic: &str, last: u64) -> Option<u64> {
        let counts = self.counts.lock().expect("no member panicked");
        let of_topic = counts.get(topic).map_or(&[][..], Vec::as_slice);
        (1..=last).find(|&number| of_topic.get(number as usize).is_none_or(|&count| count == 0))
    }
}

/// Subscribes to all topics, and records the messages.
pub struct Subscriber {
    pub name: String,
    /// The group, for a shared subscription.
    group: Option<Arc<Group>>,
    has_session: bool,
    pub is_subscribed: bool,
    /// QoS 2 exchanges between PUBREC and PUBREL.
    received: BTreeSet<u16>,
    /// By topic, the number of consecutive messages received.
    pub seen: BTreeMap<String, u64>,
    /// Delays acknowledgements.
    is_lazy: bool,
}

impl Subscriber {
    pub fn new(number: usize) -> Self {
        Self {
            name: format!("subscriber {number}"),
            group: None,
            has_session: false,
            is_subscribed: false,
            received: BTreeSet::new(),
            seen: BTreeMap::new(),
            is_lazy: number == 1,
        }
    }

    pub fn member(number: usize, group: &Arc<Group>) -> Self {
        let (name, group) = (format!("member {number}"), Some(Arc::clone(group)));
        Self { name, group, ..Self::new(number) }
    }

    pub fn serve(
        &mut self,
        address: SocketAddr,
        is_done: impl Fn(&Self) -> bool,
    ) -> Result<(), Gone> {
        let (mut link, is_there) = Link::open(address, &self.name)?;
        check_session(&self.name, &mut self.has_session, is_there);
        if !self.is_subscribed {
            let options = SubscribeOptions {
                qos: Qos::ExactlyOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: 2,
            };
            let filter = if self.group.is_some() { "$share/group/t/#" } else { "t/#" };
            let filters = [(filter, options)];
            link.send(&Packet::Subscribe(Subscribe {
                packet_identifier: PacketIdentifier::new(1).expect("one"),
                subscription_identifier: None,
                user_properties: UserProperties::none(),
                filters: SubscribeFilters::list(&filters),
            }))?;
        }
        let mut owed = Vec::new();
        while !is_done(self) {
            let packet = link.next()?;
            if let Some(packet) = &packet {
                self.handle(packet, &mut owed);
            }
            if !self.is_lazy || owed.len() > 7 || packet.is_none() {
                for ack in owed.drain(..) {
                    link.stream.write_all(&ack).map_err(|_| Gone)?;
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, packet: &[u8], owed: &mut Vec<Vec<u8>>) {
        let mut owe = |packet: Packet<'_>| {
            let mut bytes = Vec::new();
            packet.encode(Version::V5, &mut bytes);
            owed.push(bytes);
        };
        let ack = |identifier| Ack::new(identifier, ReasonCode::Success);
        match wire::decode(packet, Version::V5).expect("the broker sends valid packets") {
            Packet::Suback(_) => self.is_subscribed = true,
            Packet::Publish(publish) => {
                let identifier = publish.packet_identifier.expect("QoS 1 or 2");
                let is_new = match publish.qos {
                    Qos::ExactlyOnce => {
                        owe(Packet::Pubrec(ack(identifier)));
                        self.received.insert(identifier.get())
                    }
                    _ => {
                        owe(Packet::Puback(ack(identifier)));
                        true
                    }
                };
                if is_new {
                    self.note(publish.topic, publish.payload, publish.qos);
                }
            }
            Packet::Pubrel(released) => {
                self.received.remove(&released.packet_identifier.get());
                owe(Packet::Pubcomp(ack(released.packet_identifier)));
            }
            other => panic!("{} received {other:?}", self.name),
        }
    }

    fn note(&mut self, topic: &str, payload: &[u8], qos: Qos) {
        let number = u64::from_be_bytes(payload.try_into().expect("a number"));
        let name = &self.name;
        if let Some(group) = &self.group {
            return group.note(name, topic, number, qos);
        }
        let seen = self.seen.entry(topic.to_owned()).or_insert(0);
        if number == *seen + 1 {
            *seen = number;
        } else if number > *seen {
            panic!("{name} got {topic} {number} after {seen}: those between are lost");
        } else if qos == Qos::ExactlyOnce {
            panic!("{name} got {topic} {number} again");
        }
    }
}
