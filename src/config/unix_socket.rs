//! Permissions of Unix sockets.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Permissions of a Unix socket.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct UnixSocket {
    /// Mode; none: the umask decides.
    #[serde(deserialize_with = "mode", serialize_with = "octal")]
    pub mode: Option<u32>,
    /// Owner, by name or number; none: the broker's user.
    pub owner: Option<String>,
    /// Group, by name or number; none: the broker's group.
    pub group: Option<String>,
}

#[cfg(unix)]
impl UnixSocket {
    /// Owner and group as numbers.
    pub fn ids(&self) -> Result<(Option<u32>, Option<u32>), String> {
        let user = |name: &str| {
            nix::unistd::User::from_name(name).map(|found| found.map(|user| user.uid.as_raw()))
        };
        let group = |name: &str| {
            nix::unistd::Group::from_name(name).map(|found| found.map(|group| group.gid.as_raw()))
        };
        Ok((
            id("owner", "user", self.owner.as_deref(), user)?,
            id("group", "group", self.group.as_deref(), group)?,
        ))
    }
}

#[cfg(unix)]
fn id(
    key: &str,
    word: &str,
    name: Option<&str>,
    look_up: impl Fn(&str) -> nix::Result<Option<u32>>,
) -> Result<Option<u32>, String> {
    let Some(name) = name else { return Ok(None) };
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    match look_up(name) {
        Ok(Some(number)) => Ok(Some(number)),
        Ok(None) => Err(format!("unix.{key}: there is no {word} {name:?} on this machine")),
        Err(error) => Err(format!("unix.{key}: {name:?} cannot be looked up: {error}")),
    }
}

/// A mode as a string of octal digits, "0660". Numbers are refused: they would be decimal in TOML.
fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.map(Some).ok_or_else(|| {
        de::Error::custom(format!(
            "{text:?} is not a mode such as \"0660\": octal digits for owner, group and others"
        ))
    })
}

/// The mode in the form that [`mode`] reads.
fn octal<S: Serializer>(mode: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    mode.map(|mode| format!("{mode:04o}")).serialize(serializer)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_and_a_text() {
        let mode = |text: &str| toml::from_str::<UnixSocket>(text).map(|of| of.mode);
        for text in ["mode = \"0660\"", "mode = \"660\""] {
            assert_eq!(mode(text), Ok(Some(0o660)), "{text}");
        }
        for text in ["mode = \"rw\"", "mode = \"1777\"", "mode = \"680\""] {
            let error = mode(text).expect_err(text).to_string();
            assert!(error.contains("not a mode such as"), "{text}: {error}");
        }
        assert!(mode("mode = 444").is_err(), "in octal, or not?");
        assert_eq!(mode(""), Ok(None));
    }

    #[test]
    fn owners_and_groups_are_known_by_name_and_number() {
        let of = |owner: &str, group: &str| {
            let (owner, group) = (Some(owner.to_owned()), Some(group.to_owned()));
            UnixSocket { owner, group, mode: None }.ids()
        };
        assert_eq!(of("root", "7"), Ok((Some(0), Some(7))));
        let error = of("root", "no-such-group").expect_err("it is not there");
        assert!(error.contains("unix.group: there is no group \"no-such-group\""), "{error}");
    }
}
