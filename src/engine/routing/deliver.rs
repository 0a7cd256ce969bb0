//! Delivery of a message to its recipients.
//!
//! QoS 0 messages for many plain recipients are encoded once, see `fan_out_batch`. Every other message is
//! encoded for each recipient: the first copy in a given form is kept as a template, and further copies
//! differ from it in the Packet Identifier alone.

use std::sync::Arc;

use shards::SubscriptionIndex;

use crate::base::ids::{ConnectionId, Publisher, SessionId};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::config::QueuePolicy;
use crate::config::bridge::PATH_PROPERTY;
use crate::engine::Engine;
use crate::engine::cause::Cause;
use crate::engine::draft::{Draft, Origin, TemplateUse};
use crate::engine::durability::Durability;
use crate::engine::durability::qos2_dedup::Qos2Exchange;
use crate::engine::mesh::Mesh;
use crate::engine::retained::Stored;
use crate::engine::routing::congestion::{Pressure, Standing};
use crate::engine::routing::congestion::{slow_publisher, standing};
use crate::engine::routing::recipients::{NoLocal, Recipient, Recipients};
use crate::message::{Content, Copy};
use crate::resources::gauges::Ledger;
use crate::session::outbound::{Delivery, Queued, Swept};
use crate::session::state::Session;
use crate::storage::commit::RecordRef;
use crate::wire::{Qos, ReasonCode};

/// Steps to deliver a message to [`COPIES`] connected recipients, by QoS. Many copies of a turn make few sends,
/// which cost more than the copies.
pub(in crate::engine) const STEPS_BY_QOS: [usize; 3] = [2, 2, 4];

/// See [`STEPS_BY_QOS`].
pub(in crate::engine) const COPIES: usize = 16;

/// Additional steps to queue a message: the queue of an absent client is not in the processor's caches.
const ENQUEUE_STEPS: usize = 4;

/// Adds a QoS 2 message to the inflight window that is sent once it is durable: after a crash its Packet
/// Identifier must not belong to another message.
fn hold_delivery(
    state: &mut Session,
    id: ConnectionId,
    delivery: Delivery,
    exchange: Option<Qos2Exchange>,
    durability: &mut Durability,
    index: &SubscriptionIndex,
) {
    let number = state.number().expect("only persistent sessions hold messages");
    let outbound = state.outbound.as_mut().expect("the caller made it");
    let identifier = outbound.hold(delivery.clone()).get();
    let record = durability.append_delivery(number, &delivery, identifier, exchange, index);
    durability.hold_until_stored(state, id, record);
}

/// Whether the publisher of a message waits for a full queue: not if the message has come over a bridge, whose connection
/// would not be read, and its own queue not sent.
#[cold]
fn holds_publisher(content: &Content<'_>) -> bool {
    let name = PATH_PROPERTY.as_bytes();
    !content.passed_on.windows(name.len()).any(|bytes| bytes == name)
}

impl Engine {
    /// Delivers a message to all subscribers, on all cores; returns whether there are any. `stored` is the
    /// retained message that was made of it. The cores that it was forwarded to are noted in the mesh.
    pub(in crate::engine) fn route(
        &mut self,
        content: &Content<'_>,
        origin: &Origin,
        retain: bool,
        stored: Option<&Stored>,
    ) -> bool {
        self.mesh.begin_message();
        let mut draft = match stored.and_then(|stored| stored.message.as_ref()) {
            Some(message) => Draft::of(message, *content, retain),
            None => Draft::new(*content, retain),
        };
        draft.exchange = origin.exchange;
        self.durability.begin_exchange(draft.exchange, &mut self.mesh);
        let recipients = self.router.recipients(content.topic, &self.sessions, &mut self.work);
        if is_stored_as_a_whole(&self.mesh, &self.durability) {
            draft.exchange = None;
        }
        let mut pressure = self.deliver_to(&recipients, &mut draft, origin);
        for subscription in &recipients.shared {
            if let Some(standing) = self.deliver_to_group(subscription, &mut draft, origin, None) {
                pressure.add(standing);
            }
        }
        self.slow_publisher(origin.publisher, &pressure);
        let is_matched = !recipients.is_empty();
        if self.mesh.is_alone() {
            return is_matched;
        }
        self.forward(&recipients, &mut draft, origin, stored) || is_matched
    }

