//! The machine and its limits: processors, memory, descriptors. All of it is read once, at start.

pub mod cgroup;
#[cfg(feature = "hwlocality")]
mod hwloc;
pub mod plan;
pub mod topology;

use std::fmt;

use crate::base::limits;

/// Descriptors the process needs besides its connections: listeners, log, the executor's own,
/// and connections that are being refused.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 64 + limits::REFUSED_CONNECTIONS_MAX as u64;

/// Connections where neither descriptors nor memory bound them to less: as many as there may be
/// sessions by default.
const CONNECTIONS_UNBOUNDED: u32 = 2_000_000;

/// Memory to reckon with for a connection, in bytes: the broker's and the kernel's, with something
/// to send.
pub(crate) const BYTES_PER_CONNECTION: u64 = 16 * 1024;

/// Memory assumed where the system does not say.
const MEMORY_UNKNOWN_BYTES: u64 = 1024 * 1024 * 1024;

/// What connections take of the descriptor limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// One of the process's each.
    OfTheProcess,
    /// One of the table of a ring each, of which so many cores open as many as they need.
    OfRings(u16),
}

impl Descriptors {
    /// Connections that fit when the limit is `limit`.
    pub(crate) fn fit(self, limit: u64) -> u64 {
        match self {
            Self::OfTheProcess => limit.saturating_sub(DESCRIPTORS_RESERVED),
            Self::OfRings(cores) => {
                // No table may be larger than the limit. A sixteenth is for chance and for those
                // that linger.
                let each =
                    (limit - limit / 16).saturating_sub(limits::REFUSED_CONNECTIONS_MAX as u64);
                each * u64::from(cores) * limits::RINGS_MAX as u64
            }
        }
    }

    /// The limit with which so many connections fit.
    fn needed(self, connections: u64) -> u64 {
        match self {
            Self::OfTheProcess => connections + DESCRIPTORS_RESERVED,
            Self::OfRings(cores) => {
                let each = connections.div_ceil(u64::from(cores) * limits::RINGS_MAX as u64);
                (each + limits::REFUSED_CONNECTIONS_MAX as u64) * 16 / 15 + 16
            }
        }
    }
}

/// The descriptor limit, which was raised as far as allowed, is too low.
#[derive(Debug)]
pub struct TooFewDescriptors {
    asked: u32,
    limit: u64,
    descriptors: Descriptors,
}

impl fmt::Display for TooFewDescriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (asked, limit) = (self.asked, self.limit);
        let needed = self.descriptors.needed(u64::from(asked));
        let how = match self.descriptors {
            Descriptors::OfTheProcess => "",
            Descriptors::OfRings(_) => " or more --cores",
        };
        write!(
            f,
            "limits.connections_max = {asked} needs {needed} descriptors{how}, but the limit is \
             {limit}; raise it (`ulimit -Hn {needed}` as root, or LimitNOFILE={needed} in a systemd \
             unit), or configure at most {} connections",
            self.descriptors.fit(limit)
        )
    }
}

impl std::error::Error for TooFewDescriptors {}

/// Raises the descriptor limit as far as allowed, for so many connections at most; 0 for as many as
/// possible.
pub fn raise_descriptors(asked: u32) {
    let wanted = match asked {
        0 => CONNECTIONS_UNBOUNDED,
        asked => asked,
    };
    raise_descriptor_limit(Descriptors::OfTheProcess.needed(u64::from(wanted)));
}

/// How many connections fit; `asked` is 0 for as many as possible.
pub fn connections_max(asked: u32, descriptors: Descriptors) -> Result<u32, TooFewDescriptors> {
    let wanted = match asked {
        0 => CONNECTIONS_UNBOUNDED,
        asked => asked,
    };
    let Some(limit) = descriptors_max() else { return Ok(wanted) };
    let fit = descriptors.fit(limit).min(u64::from(wanted)) as u32;
    match asked {
        0 => Ok(fit.min(connections_by_memory()).max(1)),
        asked if asked <= fit => Ok(asked),
        asked => Err(TooFewDescriptors { asked, limit, descriptors }),
    }
}

/// Connections that memory suffices for, the kernel's part included.
fn connections_by_memory() -> u32 {
    (memory_bytes() / BYTES_PER_CONNECTION).min(u64::from(u32::MAX)) as u32
}

#[cfg(unix)]
fn raise_descriptor_limit(wanted: u64) {
    // One that cannot be raised shows when connections are counted.
    let _ = rlimit::increase_nofile_limit(wanted);
}

#[cfg(not(unix))]
fn raise_descriptor_limit(_wanted: u64) {}

/// Whether this was built for one of the small machines that the one-threaded mode is made for.
pub const IS_FOR_SMALL_MACHINES: bool = cfg!(any(target_arch = "arm", target_arch = "mips"))
    || cfg!(all(target_os = "linux", not(feature = "uring")));

/// The machine in a line.
pub fn line() -> String {
    let topology = topology::Topology::here();
    format!(
        "{}, {}, {} on {}, {}, {} MiB",
        system(),
        std::env::consts::ARCH,
        counted(topology.processors.len(), "processor"),
        counted(topology.cores(), "core"),
        counted(topology.nodes(), "NUMA node"),
        memory_bytes() / (1024 * 1024)
    )
}

/// A count with its noun, in the plural where needed.
pub fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// The operating system, and its kernel's version where it says so.
pub fn system() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match release.trim() {
        "" => std::env::consts::OS.to_owned(),
        release => format!("{} {release}", std::env::consts::OS),
    }
}

/// Descriptors this process may have; none where nothing bounds them.
pub fn descriptors_max() -> Option<u64> {
    #[cfg(unix)]
    return rlimit::Resource::NOFILE.get_soft().ok();
    #[cfg(not(unix))]
    return None;
}

/// Memory of the machine or of the control group this process is in, whichever is less, in bytes.
pub fn memory_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let bounds = [machine, cgroup::Limits::here().memory_bytes];
    bounds.into_iter().flatten().min().unwrap_or(MEMORY_UNKNOWN_BYTES)
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_memory_is_read_in_bytes() {
        assert_eq!(total_of("MemFree: 1 kB\nMemTotal:       24000 kB\n"), Some(24_576_000));
        assert_eq!(total_of("nothing"), None);
    }

    #[test]
    fn a_limit_too_low_says_what_is_needed_and_how_to_raise_it() {
        let descriptors = Descriptors::OfTheProcess;
        let text = TooFewDescriptors { asked: 50_000, limit: 20_000, descriptors }.to_string();
        for part in ["50128", "20000", "ulimit", "LimitNOFILE", "19872"] {
            assert!(text.contains(part), "{text}");
        }
        let descriptors = Descriptors::OfRings(2);
        let text = TooFewDescriptors { asked: 500_000, limit: 1_024, descriptors }.to_string();
        for part in ["4251", "more --cores", "114688"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_limit_that_is_asked_for_suffices() {
        for descriptors in
            [Descriptors::OfTheProcess, Descriptors::OfRings(1), Descriptors::OfRings(3)]
        {
            for connections in [1, 100, 19_872, 1_000_000] {
                let limit = descriptors.needed(connections);
                assert!(descriptors.fit(limit) >= connections, "{descriptors:?}, {connections}");
            }
        }
    }
}
