//! Limits that apply to all cores of a process together: each core writes its own gauges, and reads
//! those of the others to check a limit. No other data is published through them, so Relaxed
//! suffices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use shards::NODES_MAX;
#[cfg(feature = "cluster")]
use shards::interest::{InterestReader, InterestWriter};

use crate::base::atomic::AtomicU64;
use crate::base::clock::Now;
use crate::base::ids::CoreId;
#[cfg(feature = "cluster")]
use crate::resources::interest::Interest;
use crate::resources::users::Users;

/// The window for `connections_per_second_max`, in microseconds.
const RATE_WINDOW_US: u64 = 1_000_000;

/// The gauges of one core, aligned to cache lines of their own, since one core writes them and
/// others read them.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Gauges {
    /// Bytes held by messages, queues and other state. Another core that frees the last reference
    /// subtracts its bytes.
    memory_bytes: AtomicU64,
    /// Bytes that wait to be taken by clients.
    output_bytes: AtomicU64,
    /// The part of `memory_bytes` that is unprocessed input of clients.
    input_bytes: AtomicU64,
    connections: AtomicU32,
    sessions: AtomicU32,
    /// Messages in the queues of sessions. Only the core itself changes it.
    messages_queued: AtomicU64,
    /// Their bytes. Only the core itself changes it.
    queue_bytes: AtomicU64,
    wildcard_subscriptions: AtomicU32,
    shared_subscriptions: AtomicU32,
    /// Start of the window that `accepted` counts in.
    window_began_us: AtomicU64,
    accepted: AtomicU32,
}

/// The memory accounting of one core: bytes of messages, queues and outboxes, its share of
/// `memory_bytes_max`.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Gauges>);

impl Ledger {
    /// Bytes currently held.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// The part of [`bytes`](Self::bytes) that waits to be taken by clients.
    pub fn output_bytes(&self) -> u64 {
        self.0.output_bytes.load(Relaxed)
    }

    /// Charges for output that waits.
    pub(crate) fn charge_output(&self, bytes: usize) {
        self.0.output_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Releases output that does not wait any more.
    pub(crate) fn release_output(&self, bytes: usize) {
        self.0.output_bytes.fetch_sub(bytes as u64, Relaxed);
    }

    pub(crate) fn charge(&self, bytes: usize) {
        self.0.memory_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.0.memory_bytes.fetch_sub(bytes as u64, Relaxed);
    }

    /// Replaces a charge of `before` bytes by one of `after` bytes.
    pub(crate) fn change(&self, before: usize, after: usize) {
        if before != after {
            self.charge(after);
            self.release(before);
        }
    }

    /// The part of [`bytes`](Self::bytes) that is unprocessed input of clients.
    pub fn input_bytes(&self) -> u64 {
        self.0.input_bytes.load(Relaxed)
    }

    /// Replaces a charge of `before` bytes of input by one of `after` bytes.
    pub(crate) fn change_input(&self, before: usize, after: usize) {
        if before != after {
            self.change(before, after);
            self.0.input_bytes.fetch_add(after as u64, Relaxed);
            self.0.input_bytes.fetch_sub(before as u64, Relaxed);
        }
    }

    /// Messages in the queues of sessions.
    pub fn messages_queued(&self) -> u64 {
        self.0.messages_queued.load(Relaxed)
    }

    /// Bytes of these messages.
    pub fn queue_bytes(&self) -> u64 {
        self.0.queue_bytes.load(Relaxed)
    }

    /// Counts a queue that has `after` messages and bytes instead of `before`. Only the core itself does.
    #[inline]
    pub(crate) fn change_queued(&self, before: (u64, u64), after: (u64, u64)) {
        if before != after {
            let queued = self.messages_queued() + after.0 - before.0;
            self.0.messages_queued.store(queued, Relaxed);
            let bytes = self.queue_bytes() + after.1 - before.1;
            self.0.queue_bytes.store(bytes, Relaxed);
        }
    }
}

impl Gauges {
    /// Bytes held in all.
    fn bytes(&self) -> u64 {
        self.memory_bytes.load(Relaxed) + self.output_bytes.load(Relaxed)
    }
}

/// A charge on a ledger, released on drop.
#[derive(Debug, Default)]
pub struct Charge {
    /// `None` until the first charge.
    ledger: Option<Ledger>,
    bytes: usize,
}

impl Charge {
    /// An empty charge on `ledger`.
    pub fn on(ledger: &Ledger) -> Self {
        Self { ledger: Some(ledger.clone()), bytes: 0 }
    }

    /// A charge of `bytes` on `ledger`.
    pub fn of(ledger: &Ledger, bytes: usize) -> Self {
        ledger.charge(bytes);
        Self { ledger: Some(ledger.clone()), bytes }
    }

    /// Sets the charge to `bytes`.
    #[inline]
    pub fn set(&mut self, ledger: &Ledger, bytes: usize) {
        if bytes != self.bytes {
            self.change(ledger, bytes);
        }
    }

    #[cold]
    fn change(&mut self, ledger: &Ledger, bytes: usize) {
        let ledger = self.ledger.get_or_insert_with(|| ledger.clone());
        ledger.charge(bytes);
        ledger.release(self.bytes);
        self.bytes = bytes;
    }

