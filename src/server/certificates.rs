//! Policies of the listeners, with TLS certificates read from files at start and again at a reload.

use crate::config::listener::{KernelTls, Listener};
use crate::config::{ExecutorKind as Kind, Settings};
use crate::control::reload::Reload;
use crate::executor::probe::kernel_tls;
use crate::server::ServerError;
use crate::transport::{Ciphers, ListenerPolicies, ListenerPolicy, tls};

/// Reads the files of every listener, and registers them for reloads.
pub(super) fn open(
    settings: &Settings,
    kind: Kind,
    reload: &Reload,
) -> Result<ListenerPolicies, ServerError> {
    let ciphers = ciphers(settings, kind);
    let policy = |listener: Listener| {
        let tls_config = match listener.transport.has_tls() {
            true => Some(tls_config(&listener, ciphers)?),
            false => None,
        };
        Ok(ListenerPolicy::new(&listener, tls_config))
    };
    let policies: ListenerPolicies =
        settings.every_listener().map(policy).collect::<Result<_, ServerError>>()?;
    register(settings, &policies, reload);
    Ok(policies)
}

/// Checks the files of a listener.
pub(super) fn check(listener: &Listener) -> Result<(), ServerError> {
    match listener.transport.has_tls() {
        true => tls_config(listener, Ciphers::default()).map(drop),
        false => Ok(()),
    }
}

/// Ciphers for kernel TLS, if a listener uses it; logs what the kernel supports.
fn ciphers(settings: &Settings, kind: Kind) -> Ciphers {
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

#[cfg(feature = "tls")]
fn register(settings: &Settings, policies: &ListenerPolicies, reload: &Reload) {
    if policies.iter().all(|policy| policy.tls_config().is_none()) {
        return;
    }
    let policies = ListenerPolicies::clone(policies);
    let binds: Vec<_> = settings.every_listener().map(|listener| listener.bind).collect();
    reload.register("certificates", move || {
        let mut outcome = Ok(());
        for (policy, bind) in policies.iter().zip(&binds) {
            let Some(tls_config) = policy.tls_config() else { continue };
            let read = tls_config.reload(&|path| std::fs::read(path));
            outcome = outcome.and(read.map_err(|what| format!("listener {bind}: {what}")));
        }
        outcome
    });
}

#[cfg(not(feature = "tls"))]
fn register(_settings: &Settings, _policies: &ListenerPolicies, _reload: &Reload) {}
