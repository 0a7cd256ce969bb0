//! `broker`: serves until stopped; and `broker --check-config`.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::console::{print, print_error};
use super::pid_file::PidFile;
use super::{Exit, Failure, Flags, log, signals};
use crate::access::{self, Control, Gate};
use crate::config::{ConfigError, Configuration, Entry, Settings};
use crate::control::reload::{self, Reload};
use crate::control::stop::Stop;
use crate::engine::Keys;
use crate::platform;
use crate::server::{self, Server, ServerError};
use crate::service::{self, HandedOver};

/// Reports everything that would prevent a start; the exit code is the one that a start would have.
pub(super) fn check(settings: &Settings) -> Result<Exit, Failure> {
    let access = Control::open(settings).err();
    let access = access.map(|error| Failure::new(Exit::Configuration, error));
    let server = server::check(settings).into_iter().map(Failure::from);
    let log = log::check(&settings.log).err();
    let failures: Vec<Failure> = log.into_iter().chain(access).chain(server).collect();
    failures.iter().for_each(|failure| print_error(failure));
    if let Some(failure) = failures.first() {
        return Ok(failure.exit);
    }
    let addresses: Vec<String> =
        settings.every_listener().map(|listener| listener.bind.to_string()).collect();
    let text = format!("configuration ok; listens on {}", addresses.join(", "));
    print(text, Exit::Success)
}

/// Prints every effective setting with its origin, a line for each.
pub(super) fn print_config(configuration: &Configuration) -> Result<Exit, Failure> {
    let lines: Vec<String> = configuration
        .entries()
        .iter()
        .map(|Entry { key, value, origin, .. }| format!("{key} = {value}  # {origin}"))
        .collect();
    print(lines.join("\n"), Exit::Success)
}

/// Serves until a signal stops the broker.
pub(super) fn run(configuration: Configuration, flags: &Flags) -> Result<Exit, Failure> {
    let (stop, reload) = (Stop::new(), Reload::new());
    configuration.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    let (settings, flags) = (configuration.settings.clone(), flags.clone());
    reload.read_by(configuration, move || flags.configuration());
    let held = signals::hold().map_err(|error| Failure::new(Exit::Other, error))?;
    let listen = |asked| signals::listen(held, stop.clone(), reload.clone(), asked);
    serve(settings, stop.clone(), &reload, listen, || {})?;
    Ok(Exit::Success)
}

/// Serves until `stop` is asked. Calls `listen_to_signals` once there is something that signals can act on, and
/// `when_serving` once clients can connect.
pub(super) fn serve(
    mut settings: Settings,
    stop: Stop,
    reload: &Reload,
    listen_to_signals: impl FnOnce(signals::Asked) -> Result<(), Box<dyn Error>>,
    when_serving: impl FnOnce(),
) -> Result<(), Failure> {
    let keys = keys().map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    let cores = settings.cores.count();
    let connections_asked = settings.limits.connections_max;
    let unlistenable = |error| Failure::new(Exit::Listen, error);
    let handed_over = HandedOver::from_manager().map_err(unlistenable)?;
    handed_over.configure(&mut settings).map_err(unlistenable)?;
    reload.begin(&settings);
    let gate = Gate::open(&settings).map_err(|error| Failure::new(Exit::Configuration, error))?;
    register_access(&gate, reload, &stop);
    log::register(reload);
    access::log_policies(&settings);
    let writable = Arc::clone(&gate);
    let server = Server::open(&settings, gate, keys, stop.clone(), reload, handed_over)?;
    let drain_max = Duration::from_secs(settings.cluster.drain_on_stop_s.into());
    let asked = signals::Asked {
        prompt: server.prompt(),
        summary: server.summary(),
        drain: (server.drain(), drain_max),
    };
    listen_to_signals(asked).map_err(|error| Failure::new(Exit::Other, error))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        executor = server.kind().name(),
        cores,
        machine = platform::line(),
        connections_max = server.connections_max(),
        chosen_by = if connections_asked == 0 { "descriptors and memory" } else { "configuration" },
        "starting"
    );
    let _pid_file = PidFile::write(&settings.pid_file)?;
    super::user::become_configured(&settings)?;
    writable.check_writable().map_err(|error| Failure::new(Exit::Configuration, error))?;
    let open = server.open_listeners().to_vec();
    let say_serving = || {
        for listener in &open {
            let (bind, transport) = (&listener.bind, listener.transport.name());
            tracing::info!(address = %bind, transport, "listening");
        }
        let addresses: Vec<_> = open.iter().map(|listener| listener.bind.to_string()).collect();
        let addresses = addresses.join(", ");
        service::notify_ready(&format!("serving on {addresses}"), &stop);
        when_serving();
    };
    server.serve(say_serving)?;
    tracing::info!("stopped");
    Ok(())
}

/// Registers the access control for reloads.
fn register_access(gate: &Arc<Gate>, reload: &Reload, stop: &Stop) {
    let (gate, stop) = (Arc::clone(gate), stop.clone());
    reload.on_change("access", move |change| {
        let prepared = gate
            .prepare(change.wanted)
            .map_err(|error| ConfigError::of_key(Some("access"), error.to_string()))?;
        let Some(put_in_force) = prepared else { return Ok(None) };
        let (stop, wanted) = (stop.clone(), change.wanted.clone());
        let is_changed = change.running.access != wanted.access;
        Ok(Some(Box::new(move || {
            put_in_force();
            if is_changed {
                access::log_policies(&wanted);
            }
            stop.cores().into_iter().for_each(reload::check_access);
            Ok(())
        })))
    });
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let exit = match error {
            ServerError::Listen(..) => Exit::Listen,
            #[cfg(feature = "admin")]
            ServerError::ListenAdmin(..) => Exit::Listen,
            #[cfg(feature = "admin")]
            ServerError::Admin(_) => Exit::Configuration,
            #[cfg(feature = "bridge")]
            ServerError::Bridges(_) => Exit::Configuration,
            #[cfg(feature = "cluster")]
            ServerError::Cluster(_) => Exit::Configuration,
            #[cfg(feature = "cluster")]
            ServerError::TakenOver(_) => Exit::TakenOver,
            ServerError::Descriptors(_) => Exit::Descriptors,
            ServerError::Placement(_)
            | ServerError::DynamicSecurity(..)
            | ServerError::Stats(..)
            | ServerError::Tls(..)
            | ServerError::Webhooks(_) => Exit::Configuration,
            #[cfg(feature = "store")]
            ServerError::Store(_) | ServerError::NoFolder(_) | ServerError::Import(_) => {
                Exit::Store
            }
            ServerError::Mode(_) | ServerError::Executor(_) => Exit::Other,
        };
        Self::new(exit, error)
    }
}

/// Secrets from the system's random generator, independent of each other.
fn keys() -> Result<Keys, getrandom::Error> {
    let identifiers = [getrandom::u64()?, getrandom::u64()?];
    Ok(Keys { tables: getrandom::u64()?, identifiers })
}
