//! `broker store`: inspects, checks and repairs a store while no broker uses it.

#[cfg(feature = "store")]
use super::ImportCommand;
use super::{Exit, Failure, StoreCommand};
use crate::config::Settings;

const COMMAND: &str = "store";

/// Runs the command.
#[cfg(not(feature = "store"))]
pub(super) fn run(_what: &StoreCommand, _settings: &Settings) -> Result<Exit, Failure> {
    Err(Failure::of(Exit::Configuration, COMMAND)("this broker was built without a store"))
}

/// Runs the command.
#[cfg(feature = "store")]
pub(super) fn run(what: &StoreCommand, settings: &Settings) -> Result<Exit, Failure> {
    let folder = settings
        .data_folder()
        .map_err(|because| format!("no folder: {because}; name one with --data DIR"))
        .map_err(Failure::of(Exit::Configuration, COMMAND))?;
    run_on(what, &folder).map_err(Failure::of(Exit::Store, COMMAND))
}

#[cfg(feature = "store")]
fn run_on(
    what: &StoreCommand,
    folder: &std::path::Path,
) -> Result<Exit, Box<dyn std::error::Error>> {
    use std::io::Write;

    use super::console::{print_error, print_report};
    use crate::storage::log::offline;

    let at = folder.display();
    let mut to = std::io::stdout().lock();
    match what {
        StoreCommand::Inspect { json } => print_report(&offline::inspect(folder)?, *json)?,
        StoreCommand::Verify => {
            let verdict = offline::verify(folder)?;
            for damage in &verdict.damages {
                writeln!(to, "damaged: {damage}")?;
            }
            let (frames, torn) = (verdict.frames, verdict.torn_bytes);
            writeln!(to, "{at}: {frames} frames are intact, {torn} bytes at the end are torn")?;
            if !verdict.damages.is_empty() {
                return Ok(Exit::Store);
            }
        }
        StoreCommand::Compact => {
            let (before, after) = offline::compact(folder)?;
            writeln!(to, "{at}: {before} bytes before, {after} after")?;
        }
        StoreCommand::Export => offline::export(folder, &mut to)?,
        StoreCommand::Import { from: Some(from) } => import(from, folder, &mut to)?,
        StoreCommand::Import { from: None } => {
            let (sessions, retained) = offline::import(folder, std::io::stdin().lock())?;
            writeln!(to, "{at}: {sessions} sessions, {retained} retained messages")?;
        }
        StoreCommand::Repair => match offline::repair(folder)? {
            None => writeln!(to, "{at}: no damage found")?,
            Some((aside, places)) => writeln!(
                to,
                "{at}: intact records are kept; {places} places were damaged, the original files \
                 are in {}",
                aside.display()
            )?,
        },
        StoreCommand::EndSession { client } => {
            if !offline::end_session(folder, client)? {
                print_error(&format_args!("broker store: {at}: there is no session of {client:?}"));
                return Ok(Exit::Other);
            }
            writeln!(to, "{at}: the session of {client:?} has ended")?;
        }
    }
    Ok(Exit::Success)
}

/// Imports the database of another broker.
#[cfg(feature = "store")]
fn import(
    from: &ImportCommand,
    folder: &std::path::Path,
    to: &mut impl std::io::Write,
) -> Result<(), Box<dyn std::error::Error>> {
    use crate::mosquitto::database::{Options, import};

    let ImportCommand::Mosquitto { file, owners, salvage } = from;
    let options = Options { owners: *owners, salvage: *salvage };
    match import::import(folder, file, options)? {
        Some(report) => write!(to, "{report}")?,
        None => writeln!(
            to,
            "{}: imported before into {}; nothing has changed",
            file.display(),
            folder.display()
        )?,
    }
    Ok(())
}
