//! `broker platform`: this machine, its limits, and recommended settings.

use std::fmt;

use serde::Serialize;

use crate::config::{Cores, Settings};
use crate::executor::probe::kernel_tls::KernelTls;
use crate::executor::probe::{self, Availability};
use crate::executor::sockets_max;
use crate::platform::plan::{self, Impossible, Placement};
use crate::platform::topology::Topology;
use crate::platform::{self, Descriptors, cgroup, counted};

/// Description of this machine.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Operating system, and kernel version if known.
    pub system: String,
    /// Architecture of the processors.
    pub architecture: &'static str,
    /// Processors this process may run on.
    pub processors: usize,
    /// Physical cores of these processors.
    pub cores: usize,
    /// Packages (sockets) of these processors.
    pub packages: usize,
    /// NUMA nodes of these processors.
    pub nodes: usize,
    /// NUMA node of the network card, if known.
    pub network_node: Option<u16>,
    /// Processor limit of the control group.
    pub processors_max: Option<f64>,
    /// Memory in bytes: of the machine, or of the control group if that is less.
    pub memory_bytes: u64,
    /// Descriptor limit of the process.
    pub descriptors_max: Option<u64>,
    /// Availability of io_uring.
    pub io_uring: Availability,
    /// Availability of kernel TLS.
    pub kernel_tls: KernelTls,
    /// Recommended settings.
    pub recommended: Recommended,
}

/// Recommended settings.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Recommended {
    /// `--mode`.
    pub mode: &'static str,
    /// `--cores`.
    pub cores: u16,
    /// `--numa`.
    pub numa: bool,
    /// `limits.connections_max`.
    pub connections_max: u32,
    /// `uring.entries`.
    pub ring_entries: u32,
    /// `uring.buffers`.
    pub buffers: u16,
    /// `uring.buffer_bytes`.
    pub buffer_bytes: u32,
}

/// Highest recommendation of `limits.connections_max`.
const CONNECTIONS_RECOMMENDED_MAX: u32 = 1_000_000;
/// Recommendation of `limits.connections_max` for small machines.
const CONNECTIONS_OF_SMALL_MACHINES: u32 = 500;

/// Properties that the recommendation depends on.
#[derive(Clone, Copy, Debug)]
struct Machine {
    is_small: bool,
    has_io_uring: bool,
    /// Connections use direct descriptors, which do not count against the limit of the process.
    is_direct: bool,
    cores: usize,
    nodes: usize,
    processors_max: Option<f64>,
    memory_bytes: u64,
    descriptors_max: Option<u64>,
}

impl Machine {
    fn connections(self, descriptors: Descriptors) -> u32 {
        let fit = descriptors.fit(self.descriptors_max.unwrap_or(u64::from(u32::MAX)));
        fit.min(u64::from(CONNECTIONS_RECOMMENDED_MAX)) as u32
    }

    fn recommend(self) -> Recommended {
        let uring = crate::config::Uring::default();
        let allowed = self.processors_max.map_or(usize::MAX, |max| max.ceil().max(1.0) as usize);
        let cores = if self.is_small { 1 } else { self.cores.min(allowed).max(1) };
        let most = match (self.is_small, self.is_direct) {
            (true, _) => CONNECTIONS_OF_SMALL_MACHINES,
            (false, true) => self.connections(Descriptors::OfRings(cores as u16)),
            (false, false) => self.connections(Descriptors::OfTheProcess),
        };
        let by_memory =
            (self.memory_bytes / platform::BYTES_PER_CONNECTION).min(u64::from(u32::MAX)) as u32;
        Recommended {
            mode: match (self.is_small, self.has_io_uring) {
                (true, _) => "sync",
                (false, true) => "uring",
                (false, false) => "poll",
            },
            cores: cores.min(usize::from(u16::MAX)) as u16,
            numa: self.nodes > 1 && cores > 1,
            connections_max: most.min(by_memory),
            ring_entries: uring.entries,
            buffers: uring.buffers,
            buffer_bytes: uring.buffer_bytes,
        }
    }
}

