//! From settings to a serving broker: the plan, listeners, certificates, store, statistics, cores.

mod certificates;
mod check;
mod listen;
mod plan;
pub mod report;

use std::path::PathBuf;
use std::{fmt, io};

pub use self::check::check;
pub use self::listen::Open;
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
use self::listen::try_clone;
use self::listen::{hint, open_listeners, steer};
use self::plan::Plan;
use crate::access::Notify;
use crate::config::{Bind, ExecutorKind as Kind, Settings};
use crate::control::reload::Reload;
use crate::control::stop::Stop;
use crate::engine::{Access, Keys};
use crate::executor::threads::{self, Running};
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
use crate::executor::uring;
use crate::executor::{Executor, Listeners, poll};
use crate::platform;
use crate::platform::plan::Impossible;
use crate::service::HandedOver;
use crate::stats::{Prepared, Prompt, Reporter};
#[cfg(feature = "store")]
use crate::storage::log::{Store, StoreError};
use crate::transport::ListenerPolicies;

/// Reason why a broker does not start, or ended.
#[derive(Debug)]
pub enum ServerError {
    /// An address cannot be listened on.
    Listen(Bind, io::Error),
    /// Files of a TLS listener cannot be used.
    Tls(Bind, String),
    /// The descriptor limit is too low.
    Descriptors(platform::TooFewDescriptors),
    /// The configured I/O method is not available.
    Mode(String),
    /// The configured processors do not exist.
    Placement(Impossible),
    /// The file for statistics cannot be written.
    Stats(PathBuf, io::Error),
    /// The store cannot be opened.
    #[cfg(feature = "store")]
    Store(StoreError),
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
                write!(f, "cannot listen on {bind}: {error}; {}", hint(error, bind))
            }
            Self::Tls(bind, what) => write!(f, "[[listeners]] bind = \"{bind}\": {what}"),
            Self::Descriptors(error) => error.fmt(f),
            Self::Mode(why) => {
                write!(
                    f,
                    "--mode uring: {why}; or use --mode auto, which chooses an available method"
                )
            }
            Self::Placement(impossible) => write!(f, "--cores: {impossible}"),
            Self::Stats(path, error) => write!(
                f,
                "--stats-log {}: {error}; name a file in a folder that this user may write to",
                path.display()
            ),
            #[cfg(feature = "store")]
            Self::Store(error) => error.fmt(f),
            #[cfg(feature = "store")]
            Self::NoFolder(why) => f.write_str(why),
            Self::Executor(error) => write!(f, "the executor failed: {error}"),
        }
    }
}

impl std::error::Error for ServerError {}

/// A broker that listens and does not serve yet.
pub struct Server<'a> {
    plan: Plan,
    access: &'a dyn Fn(Notify) -> Box<dyn Access>,
    keys: Keys,
    stop: Stop,
    listeners: Vec<Listeners>,
    open: Vec<Open>,
    policies: ListenerPolicies,
    reporter: Option<Prepared>,
    #[cfg(feature = "store")]
    store: std::cell::RefCell<Option<Store>>,
}

impl<'a> Server<'a> {
    /// Makes the plan and opens files and listeners. `access` makes the access control of a core, `keys` are random
    /// and independent of each other, files that can be reloaded are registered with `reload`, and sockets that were
    /// `handed_over` are listened on.
    pub fn open(
        settings: &Settings,
        access: &'a dyn Fn(Notify) -> Box<dyn Access>,
        keys: Keys,
        stop: Stop,
        reload: &Reload,
        mut handed_over: HandedOver,
    ) -> Result<Self, ServerError> {
        let plan = Plan::make(settings).map_err(|mut errors| errors.swap_remove(0))?;
        let reporter = prepare_reporter(settings)?;
        let policies = certificates::open(settings, plan.executor, reload)?;
        let (listeners, open) = open_listeners(settings, &mut handed_over)?;
        steer(&listeners, &plan.placements);
        #[cfg(feature = "store")]
        let store = std::cell::RefCell::new(open_store(settings)?);
        Ok(Self {
            plan,
            access,
            keys,
            stop,
            listeners,
            open,
            policies,
            reporter,
            #[cfg(feature = "store")]
            store,
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

    /// A handle that asks for statistics; none if they are not collected.
    pub fn prompt(&self) -> Option<Prompt> {
        self.reporter.as_ref().map(Prepared::prompt)
    }

    /// Serves until asked to stop. Calls `when_serving` once clients can connect. If a core fails, all stop.
    pub fn serve(mut self, when_serving: impl FnOnce()) -> Result<(), ServerError> {
        let listeners = std::mem::take(&mut self.listeners);
        let mut running = match self.plan.executor {
            Kind::Poll => self.start::<poll::Executor>(listeners)?,
            #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
            Kind::Uring if self.plan.may_fall_back => {
                let copies = try_clone(&listeners).map_err(ServerError::Executor)?;
                match self.start::<uring::Executor>(copies) {
                    Ok(running) => running,
                    #[cfg(feature = "store")]
                    Err(error @ ServerError::Store(_)) => return Err(error),
                    // The first ring could be set up, but not one for each core.
                    Err(error) => {
                        tracing::warn!(%error, "cannot run on io_uring; running on poll instead");
                        self.plan.fall_back_to_poll();
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
        let cores = self.stop.cores().cloned();
        let reporter = match (self.reporter.take(), running.collector.take(), cores) {
            (Some(reporter), Some(collector), Some(cores)) => {
                Some(reporter.start(cores, collector))
            }
            _ => None,
        };
        let reporter = reporter.transpose().map_err(ServerError::Executor)?;
        when_serving();
        let outcome = running.join().map_err(ServerError::Executor);
        listen::remove_paths(&self.open);
        if let Some(reporter) = reporter {
            reporter.end();
        }
        #[cfg(feature = "store")]
        if let Some(store) = &mut *self.store.borrow_mut() {
            store.finish();
        }
        outcome
    }

    fn start<E: Executor>(&self, listeners: Vec<Listeners>) -> Result<Running, ServerError> {
        let Plan { cores, numa, ref placements, ref uring, ref engine, .. } = self.plan;
        let plan = threads::Plan {
            cores,
            numa,
            engine,
            sockets_max: self.plan.sockets_max(),
            uring,
            access: self.access,
            keys: self.keys,
            placements,
            policies: &self.policies,
            #[cfg(feature = "store")]
            store: &self.store,
            stop: self.stop.clone(),
        };
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

fn prepare_reporter(settings: &Settings) -> Result<Option<Prepared>, ServerError> {
    if !settings.stats.enabled {
        return Ok(None);
    }
    let prepared = Reporter::prepare(&settings.stats);
    prepared.map(Some).map_err(|error| ServerError::Stats(settings.stats.log.clone(), error))
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
    let store = Store::open(&folder, settings.storage.clone()).map_err(ServerError::Store)?;
    tracing::info!(
        folder = %folder.display(),
        bytes = store.scan().bytes(),
        sync = ?settings.storage.sync,
        "sessions and retained messages are stored on disk"
    );
    Ok(Some(store))
}
