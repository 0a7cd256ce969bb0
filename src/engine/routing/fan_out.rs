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

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use shards::TopicFilter;

use crate::base::ids::{CoreId, Publisher, SessionId};
use crate::engine::Engine;
use crate::engine::connections::Connections;
use crate::engine::durability::qos2_dedup::Qos2Exchange;
use crate::engine::mesh::lanes::Awaited;
use crate::engine::routing::Router;
use crate::engine::routing::congestion::slow_publisher;
use crate::engine::routing::deliver::{Draft, Origin, Pressure, STEPS_BY_QOS};
use crate::engine::routing::fan_out_batch::EncodedBatch;
use crate::engine::routing::recipients::{Recipient, Recipients};
use crate::engine::work::{TURN_STEPS, Work};
use crate::message::Message;
use crate::resources::gauges::Charge;
use crate::session::table::SessionTable;

/// Recipients served between two checks of the budget. So many are served at once, whatever is left of it.
const PART: usize = 64;

/// Number of filter identifiers that are compared per step of the turn's budget.
const IDENTIFIERS_PER_STEP: usize = 64;

/// The fan-outs of one core that have not ended, in the order in which they began.
#[derive(Debug)]
pub(in crate::engine) struct FanOuts {
    line: VecDeque<FanOut>,
    /// Fan-outs that have begun, and that have ended, since the start.
    begun: u64,
    ended: u64,
    /// A fan-out has begun since the last [`Self::take_new`].
    has_new: bool,
    /// By other core, the fan-outs that have to end before more of its batches are processed.
    of_lanes: HashMap<CoreId, usize>,
    /// Sessions that have unsubscribed meanwhile, with the number of fan-outs begun by then, and the same in
    /// the order of that number.
    changed: HashMap<SessionId, u64>,
    changes: VecDeque<(u64, SessionId)>,
    /// Places of sessions that have ended meanwhile, with the number of fan-outs begun by then.
    places: VecDeque<(u64, SessionId)>,
    /// Recipients served in a part: [`PART`], except in tests.
    part: usize,
    /// For tests: each part takes the rest of the turn.
    takes_turns: bool,
}

impl Default for FanOuts {
    fn default() -> Self {
        Self {
            line: VecDeque::new(),
            begun: 0,
            ended: 0,
            has_new: false,
            of_lanes: HashMap::new(),
            changed: HashMap::new(),
            changes: VecDeque::new(),
            places: VecDeque::new(),
            part: PART,
            takes_turns: false,
        }
    }
}

/// The content that is delivered to many recipients.
#[derive(Debug)]
enum FanOutContent {
    Message {
        message: Message,
        retain: bool,
        once: Option<Qos2Exchange>,
        /// The session that published it, for No Local.
        session: Option<SessionId>,
    },
    Batch(Box<EncodedBatch>),
}

#[derive(Debug)]
struct FanOut {
    content: FanOutContent,
    recipients: Arc<Recipients>,
    /// The recipients that are not served yet.
    left: Range<usize>,
    /// The states of the recipients that are.
    pressure: Pressure,
    publishers: Vec<Publisher>,
    /// The core that forwarded the message.
    lane: Option<CoreId>,
    /// Acknowledgements that wait for the end of this fan-out.
    answers: Vec<Awaited>,
    /// The position in the journal at which the fan-out began.
    mark: u64,
    /// The message was queued for some recipient.
    has_queued: bool,
    /// The number of this fan-out since the start.
    number: u64,
    #[expect(dead_code, reason = "it is on the ledger for as long as it lives")]
    charge: Charge,
}

impl FanOuts {
    /// Whether no fan-out is in progress.
    #[inline]
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Fan-outs that have begun so far.
    pub(in crate::engine) fn begun(&self) -> u64 {
        self.begun
    }

    /// Whether a fan-out has begun since the last call.
    pub(in crate::engine) fn take_new(&mut self) -> bool {
        std::mem::take(&mut self.has_new)
    }

    /// Whether the first `begun` fan-outs have ended.
    pub(in crate::engine) fn have_ended(&self, begun: u64) -> bool {
        self.ended >= begun
    }

    /// Whether the batches of a core have to wait for a fan-out.
    #[inline]
    pub(in crate::engine) fn blocks(&self, lane: CoreId) -> bool {
        !self.line.is_empty() && self.of_lanes.contains_key(&lane)
    }

    /// Lets an acknowledgement wait for the fan-out that began last.
    pub(in crate::engine) fn await_last(&mut self, awaited: Awaited) {
        if let Some(last) = self.line.back_mut() {
            last.answers.push(awaited);
        }
    }

    /// Whether so many recipients are served at once, whatever is left of the budget.
    #[inline]
    pub(in crate::engine) fn are_few(&self, subscribers: usize) -> bool {
        subscribers <= self.part
    }

