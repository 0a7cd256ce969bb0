//! The topology of the machine's processors: which share a physical core, a package or a NUMA node. Read from
//! Linux's `/sys`, or from hwloc where it is built in; elsewhere every processor is treated as a core of its own.

use std::collections::BTreeMap;
use std::path::Path;

/// One processor: a hardware thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// The system's number for the processor.
    pub number: u16,
    /// The package (socket) of the processor.
    pub package: u16,
    /// The physical core within the package; siblings share it.
    pub core: u16,
    /// The nearest NUMA node.
    pub node: u16,
    /// Speed relative to the fastest processor, which has 1,024; lower on the small cores of big.LITTLE.
    pub capacity: u16,
}

/// The processors that this process may run on, and their location.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The processors, sorted by number.
    pub processors: Vec<Processor>,
    /// For each node, the distances to all nodes including itself; empty where unknown.
    pub distances: BTreeMap<u16, Vec<u16>>,
    /// The NUMA node of the network card, where known.
    pub network_node: Option<u16>,
}

/// The capacity of the fastest processor.
pub(super) const CAPACITY_MAX: u16 = 1_024;

impl Topology {
    /// Reads the topology of the processors that this process may run on.
    pub fn here() -> Self {
        let from_sys = Self::here_from_sys();
        #[cfg(feature = "hwlocality")]
        match super::hwloc::here(&allowed()) {
            Ok(topology) => return Self { network_node: from_sys.network_node, ..topology },
            Err(error) => tracing::warn!(error, "cannot read the topology from hwloc; using /sys"),
        }
        from_sys
    }

    /// Like [`Self::here`], without hwloc.
    pub(super) fn here_from_sys() -> Self {
        Self::read(Path::new("/sys"), &allowed())
    }

    /// Reads the allowed processors that are online from a tree like Linux's `/sys`. Where the tree lacks
    /// information, it assumes one package, one node and no siblings.
    pub fn read(sys: &Path, allowed: &[u16]) -> Self {
        let text = |path: &str| std::fs::read_to_string(sys.join(path)).ok();
        let number = |path: &str| text(path)?.trim().parse::<u16>().ok();
        let list = |path: &str| text(path).map(|text| numbers(&text));
        let online = list("devices/system/cpu/online");
        let nodes = list("devices/system/node/online").unwrap_or_default();
        let of_nodes: Vec<(u16, Vec<u16>)> = nodes
            .iter()
            .map(|&node| {
                let path = format!("devices/system/node/node{node}/cpulist");
                (node, list(&path).unwrap_or_default())
            })
            .collect();
        let is_online = |number: &u16| online.as_ref().is_none_or(|online| online.contains(number));
        let processor = |&cpu: &u16| {
            let of = |what: &str| number(&format!("devices/system/cpu/cpu{cpu}/{what}"));
            let node = of_nodes.iter().find(|(_, cpus)| cpus.contains(&cpu));
            Processor {
                number: cpu,
                package: of("topology/physical_package_id").unwrap_or(0),
                core: of("topology/core_id").unwrap_or(cpu),
                node: node.map_or(0, |(node, _)| *node),
                capacity: of("cpu_capacity").unwrap_or(CAPACITY_MAX),
            }
        };
        let mut processors: Vec<_> =
            allowed.iter().filter(|cpu| is_online(cpu)).map(processor).collect();
        processors.sort_by_key(|processor| processor.number);
        let distances = nodes.iter().filter_map(|&node| {
            let text = text(&format!("devices/system/node/node{node}/distance"))?;
            let far: Option<Vec<u16>> =
                text.split_whitespace().map(|word| word.parse().ok()).collect();
            Some((node, far?))
        });
        Self { processors, distances: distances.collect(), network_node: network_node(sys) }
    }

    /// The number of packages.
    pub fn packages(&self) -> usize {
        self.count(|processor| u32::from(processor.package))
    }

    /// The number of physical cores.
    pub fn cores(&self) -> usize {
        self.count(|processor| u32::from(processor.package) << 16 | u32::from(processor.core))
    }

    /// The number of NUMA nodes.
    pub fn nodes(&self) -> usize {
        self.count(|processor| u32::from(processor.node))
    }

    fn count(&self, of: impl Fn(&Processor) -> u32) -> usize {
        self.processors.iter().map(of).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// The number of lower-numbered processors on the same physical core.
    pub fn sibling_rank(&self, processor: &Processor) -> usize {
        let shares = |other: &&Processor| {
            (other.package, other.core) == (processor.package, processor.core)
                && other.number < processor.number
        };
        self.processors.iter().filter(shares).count()
    }

    /// The distance between two nodes in units of the ACPI SLIT, where 10 means the same node.
    pub fn distance(&self, from: u16, to: u16) -> u16 {
        let place = self.distances.keys().position(|&node| node == to);
        let known = place.and_then(|place| self.distances.get(&from)?.get(place).copied());
        known.unwrap_or(if from == to { 10 } else { 20 })
    }
}

/// The processors that this process may run on.
fn allowed() -> Vec<u16> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    ids.iter().filter_map(|id| id.id.try_into().ok()).collect()
}

