//! Delivery of a message to its recipients.
//!
//! QoS 0 messages for many plain recipients are encoded once, see `fan_out_batch`. Every other message is
//! encoded for each recipient: the first copy in a given form is kept as a template, and further copies
//! differ from it in the Packet Identifier alone.

use std::sync::Arc;

use bytes::Bytes;
use shards::SubscriptionIndex;

use crate::base::ids::{ConnectionId, CoreId, Publisher, SessionId};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::config::QueuePolicy;
use crate::engine::Engine;
use crate::engine::connections::connection::Connection;
use crate::engine::durability::Durability;
use crate::engine::durability::in_transit::LoggedDelivery;
use crate::engine::durability::qos2_dedup::Qos2Exchange;
use crate::engine::mesh::Mesh;
use crate::engine::mesh::node_block::Places;
use crate::engine::retained::Stored;
use crate::engine::routing::Router;
use crate::engine::routing::congestion::{slow_publisher, standing};
use crate::engine::routing::recipients::{NoLocal, Recipient, Recipients};
use crate::message::{Content, Copy, Message};
use crate::resources::gauges::Ledger;
use crate::session::outbound::{Delivery, Queued, Swept};
use crate::session::state::Session;
use crate::session::topic_alias::AliasUse;
use crate::storage::commit::RecordRef;
use crate::wire::{Qos, ReasonCode, Version};

/// Steps to deliver a message to one recipient, by QoS.
pub(in crate::engine) const STEPS_BY_QOS: [usize; 3] = [1, 1, 2];

/// Additional steps to queue a message: the queue of an absent client is not in the processor's caches.
const ENQUEUE_STEPS: usize = 4;

/// The encoding of the copy that was written last. Further copies of the same message in the same form
/// are made from it.
#[derive(Default)]
pub(super) struct Template {
    /// Number of the message, see [`TemplateUse::message`].
    message: u64,
    form: Option<(Version, Qos, bool)>,
    bytes: Vec<u8>,
    identifier_at: usize,
}

/// How a message uses the template. A template that was made of another message is never used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TemplateUse {
    /// Several copies are expected: a template does not pay for one.
    is_wanted: bool,
    /// Number of the message, given when the first template is made of it.
    message: u64,
}

impl TemplateUse {
    /// So many copies are expected.
    pub(super) fn expect(&mut self, copies: usize) {
        self.is_wanted = copies > 1;
    }
}

/// A message while it is routed. Its value on the heap and its encodings are made when first needed.
pub(in crate::engine) struct Draft<'a> {
    pub content: Content<'a>,
    /// RETAIN flag of the PUBLISH.
    pub retain: bool,
    /// The QoS 2 exchange of a message that must reach no session twice.
    pub once: Option<Qos2Exchange>,
    /// Deliveries in the journal that end when this message is delivered to another member of a shared
    /// subscription.
    pub before: Vec<LoggedDelivery>,
    message: Option<Message>,
    /// Where the message lies in the batches for other cores.
    pub places: Places,
    pub(super) template: TemplateUse,
}

impl<'a> Draft<'a> {
    pub fn new(content: Content<'a>, retain: bool) -> Self {
        Self {
            content,
            retain,
            once: None,
            before: Vec::new(),
            message: None,
            places: Places::new(),
            template: TemplateUse::default(),
        }
    }

    /// A draft of a message that is on the heap already.
    pub fn of(message: &Message, content: Content<'a>, retain: bool) -> Self {
        Self { message: Some(message.clone()), ..Self::new(content, retain) }
    }

    /// Whether the message is on the heap already.
    pub fn is_message(&self) -> bool {
        self.message.is_some()
    }

    /// The message on the heap, allocated by the first call.
    pub fn message(&mut self, ledger: &Ledger) -> &Message {
        self.message.get_or_insert_with(|| self.content.to_message(ledger))
    }
}

/// The state of a recipient's connection after a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Standing {
    /// No connection.
    Offline,
    /// The client keeps up.
    Fine,
    /// The client takes nothing: publishers do not wait for it.
    Stuck,
    /// The client is behind, and makes progress.
    Behind(ConnectionId),
}

/// The states of all recipients of one message, or of one batch.
#[derive(Debug, Default)]
pub(in crate::engine) struct Pressure {
    live: usize,
    behind: usize,
    last_behind: Option<ConnectionId>,
}

