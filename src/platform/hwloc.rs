//! Reads the topology from hwloc, which supports more than `/sys`: firmware tables, systems other than Linux, and
//! files that describe other machines.

use std::collections::BTreeMap;

use hwlocality::Topology as Machine;
use hwlocality::object::TopologyObject;
use hwlocality::object::distance::DistancesKind;
use hwlocality::object::types::ObjectType;

use crate::platform::topology::{CAPACITY_MAX, Processor, Topology};

/// The topology of this machine's allowed processors; an error if hwloc lists none.
pub fn here(allowed: &[u16]) -> Result<Topology, String> {
    let machine = Machine::new().map_err(|error| error.to_string())?;
    let topology = of(&machine, |number| allowed.contains(&number));
    if topology.processors.is_empty() {
        Err("hwloc lists no allowed processor".into())
    } else {
        Ok(topology)
    }
}

/// Converts hwloc's tree, restricted to the processors for which `is_allowed` returns true.
fn of(machine: &Machine, is_allowed: impl Fn(u16) -> bool) -> Topology {
    let mut processors: Vec<_> = machine
        .objects_with_type(ObjectType::PU)
        .filter_map(|unit| processor(machine, unit))
        .filter(|processor| is_allowed(processor.number))
        .collect();
    processors.sort_by_key(|processor| processor.number);
    Topology { processors, distances: distances(machine).unwrap_or_default(), network_node: None }
}

fn processor(machine: &Machine, unit: &TopologyObject) -> Option<Processor> {
    let number: u16 = unit.os_index()?.try_into().ok()?;
    let place = |kind| {
        let object = unit.first_ancestor_with_type(kind)?;
        u16::try_from(object.logical_index()).ok()
    };
    let node = unit.nodeset().and_then(|nodes| nodes.first_set()).map(usize::from);
    Some(Processor {
        number,
        package: place(ObjectType::Package).unwrap_or(0),
        // Unique in the whole machine, and so in the package too.
        core: place(ObjectType::Core).unwrap_or(number),
        node: node.and_then(|node| node.try_into().ok()).unwrap_or(0),
        capacity: capacity(machine, number),
    })
}

/// The relative speed of a processor. hwloc ranks kinds of processors from the most efficient, which is the
/// slowest, to the fastest.
fn capacity(machine: &Machine, number: u16) -> u16 {
    let Ok(kinds) = machine.cpu_kinds() else { return CAPACITY_MAX };
    let count = kinds.len();
    let rank = kinds.enumerate().find_map(|(rank, kind)| {
        let has_it = kind.cpuset.iter_set().any(|set| usize::from(set) == usize::from(number));
        // Without an efficiency the ranking is unknown.
        (has_it && kind.efficiency.is_some()).then_some(rank)
    });
    rank.map_or(CAPACITY_MAX, |rank| (usize::from(CAPACITY_MAX) * (rank + 1) / count) as u16)
}

fn distances(machine: &Machine) -> Option<BTreeMap<u16, Vec<u16>>> {
    let kind = Some(DistancesKind::MEANS_LATENCY);
    let all = machine.distances_with_type(kind, ObjectType::NUMANode).ok()?;
    let matrix = all.first()?;
    let nodes: Option<Vec<u16>> =
        matrix.objects().map(|node| node?.os_index()?.try_into().ok()).collect();
    let nodes = nodes?;
    let mut ascending: Vec<usize> = (0..nodes.len()).collect();
    ascending.sort_by_key(|&place| nodes[place]);
    let row = |from: &[u64]| -> Option<Vec<u16>> {
        ascending.iter().map(|&to| from[to].try_into().ok()).collect()
    };
    let rows = matrix.distances().chunks(nodes.len()).map(row);
    nodes.iter().zip(rows).map(|(&node, row)| Some((node, row?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cores;
    use crate::platform::plan::plan;

    fn synthetic(description: &str) -> Topology {
        let builder = Machine::builder().from_synthetic(description).expect("a description");
        of(&builder.build().expect("a machine"), |_| true)
    }

    fn from_xml(text: &str) -> Topology {
        let builder = Machine::builder().from_xml(text).expect("a file of hwloc's");
        of(&builder.build().expect("a machine"), |_| true)
    }

    fn placements(topology: &Topology, count: u16, numa: bool) -> Vec<u16> {
        let placements = plan(topology, &Cores::Count(count), numa).expect("they are there");
        placements.iter().map(|placement| placement.processor).collect()
    }

    #[test]
    fn two_sockets_with_siblings_are_distinguished() {
        // hwloc numbers siblings one after the other.
        let topology = synthetic("package:2 [numa] core:4 pu:2");
        assert_eq!((topology.packages(), topology.cores(), topology.nodes()), (2, 8, 2));
        assert_eq!(placements(&topology, 8, true), [0, 2, 4, 6, 8, 10, 12, 14]);
        assert_eq!(placements(&topology, 10, true)[8..], [1, 3]);
    }

    #[test]
    fn sub_numa_clusters_are_nodes_of_one_package() {
        let mut topology = synthetic("package:2 group:2 [numa] core:2 pu:1");
        assert_eq!((topology.packages(), topology.cores(), topology.nodes()), (2, 8, 4));
        topology.network_node = Some(2);
        let distances = ["10 12 21 21", "12 10 21 21", "21 21 10 12", "21 21 12 10"];
        for (node, far) in distances.iter().enumerate() {
            let far = far.split(' ').map(|word| word.parse().expect("a number")).collect();
            topology.distances.insert(node as u16, far);
        }
        assert_eq!(placements(&topology, 8, true), [4, 5, 6, 7, 0, 1, 2, 3]);
    }

    #[test]
    fn a_cpuset_bounds_the_plan() {
        let builder = Machine::builder().from_synthetic("package:2 [numa] core:4 pu:1");
        let machine = builder.expect("a description").build().expect("a machine");
        let topology = of(&machine, |number| [1, 2, 6].contains(&number));
        assert_eq!((topology.packages(), topology.nodes()), (2, 2));
        assert_eq!(placements(&topology, 3, false), [1, 2, 6]);
    }

    /// Two nodes at distance 25: four slow cores, and four fast ones. The file must not contain comments,
    /// which hwloc's own parser rejects.
    #[test]
    fn offline_processors_distances_and_slow_cores_are_read_from_a_file() {
        let topology = from_xml(include_str!("hwloc/two-nodes-big-little.xml"));
        // Processor 5 is offline.
        let numbers: Vec<u16> = topology.processors.iter().map(|cpu| cpu.number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 6, 7]);
        assert_eq!((topology.distance(0, 1), topology.distance(1, 0)), (25, 25));
        // The fast processors are on the second node.
        assert_eq!(placements(&topology, 4, false), [4, 6, 7, 0]);
    }

    #[test]
    fn hwloc_and_sys_agree_about_this_machine() {
        let sys = Topology::here_from_sys();
        let allowed: Vec<u16> = sys.processors.iter().map(|cpu| cpu.number).collect();
        let hwloc = here(&allowed).expect("hwloc knows this machine");
        let shape = |t: &Topology| (t.packages(), t.cores(), t.nodes(), t.processors.len());
        assert_eq!(shape(&hwloc), shape(&sys));
        for count in 1..=allowed.len() as u16 {
            assert_eq!(placements(&hwloc, count, true), placements(&sys, count, true));
        }
    }
}
