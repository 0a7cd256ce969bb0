//! What this core has to keep beyond the life of the process: records collected turn by turn, handed
//! over as batches, and who waits until one of them is stored. Knows no file, and not how a batch is
//! stored.
//!
//! While one batch is being stored the next collects: so one synchronisation of the disk serves all
//! that came meanwhile. What is acknowledged before its batch has left was never worth writing, and
//! is taken out of it again.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::{ConnectionId, CoreId};
use crate::base::limits;
use crate::engine::mesh::lanes::Awaited;
use crate::message::{self, Message};
use crate::session::outbound::{Delivery, Outbound};
use crate::storage::commit::{Keeping, RecordBatch, RecordRef, StoreState};
use crate::storage::record::{Content, Record, SessionNumber, content_anew};

/// A record in the open batch.
#[derive(Clone, Copy, Debug)]
struct Entry {
    end: u32,
    /// The [`Record::Content`] a delivery is of, by its place, or [`NO_CONTENT`].
    content: u32,
    /// Deliveries of a content that are left, 1 for other records; 0 is left out.
    uses: u32,
}

const NO_CONTENT: u32 = u32::MAX;

/// The contents of what is told anew for a checkpoint: each is told once, after all sessions.
#[derive(Debug, Default)]
struct Anew {
    /// Deliveries are told anew now, and not as they come.
    is_on: bool,
    /// Those that deliveries are of, with their numbers, by address: no other message takes it as long
    /// as this one is here.
    numbers: HashMap<usize, (Message, u64)>,
    /// Those of them that are to be told.
    untold: VecDeque<(Message, u64)>,
    /// How many there were since the process began.
    count: u64,
}

/// The records of one core.
#[derive(Debug)]
pub(in crate::engine) struct Journal {
    core: CoreId,
    keeping: Keeping,
    open: Vec<u8>,
    entries: Vec<Entry>,
    /// Those of them that are left.
    live: usize,
    /// It is to be handed over as soon as may be. Ends of deliveries alone are not: nobody waits for
    /// them, and a disk that is not synchronised for each lasts longer.
    is_urgent: bool,
    /// The number of the open batch.
    number: u64,
    /// Records so far.
    written: u64,
    stored: StoreState,
    /// The content told last, and its place in this batch: what a message is for many of follows.
    content: Option<(Message, u32)>,
    anew: Anew,
    /// Batches handed over and not stored yet, with their bytes, and the sum of those.
    under_way: VecDeque<(u64, usize)>,
    under_way_bytes: usize,
    /// Answers, and connections that wait, by the batch they wait for; in ascending order.
    answers: VecDeque<(u64, Awaited)>,
    connections: VecDeque<(u64, ConnectionId)>,
    /// Publishers that are not read until more is stored.
    pub(in crate::engine) waiting: VecDeque<ConnectionId>,
    next_delivery: u64,
    /// The checkpoint that everything was told anew for.
    checkpoint: u64,
    /// The one that the store has heard of.
    told: u64,
}

impl Journal {
    pub(in crate::engine) fn new(keeping: Keeping, core: CoreId) -> Self {
        Self {
            core,
            keeping,
            open: Vec::new(),
            entries: Vec::new(),
            live: 0,
            is_urgent: false,
            number: 1,
            written: 0,
            stored: StoreState::default(),
            content: None,
            anew: Anew::default(),
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            answers: VecDeque::new(),
            connections: VecDeque::new(),
            waiting: VecDeque::new(),
            next_delivery: 1,
            checkpoint: 0,
            told: 0,
        }
    }

    /// Whether anything waits until it is stored.
    pub(in crate::engine) fn waits(&self) -> bool {
        self.keeping.waits
    }

    /// Deliveries are numbered from here on.
    pub(in crate::engine) fn begin_deliveries_at(&mut self, number: u64) {
        self.next_delivery = self.next_delivery.max(number);
    }

    /// Records so far: whether there are more afterwards says whether something has to be waited for.
    pub(in crate::engine) fn written(&self) -> u64 {
        self.written
    }

