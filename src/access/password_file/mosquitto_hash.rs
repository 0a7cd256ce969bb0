//! Hashes of Mosquitto's password files. `$6$SALT$HASH` is the base64 of SHA-512 over password and salt, which is not
//! what crypt(3) calls `$6$`; `$7$ITERATIONS$SALT$HASH`, or `PBKDF2$sha512$ITERATIONS$SALT$HASH` of the plugin go-auth, is
//! PBKDF2-HMAC-SHA-512.
//!
//! Both are fast to guess. [`protect`] makes `$6$SALT$` and `$7$ITERATIONS$SALT$`, followed by the hash of Argon2id of
//! the 64 bytes that Mosquitto would store: the password need not be known, and is as hard to guess as any other.

use std::num::NonZeroU32;

use argon2::password_hash::phc::PasswordHash;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, pbkdf2};
use subtle::ConstantTimeEq;

use super::PasswordError;
use super::hash::{self, NoMemory};
use crate::config::Hashing;

/// How hashes of the plugin go-auth begin: otherwise they are as `$7$`.
const GO_AUTH: &str = "PBKDF2$sha512$";

const HASH_BYTES: usize = digest::SHA512_OUTPUT_LEN;

/// Salts of Mosquitto have 12 or 64 bytes.
const SALT_BYTES_MAX: usize = 256;

/// More would take a thread for seconds.
const ITERATIONS_MAX: u32 = 10_000_000;

/// Bytes of a new salt, which is the only length that Mosquitto 2.0 reads.
#[cfg(feature = "dynamic-security")]
const SALT_BYTES: usize = 12;

/// Iterations for a new password. A broker of Mosquitto that reads the file computes them in its only thread.
#[cfg(feature = "dynamic-security")]
const ITERATIONS: u32 = 20_000;

/// Iterations from which PBKDF2 with SHA-512 takes long enough (OWASP, Password Storage Cheat Sheet).
const ITERATIONS_ENOUGH: u32 = 210_000;

/// A hash of Mosquitto.
struct Hash<'a> {
    /// Iterations of PBKDF2; none: a single SHA-512.
    iterations: Option<NonZeroU32>,
    salt: Vec<u8>,
    stored: Stored<'a>,
    /// The text before the stored hash, which differs from password to password.
    prefix: &'a str,
}

/// What the file has of the hash.
enum Stored<'a> {
    /// The hash itself.
    Plain([u8; HASH_BYTES]),
    /// The hash of Argon2id of the hash.
    Protected(&'a str),
}

const EXPECTED: &str = "a hash is expected, as `broker passwd add` or mosquitto_passwd write it: \
                        $argon2id$…, $7$… or $6$…; `mosquitto_passwd -U` hashes the passwords of a file";

/// Checks the text of a hash. The error says what is expected.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    parse(text).map(drop)
}

fn parse(text: &str) -> Result<Hash<'_>, &'static str> {
    let of_pbkdf2 = text.strip_prefix("$7$").or_else(|| text.strip_prefix(GO_AUTH));
    let (iterations, rest) = match (text.strip_prefix("$6$"), of_pbkdf2) {
        (Some(rest), _) => (None, rest),
        (_, Some(rest)) => {
            let (iterations, rest) = rest.split_once('$').ok_or(EXPECTED)?;
            let iterations = iterations.parse().ok().and_then(NonZeroU32::new);
            let iterations = iterations.filter(|number| number.get() <= ITERATIONS_MAX);
            let iterations = iterations
                .ok_or("the iterations of a hash of PBKDF2 are a number from 1 to 10000000")?;
            (Some(iterations), rest)
        }
        _ => return Err(EXPECTED),
    };
    let (salt, stored) = rest.split_once('$').ok_or(EXPECTED)?;
    let prefix = &text[..text.len() - stored.len()];
    let salt = BASE64.decode(salt).ok().filter(|salt| (1..=SALT_BYTES_MAX).contains(&salt.len()));
    let salt = salt.ok_or("the salt of a $6$, $7$ or PBKDF2$ hash is not base64")?;
    let stored = match hash::is_phc(stored) {
        true => Stored::Protected(stored),
        false => {
            let bytes = BASE64.decode(stored).ok().and_then(|bytes| bytes.try_into().ok());
            Stored::Plain(bytes.ok_or("a $6$, $7$ or PBKDF2$ hash has 64 bytes in base64")?)
        }
    };
    Ok(Hash { iterations, salt, stored, prefix })
}

