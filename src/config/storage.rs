//! What is kept on disk, and when.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

use super::number::between;

/// What is kept on disk.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Where.
    pub data: Data,
    /// When it is synchronised with the disk.
    pub sync: Sync,
    /// How often, where that is `interval`; so much may be lost.
    #[serde(deserialize_with = "between::<_, _, 1, 3_600_000>")]
    pub sync_interval_ms: u32,
    /// Bytes at most; 0 for what the disk has.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub bytes_max: u64,
    /// Seconds that clients which were connected when the broker went down have to come back before
    /// their Wills are published; a longer Will Delay Interval counts.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub will_grace_s: u32,
    /// Bytes from which on it is compacted, once more than half of it is past.
    #[serde(deserialize_with = "between::<_, _, 1_048_576, 1_099_511_627_776>")]
    pub compact_bytes_min: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            data: Data::Auto,
            sync: Sync::Always,
            sync_interval_ms: 100,
            bytes_max: 0,
            will_grace_s: 30,
            compact_bytes_min: 64 * 1024 * 1024,
        }
    }
}

/// Where sessions and retained messages are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Data {
    /// In a folder for what programs keep, under the port that is listened on.
    #[default]
    Auto,
    /// In memory alone.
    None,
    /// In this folder.
    Folder(PathBuf),
}

impl From<String> for Data {
    fn from(text: String) -> Self {
        match text.as_str() {
            "auto" => Self::Auto,
            "none" => Self::None,
            _ => Self::Folder(text.into()),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.is_empty() {
            true => Err(de::Error::custom("a folder, \"auto\" or \"none\" is expected")),
            false => Ok(text.into()),
        }
    }
}

/// When what is kept is synchronised with the disk.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// Before it is acknowledged.
    #[default]
    Always,
    /// Every `sync_interval_ms`; acknowledgements do not wait.
    Interval,
    /// When the system sees fit.
    None,
}

/// Where programs of this user, or this service, keep their state.
pub(super) fn state_folder() -> PathBuf {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // What systemd gives a service, what the desktop's rules say, what Windows says.
    of("STATE_DIRECTORY")
        .or_else(|| of("XDG_STATE_HOME"))
        .or_else(|| of("LOCALAPPDATA"))
        .or_else(|| of("HOME").map(|home| home.join(".local").join("state")))
        .unwrap_or_else(|| PathBuf::from("."))
}
