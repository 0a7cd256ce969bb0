//! Signals: SIGTERM and SIGINT stop the broker, SIGHUP reloads, SIGUSR1 prints statistics, SIGUSR2 logs a summary, and
//! SIGRTMIN opens the log file again.

use std::error::Error;

use super::Exit;
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

/// Handles signals from here on. The first SIGTERM or SIGINT asks for a clean stop, the second ends the process.
/// SIGUSR1 is ignored by a broker that prints no statistics.
#[cfg(unix)]
pub(super) fn listen(
    mut signals: signal_hook::iterator::Signals,
    stop: Stop,
    reload: Reload,
    (prompt, summary): (Prompt, Summary),
) -> Result<(), Box<dyn Error>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
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
                _ => ask_to_stop(&stop),
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
    _asked: (Prompt, Summary),
) -> Result<(), Box<dyn Error>> {
    Ok(ctrlc::set_handler(move || ask_to_stop(&stop))?)
}

fn ask_to_stop(stop: &Stop) {
    // Before the request: the process may be gone a moment after it.
    service::notify_stopping();
    if stop.request() > 1 {
        std::process::exit(Exit::Other as i32);
    }
}