    /// A session has unsubscribed from a filter.
    #[inline]
    pub(in crate::engine) fn note_unsubscribed(&mut self, session: SessionId) {
        if !self.line.is_empty() && self.changed.insert(session, self.begun) != Some(self.begun) {
            self.changes.push_back((self.begun, session));
        }
    }

    /// A session has ended. Returns whether a fan-out may still refer to it, which then frees its place.
    pub(in crate::engine) fn keep_place(&mut self, session: SessionId) -> bool {
        if !self.line.is_empty() {
            self.places.push_back((self.begun, session));
        }
        !self.line.is_empty()
    }

    /// Adds a fan-out at the end of the line.
    fn begin(&mut self, own: CoreId, mut fan_out: FanOut) {
        for lane in fan_out.lanes(own) {
            *self.of_lanes.entry(lane).or_default() += 1;
        }
        self.begun += 1;
        self.has_new = true;
        fan_out.number = self.begun;
        self.line.push_back(fan_out);
    }

    /// A fan-out that was taken off the line has ended.
    fn end(&mut self, own: CoreId, fan_out: &FanOut) {
        self.ended += 1;
        let ended = self.ended;
        while let Some((begun, session)) = self.changes.pop_front_if(|(begun, _)| *begun <= ended) {
            if self.changed.get(&session) == Some(&begun) {
                self.changed.remove(&session);
            }
        }
        for lane in fan_out.lanes(own) {
            let count = self.of_lanes.get_mut(&lane).expect("counted when it began");
            *count -= 1;
            if *count == 0 {
                self.of_lanes.remove(&lane);
            }
        }
    }

    /// The next ended session to which no fan-out refers any more.
    fn next_free_place(&mut self) -> Option<SessionId> {
        let ended = self.ended;
        self.places.pop_front_if(|(begun, _)| *begun <= ended).map(|(_, session)| session)
    }

    /// The recipients that are served next, as far as the budget allows; one at a time if their
    /// subscriptions have to be checked.
    fn next_part(
        &self,
        left: &mut Range<usize>,
        steps_for_two: usize,
        work: &mut Work,
    ) -> Option<Range<usize>> {
        if left.start >= left.end || work.is_spent() {
            return None;
        }
        let part = if self.changed.is_empty() { self.part } else { 1 };
        let count = part.min(left.len());
        let part = left.start..left.start + count;
        left.start = part.end;
        work.spend(match self.takes_turns {
            true => TURN_STEPS as usize,
            false => steps_for_two * count / 2 + 1,
        });
        Some(part)
    }
}

impl FanOut {
    /// The other cores whose batches wait for this fan-out.
    fn lanes(&self, own: CoreId) -> impl Iterator<Item = CoreId> + use<'_> {
        let publishers = self.publishers.iter().map(|publisher| publisher.core);
        publishers.chain(self.lane).filter(move |&lane| lane != own)
    }
}

impl Router {
    /// Whether a message may have to be delivered in parts.
    #[inline]
    pub(super) fn may_need_parts(&self, recipients: usize) -> bool {
        !self.fan_outs.are_few(recipients) || !self.fan_outs.is_empty()
    }

    /// Whether an earlier message of the same publisher may be in a fan-out: then the publisher is not read,
    /// or the lane that the message came by is blocked.
    fn may_overtake(&self, origin: &Origin, connections: &Connections) -> bool {
        let own = origin.publisher.filter(|publisher| publisher.core == self.place.core());
        let publisher = own.and_then(|publisher| connections.get(publisher.connection));
        publisher.is_some_and(|publisher| publisher.is_held())
            || origin.from.is_some_and(|core| self.fan_outs.blocks(core))
    }

    /// Whether a recipient that has unsubscribed from some filter since fan-out `number` began still has a
    /// subscription that matches the topic.
    #[inline]
    fn is_still_subscribed(
        &self,
        recipient: &Recipient,
        number: u64,
        topic: &str,
        sessions: &SessionTable,
        work: &mut Work,
    ) -> bool {
        let changed = self.fan_outs.changed.get(&recipient.session);
        if changed.is_none_or(|&begun| begun < number) {
            return true;
        }
        let subscriber = recipient.session.into();
        let exact = self.index.find(topic);
        if exact.is_some_and(|filter| self.index.get(filter, subscriber).is_some()) {
            return true;
        }
        let subscriptions = &sessions[recipient.session].subscriptions;
        work.spend(subscriptions.len() / IDENTIFIERS_PER_STEP);
        let mut wildcards =
            subscriptions.iter().filter(|filter| filter.has_wildcard() && !filter.is_shared());
        wildcards.any(|&filter| {
            work.spend(1);
            let text = self.index.text(filter);
            TopicFilter::parse(&text, usize::MAX).is_ok_and(|filter| filter.matches(topic))
        })
    }
}