    /// Delivers a message of another core to the subscribers of this core.
    #[inline]
    pub(in crate::engine) fn deliver_here(&mut self, draft: &mut Draft<'_>, origin: &Origin) {
        let recipients =
            self.router.recipients(draft.content.topic, &self.sessions, &mut self.work);
        let pressure = self.deliver_to(&recipients, draft, origin);
        self.slow_publisher(origin.publisher, &pressure);
    }

    fn deliver_to(
        &mut self,
        recipients: &Arc<Recipients>,
        draft: &mut Draft<'_>,
        origin: &Origin,
    ) -> Pressure {
        let mut pressure = Pressure::default();
        draft.template.expect(recipients.each.len());
        if recipients.each.is_empty() {
            return pressure;
        }
        let is_in_batch = self.extend_batch(recipients, draft, origin.publisher);
        if !is_in_batch {
            self.flush_fan_out_batch();
        }
        let first = if is_in_batch { recipients.plain } else { 0 };
        let each = &recipients.each[first..];
        if self.router.may_need_parts(each.len())
            && let Some(pressure) =
                self.deliver_in_parts_if_needed(recipients, first, draft, origin)
        {
            return pressure;
        }
        let steps = STEPS_BY_QOS[usize::from(u8::from(draft.content.qos))];
        self.work.spend(each.len() * steps / COPIES);
        for recipient in each {
            pressure.add(self.deliver_unless_own(recipient, draft, origin.session));
        }
        pressure
    }

    #[inline(always)]
    pub(in crate::engine) fn deliver_unless_own(
        &mut self,
        recipient: &Recipient,
        draft: &mut Draft<'_>,
        publisher: Option<SessionId>,
    ) -> Standing {
        let is_own = publisher == Some(recipient.session);
        match recipient.no_local {
            NoLocal::Set if is_own => Standing::Offline,
            NoLocal::Mixed if is_own => {
                let own = self.router.recipient_of_own(draft.content.topic, recipient.session);
                own.map_or(Standing::Offline, |own| self.deliver(&own, draft, None))
            }
            _ => self.deliver(recipient, draft, None),
        }
    }

    /// Delivers a message to one recipient: into the outbox of its connection or into its queue, or drops it.
    pub(in crate::engine) fn deliver(
        &mut self,
        recipient: &Recipient,
        draft: &mut Draft<'_>,
        shared: Option<shards::FilterId>,
    ) -> Standing {
        let session = &mut self.sessions[recipient.session];
        if shared.is_none() && self.durability.is_duplicate(session, draft.exchange) {
            return Standing::Offline;
        }
        let qos = draft.content.qos.min(recipient.qos);
        let Some(id) = session.connection else {
            let is_queued = qos != Qos::AtMostOnce || self.config.queues_qos_0(session);
            if !is_queued || session.is_over() {
                return Standing::Offline;
            }
            let holds = match session.is_moving() {
                true => self.enqueue_in_move(recipient, draft, shared),
                false => self.enqueue(recipient, draft, shared),
            };
            return if holds { Standing::Full(recipient.session) } else { Standing::Offline };
        };
        let connection = &mut self.connections[id];
        let pending = connection.pending_bytes();
        let is_open = session.outbound.as_ref().is_none_or(|outbound| outbound.is_open(qos));
        // The other policies choose among the queued messages: QoS 0 is queued so that they can choose it.
        let is_dropped = qos == Qos::AtMostOnce
            && matches!(
                self.config.queue_limits.policy,
                QueuePolicy::DropNewest | QueuePolicy::Disconnect
            );
        let after = pending + draft.content.payload.len();
        let has_room = pending == 0
            || after <= self.config.outbox_behind_bytes()
            || is_dropped && after <= self.outbox_limit(pending);
        if is_open && has_room {
            self.send_now(recipient, id, draft, shared);
        } else if is_open && is_dropped {
            let topic = Some(draft.content.topic);
            self.count_drops_of(recipient.session, DropCause::OutboxFull, 1, topic);
            let policy = self.config.queue_policy(&self.sessions[recipient.session]);
            if policy == QueuePolicy::Disconnect {
                self.connections.close_later(id, ReasonCode::QuotaExceeded, Cause::QueueFull);
            }
        } else if self.enqueue(recipient, draft, shared) {
            return Standing::Full(recipient.session);
        }
        let behind_bytes = self.config.outbox_behind_bytes();
        let Self { sessions, connections, timers, now, .. } = self;
        standing(id, behind_bytes, sessions, connections, timers, *now)
    }

