//! Compares brokers: each is started again for each load, pinned in the same way, in interleaved
//! rounds, so that other activity of the machine affects all of them.

mod broker;
mod markdown;
mod peers;
mod samples;
mod summary;

use std::path::Path;

use serde::Serialize;

use crate::{
    affinity, certificate,
    cli::{CompareArgs, Format},
    error::{Error, Result},
    outcome::Outcome,
    processes,
    real_time::RealTime,
    report,
    scenario::{LoadMode, Scenario, Workload},
    transport::Transport,
};
use broker::Folder;
pub use broker::{BrokerKind, RunningBroker};
pub use peers::ringmq_binary;
use samples::Samples;

/// One run of one broker, as printed for programs.
#[derive(Debug, Serialize)]
struct Sample<'a> {
    broker: &'a str,
    round: u32,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

/// Runs all rounds; returns whether no broker had a violation. An error if a broker gave no result
/// at all for a load.
pub fn compare(args: &CompareArgs) -> Result<bool> {
    let certificates = Certificates::for_all(args)?;
    let brokers = args
        .brokers
        .iter()
        .map(|text| BrokerKind::parse(text, args, &certificates))
        .collect::<Result<Vec<BrokerKind>>>()?;
    let workloads = workloads(args)?;
    if brokers.is_empty() || workloads.is_empty() {
        return Err(Error::Usage("nothing to compare".into()));
    }
    let names = brokers.iter().map(|broker| broker.name().to_string()).collect();
    let mut samples = Samples::new(names, workloads);
    for round in 0..args.rounds {
        run_round(args, &certificates, &brokers, round, &mut samples)?;
    }
    match args.format {
        Format::Json => {}
        Format::Table => report::print(&summary::text(&samples))?,
        Format::Markdown => report::print(&markdown::text(&samples, args.rounds, args.real_time))?,
    }
    samples.violations().for_each(|violation| eprintln!("ringmq-bench: VIOLATION: {violation}"));
    samples.failures().for_each(|failure| eprintln!("ringmq-bench: NO RESULT: {failure}"));
    match samples.failures().next() {
        Some(failure) if samples.is_empty() => Err(Error::Broker(failure)),
        _ => Ok(samples.violations().next().is_none()),
    }
}

/// The transport of all brokers, and the certificate for it.
struct Certificates {
    transport: Transport,
    folder: Option<Folder>,
}

impl Certificates {
    fn for_all(args: &CompareArgs) -> Result<Self> {
        let mut spoken = args.transport.clone();
        if spoken.ca.is_some() {
            return Err(Error::Usage("compare creates its own certificate: omit --ca".into()));
        }
        let folder = spoken.tls.then(Folder::new).transpose()?;
        if let Some(folder) = &folder {
            certificate::write(folder.path(), None)?;
            spoken.ca = Some(folder.path().join(certificate::AUTHORITY));
        }
        Ok(Self { transport: spoken.transport()?, folder })
    }

    /// Replaces {certificates} by the folder.
    fn fill(&self, text: &str) -> String {
        let folder = self.folder.as_ref().map_or(Path::new(""), |folder| folder.path());
        text.replace("{certificates}", &folder.display().to_string())
    }
}

fn run_round(
    args: &CompareArgs,
    certificates: &Certificates,
    brokers: &[BrokerKind],
    round: u32,
    samples: &mut Samples,
) -> Result<()> {
    for case in 0..samples.workloads().len() {
        // Each round starts with another broker.
        for turn in 0..brokers.len() {
            let which = (turn + round as usize) % brokers.len();
            let (broker, workload) = (&brokers[which], samples.workloads()[case]);
            if samples.has_failed(case, which) {
                continue;
            }
            let name = broker.name();
            eprintln!("round {}: {name}: {}", round + 1, report::describe(&workload));
            match run_one(args, certificates, broker, workload) {
                Ok(outcome) => {
                    if args.format == Format::Json {
                        report::print_json(&Sample { broker: name, round, outcome: &outcome })?;
                    }
                    samples.push(case, which, outcome);
                }
                Err(error @ Error::Usage(_)) => return Err(error),
                // A failed run of one broker does not end the comparison.
                Err(error) => {
                    eprintln!("ringmq-bench: {error}");
                    samples.fail(case, which, &error);
                }
            }
        }
    }
    Ok(())
}

/// All requested loads: once per version if QoS does not matter, and once more at the rate for
/// latency.
fn workloads(args: &CompareArgs) -> Result<Vec<Workload>> {
    let mut workloads = Vec::new();
    for &scenario in &args.scenarios {
        for &mqtt in &args.mqtt {
            let qos = if scenario.has_qos() { &args.qos } else { &args.qos[..1] };
            for &qos in qos {
                let workload = args.load.workload(scenario, qos, mqtt)?;
                workloads.push(workload);
                workloads.extend(at_latency_rate(args, workload)?);
            }
        }
    }
    Ok(workloads)
}

fn at_latency_rate(args: &CompareArgs, workload: Workload) -> Result<Option<Workload>> {
    let Some(rate) = args.latency_rate else { return Ok(None) };
    if !workload.scenario.is_traffic() || workload.scenario == Scenario::Pub {
        return Ok(None);
    }
    let per_second = rate / f64::from(workload.receivers());
    let workload = Workload { load: LoadMode::Open { per_second }, ..workload };
    workload.check()?;
    Ok(Some(workload))
}

fn run_one(
    args: &CompareArgs,
    certificates: &Certificates,
    broker: &BrokerKind,
    workload: Workload,
) -> Result<Outcome> {
    let is_rated = matches!(workload.load, LoadMode::Open { .. });
    let _first = (args.real_time && is_rated).then(RealTime::begin).transpose()?;
    let running = broker.start(args.port, &args.broker_cores)?;
    affinity::pin_to(&args.generator_cores)?;
    let span = &args.load.span;
    let transport = certificates.transport.clone();
    let meter = Some(running.meter()?);
    let settings = span.settings(running.address(), transport, meter, &workload);
    let outcome = processes::measure(workload, span.processes, settings);
    outcome.and_then(refuse_empty).map_err(|error| running.explain(broker.name(), error))
}

/// A run without any operation gives no figure.
fn refuse_empty(outcome: Outcome) -> Result<Outcome> {
    match &outcome.traffic {
        Some(traffic) if traffic.delivered == 0 => Err(Error::Broker(format!(
            "no {} in {:.1} s: {}",
            outcome.workload.scenario.unit().0,
            traffic.span_s,
            report::verdict(&outcome.violations)
        ))),
        _ => Ok(outcome),
    }
}
