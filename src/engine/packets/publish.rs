//! PUBLISH from a client: checked, retained, routed, acknowledged.

use crate::base::ids::{ConnectionId, CoreId, Publisher, SessionId, exchange};
use crate::base::metrics::Drop as DropCause;
use crate::engine::access::{Decision, Identity, Message};
use crate::engine::client_log::Denied;
use crate::engine::config::Announced;
use crate::engine::connections::pending_acks::{Answer, Promise};
use crate::engine::draft::Origin;
use crate::engine::mesh::Mesh;
use crate::engine::mesh::lanes::Awaited;
use crate::engine::retained::RetainedFull;
use crate::engine::{Config, Engine};
use crate::message::Content;
use crate::wire::violation::Violation;
use crate::wire::{Ack, Packet, PacketIdentifier, Publish, Qos, ReasonCode, Version};

/// Whether a PUBLISH is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Taken {
    /// Delivered, or rejected.
    Done,
    /// Nothing has happened yet: the PUBLISH waits for a decision of the access control.
    Waits,
}

/// Whether a message may be published.
enum Permission {
    Granted,
    /// Not to subscribers.
    Refused(ReasonCode),
    /// The decision comes later.
    Pending,
}

impl Engine {
    /// Takes a PUBLISH.
    pub(in crate::engine) fn handle_publish(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish<'_>,
    ) -> Result<Taken, Violation> {
        self.count_received(publish);
        self.check_publish(id, publish)?;
        self.take_checked(id, session, publish)
    }

    /// Counts a PUBLISH that was received.
    #[inline(always)]
    pub(super) fn count_received(&mut self, publish: &Publish<'_>) {
        self.metrics.publish_bytes_received += publish.payload.len() as u64;
        self.metrics.received_by_qos[usize::from(u8::from(publish.qos))] += 1;
    }

    /// Checks a PUBLISH against what CONNACK said to the client.
    #[inline(always)]
    pub(super) fn check_publish(
        &self,
        id: ConnectionId,
        publish: &Publish<'_>,
    ) -> Result<(), Violation> {
        check_publish(&self.config, publish)
            .or_else(|violation| self.excuse(id, publish, violation))
    }

    /// Takes a PUBLISH that is counted and checked, perhaps for the second time, after a decision. Inlined: a call costs
    /// each PUBLISH as much as its decoding.
    #[inline(always)]
    pub(in crate::engine) fn take_checked(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish<'_>,
    ) -> Result<Taken, Violation> {
        let Some(alias) = publish.properties.topic_alias else {
            return self.take_publish(id, session, publish, publish.topic);
        };
        if alias > self.config.limits.topic_alias_maximum
            && alias > self.announced(id).topic_alias_maximum
        {
            return Err(Violation::TopicAliasTooHigh); // [MQTT-3.3.2-9]
        }
        let is_full = self.memory.is_full();
        // The topic is copied out of the connection's table: what follows needs the whole engine.
        let topic = self.connections.resolve_alias(id, alias, publish.topic, is_full)?;
        let outcome = self.take_publish(id, session, publish, &topic);
        self.connections.recycle_topic(topic);
        outcome
    }

    /// Takes a PUBLISH that violates the present settings if CONNACK allowed it to this client, or if its QoS is too high
    /// for clients of another listener only.
    #[cold]
    fn excuse(
        &self,
        id: ConnectionId,
        publish: &Publish<'_>,
        violation: Violation,
    ) -> Result<(), Violation> {
        let may_retain = self.config.mqtt.retain_available || self.announced(id).retain_available;
        match violation {
            Violation::QosNotSupported => {
                let announced = self.connections[id].announced_qos();
                if u8::from(publish.qos) > self.maximum_qos(id).max(announced.unwrap_or_default()) {
                    return Err(violation);
                }
                if publish.retain && !may_retain {
                    return Err(Violation::RetainNotSupported); // [MQTT-3.2.2-14]
                }
            }
            Violation::RetainNotSupported if may_retain => {}
            _ => return Err(violation),
        }
        check_content(&self.config, publish)
    }

    /// The highest QoS of a client, which its listener may limit.
    pub(super) fn maximum_qos(&self, id: ConnectionId) -> u8 {
        let of_all = self.config.mqtt.maximum_qos;
        let of_listener = self.listeners.maximum_qos(self.connections[id].listener);
        of_listener.map_or(of_all, |maximum| maximum.min(of_all))
    }

    /// What CONNACK announced to a client.
    pub(in crate::engine) fn announced(&self, id: ConnectionId) -> &Announced {
        self.connections[id].announced(&self.config)
    }

