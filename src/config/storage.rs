//! The store on disk.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::number::between;

/// The store.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Folder of the store.
    pub data: Data,
    /// Database of Mosquitto that is imported at a start with an empty store; empty for none.
    pub import_mosquitto: PathBuf,
    /// When writes are synced to the disk.
    pub sync: Sync,
    /// Milliseconds between syncs with [`Sync::Interval`]; at most this much is lost.
    #[serde(deserialize_with = "between::<_, _, 1, 3_600_000>")]
    pub sync_interval_ms: u32,
    /// Size limit in bytes; 0 for the size of the disk.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub bytes_max: u64,
    /// Seconds after a start during which clients that were connected before it can come back before their
    /// Wills are published; a longer Will Delay Interval takes precedence.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub will_grace_s: u32,
    /// Size from which the store is compacted, once more than half of it is obsolete.
    #[serde(deserialize_with = "between::<_, _, 1_048_576, 1_099_511_627_776>")]
    pub compact_bytes_min: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            data: Data::Auto,
            import_mosquitto: PathBuf::new(),
            sync: Sync::Always,
            sync_interval_ms: 100,
            bytes_max: 0,
            will_grace_s: 30,
            compact_bytes_min: 64 * 1024 * 1024,
        }
    }
}

/// Folder of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Data {
    /// A folder named after the port, in the state folder of the user or the service.
    #[default]
    Auto,
    /// No store: memory only.
    None,
    /// This folder.
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
            true => Err(de::Error::custom("expected a folder, \"auto\" or \"none\"")),
            false => Ok(text.into()),
        }
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str("none"),
            Self::Folder(folder) => serializer.serialize_str(&folder.to_string_lossy()),
        }
    }
}

/// When writes are synced to the disk.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// Before they are acknowledged.
    #[default]
    Always,
    /// Every `sync_interval_ms`; acknowledgements do not wait.
    Interval,
    /// When the operating system decides.
    None,
}

/// State folder of this user or service; none if it is unknown.
pub(super) fn state_folder() -> Option<PathBuf> {
    state_folder_of(|name| std::env::var_os(name), home_of_user)
}

/// State folder according to environment variables and the home directory. Relative paths are ignored: they would
/// depend on the working directory.
fn state_folder_of(
    variable: impl Fn(&str) -> Option<OsString>,
    home_of_user: impl Fn() -> Option<PathBuf>,
) -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let of = |name| variable(name).map(PathBuf::from).and_then(absolute);
    // systemd may list several folders.
    let first = |path: OsString| std::env::split_paths(&path).next();
    // Set by systemd for a service; by the XDG specification; by Windows.
    variable("STATE_DIRECTORY")
        .and_then(first)
        .and_then(absolute)
        .or_else(|| of("XDG_STATE_HOME"))
        .or_else(|| of("LOCALAPPDATA"))
        .or_else(|| {
            let home = of("HOME").or_else(|| home_of_user().and_then(absolute))?;
            Some(home.join(".local").join("state"))
        })
}

/// Home directory of the user, if it exists.
#[cfg(unix)]
fn home_of_user() -> Option<PathBuf> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok()??;
    let is_one = user.dir.is_dir() && user.dir.parent().is_some();
    is_one.then_some(user.dir)
}

#[cfg(not(unix))]
fn home_of_user() -> Option<PathBuf> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_where_somebody_says_and_never_below_the_working_directory() {
        let folder = |variables: &[(&str, &str)], home: Option<&str>| {
            let of = |name: &str| variables.iter().find(|(is, _)| *is == name);
            let folder = state_folder_of(
                |name| of(name).map(|(_, value)| OsString::from(value)),
                || home.map(PathBuf::from),
            );
            folder.map(|folder| folder.display().to_string())
        };
        let is = |path: &str| Some(path.to_owned());
        let home = ("HOME", "/home/a");
        assert_eq!(folder(&[home], None), is("/home/a/.local/state"));
        assert_eq!(folder(&[("XDG_STATE_HOME", "/x"), home], None), is("/x"));
        assert_eq!(folder(&[("STATE_DIRECTORY", "/s:/t"), home], None), is("/s"));
        assert_eq!(folder(&[("XDG_STATE_HOME", "x"), home], None), is("/home/a/.local/state"));
        assert_eq!(folder(&[], Some("/home/b")), is("/home/b/.local/state"));
        assert_eq!(folder(&[("HOME", "")], Some("/home/b")), is("/home/b/.local/state"));
        for variables in [&[][..], &[("HOME", "")], &[("HOME", "home")], &[("STATE_DIRECTORY", "")]]
        {
            assert_eq!(folder(variables, None), None, "{variables:?}");
        }
    }
}
