//! Who is let in, and who may do what.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

use super::number::between;

/// Who is let in, and who may do what.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Whether clients without a name are let in.
    pub anonymous: Anonymous,
    /// File of users and their passwords; empty for none.
    pub password_file: PathBuf,
    /// File of rules that say who may do what; empty for none: who is in may do everything.
    pub acl_file: PathBuf,
    /// Whether a session is only for the user that made it.
    pub bind_sessions: bool,
    /// Whether a client with a certificate is known by the name in it.
    pub certificate_names: bool,
    /// Decisions about clients that may wait for the pool.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub waiting_max: u32,
    /// How new passwords are kept.
    pub hashing: Hashing,
    /// Clients that show a JSON Web Token.
    pub jwt: Jwt,
    /// Clients that a server is asked about.
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
    /// Whether there is any way to be let in by name and secret.
    pub fn knows_users(&self) -> bool {
        let takes_tokens = !self.jwt.key_set.as_os_str().is_empty();
        self.has_password_file() || takes_tokens || !self.http.url.is_empty()
    }

    /// Whether there is a password file.
    pub fn has_password_file(&self) -> bool {
        !self.password_file.as_os_str().is_empty()
    }
}

/// Whether clients without a name are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// By listeners that only this machine reaches, while there is no way to be known by name.
    #[default]
    Auto,
    /// By all listeners.
    Yes,
    /// By none.
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

/// How new passwords are kept: what it costs to try one.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Hashing {
    /// Argon2id's memory in KiB, for each attempt under way.
    #[serde(deserialize_with = "between::<_, _, 8, 4_194_304>")]
    pub memory_kib: u32,
    /// Its iterations.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000>")]
    pub iterations: u32,
    /// Whether SCRAM-SHA-256 is to know the password too.
    pub scram: bool,
    /// Its iterations, which the client does.
    #[serde(deserialize_with = "between::<_, _, 4_096, 10_000_000>")]
    pub scram_iterations: u32,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2, scram: true, scram_iterations: 15_000 }
    }
}

/// Where the token of a client stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TokenIn {
    /// In its Password.
    #[default]
    Password,
    /// In its User Name.
    Username,
    /// In its Password, or else in its User Name.
    Either,
}

/// Clients that show a JSON Web Token.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// File with the keys (a JSON Web Key Set); empty: tokens are not taken.
    pub key_set: PathBuf,
    /// Where clients put their token.
    pub token_in: TokenIn,
    /// What `iss` has to be; empty for anything.
    pub issuer: String,
    /// What `aud` has to name; empty for anything.
    pub audience: String,
    /// The claim that names the user.
    pub user_claim: String,
    /// Seconds by which clocks may differ.
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

/// Clients that a server is asked about.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Whom to ask; empty for nobody. It may hold a name and a password.
    pub url: String,
    /// PEM file with the authorities that its certificate has to come from; empty for those that
    /// `SSL_CERT_FILE` names in the environment, or else those that browsers know.
    pub ca: PathBuf,
    /// Milliseconds it may take to answer.
    #[serde(deserialize_with = "between::<_, _, 1, 60_000>")]
    pub timeout_ms: u32,
    /// Seconds for which an answer holds for the same client with the same password; 0 asks each
    /// time.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub cache_s: u32,
    /// Answers remembered.
    #[serde(deserialize_with = "between::<_, _, 1, 10_000_000>")]
    pub cache_max: u32,
    /// What holds when it does not answer.
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

/// What holds when a server that was asked does not answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Nobody is let in.
    #[default]
    Deny,
    /// Everybody is, under the name they say they have.
    Allow,
}
