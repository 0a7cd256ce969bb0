//! Authentication and authorization.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

use super::number::between;

/// Authentication and authorization.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Which listeners admit anonymous clients.
    pub anonymous: Anonymous,
    /// File of users and their passwords; empty for none.
    pub password_file: PathBuf,
    /// File of access rules; empty for none: clients may do everything.
    pub acl_file: PathBuf,
    /// Whether a session belongs to the user that created it.
    pub bind_sessions: bool,
    /// Whether the name in a client certificate is the user name.
    pub certificate_names: bool,
    /// Jobs that may wait for each pool of threads.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub waiting_max: u32,
    /// Hashes of new passwords.
    pub hashing: Hashing,
    /// Authentication by JSON Web Token.
    pub jwt: Jwt,
    /// Authentication by an HTTP server.
    pub http: Http,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            anonymous: Anonymous::Auto,
            password_file: PathBuf::new(),
            acl_file: PathBuf::new(),
            bind_sessions: true,
            certificate_names: true,
            waiting_max: 1_024,
            hashing: Hashing::default(),
            jwt: Jwt::default(),
            http: Http::default(),
        }
    }
}

impl Access {
    /// Whether users are configured, by any method.
    pub fn knows_users(&self) -> bool {
        let takes_tokens = !self.jwt.key_set.as_os_str().is_empty();
        self.has_password_file() || takes_tokens || !self.http.url.is_empty()
    }

    /// Whether there is a password file.
    pub fn has_password_file(&self) -> bool {
        !self.password_file.as_os_str().is_empty()
    }
}

/// Which listeners admit anonymous clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Listeners that only this machine can reach, unless users are configured.
    #[default]
    Auto,
    /// All listeners.
    Yes,
    /// No listener.
    No,
}

impl<'de> Deserialize<'de> for Anonymous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "true, false or \"auto\" is expected")]
        enum Said {
            Bool(bool),
            Text(String),
        }
        match Said::deserialize(deserializer)? {
            Said::Bool(true) => Ok(Self::Yes),
            Said::Bool(false) => Ok(Self::No),
            Said::Text(text) if text == "auto" => Ok(Self::Auto),
            Said::Text(_) => Err(de::Error::custom("true, false or \"auto\" is expected")),
        }
    }
}

/// Hashes of new passwords: the cost of an attempt.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Hashing {
    /// Memory of Argon2id in KiB, for each concurrent attempt.
    #[serde(deserialize_with = "between::<_, _, 8, 4_194_304>")]
    pub memory_kib: u32,
    /// Iterations of Argon2id.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000>")]
    pub iterations: u32,
    /// Whether to store a verifier for SCRAM-SHA-256 too.
    pub scram: bool,
    /// Iterations of SCRAM, which the client computes.
    #[serde(deserialize_with = "between::<_, _, 4_096, 10_000_000>")]
    pub scram_iterations: u32,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2, scram: true, scram_iterations: 15_000 }
    }
}

/// The field of CONNECT that has the token.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TokenIn {
    /// The Password.
    #[default]
    Password,
    /// The User Name.
    Username,
    /// The Password, otherwise the User Name.
    Either,
}

/// Authentication by JSON Web Token.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// File with the keys (a JSON Web Key Set); empty: tokens are not accepted.
    pub key_set: PathBuf,
    /// The field of CONNECT that has the token.
    pub token_in: TokenIn,
    /// Required `iss`; empty for any.
    pub issuer: String,
    /// Required member of `aud`; empty for any.
    pub audience: String,
    /// Claim with the user name.
    pub user_claim: String,
    /// Tolerated clock difference in seconds.
    #[serde(deserialize_with = "between::<_, _, 0, 3_600>")]
    pub leeway_s: u32,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            key_set: PathBuf::new(),
            token_in: TokenIn::Password,
            issuer: String::new(),
            audience: String::new(),
            user_claim: "sub".to_owned(),
            leeway_s: 30,
        }
    }
}

/// Authentication by an HTTP server.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// URL of the server; empty for none. The URL may have a name and a password.
    pub url: String,
    /// PEM file with certificate authorities for the server; empty for those in the file that the
    /// environment variable `SSL_CERT_FILE` names, otherwise those that browsers trust.
    pub ca: PathBuf,
    /// Timeout in milliseconds.
    #[serde(deserialize_with = "between::<_, _, 1, 60_000>")]
    pub timeout_ms: u32,
    /// Seconds for which a positive answer is cached for the same client and password; 0: no cache.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub cache_s: u32,
    /// Number of cached answers.
    #[serde(deserialize_with = "between::<_, _, 1, 10_000_000>")]
    pub cache_max: u32,
    /// Decision if the server does not answer.
    pub on_failure: OnFailure,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            url: String::new(),
            ca: PathBuf::new(),
            timeout_ms: 2_000,
            cache_s: 60,
            cache_max: 10_000,
            on_failure: OnFailure::Deny,
        }
    }
}

/// Decision if the HTTP server does not answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Refuse the client.
    #[default]
    Deny,
    /// Admit the client as the user that it claims to be.
    Allow,
}
