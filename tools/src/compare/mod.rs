//! Brokers side by side: each is started afresh for each load, pinned alike, in rounds that
//! interleave them, so that whatever else the machine does meets all of them.

mod broker;
mod summary;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    affinity,
    cli::{CompareArgs, Format},
    error::{Error, Result},
    outcome::Outcome,
    processes, report,
    scenario::{Scenario, Workload},
};
pub use broker::{BrokerKind, RunningBroker};
use summary::Summary;

/// One run of one broker, as it is printed for programs.
#[derive(Debug, Serialize)]
struct Sample<'a> {
    broker: &'a str,
    round: u32,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

/// All rounds; whether no broker broke a promise.
pub fn compare(args: &CompareArgs) -> Result<bool> {
    let brokers = args
        .brokers
        .iter()
        .map(|text| BrokerKind::parse(text, args))
        .collect::<Result<Vec<BrokerKind>>>()?;
    let workloads = workloads(args)?;
    if brokers.is_empty() || workloads.is_empty() {
        return Err(Error::Usage("nothing to compare".into()));
    }
    let mut samples: BTreeMap<(usize, usize), Vec<Outcome>> = BTreeMap::new();
    for round in 0..args.rounds {
        for (case, workload) in workloads.iter().enumerate() {
            // Each round another broker is first.
            for turn in 0..brokers.len() {
                let which = (turn + round as usize) % brokers.len();
                let broker = &brokers[which];
                eprintln!("round {}: {}: {}", round + 1, broker.name(), report::name(workload));
                let outcome = run_one(args, broker, *workload)?;
                if args.format == Format::Json {
                    let broker = broker.name();
                    report::print_json(&Sample { broker, round, outcome: &outcome })?;
                }
                samples.entry((case, which)).or_default().push(outcome);
            }
        }
    }
    let names: Vec<&str> = brokers.iter().map(BrokerKind::name).collect();
    let summary = Summary::new(&names, &workloads, &samples);
    if args.format == Format::Table {
        report::print(&summary.text())?;
    }
    summary.violations().for_each(|violation| eprintln!("ringmq-bench: VIOLATION: {violation}"));
    Ok(summary.violations().next().is_none())
}

/// Every load that was asked for; idle connections once for each version, as QoS is nothing to
/// them.
fn workloads(args: &CompareArgs) -> Result<Vec<Workload>> {
    let mut workloads = Vec::new();
    for &scenario in &args.scenarios {
        for &mqtt in &args.mqtt {
            let qos = if scenario == Scenario::Connections { &args.qos[..1] } else { &args.qos };
            for &qos in qos {
                workloads.push(args.load.workload(scenario, qos, mqtt)?);
            }
        }
    }
    Ok(workloads)
}

fn run_one(args: &CompareArgs, broker: &BrokerKind, workload: Workload) -> Result<Outcome> {
    let running = broker.start(args.port, &args.broker_cores)?;
    affinity::pin_to(&args.generator_cores)?;
    let span = &args.load.span;
    let settings = span.settings(running.address(), Some(running.meter()?), &workload);
    processes::measure(workload, span.processes, settings)
        .map_err(|error| running.explain(broker.name(), error))
}
