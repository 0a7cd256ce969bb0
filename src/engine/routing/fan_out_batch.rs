//! The fan-out batch: consecutive QoS 0 messages for the same plain recipients are encoded once, one after
//! the other, and delivered to all of them as one piece, by reference if it is large. Fan-out thus costs
//! one reference for each recipient and turn, not one copy for each message.
//!
//! The batch is delivered at the end of the turn, and before any change of recipients or of the order of
//! their messages.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::ids::{ConnectionId, Publisher, SessionId};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::config::QueuePolicy;
use crate::engine::Engine;
use crate::engine::cause::Cause;
use crate::engine::draft::Draft;
use crate::engine::routing::congestion::Pressure;
use crate::engine::routing::congestion::standing;
use crate::engine::routing::deliver::COPIES;
use crate::engine::routing::recipients::{Recipient, Recipients};
use crate::message::{Content, Copy};
use crate::session::state::DeliveryClass;
use crate::wire::{self, Frame, Packet, Qos, ReasonCode, Version};

/// The pending batch of a core.
#[derive(Default)]
pub(super) struct FanOutBatch {
    recipients: Option<Arc<Recipients>>,
    encoded: EncodedBatch,
}

/// The encoded messages of a batch. All of them have the same topic.
#[derive(Debug, Default)]
pub(in crate::engine) struct EncodedBatch {
    /// Encodings by protocol version and RETAIN flag, see [`stream`].
    streams: [Vec<u8>; 4],
    /// Large encodings, which are delivered by reference.
    shared: [Option<Bytes>; 4],
    messages: u64,
    /// Bytes of the payloads of all messages.
    payload_bytes: u64,
    frame_bytes_max: usize,
    pub(in crate::engine) publishers: Vec<Publisher>,
}

impl EncodedBatch {
    /// Bytes of memory that the encodings take.
    pub(in crate::engine) fn heap_bytes(&self) -> usize {
        self.streams.iter().map(Vec::capacity).sum::<usize>()
            + self.shared.iter().flatten().map(Bytes::len).sum::<usize>()
            + self.publishers.capacity() * size_of::<Publisher>()
    }

    /// The topic of the messages.
    pub(in crate::engine) fn topic(&self) -> Option<&str> {
        [Version::V311, Version::V5].into_iter().find_map(|version| {
            match wire::frame(&self.streams[stream(version, false)], usize::MAX) {
                Ok(Frame::Complete { header, total }) => {
                    let frame = &self.streams[stream(version, false)][..total];
                    match wire::decode_framed(frame, header, version) {
                        Ok(Packet::Publish(publish)) => Some(publish.topic),
                        _ => None,
                    }
                }
                _ => None,
            }
        })
    }

    /// Makes large encodings shareable. Small ones are copied to each recipient.
    fn share_large(&mut self) {
        for (shared, bytes) in self.shared.iter_mut().zip(&self.streams) {
            *shared =
                (bytes.len() >= limits::SHARED_BYTES_MIN).then(|| Bytes::copy_from_slice(bytes));
        }
    }

    fn clear(&mut self) {
        self.streams.iter_mut().for_each(Vec::clear);
        self.shared = Default::default();
        self.publishers.clear();
        (self.messages, self.payload_bytes, self.frame_bytes_max) = (0, 0, 0);
    }
}

impl FanOutBatch {
    /// Whether no messages are pending.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.recipients.is_none()
    }

    /// Reuses the buffers of a batch that was delivered.
    pub(in crate::engine) fn take_back(&mut self, mut encoded: EncodedBatch) {
        if self.recipients.is_none() {
            encoded.clear();
            self.encoded = encoded;
        }
    }
}

/// Bytes of the payload of an encoded PUBLISH.
fn payload_bytes(packet: &[u8], version: Version) -> u64 {
    match wire::decode(packet, version) {
        Ok(Packet::Publish(publish)) => publish.payload.len() as u64,
        _ => unreachable!("it was encoded here"),
    }
}

/// The encoding of the messages for a session.
#[inline]
fn version_of(class: DeliveryClass) -> Version {
    match class {
        DeliveryClass::V3 => Version::V311,
        DeliveryClass::V5 | DeliveryClass::V5Alias | DeliveryClass::Mounted => Version::V5,
    }
}

