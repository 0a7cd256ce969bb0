//! Backpressure from slow consumers to their publishers, and the queues of consumers.
//!
//! A consumer with a large outbox or queue is *behind*. If more than half of the live consumers of a message
//! are behind, its publisher is not read until one of them has caught up; TCP then slows the client. A
//! consumer that takes nothing for [`limits::STUCK_MS`] is *stuck* and not live: publishers do not wait for
//! it until it takes something again. Progress is measured by the bytes that the peer acknowledges to the
//! kernel, which the executor asks for, as the kernel accepts megabytes at a time. One slow consumer among
//! many thus delays no publisher, and a publisher is no faster than most of its consumers. Messages beyond
//! the limits of a queue are dropped by the queue policy.

use std::collections::VecDeque;
use std::time::Duration;

use shards::SubscriptionIndex;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Publisher, SessionId, exchange};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::engine::access::{AccessControl, Identity};
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Congestion, Hold};
use crate::engine::connections::pending_acks::{Answer, Promise};
use crate::engine::mesh::Mesh;
use crate::engine::routing::deliver::{Pressure, Standing, TemplateUse};
use crate::engine::work::Work;
use crate::engine::{Action, Engine, Timer};
use crate::message::Copy;
use crate::session::outbound::{Ack, Acknowledged, Delivery, Next};
use crate::session::state::Session;
use crate::storage::commit::RecordRef;
use crate::wire::{self, Packet, PacketIdentifier, Qos, ReasonCode};

/// Maximum number of publishers that resume at a time: their input refills the consumer's outbox.
const RELEASED_AT_ONCE: usize = 8;

/// Whether a message that was queued when the access rules changed may be sent.
fn may_receive(
    access: &mut AccessControl,
    index: &SubscriptionIndex,
    who: &Identity<'_>,
    delivery: &Delivery,
    work: &mut Work,
) -> bool {
    let shared = delivery.shared.map(|filter| index.text(filter));
    let topic = delivery.message.content().topic;
    access.may_receive(who, topic, delivery.qos, shared.as_deref(), work)
}

/// Leaves a publisher of a message unread until a consumer has caught up, if most of its consumers are
/// behind.
#[inline]
pub(super) fn slow_publisher(
    publisher: Publisher,
    pressure: &Pressure,
    connections: &mut Connections,
    mesh: &mut Mesh,
) {
    if let Some(consumer) = pressure.consumer_awaited() {
        pause_publisher(publisher, consumer, connections, mesh);
    }
}

fn pause_publisher(
    publisher: Publisher,
    consumer: ConnectionId,
    connections: &mut Connections,
    mesh: &mut Mesh,
) {
    let is_here = publisher.core == mesh.core();
    let id = publisher.connection;
    if is_here {
        // A client is never paused by its own subscriptions: its acknowledgements have to be read.
        if id == consumer || connections.get(id).is_none_or(|publisher| publisher.holders > 0) {
            return;
        }
    } else if mesh.has_paused(&publisher) {
        return;
    }
    // The consumer may have disconnected in a fan-out over several turns.
    let consumer = connections.get_mut(consumer);
    let Some(congestion) = consumer.and_then(|consumer| consumer.congestion_mut()) else { return };
    congestion.waiting.push_back(publisher);
    match is_here {
        true => connections.pause_reading(id),
        false => mesh.pause(publisher),
    }
}

/// Resumes publishers that waited for a consumer.
pub(in crate::engine) fn resume_waiting(
    waiting: VecDeque<Publisher>,
    connections: &mut Connections,
    mesh: &mut Mesh,
    now: Now,
) {
    for publisher in waiting {
        match publisher.core == mesh.core() {
            true => connections.resume_reading(publisher.connection, now),
            false => mesh.resume(&publisher),
        }
    }
}

