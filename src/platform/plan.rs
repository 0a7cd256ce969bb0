//! Placement: which processor of the machine runs which of the broker's cores.
//!
//! Each physical core first, then its siblings; fast processors before slow ones. With NUMA, the node of the
//! network card comes first, then the nodes nearest to it.

use std::fmt;

use serde::Serialize;

use crate::config::{Cores, Mode};
use crate::platform;
use crate::platform::topology::{Processor, Topology};

/// The processor of one of the broker's cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// The system's number for the processor.
    pub processor: u16,
    /// The NUMA node of the processor.
    pub node: u16,
    /// The package of the processor.
    pub package: u16,
    /// The number of the broker's cores before this one on the same physical core.
    pub shares_core_with: usize,
}

/// Why the cores cannot be placed.
#[derive(Debug, PartialEq, Eq)]
pub enum Impossible {
    /// The process may not run on that many processors.
    TooFew {
        /// Cores that were configured.
        asked: u16,
        /// Processors that the process may run on.
        there: usize,
    },
    /// These processors do not exist, or the process may not run on them.
    NotHere(Vec<u16>),
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFew { asked, there } => write!(
                f,
                "{asked} cores are asked for, but this process may run on {there}; threads are \
                 not pinned"
            ),
            Self::NotHere(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
                write!(
                    f,
                    "this process cannot run on processor {}: it is offline, not there, or kept \
                     from it (taskset, a cpuset); `broker platform` lists those there are",
                    numbers.join(", ")
                )
            }
        }
    }
}

impl std::error::Error for Impossible {}

/// The placement of each of `cores`; in the order of NUMA nodes if `numa`.
pub fn plan(topology: &Topology, cores: &Cores, numa: bool) -> Result<Vec<Placement>, Impossible> {
    let chosen: Vec<Processor> = match cores {
        Cores::List(list) => {
            let find = |number| topology.processors.iter().find(|cpu| cpu.number == number);
            let missing: Vec<u16> = list.iter().copied().filter(|&n| find(n).is_none()).collect();
            if !missing.is_empty() {
                return Err(Impossible::NotHere(missing));
            }
            list.iter().filter_map(|&number| find(number).copied()).collect()
        }
        Cores::Count(count) => {
            let there = topology.processors.len();
            if there < usize::from(*count) {
                return Err(Impossible::TooFew { asked: *count, there });
            }
            let mut processors = topology.processors.clone();
            let first_node = topology.network_node.unwrap_or(0);
            processors.sort_by_key(|cpu| {
                let far = if numa { topology.distance(first_node, cpu.node) } else { 0 };
                let node = if numa { cpu.node } else { 0 };
                let slowness = u16::MAX - cpu.capacity;
                (topology.sibling_rank(cpu), slowness, far, node, cpu.number)
            });
            processors.truncate(usize::from(*count));
            processors
        }
    };
    let placement = |(place, cpu): (usize, &Processor)| Placement {
        processor: cpu.number,
        node: cpu.node,
        package: cpu.package,
        shares_core_with: chosen[..place]
            .iter()
            .filter(|other| (other.package, other.core) == (cpu.package, cpu.core))
            .count(),
    };
    Ok(chosen.iter().enumerate().map(placement).collect())
}

/// The mode that `auto` selects on this machine for these cores.
pub fn resolve(mode: Mode, cores: &Cores) -> Mode {
    match mode {
        Mode::Auto if platform::IS_FOR_SMALL_MACHINES && cores.count() == 1 => Mode::Sync,
        mode => mode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::topology::tests::Sys;

    fn numbers(topology: &Topology, cores: &str, numa: bool) -> Vec<u16> {
        let placements =
            plan(topology, &cores.parse().expect("cores"), numa).expect("they are there");
        placements.iter().map(|placement| placement.processor).collect()
    }

    #[test]
    fn physical_cores_come_first_and_siblings_after() {
        let topology = Sys::regular(1, 4, 2).read(0..8);
        assert_eq!(numbers(&topology, "6", false), [0, 1, 2, 3, 4, 5]);
        let placements = plan(&topology, &Cores::Count(6), false).expect("they are there");
        let shared: Vec<usize> =
            placements.iter().map(|placement| placement.shares_core_with).collect();
        assert_eq!(shared, [0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn with_numa_the_network_cards_node_comes_first() {
        let sys = Sys::regular(2, 4, 2);
        sys.set("class/net/eth0/device/numa_node", "1");
        let topology = sys.read(0..16);
        assert_eq!(numbers(&topology, "4", true), [4, 5, 6, 7]);
        assert_eq!(numbers(&topology, "8", true), [4, 5, 6, 7, 0, 1, 2, 3]);
        assert_eq!(numbers(&topology, "10", true), [4, 5, 6, 7, 0, 1, 2, 3, 12, 13]);
        assert_eq!(numbers(&topology, "4", false), [0, 1, 2, 3]);
    }

    #[test]
    fn the_nearest_nodes_follow_where_a_package_has_several() {
        // Sub-NUMA clusters: two nodes a package, near to each other.
        let sys = Sys::regular(4, 2, 1);
        for (node, far) in
            ["10 12 21 21", "12 10 21 21", "21 21 10 12", "21 21 12 10"].into_iter().enumerate()
        {
            sys.set(&format!("devices/system/node/node{node}/distance"), far);
        }
        sys.set("class/net/eth0/device/numa_node", "2");
        assert_eq!(numbers(&sys.read(0..8), "8", true), [4, 5, 6, 7, 0, 1, 2, 3]);
    }

    #[test]
    fn big_cores_come_before_little_ones() {
        let sys = Sys::regular(1, 8, 1);
        for cpu in 0..4 {
            sys.set(&format!("devices/system/cpu/cpu{cpu}/cpu_capacity"), "446");
        }
        assert_eq!(numbers(&sys.read(0..8), "5", false), [4, 5, 6, 7, 0]);
    }

    #[test]
    fn a_cpuset_bounds_the_plan() {
        let topology = Sys::regular(2, 4, 1).read([1, 2, 6]);
        assert_eq!(numbers(&topology, "3", false), [1, 2, 6]);
        let refused = plan(&topology, &Cores::Count(4), false);
        assert_eq!(refused, Err(Impossible::TooFew { asked: 4, there: 3 }));
    }

    #[test]
    fn a_list_is_taken_as_it_is_or_refused_by_number() {
        let sys = Sys::regular(1, 8, 1);
        sys.set("devices/system/cpu/online", "0-5");
        let topology = sys.read(0..8);
        assert_eq!(numbers(&topology, "5,1", false), [5, 1]);
        let refused = plan(&topology, &"4-7".parse().expect("a list"), false);
        assert_eq!(refused, Err(Impossible::NotHere(vec![6, 7])));
    }
}
