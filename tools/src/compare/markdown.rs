//! The result as a Markdown table: one row per load and figure, one column per broker; the first
//! broker's figures as measured, those of the others also as ratios.

use super::samples::{Samples, machine, median};
use crate::{
    codec::Version,
    report::Table,
    scenario::{LoadMode, Scenario, Workload},
};

/// A row of a load.
struct Figure {
    name: String,
    /// The value of a broker's runs for a load.
    of: fn(&Samples, usize, usize) -> Vec<f64>,
    write: fn(f64) -> String,
}

/// The table, with the machine above and footnotes below.
pub fn text(samples: &Samples, rounds: u32, is_real_time: bool) -> String {
    let mut columns = vec!["load", ""];
    columns.extend(samples.brokers().iter().map(String::as_str));
    let mut table = Table::new(&columns);
    for case in 0..samples.workloads().len() {
        let workload = &samples.workloads()[case];
        for (number, figure) in figures(workload).into_iter().enumerate() {
            let load = if number == 0 { load_name(workload) } else { String::new() };
            let mut row = vec![load, figure.name.clone()];
            let brokers = 0..samples.brokers().len();
            row.extend(brokers.map(|which| cell(samples, case, which, &figure)));
            table.push(row);
        }
    }
    let brokers = samples.brokers().len();
    let mut text = format!(
        "{}; medians of {rounds} rounds{}. In brackets: how many times the figure of {}.\n\n{}",
        machine(),
        if is_real_time { ", latencies of broker and generator at SCHED_FIFO" } else { "" },
        samples.brokers()[0],
        table.markdown()
    );
    let any = |test: &dyn Fn(usize, usize) -> bool| {
        (0..samples.workloads().len()).any(|case| (0..brokers).any(|which| test(case, which)))
    };
    let mut notes = Vec::new();
    if any(&|case, which| !samples.is_saturated(case, which)) {
        notes.push("*: idle for more than 5% of the time; the load was the limit.");
    }
    if any(&|case, which| samples.wrong_and_dropped(case, which).0 > 0) {
        notes.push("†: some deliveries were wrong; the command prints which.");
    }
    if any(&|case, which| samples.wrong_and_dropped(case, which).1 > 0) {
        notes.push("‡: some messages were dropped, as QoS 0 allows.");
    }
    if any(&|case, which| samples.has_failed(case, which)) {
        notes.push("—: no result; the command prints the reason.");
    }
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes.join(" "));
        text.push('\n');
    }
    text
}

fn figures(workload: &Workload) -> Vec<Figure> {
    let (unit, units) = workload.scenario.unit();
    let cpu = Figure {
        name: format!("CPU µs a {unit}"),
        of: |samples, case, which| {
            samples.traffic(case, which, |traffic| traffic.broker_cpu_us.unwrap_or(f64::NAN))
        },
        write: significant,
    };
    let rate = Figure {
        name: format!("{units}/s"),
        of: |samples, case, which| {
            samples.traffic(case, which, |traffic| traffic.deliveries_per_second)
        },
        write: count,
    };
    let percentile = |name: &str, of| Figure { name: name.into(), of, write: significant };
    match (workload.scenario, workload.load) {
        (Scenario::Connections, _) => vec![
            Figure {
                name: "bytes each".into(),
                of: |samples, case, which| {
                    samples.idle(case, which, |idle| idle.bytes_per_connection.unwrap_or(f64::NAN))
                },
                write: count,
            },
            Figure {
                name: "connections/s".into(),
                of: |samples, case, which| {
                    samples.idle(case, which, |idle| idle.connections_per_second)
                },
                write: count,
            },
        ],
        (_, LoadMode::Open { .. }) => vec![
            percentile("p50 µs", |samples, case, which| {
                samples.traffic(case, which, |traffic| traffic.latency_us.p50)
            }),
            percentile("p99 µs", |samples, case, which| {
                samples.traffic(case, which, |traffic| traffic.latency_us.p99)
            }),
            percentile("p99.9 µs", |samples, case, which| {
                samples.traffic(case, which, |traffic| traffic.latency_us.p999)
            }),
        ],
        (Scenario::ReconnectStorm | Scenario::Retained, _) => vec![
            cpu,
            rate,
            percentile("p99 µs", |samples, case, which| {
                samples.traffic(case, which, |traffic| traffic.latency_us.p99)
            }),
        ],
        _ => vec![cpu, rate],
    }
}

fn cell(samples: &Samples, case: usize, which: usize, figure: &Figure) -> String {
    if samples.has_failed(case, which) {
        return "—".into();
    }
    let value = median(&(figure.of)(samples, case, which));
    let mut text = (figure.write)(value);
    if which > 0 {
        let first = median(&(figure.of)(samples, case, 0));
        if first > 0.0 {
            text.push_str(&format!(" ({}×)", significant(value / first)));
        }
    }
    let (wrong, dropped) = samples.wrong_and_dropped(case, which);
    let marks = [(!samples.is_saturated(case, which), '*'), (wrong > 0, '†'), (dropped > 0, '‡')];
    text.extend(marks.into_iter().filter_map(|(holds, mark)| holds.then_some(mark)));
    text
}

fn load_name(workload: &Workload) -> String {
    let Workload { scenario, publishers, subscribers, topics, qos, .. } = *workload;
    let what = match scenario {
        Scenario::Retained => format!("retained, {topics} → {subscribers}"),
        Scenario::Connections => format!("{subscribers} idle connections"),
        _ if subscribers == 0 => format!("{} {publishers}", scenario.name()),
        _ if publishers == 0 => format!("{} {subscribers}", scenario.name()),
        _ => format!("{} {publishers} → {subscribers}", scenario.name()),
    };
    let qos = if scenario.has_qos() { format!(", QoS {}", qos.bits()) } else { String::new() };
    let mqtt = match workload.mqtt {
        Version::V311 => "",
        Version::V5 => ", MQTT 5.0",
    };
    let load = match workload.load {
        LoadMode::Open { per_second } => {
            format!(", {} deliveries/s", count(per_second * f64::from(workload.receivers())))
        }
        LoadMode::Closed { .. } => String::new(),
    };
    format!("{what}{qos}{mqtt}{load}")
}

/// Three significant digits.
fn significant(value: f64) -> String {
    match value {
        value if !value.is_finite() => "?".into(),
        value if value >= 100.0 => count(value),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value if value >= 0.01 => format!("{value:.3}"),
        value => format!("{value:.4}"),
    }
}

/// An integer with thousands separators.
fn count(value: f64) -> String {
    if !value.is_finite() {
        return "?".into();
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_for_people() {
        assert_eq!(count(11_700_123.4), "11,700,123");
        assert_eq!(
            (count(999.0), count(-1_000.0), count(0.2)),
            ("999".into(), "-1,000".into(), "0".into())
        );
        assert_eq!(significant(104.2), "104");
        assert_eq!((significant(10.58), significant(0.1023)), ("10.6".into(), "0.102".into()));
        assert_eq!(significant(f64::NAN), "?");
    }
}
