//! The queues of consumers: messages are sent as far as acknowledgements and the outbox make room.

use shards::SubscriptionIndex;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, SessionId, exchange};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::engine::Engine;
use crate::engine::access::{AccessControl, Identity};
use crate::engine::connections::connection::Hold;
use crate::engine::draft::TemplateUse;
use crate::engine::routing::congestion::{note_progress, resume_publishers};
use crate::engine::work::Work;
use crate::message::Copy;
use crate::session::outbound::{Delivery, Next};
use crate::session::state::Session;
use crate::wire::{PacketIdentifier, Qos, ReasonCode};

/// Whether a message that was queued when the access rules changed may be sent.
fn may_receive(
    access: &mut AccessControl,
    now: Now,
    index: &SubscriptionIndex,
    who: &Identity<'_>,
    delivery: &Delivery,
    work: &mut Work,
) -> bool {
    let shared = delivery.shared.map(|filter| index.text(filter));
    let topic = delivery.message.content().topic;
    access.may_receive(now, who, topic, delivery.qos, shared.as_deref(), work)
}

impl Engine {
    /// Whether the engine sends more, or resumes publishers, when the executor reports that a buffer is
    /// written. An executor that may learn of that late must then not wait.
    pub fn awaits_sent(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let has_more = connection.outbox.is_some() || connection.congestion().is_some();
        has_more
            || connection
                .session()
                .is_some_and(|session| self.sessions.has_waiting_messages(session))
    }

    /// The client took bytes or acknowledged a message: sends more, and resumes publishers that wait for it.
    #[inline]
    pub(in crate::engine) fn after_progress(&mut self, id: ConnectionId) {
        let connection = &self.connections[id];
        let session = connection.session().expect("open");
        if self.sessions.has_waiting_messages(session) || connection.congestion().is_some() {
            self.send_more(id, session);
        }
    }

    /// Sends more to a client that has caught up, and resumes publishers that wait for it.
    fn send_more(&mut self, id: ConnectionId, session: SessionId) {
        let connection = &self.connections[id];
        let caught_up_bytes = self.config.outbox_behind_bytes() / 2;
        if self.sessions.has_waiting_messages(session)
            && connection.pending_bytes() <= caught_up_bytes
        {
            self.pump(id);
        }
        if self.connections[id].congestion().is_some() {
            let Self { connections, sessions, mesh, now, .. } = self;
            resume_publishers(id, caught_up_bytes, sessions, connections, mesh, *now);
        }
    }

    /// Sends the queued messages of a client, as far as its Receive Maximum and its outbox allow.
    pub(in crate::engine) fn pump(&mut self, id: ConnectionId) {
        let session = self.connections[id].session().expect("open");
        let outbox_bytes = self.config.outbox_behind_bytes();
        let (mut expired, mut denied) = (0, 0);
        let own = self.sessions[session].outbound.as_mut().and_then(|of| of.quota(self.now));
        let mut left = own.unwrap_or(usize::MAX);
        while left > 0 && self.connections[id].pending_bytes() <= outbox_bytes {
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
                may_receive(&mut self.access, self.now, index, &who, delivery, &mut self.work)
            });
            let Some(next) = next else { break };
            if is_judging {
                self.work.spend(1);
            }
            match next {
                Next::Denied => denied += 1,
                Next::Hold(record, identifier) => {
                    self.durability.append_sent(&self.sessions, session, record, identifier);
                    self.durability.hold_until_stored(&mut self.sessions[session], id, record);
                }
                Next::Pubrel(identifier) => {
                    self.connections.send_pubrel(id, identifier, ReasonCode::Success);
                }
                Next::Publish(delivery, identifier, dup) => {
                    self.work.spend(2);
                    left -= 1;
                    // A QoS 2 message that is sent once that is durable was logged when it was held.
                    if let Some(identifier) = identifier
                        && !dup
                        && (delivery.qos == Qos::AtLeastOnce || stored == u64::MAX)
                    {
                        let record = delivery.record;
                        self.durability.append_sent(&self.sessions, session, record, identifier);
                    }
                    self.send_queued(id, session, &delivery, identifier, dup);
                }
            }
            if is_judging && self.work.is_spent() {
                self.connections.mark_ready(id);
                break;
            }
        }
        self.count_drops(session, DropCause::Expired, expired);
        self.count_drops(session, DropCause::NotAuthorized, denied);
        self.durability.append_done(&mut self.sessions, session);
        if expired > 0 {
            self.work.spend(expired as usize / 4);
            // More messages may have expired: other connections come first.
            self.connections.mark_ready(id);
        }
        if let Some(quota) = own {
            self.note_pumped(id, session, quota - left);
        }
        let state = &self.sessions[session];
        let has_waiting = state.outbound.as_ref().is_some_and(|o| o.has_waiting());
        if !has_waiting && !state.replays.is_empty() {
            self.replay_retained(id);
        }
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
            return self.send_queued_unmounted(id, session, delivery, copy);
        }
        let is_large = content.payload.len() >= limits::SHARED_BYTES_MIN;
        let payload = is_large.then(|| delivery.message.shared_payload());
        self.write(id, &content, copy, payload, &mut TemplateUse::default());
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
        let Self { connections, mesh, metrics, now, .. } = self;
        note_progress(id, unacknowledged, connections, mesh, metrics, *now)
    }
}
