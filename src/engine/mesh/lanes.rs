//! What this core has under way to each of the others, and who waits for it. Knows no session, no
//! topic, and not how a batch travels.
//!
//! A batch that wants a receipt is answered with its number once everything in it is known over
//! there. Receipts are cumulative and ride on whatever goes the other way, or alone. Three things
//! wait for them: acknowledgements to publishers, SUBACKs, and publishers that ran ahead of a lane.

use std::collections::VecDeque;

use crate::base::ids::{ConnectionId, CoreId};
use crate::base::limits;
use crate::engine::mesh::batch::{Batch, Body, Parcel};
use crate::engine::mesh::bundle::{Bundles, Places};
use crate::message::Content;
use crate::resources::gauges::Place;

/// An answer to a client that waits for receipts: a place in its connection's line of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Awaited {
    pub connection: ConnectionId,
    pub answer: u64,
}

/// The direction from this core to another.
#[derive(Debug)]
pub(in crate::engine) struct Lane {
    /// What is said this turn.
    open: Batch,
    /// The last number for which a receipt came.
    receipted: u64,
    /// Batches without a receipt yet, with their costs.
    under_way: VecDeque<(u64, usize)>,
    /// The sum of those costs.
    under_way_bytes: usize,
    /// The last batch that announced a subscription.
    announced: u64,
    /// Acknowledgements by the batch that holds their message, and SUBACKs by the batch that
    /// announced their filter; each in ascending order.
    publishes: VecDeque<(u64, Awaited)>,
    subscriptions: VecDeque<(u64, Awaited)>,
    /// Publishers that are not read until less is under way.
    waiting: VecDeque<ConnectionId>,
    /// The last batch of the other direction that was taken, the last one up to which all is stored
    /// that is to be, and whether it wants a receipt.
    seen: u64,
    taken: u64,
    owes_receipt: bool,
    /// Batches taken of which records wait for the store, with the batch of records, and whether
    /// they want a receipt.
    unstored: VecDeque<(u64, u64, bool)>,
}

/// The lanes from this core to all others; none when it is alone.
#[derive(Debug)]
pub(in crate::engine) struct Lanes {
    /// By core; that of the core itself is never used.
    each: Vec<Lane>,
    /// How much may be under way in a lane before its publishers wait.
    window_bytes: usize,
    /// Emptied batches.
    pool: Vec<Batch>,
    /// Where this turn's messages lie.
    bundles: Bundles,
}

impl Lane {
    fn new() -> Self {
        Self {
            open: Batch::default().numbered(1),
            receipted: 0,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            announced: 0,
            publishes: VecDeque::new(),
            subscriptions: VecDeque::new(),
            waiting: VecDeque::new(),
            seen: 0,
            taken: 0,
            owes_receipt: false,
            unstored: VecDeque::new(),
        }
    }

    /// The batch of this turn, to add to.
    pub(in crate::engine) fn open(&mut self) -> &mut Batch {
        &mut self.open
    }

    pub(in crate::engine) fn push(&mut self, parcel: Parcel) {
        self.open.parcels.push(parcel);
    }

    /// What was pushed in this turn announces a subscription.
    pub(in crate::engine) fn note_announcement(&mut self) {
        self.announced = self.open.number;
        self.open.wants_receipt = true;
    }

    /// The answer waits for what was pushed in this turn.
    pub(in crate::engine) fn await_publish(&mut self, awaited: Awaited) {
        self.open.wants_receipt = true;
        self.publishes.push_back((self.open.number, awaited));
    }

    /// The answer waits for all announcements so far; false when they are known already.
    pub(in crate::engine) fn await_announcements(&mut self, awaited: Awaited) -> bool {
        let waits = self.announced > self.receipted;
        if waits {
            self.subscriptions.push_back((self.announced, awaited));
        }
        waits
    }

    /// The answer waits for everything so far; false when all of it is known already.
    pub(in crate::engine) fn await_everything(&mut self, awaited: Awaited) -> bool {
        let waits = !self.open.is_empty() || self.receipted + 1 < self.open.number;
        if waits {
            self.await_publish(awaited);
            // Even if there is nothing else to say: a receipt is given for a batch.
            self.owes_receipt = true;
        }
        waits
    }

    /// A number; once it is [receipted](Self::is_receipted), everything said so far is known and stored
    /// over there.
    pub(in crate::engine) fn barrier(&mut self) -> u64 {
        if self.open.is_empty() && self.receipted + 1 >= self.open.number {
            return self.receipted;
        }
        self.ask_time();
        self.open.number
    }

    pub(in crate::engine) fn is_receipted(&self, barrier: u64) -> bool {
        self.receipted >= barrier
    }

    /// Asks for a sign of life, which tells what time it is over there.
    pub(in crate::engine) fn ask_time(&mut self) {
        self.open.wants_receipt = true;
        self.owes_receipt = true;
    }

    /// Asks for a receipt for what is said this turn; the number of its batch.
    pub(in crate::engine) fn ask_receipt(&mut self) -> u64 {
        self.open.wants_receipt = true;
        self.open.number
    }

    fn load_bytes(&self) -> usize {
        self.under_way_bytes + self.open.cost()
    }

    /// Whether there is something to say, a receipt included.
    pub(in crate::engine) fn has_batch(&self) -> bool {
        self.owes_receipt || !self.open.is_empty()
    }

    /// Takes a publisher that is to wait for this lane; the caller stops reading it.
    pub(in crate::engine) fn wait(&mut self, publisher: ConnectionId) {
        self.waiting.push_back(publisher);
    }