    /// The batch to wait for when something was written since `mark`, in this turn or an earlier one;
    /// none when nothing was, all of it is stored, or nobody waits.
    pub(in crate::engine) fn batch_since(&self, mark: u64) -> Option<u64> {
        if self.written <= mark || !self.waits() {
            return None;
        }
        let last = self.number - u64::from(self.entries.is_empty());
        (last > self.stored.up_to).then_some(last)
    }

    /// The batch to wait for everything written so far; none when all of it is stored.
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

    /// The last batch that is stored, as far as anybody waits.
    pub(in crate::engine) fn stored_up_to(&self) -> u64 {
        if self.waits() { self.stored.up_to } else { u64::MAX }
    }

    /// Whether so much waits to be stored that publishers should wait too.
    pub(in crate::engine) fn is_loaded(&self) -> bool {
        self.open.len() + self.under_way_bytes >= limits::JOURNAL_BYTES_MAX || self.stored.is_full
    }

    /// Whether more waits to be stored than publishers alone can have made it.
    pub(in crate::engine) fn is_far_behind(&self) -> bool {
        self.open.len() + self.under_way_bytes >= limits::JOURNAL_BYTES_FAR
    }

    /// Whether the store cannot write for the moment.
    pub(in crate::engine) fn is_failing(&self) -> bool {
        self.stored.is_failing
    }

    /// Bytes that wait to be handed over.
    pub(in crate::engine) fn bytes(&self) -> usize {
        self.open.len()
    }

    /// A deadline as a time of day.
    pub(in crate::engine) fn wall_us(&self, at: Deadline) -> u64 {
        self.keeping.wall_at_zero_us.saturating_add(at.us())
    }

    /// The time of day.
    pub(in crate::engine) fn now_us(&self, now: Now) -> u64 {
        self.keeping.wall_at_zero_us.saturating_add(now.0)
    }

    /// A time of day as a deadline: one that has passed is due at once.
    pub(in crate::engine) fn deadline(&self, wall_us: u64) -> Deadline {
        Deadline::at_us(wall_us.saturating_sub(self.keeping.wall_at_zero_us))
    }

    /// The content of a message, as it is kept.
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
    /// while it is only queued.
    pub(in crate::engine) fn write_delivery(
        &mut self,
        session: SessionNumber,
        delivery: &Delivery,
        packet_identifier: u16,
        shared: Option<&str>,
    ) -> RecordRef {
        let (content, place) = match self.anew.is_on {
            true => (self.number_anew(&delivery.message), NO_CONTENT),
            false => {
                let place = self.write_content(&delivery.message);
                (u64::from(place), place)
            }
        };
        let number = match delivery.kept.number {
            0 => {
                self.next_delivery += 1;
                self.next_delivery - 1
            }
            number => number,
        };
        let record = Record::Queued {
            session,
            delivery: number,
            content,
            qos: delivery.qos.into(),
            retain: delivery.retain,
            packet_identifier,
            shared,
            identifiers: delivery.subscription_identifiers.as_slice().into(),
        };
        if place != NO_CONTENT {
            self.entries[place as usize].uses += 1;
            self.live += usize::from(self.entries[place as usize].uses == 1);
        }
        let place = self.enter(&record, place, 1);
        RecordRef { number, batch: self.number as u32, place }
    }

    /// Sessions are told anew from here on, or what happens.
    pub(in crate::engine) fn tell_anew(&mut self, is_on: bool) {
        self.anew.is_on = is_on;
    }

    /// The number of a content that is told anew once.
    fn number_anew(&mut self, message: &Message) -> u64 {
        let Anew { numbers, untold, count, .. } = &mut self.anew;
        let (_, number) = numbers.entry(message.address()).or_insert_with(|| {
            *count += 1;
            let number = content_anew(self.core.0, *count);
            untold.push_back((message.clone(), number));
            (message.clone(), number)
        });
        *number
    }