impl Engine {
    /// Handles PUBACK, PUBREC or PUBCOMP.
    pub(in crate::engine) fn handle_ack(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        identifier: PacketIdentifier,
        ack: Ack,
    ) {
        let outbound = self.sessions[session].outbound.as_mut();
        let acknowledged =
            outbound.map_or(Acknowledged::Unknown, |o| o.acknowledge(identifier, ack));
        match acknowledged {
            Acknowledged::Ended => {
                self.durability.append_done(&mut self.sessions, session);
                if let Some(congestion) = self.connections[id].congestion_mut() {
                    congestion.taken += 1;
                }
                self.after_progress(id);
            }
            Acknowledged::Release(kept) => self.release(id, session, identifier, kept),
            Acknowledged::Unknown if matches!(ack, Ack::Pubrec { refused: false }) => {
                // The client waits for a PUBREL, which tells it the reason.
                self.send_pubrel(id, identifier, ReasonCode::PacketIdentifierNotFound);
            }
            Acknowledged::Unknown => {}
        }
    }

    /// Sends PUBREL once the receipt of PUBREC is durable: the client forgets the message with PUBREL.
    fn release(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        identifier: PacketIdentifier,
        kept: RecordRef,
    ) {
        let mark = self.durability.mark();
        self.durability.append_released(&self.sessions, session, kept, identifier);
        let Some(batch) = self.durability.batch_since(mark) else {
            return self.send_pubrel(id, identifier, ReasonCode::Success);
        };
        let pubrel = Answer::Pubrel(wire::Ack::new(identifier, ReasonCode::Success));
        let promise = Promise::stored(batch);
        self.answer(id, pubrel, promise, |_, _, _| false);
    }

    fn send_pubrel(&mut self, id: ConnectionId, identifier: PacketIdentifier, reason: ReasonCode) {
        let version = self.connections[id].version;
        let ack = wire::Ack::new(identifier, reason);
        self.connections.send(id, |out| Packet::Pubrel(ack).encode(version, out));
    }

    /// Whether the engine sends more, or resumes publishers, when the executor reports that a buffer is
    /// written. An executor that may learn of that late must then not wait.
    pub fn awaits_sent(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let has_more = connection.outbox.is_some() || connection.congestion().is_some();
        has_more || connection.session().is_some_and(|session| self.has_waiting_messages(session))
    }

    /// Whether queued or retained messages wait for a client.
    fn has_waiting_messages(&self, session: SessionId) -> bool {
        let state = &self.sessions[session];
        !state.replays.is_empty() || state.outbound.as_ref().is_some_and(|o| o.has_waiting())
    }

    /// The client took bytes or acknowledged a message: sends more, and resumes publishers that wait for it.
    pub(in crate::engine) fn after_progress(&mut self, id: ConnectionId) {
        let connection = &self.connections[id];
        let session = connection.session().expect("open");
        let caught_up_bytes = self.outbox_behind_bytes() / 2;
        if self.has_waiting_messages(session) && connection.pending_bytes() <= caught_up_bytes {
            self.pump(id);
        }
        if self.connections[id].congestion().is_some() {
            self.resume_publishers(id);
        }
    }

