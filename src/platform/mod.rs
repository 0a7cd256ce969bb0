//! What the machine allows: descriptors and memory. Read once at start.

#[cfg(target_os = "linux")]
pub mod io_uring;

use crate::limits;

/// Descriptors the process needs besides its connections: listeners, log, the executor's own,
/// and connections that are being refused.
const DESCRIPTORS_RESERVED: u64 = 64 + limits::REFUSED_CONNECTIONS_MAX as u64;

/// Connections when nothing bounds descriptors, as on Windows.
const CONNECTIONS_UNBOUNDED: u32 = 1_000_000;

/// Memory assumed where the system does not say.
const MEMORY_UNKNOWN_BYTES: u64 = 1024 * 1024 * 1024;

/// The descriptor limit, which was raised as far as allowed, is too low.
#[derive(Debug)]
pub struct TooFewDescriptors {
    asked: u32,
    limit: u64,
}

impl std::fmt::Display for TooFewDescriptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (asked, limit) = (self.asked, self.limit);
        let needed = u64::from(asked) + DESCRIPTORS_RESERVED;
        write!(
            f,
            "limits.connections_max = {asked} needs {needed} descriptors, but this process may \
             open {limit}; raise the limit (`ulimit -Hn {needed}` as root, or LimitNOFILE={needed} \
             in a systemd unit), or configure at most {} connections",
            limit.saturating_sub(DESCRIPTORS_RESERVED)
        )
    }
}

impl std::error::Error for TooFewDescriptors {}

/// Raises the descriptor limit and says how many connections fit; `asked` is 0 for as many as
/// possible.
pub fn connections_max(asked: u32) -> Result<u32, TooFewDescriptors> {
    let wanted = match asked {
        0 => CONNECTIONS_UNBOUNDED,
        asked => asked,
    };
    let Some(limit) = raise_descriptor_limit(u64::from(wanted) + DESCRIPTORS_RESERVED) else {
        return Ok(wanted);
    };
    let fit = limit.saturating_sub(DESCRIPTORS_RESERVED).min(u64::from(wanted)) as u32;
    match asked {
        0 => Ok(fit.max(1)),
        asked if asked <= fit => Ok(asked),
        asked => Err(TooFewDescriptors { asked, limit }),
    }
}

#[cfg(unix)]
fn raise_descriptor_limit(wanted: u64) -> Option<u64> {
    rlimit::increase_nofile_limit(wanted).ok()
}

#[cfg(not(unix))]
fn raise_descriptor_limit(_wanted: u64) -> Option<u64> {
    None
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
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group =
        group.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    machine.into_iter().chain(group).min().unwrap_or(MEMORY_UNKNOWN_BYTES)
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
        let text = TooFewDescriptors { asked: 50_000, limit: 20_000 }.to_string();
        for part in ["50128", "20000", "ulimit", "LimitNOFILE", "19872"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