    /// Takes a PUBLISH whose topic is known.
    fn take_publish(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Result<Taken, Violation> {
        let mark = self.durability.mark();
        let exactly_once = publish.packet_identifier.filter(|_| publish.qos == Qos::ExactlyOnce);
        if exactly_once.is_some_and(|identifier| self.is_duplicate(session, identifier)) {
            let mut promise = self.durability.promise_of(
                &self.sessions,
                session,
                publish,
                self.durability.batch_of_all(),
            );
            promise.fans_out = true;
            // [MQTT-4.3.3-10]: a duplicate is acknowledged and goes no further. Other cores, and
            // subscribers here, may not have the first one yet, so it waits for all that is under way.
            self.acknowledge(id, publish, ReasonCode::Success, promise, |mesh, core, awaited| {
                mesh.await_everything(core, awaited)
            });
            return Ok(Taken::Done);
        }
        let permission = self.permit(id, session, publish, topic);
        if let Permission::Pending = permission {
            return Ok(Taken::Waits);
        }
        if let Some(identifier) = exactly_once {
            self.receive_once(id, session, identifier)?;
        }
        if let Permission::Refused(reason) = permission {
            return self.withhold(id, session, publish, topic, reason).map(|()| Taken::Done);
        }
        let passed_on_scratch;
        let passed_on = match publish.properties.passed_on.as_slice() {
            Some(whole) => whole,
            None => {
                let mut copy = Vec::new();
                publish.properties.passed_on.write(&mut copy);
                passed_on_scratch = copy;
                &passed_on_scratch
            }
        };
        let expiry_interval_s = publish.properties.message_expiry_interval;
        let content = Content {
            topic,
            payload: publish.payload,
            passed_on,
            expires: expiry_interval_s.map(|seconds| self.now.after_s(u64::from(seconds))),
            qos: publish.qos,
        };
        self.distribute(id, session, publish, &content, mark).map(|()| Taken::Done)
    }

    /// Retains a message where that is asked for, brings it to its subscribers and acknowledges it.
    fn distribute(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish<'_>,
        content: &Content<'_>,
        mark: u64,
    ) -> Result<(), Violation> {
        let stored = match publish.retain {
            true => self.retain(content, Some(session)).map(Some),
            false => Ok(None),
        };
        if let Err(RetainedFull(cause)) = stored {
            self.metrics.drops.add(cause, 1);
            if self.observers.watch.shows_packets() {
                self.show_drop(Some(session), (cause, 1), Some(content.topic));
            }
            if publish.qos != Qos::AtMostOnce && self.connections[id].version == Version::V5 {
                return self.turn_away(id, session, publish, ReasonCode::QuotaExceeded);
            }
        }
        let publisher = Publisher { core: self.mesh.core(), connection: id };
        let exchange = self.durability.exchange_of(&self.sessions, session, publish);
        let origin =
            Origin { publisher: Some(publisher), session: Some(session), exchange, from: None };
        let stored = stored.ok().flatten();
        self.report_published(content, Some(session), publish.retain);
        self.router.begin_message();
        let is_matched = self.route(content, &origin, publish.retain, stored.as_ref());
        let reason = match is_matched {
            true => ReasonCode::Success,
            false => ReasonCode::NoMatchingSubscribers,
        };
        // Responsibility is taken when every core with subscribers has the message.
        if publish.packet_identifier.is_some() {
            let mut promise = self.durability.promise_of(
                &self.sessions,
                session,
                publish,
                self.durability.batch_since(mark),
            );
            promise.fans_out = self.router.is_divided();
            self.acknowledge(id, publish, reason, promise, |mesh, core, awaited| {
                mesh.await_reached(core, awaited)
            });
        }
        if self.router.take_has_queued() && self.memory.is_full() {
            self.connections.rest_for_memory(id, &mut self.timers, self.now);
        }
        self.pause_for_store(id, mark);
        Ok(())
    }

    /// Whether a QoS 2 message was received before.
    fn is_duplicate(&self, session: SessionId, identifier: PacketIdentifier) -> bool {
        let inbound = self.sessions[session].inbound.as_ref();
        inbound.is_some_and(|inbound| inbound.contains(identifier))
    }

    /// Notes a QoS 2 message that is no duplicate.
    fn receive_once(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        identifier: PacketIdentifier,
    ) -> Result<(), Violation> {
        let is_told_a_maximum = self.connections[id].version == Version::V5;
        let pubrecs = self.connections.pubrecs_of(id);
        let inbound = self.sessions[session].inbound.get_or_insert_default();
        // [MQTT-3.3.4-7]: what waits for the store or other cores, QoS 1 among it, counts for nothing. Beyond
        // so many answers that wait, or bytes for the store, the client is not read. A client of MQTT 3
        // is bounded by the 65,535 identifiers there are.
        let receive_maximum = usize::from(self.config.limits.receive_maximum);
        let under_way = inbound.used().saturating_sub(pubrecs);
        if is_told_a_maximum
            && under_way >= receive_maximum
            && under_way
                >= usize::from(self.connections[id].announced(&self.config).receive_maximum)
            // The far broker of a bridge may speak MQTT 3.
            && !self.connections[id].has_far_broker()
        {
            return Err(Violation::ReceiveMaximumExceeded);
        }
        inbound.receive(identifier);
        self.durability.withhold_received(inbound, identifier);
        inbound.settle(self.memory.ledger());
        Ok(())
    }

    /// Whether a message may be published. Inlined: the call and its outcome cost each PUBLISH 41 instructions.
    #[inline(always)]
    fn permit(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Permission {
        let client_identifier = &self.sessions[session].client_identifier;
        let who = Identity { exchange: exchange(id), client_identifier };
        let (qos, retain, payload_bytes) = (publish.qos, publish.retain, publish.payload.len());
        let message = Message { topic, payload_bytes, qos, retain };
        match self.access.may_publish(self.now, &who, &message, &mut self.work) {
            Decision::Allowed(()) => {}
            Decision::Denied => return Permission::Refused(ReasonCode::NotAuthorized),
            Decision::Pending => return Permission::Pending,
        }
        match self.config.checks_payloads {
            true => check_payload(&self.config, publish),
            false => Permission::Granted,
        }
    }

    /// Takes a message that is not delivered to subscribers: a command to the broker, or one that is rejected.
    #[cold]
    fn withhold(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish<'_>,
        topic: &str,
        reason: ReasonCode,
    ) -> Result<(), Violation> {
        let client_identifier = &self.sessions[session].client_identifier;
        let who = Identity { exchange: exchange(id), client_identifier };
        let (qos, retain, payload_bytes) = (publish.qos, publish.retain, publish.payload.len());
        let message = Message { topic, payload_bytes, qos, retain };
        if reason != ReasonCode::NotAuthorized
            || !self.access.is_command(self.now, &who, &message, &mut self.work)
        {
            return self.reject(id, session, publish, topic, reason);
        }
        self.work.spend_bytes(publish.payload.len());
        if !self.access.command(&who, publish.payload) {
            return self.turn_away(id, session, publish, ReasonCode::QuotaExceeded);
        }
        self.acknowledge(id, publish, ReasonCode::Success, Promise::default(), |_, _, _| false);
        Ok(())
    }

    /// Publishes a message of the broker's own, such as an answer to commands.
    pub(in crate::engine) fn publish_own(&mut self, topic: &str, payload: &[u8]) {
        let (passed_on, expires, qos) = (&[][..], None, Qos::AtMostOnce);
        let content = Content { topic, payload, passed_on, expires, qos };
        self.work.spend_bytes(payload.len());
        self.router.begin_message();
        self.route(&content, &Origin::default(), false, None);
    }

    /// Rejects a message on a topic that the client may not publish to, or with a payload that is not what it says.
    pub(super) fn reject(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish<'_>,
        topic: &str,
        reason: ReasonCode,
    ) -> Result<(), Violation> {
        if reason == ReasonCode::NotAuthorized {
            self.log_denied(id, session, Denied::Publish(topic));
        }
        if let Some(cause) = drop_cause(reason)
            && self.observers.watch.shows_packets()
        {
            self.show_drop(Some(session), (cause, 1), Some(topic));
        }
        self.turn_away(id, session, publish, reason)
    }

    /// Rejects a message: the publisher is sent the reason where its version has one, and the message is
    /// counted.
    fn turn_away(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish<'_>,
        reason: ReasonCode,
    ) -> Result<(), Violation> {
        if let Some(cause) = drop_cause(reason) {
            self.metrics.drops.add(cause, 1);
        }
        if self.observers.watch.samples() {
            self.note_refused(id, reason);
        }
        if reason == ReasonCode::PayloadFormatInvalid && publish.qos == Qos::AtMostOnce {
            return Err(Violation::PayloadFormatInvalid);
        }
        if let (Qos::ExactlyOnce, Some(identifier)) = (publish.qos, publish.packet_identifier) {
            // A PUBREC with an error ends the exchange [MQTT-4.3.3-9]; MQTT 3 has none and continues.
            if self.connections[id].version == Version::V5
                && let Some(inbound) = &mut self.sessions[session].inbound
            {
                inbound.release(identifier);
            }
        }
        self.acknowledge(id, publish, reason, Promise::default(), |_, _, _| false);
        Ok(())
    }

    /// PUBACK or PUBREC, after the receipts for which `awaits` asks. MQTT 3 has no reasons: it
    /// acknowledges whatever became of the message.
    fn acknowledge(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        reason: ReasonCode,
        promise: Promise,
        awaits: impl FnMut(&mut Mesh, CoreId, Awaited) -> bool,
    ) {
        let Some(identifier) = publish.packet_identifier else { return };
        if !self.connections.contains(id) {
            return;
        }
        let ack = Ack::new(identifier, reason);
        let answer = match publish.qos {
            Qos::AtLeastOnce => Answer::Puback(ack),
            Qos::ExactlyOnce => Answer::Pubrec(ack),
            Qos::AtMostOnce => return,
        };
        self.answer(id, answer, promise, awaits);
    }

    /// PUBREL: the client's QoS 2 message is complete.
    pub(in crate::engine) fn handle_pubrel(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        identifier: PacketIdentifier,
    ) {
        let inbound = self.sessions[session].inbound.as_mut();
        let reason = match inbound.is_some_and(|inbound| inbound.release(identifier)) {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        let ack = Ack::new(identifier, reason);
        let mark = self.durability.mark();
        self.work.spend(if self.durability.has_journal() { 3 } else { 1 });
        if reason == ReasonCode::Success {
            self.durability.append_completed(&self.sessions, session, identifier);
        }
        if let Some(batch) = self.durability.batch_since(mark) {
            // The client may use the identifier for another message from PUBCOMP on.
            let promise = Promise::stored(batch);
            return self.answer(id, Answer::Pubcomp(ack), promise, |_, _, _| false);
        }
        let version = self.connections[id].version;
        self.connections.send(id, |out| Packet::Pubcomp(ack).encode(version, out));
    }
}

/// Checks a PUBLISH against what the server said in CONNACK, as far as all clients are told the same.
#[inline]
fn check_publish(config: &Config, publish: &Publish<'_>) -> Result<(), Violation> {
    let mqtt = &config.mqtt;
    if u8::from(publish.qos) > config.lowest_maximum_qos {
        return Err(Violation::QosNotSupported); // [MQTT-3.2.2-11]
    }
    if publish.retain && !mqtt.retain_available {
        return Err(Violation::RetainNotSupported); // [MQTT-3.2.2-14]
    }
    check_content(config, publish)
}

/// Checks a payload against its limit and its Payload Format Indicator.
#[cold]
fn check_payload(config: &Config, publish: &Publish<'_>) -> Permission {
    let bytes_max = config.limits.payload_bytes_max as usize;
    if bytes_max > 0 && publish.payload.len() > bytes_max {
        // No code of PUBACK and PUBREC says more.
        return Permission::Refused(ReasonCode::ImplementationSpecificError);
    }
    let says_text = publish.properties.payload_format_indicator == Some(1);
    match config.mqtt.payload_format_validate
        && says_text
        && std::str::from_utf8(publish.payload).is_err()
    {
        true => Permission::Refused(ReasonCode::PayloadFormatInvalid),
        false => Permission::Granted,
    }
}

/// The cause under which a refused message is counted; none: the refusal has a counter of its own, or none.
fn drop_cause(refusal: ReasonCode) -> Option<DropCause> {
    match refusal {
        ReasonCode::NotAuthorized => Some(DropCause::NotAuthorized),
        ReasonCode::ImplementationSpecificError => Some(DropCause::PayloadTooLarge),
        ReasonCode::TopicNameInvalid => Some(DropCause::TopicTooLong),
        _ => None,
    }
}

/// Checks what CONNACK says nothing about.
#[inline]
fn check_content(config: &Config, publish: &Publish<'_>) -> Result<(), Violation> {
    let limits = &config.limits;
    if shards::exceeds_levels(publish.topic, limits.topic_levels_max as usize) {
        return Err(Violation::TopicTooDeep);
    }
    if publish.topic.len() > usize::from(limits.topic_bytes_max) {
        return Err(Violation::TopicTooLong);
    }
    if publish.properties.subscription_identifiers.iter().next().is_some() {
        return Err(Violation::SubscriptionIdentifierFromClient); // [MQTT-3.3.4-6]
    }
    Ok(())
}
