//! Which of the machine's processors runs which of our cores.
//!
//! A physical core each first, then their siblings; fast ones before slow ones. By NUMA node, those
//! beside the network card come first, and then the nearest ones.

use std::fmt;

use serde::Serialize;

use crate::config::{Cores, Mode};
use crate::platform;
use crate::platform::topology::{Processor, Topology};

/// A place for one of our cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Seat {
    /// The system's number for the processor.
    pub processor: u16,
    /// The NUMA node it is on.
    pub node: u16,
    /// The package it is in.
    pub package: u16,
    /// How many of our cores before it sit on the same physical core.
    pub shares_core_with: usize,
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq)]
pub enum Impossible {
    /// There are not that many processors for this process.
    TooFew {
        /// Cores asked for.
        asked: u16,
        /// Processors there are.
        there: usize,
    },
    /// These are not there, or not for this process.
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

/// A seat for each of `cores`; in the order of NUMA nodes if `numa`.
pub fn plan(topology: &Topology, cores: &Cores, numa: bool) -> Result<Vec<Seat>, Impossible> {
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
    let seat = |(place, cpu): (usize, &Processor)| Seat {
        processor: cpu.number,
        node: cpu.node,
        package: cpu.package,
        shares_core_with: chosen[..place]
            .iter()
            .filter(|other| (other.package, other.core) == (cpu.package, cpu.core))
            .count(),
    };
    Ok(chosen.iter().enumerate().map(seat).collect())
}

/// The mode that `auto` stands for on this machine, with so many cores.
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
        let seats = plan(topology, &cores.parse().expect("cores"), numa).expect("they are there");
        seats.iter().map(|seat| seat.processor).collect()
    }

    #[test]
    fn physical_cores_come_first_and_siblings_after() {
        let topology = Sys::regular(1, 4, 2).read(0..8);
        assert_eq!(numbers(&topology, "6", false), [0, 1, 2, 3, 4, 5]);
        let seats = plan(&topology, &Cores::Count(6), false).expect("they are there");
        let shared: Vec<usize> = seats.iter().map(|seat| seat.shares_core_with).collect();
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
