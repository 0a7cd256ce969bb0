//! Starts the log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;

use super::{Exit, Failure};
use crate::base::output::Output;
use crate::config::{Log, LogFormat, LogLevel};

/// Writer of the log, once it has started. A process has one log.
static LOG: OnceLock<Output> = OnceLock::new();

/// The log's writer, if the log has started.
pub(super) fn output() -> Option<&'static Output> {
    LOG.get()
}

/// Writes all buffered lines of the log, at the end of the process.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.finish();
    }
}

/// Starts the log on standard error.
pub(super) fn start(log: Log) -> Result<(), Failure> {
    let stderr = std::io::stderr();
    let is_terminal = stderr.is_terminal();
    start_to(log, is_terminal, stderr).map_err(|error| {
        let error = format!("cannot start the thread that writes the log: {error}");
        Failure::new(Exit::Other, error)
    })
}

/// Starts the log on `writer`.
pub(super) fn start_to(
    log: Log,
    has_colours: bool,
    writer: impl Write + Send + 'static,
) -> std::io::Result<()> {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let output = Output::for_log(writer)?;
    let _ = LOG.set(output.clone());
    log_panics(output.clone());
    let subscriber = tracing_subscriber::fmt()
        .with_writer(output)
        .log_internal_errors(false)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(has_colours);
    match log.format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}

/// Writes panics through the log's writer: writing to standard error directly can block when its reader is stuck.
fn log_panics(output: Output) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let trace = Backtrace::capture();
        let trace = match trace.status() {
            BacktraceStatus::Captured => format!("{trace}"),
            _ => "set RUST_BACKTRACE=1 for a backtrace\n".to_owned(),
        };
        output.say(format!("thread '{name}' {panic}\n{trace}").as_bytes());
        // The process may end now.
        output.finish();
    }));
}
