//! What is spoken at each listener, with certificates read from their files: at start, and on SIGHUP.

use crate::config::Settings;
use crate::config::listener::Listener;
use crate::reload::Reload;
use crate::server::ServerError;
use crate::transport::{Entrance, Entrances, tls};

/// Reads what every listener needs, and has it read anew when that is asked for.
pub(super) fn open(settings: &Settings, reload: &Reload) -> Result<Entrances, ServerError> {
    let entrance = |listener: Listener| {
        let door = match listener.transport.has_tls() {
            true => Some(door(&listener)?),
            false => None,
        };
        Ok(Entrance::new(&listener, door))
    };
    let entrances: Entrances =
        settings.every_listener().map(entrance).collect::<Result<_, ServerError>>()?;
    register(settings, &entrances, reload);
    Ok(entrances)
}

#[cfg(feature = "tls")]
fn door(listener: &Listener) -> Result<tls::Door, ServerError> {
    let door = tls::Door::open(listener, &|path| std::fs::read(path));
    door.map_err(|what| ServerError::Tls(listener.bind.clone(), what))
}

#[cfg(not(feature = "tls"))]
fn door(_listener: &Listener) -> Result<tls::Door, ServerError> {
    unreachable!("the configuration refuses it")
}

#[cfg(feature = "tls")]
fn register(settings: &Settings, entrances: &Entrances, reload: &Reload) {
    if entrances.iter().all(|entrance| entrance.door().is_none()) {
        return;
    }
    let entrances = Entrances::clone(entrances);
    let binds: Vec<_> = settings.every_listener().map(|listener| listener.bind).collect();
    reload.register("certificates", move || {
        let mut outcome = Ok(());
        for (entrance, bind) in entrances.iter().zip(&binds) {
            let Some(door) = entrance.door() else { continue };
            let read = door.reload(&|path| std::fs::read(path));
            outcome = outcome.and(read.map_err(|what| format!("listener {bind}: {what}")));
        }
        outcome
    });
}

#[cfg(not(feature = "tls"))]
fn register(_settings: &Settings, _entrances: &Entrances, _reload: &Reload) {}
