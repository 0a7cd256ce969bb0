//! Cores, modes and executors to run on, and how to use io_uring.

use clap::ValueEnum;
use serde::{Deserialize, Deserializer, de};

use super::number::between;

/// Cores to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// So many, whichever the system has.
    Count(u16),
    /// Those with these numbers, as the system counts them.
    List(Vec<u16>),
}

impl Default for Cores {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl Cores {
    /// How many.
    pub fn count(&self) -> u16 {
        match self {
            Self::Count(count) => *count,
            Self::List(list) => list.len() as u16,
        }
    }
}

impl std::str::FromStr for Cores {
    type Err = String;

    /// A number of cores, or a list of their numbers such as `0,2,4-7`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text:?} {what}; say how many, or which, as in 0,2,4-7");
        let number = |text: &str| text.parse::<u16>().map_err(|_| wrong("is no number of cores"));
        let cores = if text.contains([',', '-']) {
            let mut list = Vec::new();
            for range in text.split(',') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(wrong("has a range that runs backwards"));
                }
                list.extend(first..=last);
            }
            let unique: std::collections::BTreeSet<&u16> = list.iter().collect();
            if unique.len() < list.len() {
                return Err(wrong("names a core twice"));
            }
            Self::List(list)
        } else {
            Self::Count(number(text)?)
        };
        match cores.count() {
            1..=CORES_MAX => Ok(cores),
            count => Err(wrong(&format!("are {count} cores, not 1 to {CORES_MAX}"))),
        }
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of cores, or a list such as \"0,2,4-7\"")]
        enum Text {
            Number(i64),
            Text(String),
        }
        let text = match Text::deserialize(deserializer)? {
            Text::Number(number) => number.to_string(),
            Text::Text(text) => text,
        };
        text.parse().map_err(de::Error::custom)
    }
}

/// Threads one process may run on; more than any machine has, and as many as a stamp can name.
const CORES_MAX: u16 = 1_024;

/// How to use io_uring.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Uring {
    /// Submissions a core may have waiting for the end of its turn.
    #[serde(deserialize_with = "between::<_, _, 1, 32_768>")]
    pub entries: u32,
    /// Completions that may wait for a core.
    #[serde(deserialize_with = "between::<_, _, 2, 65_536>")]
    pub completions: u32,
    /// Receive buffers of a core; a power of two.
    #[serde(deserialize_with = "power_of_two")]
    pub buffers: u16,
    /// Bytes of each.
    #[serde(deserialize_with = "between::<_, _, 64, 1_048_576>")]
    pub buffer_bytes: u32,
    /// From how many bytes on a send goes without copying; 0 for never.
    #[serde(deserialize_with = "between::<_, _, 0, 1_073_741_824>")]
    pub zero_copy_bytes_min: u32,
    /// Whether several receptions may share a buffer, where the kernel can (6.12).
    pub incremental: bool,
    /// Whether the kernel's work for a core waits until the core asks for it, where it can (6.1).
    pub defer_taskrun: bool,
    /// Whether sockets are in a table of the ring instead of among the process's descriptors, where the
    /// kernel closes them there at once (6.13).
    pub direct_descriptors: bool,
}

impl Default for Uring {
    fn default() -> Self {
        Self {
            entries: 1_024,
            completions: 8_192,
            buffers: 8,
            buffer_bytes: 65_536,
            zero_copy_bytes_min: 0,
            incremental: true,
            defer_taskrun: true,
            direct_descriptors: true,
        }
    }
}

fn power_of_two<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number: u16 = between::<_, _, 1, 32_768>(deserializer)?;
    match number.is_power_of_two() {
        true => Ok(number),
        false => Err(de::Error::custom(format!("{number} is no power of two"))),
    }
}

/// How to run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The fastest way that this machine allows.
    #[default]
    Auto,
    /// On io_uring, or not at all.
    Uring,
    /// On readiness: epoll, kqueue or Windows' AFD.
    Poll,
    /// On one core, in the process's one thread.
    Sync,
}

/// What cores run on.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// The fastest that the mode and this machine allow.
    #[default]
    Auto,
    /// Our own, on io_uring.
    Uring,
    /// The runtime of this name, on io_uring; where the broker was built with it.
    Monoio,
    /// The runtime of this name, on io_uring; where the broker was built with it.
    Glommio,
    /// Our own, on readiness.
    Poll,
}

impl ExecutorKind {
    /// Whether this broker was built with it.
    pub fn is_built_in(self) -> bool {
        let is_64_bit_linux = cfg!(all(target_os = "linux", target_pointer_width = "64"));
        match self {
            Self::Auto | Self::Uring | Self::Poll => true,
            Self::Monoio => cfg!(feature = "monoio") && is_64_bit_linux,
            Self::Glommio => cfg!(feature = "glommio") && is_64_bit_linux,
        }
    }

    /// Its name in flags and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Monoio => "monoio",
            Self::Glommio => "glommio",
            Self::Poll => "poll",
        }
    }
}
