//! `ringmq-bench`: load for MQTT brokers on this machine, and brokers compared under it.

mod address;
mod affinity;
mod churn;
mod cli;
mod clock;
mod codec;
mod compare;
mod conductor;
mod descriptors;
mod distribution;
mod error;
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
        Command::Share => processes::share().map(|()| true),
        Command::Compare(args) => compare::compare(&args),
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

/// One run against a broker that is there; whether every message came as it should.
fn run(workload: Workload, target: &TargetArgs, span: &SpanArgs) -> Result<bool> {
    span.check()?;
    if target.format == Format::Markdown {
        return Err(error::Error::Usage("--format markdown is for `compare`".into()));
    }
    if !target.cores.is_empty() {
        affinity::pin_to(&target.cores)?;
    }
    let meter = target.broker_pid.map(Meter::new).transpose()?;
    let settings = span.settings(target.address, meter, &workload);
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
    Ok(outcome.violations.is_clean())
}
