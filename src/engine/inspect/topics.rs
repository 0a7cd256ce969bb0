//! Topics: who receives a message, and retained messages.

use std::collections::VecDeque;

use shards::{Cursor, FilterId, ScanState, ScanStep, TopicFilter};

use crate::base::clock::Now;
use crate::base::ids::CoreId;
use crate::base::limits;
use crate::control::Reply;
use crate::control::answer::{
    Cleared, QueuedMessage, RecipientsOfTopic, RetainedMessage, RetainedPage, Text, Texts,
};
use crate::engine::inspect::{Progress, Slice, Slices, page_bytes};
use crate::engine::retained::{Stored, core_of};
use crate::engine::{Engine, sys_topics};
use crate::message::{Content, Message};
use crate::wire::ForwardedProperties;

/// Visited levels of the tree of retained messages that count as much as one message that is looked at.
const LEVELS_PER_LOOK: usize = 2;

/// The subscriptions of this core that match a topic.
#[derive(Debug)]
pub(super) struct RecipientListing {
    topic: Box<str>,
    filters: VecDeque<FilterId>,
    /// How many members of the first filter have been looked at.
    members: usize,
    limit: usize,
    answer: RecipientsOfTopic,
    texts: Texts,
    bytes: usize,
    reply: Reply<RecipientsOfTopic>,
}

impl RecipientListing {
    pub(super) fn new(
        topic: Box<str>,
        filters: VecDeque<FilterId>,
        limit: usize,
        reply: Reply<RecipientsOfTopic>,
    ) -> Self {
        let limit = limit.min(limits::PAGE_ENTRIES_MAX);
        let (answer, texts) = Default::default();
        Self { topic, filters, members: 0, limit, answer, texts, bytes: 0, reply }
    }

    /// Adds members of a filter; returns false when the slice is spent before the last one.
    fn add_members(
        &mut self,
        engine: &mut Engine,
        filter: FilterId,
        text: &str,
        slice: &mut Slice,
    ) -> bool {
        while let Some(&subscription) = engine.router.index().members(filter).get(self.members)
            && self.answer.subscriptions.len() < self.limit
            && self.bytes < limits::PAGE_BYTES_MAX
        {
            if slice.is_spent() {
                return false;
            }
            self.members += 1;
            slice.look();
            let session = subscription.subscriber.into();
            if engine.sessions.get(session).is_some_and(|state| !state.is_over())
                && engine.receives(session, &subscription, &self.topic)
            {
                let texts = &mut self.texts;
                let entry = engine.subscription_entry(session, text, &subscription, texts);
                self.bytes += entry.bytes();
                slice.add(entry.bytes());
                self.answer.subscriptions.push(entry);
            }
        }
        true
    }
}

impl Slices for RecipientListing {
    fn is_awaited(&self) -> Option<bool> {
        Some(self.reply.is_awaited())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.filters.capacity() * size_of::<FilterId>() + self.bytes
    }

    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress {
        while let Some(&filter) = self.filters.front() {
            if slice.is_spent() {
                return Progress::More;
            }
            slice.look();
            let text = engine.router.index().text(filter);
            // In an earlier turn this may have been the number of another filter.
            let parsed = TopicFilter::parse(&text, usize::MAX);
            if parsed.is_ok_and(|filter| filter.matches(&self.topic)) {
                if !self.add_members(engine, filter, &text, slice) {
                    return Progress::More;
                }
                self.answer.filters_total += 1;
                self.answer.subscriptions_total +=
                    engine.router.index().members(filter).len() as u64;
            }
            self.members = 0;
            self.filters.pop_front();
        }
        Progress::Done
    }

    fn answer(self: Box<Self>, _is_complete: bool) {
        let Self { answer, reply, .. } = *self;
        reply.send(answer);
    }
}

/// A page of retained messages.
#[derive(Debug)]
pub(super) struct RetainedListing {
    filter: Box<str>,
    cursor: Cursor,
    limit: usize,
    page: RetainedPage,
    texts: Texts,
    bytes: usize,
    reply: Reply<RetainedPage>,
}

impl RetainedListing {
    pub(super) fn new(
        filter: Box<str>,
        from: Option<Box<str>>,
        limit: usize,
        reply: Reply<RetainedPage>,
    ) -> Self {
        let limit = limit.clamp(1, limits::PAGE_ENTRIES_MAX);
        let messages = Vec::with_capacity(limit);
        Self {
            filter,
            cursor: from.as_deref().map_or_else(Cursor::default, Cursor::at),
            limit,
            page: RetainedPage { messages, next: from, retained: 0 },
            texts: Texts::default(),
            bytes: 0,
            reply,
        }
    }
}

impl Slices for RetainedListing {
    fn is_awaited(&self) -> Option<bool> {
        Some(self.reply.is_awaited())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.filter.len() + page_bytes(&self.page.messages, self.bytes)
    }

    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress {
        let Self { filter, cursor, limit, page, texts, bytes, .. } = self;
        let (now, levels_max) = (engine.now, slice.looks() * LEVELS_PER_LOOK);
        let mut is_full = false;
        let state = engine.retained.list(filter, cursor, levels_max, &mut |topic, stored| {
            let Some(message) = &stored.message else { return ScanStep::Next };
            is_full = page.messages.len() == *limit || *bytes >= limits::PAGE_BYTES_MAX;
            if is_full || slice.is_spent() {
                return ScanStep::StopBefore;
            }
            slice.look();
            let entry = retained_entry(texts.copy(topic), message, now);
            *bytes += entry.bytes();
            slice.add(entry.bytes());
            page.messages.push(entry);
            ScanStep::Next
        });
        page.next = cursor.topic().map(Into::into);
        page.retained = engine.retained.messages();
        match state {
            ScanState::More if !is_full => {
                slice.end();
                Progress::More
            }
            _ => Progress::Done,
        }
    }

