//! `broker`: serves until stopped; and `broker --check-config`.

use std::error::Error;
use std::sync::Arc;

use super::console::{print, print_error};
use super::{Exit, Failure, signals};
use crate::access::{self, Control};
use crate::config::Settings;
use crate::control::reload::{self, Reload};
use crate::control::stop::Stop;
use crate::engine::Keys;
use crate::platform;
use crate::server::{self, Server, ServerError};
use crate::service::{self, HandedOver};
use crate::stats::Prompt;

/// Reports everything that would prevent a start; the exit code is the one that a start would have.
pub(super) fn check(settings: &Settings) -> Result<Exit, Failure> {
    let access = Control::open(settings).err();
    let access = access.map(|error| Failure::new(Exit::Configuration, error));
    let server = server::check(settings).into_iter().map(Failure::from);
    let failures: Vec<Failure> = access.into_iter().chain(server).collect();
    failures.iter().for_each(|failure| print_error(failure));
    if let Some(failure) = failures.first() {
        return Ok(failure.exit);
    }
    let addresses: Vec<String> =
        settings.every_listener().map(|listener| listener.bind.to_string()).collect();
    let text = format!("configuration ok; listens on {}", addresses.join(", "));
    print(text, Exit::Success)
}

/// Serves until a signal stops the broker.
pub(super) fn run(settings: Settings) -> Result<Exit, Failure> {
    let (stop, reload) = (Stop::new(), Reload::new());
    let held = signals::hold().map_err(|error| Failure::new(Exit::Other, error))?;
    let listen = |prompt| signals::listen(held, stop.clone(), reload.clone(), prompt);
    serve(settings, stop.clone(), &reload, listen, || {})?;
    Ok(Exit::Success)
}

/// Serves until `stop` is asked. Calls `listen_to_signals` once there is something that signals can act on, and
/// `when_serving` once clients can connect.
pub(super) fn serve(
    mut settings: Settings,
    stop: Stop,
    reload: &Reload,
    listen_to_signals: impl FnOnce(Option<Prompt>) -> Result<(), Box<dyn Error>>,
    when_serving: impl FnOnce(),
) -> Result<(), Failure> {
    let keys = keys().map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    let cores = settings.cores.count();
    let connections_asked = settings.limits.connections_max;
    let unlistenable = |error| Failure::new(Exit::Listen, error);
    let handed_over = HandedOver::from_manager().map_err(unlistenable)?;
    handed_over.configure(&mut settings).map_err(unlistenable)?;
    let control =
        Control::open(&settings).map_err(|error| Failure::new(Exit::Configuration, error))?;
    if let Some(control) = &control {
        let control = Arc::clone(control);
        let stop = stop.clone();
        reload.register("access", move || {
            control.reload().map_err(|error| error.to_string())?;
            stop.cores().into_iter().for_each(reload::check_access);
            Ok(())
        });
    }
    access::log_policies(&settings);
    let access = |notify| access::make(control.as_ref(), notify);
    let server = Server::open(&settings, &access, keys, stop.clone(), reload, handed_over)?;
    listen_to_signals(server.prompt()).map_err(|error| Failure::new(Exit::Other, error))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        executor = server.kind().name(),
        cores,
        machine = platform::line(),
        connections_max = server.connections_max(),
        chosen_by = if connections_asked == 0 { "descriptors and memory" } else { "configuration" },
        "starting"
    );
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

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let exit = match error {
            ServerError::Listen(..) => Exit::Listen,
            ServerError::Descriptors(_) => Exit::Descriptors,
            ServerError::Placement(_) | ServerError::Stats(..) | ServerError::Tls(..) => {
                Exit::Configuration
            }
            #[cfg(feature = "store")]
            ServerError::Store(_) | ServerError::NoFolder(_) => Exit::Store,
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
