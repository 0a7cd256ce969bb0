//! Lanes: the ordered links from this core to each of the others, with their receipts and what waits for
//! these. Knows no session, no topic, and not how a batch travels.
//!
//! When another core has processed and stored everything in a batch that requests a receipt, its next batch
//! in the other direction acknowledges the number; if there is none, an empty batch does. Receipts are
//! cumulative. Acknowledgements to publishers and SUBACKs wait for receipts, and so do publishers when the
//! window of a lane is in use.

use std::collections::VecDeque;

use crate::base::ids::{ConnectionId, CoreId};
use crate::base::limits;
use crate::engine::mesh::batch::{Batch, Body, MeshMessage};
use crate::engine::mesh::node_block::{NodeBlocks, Places};
use crate::message::Content;
use crate::resources::gauges::Place;

/// An answer to a client that waits for receipts, by its number in the connection's queue of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Awaited {
    pub connection: ConnectionId,
    pub answer: u64,
}

/// The direction from this core to another.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The batch of this turn.
    open: Batch,
    /// The last batch that was acknowledged by a receipt.
    receipted: u64,
    /// Batches without a receipt, with their sizes.
    under_way: VecDeque<(u64, usize)>,
    /// The sum of these sizes.
    under_way_bytes: usize,
    /// The window: bytes without a receipt from which publishers wait.
    window_bytes: usize,
    /// The last batch that announced a subscription.
    announced: u64,
    /// Acknowledgements with the batch that contains their message, and SUBACKs with the batch that
    /// announced their filter, each in ascending order.
    publishes: VecDeque<(u64, Awaited)>,
    subscriptions: VecDeque<(u64, Awaited)>,
    /// Publishers that are not read until the window of the lane has space.
    waiting: VecDeque<ConnectionId>,
    /// The last batch of the other direction that was processed, the last one whose records are stored
    /// too, and whether a receipt is due.
    seen: u64,
    taken: u64,
    owes_receipt: bool,
    /// Processed batches whose records wait for the store, with the batch of records, and whether they
    /// request a receipt.
    unstored: VecDeque<(u64, u64, bool)>,
}

/// The window of each of several lanes. All lanes to one consumer together may fill about half of its outbox limit.
fn window_bytes(lanes: usize) -> usize {
    (limits::LANES_WINDOW_BYTES / lanes.max(1)).max(limits::LANE_WINDOW_BYTES_MIN)
}

/// The lanes from this core to all others, and to the nodes of the cluster; none when there is neither.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// By core; the lane to the core itself is not used.
    each: Vec<Lane>,
    /// Empty batches, for their buffers.
    pool: Vec<Batch>,
    /// The node blocks of this turn.
    blocks: NodeBlocks,
}

