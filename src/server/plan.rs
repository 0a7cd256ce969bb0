//! What a start does on this machine: settings as written become a plan, once; each core gets the part
//! that it needs.

use std::time::Duration;

use super::ServerError;
use crate::config::{ExecutorKind as Kind, Limits, Mode, Settings, Uring};
use crate::engine::Config;
use crate::executor::{placement, probe, sockets_max};
use crate::platform::plan::Placement;
use crate::platform::{self, Descriptors};

/// The plan of a start.
pub(super) struct Plan {
    /// The executor that the cores run; never [`Kind::Auto`].
    pub executor: Kind,
    /// Whether the broker runs on readiness if io_uring cannot be set up on every core.
    #[cfg_attr(
        not(all(feature = "uring", target_os = "linux", target_pointer_width = "64")),
        expect(dead_code, reason = "only io_uring has a fallback")
    )]
    pub may_fall_back: bool,
    /// Whether the only core runs on the calling thread.
    pub is_single_threaded: bool,
    /// Number of cores.
    pub cores: u16,
    /// Whether each core's memory is allocated on its NUMA node.
    pub numa: bool,
    /// The longest that a busy core waits for more input.
    pub latency_budget: Duration,
    /// Processor of each core; empty if the operating system chooses.
    pub placements: Vec<Placement>,
    /// How io_uring is used.
    pub uring: Uring,
    /// Configuration of the engines.
    pub engine: Config,
}

impl Plan {
    /// Makes the plan, or returns every reason why the settings cannot be carried out.
    pub fn make(settings: &Settings) -> Result<Self, Vec<ServerError>> {
        let mut limits = settings.limits.clone();
        platform::raise_descriptors(limits.connections_max);
        let mode = platform::plan::resolve(settings.mode, &settings.cores);
        let mut errors = Vec::new();
        let choice = Choice::make(mode, settings).map_err(|error| errors.push(error)).ok();
        if let Some(choice) = &choice {
            match platform::connections_max(limits.connections_max, choice.descriptors(settings)) {
                Ok(connections_max) => limits.connections_max = connections_max,
                Err(error) => errors.push(ServerError::Descriptors(error)),
            }
        }
        resolve_memory(&mut limits);
        let placements = placement::placements(&settings.cores, settings.numa);
        let placements =
            placements.map_err(|error| errors.push(ServerError::Placement(error))).ok();
        let (Some(choice), Some(placements), []) = (choice, placements, &errors[..]) else {
            return Err(errors);
        };
        Ok(Self {
            executor: choice.executor,
            may_fall_back: !is_forced(mode, settings),
            is_single_threaded: mode == Mode::Sync,
            cores: settings.cores.count(),
            numa: settings.numa,
            latency_budget: Duration::from_micros(settings.latency_budget_us.into()),
            placements,
            uring: choice.uring,
            engine: Config::new(settings, limits),
        })
    }

    /// Changes the plan to run on readiness, whose sockets count against the process's descriptor limit.
    #[cfg_attr(
        not(all(feature = "uring", target_os = "linux", target_pointer_width = "64")),
        expect(dead_code, reason = "only io_uring has a fallback")
    )]
    pub fn fall_back_to_poll(&mut self) {
        self.executor = Kind::Poll;
        if let Ok(connections_max) = platform::connections_max(0, Descriptors::OfTheProcess) {
            self.engine.lower_connections_max(connections_max);
        }
    }

    /// Number of sockets that a core has to be able to hold.
    pub fn sockets_max(&self) -> u32 {
        sockets_max(self.engine.connections_max())
    }
}

/// Resolves the limit on memory.
fn resolve_memory(limits: &mut Limits) {
    if limits.memory_bytes_max == 0 {
        limits.memory_bytes_max = platform::memory_bytes() / 4 * 3;
    }
}

/// The limits in these settings, for cores whose tables have room for `connections_max`.
pub(super) fn resolve(settings: &Settings, connections_max: u32) -> Limits {
    let mut limits = settings.limits.clone();
    resolve_memory(&mut limits);
    limits.connections_max = match limits.connections_max {
        0 => connections_max,
        asked => asked.min(connections_max),
    };
    limits
}

/// An executor that this machine can run, with what the kernel supports of io_uring.
struct Choice {
    executor: Kind,
    uring: Uring,
}

impl Choice {
    /// Chooses the configured executor, or the best one available.
    fn make(mode: Mode, settings: &Settings) -> Result<Self, ServerError> {
        let mut uring = settings.uring.clone();
        if mode == Mode::Poll || settings.executor == Kind::Poll {
            return Ok(Self { executor: Kind::Poll, uring });
        }
        let io_uring = probe::availability(&uring, sockets_max(settings.limits.connections_max));
        uring.direct_descriptors &= io_uring.closes_direct_descriptors();
        let executor = match io_uring.why_not() {
            None if settings.executor == Kind::Auto => Kind::Uring,
            None => settings.executor,
            Some(why) if is_forced(mode, settings) => {
                return Err(ServerError::Mode(why.to_string()));
            }
            Some(_) if !probe::MAY_HAVE_IO_URING => Kind::Poll,
            Some(why) => {
                tracing::warn!(because = why.word(), "running on poll, which is slower: {why}");
                Kind::Poll
            }
        };
        Ok(Self { executor, uring })
    }

    /// Descriptors that limit the number of connections.
    fn descriptors(&self, settings: &Settings) -> Descriptors {
        match self.executor {
            Kind::Uring if self.uring.direct_descriptors => {
                Descriptors::OfRings(settings.cores.count())
            }
            _ => Descriptors::OfTheProcess,
        }
    }
}

/// Whether the broker runs on io_uring or not at all.
fn is_forced(mode: Mode, settings: &Settings) -> bool {
    mode == Mode::Uring || settings.executor != Kind::Auto
}