    fn answer(self: Box<Self>, _is_complete: bool) {
        let Self { page, reply, .. } = *self;
        reply.send(page);
    }
}

fn retained_entry(topic: Text, message: &Message, now: Now) -> QueuedMessage {
    let content = message.content();
    QueuedMessage {
        topic,
        qos: content.qos.into(),
        retain: true,
        payload_bytes: content.payload.len() as u64,
        payload: None,
        expires_in_s: content.expires.map(|expires| expires.seconds_left(now)),
    }
}

/// Removes retained messages.
#[derive(Debug)]
pub(super) struct Clearing {
    filter: Box<str>,
    cursor: Cursor,
    left: u64,
    cleared: Cleared,
    /// All matching messages have been removed: the answer waits until the other cores and the store know.
    barriers: Option<Vec<(CoreId, u64)>>,
    /// The mark of the journal at the beginning, and the batch that must be stored.
    mark: u64,
    batch: Option<u64>,
    reply: Reply<Cleared>,
}

impl Clearing {
    pub(super) fn new(filter: Box<str>, left: u64, mark: u64, reply: Reply<Cleared>) -> Self {
        let (cursor, cleared) = (Cursor::default(), Cleared::default());
        Self { filter, cursor, left, cleared, barriers: None, mark, batch: None, reply }
    }
}

impl Slices for Clearing {
    fn is_awaited(&self) -> Option<bool> {
        Some(self.reply.is_awaited())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.filter.len()
    }

    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress {
        if self.barriers.is_some() {
            return if self.can_continue(engine) { Progress::Done } else { Progress::Waits };
        }
        if engine.is_loaded_for_operators() {
            return Progress::Waits;
        }
        let mut topics: Vec<Box<str>> = Vec::new();
        let (left, levels_max) = (self.left, slice.looks() * LEVELS_PER_LOOK);
        let Self { filter, cursor, .. } = self;
        let state = engine.retained.list(filter, cursor, levels_max, &mut |topic, stored| {
            if stored.message.is_none() || sys_topics::is_ours(topic) {
                return ScanStep::Next;
            }
            if topics.len() as u64 == left || slice.is_spent() {
                return ScanStep::StopBefore;
            }
            slice.look();
            slice.act();
            topics.push(topic.into());
            ScanStep::Next
        });
        for (number, topic) in topics.iter().enumerate() {
            if number > 0 && engine.work.is_spent() {
                self.cursor = Cursor::at(topic);
                break;
            }
            engine.clear_retained(topic);
            self.cleared.messages += 1;
            self.left -= 1;
        }
        let is_end = state == ScanState::Done && self.cursor.is_at_end();
        if !is_end && self.left > 0 {
            slice.end();
            return Progress::More;
        }
        self.cleared.is_complete = is_end;
        self.barriers = Some(engine.mesh.barriers());
        self.batch = engine.durability.batch_since(self.mark);
        engine.durability.flush_soon();
        if self.can_continue(engine) { Progress::Done } else { Progress::Waits }
    }

    fn can_continue(&self, engine: &Engine) -> bool {
        match &self.barriers {
            Some(barriers) => {
                engine.mesh.are_receipted(barriers)
                    && self.batch.is_none_or(|batch| engine.durability.is_stored(batch))
            }
            None => !engine.is_loaded_for_operators(),
        }
    }

    fn answer(self: Box<Self>, is_complete: bool) {
        let Self { mut cleared, reply, .. } = *self;
        cleared.is_complete &= is_complete;
        reply.send(cleared);
    }
}

impl Engine {
    /// The filters of this core's subscriptions that match a topic.
    pub(super) fn filters_of(&mut self, topic: &str) -> VecDeque<FilterId> {
        let filters = self.router.index().matching_filters(topic);
        self.work.spend(filters.len() / 8 + shards::levels(topic));
        filters.into()
    }

    /// How many clients of this core a message to a topic reaches, without shared subscriptions.
    pub(super) fn count_recipients(&mut self, topic: &str) -> u64 {
        self.router.recipients(topic, &self.sessions, &mut self.work).each.len() as u64
    }

    /// The retained message of a topic.
    pub(super) fn retained_message(&mut self, topic: &str) -> Option<RetainedMessage> {
        let Stored { stamp, message } = self.retained.stored(topic)?;
        let message = message.as_ref()?;
        let content = message.content();
        let properties = ForwardedProperties::decode(content.passed_on);
        self.work.spend_bytes(content.payload.len());
        let pairs = properties.user_properties.iter();
        Some(RetainedMessage {
            core: core_of(*stamp) as u16,
            content_type: properties.content_type.map(str::to_owned),
            response_topic: properties.response_topic.map(str::to_owned),
            user_properties: pairs.map(|(n, value)| (n.to_owned(), value.to_owned())).collect(),
            message: QueuedMessage {
                payload: Some(content.payload.to_vec()),
                ..retained_entry(topic.into(), message, self.now)
            },
        })
    }

    /// Removes the retained message of a topic as a client does: by an empty message, which subscribers receive.
    fn clear_retained(&mut self, topic: &str) {
        let passed_on = &[];
        let qos = crate::wire::Qos::AtMostOnce;
        let content = Content { topic, payload: &[], passed_on, expires: None, qos };
        // An empty payload needs no room.
        if let Ok(stored) = self.retain(&content, None) {
            self.route(&content, &Default::default(), true, Some(&stored));
        }
    }

    /// Whether so much is on its way to another core or the store that commands of operators wait.
    fn is_loaded_for_operators(&self) -> bool {
        self.mesh.others().any(|core| self.mesh.is_loaded(core)) || self.durability.is_loaded()
    }
}