/// Whether a password has this hash. Slow.
pub(super) fn is_hash(password: &[u8], text: &str) -> Result<bool, NoMemory> {
    let Ok(hash) = parse(text) else { return Ok(false) };
    let computed = hash.compute(password);
    match &hash.stored {
        Stored::Plain(stored) => Ok(computed.ct_eq(stored).into()),
        Stored::Protected(stored) => hash::is_hash(&computed, stored),
    }
}

impl Hash<'_> {
    fn compute(&self, password: &[u8]) -> [u8; HASH_BYTES] {
        let mut computed = [0; HASH_BYTES];
        match self.iterations {
            Some(iterations) => {
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
                pbkdf2::derive(algorithm, iterations, &self.salt, password, &mut computed);
            }
            None => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(&self.salt);
                computed.copy_from_slice(context.finish().as_ref());
            }
        }
        computed
    }
}

/// Salt and hash of a new password, both in base64, and the iterations of PBKDF2: what the file of dynamic security has of
/// it. Slow.
#[cfg(feature = "dynamic-security")]
pub(in crate::access) fn parts(password: &str) -> Result<(String, String, i64), PasswordError> {
    let mut salt = vec![0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| PasswordError::Hash(error.to_string()))?;
    let encoded = BASE64.encode(&salt);
    let iterations = NonZeroU32::new(ITERATIONS);
    let stored = Stored::Plain([0; HASH_BYTES]);
    let computed = Hash { iterations, salt, stored, prefix: "" }.compute(password.as_bytes());
    Ok((encoded, BASE64.encode(computed), i64::from(ITERATIONS)))
}

/// Whether a hash is of the same password as another one, of which one has been protected since.
pub(super) fn is_of_same_password(one: &str, other: &str) -> bool {
    let (Ok(one), Ok(other)) = (parse(one), parse(other)) else { return false };
    let is_one_protected =
        matches!(one.stored, Stored::Protected(_)) || matches!(other.stored, Stored::Protected(_));
    one.prefix == other.prefix && is_one_protected
}

/// A hash of no password that costs as much as this one; none if this is not a hash of Mosquitto.
pub(super) fn nobody_like(text: &str) -> Option<String> {
    let hash = parse(text).ok()?;
    let stored = match hash.stored {
        Stored::Plain(_) => BASE64.encode([0; HASH_BYTES]),
        Stored::Protected(of) => hash::nobody_like(of).into(),
    };
    Some(format!("{}{stored}", hash.prefix))
}

/// Whether a stolen hash can be guessed fast.
pub(super) fn is_weak(text: &str) -> bool {
    let is_fast = |hash: Hash<'_>| {
        matches!(hash.stored, Stored::Plain(_))
            && hash.iterations.is_none_or(|number| number.get() < ITERATIONS_ENOUGH)
    };
    parse(text).is_ok_and(is_fast)
}

/// The hash of Argon2id of a hash of Mosquitto that is weak; none if this is none. Slow.
pub(super) fn protect(text: &str, hashing: &Hashing) -> Result<Option<String>, PasswordError> {
    if !is_weak(text) {
        return Ok(None);
    }
    let Ok(Hash { stored: Stored::Plain(stored), prefix, .. }) = parse(text) else {
        return Ok(None);
    };
    let protected = hash::make(&stored, hashing, None::<&PasswordHash>)?;
    Ok(Some(format!("{prefix}{protected}")))
}
