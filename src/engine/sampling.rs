//! Sampled messages on their way through a core, for telemetry: see [`Spans`](crate::engine::inspect::Spans).

use crate::base::ids::{ConnectionId, SessionId};
use crate::control::span::{DELIVERIES_MAX, DeliverySpan, MessageSpan, cut_name};
use crate::engine::connections::connection::Hold;
use crate::engine::connections::pending_acks::Answers;
use crate::engine::inspect::Begun;
use crate::engine::packet_view::PacketView;
use crate::engine::{Engine, Timer, watch};
use crate::wire::{self, PacketType, Qos, ReasonCode, Version};

impl Engine {
    /// Samples a packet that has been received, for telemetry. Messages before it have been routed.
    #[cold]
    pub(in crate::engine) fn sample_received(&mut self, id: ConnectionId, packet: &[u8]) {
        self.complete_spans();
        if let Some(connection) = self.connections.get(id) {
            let version = connection.version;
            self.sample(id, packet, version);
        }
    }

    /// The turn ends: readers of traces and the exporter of telemetry get what was seen.
    #[cold]
    pub(in crate::engine) fn end_turn_of_watching(&mut self) {
        self.complete_spans();
        self.observers.watch.end_turn();
        self.end_turn_of_spans();
    }

    /// Samples a packet that has been received.
    fn sample(&mut self, id: ConnectionId, packet: &[u8], version: Version) {
        if wire::packet_type(packet) == Some(PacketType::Publish) {
            let view = PacketView::of_bytes(packet, version);
            self.observers.watch.spans().begin(id, &view, packet.len(), self.now);
            self.observers.watch.note_sampled();
        }
    }

    /// The turn ends: completed spans go to the exporter.
    fn end_turn_of_spans(&mut self) {
        if let Some(look) = self.observers.watch.spans().end_turn(self.now) {
            self.timers.arm(look, Timer::Questions);
        }
    }

    /// A message of a client is refused.
    #[cold]
    pub(in crate::engine) fn note_refused(&mut self, id: ConnectionId, reason: ReasonCode) {
        self.observers.watch.spans().note_refused(id, reason);
    }

    /// Completes the spans of messages that have been routed.
    pub(in crate::engine) fn complete_spans(&mut self) {
        loop {
            let connections = &self.connections;
            let waits = |id| connections.get(id).is_some_and(|of| of.holds.has(Hold::Job));
            let Some(begun) = self.observers.watch.spans().take_routed(waits) else { return };
            if self.complete(begun).is_none() {
                self.observers.watch.spans().note_lost();
            }
        }
    }

    /// Completes the span of a message; none if its connection has ended.
    fn complete(&mut self, begun: Begun) -> Option<()> {
        let connection = self.connections.get(begun.publisher)?;
        let publisher = connection.session()?;
        let topic = watch::topic_of(connection, Some(&begun.topic), begun.topic_alias)?;
        let topic: Box<str> = topic.into();
        let answers = connection.answers.as_deref().map_or(0, Answers::waiting);
        let waited = begun.has_waited || begun.qos != Qos::AtMostOnce && answers > 0;
        let mut span = MessageSpan {
            core: self.core().0,
            parent: begun.parent,
            began: begun.at,
            ended: self.now,
            client_identifier: self.name_of(publisher),
            topic: cut_name(&topic).into(),
            qos: begun.qos.into(),
            retain: begun.retain,
            dup: begun.dup,
            bytes: begun.bytes as u64,
            payload_bytes: begun.payload_bytes as u64,
            recipients: 0,
            cores: 0,
            waited,
            refused: begun.refused,
            deliveries: Vec::new(),
        };
        let mut awaited = Vec::new();
        // A message that is sent again at QoS 2 has perhaps been delivered before.
        if begun.refused.is_none() && !(begun.dup && begun.qos == Qos::ExactlyOnce) {
            awaited = self.add_recipients(&mut span, &topic, begun.qos, publisher);
        }
        let answer = begun.packet_identifier;
        self.observers.watch.spans().open(span, begun.publisher, answer, awaited);
        Some(())
    }

    /// Adds the recipients of a message to its span. Returns the connections that are sent a copy, with their numbers
    /// among the deliveries.
    fn add_recipients(
        &mut self,
        span: &mut MessageSpan,
        topic: &str,
        qos: Qos,
        publisher: SessionId,
    ) -> Vec<(ConnectionId, usize)> {
        let recipients = self.router.recipients(topic, &self.sessions, &mut self.work);
        span.recipients = (recipients.each.len() + recipients.shared.len()) as u64;
        span.cores = recipients.cores.len() as u64;
        let mut awaited = Vec::new();
        for recipient in recipients.each.iter().filter(|of| of.session != publisher) {
            let session = &self.sessions[recipient.session];
            let Some(id) = session.connection else { continue };
            if awaited.len() == DELIVERIES_MAX {
                break;
            }
            awaited.push((id, span.deliveries.len()));
            span.deliveries.push(DeliverySpan {
                client_identifier: cut_name(session.client_identifier.as_str()).into(),
                qos: qos.min(recipient.qos).into(),
                sent: None,
            });
        }
        awaited
    }

    fn name_of(&self, session: SessionId) -> Box<str> {
        cut_name(self.sessions[session].client_identifier.as_str()).into()
    }
}
