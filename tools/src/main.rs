//! `ringmq-bench`: load for MQTT brokers on this machine, and brokers compared under it.

mod address;
mod affinity;
mod cli;
mod codec;
mod compare;
mod error;
mod limits;
mod load;
mod meter;
#[cfg(target_os = "linux")]
mod million;
mod pace;
mod report;
mod scenario;
mod stamp;
mod verify;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use cli::{Cli, Command, Format, RunArgs};
use error::Result;
use load::RunSettings;
use meter::Meter;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run(&args),
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
fn run(args: &RunArgs) -> Result<bool> {
    let workload = args.load.workload(args.scenario, args.qos, args.mqtt)?;
    if !args.cores.is_empty() {
        affinity::pin_to(&args.cores)?;
    }
    let settings = RunSettings {
        address: args.address,
        meter: args.broker_pid.map(Meter::new).transpose()?,
        warm_up: Duration::from_secs_f64(args.load.warm_up_s),
        span: Duration::from_secs_f64(args.load.duration_s),
        messages_max: args.load.messages_max,
    };
    let outcome = load::measure(workload, settings)?;
    match args.format {
        Format::Table => report::print(&report::outcome_text(&outcome))?,
        Format::Json => report::print_json(&outcome)?,
    }
    if !outcome.violations.is_clean() {
        eprintln!("ringmq-bench: VIOLATION: {}", report::verdict(&outcome.violations));
    }
    Ok(outcome.violations.is_clean())
}
