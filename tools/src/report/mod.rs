//! Results as text: tables for people, one JSON object a line for programs.

mod table;

pub use table::Table;

use std::io::{self, Write};

use crate::{
    error::{Error, Result},
    load::Outcome,
    scenario::{LoadMode, Workload},
    verify::Tally,
};

/// The figures of one run, one a line.
pub fn outcome_text(outcome: &Outcome) -> String {
    let mut lines = vec![describe(&outcome.workload)];
    if let Some(traffic) = &outcome.traffic {
        let latency = traffic.latency_us;
        lines.push(format!(
            "  deliveries   {} in {:.2} s of {} messages, {:.0} a second",
            traffic.delivered, traffic.span_s, traffic.published, traffic.deliveries_per_second
        ));
        if let (Some(cpu), Some(busy)) = (traffic.broker_cpu_us, traffic.broker_busy) {
            let busy = busy * 100.0;
            lines.push(format!("  broker       {cpu:.3} µs a delivery, {busy:.0}% busy"));
        }
        lines.push(format!(
            "  generator    {:.3} µs a delivery, {:.0}% busy",
            traffic.generator_cpu_us,
            traffic.generator_busy * 100.0
        ));
        lines.push(format!(
            "  latency µs   p50 {:.0}  p99 {:.0}  p99.9 {:.0}  p99.99 {:.0}  max {:.0}",
            latency.p50, latency.p99, latency.p999, latency.p9999, latency.max
        ));
    }
    if let Some(idle) = &outcome.idle {
        lines.push(format!(
            "  connections  {} made at {:.0} a second",
            idle.connections, idle.connections_per_second
        ));
        if let (Some(bytes), Some(cpu)) = (idle.bytes_per_connection, idle.broker_cpu_us) {
            lines.push(format!("  broker       {bytes:.0} bytes and {cpu:.1} µs each"));
        }
    }
    lines.push(format!("  verified     {}", verdict(&outcome.violations)));
    lines.join("\n")
}

/// What was wrong, in words.
pub fn verdict(tally: &Tally) -> String {
    if tally.is_clean() {
        return "every delivery once and in order".into();
    }
    let found = tally.kinds().into_iter().filter(|(_, count)| *count > 0);
    found.map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

/// A workload in a line.
pub fn describe(workload: &Workload) -> String {
    format!("{}, {}", name(workload), load_name(&workload.load))
}

/// What tells a workload from the others of a comparison.
pub fn name(workload: &Workload) -> String {
    format!(
        "{} {}→{} QoS {} MQTT {} {} B",
        workload.scenario.name(),
        workload.publishers,
        workload.subscribers,
        workload.qos.bits(),
        workload.mqtt.name(),
        workload.payload_bytes
    )
}

fn load_name(load: &LoadMode) -> String {
    match load {
        LoadMode::Closed { window, burst } => format!("window {window}, burst {burst}"),
        LoadMode::Open { messages_per_second } => format!("{messages_per_second} messages/s"),
    }
}

/// Print to standard output; a reader that went away is an error like any other.
pub fn print(text: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").map_err(|source| Error::io("print", source))
}

/// Print one JSON object on a line.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Error::io("print", error.into()))?;
    print(&text)
}
