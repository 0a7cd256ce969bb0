//! CPU time and resident memory of a process, from /proc. Other systems than Linux have no such
//! figures, and the reports state so.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Reads one process.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    pid: u32,
}

impl Meter {
    /// A meter for an existing process.
    pub fn new(pid: u32) -> Result<Self> {
        let meter = Self { pid };
        meter.usage()?;
        Ok(meter)
    }

    /// CPU and waiting time of the process's living threads. Uses the scheduler's count in
    /// nanoseconds, as `utime` and `stime` are in hundredths of a second.
    pub fn usage(&self) -> Result<Usage> {
        let doing = || format!("read the CPU time of process {}", self.pid);
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid))
            .map_err(|source| Error::io(doing(), source))?;
        let mut total = Usage::default();
        for task in tasks {
            let path = task.map_err(|source| Error::io(doing(), source))?.path().join("schedstat");
            match fs::read_to_string(path) {
                Ok(text) => total = total + Usage::parse(&text)?,
                // The thread ended after the listing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::io(doing(), source)),
            }
        }
        Ok(total)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .map_err(|source| Error::io(format!("read the memory of {}", self.pid), source))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        numbers(line).next().map(|kib| kib * 1024).ok_or_else(|| no_number(line))
    }
}

/// CPU time of a process, and the time it waited for a core.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Time on a core.
    pub cpu: Duration,
    /// Time ready to run while another process had the core: without it, a broker that is kept from
    /// its core would look idle.
    pub waiting: Duration,
}

impl Usage {
    /// The first two numbers of a `schedstat` file.
    fn parse(text: &str) -> Result<Self> {
        let mut durations = numbers(text).map(Duration::from_nanos);
        match (durations.next(), durations.next()) {
            (Some(cpu), Some(waiting)) => Ok(Self { cpu, waiting }),
            _ => Err(no_number(text)),
        }
    }

    /// The difference to an earlier value.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            waiting: self.waiting.saturating_sub(earlier.waiting),
        }
    }
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, waiting: self.waiting + other.waiting }
    }
}

/// CPU time of the calling thread; zero where it cannot be read.
pub fn own_cpu() -> Duration {
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| Usage::parse(&text).ok())
        .map_or(Duration::ZERO, |usage| usage.cpu)
}

/// Values read at one time.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The time.
    pub at: Instant,
    /// The broker's usage so far, if its process is known.
    pub broker: Option<Usage>,
    /// The generator's CPU time so far.
    pub generator: Duration,
}

impl Reading {
    /// Reads the current values.
    pub fn now(broker: Option<Meter>) -> Result<Self> {
        let broker = broker.map(|meter| meter.usage()).transpose()?;
        Ok(Self { at: Instant::now(), broker, generator: own_cpu() })
    }

    /// The broker's usage since an earlier reading.
    pub fn broker_since(&self, earlier: &Self) -> Option<Usage> {
        self.broker.zip(earlier.broker).map(|(now, then)| now.since(then))
    }
}

fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split_whitespace().map_while(|word| word.parse().ok())
}

fn no_number(text: &str) -> Error {
    Error::Broker(format!("expected a number in /proc: {text}"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn work_counts_as_cpu_time_and_sleep_does_not() {
        let meter = Meter::new(std::process::id()).expect("this process exists");
        let before = own_cpu();
        let end = Instant::now() + Duration::from_millis(100);
        while Instant::now() < end {
            std::hint::black_box(0);
        }
        let worked = own_cpu() - before;
        // Other processes may have used most of the core.
        assert!(worked > Duration::from_millis(5), "{worked:?}");
        std::thread::sleep(Duration::from_millis(100));
        assert!(own_cpu() - before - worked < Duration::from_millis(20));
        assert!(meter.usage().expect("this process exists").cpu >= worked);
        assert!(meter.resident_bytes().expect("this process exists") > 100_000);
    }
}