    /// Maximum size of an outbox that has `pending` bytes, for messages that are dropped instead of queued;
    /// less while memory is full.
    fn outbox_limit(&self, pending: usize) -> usize {
        match pending <= self.config.outbox_behind_bytes() || !self.memory.is_full() {
            true => self.config.limits.outbox_bytes_max as usize,
            false => self.config.outbox_behind_bytes(),
        }
    }

    fn send_now(
        &mut self,
        recipient: &Recipient,
        id: ConnectionId,
        draft: &mut Draft<'_>,
        shared: Option<shards::FilterId>,
    ) {
        let qos = draft.content.qos.min(recipient.qos);
        let retain = draft.retain && recipient.retain_as_published;
        let identifiers = recipient.subscription_identifiers.as_slice();
        let copy = Copy { subscription_identifiers: identifiers, ..Copy::plain(qos, retain) };
        match self.connections[id].takes(&draft.content, &copy, self.now) {
            true => self.send_copy(recipient, id, draft, shared, copy, None),
            false => self.send_unmounted(recipient, id, draft, shared, copy),
        }
    }

    /// Sends a copy of a message, which may have another topic for its client.
    #[inline(always)]
    pub(super) fn send_copy(
        &mut self,
        recipient: &Recipient,
        id: ConnectionId,
        draft: &mut Draft<'_>,
        shared: Option<shards::FilterId>,
        mut copy: Copy<'_>,
        unmounted: Option<Content<'_>>,
    ) {
        let qos = copy.qos;
        let connection = &self.connections[id];
        if qos != Qos::AtMostOnce {
            let delivery = recipient.delivery(draft, self.memory.ledger(), shared);
            let window = connection.window;
            let is_held = qos == Qos::ExactlyOnce && self.durability.waits();
            let session = &mut self.sessions[recipient.session];
            let number = if self.durability.has_journal() { session.number() } else { None };
            let outbound =
                session.outbound_mut(window, &self.config.queue_limits, self.memory.ledger());
            match number {
                None => copy.packet_identifier = outbound.send(delivery).get(),
                Some(_) if is_held => {
                    let (durability, index) = (&mut self.durability, &self.router.index);
                    return hold_delivery(session, id, delivery, draft.exchange, durability, index);
                }
                Some(number) => {
                    let identifier = outbound.send(delivery.clone()).get();
                    copy.packet_identifier = identifier;
                    let record = self.durability.append_delivery(
                        number,
                        &delivery,
                        identifier,
                        draft.exchange,
                        &self.router.index,
                    );
                    let outbound = self.sessions[recipient.session].outbound.as_mut();
                    outbound.expect("just used").note_record(record);
                }
            }
        }
        let bytes = draft.content.payload.len();
        let is_alone = !draft.template.is_wanted && !draft.is_message();
        let copied_bytes_max =
            if is_alone { limits::COPIED_ALONE_BYTES_MAX } else { limits::SHARED_BYTES_MIN - 1 };
        if bytes > copied_bytes_max {
            let payload = draft.message(self.memory.ledger()).shared_payload();
            match &unmounted {
                None => self.write(id, &draft.content, copy, Some(payload), &mut draft.template),
                Some(of) => self.write(id, of, copy, Some(payload), &mut TemplateUse::default()),
            }
        } else {
            match &unmounted {
                None => self.write(id, &draft.content, copy, None, &mut draft.template),
                Some(of) => self.write(id, of, copy, None, &mut TemplateUse::default()),
            }
        }
    }

    /// Leaves the publisher of a message unread, if most of its consumers are behind.
    #[inline]
    pub(super) fn slow_publisher(&mut self, publisher: Option<Publisher>, pressure: &Pressure) {
        let Self { connections, mesh, router, .. } = self;
        slow_publisher(publisher, pressure, connections, mesh, &mut router.full_queues);
    }

