//! What the process uses of the machine: processor time, memory, descriptors. Linux tells it in `/proc`.

/// What the process uses. Absent is what the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Processor time of all threads, in seconds.
    pub cpu_s: Option<f64>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Virtual memory.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors; direct descriptors of io_uring are not among them.
    pub descriptors: Option<u64>,
    /// Limit of open file descriptors.
    pub descriptors_max: Option<u64>,
}

impl Process {
    /// What this process uses now.
    pub fn here() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            cpu_s: cpu_s(),
            resident_bytes: kilobytes(&status, "VmRSS:"),
            virtual_bytes: kilobytes(&status, "VmSize:"),
            threads: number(&status, "Threads:"),
            descriptors: descriptors(),
            descriptors_max: super::descriptors_max(),
        }
    }
}

/// The number in a line of `/proc/self/status`.
fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    number(status, name).map(|kilobytes| kilobytes * 1_024)
}

#[cfg(unix)]
fn cpu_s() -> Option<f64> {
    use nix::time::{ClockId, clock_gettime};
    let spent = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok()?;
    Some(std::time::Duration::from(spent).as_secs_f64())
}

#[cfg(not(unix))]
fn cpu_s() -> Option<f64> {
    None
}

/// Linux 6.2 and later count them; before, the folder is read, entry by entry.
fn descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match std::fs::metadata(FOLDER).ok()?.len() {
        // The folder is open while it is read.
        0 => Some((std::fs::read_dir(FOLDER).ok()?.count() as u64).saturating_sub(1)),
        descriptors => Some(descriptors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_lines_of_the_kernel() {
        let status = "Name:\tbroker\nVmSize:\t   20480 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(1_048_576));
        assert_eq!((number(status, "Threads:"), number(status, "VmSwap:")), (Some(3), None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_uses_something() {
        let process = Process::here();
        assert!(process.resident_bytes > Some(100_000) && process.threads >= Some(1));
        assert!(process.cpu_s > Some(0.0) && process.virtual_bytes > process.resident_bytes);
        assert!(process.descriptors >= Some(1) && process.descriptors <= process.descriptors_max);
    }
}
