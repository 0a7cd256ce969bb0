//! The way out: packets of the session become packets for the far broker.

use std::time::Instant;

use super::{Link, Phase, explain};
use crate::base::send_buffer::SendBuffer;
use crate::config::bridge::Retained;
use crate::transport::bridge::acknowledgements::{convert, identifier_of};
use crate::transport::bridge::echoes::Message;
use crate::transport::bridge::report::{Counters, Event};
use crate::transport::bridge::{notification, path};
use crate::wire::{
    self, Disconnect, Frame, Packet, PacketType, Publish, PublishProperties, Qos, ReasonCode,
    SubscriptionIdentifiers, UserProperties, Version,
};

impl Link {
    /// Turns packets of the session into packets for the far broker. `scratch` is memory.
    pub fn wrap(&mut self, mqtt: &mut SendBuffer, scratch: &mut Vec<u8>) {
        scratch.clear();
        mqtt.take(usize::MAX, scratch);
        mqtt.clear();
        mqtt.append(|out| {
            out.append(&mut self.to_far);
            let mut rest = &scratch[..];
            while let Ok(Frame::Complete { header, total }) =
                wire::frame(rest, wire::PACKET_BYTES_MAX)
            {
                self.send_packet(&rest[..total], header, out);
                rest = &rest[total..];
            }
        });
        if !mqtt.is_empty() {
            self.supervision.note_sent();
        }
        scratch.clear();
    }

    fn send_packet(&mut self, frame: &[u8], header: usize, out: &mut Vec<u8>) {
        let Some(packet_type) = wire::packet_type(frame) else { return };
        if self.phase == Phase::Over && packet_type != PacketType::Disconnect {
            // Not answered, so that messages stay in the queue.
            return;
        }
        match packet_type {
            PacketType::Publish => {
                if let Ok(publish) = wire::decode_publish(frame, header, Version::V5) {
                    self.send_publish(&publish, out);
                }
            }
            PacketType::Pubrel
                if identifier_of(frame, header).is_some_and(|identifier| {
                    let is_done = self.far.maximum_qos != Qos::ExactlyOnce;
                    self.acknowledgements.take_pubrel(identifier, is_done, &mut self.to_session)
                }) => {}
            PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => {
                convert(packet_type, frame, header, self.attempt.version, out);
            }
            PacketType::Connack => self.note_connack(frame),
            PacketType::Suback => self.note_suback(frame),
            PacketType::Disconnect => self.leave(frame, out),
            _ => {}
        }
    }

    fn send_publish(&mut self, publish: &Publish<'_>, out: &mut Vec<u8>) {
        let passed = path::of(&publish.properties.user_properties);
        if !path::may_leave(passed, &self.terms.broker) {
            self.report.note_loop(publish.topic, passed);
            return self.drop_own(publish, ReasonCode::Success);
        }
        if let Some(group) = &self.terms.group
            && path::is_of_group(&publish.properties.user_properties, group)
        {
            // As No Local of one session: another one of the bridge has published it.
            return self.drop_own(publish, ReasonCode::Success);
        }
        let mut topic = std::mem::take(&mut self.topic);
        match self.terms.out.map_out(publish.topic, &mut topic) {
            Some((_, qos_max)) if self.terms.accepts.takes_topic(&topic) => {
                self.send_mapped(publish, &topic, qos_max, out)
            }
            _ => {
                Counters::note(&self.report.counters.unmapped);
                self.drop_own(publish, ReasonCode::ImplementationSpecificError);
            }
        }
        self.topic = topic;
    }

    fn send_mapped(&mut self, publish: &Publish<'_>, topic: &str, qos_max: Qos, out: &mut Vec<u8>) {
        let version = self.attempt.version;
        let qos = publish.qos.min(qos_max).min(self.far.maximum_qos);
        let mut encoded = std::mem::take(&mut self.properties);
        if version == Version::V5 {
            path::extended(&publish.properties.user_properties, &self.terms.broker, &mut encoded);
        }
        let is_cleared = self.terms.retained == Retained::Clear || !self.far.retain_available;
        let sent = Publish {
            dup: publish.dup && qos != Qos::AtMostOnce,
            qos,
            retain: publish.retain && !is_cleared,
            topic,
            packet_identifier: publish.packet_identifier.filter(|_| qos != Qos::AtMostOnce),
            properties: PublishProperties {
                subscription_identifiers: SubscriptionIdentifiers::default(),
                user_properties: UserProperties::encoded(&encoded),
                ..publish.properties.clone()
            },
            payload: publish.payload,
        };
        let begin = out.len();
        Packet::Publish(sent).encode(version, out);
        let bytes_max = self.far.packet_bytes_max.map_or(usize::MAX, |bytes| bytes as usize);
        if out.len() - begin > bytes_max {
            out.truncate(begin);
            Counters::note(&self.report.counters.too_large);
            self.drop_own(publish, ReasonCode::PacketTooLarge);
        } else {
            Counters::note(&self.report.counters.sent);
            if let Some(echoes) = self.echoes()
                && self.comes_back(topic)
            {
                let payload = publish.payload;
                echoes.note(Message { topic, payload, qos }, Instant::now());
            }
            self.note_sent(publish, topic, qos);
        }
        self.properties = encoded;
    }

