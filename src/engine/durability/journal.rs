//! The journal of one core: records are collected turn by turn and handed over as batches, and answers
//! and connections wait until a batch is stored. Knows no file, and not how a batch is stored.
//!
//! While the store writes one batch, the next one collects records, so that one synchronisation of the
//! disk serves them all (group commit). A delivery that is acknowledged before its batch is handed over
//! is removed from the batch again: such a message is never written.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::{ConnectionId, CoreId};
use crate::base::limits;
use crate::engine::durability::checkpoint_part::CheckpointPart;
use crate::engine::mesh::lanes::Awaited;
use crate::message::{self, Message};
use crate::session::outbound::{Delivery, Outbound};
use crate::storage::commit::{JournalConfig, RecordBatch, RecordMark, RecordRef, StoreState};
use crate::storage::record::{Content, Record, SessionNumber, checkpoint_content};

/// A record in the open batch.
#[derive(Clone, Copy, Debug)]
struct Entry {
    end: u32,
    /// For a delivery, the place of its [`Record::Content`] in the batch, or [`NO_CONTENT`].
    content: u32,
    /// For a content, the deliveries that use it; for other records 1. A record with 0 is not written.
    uses: u32,
}

const NO_CONTENT: u32 = u32::MAX;

/// Messages of the deliveries that a checkpoint logs: each message is logged once, after all sessions.
#[derive(Debug, Default)]
struct SharedContents {
    /// Whether the deliveries logged now are those of a checkpoint.
    is_on: bool,
    /// Messages with their numbers, by address. An entry keeps its message alive, so that no other
    /// message can have the same address. Many small tables, of which one at a time grows or is freed; none while no
    /// checkpoint logs sessions.
    numbers: Vec<HashMap<usize, (Message, u64)>>,
    /// Messages that have not been logged yet.
    pending: VecDeque<(Message, u64)>,
    /// The number of messages since the process began.
    count: u64,
}

/// Tables of [`SharedContents::numbers`].
const NUMBER_TABLES: usize = 256;

/// The records of one core.
#[derive(Debug)]
pub(in crate::engine) struct Journal {
    core: CoreId,
    config: JournalConfig,
    open: Vec<u8>,
    entries: Vec<Entry>,
    /// The number of entries that will be written.
    live: usize,
    /// Whether the open batch is handed over as soon as possible. A batch of ends of deliveries is not
    /// urgent: nothing waits for them, and fewer synchronisations wear the disk less.
    is_urgent: bool,
    /// The number of the open batch.
    number: u64,
    /// The number of records so far.
    written: u64,
    stored: StoreState,
    /// The last content and its place in this batch: the deliveries of a message to many subscribers
    /// follow each other.
    content: Option<(Message, u32)>,
    shared: SharedContents,
    /// The session that a checkpoint is logging.
    rewriting: Option<SessionNumber>,
    /// Batches handed over and not stored yet, with their bytes, and the sum of these bytes.
    under_way: VecDeque<(u64, usize)>,
    under_way_bytes: usize,
    /// Waiting answers and connections, with the batch that they wait for, in ascending order.
    answers: VecDeque<(u64, Awaited)>,
    connections: VecDeque<(u64, ConnectionId)>,
    /// Publishers that are not read until more is stored.
    publishers: VecDeque<ConnectionId>,
    next_delivery: u64,
    /// The number of the last checkpoint that has been logged completely.
    checkpoint: u64,
    /// The number of the last checkpoint that was handed over with a batch.
    checkpoint_handed_over: u64,
}

/// What has waited for the store and continues.
#[derive(Debug)]
pub(in crate::engine) enum ToContinue {
    /// An answer is sent.
    Answer(Awaited),
    /// A connection's output is sent.
    Connection(ConnectionId),
    /// A publisher is read again.
    Publisher(ConnectionId),
}

impl Journal {
    pub(in crate::engine) fn new(config: JournalConfig, core: CoreId) -> Self {
        Self {
            core,
            config,
            open: Vec::new(),
            entries: Vec::new(),
            live: 0,
            is_urgent: false,
            number: 1,
            written: 0,
            stored: StoreState::default(),
            content: None,
            shared: SharedContents::default(),
            rewriting: None,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            answers: VecDeque::new(),
            connections: VecDeque::new(),
            publishers: VecDeque::new(),
            next_delivery: 1,
            checkpoint: 0,
            checkpoint_handed_over: 0,
        }
    }

    /// Whether acknowledgements wait until records are on disk.
    #[inline]
    pub(in crate::engine) fn waits(&self) -> bool {
        self.config.waits
    }

    /// Numbers new deliveries from `number` on.
    pub(in crate::engine) fn begin_deliveries_at(&mut self, number: u64) {
        self.next_delivery = self.next_delivery.max(number);
    }

