//! What the rounds come to: medians with their spread, and ratios of medians to the first broker.

use std::collections::BTreeMap;

use crate::{
    outcome::{Idle, Latency, Outcome, Traffic},
    report::{self, Table},
    scenario::{Scenario, Workload},
    verify::Tally,
};

/// From this part of the span on, busy or waiting for its core, a broker counts as saturated.
const SATURATED: f64 = 0.95;

/// The samples of every load and broker, looked at together.
#[derive(Debug)]
pub struct Summary<'a> {
    brokers: &'a [&'a str],
    workloads: &'a [Workload],
    /// By load and broker.
    samples: &'a BTreeMap<(usize, usize), Vec<Outcome>>,
}

impl<'a> Summary<'a> {
    /// A summary of these.
    pub fn new(
        brokers: &'a [&'a str],
        workloads: &'a [Workload],
        samples: &'a BTreeMap<(usize, usize), Vec<Outcome>>,
    ) -> Self {
        Self { brokers, workloads, samples }
    }

    /// All of it for people.
    pub fn text(&self) -> String {
        let [traffic, idle] = [self.traffic_table(), self.idle_table()];
        let mut text = format!("{}\n\n", machine());
        text.push_str(&[traffic, idle].into_iter().flatten().collect::<Vec<_>>().join("\n"));
        text.push_str("\nMedians of the rounds; ratios are of medians, to the first broker's.\n");
        if self.any_unsaturated() {
            text.push_str(
                "*: the broker had nothing to do for more than 5% of the span: the generator or \
                 the load was the limit,\nand CPU per delivery is not that of saturation. A larger \
                 --burst makes the generator cheaper.\n",
            );
        }
        text
    }

    /// Each broken promise, in words.
    pub fn violations(&self) -> impl Iterator<Item = String> {
        self.samples.iter().flat_map(move |(&(case, which), outcomes)| {
            let broken = outcomes.iter().filter(|outcome| !outcome.violations.is_clean());
            broken.map(move |outcome| {
                let workload = report::describe(&self.workloads[case]);
                let verdict = report::verdict(&outcome.violations);
                format!("{}: {workload}: {verdict}", self.brokers[which])
            })
        })
    }

    /// Whether the broker mostly had something to do, and whether or not it got its core for it.
    fn is_saturated(&self, case: usize, which: usize) -> bool {
        let parts = self.traffic(case, which, |traffic| {
            let (busy, waiting) = (traffic.broker_busy, traffic.broker_waiting);
            busy.unwrap_or(f64::NAN) + waiting.unwrap_or(f64::NAN)
        });
        // An idle scenario has no such part: nothing to say against it.
        parts.is_empty() || median(&parts) >= SATURATED
    }

    fn any_unsaturated(&self) -> bool {
        self.samples.keys().any(|&(case, which)| !self.is_saturated(case, which))
    }

    fn traffic_table(&self) -> Option<String> {
        let mut table = Table::new(&[
            "load",
            "broker",
            "CPU µs/delivery",
            "min–max",
            "ratio",
            "deliveries/s",
            "busy",
            "waiting",
            "p50 µs",
            "p99 µs",
            "generator µs",
            "its busy",
            "violations",
        ]);
        let mut any = false;
        for (case, workload) in self.workloads.iter().enumerate() {
            if workload.scenario == Scenario::Connections {
                continue;
            }
            any = true;
            for which in 0..self.brokers.len() {
                table.push(self.traffic_row(case, which));
            }
        }
        any.then(|| table.markdown())
    }

    fn traffic_row(&self, case: usize, which: usize) -> Vec<String> {
        let cpu = self.traffic(case, which, |traffic| traffic.broker_cpu_us.unwrap_or(f64::NAN));
        let first = self.traffic(case, 0, |traffic| traffic.broker_cpu_us.unwrap_or(f64::NAN));
        let middle = |value: fn(&Traffic) -> f64| median(&self.traffic(case, which, value));
        let mark = if self.is_saturated(case, which) { "" } else { "*" };
        let latency = |value: fn(&Latency) -> f64| {
            median(&self.traffic(case, which, |traffic| value(&traffic.latency_us)))
        };
        vec![
            report::describe(&self.workloads[case]),
            self.brokers[which].to_string(),
            format!("{:.3}", median(&cpu)),
            spread(&cpu),
            format!("{:.4}", median(&cpu) / median(&first)),
            format!("{:.0}", middle(|traffic| traffic.deliveries_per_second)),
            percent(middle(|traffic| traffic.broker_busy.unwrap_or(f64::NAN))),
            percent(middle(|traffic| traffic.broker_waiting.unwrap_or(f64::NAN))) + mark,
            format!("{:.0}", latency(|latency| latency.p50)),
            format!("{:.0}", latency(|latency| latency.p99)),
            format!("{:.3}", middle(|traffic| traffic.generator_cpu_us)),
            percent(middle(|traffic| traffic.generator_busy)),
            self.violation_count(case, which),
        ]
    }

    fn idle_table(&self) -> Option<String> {
        let mut table = Table::new(&[
            "load",
            "broker",
            "bytes/connection",
            "min–max",
            "ratio",
            "connections/s",
            "CPU µs/connection",
            "violations",
        ]);
        let mut any = false;
        for (case, workload) in self.workloads.iter().enumerate() {
            if workload.scenario != Scenario::Connections {
                continue;
            }
            any = true;
            for which in 0..self.brokers.len() {
                table.push(self.idle_row(case, which));
            }
        }
        any.then(|| table.markdown())
    }

    fn idle_row(&self, case: usize, which: usize) -> Vec<String> {
        let idle = |which, value: fn(&Idle) -> f64| -> Vec<f64> {
            let outcomes = &self.samples[&(case, which)];
            outcomes.iter().filter_map(|outcome| outcome.idle.as_ref()).map(value).collect()
        };
        let bytes = |which| idle(which, |idle| idle.bytes_per_connection.unwrap_or(f64::NAN));
        let middle = |value: fn(&Idle) -> f64| median(&idle(which, value));
        vec![
            report::name(&self.workloads[case]),
            self.brokers[which].to_string(),
            format!("{:.0}", median(&bytes(which))),
            spread(&bytes(which)),
            format!("{:.3}", median(&bytes(which)) / median(&bytes(0))),
            format!("{:.0}", middle(|idle| idle.connections_per_second)),
            format!("{:.1}", middle(|idle| idle.broker_cpu_us.unwrap_or(f64::NAN))),
            self.violation_count(case, which),
        ]
    }

    fn traffic(&self, case: usize, which: usize, value: impl Fn(&Traffic) -> f64) -> Vec<f64> {
        let outcomes = &self.samples[&(case, which)];
        outcomes.iter().filter_map(|outcome| outcome.traffic.as_ref()).map(value).collect()
    }

    fn violation_count(&self, case: usize, which: usize) -> String {
        let of = |tally: &Tally| tally.kinds().iter().map(|(_, count)| count).sum::<u64>();
        let outcomes = &self.samples[&(case, which)];
        outcomes.iter().map(|outcome| of(&outcome.violations)).sum::<u64>().to_string()
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, middle) if count % 2 == 1 => sorted[middle],
        (_, middle) => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let digits = if high < 100.0 { 3 } else { 0 };
    format!("{low:.digits$}–{high:.digits$}")
}

fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

/// The machine's description: figures mean nothing without it.
fn machine() -> String {
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
    format!("{model}, {cores} cores, {} {}, loopback", std::env::consts::OS, kernel.trim())
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