fn stream(version: Version, retain_as_published: bool) -> usize {
    usize::from(version == Version::V5) * 2 + usize::from(retain_as_published)
}

impl Engine {
    /// Adds a message to the pending batch; false if it has to be delivered on its own.
    pub(in crate::engine) fn extend_batch(
        &mut self,
        recipients: &Arc<Recipients>,
        draft: &Draft<'_>,
        publisher: Option<Publisher>,
    ) -> bool {
        let content = &draft.content;
        let drops_alone = matches!(
            self.config.queue_limits.policy,
            QueuePolicy::DropNewest | QueuePolicy::Disconnect
        );
        if content.qos != Qos::AtMostOnce
            || recipients.plain < limits::FAN_OUT_BATCH_RECIPIENTS_MIN
            || content.payload.len() > limits::FAN_OUT_BATCH_BYTES_MAX / 4
            || !drops_alone
            // A message may count for some of the recipients alone.
            || !self.claims.is_quiet()
        {
            return false;
        }
        let continues =
            self.router.batch.recipients.as_ref().is_some_and(|of| Arc::ptr_eq(of, recipients));
        if !continues {
            self.flush_fan_out_batch();
            self.router.batch.recipients = Some(Arc::clone(recipients));
        }
        let batch = &mut self.router.batch.encoded;
        let classes = &recipients.classes;
        for (is_needed, version) in [(classes.v3, Version::V311), (classes.v5, Version::V5)] {
            if !is_needed {
                continue;
            }
            for as_published in [false, true] {
                if as_published && !classes.retain_as_published {
                    continue;
                }
                let copy = Copy::plain(Qos::AtMostOnce, as_published && draft.retain);
                let header = content.header(version, self.now, &copy);
                let out = &mut batch.streams[stream(version, as_published)];
                let before = out.len();
                header.encode(out);
                out.extend_from_slice(content.payload);
                batch.frame_bytes_max = batch.frame_bytes_max.max(out.len() - before);
            }
        }
        batch.messages += 1;
        batch.payload_bytes += content.payload.len() as u64;
        if let Some(publisher) = publisher
            && batch.publishers.last() != Some(&publisher)
        {
            batch.publishers.push(publisher);
        }
        if batch.streams.iter().any(|bytes| bytes.len() >= limits::FAN_OUT_BATCH_BYTES_MAX) {
            self.flush_fan_out_batch();
        }
        true
    }

    /// Delivers the pending batch, if there is one.
    #[inline]
    pub(in crate::engine) fn flush_fan_out_batch(&mut self) {
        if self.router.batch.recipients.is_some() {
            self.deliver_batch();
        }
    }

    #[inline(never)]
    fn deliver_batch(&mut self) {
        let Some(recipients) = &self.router.batch.recipients.take() else { return };
        let mut batch = std::mem::take(&mut self.router.batch.encoded);
        batch.share_large();
        let mut pressure = Pressure::default();
        if !self.router.fan_outs.are_few(recipients.plain) {
            let Some(handed_out) = self.deliver_batch_in_parts(batch, recipients) else { return };
            (batch, pressure) = handed_out;
        } else {
            self.work.spend(recipients.plain / COPIES + 1);
            self.deliver_batch_to(&batch, &recipients.each[..recipients.plain], &mut pressure);
        }
        for &publisher in &batch.publishers {
            self.slow_publisher(Some(publisher), &pressure);
        }
        self.router.batch.take_back(batch);
    }

