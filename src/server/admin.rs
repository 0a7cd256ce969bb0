//! The admin interface of this broker: its sockets, from the start to the stop.

use std::io;
use std::sync::Arc;

use super::listen::BindOptions;
use super::{ServerError, listen};
use crate::access::Gate;
use crate::admin::broker::Parts;
use crate::admin::{Prepared, Running};
use crate::bridges::Bridges;
use crate::config::listener::UnixSocket;
use crate::config::{AdminBind, Bind, ExecutorKind, Settings};
use crate::control::cluster::ClusterBoard;
use crate::control::drain::Drainer;
use crate::control::listener::ListenerTable;
use crate::control::reload::Reload;
use crate::control::stop::Stop;
use crate::executor::ListenerSocket;
use crate::stats::SharedStatistics;
use crate::webhooks::Webhooks;

/// The admin interface before the broker serves; empty if it is not configured.
#[derive(Default)]
pub(super) struct Opened(Option<Open>);

struct Open {
    prepared: Prepared,
    sockets: Vec<ListenerSocket>,
    paths: Paths,
    settings: Settings,
    reload: Reload,
}

/// What the interface knows of the broker once its cores run.
pub(super) struct Facts<'a> {
    pub executor: ExecutorKind,
    pub listeners: ListenerTable,
    pub connections_max: u32,
    pub memory_bytes_max: u64,
    pub statistics: Option<SharedStatistics>,
    pub stop: &'a Stop,
    pub access: Arc<Gate>,
    pub webhooks: Webhooks,
    pub bridges: Bridges,
    pub cluster: Option<ClusterBoard>,
    /// Sends clients to other nodes.
    pub drain: Drainer,
}

/// The addresses of the interface. Its Unix sockets are removed with this.
struct Paths(Vec<Bind>);

impl Drop for Paths {
    fn drop(&mut self) {
        for bind in &self.0 {
            if let Bind::Path(path) = bind
                && let Err(error) = std::fs::remove_file(path)
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove the socket");
            }
        }
    }
}

impl Opened {
    /// Reads the files of the interface and opens its sockets.
    pub fn open(settings: &Settings, reload: &Reload) -> Result<Self, ServerError> {
        if settings.admin.listen.contains(&AdminBind::Unix)
            && let Err(because) = settings.admin_socket()
        {
            tracing::info!(because, "no Unix socket of the admin interface");
        }
        let binds = settings.admin_binds();
        if binds.is_empty() && settings.telemetry.endpoint.is_empty() {
            // Telemetry is exported by the thread of the admin interface.
            reload.needs_restart_if("telemetry", |wanted| !wanted.telemetry.endpoint.is_empty());
            return Ok(Self(None));
        }
        let prepared = Prepared::open(&settings.admin).map_err(ServerError::Admin)?;
        let (mut sockets, mut paths) = (Vec::new(), Paths(Vec::new()));
        for bind in binds {
            let opened = open(settings, &bind);
            let (sockets_of, bind) =
                opened.map_err(|error| ServerError::ListenAdmin(bind, error))?;
            sockets.extend(sockets_of);
            paths.0.push(bind);
        }
        let (settings, reload) = (settings.clone(), reload.clone());
        Ok(Self(Some(Open { prepared, sockets, paths, settings, reload })))
    }

    /// Serves from here on, in a thread.
    pub fn start(self, facts: Facts<'_>) -> io::Result<Serving> {
        let Some(Open { prepared, sockets, paths, settings, reload }) = self.0 else {
            return Ok(Serving(None));
        };
        let Facts { executor, listeners, connections_max, memory_bytes_max, .. } = facts;
        let cores = facts.stop.cores().cloned();
        let running = cores.zip(facts.statistics);
        let (cores, statistics) =
            running.ok_or_else(|| io::Error::other("no cores are running"))?;
        let parts = Parts {
            folder: settings.data_folder().ok(),
            settings: Arc::new(settings),
            executor,
            listeners,
            connections_max,
            memory_bytes_max,
            statistics,
            cores,
            stop: facts.stop.clone(),
            reload,
            access: facts.access,
            webhooks: facts.webhooks,
            bridges: facts.bridges,
            cluster: facts.cluster,
            drain: facts.drain,
        };
        let running = prepared.start(sockets, parts)?;
        for bind in &paths.0 {
            tracing::info!(address = %bind, "the admin interface is open");
        }
        Ok(Serving(Some((running, paths))))
    }
}

/// The admin interface while the broker serves.
pub(super) struct Serving(Option<(Running, Paths)>);

impl Serving {
    /// Closes all connections, and removes the Unix sockets.
    pub fn end(self) {
        if let Some((running, paths)) = self.0 {
            drop(paths);
            running.end();
        }
    }
}

fn open(settings: &Settings, bind: &Bind) -> listen::Listening {
    match bind {
        Bind::Address(address) => listen::patiently(bind, settings.bind_wait_s, || {
            listen::listen_for_each(*address, 1, BindOptions::of_any(settings))
        }),
        Bind::Path(path) => {
            listen::patiently(bind, 0, || listen::listen_at(path, &rights(settings)))
        }
    }
}

/// Who may open the Unix sockets.
fn rights(settings: &Settings) -> UnixSocket {
    let group = Some(settings.admin.socket_group.clone()).filter(|group| !group.is_empty());
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    UnixSocket { mode: Some(mode), owner: None, group }
}

/// Every reason why a start would fail, without starting.
pub(super) fn check(settings: &Settings) -> Vec<ServerError> {
    let binds = settings.admin_binds();
    if binds.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<_> =
        Prepared::open(&settings.admin).err().map(ServerError::Admin).into_iter().collect();
    for bind in binds {
        if let Err(error) = check_bind(settings, &bind) {
            found.push(ServerError::ListenAdmin(bind, error));
        }
    }
    found
}

fn check_bind(settings: &Settings, at: &Bind) -> io::Result<()> {
    match at {
        Bind::Address(address) => {
            match listen::bind(*address, false, BindOptions::of_any(settings)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
                Err(error) if settings.bind_wait_s > 0 && listen::is_absent(&error) => Ok(()),
                outcome => outcome.map(drop),
            }
        }
        // The store creates its folder.
        Bind::Path(path) if settings.data_folder().ok().as_deref() == path.parent() => Ok(()),
        Bind::Path(path) => listen::check_path(path, &rights(settings)),
    }
}
