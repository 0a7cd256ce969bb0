//! From settings to a serving broker: the plan, listeners, certificates, store, statistics, cores.

#[cfg(feature = "admin")]
mod admin;
#[cfg(feature = "bridge")]
mod bridge_files;
mod certificates;
mod check;
#[cfg(feature = "cluster")]
mod cluster;
mod listen;
mod listeners;
mod plan;
mod reload;
pub mod report;
mod statistics;
mod summary;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::{fmt, io};

pub use self::check::check;
pub use self::listen::Open;
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
use self::listen::try_clone;
use self::listen::{hint, open_listeners, steer};
use self::listeners::Live;
use self::plan::Plan;
use self::statistics::Printing;
pub use self::summary::Summary;
use crate::access::Gate;
use crate::bridges::Bridges;
use crate::config::{Bind, ExecutorKind as Kind, Settings};
use crate::control::cluster::ClusterBoard;
use crate::control::drain::Drainer;
use crate::control::reload::Reload;
use crate::control::stop::Stop;
use crate::engine::Keys;
use crate::executor::threads::{self, Running};
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
use crate::executor::uring;
use crate::executor::{Executor, Listeners, poll};
#[cfg(feature = "store")]
use crate::mosquitto::database::{self, import::ImportError};
use crate::platform;
use crate::platform::plan::Impossible;
use crate::service::HandedOver;
use crate::stats::{Prompt, SharedStatistics};
#[cfg(feature = "store")]
use crate::storage::log::{Store, StoreError};
use crate::transport::ListenerPolicies;
use crate::webhooks::Webhooks;

/// Reason why a broker does not start, or ended.
#[derive(Debug)]
pub enum ServerError {
    /// An address cannot be listened on.
    Listen(Bind, io::Error),
    /// An address of the admin interface cannot be listened on.
    #[cfg(feature = "admin")]
    ListenAdmin(Bind, io::Error),
    /// Files of the admin interface cannot be used.
    #[cfg(feature = "admin")]
    Admin(String),
    /// Files of a TLS listener cannot be used.
    Tls(Bind, String),
    /// The descriptor limit is too low.
    Descriptors(platform::TooFewDescriptors),
    /// The configured I/O method is not available.
    Mode(String),
    /// Files of a webhook cannot be used.
    Webhooks(String),
    /// Files of a bridge cannot be used.
    #[cfg(feature = "bridge")]
    Bridges(String),
    /// The broker cannot be a node of the configured cluster.
    #[cfg(feature = "cluster")]
    Cluster(String),
    /// Other nodes have taken over the sessions of this one, or its stream can be used no more.
    #[cfg(feature = "cluster")]
    TakenOver(String),
    /// The configured processors do not exist.
    Placement(Impossible),
    /// The file of dynamic security cannot be replaced.
    DynamicSecurity(PathBuf, io::Error),
    /// The file for statistics cannot be written.
    Stats(PathBuf, io::Error),
    /// The store cannot be opened.
    #[cfg(feature = "store")]
    Store(StoreError),
    /// The database of another broker cannot be imported.
    #[cfg(feature = "store")]
    Import(ImportError),
    /// No folder for the store is known.
    #[cfg(feature = "store")]
    NoFolder(&'static str),
    /// The executor failed.
    Executor(io::Error),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(bind, error) => {
                write!(f, "cannot listen on {bind}: {error}; {}", hint(error, bind, "--listen"))
            }
            #[cfg(feature = "admin")]
            Self::ListenAdmin(bind, error) => {
                let hint = hint(error, bind, "admin.listen");
                write!(f, "the admin interface cannot listen on {bind}: {error}; {hint}")
            }
            #[cfg(feature = "admin")]
            Self::Admin(what) => f.write_str(what),
            Self::Tls(bind, what) => write!(f, "[[listeners]] bind = \"{bind}\": {what}"),
            Self::Webhooks(what) => f.write_str(what),
            #[cfg(feature = "bridge")]
            Self::Bridges(what) => f.write_str(what),
            #[cfg(feature = "cluster")]
            Self::Cluster(what) => write!(f, "[cluster]: {what}"),
            #[cfg(feature = "cluster")]
            Self::TakenOver(why) => write!(f, "{why}; start the broker again"),
            Self::Descriptors(error) => error.fmt(f),
            Self::Mode(why) => {
                write!(
                    f,
                    "--mode uring: {why}; or use --mode auto, which chooses an available method"
                )
            }
            Self::Placement(impossible) => write!(f, "--cores: {impossible}"),
            Self::DynamicSecurity(path, error) => write!(
                f,
                "access.dynamic_security: {}: {error}; let the user of the broker write the folder of the file, in \
                 which a new file replaces it",
                path.display()
            ),
            Self::Stats(path, error) => write!(
                f,
                "--stats-log {}: {error}; name a file in a folder that this user may write to",
                path.display()
            ),
            #[cfg(feature = "store")]
            Self::Store(error) => error.fmt(f),
            #[cfg(feature = "store")]
            Self::Import(error) => write!(f, "storage.import_mosquitto: {error}"),
            #[cfg(feature = "store")]
            Self::NoFolder(why) => f.write_str(why),
            Self::Executor(error) => write!(f, "the executor failed: {error}"),
        }
    }
}

