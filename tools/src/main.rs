//! `ringmq-bench`: loads and compares MQTT brokers on this machine.

mod address;
mod affinity;
mod certificate;
mod churn;
mod cli;
mod clock;
mod codec;
mod compare;
mod coordinator;
mod descriptors;
mod distribution;
mod error;
mod hostile;
mod limits;
mod load;
mod meter;
#[cfg(target_os = "linux")]
mod million;
mod outcome;
mod pace;
mod pause;
mod picture;
mod processes;
mod progress;
mod real_time;
mod recorder;
mod report;
mod scenario;
mod stamp;
mod suite;
mod transport;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, Format, SpanArgs, TargetArgs};
use error::Result;
use meter::Meter;
use outcome::Outcome;
use scenario::Workload;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => args
            .load
            .workload(args.scenario, args.qos, args.mqtt)
            .and_then(|workload| run(workload, &args.target, &args.load.span)),
        Command::Suite(args) => args
            .benchmark
            .workload(args.scale, args.span.processes)
            .and_then(|workload| run(workload, &args.target, &args.span)),
        Command::Certificate(args) => {
            certificate::write(&args.folder, args.key.as_deref()).map(|()| true)
        }
        Command::Share => processes::share().map(|()| true),
        Command::Compare(args) => compare::compare(&args),
        Command::Hostile(args) => hostile::hostile(&args),
        #[cfg(target_os = "linux")]
        Command::Million(args) => million::million(&args),
        #[cfg(target_os = "linux")]
        Command::Hold(args) => million::hold(&args).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("ringmq-bench: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Loads a running broker; returns whether there were no violations.
fn run(workload: Workload, target: &TargetArgs, span: &SpanArgs) -> Result<bool> {
    span.check()?;
    if target.format == Format::Markdown {
        return Err(error::Error::Usage("--format markdown is for `compare`".into()));
    }
    if !target.cores.is_empty() {
        affinity::pin_to(&target.cores)?;
    }
    let meter = target.broker_pid.map(Meter::new).transpose()?;
    let transport = target.transport.transport()?;
    let mut settings = span.settings(target.address, transport, meter, &workload);
    settings.publishers_at = target.publishers_at;
    let outcome = processes::measure(workload, span.processes, settings)?;
    match target.format {
        Format::Json => report::print_json(&outcome)?,
        Format::Table | Format::Markdown => report::print(&report::outcome_text(&outcome))?,
    }
    if let Some(path) = &target.picture {
        picture::write(path, &report::describe(&workload), &outcome)?;
    }
    if !outcome.violations.is_clean() {
        eprintln!("ringmq-bench: VIOLATION: {}", report::verdict(&outcome.violations));
    }
    let missed = missed(&outcome, target);
    missed.iter().for_each(|bound| eprintln!("ringmq-bench: NOT MET: {bound}"));
    Ok(outcome.violations.is_clean() && missed.is_empty())
}

/// A description of the requested limits that were not met.
fn missed(outcome: &Outcome, target: &TargetArgs) -> Vec<String> {
    let (rate, latency) = match (&outcome.traffic, &outcome.idle) {
        (Some(traffic), _) => (traffic.deliveries_per_second, traffic.latency_us),
        (None, Some(idle)) => (idle.connections_per_second, idle.latency_us),
        (None, None) => unreachable!("a run has either"),
    };
    let p99_ms = latency.p99 / 1e3;
    let too_few = target.rate_min.filter(|&bound| rate < bound);
    let too_late = target.p99_ms_max.filter(|&bound| p99_ms > bound);
    let few = too_few.map(|bound| format!("{rate:.0} a second, {bound} wanted"));
    let late = too_late.map(|bound| format!("p99 {p99_ms:.3} ms, {bound} ms wanted at most"));
    few.into_iter().chain(late).collect()
}
