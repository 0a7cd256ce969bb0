//! From settings to a serving broker: listeners, engine, executor.

mod certificates;
mod check;
mod listen;
pub mod report;

use std::path::PathBuf;
use std::{fmt, io};

pub use self::check::check;
pub use self::listen::Open;
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
use self::listen::try_clone;
use self::listen::{hint, open_listeners, steer};
use crate::access::Bell;
use crate::config::{Bind, ExecutorKind as Kind, Mode, Settings};
use crate::control::reload::Reload;
use crate::control::stop::Stop;
use crate::engine::{Access, Keys};
use crate::executor::threads::{self, Plan, Running};
#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
use crate::executor::uring;
use crate::executor::{Executor, Listeners, placement, poll, probe, sockets_max};
use crate::platform::plan::{Impossible, Seat};
use crate::platform::{self, Descriptors};
use crate::service::HandedOver;
use crate::stats::{Prepared, Prompt, Reporter};
#[cfg(feature = "store")]
use crate::storage::log::{Store, StoreError};
use crate::transport::Entrances;

/// Why a broker does not start, or ended.
#[derive(Debug)]
pub enum ServerError {
    /// An address cannot be listened on.
    Listen(Bind, io::Error),
    /// A listener lacks what it needs to speak TLS.
    Tls(Bind, String),
    /// The descriptor limit is too low.
    Descriptors(platform::TooFewDescriptors),
    /// What it is told to run on is not there, and why.
    Mode(String),
    /// The processors it is told to run on are not there.
    Seats(Impossible),
    /// The file for statistics cannot be written.
    Stats(PathBuf, io::Error),
    /// What is to be kept cannot be.
    #[cfg(feature = "store")]
    Store(StoreError),
    /// Nobody says where it is to be kept.
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
                write!(f, "--mode uring: {why}; or let --mode auto choose what there is")
            }
            Self::Seats(impossible) => write!(f, "--cores: {impossible}"),
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

fn descriptors(kind: Kind, settings: &Settings) -> Descriptors {
    match kind {
        Kind::Uring if settings.uring.direct_descriptors => {
            Descriptors::OfRings(settings.cores.count())
        }
        _ => Descriptors::OfTheProcess,
    }
}

/// A broker that listens and does not serve yet.
pub struct Server<'a> {
    settings: Settings,
    access: &'a dyn Fn(Bell) -> Box<dyn Access>,
    keys: Keys,
    stop: Stop,
    kind: Kind,
    seats: Vec<Seat>,
    listeners: Vec<Listeners>,
    open: Vec<Open>,
    entrances: Entrances,
    reporter: Option<Prepared>,
    #[cfg(feature = "store")]
    store: std::cell::RefCell<Option<Store>>,
}

impl<'a> Server<'a> {
    /// Chooses what to run on and opens the listeners. `access` makes each core its access
    /// control; `keys` come from the system, independent of each other. What can be read anew is added to `reload`;
    /// sockets that were `handed_over` are listened on.
    pub fn open(
        mut settings: Settings,
        access: &'a dyn Fn(Bell) -> Box<dyn Access>,
        keys: Keys,
        stop: Stop,
        reload: &Reload,
        mut handed_over: HandedOver,
    ) -> Result<Self, ServerError> {
        let asked = settings.limits.connections_max;
        platform::raise_descriptors(asked);
        settings.mode = platform::plan::resolve(settings.mode, &settings.cores);
        let kind = choose(&mut settings)?;
        let descriptors = descriptors(kind, &settings);
        settings.limits.connections_max =
            platform::connections_max(asked, descriptors).map_err(ServerError::Descriptors)?;
        if settings.limits.memory_bytes_max == 0 {
            settings.limits.memory_bytes_max = platform::memory_bytes() / 4 * 3;
        }
        let seats = placement::seats(&settings.cores, settings.numa).map_err(ServerError::Seats)?;
        let reporter = prepare_reporter(&settings)?;
        let entrances = certificates::open(&settings, kind, reload)?;
        let (listeners, open) = open_listeners(&settings, &mut handed_over)?;
        steer(&listeners, &seats);
        #[cfg(feature = "store")]
        let store = std::cell::RefCell::new(open_store(&settings)?);
        Ok(Self {
            settings,
            access,
            keys,
            stop,
            kind,
            seats,
            listeners,
            open,
            entrances,
            reporter,
            #[cfg(feature = "store")]
            store,
        })
    }

    /// Where it listens, with the ports the system chose, and what it speaks there.
    pub fn open_listeners(&self) -> &[Open] {
        &self.open
    }

    /// Connections it takes at a time.
    pub fn connections_max(&self) -> u32 {
        self.settings.limits.connections_max
    }

