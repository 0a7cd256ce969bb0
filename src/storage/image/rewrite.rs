//! A session while a checkpoint logs it again, in parts: its former state counts until the last part, and changes apply
//! to both. So a checkpoint may end anywhere, and the records before it may be gone.

use std::collections::{HashMap, VecDeque};

use crate::storage::image::{Delivery, Image, Part, Session, SharedContent};
use crate::storage::record::{
    CHECKPOINT_CONTENTS, DeliveryNumber, NoRecord, Record, SessionNumber,
};

/// What has been logged again of a session.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    session: Session,
    /// Messages that were queued since: they follow all others.
    later: VecDeque<Delivery>,
    /// The contents of the former deliveries.
    before: HashMap<DeliveryNumber, SharedContent>,
    /// All deliveries here, and whether they are in `later`; from the first change of one on.
    known: Option<HashMap<DeliveryNumber, bool>>,
}

impl Image {
    pub(super) fn begin_rewrite(&mut self, record: &Record<'_>, part: &impl Part) {
        let &Record::Rewrite { session, client_identifier, expiry_interval_s } = record else {
            return;
        };
        self.session_max = self.session_max.max(session.serial());
        if part.has_session(client_identifier) {
            let client_identifier = client_identifier.into();
            let state = Session { client_identifier, expiry_interval_s, ..Session::default() };
            let before = self.sessions.get(&session).map(Session::contents).unwrap_or_default();
            self.rewrites.insert(session, Rewrite { session: state, before, ..Rewrite::default() });
        }
    }

    pub(super) fn requeue(&mut self, record: &Record<'_>) -> Result<(), NoRecord> {
        let &Record::Requeued { session, delivery, content, .. } = record else { return Ok(()) };
        self.delivery_max = self.delivery_max.max(delivery);
        let Some(rewrite) = self.rewrites.get_mut(&session) else { return Ok(()) };
        if self.arrived.contains(&(session, delivery)) {
            return Ok(());
        }
        if content < CHECKPOINT_CONTENTS {
            return Err(NoRecord);
        }
        let known = rewrite.before.remove(&delivery);
        let content = known.unwrap_or_else(|| self.awaited.entry(content).or_default().clone());
        rewrite.requeue(record, content);
        Ok(())
    }

    /// The state that was logged again takes the place of the former one.
    pub(super) fn end_rewrite(&mut self, number: SessionNumber) {
        if let Some(mut rewrite) = self.rewrites.remove(&number) {
            rewrite.session.queue.append(&mut rewrite.later);
            rewrite.session.order_inflight();
            self.sessions.insert(number, rewrite.session);
        }
    }
}

impl Rewrite {
    fn requeue(&mut self, record: &Record<'_>, content: SharedContent) {
        let Some(delivery) = Delivery::new(record, content) else { return };
        if let Some(known) = &mut self.known {
            known.insert(delivery.number, false);
        }
        match delivery.packet_identifier {
            0 => self.session.queue.push_front(delivery),
            _ => self.session.inflight.push(delivery),
        }
    }

    /// A message is queued or sent meanwhile.
    pub(super) fn queue(&mut self, record: &Record<'_>, content: SharedContent) {
        let Some(delivery) = Delivery::new(record, content) else { return };
        if let Some(known) = &mut self.known {
            known.insert(delivery.number, delivery.packet_identifier == 0);
        }
        match delivery.packet_identifier {
            0 => self.later.push_back(delivery),
            _ => self.session.inflight.push(delivery),
        }
    }

    /// Applies a change of the session, as far as it concerns what has been logged again.
    pub(super) fn change(&mut self, record: &Record<'_>) {
        let (Record::Sent { delivery, .. } | Record::Done { delivery, .. }) = record else {
            return self.session.change(record);
        };
        let (inflight, queue) = (&self.session.inflight, &self.session.queue);
        let known = self.known.get_or_insert_with(|| {
            let logged = inflight.iter().chain(queue).map(|of| (of.number, false));
            logged.chain(self.later.iter().map(|of| (of.number, true))).collect()
        });
        match known.get(delivery) {
            None => {}
            Some(false) => self.session.change(record),
            Some(true) => {
                let place = self.later.iter().position(|of| of.number == *delivery);
                let Some(mut of) = place.and_then(|place| self.later.remove(place)) else { return };
                if let Record::Sent { packet_identifier, .. } = record {
                    of.packet_identifier = *packet_identifier;
                    known.insert(of.number, false);
                    self.session.inflight.push(of);
                }
            }
        }
    }
}

impl Session {
    /// Orders what is in flight by Packet Identifiers. They count up, 65,535 is followed by 1, and the oldest is the
    /// one after the largest gap.
    fn order_inflight(&mut self) {
        let inflight = &mut self.inflight;
        inflight.sort_by_key(|of| of.packet_identifier);
        let identifier = |place: usize| i32::from(inflight[place].packet_identifier);
        let gap_before = |place: usize| match place {
            0 => identifier(0) + i32::from(u16::MAX) - identifier(inflight.len() - 1),
            _ => identifier(place) - identifier(place - 1),
        };
        // The first of several equal gaps: an order that needs no change is kept.
        let oldest = (0..inflight.len()).rev().max_by_key(|&place| gap_before(place));
        inflight.rotate_left(oldest.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_flight_are_in_the_order_of_their_packet_identifiers() {
        for expected in [&[1, 2, 5][..], &[65_534, 65_535, 1, 2], &[40_000, 60_000, 3], &[9], &[]] {
            let of = |&packet_identifier: &u16| Delivery {
                number: 1,
                content: None,
                qos: 2,
                retain: false,
                packet_identifier,
                shared: None,
                identifiers: Vec::new(),
            };
            let inflight = expected.iter().rev().map(of).collect();
            let mut session = Session { inflight, ..Session::default() };
            session.order_inflight();
            let found: Vec<u16> = session.inflight.iter().map(|of| of.packet_identifier).collect();
            assert_eq!(found, expected);
        }
    }
}
