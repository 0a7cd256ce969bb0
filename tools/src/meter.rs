//! What a process used, from /proc: CPU time and resident memory. Elsewhere than on Linux there
//! is no figure, and the reports say so.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// Reads one process.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    pid: u32,
}

impl Meter {
    /// A meter for a process, which must exist.
    pub fn new(pid: u32) -> Result<Self> {
        let meter = Self { pid };
        meter.cpu()?;
        Ok(meter)
    }

    /// CPU time of the process's living threads. The scheduler's own count in nanoseconds is used,
    /// as `utime` and `stime` are given in hundredths of a second.
    pub fn cpu(&self) -> Result<Duration> {
        let doing = || format!("read the CPU time of process {}", self.pid);
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid))
            .map_err(|source| Error::io(doing(), source))?;
        let mut total_ns = 0;
        for task in tasks {
            let path = task.map_err(|source| Error::io(doing(), source))?.path().join("schedstat");
            match fs::read_to_string(path) {
                Ok(text) => total_ns += first_number(&text)?,
                // The thread ended between the listing and now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::io(doing(), source)),
            }
        }
        Ok(Duration::from_nanos(total_ns))
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .map_err(|source| Error::io(format!("read the memory of {}", self.pid), source))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        Ok(first_number(line)? * 1024)
    }
}

/// CPU time of the calling thread; zero where it cannot be read.
pub fn own_cpu() -> Duration {
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| first_number(&text).ok())
        .map_or(Duration::ZERO, Duration::from_nanos)
}

/// What was read at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// The broker's CPU time so far, if its process is known.
    pub broker: Option<Duration>,
    /// The generator's CPU time so far.
    pub generator: Duration,
}

impl Reading {
    /// Read now.
    pub fn now(broker: Option<Meter>) -> Result<Self> {
        let broker = broker.map(|meter| meter.cpu()).transpose()?;
        Ok(Self { at: Instant::now(), broker, generator: own_cpu() })
    }

    /// The broker's CPU time since an earlier reading.
    pub fn broker_since(&self, earlier: &Self) -> Option<Duration> {
        self.broker.zip(earlier.broker).map(|(now, then)| now.saturating_sub(then))
    }
}

fn first_number(text: &str) -> Result<u64> {
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| Error::Broker(format!("no number where /proc should have one: {text}")))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn work_shows_as_cpu_time_and_sleep_does_not() {
        let meter = Meter::new(std::process::id()).expect("we exist");
        let before = own_cpu();
        let end = Instant::now() + Duration::from_millis(100);
        while Instant::now() < end {
            std::hint::black_box(0);
        }
        let worked = own_cpu() - before;
        // Other processes may have had most of the core.
        assert!(worked > Duration::from_millis(5), "{worked:?}");
        std::thread::sleep(Duration::from_millis(100));
        assert!(own_cpu() - before - worked < Duration::from_millis(20));
        assert!(meter.cpu().expect("we exist") >= worked);
        assert!(meter.resident_bytes().expect("we exist") > 100_000);
    }
}
