//! Publishing clients that record acknowledgements.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use ringmq::wire::{
    self, Ack, Packet, PacketIdentifier, Publish, PublishProperties, Qos, ReasonCode, Version,
};

use crate::WINDOW;
use crate::link::{Gone, Link, check_session};

/// Number of Packet Identifiers of a publisher: small, so that each is soon reused for another
/// message.
const IDENTIFIERS: u16 = 4 * WINDOW as u16 + 1;

/// A message whose exchange is not complete.
pub struct Pending {
    identifier: u16,
    qos: u8,
    number: u64,
    is_released: bool,
}

/// Publishes numbers at QoS 1, at QoS 2, and retained.
pub struct Publisher {
    pub name: String,
    has_session: bool,
    identifier: u16,
    /// The last number sent by QoS; retained messages are sent at QoS 1 to another topic and
    /// counted at index 0.
    pub last: [u64; 3],
    /// The last acknowledged number: no earlier one may be missing.
    pub acknowledged: [u64; 3],
    pending: VecDeque<Pending>,
}

impl Publisher {
    pub fn new(number: usize) -> Self {
        Self {
            name: format!("publisher {number}"),
            has_session: false,
            identifier: 0,
            last: [0; 3],
            acknowledged: [0; 3],
            pending: VecDeque::new(),
        }
    }

    pub fn topic(&self, qos: u8) -> String {
        match qos {
            0 => format!("r/{}", self.name),
            qos => format!("t/{qos}/{}", self.name),
        }
    }

    pub fn serve(&mut self, address: SocketAddr, is_ending: &AtomicBool) -> Result<(), Gone> {
        let (mut link, is_there) = Link::open(address, &self.name)?;
        check_session(&self.name, &mut self.has_session, is_there);
        // [MQTT-4.4.0-1]: in their original order.
        for at in 0..self.pending.len() {
            self.send(&mut link, at, true)?;
        }
        loop {
            let is_ending = is_ending.load(Ordering::Relaxed);
            if is_ending && self.pending.is_empty() {
                return Ok(());
            }
            if !is_ending && self.pending.len() < WINDOW {
                self.publish(&mut link)?;
                if !self.pending.len().is_multiple_of(4) {
                    continue;
                }
            }
            while let Some(packet) = link.next()? {
                self.handle(&mut link, &packet)?;
            }
        }
    }

    fn publish(&mut self, link: &mut Link) -> Result<(), Gone> {
        self.identifier = self.next_identifier();
        let qos = (self.identifier % 3) as u8;
        self.last[usize::from(qos)] += 1;
        let number = self.last[usize::from(qos)];
        let (identifier, is_released) = (self.identifier, false);
        self.pending.push_back(Pending { identifier, qos, number, is_released });
        self.send(link, self.pending.len() - 1, false)
    }

    /// The next free Packet Identifier.
    fn next_identifier(&self) -> u16 {
        let is_free = |of: &u16| self.pending.iter().all(|pending| pending.identifier != *of);
        let mut next = (1..=IDENTIFIERS).map(|on| (self.identifier + on - 1) % IDENTIFIERS + 1);
        next.find(is_free).expect("the window is smaller")
    }

    pub fn send(&self, link: &mut Link, at: usize, dup: bool) -> Result<(), Gone> {
        let pending = &self.pending[at];
        let identifier = PacketIdentifier::new(pending.identifier).expect("from 1");
        if pending.is_released {
            return link.send(&Packet::Pubrel(Ack::new(identifier, ReasonCode::Success)));
        }
        let topic = self.topic(pending.qos);
        link.send(&Packet::Publish(Publish {
            dup,
            qos: if pending.qos == 2 { Qos::ExactlyOnce } else { Qos::AtLeastOnce },
            retain: pending.qos == 0,
            topic: &topic,
            packet_identifier: Some(identifier),
            properties: PublishProperties::default(),
            payload: &pending.number.to_be_bytes(),
        }))
    }

    fn handle(&mut self, link: &mut Link, packet: &[u8]) -> Result<(), Gone> {
        let packet = wire::decode(packet, Version::V5).expect("the broker sends valid packets");
        let place = |identifier: PacketIdentifier| {
            self.pending.iter().position(|pending| pending.identifier == identifier.get())
        };
        match packet {
            Packet::Puback(ack) => {
                let place = place(ack.packet_identifier).expect("an identifier in use");
                let pending = self.pending.remove(place).expect("an existing entry");
                self.note_acknowledged(pending.qos, pending.number);
            }
            Packet::Pubrec(ack) => {
                if let Some(place) = place(ack.packet_identifier) {
                    let pending = &mut self.pending[place];
                    pending.is_released = true;
                    let number = pending.number;
                    self.note_acknowledged(2, number);
                }
                let pubrel = Ack::new(ack.packet_identifier, ReasonCode::Success);
                link.send(&Packet::Pubrel(pubrel))?;
            }
            Packet::Pubcomp(ack) => {
                if let Some(place) = place(ack.packet_identifier) {
                    self.pending.remove(place);
                }
            }
            other => panic!("{} received {other:?}", self.name),
        }
        Ok(())
    }

    fn note_acknowledged(&mut self, qos: u8, number: u64) {
        let last = &mut self.acknowledged[usize::from(qos)];
        *last = number.max(*last);
    }
}