    /// What it runs on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// By what it is asked for statistics while it serves, where it takes them.
    pub fn prompt(&self) -> Option<Prompt> {
        self.reporter.as_ref().map(Prepared::prompt)
    }

    /// Serves until asked to stop, and says once when it does. When one core fails, all stop.
    pub fn serve(mut self, say_serving: impl FnOnce()) -> Result<(), ServerError> {
        let listeners = std::mem::take(&mut self.listeners);
        let mut running = match self.kind {
            Kind::Poll => self.start::<poll::Executor>(listeners)?,
            #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
            Kind::Uring if !is_forced(&self.settings) => {
                let copies = try_clone(&listeners).map_err(ServerError::Executor)?;
                match self.start::<uring::Executor>(copies) {
                    Ok(running) => running,
                    #[cfg(feature = "store")]
                    Err(error @ ServerError::Store(_)) => return Err(error),
                    // One ring could be had, but not one for each core.
                    Err(error) => {
                        tracing::warn!(%error, "cannot run on io_uring; running on poll instead");
                        let connections_max = &mut self.settings.limits.connections_max;
                        *connections_max = platform::connections_max(0, Descriptors::OfTheProcess)
                            .map_or(*connections_max, |fit| fit.min(*connections_max));
                        self.start::<poll::Executor>(listeners)?
                    }
                }
            }
            #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
            Kind::Uring => self.start::<uring::Executor>(listeners)?,
            #[cfg(not(all(feature = "uring", target_os = "linux", target_pointer_width = "64")))]
            Kind::Uring => unreachable!("it is not chosen here"),
            #[cfg(all(feature = "monoio", target_os = "linux", target_pointer_width = "64"))]
            Kind::Monoio => self.start::<crate::executor::runtime::monoio::Executor>(listeners)?,
            #[cfg(all(feature = "glommio", target_os = "linux", target_pointer_width = "64"))]
            Kind::Glommio => {
                self.start::<crate::executor::runtime::glommio::Executor>(listeners)?
            }
            #[allow(unreachable_patterns, reason = "it depends on what this was built with")]
            Kind::Auto | Kind::Monoio | Kind::Glommio => unreachable!("it is not chosen"),
        };
        let cores = self.stop.cores().cloned();
        let reporter = match (self.reporter.take(), running.collector.take(), cores) {
            (Some(reporter), Some(collector), Some(cores)) => {
                Some(reporter.start(cores, collector))
            }
            _ => None,
        };
        let reporter = reporter.transpose().map_err(ServerError::Executor)?;
        say_serving();
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
        let plan = Plan {
            settings: &self.settings,
            access: self.access,
            keys: self.keys,
            seats: &self.seats,
            entrances: &self.entrances,
            #[cfg(feature = "store")]
            store: &self.store,
            stop: self.stop.clone(),
        };
        let started = match self.settings.mode {
            Mode::Sync => threads::start_here::<E>(&plan, listeners),
            _ => threads::start::<E>(&plan, listeners),
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

/// Opens what is to be kept in, and says where that is.
#[cfg(feature = "store")]
fn open_store(settings: &Settings) -> Result<Option<Store>, ServerError> {
    if let Some(why) = settings.lacks_folder() {
        return Err(ServerError::NoFolder(why));
    }
    let folder = match settings.data_folder() {
        Ok(folder) => folder,
        Err(because) => {
            tracing::info!(because, "keeping sessions and retained messages in memory alone");
            return Ok(None);
        }
    };
    let store = Store::open(&folder, settings.storage.clone()).map_err(ServerError::Store)?;
    tracing::info!(
        folder = %folder.display(),
        bytes = store.scan().bytes(),
        sync = ?settings.storage.sync,
        "keeping sessions and retained messages"
    );
    Ok(Some(store))
}

/// What to run on: what the settings say, or the best there is.
fn choose(settings: &mut Settings) -> Result<Kind, ServerError> {
    if settings.mode == Mode::Poll || settings.executor == Kind::Poll {
        return Ok(Kind::Poll);
    }
    let io_uring = probe::availability(&settings.uring, sockets_max(settings));
    settings.uring.direct_descriptors &= io_uring.closes_direct_descriptors();
    match io_uring.why_not() {
        None if settings.executor == Kind::Auto => Ok(Kind::Uring),
        None => Ok(settings.executor),
        Some(why) if is_forced(settings) => Err(ServerError::Mode(why.to_string())),
        Some(_) if !probe::MAY_HAVE_IO_URING => Ok(Kind::Poll),
        Some(why) => {
            tracing::warn!(because = why.word(), "running on poll, the slower way: {why}");
            Ok(Kind::Poll)
        }
    }
}

/// Whether it must be io_uring or nothing.
fn is_forced(settings: &Settings) -> bool {
    settings.mode == Mode::Uring || settings.executor != Kind::Auto
}
