//! A local client that receives what comes in over the bridge.

use std::collections::{BTreeMap, BTreeSet};

use ringmq::wire::{
    self, Ack, Connect, ConnectProperties, Packet, PacketIdentifier, Qos, ReasonCode, Subscribe,
    SubscribeFilters, SubscribeOptions, UserProperties, Version,
};

use super::far::Far;
use crate::world::{At, World};

/// A session that is kept over crashes.
#[derive(Default)]
pub struct Witness {
    link: Option<usize>,
    is_subscribed: bool,
    /// Messages from this one on have to be received.
    expected_from: Option<usize>,
    /// QoS 2 exchanges between PUBREC and PUBREL.
    received: BTreeSet<u16>,
    /// Numbers of the messages, in the order in which they came.
    seen: Vec<usize>,
}

impl Witness {
    pub fn cut(&mut self, world: &mut World) {
        if let Some(link) = self.link.take() {
            world.cut(link);
        }
    }

    pub fn look(&mut self, world: &mut World) -> Result<(), String> {
        let link = match self.link {
            Some(link) => link,
            None => self.connect(world),
        };
        while let Some(packet) = world.links[link].inbox.pop_front() {
            let packet = wire::decode(&packet, Version::V5).map_err(|of| format!("sent: {of}"))?;
            let answer = match packet {
                Packet::Connack(connack) if connack.reason == ReasonCode::Success => {
                    if !connack.session_present {
                        // The first one, or one whose beginning did not survive a crash.
                        self.received.clear();
                        if self.is_subscribed {
                            return Err("the broker has lost the session of the witness".to_owned());
                        }
                    }
                    continue;
                }
                Packet::Suback(_) => {
                    self.is_subscribed = true;
                    continue;
                }
                Packet::Publish(publish) => {
                    let identifier = publish.packet_identifier;
                    let is_new = publish.qos != Qos::ExactlyOnce
                        || identifier.is_some_and(|of| self.received.insert(of.get()));
                    let number = publish.payload.first_chunk().map(|of| u64::from_be_bytes(*of));
                    if is_new {
                        self.seen.push(number.ok_or("a message without a number")? as usize);
                    }
                    let Some(identifier) = identifier else { continue };
                    let ack = Ack::new(identifier, ReasonCode::Success);
                    match publish.qos {
                        Qos::ExactlyOnce => Packet::Pubrec(ack),
                        _ => Packet::Puback(ack),
                    }
                }
                Packet::Pubrel(ack) => {
                    self.received.remove(&ack.packet_identifier.get());
                    Packet::Pubcomp(Ack::new(ack.packet_identifier, ReasonCode::Success))
                }
                other => return Err(format!("the witness has received {other:?}")),
            };
            answer.encode(Version::V5, &mut world.links[link].sent);
        }
        if world.links[link].at == At::Closed {
            self.link = None;
        }
        Ok(())
    }

    fn connect(&mut self, world: &mut World) -> usize {
        let link = world.connect(0);
        self.link = Some(link);
        let connect = Connect {
            version: Version::V5,
            is_bridge: false,
            clean_start: false,
            keep_alive_s: 0,
            client_identifier: "witness",
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties {
                session_expiry_interval: Some(3_600),
                ..ConnectProperties::default()
            },
        };
        let sent = &mut world.links[link].sent;
        Packet::Connect(connect).encode(Version::V5, sent);
        if !self.is_subscribed {
            let options = SubscribeOptions {
                qos: Qos::ExactlyOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: 2,
            };
            let filters = [("b/#", options)];
            let subscribe = Subscribe {
                packet_identifier: PacketIdentifier::new(1).expect("not zero"),
                subscription_identifier: None,
                user_properties: UserProperties::none(),
                filters: SubscribeFilters::list(&filters),
            };
            Packet::Subscribe(subscribe).encode(Version::V5, sent);
        }
        link
    }

    /// Whether the witness receives what is published from now on.
    pub fn expect_from(&mut self, far: &Far) {
        if self.is_subscribed {
            self.expected_from.get_or_insert(far.published.len());
        }
    }

    /// Everything is at rest.
    pub fn settle(&self, far: &Far) -> Result<(), String> {
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        let mut last: BTreeMap<u8, usize> = BTreeMap::new();
        for &number in &self.seen {
            let (qos, _) = far.published[number];
            let count = times.entry(number).or_default();
            *count += 1;
            if *count > 1 || qos == 0 {
                continue;
            }
            let newest = last.entry(qos).or_insert(number);
            if *newest > number {
                return Err(format!("a message of the far broker, {number}, comes after {newest}"));
            }
            *newest = number;
        }
        let expected_from = self.expected_from.unwrap_or(usize::MAX);
        for (number, &(qos, is_acknowledged)) in far.published.iter().enumerate() {
            let count = times.get(&number).copied().unwrap_or_default();
            if is_acknowledged && count == 0 && number >= expected_from {
                return Err(format!("message {number} of the far broker, QoS {qos}, is lost"));
            }
            if qos == 2 && count > 1 {
                return Err(format!("message {number} of the far broker comes {count} times"));
            }
        }
        Ok(())
    }
}
