//! Fast publishers and slow consumers in step: acknowledgements, pumping queues, congestion.
//!
//! A consumer with much waiting for it is *behind*. A publisher more than half of whose live
//! consumers are behind is not read until the one it fell over last has caught up; TCP slows the
//! client. A consumer that takes nothing for [`limits::STUCK_MS`] is *stuck* and not live: nobody
//! waits for it until it takes something again. What it takes is what it acknowledges to the kernel, which
//! the executor is asked for; what is written to the kernel says little, as that is megabytes at a time. So a slow consumer among many holds up nobody, and
//! a publisher is no faster than most of those it publishes to; what exceeds a bound all the same
//! is dropped by policy.

use std::collections::VecDeque;
use std::time::Duration;

use shards::SubscriptionIndex;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Publisher, SessionId, exchange};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::engine::access::{AccessControl, Identity};
use crate::engine::connections::connection::{Congestion, Hold};
use crate::engine::connections::pending_acks::{Answer, Promise};
use crate::engine::routing::deliver::{Standing, TemplateUse};
use crate::engine::work::Work;
use crate::engine::{Action, Engine, Timer};
use crate::message::Copy;
use crate::session::outbound::{Ack, Acknowledged, Delivery, Next};
use crate::session::state::Session;
use crate::storage::commit::RecordRef;
use crate::wire::{self, Packet, PacketIdentifier, Qos, ReasonCode};

/// Publishers let go at a time: their input refills the consumer's outbox.
const RELEASED_AT_ONCE: usize = 8;

/// Whether a message that waited when rules changed may be sent.
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

impl Engine {
    /// PUBACK, PUBREC or PUBCOMP.
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
                // The client waits for a PUBREL: it gets one, that says why.
                self.send_pubrel(id, identifier, ReasonCode::PacketIdentifierNotFound);
            }
            Acknowledged::Unknown => {}
        }
    }

    /// PUBREL, once the store knows that PUBREC came: the client forgets the message with it.
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

    /// Whether more is sent, or somebody let go, when the executor says that a buffer is written.
    /// An executor that may learn of it late must then not wait.
    pub fn awaits_sent(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let has_more = connection.outbox.is_some() || connection.congestion().is_some();
        has_more || connection.session().is_some_and(|session| self.has_waiting_messages(session))
    }

    /// Whether messages wait for a client.
    fn has_waiting_messages(&self, session: SessionId) -> bool {
        let state = &self.sessions[session];
        !state.replays.is_empty() || state.outbound.as_ref().is_some_and(|o| o.has_waiting())
    }

    /// The client took bytes or acknowledged: more can be sent, and whoever waits may go on.
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

    /// Sends what waits for a client, as far as its window and its outbox allow.
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
            // Its subscriptions are looked at first: others may get what was drawn for shared ones.
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
                    // A QoS 2 message whose sending has to be stored first was told when it was held.
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
            // There may be more of them: others have their turn first.
            self.connections.mark_ready(id);
        }
        let state = &self.sessions[session];
        let has_waiting = state.outbound.as_ref().is_some_and(|o| o.has_waiting());
        if !has_waiting && !state.replays.is_empty() {
            self.replay_retained(id);
        }
    }

    /// Messages in the queue of a session.
    pub(in crate::engine) fn queued(&self, session: SessionId) -> usize {
        self.sessions[session].outbound.as_ref().map_or(0, |outbound| outbound.queued())
    }

    /// The queue of a session may have become longer or shorter.
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

    /// How a connected consumer stands; one that has fallen behind is watched from here on.
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
        // What had queued up while the client was away holds up nobody.
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

    /// Leaves a publisher's socket unread until the consumer in `consumer` has caught up.
    pub(in crate::engine) fn pause_publisher(
        &mut self,
        publisher: Publisher,
        consumer: ConnectionId,
    ) {
        let is_here = publisher.core == self.core();
        let id = publisher.connection;
        if is_here {
            // A client is never held up by its own subscriptions: its acknowledgements must be read.
            if id == consumer || self.connections.get_mut(id).is_none_or(|p| p.holders > 0) {
                return;
            }
        } else if self.mesh.has_paused(&publisher) {
            return;
        }
        // It may be gone by now, where there were many.
        let consumer = self.connections.get_mut(consumer);
        let Some(congestion) = consumer.and_then(|c| c.congestion_mut()) else { return };
        congestion.waiting.push_back(publisher);
        if is_here {
            return self.connections.pause_reading(id);
        }
        self.mesh.pause(publisher);
    }

    /// Lets go of those who wait for a consumer that caught up.
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
        self.resume_waiting(released);
        if self.connections[id].congestion().is_some() {
            // It looks again after those have had their turn.
            self.connections.mark_ready(id);
        }
    }

    pub(in crate::engine) fn resume_waiting(&mut self, waiting: VecDeque<Publisher>) {
        for publisher in waiting {
            if publisher.core == self.core() {
                self.connections.resume_reading(publisher.connection, self.now);
            } else {
                self.mesh.resume(&publisher);
            }
        }
    }

    /// Did a consumer that is behind take anything since the last look?
    pub(in crate::engine) fn check_congestion(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(congestion) = self.connections.get_mut(id).and_then(|c| c.congestion_mut()) else {
            return;
        };
        if !congestion.next_look.is_due(now) {
            return; // the timer of an earlier time when it was behind
        }
        congestion.next_look = now.after(Self::look_after());
        self.timers.arm(congestion.next_look, Timer::Congestion(id));
        self.connections.push_action(Action::AskProgress { connection: id });
    }

    /// The kernel has so many bytes for a consumer that is behind which its peer has not acknowledged; none
    /// where it does not say. Whether the consumer took anything since it was asked for last.
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
        self.resume_waiting(waiting);
        progresses
    }
}