impl Lane {
    fn new(window_bytes: usize) -> Self {
        Self {
            open: Batch::default().numbered(1),
            receipted: 0,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            window_bytes,
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

    /// The batch of this turn.
    pub(crate) fn open(&mut self) -> &mut Batch {
        &mut self.open
    }

    pub(crate) fn push(&mut self, message: MeshMessage) {
        self.open.messages.push(message);
    }

    /// The batch of this turn announces a subscription.
    pub(crate) fn note_announcement(&mut self) {
        self.announced = self.open.number;
        self.open.wants_receipt = true;
    }

    /// Lets an answer wait for the receipt of this turn's batch.
    pub(crate) fn await_publish(&mut self, awaited: Awaited) {
        self.open.wants_receipt = true;
        self.publishes.push_back((self.open.number, awaited));
    }

    /// Lets an answer wait until all announcements so far are acknowledged; false when they are.
    pub(crate) fn await_announcements(&mut self, awaited: Awaited) -> bool {
        let waits = self.announced > self.receipted;
        if waits {
            self.subscriptions.push_back((self.announced, awaited));
        }
        waits
    }

    /// Lets an answer wait until everything so far is acknowledged; false when it is.
    pub(crate) fn await_everything(&mut self, awaited: Awaited) -> bool {
        let waits = !self.open.is_empty() || self.receipted + 1 < self.open.number;
        if waits {
            self.await_publish(awaited);
            // Sends a batch even if there is no message: a receipt needs one.
            self.owes_receipt = true;
        }
        waits
    }

    /// The number of a batch; once it is [acknowledged](Self::is_receipted), the other core has processed
    /// and stored everything so far.
    pub(crate) fn barrier(&mut self) -> u64 {
        if self.open.is_empty() && self.receipted + 1 >= self.open.number {
            return self.receipted;
        }
        self.ask_time();
        self.open.number
    }

    pub(crate) fn is_receipted(&self, barrier: u64) -> bool {
        self.receipted >= barrier
    }

    /// Requests a batch, which contains the clock of the other core.
    pub(crate) fn ask_time(&mut self) {
        self.open.wants_receipt = true;
        self.owes_receipt = true;
    }

    /// Requests a receipt for this turn's batch; its number.
    pub(crate) fn ask_receipt(&mut self) -> u64 {
        self.open.wants_receipt = true;
        self.open.number
    }

    fn load_bytes(&self) -> usize {
        self.under_way_bytes + self.open.cost()
    }

    /// Whether the window is in use, so that publishers should wait.
    pub(crate) fn is_loaded(&self) -> bool {
        self.load_bytes() >= self.window_bytes
    }

    /// Whether there is a batch to send, if only for a receipt.
    pub(crate) fn has_batch(&self) -> bool {
        self.owes_receipt || !self.open.is_empty()
    }

    /// Queues a publisher that waits for this lane; the caller stops reading it.
    pub(crate) fn wait(&mut self, publisher: ConnectionId) {
        self.waiting.push_back(publisher);
    }

    /// Notes that a batch of the other direction was processed; its receipt is sent once the store has
    /// the batch `records`, if there is one.
    pub(crate) fn note_taken(&mut self, batch: &Batch, records: Option<u64>) {
        debug_assert_eq!(batch.number, self.seen + 1, "a lane preserves order and loses no batch");
        self.seen = batch.number;
        if records.is_some() || !self.unstored.is_empty() {
            let entry = (batch.number, records.unwrap_or(0), batch.wants_receipt);
            return self.unstored.push_back(entry);
        }
        self.taken = batch.number;
        self.owes_receipt |= batch.wants_receipt;
    }

    /// The store has all records up to this batch of records.
    pub(crate) fn note_stored(&mut self, up_to: u64) {
        while let Some((number, _, wants)) =
            self.unstored.pop_front_if(|&mut (_, records, _)| records <= up_to)
        {
            self.taken = number;
            self.owes_receipt |= wants;
        }
    }

    /// The other core has acknowledged all batches up to `receipt`.
    pub(crate) fn note_receipt(&mut self, receipt: u64) {
        self.receipted = self.receipted.max(receipt);
        while let Some(&(number, cost)) = self.under_way.front()
            && number <= self.receipted
        {
            self.under_way.pop_front();
            self.under_way_bytes -= cost;
        }
    }

    /// The next answer whose batch is acknowledged.
    pub(crate) fn next_awaited(&mut self) -> Option<Awaited> {
        let receipted = self.receipted;
        let due = |line: &mut VecDeque<(u64, Awaited)>| {
            line.pop_front_if(|&mut (number, _)| number <= receipted).map(|(_, awaited)| awaited)
        };
        due(&mut self.publishes).or_else(|| due(&mut self.subscriptions))
    }
}

impl Lanes {
    /// Lanes to the other cores of `place`.
    pub(crate) fn new(place: &Place) -> Self {
        let cores = usize::from(place.cores());
        if place.addresses() == 1 {
            return Self::with_windows(std::iter::empty(), place);
        }
        let nodes = usize::from(place.addresses()) - cores;
        let to_cores = std::iter::repeat_n(window_bytes(cores - 1), cores);
        let to_nodes = std::iter::repeat_n(limits::NODE_WINDOW_BYTES / cores, nodes);
        Self::with_windows(to_cores.chain(to_nodes), place)
    }

    /// Lanes of a gateway to the cores of its process.
    #[cfg(feature = "cluster")]
    pub(crate) fn of_gateway(place: &Place) -> Self {
        let cores = usize::from(place.cores());
        Self::with_windows(std::iter::repeat_n(window_bytes(cores), cores), place)
    }

    fn with_windows(windows: impl Iterator<Item = usize>, place: &Place) -> Self {
        Self {
            each: windows.map(Lane::new).collect(),
            pool: Vec::new(),
            blocks: NodeBlocks::new(place),
        }
    }

    /// Adds a small application message to this turn's batch for `core`, with one copy for all cores of a
    /// node.
    pub(crate) fn push_content(
        &mut self,
        core: CoreId,
        content: &Content<'_>,
        places: &mut Places,
    ) -> Body {
        let placed = self.blocks.place(core, content, places);
        self.to(core).open.push_placed(placed)
    }

    /// Whether there is no other core.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    pub(crate) fn to(&mut self, core: CoreId) -> &mut Lane {
        &mut self.each[usize::from(core.0)]
    }

    /// Whether the window of the lane to `core` is in use, so that publishers should wait.
    pub(crate) fn is_loaded(&self, core: CoreId) -> bool {
        self.each[usize::from(core.0)].is_loaded()
    }

    /// The next publisher that need not wait any more for the window.
    pub(crate) fn next_released(&mut self, core: CoreId) -> Option<ConnectionId> {
        let lane = &mut self.each[usize::from(core.0)];
        let is_light = lane.load_bytes() <= lane.window_bytes / 2;
        if is_light { lane.waiting.pop_front() } else { None }
    }

    /// Closes this turn's batch for `core`, if there is one to send.
    pub(crate) fn seal(&mut self, core: CoreId, clock: u64) -> Option<Batch> {
        if !self.to(core).has_batch() {
            return None;
        }
        self.close_block(core);
        let lane = &mut self.each[usize::from(core.0)];
        lane.owes_receipt = false;
        let next = self.pool.pop().unwrap_or_default().numbered(lane.open.number + 1);
        let mut batch = std::mem::replace(&mut lane.open, next);
        let cost = batch.cost();
        // With QoS 0 alone, a receipt is requested for a quarter of the window, so seldom that the cost
        // does not count.
        batch.wants_receipt |= lane.under_way_bytes + cost >= lane.window_bytes / 4;
        (batch.receipt, batch.clock) = (lane.taken, clock);
        lane.under_way.push_back((batch.number, cost));
        lane.under_way_bytes += cost;
        Some(batch)
    }

    /// Closes the block that the batch for `core` reads, for all batches that do.
    fn close_block(&mut self, core: CoreId) {
        let node = self.blocks.node(core);
        let Some(closed) = self.blocks.close(node) else { return };
        for core in self.blocks.cores(node) {
            self.each[core].open.note_closed(&closed);
        }
    }

    /// Keeps the buffers of a processed batch for the next one.
    pub(crate) fn recycle(&mut self, mut batch: Batch) {
        if self.pool.len() < self.each.len() && batch.capacity() <= limits::POOLED_BATCH_BYTES_MAX {
            batch.clear();
            self.pool.push(batch);
        }
    }

    /// Whether each core has acknowledged its barrier.
    pub(crate) fn are_receipted(&self, barriers: &[(CoreId, u64)]) -> bool {
        barriers.iter().all(|&(core, barrier)| self.each[usize::from(core.0)].is_receipted(barrier))
    }

    /// Bytes without a receipt in the lane to `core`.
    pub(crate) fn load_bytes(&self, core: CoreId) -> usize {
        self.each.get(usize::from(core.0)).map_or(0, Lane::load_bytes)
    }
}
