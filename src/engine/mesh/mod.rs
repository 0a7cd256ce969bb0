//! The lanes to the other cores: messages forwarded through them, and connections that move to their home
//! core.
//!
//! [`Mesh`] owns the state of the lanes and everything that waits for it. Other folders state what to send
//! and what to wait for; this folder preserves the order of messages, receipts and batches.

mod arrival;
pub(in crate::engine) mod batch;
mod batches;
mod forward;
pub(in crate::engine) mod handover;
#[cfg(feature = "cluster")]
mod held;
pub(in crate::engine) mod lanes;
pub(in crate::engine) mod node_block;
#[cfg(feature = "cluster")]
mod nodes;
#[cfg(not(feature = "cluster"))]
#[path = "nodes_absent.rs"]
mod nodes;
#[cfg(feature = "cluster")]
pub(in crate::engine) mod session_message;

use std::collections::{HashSet, VecDeque};

use shards::{Fingerprint, Replica, TopicFilter};

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, CoreId, Publisher};
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::engine::draft::Draft;
use crate::engine::mesh::batch::{Batch, Destination, Forwarded, MeshMessage};
use crate::engine::mesh::handover::Departures;
use crate::engine::mesh::lanes::{Awaited, Lanes};
use crate::engine::mesh::nodes::Nodes;
use crate::resources::gauges::{Ledger, Place};
use crate::storage::record::Exchange;

/// The core, of so many, that is at home for what has this fingerprint.
#[inline]
pub(crate) fn home_of(fingerprint: Fingerprint, cores: u16) -> CoreId {
    // The high bits: the replica's table takes the low ones.
    CoreId(((u128::from(fingerprint.0) * u128::from(cores)) >> 64) as u16)
}

/// A batch of another core that was processed in part, for lack of budget.
#[derive(Debug)]
pub(super) struct UnreadBatch {
    from: CoreId,
    batch: Batch,
    /// The messages that are left.
    left: VecDeque<MeshMessage>,
    /// The mark of the journal at the beginning.
    mark: u64,
}

/// This core's connections to the other cores of the broker, and to the nodes of its cluster.
#[derive(Debug)]
pub(in crate::engine) struct Mesh {
    core: CoreId,
    /// The number of cores.
    cores: u16,
    nodes: Nodes,
    lanes: Lanes,
    /// Cores to which the current message was forwarded.
    reached: Vec<CoreId>,
    /// Publishers of other cores that are not read because of a consumer here.
    paused_elsewhere: HashSet<Publisher>,
    /// Batches of other cores that have been processed in part.
    unread: VecDeque<UnreadBatch>,
    departures: Departures,
}

impl Mesh {
    pub(in crate::engine) fn new(place: &Place) -> Self {
        Self {
            core: place.core(),
            cores: place.cores(),
            nodes: Nodes::new(place),
            lanes: Lanes::new(place),
            reached: Vec::new(),
            paused_elsewhere: HashSet::new(),
            unread: VecDeque::new(),
            departures: Departures::default(),
        }
    }

    /// This core.
    #[inline]
    pub(in crate::engine) fn core(&self) -> CoreId {
        self.core
    }

    /// The number of cores.
    #[inline]
    pub(in crate::engine) fn cores(&self) -> u16 {
        self.cores
    }