impl std::error::Error for ServerError {}

/// A broker that listens and does not serve yet.
pub struct Server {
    #[cfg(any(feature = "bridge", feature = "cluster"))]
    settings: Settings,
    #[cfg_attr(
        not(any(feature = "bridge", feature = "admin")),
        expect(dead_code, reason = "there are none")
    )]
    bridges: Bridges,
    /// What is known of the cluster; none if the broker is no node of one.
    #[cfg(any(feature = "admin", feature = "cluster"))]
    cluster: Option<ClusterBoard>,
    drain: Drainer,
    plan: Plan,
    access: Arc<Gate>,
    keys: Keys,
    stop: Stop,
    listeners: Vec<Listeners>,
    open: Vec<Open>,
    policies: ListenerPolicies,
    live: Live,
    /// Connections that the tables of the cores have room for.
    #[cfg_attr(
        not(all(feature = "uring", target_os = "linux", target_pointer_width = "64")),
        expect(dead_code, reason = "only io_uring has a fallback")
    )]
    connections_max: Arc<AtomicU32>,
    printing: Printing,
    summary: Summary,
    webhooks: Webhooks,
    #[cfg(feature = "store")]
    store: std::cell::RefCell<Option<Store>>,
    #[cfg(feature = "admin")]
    admin: admin::Opened,
}

impl Server {
    /// Makes the plan and opens files and listeners. `keys` are random and
    /// independent of each other, files that can be reloaded are registered with `reload`, and sockets that were
    /// `handed_over` are listened on.
    pub fn open(
        settings: &Settings,
        access: Arc<Gate>,
        keys: Keys,
        stop: Stop,
        reload: &Reload,
        mut handed_over: HandedOver,
    ) -> Result<Self, ServerError> {
        let plan = Plan::make(settings).map_err(|mut errors| errors.swap_remove(0))?;
        let printing = Printing::prepare(settings)?;
        printing.register(reload, plan.engine.has_statistics());
        let policies = certificates::open(settings, plan.executor)?;
        let connections_max = Arc::new(AtomicU32::new(plan.engine.connections_max()));
        #[cfg(feature = "bridge")]
        bridge_files::check(&settings.bridges).map_err(ServerError::Bridges)?;
        let bridges = Bridges::new();
        #[cfg(feature = "bridge")]
        bridge_files::register(&bridges, reload);
        self::reload::register(settings, &connections_max, reload, &stop);
        let (listeners, open) = open_listeners(settings, &mut handed_over)?;
        steer(&listeners, &plan.placements);
        let machine = (plan.executor, listen::accepting(settings), &*plan.placements);
        let live = Live::new(settings, machine, &policies, &open, &stop);
        live.register(reload);
        let webhooks = Webhooks::open(settings, reload, &stop).map_err(ServerError::Webhooks)?;
        #[cfg(feature = "store")]
        let store = std::cell::RefCell::new(open_store(settings)?);
        // After the store, whose folder may hold the socket.
        #[cfg(feature = "admin")]
        let admin = admin::Opened::open(settings, reload)?;
        let cluster = settings.cluster.is_enabled().then(ClusterBoard::default);
        let drain = Drainer::new(stop.clone(), cluster.clone());
        Ok(Self {
            #[cfg(any(feature = "bridge", feature = "cluster"))]
            settings: settings.clone(),
            bridges,
            #[cfg(any(feature = "admin", feature = "cluster"))]
            cluster,
            drain,
            plan,
            access,
            keys,
            stop,
            listeners,
            open,
            policies,
            live,
            connections_max,
            printing,
            summary: Summary::default(),
            webhooks,
            #[cfg(feature = "store")]
            store,
            #[cfg(feature = "admin")]
            admin,
        })
    }

