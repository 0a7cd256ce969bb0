//! The runs of all rounds by load and broker, and their statistics: medians, spread, and ratios of
//! medians.

use std::collections::BTreeMap;

use crate::{
    error::Error,
    outcome::{Idle, Outcome, Traffic},
    report,
    scenario::Workload,
};

/// A broker that was busy, or waiting for its core, for this fraction of the span counts as
/// saturated.
const SATURATED: f64 = 0.95;

/// All runs.
#[derive(Debug)]
pub struct Samples {
    brokers: Vec<String>,
    workloads: Vec<Workload>,
    /// By load and broker.
    outcomes: BTreeMap<(usize, usize), Vec<Outcome>>,
    /// The reason for a missing result.
    failures: BTreeMap<(usize, usize), String>,
}

impl Samples {
    /// Creates an empty collection.
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

    /// Adds a run.
    pub fn push(&mut self, case: usize, which: usize, outcome: Outcome) {
        self.outcomes.entry((case, which)).or_default().push(outcome);
    }

    /// Records that a broker gave no result; its results in other rounds are not used either.
    pub fn fail(&mut self, case: usize, which: usize, error: &Error) {
        self.outcomes.remove(&(case, which));
        self.failures.insert((case, which), error.to_string());
    }

    /// Whether a broker gave no result for a load.
    pub fn has_failed(&self, case: usize, which: usize) -> bool {
        self.failures.contains_key(&(case, which))
    }

    /// Whether there are no results.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// The runs of a broker with a load.
    pub fn outcomes(&self, case: usize, which: usize) -> &[Outcome] {
        self.outcomes.get(&(case, which)).map_or(&[], Vec::as_slice)
    }

    /// The value of each run that has one.
    pub fn traffic(&self, case: usize, which: usize, value: impl Fn(&Traffic) -> f64) -> Vec<f64> {
        let outcomes = self.outcomes(case, which);
        outcomes.iter().filter_map(|outcome| outcome.traffic.as_ref()).map(value).collect()
    }

    /// The value of each run with idle connections.
    pub fn idle(&self, case: usize, which: usize, value: impl Fn(&Idle) -> f64) -> Vec<f64> {
        let outcomes = self.outcomes(case, which);
        outcomes.iter().filter_map(|outcome| outcome.idle.as_ref()).map(value).collect()
    }

    /// Whether the broker mostly had work, including time when it waited for its core. An open loop
    /// does not aim to saturate it.
    pub fn is_saturated(&self, case: usize, which: usize) -> bool {
        let parts = self.traffic(case, which, |traffic| {
            let (busy, waiting) = (traffic.broker_busy, traffic.broker_waiting);
            busy.unwrap_or(f64::NAN) + waiting.unwrap_or(f64::NAN)
        });
        let is_open = matches!(self.workloads[case].load, crate::scenario::LoadMode::Open { .. });
        is_open || parts.is_empty() || median(&parts) >= SATURATED
    }

    /// Numbers of wrong deliveries, and of permitted drops.
    pub fn wrong_and_dropped(&self, case: usize, which: usize) -> (u64, u64) {
        let outcomes = self.outcomes(case, which);
        let wrong = |outcome: &Outcome| {
            outcome.violations.kinds().iter().map(|(_, count)| count).sum::<u64>()
        };
        (outcomes.iter().map(wrong).sum(), outcomes.iter().map(|outcome| outcome.dropped).sum())
    }

    /// Descriptions of all violations.
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

    /// Each broker without a result for a load, with the reason.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(move |(&(case, which), why)| {
            let workload = report::describe(&self.workloads[case]);
            let first = why.lines().next().unwrap_or_default();
            let name = &self.brokers[which];
            format!("{name}: {workload}: {}", first.trim_start_matches(&format!("{name}: ")))
        })
    }
}

/// The middle value, or the mean of the two middle values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, middle) if count % 2 == 1 => sorted[middle],
        (_, middle) => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The lowest and the highest value.
pub fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let digits = if high < 100.0 { 3 } else { 0 };
    format!("{low:.digits$}–{high:.digits$}")
}

/// The machine's description, without which figures are meaningless.
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
