//! What is spoken at each listener, with certificates read from their files: at start, and on SIGHUP.

use crate::config::listener::{KernelTls, Listener};
use crate::config::{ExecutorKind as Kind, Settings};
use crate::control::reload::Reload;
use crate::executor::probe::kernel_tls;
use crate::server::ServerError;
use crate::transport::{Ciphers, Entrance, Entrances, tls};

/// Reads what every listener needs, and has it read anew when that is asked for.
pub(super) fn open(
    settings: &Settings,
    kind: Kind,
    reload: &Reload,
) -> Result<Entrances, ServerError> {
    let ciphers = ciphers(settings, kind);
    let entrance = |listener: Listener| {
        let door = match listener.transport.has_tls() {
            true => Some(door(&listener, ciphers)?),
            false => None,
        };
        Ok(Entrance::new(&listener, door))
    };
    let entrances: Entrances =
        settings.every_listener().map(entrance).collect::<Result<_, ServerError>>()?;
    register(settings, &entrances, reload);
    Ok(entrances)
}

/// Whether a listener has what it needs.
pub(super) fn check(listener: &Listener) -> Result<(), ServerError> {
    match listener.transport.has_tls() {
        true => door(listener, Ciphers::default()).map(drop),
        false => Ok(()),
    }
}

/// The ciphers by which the kernel goes on with connections of listeners that want it to; says so.
fn ciphers(settings: &Settings, kind: Kind) -> Ciphers {
    let wants = |listener: Listener| listener.tls.kernel == KernelTls::Auto;
    if !settings.every_listener().any(wants) {
        return Ciphers::default();
    }
    let found = kernel_tls::KernelTls::find_for(kind);
    tracing::info!(kernel_tls = %found, "a listener wants TLS to go on in the kernel");
    found.ciphers()
}

#[cfg(feature = "tls")]
fn door(listener: &Listener, ciphers: Ciphers) -> Result<tls::Door, ServerError> {
    let door = tls::Door::open(listener, &|path| std::fs::read(path));
    door.map(|door| door.with_kernel(ciphers))
        .map_err(|what| ServerError::Tls(listener.bind.clone(), what))
}

#[cfg(not(feature = "tls"))]
fn door(_listener: &Listener, _ciphers: Ciphers) -> Result<tls::Door, ServerError> {
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
