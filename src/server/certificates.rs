//! Policies of the listeners, with TLS certificates read from files at start and again at a reload.

use std::sync::Arc;

use crate::config::listener::{KernelTls, Listener};
use crate::config::{ExecutorKind as Kind, Settings};
use crate::executor::probe::kernel_tls;
use crate::server::ServerError;
use crate::transport::{Ciphers, ListenerPolicies, ListenerPolicy, tls};

/// Files that have been read again.
#[cfg(feature = "tls")]
pub(super) type Loaded = tls::Loaded;

/// Files that have been read again: there are none.
#[cfg(not(feature = "tls"))]
pub(super) type Loaded = std::convert::Infallible;

/// Reads the files of every listener.
pub(super) fn open(settings: &Settings, kind: Kind) -> Result<ListenerPolicies, ServerError> {
    let ciphers = ciphers(settings, kind);
    settings.every_listener().map(|listener| Ok(Arc::new(policy(&listener, ciphers)?))).collect()
}

/// Reads the files of a listener.
pub(super) fn policy(listener: &Listener, ciphers: Ciphers) -> Result<ListenerPolicy, ServerError> {
    let tls_config = match listener.transport.has_tls() {
        true => Some(tls_config(listener, ciphers)?),
        false => None,
    };
    Ok(ListenerPolicy::new(listener, tls_config))
}

/// Checks the files of a listener.
pub(super) fn check(listener: &Listener) -> Result<(), ServerError> {
    policy(listener, Ciphers::default()).map(drop)
}

/// Ciphers for kernel TLS, if a listener uses it; logs what the kernel supports.
pub(super) fn ciphers(settings: &Settings, kind: Kind) -> Ciphers {
    let wants = |listener: Listener| listener.tls.kernel == KernelTls::Auto;
    if !settings.every_listener().any(wants) {
        return Ciphers::default();
    }
    let found = kernel_tls::KernelTls::find_for(kind);
    tracing::info!(kernel_tls = %found, "kernel TLS is configured");
    found.ciphers()
}

#[cfg(feature = "tls")]
fn tls_config(listener: &Listener, ciphers: Ciphers) -> Result<tls::TlsConfig, ServerError> {
    let tls_config = tls::TlsConfig::open(listener, &|path| std::fs::read(path));
    tls_config
        .map(|tls_config| tls_config.with_kernel(ciphers))
        .map_err(|what| ServerError::Tls(listener.bind.clone(), what))
}

#[cfg(not(feature = "tls"))]
fn tls_config(_listener: &Listener, _ciphers: Ciphers) -> Result<tls::TlsConfig, ServerError> {
    unreachable!("the configuration does not permit it")
}

/// Reads the files of a listener again; none if it uses no TLS.
#[cfg(feature = "tls")]
pub(super) fn read_again(
    listener: &Listener,
    policy: &ListenerPolicy,
) -> Result<Option<Loaded>, ServerError> {
    let Some(tls_config) = policy.tls_config() else { return Ok(None) };
    let loaded = tls_config.read_again(&|path| std::fs::read(path));
    loaded.map(Some).map_err(|what| ServerError::Tls(listener.bind.clone(), what))
}

#[cfg(not(feature = "tls"))]
pub(super) fn read_again(
    _listener: &Listener,
    _policy: &ListenerPolicy,
) -> Result<Option<Loaded>, ServerError> {
    Ok(None)
}

/// New connections of a listener use these files.
#[cfg(feature = "tls")]
pub(super) fn put_in_force(policy: &ListenerPolicy, loaded: Loaded) {
    if let Some(tls_config) = policy.tls_config() {
        tls_config.put_in_force(loaded);
    }
}

#[cfg(not(feature = "tls"))]
pub(super) fn put_in_force(_policy: &ListenerPolicy, loaded: Loaded) {
    match loaded {}
}