    /// The addresses listened on, with the ports that the system chose, and their transports.
    pub fn open_listeners(&self) -> &[Open] {
        &self.open
    }

    /// Limit of concurrent connections.
    pub fn connections_max(&self) -> u32 {
        self.plan.engine.connections_max()
    }

    /// The executor of the cores.
    pub fn kind(&self) -> Kind {
        self.plan.executor
    }

    /// A handle that asks for statistics, if they are printed.
    pub fn prompt(&self) -> Prompt {
        self.printing.prompt()
    }

    /// Logs a summary of the broker when it is asked for.
    pub fn summary(&self) -> Summary {
        self.summary.clone()
    }

    /// Sends the clients of a node elsewhere.
    pub fn drain(&self) -> Drainer {
        self.drain.clone()
    }

    /// Serves until asked to stop. Calls `when_serving` once clients can connect. If a core fails, all stop.
    pub fn serve(mut self, when_serving: impl FnOnce()) -> Result<(), ServerError> {
        #[cfg(feature = "cluster")]
        let Some(mut node) = self.open_node()? else { return Ok(()) };
        let listeners = std::mem::take(&mut self.listeners);
        let mut running = match self.plan.executor {
            Kind::Poll => self.start::<poll::Executor>(listeners)?,
            #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
            Kind::Uring if self.plan.may_fall_back => {
                let copies = try_clone(&listeners).map_err(ServerError::Executor)?;
                match self.start::<uring::Executor>(copies) {
                    Ok(running) => {
                        // A listener that a reload closes must not stay open here.
                        drop(listeners);
                        running
                    }
                    #[cfg(feature = "store")]
                    Err(error @ ServerError::Store(_)) => return Err(error),
                    // The first ring could be set up, but not one for each core.
                    Err(error) => {
                        tracing::warn!(%error, "cannot run on io_uring; running on poll instead");
                        self.plan.fall_back_to_poll();
                        let connections_max = self.plan.engine.connections_max();
                        self.connections_max
                            .store(connections_max, std::sync::atomic::Ordering::Relaxed);
                        self.start::<poll::Executor>(listeners)?
                    }
                }
            }
            #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
            Kind::Uring => self.start::<uring::Executor>(listeners)?,
            #[cfg(not(all(feature = "uring", target_os = "linux", target_pointer_width = "64")))]
            Kind::Uring => unreachable!("not available in this build"),
            #[cfg(all(feature = "monoio", target_os = "linux", target_pointer_width = "64"))]
            Kind::Monoio => self.start::<crate::executor::runtime::monoio::Executor>(listeners)?,
            #[cfg(all(feature = "glommio", target_os = "linux", target_pointer_width = "64"))]
            Kind::Glommio => {
                self.start::<crate::executor::runtime::glommio::Executor>(listeners)?
            }
            #[allow(unreachable_patterns, reason = "depends on the features")]
            Kind::Auto | Kind::Monoio | Kind::Glommio => unreachable!("never part of a plan"),
        };
        let has_reporter = self.printing.is_prepared();
        let statistics = running.collector.take().zip(self.stop.cores().cloned());
        let statistics = statistics
            .map(|(collector, cores)| SharedStatistics::new(cores, collector, has_reporter));
        self.summary.begin(statistics.as_ref());
        self.printing.start(statistics.clone()).map_err(ServerError::Executor)?;
        #[cfg(feature = "cluster")]
        let gateway = node.start(&self, running.for_gateway.take())?;
        #[cfg(feature = "admin")]
        let admin = self.start_admin(statistics)?;
        #[cfg(feature = "bridge")]
        self.start_bridges()?;
        when_serving();
        let outcome = running.join().map_err(ServerError::Executor);
        #[cfg(feature = "bridge")]
        self.bridges.end();
        #[cfg(feature = "cluster")]
        if let Some(gateway) = gateway {
            // It stops with the cores; a panic was logged.
            let _ = gateway.join();
        }
        self.live.remove_paths();
        self.webhooks.end();
        self.printing.end();
        #[cfg(feature = "store")]
        if let Some(store) = &mut *self.store.borrow_mut() {
            store.finish();
        }
        #[cfg(feature = "admin")]
        admin.end();
        #[cfg(feature = "cluster")]
        node.check_taken_over()?;
        outcome
    }