    /// Notes that a batch of the other direction was taken; its receipt is given once the store has
    /// `records`, if there are any.
    pub(in crate::engine) fn note_taken(&mut self, batch: &Batch, records: Option<u64>) {
        debug_assert_eq!(batch.number, self.seen + 1, "a lane keeps order and loses nothing");
        self.seen = batch.number;
        if records.is_some() || !self.unstored.is_empty() {
            let entry = (batch.number, records.unwrap_or(0), batch.wants_receipt);
            return self.unstored.push_back(entry);
        }
        self.taken = batch.number;
        self.owes_receipt |= batch.wants_receipt;
    }

    /// The store has all records up to this batch of them.
    pub(in crate::engine) fn note_stored(&mut self, up_to: u64) {
        while let Some((number, _, wants)) =
            self.unstored.pop_front_if(|&mut (_, records, _)| records <= up_to)
        {
            self.taken = number;
            self.owes_receipt |= wants;
        }
    }

    /// The other core has taken everything up to batch `receipt`.
    pub(in crate::engine) fn note_receipt(&mut self, receipt: u64) {
        self.receipted = self.receipted.max(receipt);
        while let Some(&(number, cost)) = self.under_way.front()
            && number <= self.receipted
        {
            self.under_way.pop_front();
            self.under_way_bytes -= cost;
        }
    }

    /// The next answer that has waited long enough.
    pub(in crate::engine) fn next_awaited(&mut self) -> Option<Awaited> {
        let receipted = self.receipted;
        let due = |line: &mut VecDeque<(u64, Awaited)>| {
            line.pop_front_if(|&mut (number, _)| number <= receipted).map(|(_, awaited)| awaited)
        };
        due(&mut self.publishes).or_else(|| due(&mut self.subscriptions))
    }
}

impl Lanes {
    /// Lanes to the other cores of `place`.
    pub(in crate::engine) fn new(place: &Place) -> Self {
        let others = usize::from(place.cores()) - 1;
        let count = if others == 0 { 0 } else { others + 1 };
        let each: Vec<Lane> = (0..count).map(|_| Lane::new()).collect();
        // All lanes to one consumer together may fill about half of its outbox bound.
        let window_bytes = limits::LANES_WINDOW_BYTES / others.max(1);
        Self {
            each,
            window_bytes: window_bytes.max(limits::LANE_WINDOW_BYTES_MIN),
            pool: Vec::new(),
            bundles: Bundles::new(place.nodes()),
        }
    }

    /// Puts a small message into this turn's batch for `core`; it lies once for all cores of a node.
    pub(in crate::engine) fn push_content(
        &mut self,
        core: CoreId,
        content: &Content<'_>,
        places: &mut Places,
    ) -> Body {
        let placed = self.bundles.place(core, content, places);
        self.to(core).open.push_placed(placed)
    }

    /// Whether there is no other core.
    #[inline]
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// The number of cores; 0 when there is no other.
    #[inline]
    pub(super) fn cores(&self) -> u16 {
        self.each.len() as u16
    }

    pub(in crate::engine) fn to(&mut self, core: CoreId) -> &mut Lane {
        &mut self.each[usize::from(core.0)]
    }

    /// Whether so much is under way to `core` that publishers should wait.
    pub(in crate::engine) fn is_loaded(&self, core: CoreId) -> bool {
        self.each[usize::from(core.0)].load_bytes() >= self.window_bytes
    }

    /// A publisher that may go on, as little enough is under way.
    pub(in crate::engine) fn next_released(&mut self, core: CoreId) -> Option<ConnectionId> {
        let lane = &mut self.each[usize::from(core.0)];
        let is_light = lane.load_bytes() <= self.window_bytes / 2;
        if is_light { lane.waiting.pop_front() } else { None }
    }

    /// Closes this turn's batch for `core`, if there is something to say.
    pub(in crate::engine) fn seal(&mut self, core: CoreId, clock: u64) -> Option<Batch> {
        if !self.to(core).has_batch() {
            return None;
        }
        self.close_bundle(core);
        let lane = &mut self.each[usize::from(core.0)];
        lane.owes_receipt = false;
        let next = self.pool.pop().unwrap_or_default().numbered(lane.open.number + 1);
        let mut batch = std::mem::replace(&mut lane.open, next);
        let cost = batch.cost();
        // Receipts for QoS 0 alone are asked for so seldom that they cost nothing.
        batch.wants_receipt |= lane.under_way_bytes + cost >= self.window_bytes / 4;
        (batch.receipt, batch.clock) = (lane.taken, clock);
        lane.under_way.push_back((batch.number, cost));
        lane.under_way_bytes += cost;
        Some(batch)
    }

    /// Closes the bundle that the batch for `core` reads, for all batches that do.
    fn close_bundle(&mut self, core: CoreId) {
        let node = self.bundles.node(core);
        let Some(closed) = self.bundles.close(node) else { return };
        for core in self.bundles.cores(node) {
            self.each[core].open.note_closed(&closed);
        }
    }

    /// Takes the buffers of a batch that was read, to write the next one into.
    pub(in crate::engine) fn recycle(&mut self, mut batch: Batch) {
        if self.pool.len() < self.each.len() && batch.capacity() <= limits::POOLED_BATCH_BYTES_MAX {
            batch.clear();
            self.pool.push(batch);
        }
    }

    /// Whether each core has receipted its barrier.
    pub(in crate::engine) fn are_receipted(&self, barriers: &[(CoreId, u64)]) -> bool {
        barriers.iter().all(|&(core, barrier)| self.each[usize::from(core.0)].is_receipted(barrier))
    }

    /// Bytes under way to `core`, for statistics.
    pub(in crate::engine) fn load_bytes(&self, core: CoreId) -> usize {
        self.each.get(usize::from(core.0)).map_or(0, Lane::load_bytes)
    }
}