    /// The number of records so far: a mark for [`Self::batch_since`].
    #[inline]
    pub(in crate::engine) fn written(&self) -> u64 {
        self.written
    }

    /// The batch to wait for when records were written since `mark`, in this turn or an earlier one;
    /// none when there are no such records, all are stored, or acknowledgements do not wait.
    pub(in crate::engine) fn batch_since(&self, mark: u64) -> Option<u64> {
        if self.written <= mark || !self.waits() {
            return None;
        }
        let last = self.number - u64::from(self.entries.is_empty());
        (last > self.stored.up_to).then_some(last)
    }

    /// The batch to wait for all records so far; none when all are stored.
    pub(in crate::engine) fn batch_of_all(&self) -> Option<u64> {
        let last = if self.live > 0 { self.number } else { self.number - 1 };
        (self.waits() && last > self.stored.up_to).then_some(last)
    }

    /// The number of the open batch.
    pub(in crate::engine) fn number(&self) -> u64 {
        self.number
    }

    /// Whether a batch is stored.
    pub(in crate::engine) fn has(&self, batch: u64) -> bool {
        !self.waits() || batch <= self.stored.up_to
    }

    /// The last batch that is stored; the highest number when acknowledgements do not wait.
    pub(in crate::engine) fn stored_up_to(&self) -> u64 {
        if self.waits() { self.stored.up_to } else { u64::MAX }
    }

    /// Whether the backlog is so large, or the store so full, that publishers should wait.
    pub(in crate::engine) fn is_loaded(&self) -> bool {
        self.open.len() + self.under_way_bytes >= limits::JOURNAL_BYTES_MAX || self.stored.is_full
    }

    /// Whether the backlog is larger than publishers alone can have made it.
    pub(in crate::engine) fn is_far_behind(&self) -> bool {
        self.open.len() + self.under_way_bytes >= limits::JOURNAL_BYTES_FAR
    }

    /// Whether the store cannot write at present.
    pub(in crate::engine) fn is_failing(&self) -> bool {
        self.stored.is_failing
    }

    /// The size of the open batch.
    pub(in crate::engine) fn bytes(&self) -> usize {
        self.open.len()
    }

    /// The time of day of a deadline, in microseconds since 1970.
    pub(in crate::engine) fn wall_us(&self, at: Deadline) -> u64 {
        self.config.wall_at_zero_us.saturating_add(at.us())
    }

    /// The time of day, in microseconds since 1970.
    pub(in crate::engine) fn now_us(&self, now: Now) -> u64 {
        self.config.wall_at_zero_us.saturating_add(now.0)
    }

    /// The deadline at a time of day; a time that has passed is due at once.
    pub(in crate::engine) fn deadline(&self, wall_us: u64) -> Deadline {
        Deadline::at_us(wall_us.saturating_sub(self.config.wall_at_zero_us))
    }

