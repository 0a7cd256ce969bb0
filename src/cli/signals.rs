//! Signals: SIGTERM and SIGINT stop the broker, SIGHUP reloads, SIGUSR1 prints statistics, SIGUSR2 logs a summary, and
//! SIGRTMIN opens the log file again.

use std::error::Error;

use std::time::Duration;

use super::Exit;
use crate::control::drain::Drainer;
use crate::control::reload::Reload;
use crate::control::stop::Stop;
use crate::server::Summary;
use crate::service;
use crate::stats::Prompt;

/// Holds back the signals that do not stop a broker, which would end a broker that is still starting, until [`listen`] handles them.
#[cfg(unix)]
pub(super) fn hold() -> std::io::Result<signal_hook::iterator::Signals> {
    use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};
    let signals = signal_hook::iterator::Signals::new([SIGHUP, SIGUSR1, SIGUSR2])?;
    #[cfg(target_os = "linux")]
    signals.add_signal(libc::SIGRTMIN())?;
    Ok(signals)
}

/// Does nothing: this system has no signals.
#[cfg(not(unix))]
pub(super) fn hold() -> std::io::Result<()> {
    Ok(())
}

/// Handles signals from here on. The first SIGTERM or SIGINT asks for a clean stop, the second ends the process. Where a
/// node is emptied before it stops, the second one asks for a stop at once.
/// SIGUSR1 is ignored by a broker that prints no statistics.
#[cfg(unix)]
pub(super) fn listen(
    mut signals: signal_hook::iterator::Signals,
    stop: Stop,
    reload: Reload,
    asked: Asked,
) -> Result<(), Box<dyn Error>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    let Asked { prompt, summary, drain } = asked;
    let mut stopping = Stopping { stop, drain, is_draining: false };
    signals.add_signal(SIGTERM)?;
    signals.add_signal(SIGINT)?;
    let run = move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => drop(reload.run()),
                SIGUSR1 => prompt.ask(),
                SIGUSR2 => summary.log(),
                #[cfg(target_os = "linux")]
                signal if signal == libc::SIGRTMIN() => super::log::reopen(),
                _ => stopping.ask(),
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(run)?;
    Ok(())
}

/// Handles Ctrl-C and similar events from here on: the first asks for a clean stop, the second ends the process.
#[cfg(not(unix))]
pub(super) fn listen(
    _held: (),
    stop: Stop,
    _reload: Reload,
    Asked { drain, .. }: Asked,
) -> Result<(), Box<dyn Error>> {
    let mut stopping = Stopping { stop, drain, is_draining: false };
    Ok(ctrlc::set_handler(move || stopping.ask())?)
}

/// What signals ask for besides a reload and a stop.
pub(super) struct Asked {
    /// Statistics.
    pub prompt: Prompt,
    /// A summary in the log.
    pub summary: Summary,
    /// That the node is emptied before it stops, for so long at most; zero for a stop at once.
    pub drain: (Drainer, Duration),
}

/// The signals that ask for a stop.
struct Stopping {
    stop: Stop,
    drain: (Drainer, Duration),
    is_draining: bool,
}

impl Stopping {
    fn ask(&mut self) {
        // Before the request: the process may be gone a moment after it.
        service::notify_stopping();
        let (drain, most) = &self.drain;
        let drains = !most.is_zero() && !self.stop.is_requested();
        if drains && !std::mem::replace(&mut self.is_draining, true) {
            match drain.stop_within(*most) {
                Ok(()) => {
                    let seconds = most.as_secs();
                    return tracing::info!(seconds, "this node is emptied before it stops");
                }
                Err(error) => tracing::warn!(%error, "cannot empty this node before it stops"),
            }
        }
        if self.stop.request() > 1 {
            std::process::exit(Exit::Other as i32);
        }
    }
}
