//! Fan-out over several turns: a message, or a batch, with more recipients than fit into one turn is
//! delivered to the remaining recipients in later turns.
//!
//! Messages of one publisher stay in order: its socket, or the mesh batch that had the message, is not read
//! before all recipients have the message, and messages that arrive meanwhile for many recipients wait
//! behind it. PUBACK and PUBREC are sent once all recipients have the message.
//!
//! The recipients are those of the moment at which the message arrived, without clients that unsubscribe or
//! whose session ends before their turn. The place of an ended session in the session table stays taken
//! until all fan-outs have ended that had begun by then.

use std::ops::Range;
use std::sync::Arc;

use crate::base::ids::{CoreId, Publisher, SessionId};
use crate::engine::Engine;
use crate::engine::claims::marks::Source;
use crate::engine::draft::{Draft, Origin};
use crate::engine::routing::congestion::Pressure;
use crate::engine::routing::deliver::STEPS_BY_QOS;
use crate::engine::routing::fan_out_batch::EncodedBatch;
use crate::engine::routing::fan_outs::{FanOut, FanOutContent};
use crate::engine::routing::recipients::Recipients;
use crate::resources::gauges::Charge;

impl Engine {
    /// For tests: delivers each message to at most so many recipients per turn.
    #[doc(hidden)]
    pub fn cut_fan_outs(&mut self, subscribers: usize) {
        self.router.fan_outs.cut(subscribers);
    }

    /// Delivers a message to the recipients from `first` on in parts, if it has to.
    #[cold]
    #[inline(never)]
    pub(in crate::engine) fn deliver_in_parts_if_needed(
        &mut self,
        recipients: &Arc<Recipients>,
        first: usize,
        draft: &mut Draft<'_>,
        origin: &Origin,
    ) -> Option<Pressure> {
        let is_large = !self.router.fan_outs.are_few(recipients.each.len() - first);
        let must = is_large || self.router.may_overtake(origin, &self.connections);
        must.then(|| self.deliver_in_parts(recipients, first, draft, origin))
    }

    /// Delivers a message to the recipients from `first` on: to some in this turn, and to the others in later
    /// turns. The returned pressure is empty if the fan-out continues; it is applied at the end.
    fn deliver_in_parts(
        &mut self,
        recipients: &Arc<Recipients>,
        first: usize,
        draft: &mut Draft<'_>,
        origin: &Origin,
    ) -> Pressure {
        // Its deliveries, and the record that the message was received, come in several batches of records.
        draft.exchange = draft.exchange.or(origin.exchange);
        let mut left = first..recipients.each.len();
        let (mark, number) = (self.durability.mark(), u64::MAX);
        let mut pressure = Pressure::default();
        if self.router.fan_outs.is_empty() {
            self.deliver_part(recipients, &mut left, number, draft, origin.session, &mut pressure);
        }
        if left.is_empty() {
            return pressure;
        }
        let content = FanOutContent::Message {
            message: draft.message(self.memory.ledger()).clone(),
            retain: draft.retain,
            exchange: draft.exchange,
            session: origin.session,
        };
        self.router.is_divided = true;
        let publishers = origin.publisher.into_iter().collect();
        self.begin_fan_out(content, recipients, left, pressure, publishers, (origin.from, mark));
        Pressure::default()
    }

    /// Delivers a batch to its recipients, to some in this turn and to the others in later turns. Returns the
    /// batch and the pressure if all recipients have it.
    pub(in crate::engine) fn deliver_batch_in_parts(
        &mut self,
        mut batch: EncodedBatch,
        recipients: &Arc<Recipients>,
    ) -> Option<(EncodedBatch, Pressure)> {
        let mut left = 0..recipients.plain;
        let mut pressure = Pressure::default();
        if self.router.fan_outs.is_empty() {
            self.deliver_batch_part(&batch, recipients, &mut left, u64::MAX, &mut pressure);
        }
        if left.is_empty() {
            return Some((batch, pressure));
        }
        let publishers = std::mem::take(&mut batch.publishers);
        self.begin_fan_out(
            FanOutContent::Batch(Box::new(batch)),
            recipients,
            left,
            pressure,
            publishers,
            (None, self.durability.mark()),
        );
        None
    }

    fn begin_fan_out(
        &mut self,
        content: FanOutContent,
        recipients: &Arc<Recipients>,
        left: Range<usize>,
        pressure: Pressure,
        publishers: Vec<Publisher>,
        (lane, mark): (Option<CoreId>, u64),
    ) {
        let own = self.mesh.core();
        self.metrics.fan_outs_divided += 1;
        for publisher in publishers.iter().filter(|publisher| publisher.core == own) {
            self.connections.pause_reading(publisher.connection);
        }
        let batch_bytes = match &content {
            FanOutContent::Message { .. } => 0,
            FanOutContent::Batch(batch) => batch.heap_bytes(),
        };
        let mut charge = Charge::default();
        let bytes =
            size_of::<FanOut>() + publishers.capacity() * size_of::<Publisher>() + batch_bytes;
        charge.set(self.memory.ledger(), bytes);
        let source = match content {
            FanOutContent::Message { .. } => self.claims.source(),
            FanOutContent::Batch(_) => Source::earlier(),
        };
        let fan_out = FanOut {
            content,
            recipients: Arc::clone(recipients),
            left,
            pressure,
            publishers,
            lane,
            source,
            answers: Vec::new(),
            mark,
            has_queued: self.router.has_queued,
            number: 0,
            charge,
        };
        self.router.fan_outs.begin(own, fan_out);
    }

    pub(super) fn deliver_part(
        &mut self,
        recipients: &Recipients,
        left: &mut Range<usize>,
        number: u64,
        draft: &mut Draft<'_>,
        publisher: Option<SessionId>,
        pressure: &mut Pressure,
    ) {
        draft.template.expect(left.len());
        let steps = STEPS_BY_QOS[usize::from(u8::from(draft.content.qos))];
        while let Some(part) = self.router.fan_outs.next_part(left, steps, &mut self.work) {
            for recipient in &recipients.each[part] {
                let Self { router, sessions, work, .. } = self;
                let topic = draft.content.topic;
                if router.is_still_subscribed(recipient, number, topic, sessions, work) {
                    pressure.add(self.deliver_unless_own(recipient, draft, publisher));
                }
            }
        }
    }

    pub(super) fn deliver_batch_part(
        &mut self,
        batch: &EncodedBatch,
        recipients: &Recipients,
        left: &mut Range<usize>,
        number: u64,
        pressure: &mut Pressure,
    ) {
        let topic = if self.router.fan_outs.has_changes() { batch.topic() } else { None };
        while let Some(part) = self.router.fan_outs.next_part(left, 1, &mut self.work) {
            let each = &recipients.each[part];
            let Self { router, sessions, work, .. } = self;
            let is_recipient = |recipient| {
                topic.is_none_or(|topic| {
                    router.is_still_subscribed(recipient, number, topic, sessions, work)
                })
            };
            if each.iter().all(is_recipient) {
                self.deliver_batch_to(batch, each, pressure);
            }
        }
    }
}
