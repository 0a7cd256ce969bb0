//! Writes an image as records.

use std::collections::HashMap;

use crate::storage::image::{Delivery, HeldWill, Image, Session, SharedContent};
use crate::storage::record::{Exchange, Record, SessionNumber, checkpoint_content};

impl Image {
    /// Writes the complete state with as few records as possible. `batch_is_full` may take the bytes
    /// whenever a batch can end; the rest is returned.
    pub fn write(&self, mut batch_is_full: impl FnMut(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        // Each content once, after its deliveries.
        let (mut contents, mut numbers) = (Vec::new(), HashMap::new());
        let mut number_of = |content: &SharedContent| {
            *numbers.entry(content.address()).or_insert_with(|| {
                contents.push(content.clone());
                checkpoint_content(0, contents.len() as u64)
            })
        };
        for (&number, session) in &self.sessions {
            session.write(number, &mut out, &mut number_of);
            batch_is_full(&mut out);
        }
        for (content, number) in
            contents.iter().zip((1..).map(|count| checkpoint_content(0, count)))
        {
            let Some(content) = content.get() else { continue };
            Record::Content { number, content: content.borrow() }.encode(&mut out);
            batch_is_full(&mut out);
        }
        for (&Exchange { publisher, packet_identifier }, sessions) in &self.taken {
            for &session in sessions.iter().filter(|session| self.sessions.contains_key(session)) {
                Record::Taken { session, publisher, packet_identifier }.encode(&mut out);
            }
        }
        let of_groups = self.taken_by_groups.iter();
        for (&Exchange { publisher, packet_identifier }, groups) in
            of_groups.filter(|(exchange, _)| self.sessions.contains_key(&exchange.publisher))
        {
            for filter in groups {
                Record::TakenByGroup { publisher, packet_identifier, filter }.encode(&mut out);
            }
        }
        for (&session, will) in &self.wills {
            will.write(session, &mut out);
            batch_is_full(&mut out);
        }
        for retained in self.retained.values() {
            // No older message of a topic is left that its removal would have to outlive.
            let Some(content) = &retained.content else { continue };
            let content = content.borrow();
            Record::Retained { stamp: retained.stamp, content }.encode(&mut out);
            batch_is_full(&mut out);
        }
        out
    }
}

impl Session {
    /// Writes the session without the contents of its deliveries, whose numbers are given by `number_of`.
    fn write(
        &self,
        session: SessionNumber,
        out: &mut Vec<u8>,
        mut number_of: impl FnMut(&SharedContent) -> u64,
    ) {
        let (client_identifier, expiry_interval_s) =
            (&*self.client_identifier, self.expiry_interval_s);
        Record::Session { session, client_identifier, expiry_interval_s }.encode(out);
        if let Some(owner) = &self.owner {
            Record::Owned { session, owner }.encode(out);
        }
        for (filter, of) in &self.subscriptions {
            Record::Subscribed {
                session,
                filter,
                qos: of.qos,
                no_local: of.no_local,
                retain_as_published: of.retain_as_published,
                identifier: of.identifier,
            }
            .encode(out);
        }
        for filter in &self.far_subscriptions {
            Record::FarSubscribed { session, filter }.encode(out);
        }
        for &packet_identifier in &self.received {
            Record::Received { session, packet_identifier }.encode(out);
        }
        for of in self.inflight.iter().chain(&self.queue) {
            of.write(session, out, &mut number_of);
        }
        if let Some(since_us) = self.away_since_us {
            Record::Away { session, expiry_interval_s, since_us }.encode(out);
        }
        if let Some(will) = &self.will {
            Record::Will {
                session,
                due_us: will.due_us,
                content: will.content.borrow(),
                retain: will.retain,
                message_expiry_interval_s: will.message_expiry_interval_s,
            }
            .encode(out);
            write_listener(session, will.listener.as_deref(), out);
        }
    }
}

impl HeldWill {
    fn write(&self, session: SessionNumber, out: &mut Vec<u8>) {
        Record::WillHeld {
            session,
            client_identifier: &self.client_identifier,
            delay_interval_s: self.delay_interval_s,
            content: self.content.borrow(),
            retain: self.retain,
            message_expiry_interval_s: self.message_expiry_interval_s,
        }
        .encode(out);
        if let Some(owner) = &self.owner {
            Record::Owned { session, owner }.encode(out);
        }
        write_listener(session, self.listener.as_deref(), out);
    }
}

/// Writes which listener the client of a Will came through.
fn write_listener(session: SessionNumber, listener: Option<&str>, out: &mut Vec<u8>) {
    if let Some(listener) = listener {
        Record::WillThrough { session, listener }.encode(out);
    }
}

impl Delivery {
    fn write(
        &self,
        session: SessionNumber,
        out: &mut Vec<u8>,
        number_of: impl FnOnce(&SharedContent) -> u64,
    ) {
        let (delivery, packet_identifier) = (self.number, self.packet_identifier);
        let Some(content) = &self.content else {
            return Record::Released { session, delivery, packet_identifier }.encode(out);
        };
        Record::Queued {
            session,
            delivery,
            content: number_of(content),
            qos: self.qos,
            retain: self.retain,
            packet_identifier,
            shared: self.shared.as_deref(),
            identifiers: self.identifiers.as_slice().into(),
        }
        .encode(out);
    }
}