impl Report {
    /// Examines this machine for a broker with these settings.
    pub fn new(settings: &Settings) -> Self {
        let (topology, limits) = (Topology::here(), cgroup::Limits::here());
        let descriptors_max = platform::descriptors_max();
        let io_uring =
            probe::availability(&settings.uring, sockets_max(settings.limits.connections_max));
        let memory_bytes = platform::memory_bytes();
        let machine = Machine {
            is_small: platform::IS_FOR_SMALL_MACHINES,
            has_io_uring: io_uring.is_there(),
            is_direct: io_uring.closes_direct_descriptors(),
            cores: topology.cores(),
            nodes: topology.nodes(),
            processors_max: limits.processors,
            memory_bytes,
            descriptors_max,
        };
        Self {
            system: platform::system(),
            architecture: std::env::consts::ARCH,
            processors: topology.processors.len(),
            cores: topology.cores(),
            packages: topology.packages(),
            nodes: topology.nodes(),
            network_node: topology.network_node,
            processors_max: limits.processors,
            memory_bytes,
            descriptors_max,
            io_uring,
            kernel_tls: KernelTls::find(),
            recommended: machine.recommend(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<14}{value}");
        row("system", format!("{}, {}", self.system, self.architecture))?;
        let network = self.network_node.map(|node| format!("; the network card is on node {node}"));
        row(
            "processors",
            format!(
                "{} on {} in {} on {}{}",
                counted(self.processors, "processor"),
                counted(self.cores, "core"),
                counted(self.packages, "package"),
                counted(self.nodes, "NUMA node"),
                network.unwrap_or_default()
            ),
        )?;
        let bound = |bound: Option<String>| bound.unwrap_or_else(|| "no limit".to_owned());
        row("control group", bound(self.processors_max.map(|max| format!("{max} processors"))))?;
        row("memory", format!("{} MiB", self.memory_bytes / (1024 * 1024)))?;
        row("descriptors", bound(self.descriptors_max.map(|max| max.to_string())))?;
        row("io_uring", self.io_uring.to_string())?;
        row("kernel TLS", self.kernel_tls.to_string())?;
        let best = &self.recommended;
        let numa = if best.numa { " --numa" } else { "" };
        row("recommended", format!("broker --mode {} --cores {}{numa}", best.mode, best.cores))?;
        row("", format!("limits.connections_max = {}", best.connections_max))?;
        if best.mode == "uring" {
            let Recommended { ring_entries, buffers, buffer_bytes, .. } = best;
            row(
                "",
                format!(
                    "uring.entries = {ring_entries}, uring.buffers = {buffers}, uring.buffer_bytes = {buffer_bytes}"
                ),
            )?;
        }
        Ok(())
    }
}

/// `broker platform --plan`: placement of cores on processors.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    /// Processor of each core.
    #[serde(rename = "seats")]
    pub placements: Vec<Placement>,
}

impl PlanReport {
    /// The placement of a number or list of cores.
    pub fn new(cores: &Cores, numa: bool) -> Result<Self, Impossible> {
        Ok(Self { placements: plan::plan(&Topology::here(), cores, numa)? })
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "core  processor  package  node")?;
        for (core, placement) in self.placements.iter().enumerate() {
            let Placement { processor, package, node, shares_core_with } = placement;
            let shares = if *shares_core_with > 0 { "  shares its physical core" } else { "" };
            writeln!(f, "{core:<4}  {processor:<9}  {package:<7}  {node}{shares}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Machine = Machine {
        is_small: false,
        has_io_uring: true,
        is_direct: true,
        cores: 32,
        nodes: 2,
        processors_max: None,
        memory_bytes: 128 << 30,
        descriptors_max: Some(1_048_576),
    };

    #[test]
    fn a_server_with_io_uring_is_for_a_million_connections() {
        let best = SERVER.recommend();
        assert_eq!((best.mode, best.cores, best.numa), ("uring", 32, true));
        assert_eq!(best.connections_max, 1_000_000);
    }

    #[test]
    fn a_router_is_for_500_connections_in_one_thread() {
        let router = Machine {
            is_small: true,
            has_io_uring: false,
            is_direct: false,
            cores: 4,
            nodes: 1,
            memory_bytes: 128 << 20,
            descriptors_max: Some(4_096),
            ..SERVER
        };
        let best = router.recommend();
        assert_eq!((best.mode, best.cores, best.connections_max), ("sync", 1, 500));
    }

    #[test]
    fn without_io_uring_it_is_as_the_machine_allows() {
        let plain = Machine {
            has_io_uring: false,
            is_direct: false,
            descriptors_max: Some(20_000),
            ..SERVER
        };
        let best = plain.recommend();
        assert_eq!((best.mode, best.connections_max), ("poll", 19_872));
    }

    #[test]
    fn a_control_group_bounds_cores_and_memory_bounds_connections() {
        let container =
            Machine { processors_max: Some(1.5), memory_bytes: 1 << 30, nodes: 1, ..SERVER };
        let best = container.recommend();
        assert_eq!((best.cores, best.numa), (2, false));
        assert_eq!(best.connections_max, 65_536);
    }
}
