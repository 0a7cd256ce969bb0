//! Hostile clients, and their effect: the latency of innocent clients during each attack, and the
//! memory that each kind of state makes a broker use, per broker.

mod attack;
mod attacks;
mod innocents;
mod memory;
mod packets;
mod peer;
mod report;
mod trial;

use serde::Serialize;

use crate::{
    cli::{Format, HostileArgs},
    descriptors,
    error::{Error, Result},
    report as output,
};

use attack::Attack;
use trial::{Measured, Trial};

/// Maximum number of connections of an attack.
const CONNECTIONS_MAX: u64 = 6_000;

/// Runs each attack on each broker; returns whether the limits were met by the brokers they apply
/// to.
pub fn hostile(args: &HostileArgs) -> Result<bool> {
    args.check()?;
    let all = if args.memory { memory::all() } else { attacks::all() };
    let attacks = chosen(args, all)?;
    if args.list {
        return list(&attacks).map(|()| true);
    }
    descriptors::raise_limit(CONNECTIONS_MAX)?;
    match args.memory {
        false => {
            let new = |attack: &Attack, broker: &str, measured| match measured {
                Some(measured) => report::Row::new(attack.name, broker, measured, args),
                None => report::Row::without(attack.name, broker),
            };
            let rows = try_all(args, &attacks, new, report::Row::line)?;
            conclude(args, &report::table(&rows), rows.iter().filter_map(report::Row::missed))
        }
        true => {
            let new = |attack: &Attack, broker: &str, measured| match measured {
                Some(measured) => memory::Row::new(attack.name, broker, measured),
                None => memory::Row::without(attack.name, broker),
            };
            let rows = try_all(args, &attacks, new, memory::Row::line)?;
            conclude(args, &memory::table(&rows), rows.iter().filter_map(memory::Row::missed))
        }
    }
}

/// One row per attack and broker, also for a trial without a result, whose reason is printed.
fn try_all<R: Serialize>(
    args: &HostileArgs,
    attacks: &[Attack],
    new: impl Fn(&Attack, &str, Option<Measured>) -> R,
    line: impl Fn(&R) -> String,
) -> Result<Vec<R>> {
    let mut rows = Vec::new();
    for attack in attacks {
        for broker in &args.brokers {
            eprintln!("{}: {broker}", attack.name);
            let measured = match (Trial { args, broker, attack: *attack }).run() {
                Ok(None) => continue,
                Ok(measured) => measured,
                Err(error @ Error::Usage(_)) => return Err(error),
                Err(error) => {
                    eprintln!("ringmq-bench: NO RESULT: {}: {broker}: {error}", attack.name);
                    None
                }
            };
            let row = new(attack, broker, measured);
            match args.format {
                Format::Json => output::print_json(&row)?,
                Format::Table | Format::Markdown => eprintln!("  {}", line(&row)),
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Prints the table and the violated limits; returns whether there were none.
fn conclude(args: &HostileArgs, table: &str, missed: impl Iterator<Item = String>) -> Result<bool> {
    if args.format != Format::Json {
        output::print(table)?;
    }
    let missed: Vec<String> = missed.collect();
    missed.iter().for_each(|what| eprintln!("ringmq-bench: NOT MET: {what}"));
    Ok(missed.is_empty())
}

/// The selected attacks.
fn chosen(args: &HostileArgs, all: Vec<Attack>) -> Result<Vec<Attack>> {
    for name in &args.only {
        if !all.iter().any(|attack| attack.name.starts_with(name.as_str())) {
            return Err(Error::Usage(format!("there is no attack {name}: see --list")));
        }
    }
    let is_chosen = |attack: &Attack| match args.only.is_empty() {
        true => attack.in_short || !args.short,
        false => args.only.iter().any(|name| attack.name.starts_with(name.as_str())),
    };
    Ok(all.into_iter().filter(is_chosen).collect())
}

fn list(attacks: &[Attack]) -> Result<()> {
    let lines: Vec<String> =
        attacks.iter().map(|attack| format!("{:<20} {}", attack.name, attack.about)).collect();
    output::print(&lines.join("\n"))
}