impl Pressure {
    pub(in crate::engine) fn add(&mut self, standing: Standing) {
        self.live += usize::from(matches!(standing, Standing::Fine | Standing::Behind(_)));
        if let Standing::Behind(consumer) = standing {
            self.behind += 1;
            self.last_behind = Some(consumer);
        }
    }

    /// The consumer that the publisher has to wait for: a publisher is slowed to the pace of most of its
    /// consumers, never to that of a few.
    pub(in crate::engine) fn consumer_awaited(&self) -> Option<ConnectionId> {
        self.last_behind.filter(|_| 2 * self.behind > self.live)
    }
}

/// The origin of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Origin {
    /// The connection that published the message, for backpressure.
    pub publisher: Option<Publisher>,
    /// The publisher's session, if it is on this core, for No Local.
    pub session: Option<SessionId>,
    /// The QoS 2 exchange of a message that must reach no session twice.
    pub once: Option<Qos2Exchange>,
    /// The core that forwarded the message.
    pub from: Option<CoreId>,
}

/// Adds a QoS 2 message to the inflight window that is sent once it is durable: after a crash its Packet
/// Identifier must not belong to another message.
fn hold_delivery(
    state: &mut Session,
    id: ConnectionId,
    delivery: Delivery,
    once: Option<Qos2Exchange>,
    durability: &mut Durability,
    index: &SubscriptionIndex,
) {
    let number = state.number().expect("only persistent sessions hold messages");
    let outbound = state.outbound.as_mut().expect("the caller made it");
    let identifier = outbound.hold(delivery.clone()).get();
    let kept = durability.append_delivery(number, &delivery, identifier, once, index);
    durability.hold_until_stored(state, id, kept);
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
        draft.once = origin.once;
        self.durability.begin_exchange(draft.once, &mut self.mesh);
        let recipients = self.router.recipients(content.topic, &self.sessions, &mut self.work);
        if draft.once.is_some()
            && is_stored_as_a_whole(&recipients, &self.router, &self.mesh, &self.durability)
        {
            draft.once = None;
        }
        let mut pressure = self.deliver_to(&recipients, &mut draft, origin);
        for subscription in &recipients.shared {
            if let Some(standing) = self.deliver_to_group(subscription, &mut draft, origin, None) {
                pressure.add(standing);
            }
        }
        slow_publisher(origin.publisher, &pressure, &mut self.connections, &mut self.mesh);
        if !self.mesh.is_alone() {
            self.forward(&recipients, &mut draft, origin, stored);
        }
        !recipients.is_empty()
    }

    /// Delivers a message of another core to the subscribers of this core.
    #[inline]
    pub(in crate::engine) fn deliver_here(&mut self, draft: &mut Draft<'_>, origin: &Origin) {
        let recipients =
            self.router.recipients(draft.content.topic, &self.sessions, &mut self.work);
        let pressure = self.deliver_to(&recipients, draft, origin);
        slow_publisher(origin.publisher, &pressure, &mut self.connections, &mut self.mesh);
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
        self.work.spend(each.len() * STEPS_BY_QOS[usize::from(u8::from(draft.content.qos))]);
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
        if shared.is_none() && self.durability.is_duplicate(session, draft.once) {
            return Standing::Offline;
        }
        let qos = draft.content.qos.min(recipient.qos);
        let Some(id) = session.connection else {
            if qos != Qos::AtMostOnce && !session.is_over() {
                self.enqueue(recipient, draft, shared);
            }
            return Standing::Offline;
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
            self.count_drops(recipient.session, DropCause::OutboxFull, 1);
            if self.config.queue_limits.policy == QueuePolicy::Disconnect {
                self.connections.close_later(id, ReasonCode::QuotaExceeded);
            }
        } else {
            self.enqueue(recipient, draft, shared);
        }
        let behind_bytes = self.config.outbox_behind_bytes();
        let Self { sessions, connections, timers, now, .. } = self;
        standing(id, behind_bytes, sessions, connections, timers, *now)
    }

    /// Maximum size of an outbox that has `pending` bytes, for messages that are dropped instead of queued;
    /// less while memory is full.
    fn outbox_limit(&self, pending: usize) -> usize {
        match pending <= self.config.outbox_behind_bytes() || !self.memory_is_full() {
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
        let mut copy = Copy { subscription_identifiers: identifiers, ..Copy::plain(qos, retain) };
        let connection = &self.connections[id];
        if !connection.takes(&draft.content, &copy, self.now) {
            return self.count_drops(recipient.session, DropCause::PacketTooLarge, 1);
        }
        if qos != Qos::AtMostOnce {
            let delivery = recipient.delivery(draft, self.place.ledger(), shared);
            let window = connection.window;
            let is_held = qos == Qos::ExactlyOnce && self.durability.waits();
            let session = &mut self.sessions[recipient.session];
            let number = if self.durability.has_journal() { session.number() } else { None };
            let outbound = session.outbound_mut(window, self.place.ledger());
            match number {
                None => copy.packet_identifier = outbound.send(delivery).get(),
                Some(_) if is_held => {
                    let (durability, index) = (&mut self.durability, &self.router.index);
                    return hold_delivery(session, id, delivery, draft.once, durability, index);
                }
                Some(number) => {
                    let identifier = outbound.send(delivery.clone()).get();
                    copy.packet_identifier = identifier;
                    let kept = self.durability.append_delivery(
                        number,
                        &delivery,
                        identifier,
                        draft.once,
                        &self.router.index,
                    );
                    let outbound = self.sessions[recipient.session].outbound.as_mut();
                    outbound.expect("just used").note_kept(kept);
                }
            }
        }
        let bytes = draft.content.payload.len();
        let is_alone = !draft.template.is_wanted && !draft.is_message();
        let copied_bytes_max =
            if is_alone { limits::COPIED_ALONE_BYTES_MAX } else { limits::SHARED_BYTES_MIN - 1 };
        if bytes > copied_bytes_max {
            let payload = draft.message(self.place.ledger()).shared_payload();
            self.write(id, &draft.content, copy, Some(payload), &mut draft.template);
        } else {
            self.write(id, &draft.content, copy, None, &mut draft.template);
        }
    }

    /// Queues a message that the client cannot receive yet.
    fn enqueue(
        &mut self,
        recipient: &Recipient,
        draft: &mut Draft<'_>,
        shared: Option<shards::FilterId>,
    ) {
        self.router.has_queued = true;
        self.work.spend(ENQUEUE_STEPS);
        if self.memory_is_full() && !self.expire_queued(recipient.session) {
            return self.count_drops(recipient.session, DropCause::MemoryFull, 1);
        }
        let mut delivery = recipient.delivery(draft, self.place.ledger(), shared);
        if self.durability.has_journal()
            && delivery.qos != Qos::AtMostOnce
            && let Some(number) = self.sessions[recipient.session].number()
        {
            let (exchange, index) = (draft.once, &self.router.index);
            delivery.kept = self.durability.append_delivery(number, &delivery, 0, exchange, index);
        }
        let session = &mut self.sessions[recipient.session];
        let connection = session.connection;
        let window = connection.map_or(0, |id| self.connections[id].window);
        let outbound = session.outbound_mut(window, self.place.ledger());
        let held = outbound.queue_room_bytes();
        let limits = &self.config.queue_limits;
        let outcome = outbound.push(delivery, limits, connection.is_some(), self.now);
        let swept = outbound.take_swept();
        // Many queues that grow in one turn take megabytes of new memory.
        self.work.spend_bytes(outbound.queue_room_bytes().saturating_sub(held));
        self.note_swept(recipient.session, swept);
        match outcome {
            Queued::Kept => {}
            Queued::Dropped(cause) => self.count_drops(recipient.session, cause, 1),
            Queued::Disconnect(cause) => {
                self.count_drops(recipient.session, cause, 1);
                let id = connection.expect("only a connected client is disconnected");
                self.connections.close_later(id, ReasonCode::QuotaExceeded);
            }
        }
        self.durability.append_done(&mut self.sessions, recipient.session);
    }

    /// Removes expired messages from the queue of a session; returns whether memory is free then.
    fn expire_queued(&mut self, session: SessionId) -> bool {
        let Some(outbound) = &mut self.sessions[session].outbound else { return false };
        outbound.expire(self.now);
        let swept = outbound.take_swept();
        self.note_swept(session, swept);
        self.durability.append_done(&mut self.sessions, session);
        !self.memory_is_full()
    }

    #[inline]
    fn note_swept(&mut self, session: SessionId, swept: Swept) {
        self.work.spend(swept.looked_at / limits::SWEPT_PER_STEP);
        self.count_drops(session, DropCause::Expired, swept.expired);
    }

    /// Encodes one copy into the outbox of a connection.
    pub(super) fn write(
        &mut self,
        id: ConnectionId,
        content: &Content<'_>,
        mut copy: Copy<'_>,
        payload: Option<Bytes>,
        of: &mut TemplateUse,
    ) {
        self.metrics.publishes_sent += 1;
        self.connections.count_packets(1);
        let connection = &mut self.connections[id];
        let version = connection.version;
        let aliases = connection.extra.as_mut().and_then(|extra| extra.outgoing_aliases.as_mut());
        // A packet that sets an alias has the Topic Name as well.
        let with_alias = Copy { topic_alias: Some(u16::MAX), ..copy };
        if let Some(aliases) = aliases
            && (connection.packet_bytes_max == u32::MAX
                || content.header(version, self.now, &with_alias).encoded_len()
                    <= connection.packet_bytes_max as usize)
        {
            match aliases.choose(content.topic) {
                AliasUse::None => {}
                AliasUse::Set(alias) => copy.topic_alias = Some(alias),
                AliasUse::Known(alias) => {
                    (copy.topic_alias, copy.topic_alias_known) = (Some(alias), true);
                }
            }
        }
        let header_of = |copy: &Copy<'_>, out: &mut Vec<u8>| {
            content.header(version, self.now, copy).encode(out)
        };
        let outbox = self.connections.outbox(id);
        if let Some(payload) = payload {
            outbox.append(|out| {
                header_of(&copy, out);
            });
            outbox.append_shared(payload);
            return;
        }
        let template = &mut self.router.template;
        let is_alike =
            copy.topic_alias.is_none() && copy.subscription_identifiers.is_empty() && !copy.dup;
        let form = Some((version, copy.qos, copy.retain));
        if is_alike && template.form == form && template.message == of.message {
            outbox.append(|out| {
                let start = out.len();
                out.extend_from_slice(&template.bytes);
                if copy.qos != Qos::AtMostOnce {
                    let at = start + template.identifier_at;
                    out[at..at + 2].copy_from_slice(&copy.packet_identifier.to_be_bytes());
                }
            });
            return;
        }
        outbox.append(|out| {
            let start = out.len();
            let identifier_at = header_of(&copy, out);
            out.extend_from_slice(content.payload);
            if is_alike && of.is_wanted {
                template.message += 1;
                of.message = template.message;
                template.form = form;
                template.bytes.clear();
                template.bytes.extend_from_slice(&out[start..]);
                template.identifier_at = identifier_at - start;
            }
        });
    }
}

