//! Starts the log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{fmt, registry, reload};

use super::{Exit, Failure};
use crate::base::log_format::TextFields;
#[cfg(all(feature = "service", unix))]
use crate::base::log_sink::{Journal, Syslog};
use crate::base::log_sink::{LogFile, MosquittoLines, Reopen, TopicLines};
use crate::base::output::Output;
use crate::config::{Log, LogFormat, LogLevel, LogTo};
use crate::control::log::LogControl;
use crate::control::reload::Reload;

/// The log of this process, once it has started.
static LOG: OnceLock<Started> = OnceLock::new();

struct Started {
    output: Output,
    /// Opens the log's file again, if it is one.
    reopen: Option<Reopen>,
}

/// The log's writer, if the log has started.
pub(super) fn output() -> Option<&'static Output> {
    LOG.get().map(|log| &log.output)
}

/// Lets a reload change the level, and open the log's file again if the log goes to one.
pub(super) fn register(reload: &Reload) {
    reload.on_change("log level", |change| {
        let (level, before) = (change.wanted.log.level, change.running.log.level);
        let control = LogControl::of_process().filter(|_| level != before);
        let Some(control) = control else { return Ok(None) };
        Ok(Some(Box::new(move || {
            control.configure(level);
            Ok(())
        })))
    });
    if let Some(reopen) = LOG.get().and_then(|log| log.reopen.clone()) {
        reload.register("log", move || {
            reopen.ask();
            Ok(())
        });
    }
}

/// Opens the log's file again, if the log goes to one.
#[cfg(target_os = "linux")]
pub(super) fn reopen() {
    if let Some(reopen) = LOG.get().and_then(|log| log.reopen.as_ref()) {
        reopen.ask();
    }
}

/// Writes all buffered lines of the log, at the end of the process.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.output.finish();
    }
}

/// Starts the log where the settings say.
pub(super) fn start(log: &Log) -> Result<(), Failure> {
    let outcome = match &log.to {
        LogTo::Stderr => {
            let stderr = io::stderr();
            let is_terminal = stderr.is_terminal();
            start_to(log, is_terminal, Box::new(stderr))
        }
        LogTo::Stdout => {
            let stdout = io::stdout();
            let is_terminal = stdout.is_terminal();
            start_to(log, is_terminal, Box::new(stdout))
        }
        LogTo::None => start_to(log, false, Box::new(io::sink())),
        LogTo::File(path) => {
            let file = LogFile::open(path).map_err(|error| {
                let error = format!("log.to: cannot open {}: {error}", path.display());
                Failure::new(Exit::Configuration, error)
            })?;
            let reopen = Some(file.reopen());
            start_with(log, log.format, false, Box::new(file), reopen)
        }
        #[cfg(all(feature = "service", unix))]
        LogTo::Journald => Journal::open()
            .and_then(|journal| start_with(log, LogFormat::Json, false, Box::new(journal), None)),
        #[cfg(all(feature = "service", unix))]
        LogTo::Syslog(socket) => Syslog::open(socket.as_deref().unwrap_or(Syslog::SOCKET.as_ref()))
            .and_then(|syslog| start_with(log, LogFormat::Json, false, Box::new(syslog), None)),
        #[cfg(not(all(feature = "service", unix)))]
        LogTo::Journald | LogTo::Syslog(_) => unreachable!("the configuration does not permit it"),
    };
    outcome.map_err(|error| {
        Failure::new(Exit::Other, format!("cannot start the log to {}: {error}", log.to))
    })
}

/// Whether the log could be started: the reason why not otherwise.
pub(super) fn check(log: &Log) -> Result<(), Failure> {
    let LogTo::File(path) = &log.to else { return Ok(()) };
    let folder = path.parent().unwrap_or(path);
    // A check creates nothing.
    let outcome = match path.exists() {
        true => LogFile::open(path).map(drop),
        false => std::fs::metadata(folder).map(drop),
    };
    outcome.map_err(|error| {
        let error = format!("log.to: cannot open {}: {error}", path.display());
        Failure::new(Exit::Configuration, error)
    })
}

/// Starts the log on `writer`.
pub(super) fn start_to(
    log: &Log,
    has_colours: bool,
    writer: Box<dyn Write + Send>,
) -> io::Result<()> {
    start_with(log, log.format, has_colours, writer, None)
}

fn start_with(
    log: &Log,
    format: LogFormat,
    has_colours: bool,
    writer: Box<dyn Write + Send>,
    reopen: Option<Reopen>,
) -> io::Result<()> {
    let writer: Box<dyn Write + Send> = match format {
        LogFormat::Mosquitto => Box::new(MosquittoLines::new(writer, log.stamp())),
        LogFormat::Text | LogFormat::Json => Box::new(writer),
    };
    let output = match log.topics {
        true => Output::for_log(TopicLines::new(writer, log.stamp()))?,
        false => Output::for_log(writer)?,
    };
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let lines = fmt::layer()
        .with_writer(output.clone())
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(has_colours && format == LogFormat::Text);
    let registry = registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines.fmt_fields(TextFields)).init(),
        LogFormat::Mosquitto | LogFormat::Json => {
            registry.with(lines.json().flatten_event(true)).init()
        }
    }
    // Fails only when the log has gone, with the process.
    let apply = move |level| drop(handle.reload(self::filter(level)));
    LogControl::new(log.level, apply).install();
    log_panics(output.clone());
    let _ = LOG.set(Started { output, reopen });
    Ok(())
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
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
