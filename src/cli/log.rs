//! Starts the log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::Layered;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry, fmt, registry, reload};

use super::{Exit, Failure};
use crate::base::log_format::TextFields;
#[cfg(all(feature = "service", unix))]
use crate::base::log_sink::{Journal, Syslog};
use crate::base::log_sink::{LogFile, MosquittoLines, Reopen, TopicLines};
use crate::base::output::Output;
use crate::config::{ConfigError, Log, LogFormat, LogLevel, LogTo};
use crate::control::log::LogControl;
use crate::control::reload::{Commit, Reload};

/// The log of this process, once it has started.
static LOG: OnceLock<Started> = OnceLock::new();

struct Started {
    place: Mutex<Place>,
    /// Gives lines another form, and another writer.
    lines: reload::Handle<Lines, Filtered>,
}

/// What events are after the level has been looked at.
type Filtered = Layered<reload::Layer<LevelFilter, Registry>, Registry>;

/// Writes the lines of events.
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// Where the log goes, opened.
struct Place {
    output: Output,
    /// Opens the log's file again, if it is one.
    reopen: Option<Reopen>,
}

impl Started {
    fn place(&self) -> MutexGuard<'_, Place> {
        // A place is replaced as a whole.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log goes to another place, or has another form, from the next line on. The lines before are written to the
    /// place before.
    fn move_to(&self, (place, lines): (Place, Lines)) -> Result<(), String> {
        self.lines.reload(lines).map_err(|error| error.to_string())?;
        *self.place() = place;
        Ok(())
    }
}

/// The log's writer, if the log has started.
pub(super) fn output() -> Option<Output> {
    LOG.get().map(|log| log.place().output.clone())
}

/// Lets a reload change the level, the form and the place of the log, and open the log's file again if the log goes to
/// one.
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
    reload.on_change("log", |change| {
        let of = |log: &Log| Log { level: LogLevel::default(), connections: true, ..log.clone() };
        let (wanted, running) = (of(&change.wanted.log), of(&change.running.log));
        let Some(log) = LOG.get() else { return Ok(None) };
        if wanted == running {
            let reopen = log.place().reopen.clone();
            return Ok(reopen.map(|reopen| -> Commit {
                Box::new(move || {
                    reopen.ask();
                    Ok(())
                })
            }));
        }
        check(&wanted)
            .map_err(|failure| ConfigError::of_key(Some("log.to"), failure.to_string()))?;
        Ok(Some(Box::new(move || {
            log.move_to(open(&wanted).map_err(|failure| failure.to_string())?)
        })))
    });
}

/// Opens the log's file again, if the log goes to one.
#[cfg(target_os = "linux")]
pub(super) fn reopen() {
    if let Some(reopen) = LOG.get().and_then(|log| log.place().reopen.clone()) {
        reopen.ask();
    }
}

/// Writes all buffered lines of the log, at the end of the process.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.place().output.clone().finish();
    }
}

/// Starts the log where the settings say.
pub(super) fn start(log: &Log) -> Result<(), Failure> {
    let opened = open(log)?;
    start_with(log, opened);
    Ok(())
}

/// Opens the place where the settings say that the log goes, and makes what writes its lines.
fn open(log: &Log) -> Result<(Place, Lines), Failure> {
    let outcome = match &log.to {
        LogTo::Stderr => {
            let stderr = io::stderr();
            let is_terminal = stderr.is_terminal();
            lines_to(log, log.format, is_terminal, Box::new(stderr), None)
        }
        LogTo::Stdout => {
            let stdout = io::stdout();
            let is_terminal = stdout.is_terminal();
            lines_to(log, log.format, is_terminal, Box::new(stdout), None)
        }
        LogTo::None => lines_to(log, log.format, false, Box::new(io::sink()), None),
        LogTo::File(path) => {
            let file = LogFile::open(path).map_err(|error| {
                let error = format!("log.to: cannot open {}: {error}", path.display());
                Failure::new(Exit::Configuration, error)
            })?;
            let reopen = Some(file.reopen());
            lines_to(log, log.format, false, Box::new(file), reopen)
        }
        #[cfg(all(feature = "service", unix))]
        LogTo::Journald => Journal::open()
            .and_then(|journal| lines_to(log, LogFormat::Json, false, Box::new(journal), None)),
        #[cfg(all(feature = "service", unix))]
        LogTo::Syslog(socket) => {
            Syslog::open(socket.as_deref().unwrap_or(Syslog::SOCKET.as_ref()), log.facility.code())
                .and_then(|syslog| lines_to(log, LogFormat::Json, false, Box::new(syslog), None))
        }
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
#[cfg(all(feature = "service", windows))]
pub(super) fn start_to(log: &Log, writer: Box<dyn Write + Send>) -> io::Result<()> {
    start_with(log, lines_to(log, log.format, false, writer, None)?);
    Ok(())
}

/// A place of the log on `writer`, and what writes lines to it.
fn lines_to(
    log: &Log,
    format: LogFormat,
    has_colours: bool,
    writer: Box<dyn Write + Send>,
    reopen: Option<Reopen>,
) -> io::Result<(Place, Lines)> {
    let writer: Box<dyn Write + Send> = match format {
        LogFormat::Mosquitto => Box::new(MosquittoLines::new(writer, log.stamp())),
        LogFormat::Text | LogFormat::Json => Box::new(writer),
    };
    let output = match log.topics {
        true => Output::for_log(TopicLines::new(writer, log.stamp()))?,
        false => Output::for_log(writer)?,
    };
    let lines = fmt::layer()
        .with_writer(output.clone())
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(has_colours && format == LogFormat::Text);
    let lines: Lines = match format {
        LogFormat::Text => Box::new(lines.fmt_fields(TextFields)),
        LogFormat::Mosquitto | LogFormat::Json => Box::new(lines.json().flatten_event(true)),
    };
    Ok((Place { output, reopen }, lines))
}

fn start_with(log: &Log, (place, lines): (Place, Lines)) {
    let (filter, level) = reload::Layer::new(filter(log.level));
    let (lines, form) = reload::Layer::new(lines);
    registry().with(filter).with(lines).init();
    // Fails only when the log has gone, with the process.
    let apply = move |next| drop(level.reload(self::filter(next)));
    LogControl::new(log.level, apply).install();
    let _ = LOG.set(Started { place: Mutex::new(place), lines: form });
    log_panics();
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
fn log_panics() {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let trace = Backtrace::capture();
        let trace = match trace.status() {
            BacktraceStatus::Captured => format!("{trace}"),
            _ => "set RUST_BACKTRACE=1 for a backtrace\n".to_owned(),
        };
        let Some(output) = output() else { return };
        output.say(format!("thread '{name}' {panic}\n{trace}").as_bytes());
        // The process may end now.
        output.finish();
    }));
}
