//! What commands print: results to standard output, errors to standard error.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;

use serde::Serialize;

use super::log;
use super::{Exit, Failure};

/// Prints an error. Once the log has started, the line goes through the log's writer, which keeps the order and
/// never blocks.
pub fn print_error(error: &dyn Display) {
    let line = format!("{error}\n");
    match log::output() {
        Some(log) => log.say(line.as_bytes()),
        // When standard error cannot be written, the exit code has to do.
        None => drop(std::io::stderr().write_all(line.as_bytes())),
    }
}

/// Prints a result, and returns `exit`.
pub(super) fn print(text: impl Display, exit: Exit) -> Result<Exit, Failure> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| {
        Failure::new(Exit::Other, format!("cannot write to standard output: {error}"))
    })?;
    Ok(exit)
}

/// Prints a report as text, or as a JSON object.
pub(super) fn print_report<T: Serialize + Display>(
    report: &T,
    json: bool,
) -> Result<(), Box<dyn Error>> {
    let text = if json { serde_json::to_string_pretty(report)? } else { report.to_string() };
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(())
}