impl Engine {
    /// For tests: delivers each message to at most so many recipients per turn.
    #[doc(hidden)]
    pub fn cut_fan_outs(&mut self, subscribers: usize) {
        (self.router.fan_outs.part, self.router.fan_outs.takes_turns) = (subscribers.max(1), true);
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
            message: draft.message(self.place.ledger()).clone(),
            retain: draft.retain,
            once: draft.once,
            session: origin.session,
        };
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
        let own = self.core();
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
        charge.set(self.place.ledger(), bytes);
        let fan_out = FanOut {
            content,
            recipients: Arc::clone(recipients),
            left,
            pressure,
            publishers,
            lane,
            answers: Vec::new(),
            mark,
            has_queued: self.router.has_queued,
            number: 0,
            charge,
        };
        self.router.fan_outs.begin(own, fan_out);
    }

    fn deliver_part(
        &mut self,
        recipients: &Recipients,
        left: &mut Range<usize>,
        number: u64,
        draft: &mut Draft<'_>,
        publisher: Option<SessionId>,
        pressure: &mut Pressure,
    ) {
        draft.template.expect(left.len());
        let steps_for_two = 2 * STEPS_BY_QOS[usize::from(u8::from(draft.content.qos))];
        while let Some(part) = self.router.fan_outs.next_part(left, steps_for_two, &mut self.work) {
            for recipient in &recipients.each[part] {
                let Self { router, sessions, work, .. } = self;
                let topic = draft.content.topic;
                if router.is_still_subscribed(recipient, number, topic, sessions, work) {
                    pressure.add(self.deliver_unless_own(recipient, draft, publisher));
                }
            }
        }
    }

    fn deliver_batch_part(
        &mut self,
        batch: &EncodedBatch,
        recipients: &Recipients,
        left: &mut Range<usize>,
        number: u64,
        pressure: &mut Pressure,
    ) {
        let topic = if self.router.fan_outs.changed.is_empty() { None } else { batch.topic() };
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

    /// Continues the first fan-out; false if there is none, or the budget is spent.
    pub(in crate::engine) fn continue_fan_outs(&mut self) -> bool {
        if self.work.is_spent() {
            return false;
        }
        let Some(mut first) = self.router.fan_outs.line.pop_front() else { return false };
        // Half of the budget: the other half is for connections that wait.
        self.work.begin_share(2);
        self.continue_fan_out(&mut first);
        let goes_on = !self.work.is_spent();
        self.work.end_share();
        match first.left.is_empty() {
            true => self.end_fan_out(first),
            false => self.router.fan_outs.line.push_front(first),
        }
        goes_on
    }

    fn continue_fan_out(&mut self, of: &mut FanOut) {
        self.router.has_queued = of.has_queued;
        match &of.content {
            FanOutContent::Message { message, retain, once, session } => {
                let mut draft = Draft::of(message, message.content(), *retain);
                draft.once = *once;
                let (left, pressure) = (&mut of.left, &mut of.pressure);
                self.deliver_part(&of.recipients, left, of.number, &mut draft, *session, pressure);
            }
            FanOutContent::Batch(batch) => {
                self.deliver_batch_part(
                    batch,
                    &of.recipients,
                    &mut of.left,
                    of.number,
                    &mut of.pressure,
                );
            }
        }
        of.has_queued = self.router.has_queued;
    }

    /// All recipients have the message: acknowledgements and publishers that waited continue.
    fn end_fan_out(&mut self, of: FanOut) {
        let own = self.core();
        self.router.fan_outs.end(own, &of);
        while let Some(session) = self.router.fan_outs.next_free_place() {
            self.sessions.remove(session);
        }
        let batch = self.durability.batch_since(of.mark);
        for awaited in of.answers {
            match batch {
                Some(batch) => self.durability.await_stored(batch, awaited),
                None => self.note_awaited(awaited),
            }
        }
        let rests = of.has_queued && self.memory_is_full();
        for &publisher in &of.publishers {
            if publisher.core == own {
                self.connections.resume_reading(publisher.connection, self.now);
                if rests {
                    self.connections.rest_for_memory(
                        publisher.connection,
                        &mut self.timers,
                        self.now,
                    );
                }
                self.pause_for_store(publisher.connection, of.mark);
            }
            slow_publisher(Some(publisher), &of.pressure, &mut self.connections, &mut self.mesh);
        }
        if let FanOutContent::Batch(batch) = of.content {
            self.router.batch.take_back(*batch);
        }
        self.durability.end_forwarded_wills(&self.mesh, &self.router.fan_outs);
    }

    /// The broker stops: ends all fan-outs at once.
    pub(in crate::engine) fn finish_fan_outs(&mut self) {
        while let Some(mut first) = self.router.fan_outs.line.pop_front() {
            while !first.left.is_empty() {
                self.work.end_turn();
                self.continue_fan_out(&mut first);
            }
            self.end_fan_out(first);
        }
    }
}
