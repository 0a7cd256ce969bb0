//! Results as text: tables for people, one JSON object per line for programs.

mod table;

pub use table::Table;

use std::io::{self, Write};

use crate::{
    error::{Error, Result},
    outcome::{Latency, Outcome},
    scenario::{LoadMode, Scenario, Workload},
    transport::Kind,
    verify::Tally,
};

/// The figures of a run, one per line.
pub fn outcome_text(outcome: &Outcome) -> String {
    let over = match outcome.transport {
        Kind::Tcp => String::new(),
        kind => format!(", over {}", kind.name()),
    };
    let mut lines = vec![format!("{}{over}", describe(&outcome.workload))];
    if let Some(traffic) = &outcome.traffic {
        let (unit, units) = outcome.workload.scenario.unit();
        lines.push(format!(
            "  {units:<12} {} in {:.2} s, {:.0} a second; begun {}",
            traffic.delivered, traffic.span_s, traffic.deliveries_per_second, traffic.published
        ));
        if let (Some(cpu), Some(busy)) = (traffic.broker_cpu_us, traffic.broker_busy) {
            let busy = busy * 100.0;
            lines.push(format!("  broker       {cpu:.3} µs a {unit}, {busy:.0}% busy"));
        }
        lines.push(format!(
            "  generator    {:.3} µs a {unit}, {:.0}% busy",
            traffic.generator_cpu_us,
            traffic.generator_busy * 100.0
        ));
        lines.push(latency_text(&traffic.latency_us));
    }
    if let Some(idle) = &outcome.idle {
        lines.push(format!(
            "  connections  {} made at {:.0} a second",
            idle.connections, idle.connections_per_second
        ));
        if let (Some(bytes), Some(cpu)) = (idle.bytes_per_connection, idle.broker_cpu_us) {
            lines.push(format!("  broker       {bytes:.0} bytes and {cpu:.1} µs each"));
        }
        lines.push(latency_text(&idle.latency_us));
    }
    if outcome.dropped > 0 {
        let dropped = outcome.dropped;
        lines.push(format!("  dropped      {dropped}, as permitted at QoS 0 in an open loop"));
    }
    if outcome.disordered > 0 {
        let disordered = outcome.disordered;
        lines.push(format!("  disordered   {disordered}, as permitted in a group"));
    }
    lines.push(format!("  verified     {}", verdict_of(outcome)));
    lines.join("\n")
}

fn latency_text(latency: &Latency) -> String {
    format!(
        "  latency µs   mean {:.0}  p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  p99.99 {:.0}  \
         max {:.0}",
        latency.mean,
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p999,
        latency.p9999,
        latency.max
    )
}

fn verdict_of(outcome: &Outcome) -> String {
    let (unit, _) = outcome.workload.scenario.unit();
    if outcome.violations.is_clean() && unit != "delivery" {
        return format!("every {unit} correct");
    }
    if outcome.violations.is_clean() && outcome.disordered > 0 {
        return "every delivery once".into();
    }
    verdict(&outcome.violations)
}

/// A description of the violations.
pub fn verdict(tally: &Tally) -> String {
    if tally.is_clean() {
        return "every delivery once and in order".into();
    }
    let found = tally.kinds().into_iter().filter(|(_, count)| *count > 0);
    found.map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

/// A workload in one line.
pub fn describe(workload: &Workload) -> String {
    let load = match workload.load {
        LoadMode::Closed { .. } if !has_window(workload.scenario) => "closed loop".into(),
        load => load_name(&load),
    };
    format!("{}, {load}", name(workload))
}

/// The properties that distinguish a workload from the others of a comparison.
pub fn name(workload: &Workload) -> String {
    let clients = match (workload.publishers, workload.subscribers) {
        (0, clients) | (clients, 0) => clients.to_string(),
        (publishers, subscribers) => format!("{publishers}→{subscribers}"),
    };
    let set = match workload.scenario {
        Scenario::Retained => format!(" of {} messages", workload.topics),
        Scenario::FanOut if workload.topics > 1 => format!(" by {} topics", workload.topics),
        _ => String::new(),
    };
    format!(
        "{} {clients}{set} QoS {} MQTT {} {} B",
        workload.scenario.name(),
        workload.qos.bits(),
        workload.mqtt.name(),
        workload.payload_bytes
    )
}

fn load_name(load: &LoadMode) -> String {
    match load {
        LoadMode::Closed { window, burst } => format!("window {window}, burst {burst}"),
        LoadMode::Open { per_second } => format!("{per_second} a second"),
    }
}

/// Whether a closed loop of this scenario has a window per client: others have one pending request
/// at a time.
fn has_window(scenario: Scenario) -> bool {
    scenario.is_traffic() || scenario == Scenario::Sub
}

/// Prints to standard output; a closed pipe is an error like any other.
pub fn print(text: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").map_err(|source| Error::io("print", source))
}

/// Prints one JSON object on a line.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Error::io("print", error.into()))?;
    print(&text)
}