    /// The content of a message, as records have it.
    pub(in crate::engine) fn content<'a>(&self, content: &message::Content<'a>) -> Content<'a> {
        Content {
            topic: content.topic,
            payload: content.payload,
            passed_on: content.passed_on,
            expires_us: content.expires.map(|at| self.wall_us(at)),
            qos: content.qos.into(),
        }
    }

    /// Adds a record to the open batch.
    pub(in crate::engine) fn write(&mut self, record: &Record<'_>) {
        self.enter(record, NO_CONTENT, 1);
    }

    fn enter(&mut self, record: &Record<'_>, content: u32, uses: u32) -> u32 {
        self.is_urgent |= !matches!(record, Record::Done { .. }) || self.stored.is_full;
        record.encode(&mut self.open);
        let place = self.entries.len() as u32;
        self.entries.push(Entry { end: self.open.len() as u32, content, uses });
        self.live += usize::from(uses > 0);
        self.written += 1;
        place
    }

    /// Adds a delivery, and its message when the batch does not have it yet. `packet_identifier` is 0
    /// while the message is queued.
    pub(in crate::engine) fn write_delivery(
        &mut self,
        session: SessionNumber,
        delivery: &Delivery,
        packet_identifier: u16,
        shared: Option<&str>,
    ) -> RecordRef {
        let (content, place) = match self.shared.is_on {
            true => (self.shared_number(&delivery.message), NO_CONTENT),
            false => {
                let place = self.write_content(&delivery.message);
                (u64::from(place), place)
            }
        };
        let number = match delivery.record.number {
            0 => self.number_delivery(),
            number => number,
        };
        let (qos, retain) = (delivery.qos.into(), delivery.retain);
        let identifiers = delivery.subscription_identifiers.as_slice().into();
        let delivery = number;
        let record = match self.shared.is_on {
            true => Record::Requeued {
                session,
                delivery,
                content,
                qos,
                retain,
                packet_identifier,
                shared,
                identifiers,
            },
            false => Record::Queued {
                session,
                delivery,
                content,
                qos,
                retain,
                packet_identifier,
                shared,
                identifiers,
            },
        };
        if place != NO_CONTENT {
            self.entries[place as usize].uses += 1;
            self.live += usize::from(self.entries[place as usize].uses == 1);
        }
        let place = self.enter(&record, place, 1);
        RecordRef { number, batch: self.number as u32, place }
    }

    /// The number of a new delivery.
    #[inline]
    pub(in crate::engine) fn number_delivery(&mut self) -> u64 {
        self.next_delivery += 1;
        self.next_delivery - 1
    }

    /// Whether the deliveries from here on are those of a checkpoint, which share their contents across
    /// batches.
    pub(in crate::engine) fn share_contents(&mut self, is_on: bool) {
        self.shared.is_on = is_on;
    }

    /// A checkpoint begins to log a session; where its records begin.
    pub(in crate::engine) fn begin_rewrite(
        &mut self,
        session: SessionNumber,
        client_identifier: &str,
        expiry_interval_s: u32,
    ) -> RecordMark {
        self.rewriting = Some(session);
        self.write(&Record::Rewrite { session, client_identifier, expiry_interval_s });
        RecordMark { batch: self.number as u32, place: self.entries.len() as u32 }
    }

    /// The checkpoint has logged the session completely.
    pub(in crate::engine) fn end_rewrite(&mut self) {
        if let Some(session) = self.rewriting.take() {
            self.write(&Record::Rewritten { session });
        }
    }

    /// The session that a checkpoint was logging has ended.
    pub(in crate::engine) fn abandon_rewrite(&mut self) {
        self.rewriting = None;
    }

    /// The number of a content that a checkpoint logs once.
    fn shared_number(&mut self, message: &Message) -> u64 {
        let SharedContents { numbers, pending, count, .. } = &mut self.shared;
        if numbers.is_empty() {
            numbers.resize_with(NUMBER_TABLES, HashMap::new);
        }
        let address = message.address();
        let table = &mut numbers[address / align_of::<u64>() / 8 % NUMBER_TABLES];
        let (_, number) = table.entry(address).or_insert_with(|| {
            *count += 1;
            let number = checkpoint_content(self.core.0, *count);
            pending.push_back((message.clone(), number));
            (message.clone(), number)
        });
        *number
    }

    /// A checkpoint has logged all sessions: adds the contents of their deliveries; whether that was all.
    pub(super) fn write_shared_contents(&mut self, part: &mut CheckpointPart) -> bool {
        while !part.is_full(self)
            && let Some(table) = self.shared.numbers.pop()
        {
            part.look_at(table.len());
        }
        while !part.is_full(self)
            && let Some((message, number)) = self.shared.pending.pop_front()
        {
            let content = self.content(&message.content());
            self.enter(&Record::Content { number, content }, NO_CONTENT, 1);
        }
        self.shared.numbers.is_empty() && self.shared.pending.is_empty()
    }

    fn write_content(&mut self, message: &Message) -> u32 {
        let address = message.address();
        let last = self.content.as_ref().filter(|(last, _)| last.address() == address);
        if let Some(&(_, place)) = last {
            return place;
        }
        let place = self.entries.len() as u32;
        let content = self.content(&message.content());
        self.enter(&Record::Content { number: place.into(), content }, NO_CONTENT, 0);
        self.content = Some((message.clone(), place));
        place
    }

    /// A delivery has ended. A record of it that is still in the open batch is removed, unless a checkpoint has logged
    /// only a part of its session: then an earlier record counts if the process ends there.
    pub(in crate::engine) fn end_delivery(&mut self, session: SessionNumber, record: RecordRef) {
        if record.number == 0 {
            return;
        }
        if record.batch != self.number as u32 || self.rewriting == Some(session) {
            return self.write(&Record::Done { session, delivery: record.number });
        }
        let entry = &mut self.entries[record.place as usize];
        if entry.uses == 0 {
            return;
        }
        entry.uses = 0;
        self.live -= 1;
        let content = entry.content;
        if content != NO_CONTENT {
            let content = &mut self.entries[content as usize];
            content.uses -= 1;
            self.live -= usize::from(content.uses == 0);
        }
    }

    /// Ends the deliveries of a queue that have ended since the last call.
    pub(in crate::engine) fn end_deliveries(
        &mut self,
        session: Option<SessionNumber>,
        outbound: &mut Outbound,
    ) {
        while let Some(record) = outbound.pop_gone() {
            if let Some(session) = session {
                self.end_delivery(session, record);
            }
        }
    }

    /// An answer waits for a batch.
    pub(in crate::engine) fn await_batch(&mut self, batch: u64, awaited: Awaited) {
        self.is_urgent |= batch == self.number;
        self.answers.push_back((batch, awaited));
    }

    /// A connection waits for a batch.
    pub(in crate::engine) fn wait(&mut self, batch: u64, connection: ConnectionId) {
        self.is_urgent |= batch == self.number;
        if self.connections.back() != Some(&(batch, connection)) {
            self.connections.push_back((batch, connection));
        }
    }

    /// Takes the store's state. True when more batches of this core are stored.
    pub(in crate::engine) fn note_stored(&mut self, stored: StoreState) -> bool {
        let is_more = stored.up_to > self.stored.up_to;
        self.stored = stored;
        self.config.wall_at_zero_us = self.config.wall_at_zero_us.max(stored.wall_at_zero_us);
        while let Some((_, bytes)) =
            self.under_way.pop_front_if(|&mut (number, _)| number <= stored.up_to)
        {
            self.under_way_bytes -= bytes;
        }
        is_more
    }

    /// Lets a publisher wait until the backlog is small enough.
    pub(in crate::engine) fn await_room(&mut self, publisher: ConnectionId) {
        self.publishers.push_back(publisher);
    }

    /// What has waited for the store the longest and need not wait any more: batch by batch, answers before
    /// connections; then publishers.
    pub(in crate::engine) fn next_to_continue(&mut self) -> Option<ToContinue> {
        let up_to = self.stored.up_to;
        let connection = self.connections.front().map_or(u64::MAX, |&(batch, _)| batch);
        let answer_max = up_to.min(connection);
        if let Some((_, awaited)) = self.answers.pop_front_if(|&mut (batch, _)| batch <= answer_max)
        {
            return Some(ToContinue::Answer(awaited));
        }
        if connection <= up_to {
            return self.connections.pop_front().map(|(_, id)| ToContinue::Connection(id));
        }
        let publisher = if self.is_loaded() { None } else { self.publishers.pop_front() };
        publisher.map(ToContinue::Publisher)
    }

    /// The number of a checkpoint that the store has asked for and that is not logged yet.
    pub(in crate::engine) fn checkpoint_due(&self) -> Option<u64> {
        (self.stored.checkpoint > self.checkpoint).then_some(self.stored.checkpoint)
    }

    /// A checkpoint has been logged completely.
    pub(in crate::engine) fn end_checkpoint(&mut self, checkpoint: u64) {
        self.checkpoint = checkpoint;
    }

    /// Whether to hand the open batch over: the store has finished the last one, or the open batch is
    /// large.
    pub(in crate::engine) fn has_batch(&self) -> bool {
        let is_idle = self.stored.up_to + 1 == self.number;
        let is_much = self.open.len() >= limits::JOURNAL_BATCH_BYTES
            && self.under_way_bytes < limits::JOURNAL_BYTES_MAX;
        // A batch whose records were all removed is handed over too: an answer may wait for it.
        let is_wanted = !self.entries.is_empty() && self.is_urgent
            || self.checkpoint > self.checkpoint_handed_over;
        is_wanted && is_idle || is_much
    }

    /// Whether the open batch has records, and none that is urgent.
    pub(in crate::engine) fn is_resting(&self) -> bool {
        !self.entries.is_empty() && !self.is_urgent
    }

    /// Makes the records of the open batch urgent.
    pub(in crate::engine) fn hurry(&mut self) {
        self.is_urgent |= self.is_resting();
    }

    /// Hands the open batch over.
    pub(in crate::engine) fn seal(&mut self) -> RecordBatch {
        let bytes = match self.live == self.entries.len() {
            // The next batch is likely to become as large.
            true => {
                let room = Vec::with_capacity(self.open.len().min(limits::JOURNAL_BATCH_BYTES));
                std::mem::replace(&mut self.open, room)
            }
            false => self.compact(),
        };
        self.open.clear();
        self.entries.clear();
        self.content = None;
        self.live = 0;
        self.is_urgent = false;
        let batch = RecordBatch { number: self.number, bytes, checkpoint: self.checkpoint };
        self.under_way.push_back((batch.number, batch.bytes.len()));
        self.under_way_bytes += batch.bytes.len();
        self.checkpoint_handed_over = self.checkpoint;
        self.number += 1;
        batch
    }

    /// The records of the open batch that were not removed.
    fn compact(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.open.len());
        // Copied in long runs.
        let (mut start, mut end) = (0, 0);
        for entry in &self.entries {
            if entry.uses == 0 {
                bytes.extend_from_slice(&self.open[start..end]);
                start = entry.end as usize;
            }
            end = entry.end as usize;
        }
        bytes.extend_from_slice(&self.open[start..end]);
        bytes
    }
}