    /// Starts the admin interface, with what it knows of this broker.
    #[cfg(feature = "admin")]
    fn start_admin(
        &mut self,
        statistics: Option<SharedStatistics>,
    ) -> Result<admin::Serving, ServerError> {
        let facts = admin::Facts {
            executor: self.plan.executor,
            listeners: self.live.table(),
            connections_max: self.connections_max(),
            memory_bytes_max: self.plan.engine.memory_bytes_max(),
            statistics,
            stop: &self.stop,
            access: Arc::clone(&self.access),
            webhooks: self.webhooks.clone(),
            bridges: self.bridges.clone(),
            cluster: self.cluster.clone(),
            drain: self.drain.clone(),
        };
        std::mem::take(&mut self.admin).start(facts).map_err(ServerError::Executor)
    }

    /// Starts the threads of the bridges.
    #[cfg(feature = "bridge")]
    fn start_bridges(&self) -> Result<(), ServerError> {
        let Some(cores) = self.stop.cores() else { return Ok(()) };
        let folder = self.settings.data_folder().ok();
        let started = self.bridges.start(&self.settings, folder, cores, &self.stop);
        started.map_err(|what| ServerError::Executor(io::Error::other(what)))
    }

    fn start<E: Executor>(&self, listeners: Vec<Listeners>) -> Result<Running, ServerError> {
        let Plan { cores, numa, ref placements, latency_budget, ref uring, ref engine, .. } =
            self.plan;
        let plan = threads::Plan {
            cores,
            numa,
            latency_budget,
            engine,
            sockets_max: self.plan.sockets_max(),
            uring,
            access: &|notify| self.access.for_core(notify),
            keys: self.keys,
            placements,
            policies: &self.policies,
            #[cfg(feature = "store")]
            store: &self.store,
            taps: self.webhooks.taps(),
            #[cfg(feature = "cluster")]
            is_node: self.settings.cluster.is_enabled(),
            stop: self.stop.clone(),
        };
        self.webhooks.start_clock();
        let started = match self.plan.is_single_threaded {
            true => threads::start_here::<E>(&plan, listeners),
            false => threads::start::<E>(&plan, listeners),
        };
        started.map_err(|error| {
            #[cfg(feature = "store")]
            let error = match error.downcast::<StoreError>() {
                Ok(error) => return ServerError::Store(error),
                Err(error) => error,
            };
            ServerError::Executor(error)
        })
    }
}

/// Takes the database of Mosquitto into an empty store, if one is configured and there.
#[cfg(feature = "store")]
fn import(settings: &Settings, folder: &std::path::Path) -> Result<(), ServerError> {
    let file = &settings.storage.import_mosquitto;
    if file.as_os_str().is_empty() {
        return Ok(());
    }
    let options = database::Options::default();
    let outcome = database::import::import_at_first_start(folder, file, options);
    outcome.map(drop).map_err(ServerError::Import)
}

/// Opens the store, and logs its folder.
#[cfg(feature = "store")]
fn open_store(settings: &Settings) -> Result<Option<Store>, ServerError> {
    if let Some(why) = settings.lacks_folder() {
        return Err(ServerError::NoFolder(why));
    }
    let folder = match settings.data_folder() {
        Ok(folder) => folder,
        Err(because) => {
            tracing::info!(because, "sessions and retained messages are in memory only");
            return Ok(None);
        }
    };
    import(settings, &folder)?;
    let store = Store::open(&folder, settings.storage.clone()).map_err(ServerError::Store)?;
    tracing::info!(
        folder = %folder.display(),
        bytes = store.scan().bytes(),
        sync = ?settings.storage.sync,
        "sessions and retained messages are stored on disk"
    );
    Ok(Some(store))
}