    /// A message was sent on `topic` with `qos`.
    fn note_sent(&mut self, publish: &Publish<'_>, topic: &str, qos: Qos) {
        if let Some(identifier) = publish.packet_identifier.filter(|_| qos != Qos::AtMostOnce) {
            self.supervision.note_awaited(identifier.get());
        }
        // Before 5.0, a far broker cannot refuse a message.
        if let Some(identifier) = publish.packet_identifier
            && qos != Qos::AtMostOnce
            && self.attempt.version == Version::V5
        {
            self.sent_topics.note(identifier.get(), topic);
        }
        if let Some(identifier) = publish.packet_identifier
            && qos != publish.qos
        {
            let Self { acknowledgements, to_session, .. } = self;
            let sent = Some(qos);
            acknowledgements.lower(identifier, publish.qos, sent, ReasonCode::Success, to_session);
        }
    }

    /// A message of the session is not sent: the session is told that it is done with.
    fn drop_own(&mut self, publish: &Publish<'_>, reason: ReasonCode) {
        let Some(identifier) = publish.packet_identifier else { return };
        let reason = match publish.qos {
            // Before an error, PUBREL would follow.
            Qos::ExactlyOnce => ReasonCode::ImplementationSpecificError,
            _ if reason.allowed_in(PacketType::Puback) => reason,
            _ => ReasonCode::ImplementationSpecificError,
        };
        let Self { acknowledgements, to_session, .. } = self;
        acknowledgements.lower(identifier, publish.qos, None, reason, to_session);
    }

    fn note_connack(&mut self, frame: &[u8]) {
        let Ok(Packet::Connack(connack)) = wire::decode(frame, Version::V5) else { return };
        if connack.reason != ReasonCode::Success {
            let what = explain(connack.reason, connack.properties.reason_string);
            self.report.tell(Event::SessionRefused { filter: None, what: what.clone() });
            self.report.end(format!("this broker has refused the session of the bridge: {what}"));
            self.phase = Phase::Over;
        } else if self.phase == Phase::Registering {
            let session_present = connack.session_present;
            if self.terms.out.is_empty() {
                self.report.tell(Event::Registered { session_present });
            }
            self.far.is_new = !session_present;
        }
    }

    fn note_suback(&mut self, frame: &[u8]) {
        let Ok(Packet::Suback(suback)) = wire::decode(frame, Version::V5) else { return };
        let filters = self.subscribing.pop_front().unwrap_or_default();
        for (filter, &code) in filters.iter().zip(suback.reasons) {
            if let Some(reason) = ReasonCode::from_u8(code).filter(|reason| reason.is_error()) {
                let what = format!("the subscription to {filter}: {}", reason.name());
                self.report.tell(Event::SessionRefused { filter: Some(filter.to_string()), what });
            }
        }
        if self.phase == Phase::Registering {
            self.report.tell(Event::Registered { session_present: !self.far.is_new });
        }
    }

    /// The engine ends the connection. The reason is for clients of this broker: the far broker gets a plain DISCONNECT,
    /// and keeps the session.
    fn leave(&mut self, frame: &[u8], out: &mut Vec<u8>) {
        if let Ok(Packet::Disconnect(of)) = wire::decode(frame, Version::V5) {
            self.report.end(explain(of.reason, of.reason_string));
        }
        if self.is_open() {
            if let Some(topic) = &self.terms.notification {
                let (payload, version) = (notification::NOT_CONNECTED, self.attempt.version);
                notification::publish(topic, payload, version, out);
            }
            Packet::Disconnect(Disconnect::default()).encode(self.attempt.version, out);
        }
        self.phase = Phase::Over;
    }
}