impl Copy<'_> {
    /// A copy without properties of its recipient.
    pub(in crate::engine) fn plain(qos: Qos, retain: bool) -> Self {
        Self {
            qos,
            retain,
            dup: false,
            packet_identifier: 0,
            subscription_identifiers: &[],
            topic_alias: None,
            topic_alias_known: false,
        }
    }
}

impl Connection {
    /// Whether a copy fits into the client's Maximum Packet Size [MQTT-3.1.2-24].
    pub(in crate::engine) fn takes(
        &self,
        content: &Content<'_>,
        copy: &Copy<'_>,
        now: crate::base::clock::Now,
    ) -> bool {
        self.packet_bytes_max == u32::MAX
            || content.header(self.version, now, copy).encoded_len()
                <= self.packet_bytes_max as usize
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
            kept: RecordRef::default(),
            message: draft.message(ledger).clone(),
        }
    }
}

/// Whether all deliveries of a message are appended to the journal together, and no delivery of before
/// a crash is known: then all sessions have the message after a crash, or none has.
#[inline]
fn is_stored_as_a_whole(
    recipients: &Recipients,
    router: &Router,
    mesh: &Mesh,
    durability: &Durability,
) -> bool {
    mesh.is_alone()
        && router.fan_outs.are_few(recipients.each.len())
        && durability.has_no_duplicates()
}
