//! The result as wide tables.

use super::samples::{Samples, machine, median, spread};
use crate::{
    outcome::{Idle, Latency, Traffic},
    report::{self, Table},
    scenario::Scenario,
};

/// The whole summary.
pub fn text(samples: &Samples) -> String {
    let [traffic, idle] = [traffic_table(samples), idle_table(samples)];
    let mut text = format!("{}\n\n", machine());
    text.push_str(&[traffic, idle].into_iter().flatten().collect::<Vec<_>>().join("\n"));
    text.push_str(
        "\nMedians of the rounds; ratios are of medians, relative to the first broker.\n",
    );
    if pairs(samples).any(|(case, which)| !samples.is_saturated(case, which)) {
        text.push_str(
            "*: the broker was idle for more than 5% of the span: the generator or \
             the load was the limit,\nand CPU per delivery is not that of saturation. A larger \
             --burst makes the generator cheaper.\n",
        );
    }
    text
}

fn pairs(samples: &Samples) -> impl Iterator<Item = (usize, usize)> {
    let brokers = samples.brokers().len();
    (0..samples.workloads().len()).flat_map(move |case| (0..brokers).map(move |it| (case, it)))
}

/// The loads and brokers with values in one of the two tables.
fn shown(samples: &Samples, is_idle: bool) -> impl Iterator<Item = (usize, usize)> {
    pairs(samples).filter(move |&(case, which)| {
        let scenario = samples.workloads()[case].scenario;
        (scenario == Scenario::Connections) == is_idle && !samples.outcomes(case, which).is_empty()
    })
}

fn traffic_table(samples: &Samples) -> Option<String> {
    let mut table = Table::new(&[
        "load",
        "broker",
        "CPU µs/operation",
        "min–max",
        "ratio",
        "per second",
        "busy",
        "waiting",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "generator µs",
        "generator busy",
        "violations",
    ]);
    let mut any = false;
    for (case, which) in shown(samples, false) {
        any = true;
        table.push(traffic_row(samples, case, which));
    }
    any.then(|| table.markdown())
}

fn traffic_row(samples: &Samples, case: usize, which: usize) -> Vec<String> {
    let cpu_of =
        |which| samples.traffic(case, which, |traffic| traffic.broker_cpu_us.unwrap_or(f64::NAN));
    let (cpu, first) = (cpu_of(which), cpu_of(0));
    let middle = |value: fn(&Traffic) -> f64| median(&samples.traffic(case, which, value));
    let mark = if samples.is_saturated(case, which) { "" } else { "*" };
    let latency = |value: fn(&Latency) -> f64| {
        median(&samples.traffic(case, which, |traffic| value(&traffic.latency_us)))
    };
    vec![
        report::describe(&samples.workloads()[case]),
        samples.brokers()[which].clone(),
        format!("{:.3}", median(&cpu)),
        spread(&cpu),
        format!("{:.4}", median(&cpu) / median(&first)),
        format!("{:.0}", middle(|traffic| traffic.deliveries_per_second)),
        percent(middle(|traffic| traffic.broker_busy.unwrap_or(f64::NAN))),
        percent(middle(|traffic| traffic.broker_waiting.unwrap_or(f64::NAN))) + mark,
        format!("{:.0}", latency(|latency| latency.p50)),
        format!("{:.0}", latency(|latency| latency.p99)),
        format!("{:.0}", latency(|latency| latency.p999)),
        format!("{:.3}", middle(|traffic| traffic.generator_cpu_us)),
        percent(middle(|traffic| traffic.generator_busy)),
        wrong(samples, case, which),
    ]
}

fn idle_table(samples: &Samples) -> Option<String> {
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
    for (case, which) in shown(samples, true) {
        any = true;
        table.push(idle_row(samples, case, which));
    }
    any.then(|| table.markdown())
}

fn idle_row(samples: &Samples, case: usize, which: usize) -> Vec<String> {
    let bytes =
        |which| samples.idle(case, which, |idle| idle.bytes_per_connection.unwrap_or(f64::NAN));
    let middle = |value: fn(&Idle) -> f64| median(&samples.idle(case, which, value));
    vec![
        report::name(&samples.workloads()[case]),
        samples.brokers()[which].clone(),
        format!("{:.0}", median(&bytes(which))),
        spread(&bytes(which)),
        format!("{:.3}", median(&bytes(which)) / median(&bytes(0))),
        format!("{:.0}", middle(|idle| idle.connections_per_second)),
        format!("{:.1}", middle(|idle| idle.broker_cpu_us.unwrap_or(f64::NAN))),
        wrong(samples, case, which),
    ]
}

fn wrong(samples: &Samples, case: usize, which: usize) -> String {
    match samples.wrong_and_dropped(case, which) {
        (wrong, 0) => wrong.to_string(),
        (wrong, dropped) => format!("{wrong} ({dropped} dropped)"),
    }
}

fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}
