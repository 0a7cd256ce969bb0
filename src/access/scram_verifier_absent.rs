//! Verifiers of SCRAM-SHA-256 in a build without SCRAM: those in a password file are kept unread, and
//! none are made.

use crate::config::Hashing;

/// Whether a text may be a verifier.
pub fn is_verifier(_text: &str) -> bool {
    true
}

/// No verifier of the password.
pub fn make(
    _password: &str,
    _hashing: &Hashing,
    _kept: Option<&str>,
) -> Result<Option<String>, String> {
    Ok(None)
}