    /// Delivers a batch to some of its recipients.
    pub(in crate::engine) fn deliver_batch_to(
        &mut self,
        batch: &EncodedBatch,
        each: &[Recipient],
        pressure: &mut Pressure,
    ) {
        let behind_bytes = self.config.outbox_behind_bytes();
        let outbox_bytes_max = match self.memory.is_full() {
            true => behind_bytes,
            false => self.config.limits.outbox_bytes_max as usize,
        };
        for recipient in each {
            let session = &self.sessions[recipient.session];
            let Some(id) = session.connection else {
                if self.config.queues_qos_0(session) {
                    self.queue_batch(recipient, version_of(session.class), batch);
                }
                continue;
            };
            let outbound = session.outbound.as_ref();
            let is_open = outbound.is_none_or(|outbound| outbound.is_open(Qos::AtMostOnce));
            let version = version_of(session.class);
            let stream = stream(version, recipient.retain_as_published);
            let Self { sessions, connections, timers, now, .. } = self;
            pressure.add(standing(id, behind_bytes, sessions, connections, timers, *now));
            let bytes = &batch.streams[stream];
            if !is_open || bytes.is_empty() {
                self.queue_batch(recipient, version, batch);
                continue;
            }
            let connection = &self.connections[id];
            let outbox_bytes = connection.pending_bytes() + bytes.len();
            if outbox_bytes > outbox_bytes_max
                || batch.frame_bytes_max > connection.packet_bytes_max as usize
            {
                match connection.mount() {
                    None => {
                        self.deliver_stream_in_part(recipient.session, id, bytes, outbox_bytes_max);
                    }
                    // The client has come back through a listener with a mount point.
                    Some(_) => self.queue_stream(recipient, version, bytes),
                }
                continue;
            }
            self.metrics.publishes_sent += batch.messages;
            self.metrics.publish_bytes_sent += batch.payload_bytes;
            let outbox = self.connections.outbox(id);
            match &batch.shared[stream] {
                Some(bytes) => outbox.append_shared(bytes.clone()),
                None => outbox.append(|out| out.extend_from_slice(bytes)),
            }
        }
    }

    /// Delivers the messages of a batch one by one: to a client with queued messages, or to a client that has
    /// reconnected with another protocol version since the batch was encoded.
    fn queue_batch(&mut self, recipient: &Recipient, version: Version, batch: &EncodedBatch) {
        let of = |version| &batch.streams[stream(version, recipient.retain_as_published)];
        let other = if version == Version::V5 { Version::V311 } else { Version::V5 };
        match of(version).is_empty() {
            false => self.queue_stream(recipient, version, of(version)),
            true => self.queue_stream(recipient, other, of(other)),
        }
    }

    /// Delivers the messages of one encoding one by one.
    fn queue_stream(&mut self, recipient: &Recipient, version: Version, bytes: &[u8]) {
        let mut rest = bytes;
        while let Ok(Frame::Complete { total, header }) = wire::frame(rest, usize::MAX) {
            let (packet, next) = rest.split_at(total);
            rest = next;
            let packet = wire::decode_framed(packet, header, version);
            let Ok(Packet::Publish(publish)) = packet else { unreachable!("we encoded it") };
            let mut passed_on = Vec::new();
            publish.properties.passed_on.write(&mut passed_on);
            let expiry_interval_s = publish.properties.message_expiry_interval;
            let content = Content {
                topic: publish.topic,
                payload: publish.payload,
                passed_on: &passed_on,
                expires: expiry_interval_s.map(|seconds| self.now.after_s(u64::from(seconds))),
                qos: Qos::AtMostOnce,
            };
            self.deliver(recipient, &mut Draft::new(content, publish.retain), None);
        }
    }

    /// Sends the packets that fit into the client's limits; the other packets are dropped and counted.
    fn deliver_stream_in_part(
        &mut self,
        session: SessionId,
        id: ConnectionId,
        bytes: &[u8],
        outbox_bytes_max: usize,
    ) {
        let version = self.connections[id].version;
        let packet_bytes_max = self.connections[id].packet_bytes_max as usize;
        let (mut too_large, mut too_many) = (0, 0);
        let mut rest = bytes;
        while let Ok(Frame::Complete { total, .. }) = wire::frame(rest, usize::MAX) {
            let (packet, next) = rest.split_at(total);
            rest = next;
            let pending = self.connections[id].pending_bytes();
            if total > packet_bytes_max {
                too_large += 1;
            } else if pending > 0 && pending + total > outbox_bytes_max {
                too_many += 1;
            } else {
                self.metrics.publishes_sent += 1;
                self.metrics.publish_bytes_sent += payload_bytes(packet, version);
                self.connections.outbox(id).append(|out| out.extend_from_slice(packet));
            }
        }
        self.count_drops(session, DropCause::PacketTooLarge, too_large);
        self.count_drops(session, DropCause::OutboxFull, too_many);
        if too_many > 0
            && self.config.queue_policy(&self.sessions[session]) == QueuePolicy::Disconnect
        {
            self.connections.close_later(id, ReasonCode::QuotaExceeded, Cause::QueueFull);
        }
    }
}