/// The NUMA node of the first network card, by name, that has one.
fn network_node(sys: &Path) -> Option<u16> {
    let mut cards: Vec<_> = std::fs::read_dir(sys.join("class/net")).ok()?.flatten().collect();
    cards.sort_by_key(std::fs::DirEntry::file_name);
    cards.iter().find_map(|card| {
        // -1 means unknown, and fails to parse.
        std::fs::read_to_string(card.path().join("device/numa_node")).ok()?.trim().parse().ok()
    })
}

/// Parses the kernel's list format, such as `0-3,8`.
fn numbers(text: &str) -> Vec<u16> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A temporary tree like `/sys`, removed on drop.
    pub struct Sys(PathBuf);

    impl Sys {
        pub fn new(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("ringmq-sys-{}-{number}", std::process::id());
            let root = std::env::temp_dir().join(name);
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                std::fs::write(path, text).expect("written");
            }
            Self(root)
        }

        /// A machine of `packages` with `cores` of `threads` each, and one node per package; siblings are
        /// numbered after all cores, as on x86.
        pub fn regular(packages: u16, cores: u16, threads: u16) -> Self {
            let all = packages * cores;
            let mut files =
                vec![("devices/system/cpu/online".to_owned(), format!("0-{}", all * threads - 1))];
            files.push(("devices/system/node/online".into(), format!("0-{}", packages - 1)));
            for cpu in 0..all * threads {
                let at = format!("devices/system/cpu/cpu{cpu}/topology");
                let (package, core) = (cpu % all / cores, cpu % cores);
                files.push((format!("{at}/physical_package_id"), package.to_string()));
                files.push((format!("{at}/core_id"), core.to_string()));
            }
            for node in 0..packages {
                let lists: Vec<_> = (0..threads)
                    .map(|t| t * all + node * cores)
                    .map(|first| format!("{first}-{}", first + cores - 1))
                    .collect();
                let at = format!("devices/system/node/node{node}");
                files.push((format!("{at}/cpulist"), lists.join(",")));
                let far = |to| if to == node { "10" } else { "21" };
                let far: Vec<_> = (0..packages).map(far).collect();
                files.push((format!("{at}/distance"), far.join(" ")));
            }
            let files: Vec<_> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
            Self::new(&files)
        }

        pub fn set(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }

        pub fn read(&self, allowed: impl IntoIterator<Item = u16>) -> Topology {
            Topology::read(&self.0, &allowed.into_iter().collect::<Vec<_>>())
        }
    }

    impl Drop for Sys {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_kernels_lists_are_read() {
        assert_eq!(numbers("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(numbers("5"), [5]);
        assert_eq!(numbers("\n"), [0; 0]);
    }

    #[test]
    fn two_sockets_with_siblings_are_distinguished() {
        let topology = Sys::regular(2, 4, 2).read(0..16);
        assert_eq!((topology.packages(), topology.cores(), topology.nodes()), (2, 8, 2));
        assert_eq!(topology.processors.len(), 16);
        let (fifth, its_sibling) = (topology.processors[5], topology.processors[13]);
        assert_eq!((fifth.package, fifth.core), (its_sibling.package, its_sibling.core));
        assert_eq!((topology.sibling_rank(&fifth), topology.sibling_rank(&its_sibling)), (0, 1));
        assert_eq!((topology.distance(0, 0), topology.distance(0, 1)), (10, 21));
    }

    #[test]
    fn offline_and_disallowed_processors_are_left_out() {
        let sys = Sys::regular(1, 8, 1);
        sys.set("devices/system/cpu/online", "0-2,5-7");
        let numbers: Vec<u16> =
            sys.read([0, 1, 3, 5]).processors.iter().map(|cpu| cpu.number).collect();
        assert_eq!(numbers, [0, 1, 5]);
    }

    #[test]
    fn an_empty_tree_yields_independent_cores() {
        let topology = Sys::new(&[]).read([0, 1]);
        assert_eq!((topology.packages(), topology.cores(), topology.nodes()), (1, 2, 1));
        assert_eq!(topology.network_node, None);
    }

    #[test]
    fn the_network_cards_node_is_known_where_it_has_one() {
        let sys = Sys::regular(2, 1, 1);
        sys.set("class/net/eth0/device/numa_node", "-1");
        assert_eq!(sys.read(0..2).network_node, None);
        sys.set("class/net/eth1/device/numa_node", "1");
        assert_eq!(sys.read(0..2).network_node, Some(1));
    }

    #[test]
    fn this_machine_has_processors() {
        let here = Topology::here();
        assert!(here.cores() >= 1 && here.nodes() >= 1 && here.processors.len() >= here.cores());
    }
}
