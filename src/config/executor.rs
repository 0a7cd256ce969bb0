//! Cores, I/O methods and executors, and options of io_uring.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::number::between;

/// Cores to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// A number of cores.
    Count(u16),
    /// Processors with these numbers of the operating system.
    List(Vec<u16>),
}

impl Default for Cores {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl Cores {
    /// Number of cores.
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
        let wrong =
            |what: &str| format!("{text:?} {what}; expected a number, or a list such as 0,2,4-7");
        let number =
            |text: &str| text.parse::<u16>().map_err(|_| wrong("is not a number of cores"));
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
        struct Written;

        impl de::Visitor<'_> for Written {
            type Value = Cores;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of cores, or a list such as \"0,2,4-7\"")
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<Cores, E> {
                self.visit_str(&count.to_string())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cores, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u16(*count),
            Self::List(list) => {
                let ranges: Vec<_> = list.iter().map(|core| format!("{core}-{core}")).collect();
                serializer.serialize_str(&ranges.join(","))
            }
        }
    }
}

/// Highest number of cores: more than any machine has, and as many as a stamp can identify.
const CORES_MAX: u16 = 1_024;

/// Options of io_uring.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Uring {
    /// Submission queue entries of a core.
    #[serde(deserialize_with = "between::<_, _, 1, 32_768>")]
    pub entries: u32,
    /// Completion queue entries of a core.
    #[serde(deserialize_with = "between::<_, _, 2, 65_536>")]
    pub completions: u32,
    /// Receive buffers of a core; a power of two.
    #[serde(deserialize_with = "power_of_two")]
    pub buffers: u16,
    /// Bytes of a receive buffer.
    #[serde(deserialize_with = "between::<_, _, 64, 1_048_576>")]
    pub buffer_bytes: u32,
    /// Smallest send that uses zero-copy; 0 for never.
    #[serde(deserialize_with = "between::<_, _, 0, 1_073_741_824>")]
    pub zero_copy_bytes_min: u32,
    /// Whether buffers are consumed incrementally, if the kernel supports it (6.12).
    pub incremental: bool,
    /// Whether task work is deferred until the core asks for it, if the kernel supports it (6.1).
    pub defer_taskrun: bool,
    /// Whether sockets are direct descriptors of the ring, if the kernel closes those at once (6.13).
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
        false => Err(de::Error::custom(format!("{number} is not a power of two"))),
    }
}

/// I/O method.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The fastest method that is available.
    #[default]
    Auto,
    /// io_uring; without it the broker does not start.
    Uring,
    /// Readiness: epoll, kqueue or the AFD of Windows.
    Poll,
    /// One core, in the main thread.
    Sync,
}

/// Executor of the cores.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// The fastest executor that the mode permits and this machine supports.
    #[default]
    Auto,
    /// The broker's own, on io_uring.
    Uring,
    /// The runtime of this name, on io_uring, if it is part of the build.
    Monoio,
    /// The runtime of this name, on io_uring, if it is part of the build.
    Glommio,
    /// The broker's own, on readiness.
    Poll,
}

impl ExecutorKind {
    /// Whether the executor is part of this build.
    pub fn is_built_in(self) -> bool {
        let is_64_bit_linux = cfg!(all(target_os = "linux", target_pointer_width = "64"));
        match self {
            Self::Auto | Self::Uring | Self::Poll => true,
            Self::Monoio => cfg!(feature = "monoio") && is_64_bit_linux,
            Self::Glommio => cfg!(feature = "glommio") && is_64_bit_linux,
        }
    }

    /// Name in flags and logs.
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
