//! The deliveries of one session: those in flight, in the order that Packet Identifiers count, and those that wait.

use std::collections::{BTreeSet, VecDeque};

use super::chunk::{Delivery, Stage};
use super::report::Reason;
use crate::base::limits;
use crate::storage::image::{self, SharedContent};

/// Packet Identifiers: all numbers of 16 bits but 0.
const IDENTIFIERS: u16 = u16::MAX;

/// Collects the deliveries of a session.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    inflight: Vec<image::Delivery>,
    queue: VecDeque<image::Delivery>,
    received: BTreeSet<u16>,
    forwards: Vec<(SharedContent, bool)>,
}

/// The deliveries of a session as the store has them.
#[derive(Debug)]
pub(super) struct Exchange {
    /// In flight, in the order of their Packet Identifiers.
    pub(super) inflight: Vec<image::Delivery>,
    /// Queued messages.
    pub(super) queue: VecDeque<image::Delivery>,
    /// Packet Identifiers of QoS 2 messages from the client.
    pub(super) received: BTreeSet<u16>,
    /// These messages, which nobody has got yet, with their RETAIN flag.
    pub(super) forwards: Vec<(SharedContent, bool)>,
    /// How many of `queue` were in flight.
    pub(super) queued_again: u64,
    /// How many were left out for their Packet Identifiers.
    pub(super) identifiers_lost: usize,
}

fn delivery(packet_identifier: u16, qos: u8, content: Option<SharedContent>) -> image::Delivery {
    let (retain, shared, identifiers) = (false, None, Vec::new());
    image::Delivery { number: 0, content, qos, retain, packet_identifier, shared, identifiers }
}

impl Waiting {
    /// A message to the client.
    pub(super) fn deliver(
        &mut self,
        of: &Delivery<'_>,
        stage: Stage,
        content: SharedContent,
        identifiers: Vec<u32>,
    ) -> Result<(), Reason> {
        let packet_identifier = if stage == Stage::Queued { 0 } else { of.packet_identifier };
        let content = delivery(packet_identifier, of.qos, Some(content));
        let delivery = image::Delivery { retain: of.retain, identifiers, ..content };
        match packet_identifier {
            0 => self.queue.push_back(delivery),
            _ => self.inflight.push(delivery),
        }
        Ok(())
    }

    /// A message to the client that PUBREC has arrived for.
    pub(super) fn release(&mut self, packet_identifier: u16) -> Result<(), Reason> {
        if packet_identifier == 0 {
            return Err(Reason::Identifier);
        }
        self.inflight.push(delivery(packet_identifier, 2, None));
        Ok(())
    }

    /// A QoS 2 message from the client, with its RETAIN flag; no message if it has expired.
    pub(super) fn receive(
        &mut self,
        packet_identifier: u16,
        message: Option<(SharedContent, bool)>,
    ) -> Result<(), Reason> {
        if packet_identifier == 0 || !self.received.insert(packet_identifier) {
            return Err(Reason::Identifier);
        }
        self.forwards.extend(message);
        Ok(())
    }

    /// Puts the deliveries in order.
    pub(super) fn end(self) -> Exchange {
        let Self { mut inflight, mut queue, received, forwards } = self;
        let before = inflight.len();
        sort(&mut inflight);
        let mut identifiers_lost = before - inflight.len();
        let mut queued_again = 0;
        for mut early in take_early(&mut inflight).into_iter().rev() {
            if early.content.is_none() {
                // The client has the message.
                identifiers_lost += 1;
            } else {
                early.packet_identifier = 0;
                queue.push_front(early);
                queued_again += 1;
            }
        }
        Exchange { inflight, queue, received, forwards, queued_again, identifiers_lost }
    }
}

/// How many Packet Identifiers `to` is after `from`.
fn distance(from: u16, to: u16) -> usize {
    usize::from(if to >= from { to - from } else { IDENTIFIERS - (from - to) })
}

/// Orders deliveries by Packet Identifier, beginning after the largest gap, as identifiers count up and begin again
/// after the last. Of several with the same identifier, the first one stays.
fn sort(inflight: &mut Vec<image::Delivery>) {
    inflight.sort_by_key(|of| of.packet_identifier);
    inflight.dedup_by_key(|of| of.packet_identifier);
    let count = inflight.len();
    let gap = |place: usize| {
        let before = &inflight[(place + count - 1) % count];
        distance(before.packet_identifier, inflight[place].packet_identifier)
    };
    // Of equal gaps the one before the lowest identifier.
    let first = (0..count).rev().max_by_key(|place| gap(*place)).unwrap_or(0);
    inflight.rotate_left(first);
}

/// Takes the deliveries that are too far before the last: the broker has a place for each identifier in between.
fn take_early(inflight: &mut Vec<image::Delivery>) -> Vec<image::Delivery> {
    let Some(last) = inflight.last().map(|of| of.packet_identifier) else { return Vec::new() };
    let is_early = |of: &image::Delivery| {
        distance(of.packet_identifier, last) >= limits::IDENTIFIER_SPAN_MAX - 1
    };
    let count = inflight.iter().take_while(|of| is_early(of)).count();
    inflight.drain(..count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(identifiers: &[u16]) -> (Vec<u16>, Vec<u16>) {
        let mut inflight: Vec<_> = identifiers.iter().map(|id| delivery(*id, 2, None)).collect();
        sort(&mut inflight);
        let early = take_early(&mut inflight);
        let of = |list: &[image::Delivery]| list.iter().map(|of| of.packet_identifier).collect();
        (of(&early), of(&inflight))
    }

    #[test]
    fn packet_identifiers_in_flight_count_up_from_the_largest_gap() {
        assert_eq!(ordered(&[]), (vec![], vec![]));
        assert_eq!(ordered(&[7]), (vec![], vec![7]));
        assert_eq!(ordered(&[9, 3, 5]), (vec![], vec![3, 5, 9]));
        assert_eq!(ordered(&[3, 3]), (vec![], vec![3]));
        assert_eq!(ordered(&[65_534, 65_535, 1, 4]), (vec![], vec![65_534, 65_535, 1, 4]));
        assert_eq!(ordered(&[1, 20_000, 32_767]), (vec![], vec![1, 20_000, 32_767]));
    }

    #[test]
    fn packet_identifiers_too_far_before_the_last_are_taken_off() {
        assert_eq!(ordered(&[1, 20_000, 40_000]), (vec![1], vec![20_000, 40_000]));
        let spread: Vec<u16> = (0..8).map(|part| 1 + part * 8_000).collect();
        let (early, rest) = ordered(&spread);
        assert_eq!(early.len() + rest.len(), spread.len());
        assert!(distance(rest[0], rest[rest.len() - 1]) < limits::IDENTIFIER_SPAN_MAX - 1);
    }
}
