//! systemd and compatible service managers: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

use std::io;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::config::Bind;
use crate::control::stop::Stop;
use crate::control::{Cores, Probe};
use crate::executor::ListenerSocket;

/// Watchdog notifications within the interval after which the manager restarts the broker: one may be late.
const NOTIFICATIONS: u32 = 3;

pub fn listeners() -> io::Result<Vec<(Bind, ListenerSocket)>> {
    let mut handed_over = ListenFd::from_env();
    let count = handed_over.len();
    let take = |index| {
        if let Ok(listener) = handed_over.take_tcp_listener(index) {
            let listener = listener.expect("each is taken once");
            let address = listener.local_addr()?;
            return Ok((Bind::Address(address), ListenerSocket::Tcp(listener)));
        }
        let listener = handed_over.take_unix_listener(index)?.expect("each is taken once");
        let address = listener.local_addr()?;
        let path = address.as_pathname().ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "a Unix socket without a path")
        })?;
        Ok((Bind::Path(path.to_owned()), ListenerSocket::Unix(listener)))
    };
    (0..count).map(take).collect()
}

pub fn notify_ready(status: &str, stop: &Stop) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    if let Some(within) = sd_notify::watchdog_enabled() {
        start_watchdog(within, stop.clone());
    }
}

pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "sd_notify failed");
    }
}

/// Reports to the manager's watchdog as long as every core takes turns. A core that hangs stops the reports, and
/// the manager restarts the broker.
fn start_watchdog(within: Duration, stop: Stop) {
    let run = move || {
        while !stop.is_requested() {
            let mut probe = stop.cores().map(Cores::probe);
            std::thread::sleep(within / NOTIFICATIONS);
            match probe.as_mut().map(Probe::unresponsive).unwrap_or_default()[..] {
                [] => notify(&[NotifyState::Watchdog]),
                _ if stop.is_requested() => {}
                ref cores => tracing::error!(?cores, "these cores take no turns"),
            }
        }
    };
    let started = std::thread::Builder::new().name("watchdog".to_owned()).spawn(run);
    if let Err(error) = started {
        tracing::warn!(%error, "cannot start the watchdog thread; systemd will restart the broker");
    }
}
