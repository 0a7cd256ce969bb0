//! The machine and its limits: processors, memory, descriptors. Everything but what the process uses
//! (`process`) is read once, at startup.

pub mod cgroup;
#[cfg(feature = "hwlocality")]
mod hwloc;
pub mod plan;
#[cfg(feature = "admin")]
pub mod priority;
#[cfg(feature = "admin")]
pub mod process;
pub mod topology;

use std::fmt;

use crate::base::limits;

/// Descriptors reserved for uses other than connections: listeners, log, the executor's own, and connections
/// that are being refused.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 64 + limits::REFUSED_CONNECTIONS_MAX as u64;

/// The connection limit where neither descriptors nor memory impose a lower one: the default limit of
/// sessions.
const CONNECTIONS_UNBOUNDED: u32 = 2_000_000;

/// Estimated memory per connection in bytes, in the broker and the kernel, with data to send.
pub(crate) const BYTES_PER_CONNECTION: u64 = 16 * 1024;

/// Memory assumed where the system does not report it.
const MEMORY_UNKNOWN_BYTES: u64 = 1024 * 1024 * 1024;

/// Processor time of the calling thread, in user and kernel space; none where the system does not say.
pub fn thread_cpu() -> Option<std::time::Duration> {
    #[cfg(unix)]
    {
        use nix::time::{ClockId, clock_gettime};
        Some(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?.into())
    }
    #[cfg(not(unix))]
    None
}

/// How connections count against the descriptor limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// Each connection uses a descriptor of the process.
    OfTheProcess,
    /// Each connection uses a direct descriptor in a ring's table. This many cores open rings on demand.
    OfRings(u16),
}

impl Descriptors {
    /// The number of connections that fit within `limit` descriptors.
    pub(crate) fn fit(self, limit: u64) -> u64 {
        match self {
            Self::OfTheProcess => limit.saturating_sub(DESCRIPTORS_RESERVED),
            Self::OfRings(cores) => {
                // No table may be larger than the limit. A sixteenth is reserved for uneven distribution and
                // for lingering connections.
                let each =
                    (limit - limit / 16).saturating_sub(limits::REFUSED_CONNECTIONS_MAX as u64);
                each * u64::from(cores) * limits::RINGS_MAX as u64
            }
        }
    }

    /// The descriptor limit needed for this many connections.
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

/// The descriptor limit is too low, even after it was raised as far as allowed.
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

/// Raises the descriptor limit for `asked` connections, as far as allowed; 0 means as many as possible.
pub fn raise_descriptors(asked: u32) {
    let wanted = match asked {
        0 => CONNECTIONS_UNBOUNDED,
        asked => asked,
    };
    raise_descriptor_limit(Descriptors::OfTheProcess.needed(u64::from(wanted)));
}

/// The number of connections that fit; `asked` is 0 for as many as possible.
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

/// The number of connections that fit into memory, including the kernel's share.
fn connections_by_memory() -> u32 {
    (memory_bytes() / BYTES_PER_CONNECTION).min(u64::from(u32::MAX)) as u32
}

#[cfg(unix)]
fn raise_descriptor_limit(wanted: u64) {
    // A failure shows later, when the connection limit is computed.
    let _ = rlimit::increase_nofile_limit(wanted);
}

#[cfg(not(unix))]
fn raise_descriptor_limit(_wanted: u64) {}

/// Whether this build targets small machines, for which the single-threaded mode is meant.
pub const IS_FOR_SMALL_MACHINES: bool = cfg!(any(target_arch = "arm", target_arch = "mips"))
    || cfg!(all(target_os = "linux", not(feature = "uring")));

/// A one-line description of the machine.
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

/// A count with its noun, in the plural unless the count is 1.
pub fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// The operating system, with its kernel version where known.
pub fn system() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match release.trim() {
        "" => std::env::consts::OS.to_owned(),
        release => format!("{} {release}", std::env::consts::OS),
    }
}

/// The descriptor limit of this process; `None` means unlimited.
pub fn descriptors_max() -> Option<u64> {
    #[cfg(unix)]
    return rlimit::Resource::NOFILE.get_soft().ok();
    #[cfg(not(unix))]
    return None;
}

/// Memory of the machine or of this process's control group, whichever is less, in bytes.
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
    fn an_insufficient_limit_names_the_needed_one_and_how_to_raise_it() {
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
    fn the_computed_limit_suffices() {
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