    /// Queues a message that the client cannot receive yet. Returns whether its publisher waits for room in the queue.
    pub(in crate::engine) fn enqueue(
        &mut self,
        recipient: &Recipient,
        draft: &mut Draft<'_>,
        shared: Option<shards::FilterId>,
    ) -> bool {
        self.router.has_queued = true;
        self.work.spend(ENQUEUE_STEPS);
        if self.memory.is_full() && !self.expire_queued(recipient.session) {
            let topic = Some(draft.content.topic);
            self.count_drops_of(recipient.session, DropCause::MemoryFull, 1, topic);
            return false;
        }
        let mut delivery = recipient.delivery(draft, self.memory.ledger(), shared);
        if self.durability.has_journal()
            && delivery.qos != Qos::AtMostOnce
            && let Some(number) = self.sessions[recipient.session].number()
        {
            let (exchange, index) = (draft.exchange, &self.router.index);
            delivery.record =
                self.durability.append_delivery(number, &delivery, 0, exchange, index);
        }
        let session = &mut self.sessions[recipient.session];
        let connection = session.connection;
        let window = connection.map_or(0, |id| self.connections[id].window);
        let outbound =
            session.outbound_mut(window, &self.config.queue_limits, self.memory.ledger());
        let held = outbound.queue_room_bytes();
        let limits = &self.config.queue_limits;
        let outcome = outbound.push(delivery, limits, connection.is_some(), self.now);
        let swept = outbound.take_swept();
        // Many queues that grow in one turn take megabytes of new memory.
        self.work.spend_bytes(outbound.queue_room_bytes().saturating_sub(held));
        self.note_swept(recipient.session, swept);
        let mut holds = false;
        match outcome {
            Queued::Kept => {}
            Queued::KeptHolding => holds = holds_publisher(&draft.content),
            Queued::Dropped(cause) => {
                let own = self.sessions[recipient.session].own_bounds();
                holds =
                    own.is_some_and(|own| own.holds_publishers) && holds_publisher(&draft.content);
                let policy = self.config.queue_policy(&self.sessions[recipient.session]);
                // Otherwise an older message was dropped, on any topic.
                let is_of_topic = cause == DropCause::Superseded
                    || matches!(policy, QueuePolicy::DropNewest | QueuePolicy::Disconnect);
                let topic = is_of_topic.then_some(draft.content.topic);
                self.count_drops_of(recipient.session, cause, 1, topic);
            }
            Queued::Disconnect(cause) => {
                self.count_drops_of(recipient.session, cause, 1, Some(draft.content.topic));
                let id = connection.expect("only a connected client is disconnected");
                self.connections.close_later(id, ReasonCode::QuotaExceeded, Cause::QueueFull);
            }
        }
        self.durability.append_done(&mut self.sessions, recipient.session);
        holds
    }

    /// Removes expired messages from the queue of a session; returns whether memory is free then.
    fn expire_queued(&mut self, session: SessionId) -> bool {
        let Some(outbound) = &mut self.sessions[session].outbound else { return false };
        outbound.expire(self.now);
        let swept = outbound.take_swept();
        self.note_swept(session, swept);
        self.durability.append_done(&mut self.sessions, session);
        !self.memory.is_full()
    }

    #[inline]
    fn note_swept(&mut self, session: SessionId, swept: Swept) {
        self.work.spend(swept.looked_at / limits::SWEPT_PER_STEP);
        self.count_drops(session, DropCause::Expired, swept.expired);
    }
}

impl Recipient {
    fn delivery(
        &self,
        draft: &mut Draft<'_>,
        ledger: &Ledger,
        shared: Option<shards::FilterId>,
    ) -> Delivery {
        Delivery {
            qos: draft.content.qos.min(self.qos),
            retain: draft.retain && self.retain_as_published,
            subscription_identifiers: self.subscription_identifiers.clone(),
            shared,
            record: RecordRef::default(),
            message: draft.message(ledger).clone(),
        }
    }
}

/// Whether all deliveries of a message are appended to the journal together, with the record that the message was
/// received, and no delivery of before a crash is known: then all sessions have the message after a crash, or none
/// has. A message that is delivered in parts is excepted.
#[inline]
fn is_stored_as_a_whole(mesh: &Mesh, durability: &Durability) -> bool {
    mesh.is_alone() && durability.has_no_duplicates()
}
