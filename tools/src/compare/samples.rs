//! The runs of all rounds by load and broker, and what becomes of a figure over them: medians,
//! their spread, and ratios of medians.

use std::collections::BTreeMap;

use crate::{
    error::Error,
    outcome::{Idle, Outcome, Traffic},
    report,
    scenario::Workload,
};

/// From this part of the span on, busy or waiting for its core, a broker counts as saturated.
const SATURATED: f64 = 0.95;

/// All runs.
#[derive(Debug)]
pub struct Samples {
    brokers: Vec<String>,
    workloads: Vec<Workload>,
    /// By load and broker.
    outcomes: BTreeMap<(usize, usize), Vec<Outcome>>,
    /// Why there is none.
    failures: BTreeMap<(usize, usize), String>,
}

impl Samples {
    /// None yet.
    pub fn new(brokers: Vec<String>, workloads: Vec<Workload>) -> Self {
        Self { brokers, workloads, outcomes: BTreeMap::new(), failures: BTreeMap::new() }
    }

    /// The brokers' names.
    pub fn brokers(&self) -> &[String] {
        &self.brokers
    }

    /// The loads.
    pub fn workloads(&self) -> &[Workload] {
        &self.workloads
    }

    /// Add a run.
    pub fn push(&mut self, case: usize, which: usize, outcome: Outcome) {
        self.outcomes.entry((case, which)).or_default().push(outcome);
    }

    /// Note that a broker gave no result; what other rounds gave does not count either.
    pub fn fail(&mut self, case: usize, which: usize, error: &Error) {
        self.outcomes.remove(&(case, which));
        self.failures.insert((case, which), error.to_string());
    }

    /// Whether a broker gave no result for a load.
    pub fn has_failed(&self, case: usize, which: usize) -> bool {
        self.failures.contains_key(&(case, which))
    }

    /// Whether there is no result at all.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// The runs of a broker under a load.
    pub fn outcomes(&self, case: usize, which: usize) -> &[Outcome] {
        self.outcomes.get(&(case, which)).map_or(&[], Vec::as_slice)
    }

    /// The value of each run that has one.
    pub fn traffic(&self, case: usize, which: usize, value: impl Fn(&Traffic) -> f64) -> Vec<f64> {
        let outcomes = self.outcomes(case, which);
        outcomes.iter().filter_map(|outcome| outcome.traffic.as_ref()).map(value).collect()
    }

    /// The same for idle connections.
    pub fn idle(&self, case: usize, which: usize, value: impl Fn(&Idle) -> f64) -> Vec<f64> {
        let outcomes = self.outcomes(case, which);
        outcomes.iter().filter_map(|outcome| outcome.idle.as_ref()).map(value).collect()
    }

    /// Whether the broker mostly had something to do, whether or not it got its core for it. An
    /// open loop does not mean to saturate it.
    pub fn is_saturated(&self, case: usize, which: usize) -> bool {
        let parts = self.traffic(case, which, |traffic| {
            let (busy, waiting) = (traffic.broker_busy, traffic.broker_waiting);
            busy.unwrap_or(f64::NAN) + waiting.unwrap_or(f64::NAN)
        });
        let is_open = matches!(self.workloads[case].load, crate::scenario::LoadMode::Open { .. });
        is_open || parts.is_empty() || median(&parts) >= SATURATED
    }

    /// Deliveries that were wrong, and those that were dropped as they may be.
    pub fn wrong_and_dropped(&self, case: usize, which: usize) -> (u64, u64) {
        let outcomes = self.outcomes(case, which);
        let wrong = |outcome: &Outcome| {
            outcome.violations.kinds().iter().map(|(_, count)| count).sum::<u64>()
        };
        (outcomes.iter().map(wrong).sum(), outcomes.iter().map(|outcome| outcome.dropped).sum())
    }

    /// Each broken promise, in words.
    pub fn violations(&self) -> impl Iterator<Item = String> {
        self.outcomes.iter().flat_map(move |(&(case, which), outcomes)| {
            let broken = outcomes.iter().filter(|outcome| !outcome.violations.is_clean());
            broken.map(move |outcome| {
                let workload = report::describe(&self.workloads[case]);
                let verdict = report::verdict(&outcome.violations);
                format!("{}: {workload}: {verdict}", self.brokers[which])
            })
        })
    }

    /// Each broker that gave no result for a load, and why.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(move |(&(case, which), why)| {
            let workload = report::describe(&self.workloads[case]);
            let first = why.lines().next().unwrap_or_default();
            let name = &self.brokers[which];
            format!("{name}: {workload}: {}", first.trim_start_matches(&format!("{name}: ")))
        })
    }
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, middle) if count % 2 == 1 => sorted[middle],
        (_, middle) => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The lowest and the highest.
pub fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let digits = if high < 100.0 { 3 } else { 0 };
    format!("{low:.digits$}–{high:.digits$}")
}

/// The machine's description: figures mean nothing without it.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu_information = read("/proc/cpuinfo");
    let model = cpu_information
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cores =
        cpu_information.lines().filter(|line| line.starts_with("processor")).count().max(cores);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or("unknown");
    format!(
        "{model}, {cores} cores, {} {}, loopback, load average at the end {load}",
        std::env::consts::OS,
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(spread(&[2.0, 1.0]), "1.000–2.000");
    }
}
