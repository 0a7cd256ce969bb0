//! The fan-outs that continue in later turns, and what waits for their end.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use shards::TopicFilter;

use crate::base::ids::{CoreId, Publisher, SessionId};
use crate::engine::claims::marks::Source;
use crate::engine::connections::Connections;
use crate::engine::draft::Origin;
use crate::engine::durability::qos2_dedup::Qos2Exchange;
use crate::engine::mesh::lanes::Awaited;
use crate::engine::routing::Router;
use crate::engine::routing::congestion::Pressure;
use crate::engine::routing::deliver::COPIES;
use crate::engine::routing::fan_out_batch::EncodedBatch;
use crate::engine::routing::recipients::{Recipient, Recipients};
use crate::engine::work::{TURN_STEPS, Work};
use crate::message::Message;
use crate::resources::gauges::{Charge, Ledger};
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
    /// By other core, the fan-outs that have to end before more of its batches are processed.
    of_lanes: HashMap<CoreId, usize>,
    /// Sessions that have unsubscribed meanwhile, with the number of fan-outs begun by then, and the same in
    /// the order of that number.
    changed: HashMap<SessionId, u64>,
    changes: VecDeque<(u64, SessionId)>,
    /// Places of sessions that have ended meanwhile, with the number of fan-outs begun by then.
    places: VecDeque<(u64, SessionId)>,
    /// The memory of the lists of sessions.
    charge: Charge,
    /// Recipients served in a part: [`PART`], except in tests.
    part: usize,
    /// For tests: each part takes the rest of the turn.
    takes_turns: bool,
}

impl FanOuts {
    /// No fan-out is in progress.
    pub(super) fn new(ledger: &Ledger) -> Self {
        Self {
            line: VecDeque::new(),
            begun: 0,
            ended: 0,
            of_lanes: HashMap::new(),
            changed: HashMap::new(),
            changes: VecDeque::new(),
            places: VecDeque::new(),
            charge: Charge::on(ledger),
            part: PART,
            takes_turns: false,
        }
    }
}

/// The content that is delivered to many recipients.
#[derive(Debug)]
pub(super) enum FanOutContent {
    Message {
        message: Message,
        retain: bool,
        exchange: Option<Qos2Exchange>,
        /// The session that published it, for No Local.
        session: Option<SessionId>,
    },
    Batch(Box<EncodedBatch>),
}

