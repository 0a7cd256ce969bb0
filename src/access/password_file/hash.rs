//! Hashes of passwords in the password file: those of Argon2id in the PHC string format, and those of Mosquitto.

use std::cell::RefCell;
use std::fmt;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use super::PasswordError;
use super::mosquitto_hash;
use crate::config::Hashing;

/// Salt and hash that fit no password, for unknown users.
const NOBODY: &str = "AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

thread_local! {
    /// Memory for the hashes of a thread, reused from one to the next and freed when the thread ends: an
    /// allocator would keep such large blocks for each of many threads.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Not enough memory for a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not enough memory for the hash of a password, which needs as many KiB as `m=` says",
        )
    }
}

impl std::error::Error for NoMemory {}

/// Checks the text of a hash. The error says what is expected.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    match is_phc(text) {
        true => Ok(()),
        false => mosquitto_hash::check(text),
    }
}

/// Whether a password has this hash. Slow.
pub(crate) fn is_hash(password: &[u8], hash: &str) -> Result<bool, NoMemory> {
    match PasswordHash::new(hash) {
        Ok(hash) if hash.algorithm.as_str() == "argon2id" => is_hash_of(password, &hash),
        _ => mosquitto_hash::is_hash(password, hash),
    }
}

/// Whether a text is a hash of Argon2id in the PHC string format.
pub(crate) fn is_phc(text: &str) -> bool {
    text.starts_with("$argon2id$")
        && PasswordHash::new(text).is_ok_and(|hash| hash.salt.is_some() && hash.hash.is_some())
}

/// Whether two hashes for the same user are of the same password, as far as they show. Each new password gets a random
/// salt: the same salt with another cost means that the same password has been hashed again.
pub(super) fn is_of_same_password(one: &str, other: &str) -> bool {
    if one == other || mosquitto_hash::is_of_same_password(one, other) {
        return true;
    }
    let (Ok(one), Ok(other)) = (PasswordHash::new(one), PasswordHash::new(other)) else {
        return false;
    };
    one.algorithm == other.algorithm && one.salt == other.salt && one.params != other.params
}

/// The hash of a random token. Nobody guesses such a token, so that the hash may be cheap.
#[cfg(feature = "admin")]
pub(crate) fn hash_of_token(token: &str) -> Result<String, PasswordError> {
    let cheap = Hashing { memory_kib: TOKEN_MEMORY_KIB, iterations: 1, ..Hashing::default() };
    make(token.as_bytes(), &cheap, None)
}

/// Memory for the hash of a token.
#[cfg(feature = "admin")]
const TOKEN_MEMORY_KIB: u32 = 1_024;

/// The hash of a password with these costs. If the password is that of the hash `before`, the salt stays. Slow.
pub(super) fn make(
    password: &[u8],
    hashing: &Hashing,
    before: Option<&PasswordHash>,
) -> Result<String, PasswordError> {
    let wrong = |error: &dyn fmt::Display| PasswordError::Hash(error.to_string());
    let params = Params::new(hashing.memory_kib, hashing.iterations, 1, None)
        .map_err(|error| wrong(&error))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = match before.and_then(|before| before.salt.as_ref()) {
        Some(salt) => argon2.hash_password_with_salt(password, salt.as_ref()),
        None => argon2.hash_password(password),
    };
    Ok(hash.map_err(|error| wrong(&error))?.to_string())
}

/// Whether a password has this hash of Argon2.
pub(super) fn is_hash_of(password: &[u8], hash: &PasswordHash) -> Result<bool, NoMemory> {
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Ok(false) };
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from);
    let (Ok(algorithm), Ok(version), Ok(params)) =
        (Algorithm::new(hash.algorithm.as_str()), version, Params::try_from(hash))
    else {
        return Ok(false);
    };
    let blocks = params.block_count();
    let argon2 = Argon2::new(algorithm, version, params);
    let mut output = [0; Output::MAX_LENGTH];
    let output = &mut output[..expected.len()];
    MEMORY.with_borrow_mut(|memory| {
        let more = blocks.saturating_sub(memory.len());
        memory.try_reserve_exact(more).map_err(|_| NoMemory)?;
        memory.resize(memory.len().max(blocks), Block::new());
        let salt: &[u8] = salt.as_ref();
        let hashed =
            argon2.hash_password_into_with_memory(password, salt, output, &mut memory[..blocks]);
        // Compares in constant time.
        Ok(hashed.is_ok() && Output::new(output).is_ok_and(|output| output == *expected))
    })
}

/// A hash of Argon2id for unknown users.
pub(super) fn nobody(hashing: &Hashing) -> Box<str> {
    let Hashing { memory_kib, iterations, .. } = hashing;
    format!("$argon2id$v=19$m={memory_kib},t={iterations},p=1${NOBODY}").into()
}

/// A hash for unknown users that costs as much as this one.
pub(super) fn nobody_like(hash: &str) -> Box<str> {
    if let Some(nobody) = mosquitto_hash::nobody_like(hash) {
        return nobody.into();
    }
    let costs = hash.rsplitn(3, '$').nth(2).unwrap_or_default();
    format!("{costs}${NOBODY}").into()
}