    /// Sends the queued messages of a client, as far as its Receive Maximum and its outbox allow.
    pub(in crate::engine) fn pump(&mut self, id: ConnectionId) {
        let session = self.connections[id].session().expect("open");
        let outbox_bytes = self.outbox_behind_bytes();
        let (mut expired, mut denied) = (0, 0);
        let queued_before = self.queued(session);
        while self.connections[id].pending_bytes() <= outbox_bytes {
            let stored = self.durability.stored_up_to();
            let Session { outbound, client_identifier, .. } = &mut self.sessions[session];
            let Some(outbound) = outbound else { break };
            let is_judging = outbound.has_unjudged();
            // Its subscriptions are checked first: messages of shared ones may go to other members.
            if is_judging && self.connections[id].holds.has(Hold::Job) {
                break;
            }
            let next = outbound.next(self.now, stored, &mut expired, |delivery| {
                let who = Identity { exchange: exchange(id), client_identifier };
                let index = &self.router.index;
                may_receive(&mut self.access, index, &who, delivery, &mut self.work)
            });
            let Some(next) = next else { break };
            if is_judging {
                self.work.spend(1);
            }
            match next {
                Next::Denied => denied += 1,
                Next::Hold(kept, identifier) => {
                    self.durability.append_sent(&self.sessions, session, kept, identifier);
                    self.durability.hold_until_stored(&mut self.sessions[session], id, kept);
                }
                Next::Pubrel(identifier) => {
                    self.send_pubrel(id, identifier, ReasonCode::Success);
                }
                Next::Publish(delivery, identifier, dup) => {
                    self.work.spend(2);
                    // A QoS 2 message that is sent once that is durable was logged when it was held.
                    if let Some(identifier) = identifier
                        && !dup
                        && (delivery.qos == Qos::AtLeastOnce || stored == u64::MAX)
                    {
                        let kept = delivery.kept;
                        self.durability.append_sent(&self.sessions, session, kept, identifier);
                    }
                    self.send_queued(id, session, &delivery, identifier, dup);
                }
            }
            if is_judging && self.work.is_spent() {
                self.connections.mark_ready(id);
                break;
            }
        }
        self.count_queue(session, queued_before);
        self.count_drops(session, DropCause::Expired, expired);
        self.count_drops(session, DropCause::NotAuthorized, denied);
        self.durability.append_done(&mut self.sessions, session);
        if expired > 0 {
            self.work.spend(expired as usize / 4);
            // More messages may have expired: other connections come first.
            self.connections.mark_ready(id);
        }
        let state = &self.sessions[session];
        let has_waiting = state.outbound.as_ref().is_some_and(|o| o.has_waiting());
        if !has_waiting && !state.replays.is_empty() {
            self.replay_retained(id);
        }
    }

    /// The length of a session's queue.
    pub(in crate::engine) fn queued(&self, session: SessionId) -> usize {
        self.sessions[session].outbound.as_ref().map_or(0, |outbound| outbound.queued())
    }

    /// Counts a change of a session's queue, which had the length `before`.
    pub(in crate::engine) fn count_queue(&mut self, session: SessionId, before: usize) {
        if let Some(outbound) = &mut self.sessions[session].outbound {
            outbound.settle(self.place.ledger());
        }
        let now = self.queued(session);
        let queued = &mut self.metrics.messages_queued;
        *queued = *queued + now as u64 - before as u64;
    }

    fn send_queued(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        delivery: &Delivery,
        identifier: Option<PacketIdentifier>,
        dup: bool,
    ) {
        let content = delivery.message.content();
        let copy = Copy {
            dup,
            packet_identifier: identifier.map_or(0, PacketIdentifier::get),
            subscription_identifiers: delivery.subscription_identifiers.as_slice(),
            ..Copy::plain(delivery.qos, delivery.retain)
        };
        if !self.connections[id].takes(&content, &copy, self.now) {
            let outbound = self.sessions[session].outbound.as_mut();
            if let (Some(identifier), Some(outbound)) = (identifier, outbound) {
                outbound.abandon(identifier);
            }
            self.durability.append_done(&mut self.sessions, session);
            return self.count_drops(session, DropCause::PacketTooLarge, 1);
        }
        let is_large = content.payload.len() >= limits::SHARED_BYTES_MIN;
        let payload = is_large.then(|| delivery.message.shared_payload());
        self.write(id, &content, copy, payload, &mut TemplateUse::default());
    }

    /// The state of a connected consumer. A consumer that is behind is watched from then on.
    pub(in crate::engine) fn standing(&mut self, id: ConnectionId) -> Standing {
        let connection = &self.connections[id];
        if connection.congestion().is_some_and(|congestion| congestion.is_stuck) {
            return Standing::Stuck;
        }
        if !self.is_behind(id) {
            return Standing::Fine;
        }
        self.watch_congestion(id);
        Standing::Behind(id)
    }

