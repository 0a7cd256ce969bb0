//! Verifiers of SCRAM-SHA-256 (RFC 5802, RFC 7677), as the password file stores them: enough to check
//! that a client knows a password, not enough to log in with.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;

use crate::config::Hashing;

/// Name of the Authentication Method.
pub const METHOD: &str = "SCRAM-SHA-256";

const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;
const SALT_BYTES: usize = 16;

type Key = [u8; KEY_BYTES];

/// Source of the verifiers of unknown users, which look like those of known users and are the same
/// for the same name.
#[derive(Clone, Debug)]
pub struct Secret {
    key: Key,
    iterations: u32,
}

impl Secret {
    /// A random secret. `iterations` are those of the known users.
    pub fn new(iterations: u32) -> Result<Self, getrandom::Error> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key)?;
        Ok(Self { key, iterations })
    }
}

/// The verifier of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    /// Makes the verifier of a password. Slow: computes `iterations` hashes.
    pub fn new(password: &str, iterations: u32) -> Result<Self, String> {
        let mut salt = vec![0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
        let password = stringprep::saslprep(password)
            .map_err(|_| "SCRAM takes no control characters in a password".to_owned())?;
        Ok(Self::with_salt(&password, salt, iterations))
    }

    /// The verifier of a password with this salt.
    pub(super) fn with_salt(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let salted = salted_password(password, &salt, iterations);
        let client_key = hmac_of(&salted, b"Client Key");
        let server_key = hmac_of(&salted, b"Server Key");
        Self { iterations, salt, stored_key: hash(&client_key), server_key }
    }

    /// A verifier that fits no password.
    pub fn of_unknown(name: &str, secret: &Secret) -> Self {
        let Secret { key: secret, iterations } = secret;
        let salt = hmac_of(secret, name.as_bytes())[..SALT_BYTES].to_vec();
        let server_key = hmac_of(secret, &salt);
        Self { iterations: *iterations, salt, stored_key: [0; KEY_BYTES], server_key }
    }

    /// Number of hashes that a client computes.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// The salt, which the server sends to the client.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// Whether a client's proof for a message shows that the client knows the password.
    pub fn proves(&self, proof: &[u8], message: &[u8]) -> bool {
        let Ok(proof) = <Key>::try_from(proof) else { return false };
        let mut client_key = hmac_of(&self.stored_key, message);
        client_key.iter_mut().zip(proof).for_each(|(byte, of_proof)| *byte ^= of_proof);
        bool::from(hash(&client_key).ct_eq(&self.stored_key))
    }

    /// The server's signature of a message, which shows to the client that the server has the verifier.
    pub fn sign(&self, message: &[u8]) -> [u8; KEY_BYTES] {
        hmac_of(&self.server_key, message)
    }

    /// Reads the text that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(METHOD)?.strip_prefix('$')?;
        let (numbers, keys) = rest.split_once('$')?;
        let ((iterations, salt), (stored, server)) =
            (numbers.split_once(':')?, keys.split_once(':')?);
        let iterations = iterations.parse().ok().filter(|&iterations: &u32| iterations > 0)?;
        let key = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self { iterations, salt, stored_key: key(stored)?, server_key: key(server)? })
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| BASE64.encode(bytes));
        write!(f, "{METHOD}${}:{salt}${stored}:{server}", self.iterations)
    }
}

/// Whether a text is a verifier.
pub fn is_verifier(text: &str) -> bool {
    Verifier::parse(text).is_some()
}

/// The text of a password's verifier, or none if the configuration wants no verifiers. `kept` is the
/// present verifier of the same password, which stays if its number of iterations is the configured one.
pub fn make(
    password: &str,
    hashing: &Hashing,
    kept: Option<&str>,
) -> Result<Option<String>, String> {
    if !hashing.scram {
        return Ok(None);
    }
    let iterations = hashing.scram_iterations;
    let is_up_to_date =
        |kept: &&str| Verifier::parse(kept).is_some_and(|of| of.iterations == iterations);
    match kept.filter(is_up_to_date) {
        Some(kept) => Ok(Some(kept.to_owned())),
        None => Ok(Some(Verifier::new(password, iterations)?.to_string())),
    }
}

fn salted_password(password: &str, salt: &[u8], iterations: u32) -> Key {
    let mut salted = [0; KEY_BYTES];
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
    salted
}

fn hmac_of(key: &[u8], message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn hash(bytes: &[u8]) -> Key {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_comes_back_from_its_text_and_holds_no_password() {
        let verifier = Verifier::new("pencil", 4_096).expect("it is made");
        let text = verifier.to_string();
        assert_eq!(Verifier::parse(&text), Some(verifier));
        assert!(!text.contains("pencil"));
        for wrong in ["", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:AA==$AA==:AA=="] {
            assert_eq!(Verifier::parse(wrong), None, "{wrong}");
        }
    }
}
