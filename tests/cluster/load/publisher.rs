//! Publishing clients: each message has a number, and is sent until it is acknowledged.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringmq::wire::{
    self, Ack, Packet, PacketIdentifier, Publish, PublishProperties, Qos, ReasonCode, Version,
};

use super::link::{Gone, Link};
use super::traffic::Traffic;

/// Number of messages that a publisher has in flight.
const WINDOW: usize = 16;

/// Number of Packet Identifiers: small, so that each is soon used for another message.
const IDENTIFIERS: u16 = 4 * WINDOW as u16 + 1;

/// The topics of a publisher: all subscribers, or one of them; QoS 1 or 2.
const KINDS: usize = 4;

/// A message whose exchange is not complete.
struct Pending {
    identifier: u16,
    kind: usize,
    number: u64,
    is_released: bool,
}

/// A client that publishes at QoS 1 and 2 to all subscribers and to one of them.
pub struct Publisher {
    pub number: usize,
    name: String,
    version: Version,
    has_session: bool,
    /// How often its session was gone.
    pub sessions_lost: u64,
    identifier: u16,
    /// The last number sent, by kind.
    last: [u64; KINDS],
    /// The last acknowledged number, by kind.
    acknowledged: [u64; KINDS],
    pending: VecDeque<Pending>,
}

fn qos(kind: usize) -> Qos {
    if kind.is_multiple_of(2) { Qos::AtLeastOnce } else { Qos::ExactlyOnce }
}

impl Publisher {
    pub fn new(number: usize, version: Version) -> Self {
        Self {
            number,
            name: format!("publisher {number}"),
            version,
            has_session: false,
            sessions_lost: 0,
            identifier: 0,
            last: [0; KINDS],
            acknowledged: [0; KINDS],
            pending: VecDeque::new(),
        }
    }

    /// The topic of a kind, where `receiver` is the subscriber of those that one gets.
    fn topic(&self, kind: usize, receiver: usize) -> String {
        let (number, qos) = (self.number, kind % 2 + 1);
        if kind < 2 {
            format!("all/{number}/{qos}")
        } else {
            format!("one/{receiver}/{number}/{qos}")
        }
    }

    /// The last acknowledged numbers of the topics that a subscriber gets.
    pub fn expected(&self, subscriber: usize, subscribers: usize) -> Vec<(String, u64)> {
        let receiver = self.number % subscribers;
        let kinds = if subscriber == receiver { KINDS } else { 2 };
        (0..kinds).map(|kind| (self.topic(kind, receiver), self.acknowledged[kind])).collect()
    }

    /// Publishes until the time, or the end of the run; then all that it sent is to be acknowledged.
    pub fn serve(
        &mut self,
        address: SocketAddr,
        traffic: &Traffic,
        until: Option<Instant>,
    ) -> Result<(), Gone> {
        let (mut link, is_there) = Link::open(address, &self.name, self.version)?;
        self.sessions_lost += u64::from(self.has_session && !is_there);
        self.has_session = true;
        // [MQTT-4.4.0-1]: in their original order.
        for at in 0..self.pending.len() {
            self.send(&mut link, traffic, at, true)?;
        }
        loop {
            let is_over = traffic.is_over();
            if is_over && self.pending.is_empty() {
                link.disconnect();
                return Ok(());
            }
            if !is_over && until.is_some_and(|until| Instant::now() > until) {
                return Ok(());
            }
            let may_send = !is_over && traffic.may_send(self.number, self.last.iter().sum());
            if may_send && self.pending.len() < WINDOW {
                self.publish(&mut link, traffic)?;
                if !self.pending.len().is_multiple_of(4) {
                    continue;
                }
            } else if !may_send && self.pending.is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            while let Some(packet) = link.next()? {
                self.handle(&mut link, &packet)?;
            }
        }
    }

    fn publish(&mut self, link: &mut Link, traffic: &Traffic) -> Result<(), Gone> {
        let is_free = |of: &u16| self.pending.iter().all(|pending| pending.identifier != *of);
        let mut next = (1..=IDENTIFIERS).map(|on| (self.identifier + on - 1) % IDENTIFIERS + 1);
        self.identifier = next.find(is_free).expect("the window is smaller");
        let kind = usize::from(self.identifier) % KINDS;
        self.last[kind] += 1;
        self.pending.push_back(Pending {
            identifier: self.identifier,
            kind,
            number: self.last[kind],
            is_released: false,
        });
        self.send(link, traffic, self.pending.len() - 1, false)
    }

    fn send(&self, link: &mut Link, traffic: &Traffic, at: usize, dup: bool) -> Result<(), Gone> {
        let pending = &self.pending[at];
        let identifier = PacketIdentifier::new(pending.identifier).expect("from 1");
        if pending.is_released {
            return link.send(&Packet::Pubrel(Ack::new(identifier, ReasonCode::Success)));
        }
        link.send(&Packet::Publish(Publish {
            dup,
            qos: qos(pending.kind),
            retain: false,
            topic: &self.topic(pending.kind, self.number % traffic.subscribers()),
            packet_identifier: Some(identifier),
            properties: PublishProperties::default(),
            payload: &pending.number.to_be_bytes(),
        }))
    }

    fn handle(&mut self, link: &mut Link, packet: &[u8]) -> Result<(), Gone> {
        let packet = wire::decode(packet, link.version()).expect("the broker sends valid packets");
        let place = |identifier: PacketIdentifier| {
            self.pending.iter().position(|pending| pending.identifier == identifier.get())
        };
        match packet {
            Packet::Puback(ack) => {
                assert!(!ack.reason.is_error(), "{}: {ack:?}", self.name);
                let place = place(ack.packet_identifier).expect("an identifier in use");
                let pending = self.pending.remove(place).expect("an existing entry");
                self.note_acknowledged(pending.kind, pending.number);
            }
            Packet::Pubrec(ack) => {
                assert!(!ack.reason.is_error(), "{}: {ack:?}", self.name);
                if let Some(place) = place(ack.packet_identifier) {
                    let pending = &mut self.pending[place];
                    pending.is_released = true;
                    let (kind, number) = (pending.kind, pending.number);
                    self.note_acknowledged(kind, number);
                }
                let pubrel = Ack::new(ack.packet_identifier, ReasonCode::Success);
                link.send(&Packet::Pubrel(pubrel))?;
            }
            Packet::Pubcomp(ack) => {
                if let Some(place) = place(ack.packet_identifier) {
                    self.pending.remove(place);
                }
            }
            Packet::Disconnect(_) => return Err(Gone),
            other => panic!("{} received {other:?}", self.name),
        }
        Ok(())
    }

    fn note_acknowledged(&mut self, kind: usize, number: u64) {
        let last = &mut self.acknowledged[kind];
        *last = number.max(*last);
    }
}