    fn is_behind(&self, id: ConnectionId) -> bool {
        let connection = &self.connections[id];
        if connection.pending_bytes() > self.outbox_behind_bytes() {
            return true;
        }
        let Some(session) = connection.session() else { return false };
        let Some(outbound) = &self.sessions[session].outbound else { return false };
        // Messages that were queued while the client was away slow no publisher.
        outbound.queued_live() > limits::CONGESTED_MESSAGES
            || outbound.queued_live_bytes() > limits::CONGESTED_QUEUE_BYTES
    }

    fn watch_congestion(&mut self, id: ConnectionId) {
        let extra = self.connections[id].extra.get_or_insert_default();
        if extra.congestion.is_none() {
            let next_look = self.now.after(Self::look_after());
            extra.congestion = Some(Congestion::new(self.now, next_look));
            self.timers.arm(next_look, Timer::Congestion(id));
        }
    }

    /// Resumes publishers that wait for a consumer, if it has caught up.
    pub(in crate::engine) fn resume_publishers(&mut self, id: ConnectionId) {
        let connection = &self.connections[id];
        let outbound =
            connection.session().and_then(|session| self.sessions[session].outbound.as_ref());
        let has_caught_up = connection.pending_bytes() <= self.outbox_behind_bytes() / 2
            && outbound.is_none_or(|outbound| {
                outbound.queued_live() <= limits::CONGESTED_MESSAGES / 2
                    && outbound.queued_live_bytes() <= limits::CONGESTED_QUEUE_BYTES / 2
            });
        if !has_caught_up {
            return;
        }
        let Some(congestion) = self.connections[id].congestion_mut() else {
            return;
        };
        let count = congestion.waiting.len().min(RELEASED_AT_ONCE);
        let released: VecDeque<Publisher> = congestion.waiting.drain(..count).collect();
        if congestion.waiting.is_empty() {
            self.connections[id].take_congestion();
        }
        resume_waiting(released, &mut self.connections, &mut self.mesh, self.now);
        if self.connections[id].congestion().is_some() {
            // The other publishers follow once these have had their turn.
            self.connections.mark_ready(id);
        }
    }

    /// Checks whether a consumer that is behind took anything since the last check.
    pub(in crate::engine) fn check_congestion(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(congestion) = self.connections.get_mut(id).and_then(|c| c.congestion_mut()) else {
            return;
        };
        if !congestion.next_look.is_due(now) {
            return; // a timer of an earlier congestion
        }
        congestion.next_look = now.after(Self::look_after());
        self.timers.arm(congestion.next_look, Timer::Congestion(id));
        self.connections.push_action(Action::AskProgress { connection: id });
    }

    /// The executor reports how many bytes the kernel holds that the peer of a congested consumer has not
    /// acknowledged; `None` if the kernel does not say. Checks whether the consumer made progress.
    pub fn handle_progress(
        &mut self,
        now: Now,
        id: ConnectionId,
        unacknowledged: Option<usize>,
    ) -> bool {
        self.set_now(now);
        let now = self.now;
        let Some(congestion) = self.connections.get_mut(id).and_then(|c| c.congestion_mut()) else {
            return false;
        };
        let progresses = congestion.note_progress(now, unacknowledged);
        let patience = match unacknowledged {
            Some(_) => Duration::from_millis(limits::STUCK_MS),
            None => Self::look_after(),
        };
        if congestion.is_stuck || !congestion.progressed.after(patience).is_due(now) {
            return progresses;
        }
        congestion.is_stuck = true;
        let waiting = std::mem::take(&mut congestion.waiting);
        self.metrics.consumers_stuck += 1;
        resume_waiting(waiting, &mut self.connections, &mut self.mesh, now);
        progresses
    }
}