#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) content: FanOutContent,
    pub(super) recipients: Arc<Recipients>,
    /// The recipients that are not served yet.
    pub(super) left: Range<usize>,
    /// The states of the recipients that are.
    pub(super) pressure: Pressure,
    pub(super) publishers: Vec<Publisher>,
    /// The core that forwarded the message.
    pub(super) lane: Option<CoreId>,
    /// Where it was published.
    pub(super) source: Source,
    /// Acknowledgements that wait for the end of this fan-out.
    pub(super) answers: Vec<Awaited>,
    /// The position in the journal at which the fan-out began.
    pub(super) mark: u64,
    /// The message was queued for some recipient.
    pub(super) has_queued: bool,
    /// The number of this fan-out since the start.
    pub(super) number: u64,
    #[expect(dead_code, reason = "it is on the ledger for as long as it lives")]
    pub(super) charge: Charge,
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
            self.settle();
        }
    }

    /// A session has ended. Returns whether a fan-out may still refer to it, which then frees its place.
    pub(in crate::engine) fn keep_place(&mut self, session: SessionId) -> bool {
        if !self.line.is_empty() {
            self.places.push_back((self.begun, session));
            self.settle();
        }
        !self.line.is_empty()
    }

    /// Charges the memory of the lists of sessions.
    fn settle(&mut self) {
        let by_session = self.changed.capacity() * size_of::<(SessionId, u64)>();
        let lists = self.changes.capacity() + self.places.capacity();
        self.charge.update(by_session + lists * size_of::<(u64, SessionId)>());
    }

    /// Frees the memory of the lists of sessions if they are empty.
    pub(super) fn free_lists(&mut self) {
        if self.changes.is_empty() && self.places.is_empty() {
            (self.changed, self.changes) = Default::default();
            self.places = VecDeque::new();
            self.settle();
        }
    }

    /// For tests: each part has at most so many recipients, and takes the rest of the turn.
    pub(super) fn cut(&mut self, recipients: usize) {
        (self.part, self.takes_turns) = (recipients.max(1), true);
    }

    /// Whether sessions have unsubscribed since some fan-out began.
    #[inline]
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Takes the first fan-out off the line, to continue it.
    pub(super) fn take_first(&mut self) -> Option<FanOut> {
        self.line.pop_front()
    }

    /// Puts back a fan-out that is to be continued.
    pub(super) fn put_back(&mut self, first: FanOut) {
        self.line.push_front(first);
    }

    /// Adds a fan-out at the end of the line.
    pub(super) fn begin(&mut self, own: CoreId, mut fan_out: FanOut) {
        for lane in fan_out.lanes(own) {
            *self.of_lanes.entry(lane).or_default() += 1;
        }
        self.begun += 1;
        fan_out.number = self.begun;
        self.line.push_back(fan_out);
    }

    /// A fan-out that was taken off the line has ended.
    pub(super) fn end(&mut self, own: CoreId, fan_out: &FanOut) {
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
    pub(super) fn next_free_place(&mut self) -> Option<SessionId> {
        let ended = self.ended;
        self.places.pop_front_if(|(begun, _)| *begun <= ended).map(|(_, session)| session)
    }

    /// The recipients that are served next, as far as the budget allows; one at a time if their
    /// subscriptions have to be checked. [`COPIES`] of them take so many `steps`.
    pub(super) fn next_part(
        &self,
        left: &mut Range<usize>,
        steps: usize,
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
            false => steps * count / COPIES + 1,
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
    pub(super) fn may_overtake(&self, origin: &Origin, connections: &Connections) -> bool {
        let own = origin.publisher.filter(|publisher| publisher.core == self.place.core());
        let publisher = own.and_then(|publisher| connections.get(publisher.connection));
        publisher.is_some_and(|publisher| publisher.is_held())
            || origin.from.is_some_and(|core| self.fan_outs.blocks(core))
    }

    /// Whether a recipient that has unsubscribed from some filter since fan-out `number` began still has a
    /// subscription that matches the topic.
    #[inline]
    pub(super) fn is_still_subscribed(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fan_out() -> FanOut {
        FanOut {
            content: FanOutContent::Batch(Box::default()),
            recipients: Arc::default(),
            left: 0..0,
            pressure: Pressure::default(),
            publishers: Vec::new(),
            lane: None,
            source: Source::earlier(),
            answers: Vec::new(),
            mark: 0,
            has_queued: false,
            number: 0,
            charge: Charge::default(),
        }
    }

    #[test]
    fn sessions_that_change_during_a_fan_out_are_on_the_ledger_until_it_ends() {
        let ledger = Ledger::default();
        let mut fan_outs = FanOuts::new(&ledger);
        fan_outs.begin(CoreId(0), fan_out());
        for n in 0..1_000 {
            fan_outs.note_unsubscribed(SessionId::new(n));
            fan_outs.keep_place(SessionId::new(1_000 + n));
        }
        let lists = 3 * 1_000 * size_of::<(u64, SessionId)>() as u64;
        assert!(ledger.bytes() >= lists, "{} bytes", ledger.bytes());
        let first = fan_outs.line.pop_front().expect("it has begun");
        fan_outs.end(CoreId(0), &first);
        assert_eq!(std::iter::from_fn(|| fan_outs.next_free_place()).count(), 1_000);
        fan_outs.free_lists();
        assert_eq!(ledger.bytes(), 0);
    }
}