    /// Whether there is neither another core nor a cluster.
    #[inline]
    pub(in crate::engine) fn is_alone(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The other cores.
    #[inline]
    pub(in crate::engine) fn others(&self) -> impl Iterator<Item = CoreId> + use<> {
        let own = self.core;
        (0..self.cores).map(CoreId).filter(move |&core| core != own)
    }

    /// All whose receipts this core may wait for: the other cores, the gateway, and the other nodes.
    #[inline]
    pub(in crate::engine) fn peers(&self) -> impl Iterator<Item = CoreId> + use<> {
        self.listeners().chain(self.members())
    }

    /// The home core of a Client Identifier, or of a topic. All cores' replicas agree on fingerprints.
    pub(in crate::engine) fn home(&self, name: &str, replica: &Replica) -> CoreId {
        if self.cores == 1 {
            return self.core;
        }
        home_of(replica.fingerprint(name), self.cores)
    }

    /// Asks all other cores for their counters.
    pub(in crate::engine) fn ask_metrics(&mut self) {
        for core in self.others() {
            self.lanes.to(core).push(MeshMessage::AskMetrics);
        }
    }

    /// Sends this core's counters to the core that asked for them.
    fn send_metrics(&mut self, to: CoreId, metrics: Box<Metrics>) {
        self.lanes.to(to).push(MeshMessage::Metrics(metrics));
    }

    /// Tells all other cores that a QoS 2 exchange from before a crash is over.
    pub(in crate::engine) fn send_exchange_over(&mut self, exchange: Exchange) {
        for core in self.listeners() {
            self.lanes.to(core).push(MeshMessage::ExchangeOver(exchange));
        }
    }

    /// Announces the first subscription to a filter on this core to all other cores; the other nodes learn of it by
    /// [`Self::note_subscribed`].
    pub(in crate::engine) fn announce(&mut self, filter: &TopicFilter<'_>, replica: &Replica) {
        if self.is_alone() {
            return;
        }
        let fingerprint = (!filter.has_wildcard()).then(|| replica.fingerprint(filter.text()));
        for core in self.others() {
            let lane = self.lanes.to(core);
            let message = match fingerprint {
                Some(fingerprint) => MeshMessage::AnnounceExact(fingerprint),
                None => MeshMessage::AnnounceFilter(lane.open().push_text(filter.text())),
            };
            lane.push(message);
            lane.note_announcement();
        }
    }

    /// Withdraws a filter that has no subscription on this core any more.
    pub(in crate::engine) fn withdraw(&mut self, text: &str, replica: &Replica) {
        if self.is_alone() {
            return;
        }
        let fingerprint = (!shards::has_wildcard(text)).then(|| replica.fingerprint(text));
        for core in self.others() {
            let lane = self.lanes.to(core);
            let message = match fingerprint {
                Some(fingerprint) => MeshMessage::WithdrawExact(fingerprint),
                None => MeshMessage::WithdrawFilter(lane.open().push_text(text)),
            };
            lane.push(message);
        }
    }

    /// Tells all other cores how many members of a shared subscription are on this core, and how many
    /// of them are connected.
    pub(in crate::engine) fn announce_group(&mut self, text: &str, online: u32, members: u32) {
        for core in self.listeners() {
            let lane = self.lanes.to(core);
            let filter = lane.open().push_text(text);
            lane.push(MeshMessage::Group { filter, online, members });
        }
    }

    /// The counts of a shared subscription follow in this turn's batches: a SUBACK waits for them.
    pub(in crate::engine) fn note_announcement(&mut self) {
        for core in self.listeners() {
            self.lanes.to(core).note_announcement();
        }
    }

    /// Begins a message: no core has it yet.
    #[inline]
    pub(in crate::engine) fn begin_message(&mut self) {
        self.reached.clear();
    }

    /// Whether the current message was forwarded to any core.
    #[inline]
    pub(in crate::engine) fn has_reached_any(&self) -> bool {
        !self.reached.is_empty()
    }

    /// Adds a message to this turn's batch for `core`. True when its `publisher`, a connection of this
    /// core, has to wait, as too much is under way to that core.
    fn send_message(
        &mut self,
        core: CoreId,
        draft: &mut Draft<'_>,
        publisher: Option<ConnectionId>,
        ledger: &Ledger,
        whom: impl FnOnce(&mut Batch) -> Destination,
    ) -> bool {
        let to = whom(self.lanes.to(core).open());
        let content = &draft.content;
        let is_large = content.payload.len() + content.passed_on.len() >= limits::SHARED_BYTES_MIN;
        let body = if is_large || draft.is_message() {
            self.lanes.to(core).open().push_message(draft.message(ledger))
        } else {
            self.lanes.push_content(core, content, &mut draft.places)
        };
        let exchange =
            draft.exchange.and_then(|exchange| self.lanes.to(core).open().push_exchange(exchange));
        let forwarded = Forwarded { body, retain: draft.retain, publisher, exchange, to };
        self.lanes.to(core).push(MeshMessage::Publish(forwarded));
        if !self.reached.contains(&core) {
            self.reached.push(core);
        }
        publisher.is_some() && self.lanes.is_loaded(core)
    }

    /// Whether so much is under way to `core` that publishers wait.
    #[cfg(any(feature = "admin", feature = "cluster"))]
    pub(in crate::engine) fn is_loaded(&self, core: CoreId) -> bool {
        self.lanes.is_loaded(core)
    }

    /// Queues a publisher that is not read until less is under way to `core`.
    fn queue_publisher(&mut self, core: CoreId, publisher: ConnectionId) {
        self.lanes.to(core).wait(publisher);
    }

    /// Whether a publisher of another core has been paused.
    pub(in crate::engine) fn has_paused(&self, publisher: &Publisher) -> bool {
        self.paused_elsewhere.contains(publisher)
    }

    /// Asks another core not to read a publisher.
    pub(in crate::engine) fn pause(&mut self, publisher: Publisher) {
        self.paused_elsewhere.insert(publisher);
        self.lanes.to(publisher.core).push(MeshMessage::Pause(publisher.connection));
    }

    /// Lets another core read a publisher again, if it was asked not to.
    pub(in crate::engine) fn resume(&mut self, publisher: &Publisher) {
        if self.paused_elsewhere.remove(publisher) {
            self.lanes.to(publisher.core).push(MeshMessage::Resume(publisher.connection));
        }
    }

    /// Lets an answer wait until `core` has the current message, if that was forwarded there.
    #[inline]
    pub(in crate::engine) fn await_reached(&mut self, core: CoreId, awaited: Awaited) -> bool {
        let waits = self.reached.contains(&core);
        if waits {
            self.lanes.to(core).await_publish(awaited);
        }
        waits
    }

    /// Lets an answer wait until `core` knows all subscriptions announced so far; false when it does.
    pub(in crate::engine) fn await_announcements(
        &mut self,
        core: CoreId,
        awaited: Awaited,
    ) -> bool {
        self.lanes.to(core).await_announcements(awaited)
    }

    /// Lets an answer wait until `core` has everything sent so far; false when it has.
    pub(in crate::engine) fn await_everything(&mut self, core: CoreId, awaited: Awaited) -> bool {
        self.lanes.to(core).await_everything(awaited)
    }

    /// The number of the batch whose receipt says that `core` has what is sent in this turn.
    pub(in crate::engine) fn ask_receipt(&mut self, core: CoreId) -> u64 {
        self.lanes.to(core).ask_receipt()
    }

    /// Asks all other cores and nodes for a receipt, which tells the time of their clocks.
    pub(in crate::engine) fn ask_time(&mut self) {
        for core in self.others().chain(self.members()) {
            self.lanes.to(core).ask_time();
        }
    }

    /// Whether `core` has given a receipt for a batch.
    pub(in crate::engine) fn is_receipted(&self, core: CoreId, batch: u64) -> bool {
        self.lanes.are_receipted(&[(core, batch)])
    }

    /// The barriers of everything sent so far to all other cores, for [`Self::are_receipted`].
    pub(in crate::engine) fn barriers_of_cores(&mut self) -> Vec<(CoreId, u64)> {
        self.others().map(|core| (core, self.lanes.to(core).barrier())).collect()
    }

    /// The barriers of everything sent so far to all other cores and nodes, for [`Self::are_receipted`].
    #[cfg(any(feature = "admin", feature = "cluster"))]
    pub(in crate::engine) fn barriers(&mut self) -> Vec<(CoreId, u64)> {
        self.peers().map(|core| (core, self.lanes.to(core).barrier())).collect()
    }

    /// The barriers of the cores to which the current message was forwarded.
    pub(in crate::engine) fn barriers_of_reached(&mut self) -> Vec<(CoreId, u64)> {
        let lanes = &mut self.lanes;
        self.reached.iter().map(|&core| (core, lanes.to(core).barrier())).collect()
    }

    /// Whether each core has processed and stored what was sent before its barrier.
    pub(in crate::engine) fn are_receipted(&self, barriers: &[(CoreId, u64)]) -> bool {
        self.lanes.are_receipted(barriers)
    }

    /// The store has all records up to a batch of them: receipts that waited for it may leave.
    pub(in crate::engine) fn note_stored(&mut self, up_to: u64) {
        for core in self.peers() {
            self.lanes.to(core).note_stored(up_to);
        }
    }

    /// Closes this turn's batch for a core, if there is something to send.
    fn seal(&mut self, to: CoreId, clock: u64, now: Now) -> Option<Batch> {
        let mut batch = self.lanes.seal(to, clock)?;
        batch.sent = now;
        Some(batch)
    }

    /// Notes that a batch was processed; its receipt waits for the store to have `records`, if there
    /// are any.
    fn note_taken(&mut self, from: CoreId, batch: Batch, records: Option<u64>) {
        self.lanes.to(from).note_taken(&batch, records);
        self.lanes.recycle(batch);
    }

    /// Whether there are batches that have been processed in part.
    #[inline]
    pub(in crate::engine) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Bytes under way to all other cores and nodes.
    pub(in crate::engine) fn bytes_under_way(&self) -> u64 {
        self.peers().map(|core| self.lanes.load_bytes(core) as u64).sum()
    }
}