    /// Sets the charge to `bytes`, on the ledger of the first charge.
    pub fn update(&mut self, bytes: usize) {
        if let Some(ledger) = &self.ledger {
            ledger.change(self.bytes, bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(ledger) = &self.ledger {
            ledger.release(self.bytes);
        }
    }
}

/// The position of a core among the cores of its process, with the gauges of all of them.
///
/// In a cluster, an engine addresses each other node as one more core: node `n` has the number of cores plus `n`. After
/// all nodes comes the gateway of the process, which has gauges too.
#[derive(Clone, Debug)]
pub struct Place {
    core: CoreId,
    /// This core's entry of `all`.
    own: Ledger,
    /// The gauges of each core, and of the gateway.
    all: Arc<[Ledger]>,
    /// NUMA node of each core.
    nodes: Arc<[u16]>,
    /// In a cluster, the time of day at which the clock of the cores began, in microseconds since 1970: nodes compare
    /// times of retained messages.
    cluster: Option<u64>,
    /// What the other nodes of the cluster hold, for the cores and the gateway.
    #[cfg(feature = "cluster")]
    interest: Option<Arc<Interest>>,
    users: Users,
}

impl Place {
    /// A single core.
    pub fn alone() -> Self {
        Self::each(1).remove(0)
    }

    /// The places of `cores` cores, all on one NUMA node.
    pub fn each(cores: u16) -> Vec<Self> {
        Self::on_nodes(vec![0; usize::from(cores)])
    }

    /// The places of cores on the given NUMA nodes.
    pub fn on_nodes(nodes: Vec<u16>) -> Vec<Self> {
        let nodes: Arc<[u16]> = nodes.into();
        let all = nodes.iter().map(|_| Ledger::default()).collect();
        let users = Users::default();
        let first = Self {
            core: CoreId(0),
            own: Ledger::default(),
            all,
            nodes,
            cluster: None,
            #[cfg(feature = "cluster")]
            interest: None,
            users,
        };
        (0..first.cores()).map(|core| first.at(CoreId(core), core)).collect()
    }

    /// The places of cores on the given NUMA nodes, in a process of a cluster, and the place of its gateway. The clock of
    /// the cores began at this time of day, in microseconds since 1970. `seed` is unknown to clients.
    #[cfg(feature = "cluster")]
    pub fn in_cluster(nodes: Vec<u16>, began_us: u64, seed: u64) -> (Vec<Self>, Self) {
        let nodes: Arc<[u16]> = nodes.into();
        let all = nodes.iter().chain([&0]).map(|_| Ledger::default()).collect();
        let (own, users) = (Ledger::default(), Users::default());
        let interest = Some(Arc::new(Interest::new(nodes.len(), seed)));
        let cluster = Some(began_us);
        let first = Self { core: CoreId(0), own, all, nodes, cluster, interest, users };
        let cores = first.cores();
        let places = (0..cores).map(|core| first.at(CoreId(core), core)).collect();
        (places, first.at(first.node(NODES_MAX), cores))
    }

    /// The place of one core, with its entry of the gauges.
    fn at(&self, core: CoreId, entry: u16) -> Self {
        Self { core, own: self.all[usize::from(entry)].clone(), ..self.clone() }
    }

    /// The core as which an engine addresses a node of the cluster.
    pub fn node(&self, node: u16) -> CoreId {
        CoreId(self.cores() + node)
    }

    /// The core as which an engine addresses the gateway of its process; none without a cluster.
    pub fn gateway(&self) -> Option<CoreId> {
        self.cluster.map(|_| self.node(NODES_MAX))
    }

    /// What this core reads of what the other nodes of the cluster hold, once; none without a cluster.
    #[cfg(feature = "cluster")]
    pub(crate) fn take_interest_reader(&self) -> Option<InterestReader> {
        self.interest.as_ref()?.take_reader(self.core)
    }

    /// What the gateway writes of what the other nodes hold, once; none without a cluster.
    #[cfg(feature = "cluster")]
    pub(crate) fn take_interest_writer(&self) -> Option<InterestWriter> {
        self.interest.as_ref()?.take_writer()
    }

    /// What to add to the clock of the cores for stamps of retained messages, in microseconds.
    pub fn stamps_begin_us(&self) -> u64 {
        self.cluster.unwrap_or(0)
    }

    /// The number of cores that an engine addresses: the cores of its process, all nodes that a cluster can have, and the
    /// gateway.
    pub fn addresses(&self) -> u16 {
        self.cores() + if self.cluster.is_some() { NODES_MAX + 1 } else { 0 }
    }

    /// NUMA node of each core.
    pub fn nodes(&self) -> &[u16] {
        &self.nodes
    }

    /// The number of this core.
    #[inline]
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Number of cores.
    pub fn cores(&self) -> u16 {
        self.nodes.len() as u16
    }

    /// The other cores.
    pub fn others(&self) -> impl Iterator<Item = CoreId> + use<> {
        let own = self.core.0;
        (0..self.cores()).filter(move |&core| core != own).map(CoreId)
    }

    /// This core's ledger.
    #[inline]
    pub fn ledger(&self) -> &Ledger {
        &self.own
    }

    /// The users of all cores.
    pub fn users(&self) -> &Users {
        &self.users
    }

    fn own(&self) -> &Gauges {
        &self.ledger().0
    }

    fn sum_elsewhere<T: std::iter::Sum>(&self, gauge: impl Fn(&Gauges) -> T) -> T {
        let elsewhere = self.all.iter().filter(|all| !Arc::ptr_eq(&all.0, &self.own.0));
        elsewhere.map(|all| gauge(&all.0)).sum()
    }

    /// Bytes on the ledgers of the other cores.
    pub fn memory_bytes_elsewhere(&self) -> u64 {
        self.sum_elsewhere(Gauges::bytes)
    }

    /// Bytes of unprocessed input on the other cores.
    pub fn input_bytes_elsewhere(&self) -> u64 {
        self.sum_elsewhere(|gauges| gauges.input_bytes.load(Relaxed))
    }

    /// Sets the number of connections of this core.
    pub fn set_connections(&self, connections: usize) {
        self.own().connections.store(connections as u32, Relaxed);
    }

    /// Number of connections on the other cores.
    pub fn connections_elsewhere(&self) -> usize {
        self.sum_elsewhere(|gauges| gauges.connections.load(Relaxed) as usize)
    }

    /// Sets the number of sessions of this core.
    pub fn set_sessions(&self, sessions: usize) {
        self.own().sessions.store(sessions as u32, Relaxed);
    }

    /// Number of sessions on the other cores.
    pub fn sessions_elsewhere(&self) -> usize {
        self.sum_elsewhere(|gauges| gauges.sessions.load(Relaxed) as usize)
    }

    /// Sets the numbers of wildcard and of shared subscriptions of this core.
    pub fn set_subscriptions(&self, wildcard: usize, shared: usize) {
        self.own().wildcard_subscriptions.store(wildcard as u32, Relaxed);
        self.own().shared_subscriptions.store(shared as u32, Relaxed);
    }

    /// Number of wildcard subscriptions on the other cores.
    pub fn wildcard_subscriptions_elsewhere(&self) -> usize {
        self.sum_elsewhere(|gauges| gauges.wildcard_subscriptions.load(Relaxed) as usize)
    }

    /// Number of shared subscriptions on the other cores.
    pub fn shared_subscriptions_elsewhere(&self) -> usize {
        self.sum_elsewhere(|gauges| gauges.shared_subscriptions.load(Relaxed) as usize)
    }

    /// Counts an accepted connection, unless all cores together have accepted `rate_max` within a
    /// second; 0 means no limit.
    pub fn accept(&self, now: Now, rate_max: u32) -> bool {
        if rate_max == 0 {
            return true;
        }
        let own = self.own();
        if now.since_us(Now(own.window_began_us.load(Relaxed))) >= RATE_WINDOW_US {
            own.window_began_us.store(now.0, Relaxed);
            own.accepted.store(0, Relaxed);
        }
        let elsewhere: u32 = self.sum_elsewhere(|gauges| {
            let began = Now(gauges.window_began_us.load(Relaxed));
            let counts = now.since_us(began) < RATE_WINDOW_US;
            if counts { gauges.accepted.load(Relaxed) } else { 0 }
        });
        let accepted = own.accepted.load(Relaxed);
        if accepted + elsewhere >= rate_max {
            return false;
        }
        own.accepted.store(accepted + 1, Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_sees_the_gauges_of_the_others_without_its_own() {
        let places = Place::each(3);
        places[0].set_connections(5);
        places[2].set_connections(7);
        places[1].ledger().charge(7);
        places[1].ledger().change_input(0, 5);
        places[1].ledger().change_input(5, 3);
        let seen: Vec<usize> = places.iter().map(Place::connections_elsewhere).collect();
        assert_eq!(seen, [7, 12, 5]);
        assert_eq!(places[0].memory_bytes_elsewhere(), 10);
        assert_eq!(places[1].memory_bytes_elsewhere(), 0);
        let input: Vec<u64> = places.iter().map(Place::input_bytes_elsewhere).collect();
        assert_eq!(input, [3, 0, 3]);
    }

    #[test]
    fn a_charge_is_on_the_ledger_until_it_is_dropped() {
        let ledger = Ledger::default();
        let mut charge = Charge::default();
        charge.set(&ledger, 100);
        charge.set(&ledger, 60);
        assert_eq!(ledger.bytes(), 60);
        charge.update(80);
        let other = Charge::on(&ledger);
        assert_eq!(ledger.bytes(), 80);
        drop((charge, other));
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn the_connection_rate_is_limited_over_all_cores_together() {
        let places = Place::each(2);
        let accepted = |now| (0..10).filter(|&n| places[n % 2].accept(Now(now), 4)).count();
        assert_eq!(accepted(2_000_000), 4);
        assert_eq!(accepted(2_999_999), 0);
        assert_eq!(accepted(3_000_000), 4);
        assert!((0..10).all(|_| places[0].accept(Now(3_000_000), 0)));
    }
}
