//! `broker platform`: describes this machine, or the placement of cores on it.

use std::error::Error;

use super::console::print_report;
use super::{Exit, Failure};
use crate::config::{Cores, Settings};
use crate::server::report::{PlanReport, Report};

/// Prints the placement of cores that `plan` asks for (which cores, and whether by NUMA node), or a description of
/// the machine.
pub(super) fn run(
    plan: Option<(&Cores, bool)>,
    json: bool,
    settings: &Settings,
) -> Result<Exit, Failure> {
    let print = || -> Result<(), Box<dyn Error>> {
        match plan {
            Some((cores, numa)) => print_report(&PlanReport::new(cores, numa)?, json),
            None => print_report(&Report::new(settings), json),
        }
    };
    print().map_err(Failure::of(Exit::Configuration, "platform"))?;
    Ok(Exit::Success)
}
