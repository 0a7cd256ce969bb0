//! One collection of the cores' statistics for several readers: the reporter that prints them, and metrics for
//! monitoring systems. A core hands out each recording once, so what one reader collects is kept for the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::latencies::{KINDS, Kind, Recording};
use crate::base::metrics::Metrics;
use crate::control::Cores;
use crate::stats::{Buckets, Collector, PATIENCE};

/// Statistics of all cores; clones share them.
#[derive(Clone, Debug)]
pub struct SharedStatistics(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    cores: Cores,
    collector: Collector,
    /// Since the start, of all cores, by kind.
    latencies: [Buckets; KINDS.len()],
    /// By core, what the reporter has not taken yet; empty without a reporter.
    for_reporter: Vec<Recording>,
}

/// Statistics since the start.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// By core, its counters; none if the core did not reply in time.
    pub cores: Vec<Option<Metrics>>,
    /// The counters of all cores. Those of a core that did not reply are as of its last reply, so that no counter
    /// falls.
    pub all: Metrics,
    latencies: [Buckets; KINDS.len()],
}

impl Snapshot {
    /// A snapshot for tests: what these cores counted, and what they recorded together.
    #[cfg(all(test, feature = "admin"))]
    pub fn of(cores: Vec<Option<Metrics>>, recording: &Recording) -> Self {
        let mut all = Metrics::default();
        cores.iter().flatten().for_each(|counted| all.add(counted));
        let mut latencies = <[Buckets; KINDS.len()]>::default();
        add(&mut latencies, &mut [], 0, recording);
        Self { cores, all, latencies }
    }

    /// How long something took, on all cores.
    pub fn latencies(&self, kind: Kind) -> &Buckets {
        &self.latencies[kind as usize]
    }

    /// The cores that did not reply in time.
    pub fn missing(&self) -> Vec<usize> {
        let cores = self.cores.iter().enumerate();
        cores.filter(|(_, counters)| counters.is_none()).map(|(core, _)| core).collect()
    }
}

impl SharedStatistics {
    /// What `collector` collects from `cores`.
    pub fn new(cores: Cores, collector: Collector, has_reporter: bool) -> Self {
        let readers = if has_reporter { collector.cores() } else { 0 };
        let for_reporter = vec![Recording::default(); readers];
        let latencies = Default::default();
        Self(Arc::new(Mutex::new(State { cores, collector, latencies, for_reporter })))
    }

    /// Whether what is recorded from now on is kept for a reporter.
    pub fn set_has_reporter(&self, has_reporter: bool) {
        let mut state = self.state();
        let readers = if has_reporter { state.collector.cores() } else { 0 };
        state.for_reporter = vec![Recording::default(); readers];
    }

    /// The number of cores.
    pub fn cores(&self) -> usize {
        self.state().collector.cores()
    }

    /// Asks all cores, and waits so long for their replies.
    pub fn snapshot(&self, patience: Duration) -> Snapshot {
        let mut state = self.state();
        state.collect(patience);
        let collector = &state.collector;
        let mut all = collector.metrics(0).clone();
        (1..collector.cores()).for_each(|core| all.add(collector.metrics(core)));
        let of_core = |core| collector.has_replied(core).then(|| collector.metrics(core).clone());
        let cores = (0..collector.cores()).map(of_core).collect();
        Snapshot { cores, all, latencies: state.latencies }
    }

    /// Asks all cores, and returns by core what was recorded since the reporter took it last, and the counters. With
    /// `is_last` the cores have stopped and are not asked.
    pub(super) fn take_for_reporter(&self, is_last: bool) -> (Vec<Recording>, Vec<Metrics>) {
        let mut state = self.state();
        match is_last {
            true => state.collect_last(),
            false => state.collect(PATIENCE),
        }
        let cores = 0..state.collector.cores();
        let counted = cores.map(|core| state.collector.metrics(core).clone()).collect();
        let empty = vec![Recording::default(); state.for_reporter.len()];
        (std::mem::replace(&mut state.for_reporter, empty), counted)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A reader that panicked has at most lost a part of what was recorded.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn collect(&mut self, patience: Duration) {
        let Self { cores, collector, latencies, for_reporter } = self;
        let take = |core, recording: &_| add(latencies, for_reporter, core, recording);
        collector.collect(cores, patience, take);
    }

    fn collect_last(&mut self) {
        let Self { collector, latencies, for_reporter, .. } = self;
        collector.collect_last(|core, recording| add(latencies, for_reporter, core, recording));
    }
}

fn add(
    latencies: &mut [Buckets; KINDS.len()],
    for_reporter: &mut [Recording],
    core: usize,
    recording: &Recording,
) {
    for (kind, ..) in recording.each() {
        latencies[kind as usize].add(recording.of(kind));
    }
    if let Some(unread) = for_reporter.get_mut(core) {
        unread.add(recording);
    }
}
