//! Hashes of Mosquitto's password files in a build without them: they are refused.

use super::PasswordError;
use super::hash::NoMemory;
use crate::config::Hashing;

/// Checks the text of a hash. The error says what is expected.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    Err(match text.starts_with("$6$") || text.starts_with("$7$") {
        true => "hashes of Mosquitto are not part of this build; `broker passwd add` writes others",
        false => "a hash as `broker passwd add` writes it is expected: $argon2id$…",
    })
}

/// Whether a password has this hash: no.
pub(super) fn is_hash(_: &[u8], _: &str) -> Result<bool, NoMemory> {
    Ok(false)
}

/// Whether two hashes are of the same password: neither can be read.
pub(super) fn is_of_same_password(_: &str, _: &str) -> bool {
    false
}

/// A hash of no password that costs as much as this one: this is not a hash of Mosquitto.
pub(super) fn nobody_like(_: &str) -> Option<String> {
    None
}

/// Whether a stolen hash can be guessed fast: all are of Argon2id.
pub(super) fn is_weak(_: &str) -> bool {
    false
}

/// The hash of Argon2id of a hash of Mosquitto: there is none.
pub(super) fn protect(_: &str, _: &Hashing) -> Result<Option<String>, PasswordError> {
    Ok(None)
}
