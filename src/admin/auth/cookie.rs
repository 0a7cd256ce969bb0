//! The cookie of a caller that has logged in. Its content is signed and kept by the browser: nothing is stored here,
//! and it holds until it expires, the broker restarts, or the secret that it was given for changes.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;

use crate::config::Role;

/// Name of the cookie.
pub const NAME: &str = "ringmq_admin";
/// Seconds for which a cookie holds.
pub const LIFETIME_S: u64 = 8 * 3_600;

/// What a caller has proven to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    Password,
}

/// The content of a cookie.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cookie {
    pub kind: Kind,
    pub name: Box<str>,
    pub role: Role,
    until_s: u64,
}

impl Cookie {
    /// A cookie that holds from now on.
    pub fn new(kind: Kind, name: &str, role: Role) -> Self {
        Self { kind, name: name.into(), role, until_s: now_s() + LIFETIME_S }
    }

    /// The value, signed with the hash of the secret that was verified.
    pub fn write(&self, key: &hmac::Key, hash: &str) -> String {
        let kind = match self.kind {
            Kind::Token => "t",
            Kind::Password => "p",
        };
        let name = BASE64_URL_SAFE_NO_PAD.encode(&*self.name);
        let content = format!("{kind}.{}.{}.{name}", self.role.name(), self.until_s);
        let signature = hmac::sign(key, &signed(&content, hash));
        format!("{content}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// Reads a value. `now` returns the present hash of the secret, and the role of those who know it.
    pub fn read(
        text: &str,
        key: &hmac::Key,
        now: impl FnOnce(&Self) -> Option<(Box<str>, Role)>,
    ) -> Option<Self> {
        let (content, signature) = text.rsplit_once('.')?;
        let parts: [&str; 4] = content.split('.').collect::<Vec<_>>().try_into().ok()?;
        let kind = match parts[0] {
            "t" => Kind::Token,
            "p" => Kind::Password,
            _ => return None,
        };
        let name = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(parts[3]).ok()?).ok()?;
        let (role, until_s) = (parts[1].parse().ok()?, parts[2].parse().ok()?);
        let cookie = Self { kind, name: name.into(), role, until_s };
        let (hash, role) = now(&cookie)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        // Compares in constant time.
        hmac::verify(key, &signed(content, &hash), &signature).ok()?;
        (cookie.role == role && now_s() < cookie.until_s).then_some(cookie)
    }
}

fn signed(content: &str, hash: &str) -> Vec<u8> {
    [b"cookie\0", content.as_bytes(), b"\0", hash.as_bytes()].concat()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The value of the cookie in these headers.
pub(super) fn of(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_holds_until_it_expires_or_the_secret_changes_and_cannot_be_forged() {
        let key = |byte| hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
        let now = |hash: &str, role| Some((Box::from(hash), role));
        let cookie = Cookie::new(Kind::Token, "a.b", Role::Read);
        let text = cookie.write(&key(1), "hash");
        let read = Cookie::read(&text, &key(1), |_| now("hash", Role::Read));
        assert_eq!(read.as_ref(), Some(&cookie));
        assert_eq!(Cookie::read(&text, &key(1), |_| now("other", Role::Read)), None);
        assert_eq!(Cookie::read(&text, &key(1), |_| now("hash", Role::Admin)), None);
        assert_eq!(Cookie::read(&text, &key(1), |_| None), None);
        assert_eq!(Cookie::read(&text, &key(2), |_| now("hash", Role::Read)), None);
        let forged = text.replace("read", "admin");
        assert_eq!(Cookie::read(&forged, &key(1), |_| now("hash", Role::Admin)), None);
        for length in 0..text.len() {
            assert_eq!(Cookie::read(&text[..length], &key(1), |_| now("hash", Role::Read)), None);
        }
        let old = Cookie { until_s: now_s(), ..cookie }.write(&key(1), "hash");
        assert_eq!(Cookie::read(&old, &key(1), |_| now("hash", Role::Read)), None);
    }
}