    /// All sessions have been told anew: tells the contents of that until the open batch has `bytes`;
    /// whether that was all.
    pub(in crate::engine) fn tell_contents(&mut self, bytes: usize) -> bool {
        self.anew.numbers = HashMap::new();
        while self.open.len() < bytes
            && let Some((message, number)) = self.anew.untold.pop_front()
        {
            let content = self.content(&message.content());
            self.enter(&Record::Content { number, content }, NO_CONTENT, 1);
        }
        self.anew.untold.is_empty()
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

    /// A delivery is over. When its batch has not left yet, both go without a trace.
    pub(in crate::engine) fn end_delivery(&mut self, session: SessionNumber, kept: RecordRef) {
        if kept.number == 0 {
            return;
        }
        if kept.batch != self.number as u32 {
            return self.write(&Record::Done { session, delivery: kept.number });
        }
        let entry = &mut self.entries[kept.place as usize];
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

    /// All deliveries of a session that are over and have not been told.
    pub(in crate::engine) fn end_deliveries(
        &mut self,
        session: Option<SessionNumber>,
        outbound: &mut Outbound,
    ) {
        while let Some(kept) = outbound.pop_gone() {
            if let Some(session) = session {
                self.end_delivery(session, kept);
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

    /// The store has gone on. True when more of this core's batches are stored.
    pub(in crate::engine) fn note_stored(&mut self, stored: StoreState) -> bool {
        let is_more = stored.up_to > self.stored.up_to;
        self.stored = stored;
        self.keeping.wall_at_zero_us = self.keeping.wall_at_zero_us.max(stored.wall_at_zero_us);
        while let Some((_, bytes)) =
            self.under_way.pop_front_if(|&mut (number, _)| number <= stored.up_to)
        {
            self.under_way_bytes -= bytes;
        }
        is_more
    }

    pub(in crate::engine) fn next_answer(&mut self) -> Option<Awaited> {
        let up_to = self.stored.up_to;
        self.answers.pop_front_if(|&mut (batch, _)| batch <= up_to).map(|(_, awaited)| awaited)
    }

    pub(in crate::engine) fn next_connection(&mut self) -> Option<ConnectionId> {
        let up_to = self.stored.up_to;
        self.connections.pop_front_if(|&mut (batch, _)| batch <= up_to).map(|(_, id)| id)
    }

    /// A checkpoint that was asked for and is not told yet.
    pub(in crate::engine) fn checkpoint_due(&self) -> Option<u64> {
        (self.stored.checkpoint > self.checkpoint).then_some(self.stored.checkpoint)
    }

    /// Everything has been told anew for a checkpoint.
    pub(in crate::engine) fn end_checkpoint(&mut self, checkpoint: u64) {
        self.checkpoint = checkpoint;
    }

    /// Whether the store has taken what it was handed, or so much waits that it is handed the next.
    pub(in crate::engine) fn has_batch(&self) -> bool {
        let is_idle = self.stored.up_to + 1 == self.number;
        let is_much = self.open.len() >= limits::JOURNAL_BATCH_BYTES
            && self.under_way_bytes < limits::JOURNAL_BYTES_MAX;
        // One of which nothing is left is handed over too: somebody may wait for it.
        let must_tell = !self.entries.is_empty() && self.is_urgent || self.checkpoint > self.told;
        must_tell && is_idle || is_much
    }

    /// Whether there is something in the open batch that is in no hurry.
    pub(in crate::engine) fn is_resting(&self) -> bool {
        !self.entries.is_empty() && !self.is_urgent
    }

    /// What has rested is to be handed over.
    pub(in crate::engine) fn hurry(&mut self) {
        self.is_urgent |= self.is_resting();
    }

    /// Hands the open batch over.
    pub(in crate::engine) fn seal(&mut self) -> RecordBatch {
        let bytes = match self.live == self.entries.len() {
            // The next one is likely to become as large.
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
        self.told = self.checkpoint;
        self.number += 1;
        batch
    }

    /// What is left of the open batch.
    fn compact(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.open.len());
        // What is left lies in long runs.
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
