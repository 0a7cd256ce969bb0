//! Authentication and authorization.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::number::between;

/// Authentication and authorization.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Which listeners admit anonymous clients.
    pub anonymous: Anonymous,
    /// File of users and their passwords; empty for none.
    pub password_file: PathBuf,
    /// File of access rules; empty for none: clients may do everything.
    pub acl_file: PathBuf,
    /// The syntax of that file, and what it does to subscriptions.
    pub acl_format: AclFormat,
    /// File of clients, groups and roles that commands on a topic change; empty for none.
    pub dynamic_security: PathBuf,
    /// Whether the User Name of a client counts where no users are configured, although nobody verifies it.
    pub unverified_names: bool,
    /// Whether a session belongs to the user that created it.
    pub bind_sessions: bool,
    /// Whether the name in a client certificate is the user name.
    pub certificate_names: bool,
    /// Jobs that may wait for each pool of threads.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000_000>")]
    pub waiting_max: u32,
    /// Hashes of new passwords.
    pub hashing: Hashing,
    /// Users and rules that operators change while the broker runs.
    pub database: Database,
    /// Authentication by JSON Web Token.
    pub jwt: Jwt,
    /// Authentication by an HTTP server.
    pub http: Http,
    /// Authorization by an HTTP server.
    pub authorization: Authorization,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            anonymous: Anonymous::Auto,
            password_file: PathBuf::new(),
            acl_file: PathBuf::new(),
            acl_format: AclFormat::Ringmq,
            dynamic_security: PathBuf::new(),
            unverified_names: false,
            bind_sessions: true,
            certificate_names: true,
            waiting_max: 1_024,
            hashing: Hashing::default(),
            database: Database::default(),
            jwt: Jwt::default(),
            http: Http::default(),
            authorization: Authorization::default(),
        }
    }
}

impl Access {
    /// Whether users are configured, by any method.
    pub fn knows_users(&self) -> bool {
        let takes_tokens =
            !self.jwt.key_set.as_os_str().is_empty() || !self.jwt.key_set_url.is_empty();
        self.has_passwords()
            || takes_tokens
            || !self.http.url.is_empty()
            || self.has_dynamic_security()
    }

    /// Whether there are users with passwords, in the file or in the database.
    pub fn has_passwords(&self) -> bool {
        self.has_password_file() || self.database.users_max > 0
    }

    /// Whether rules limit what clients may do.
    pub fn has_rules(&self) -> bool {
        !self.acl_file.as_os_str().is_empty()
            || self.database.rules_max > 0
            || !self.authorization.url.is_empty()
            || self.has_dynamic_security()
    }

    /// Whether there is a file of dynamic security.
    pub fn has_dynamic_security(&self) -> bool {
        !self.dynamic_security.as_os_str().is_empty()
    }

    /// Whether a session belongs to the user that created it: not to one whose name is not verified.
    pub fn binds_sessions(&self) -> bool {
        self.bind_sessions && !self.takes_unverified_names()
    }

    /// Whether clients have the names that they claim.
    pub fn takes_unverified_names(&self) -> bool {
        self.unverified_names && !self.knows_users()
    }

    /// Whether there is a password file.
    pub fn has_password_file(&self) -> bool {
        !self.password_file.as_os_str().is_empty()
    }
}

/// The syntax of a file of access rules.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AclFormat {
    /// That of this broker: a subscription is allowed or refused whole.
    #[default]
    Ringmq,
    /// That of Mosquitto: each subscription is granted, and filtered by topic.
    Mosquitto,
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
        struct Written;

        impl de::Visitor<'_> for Written {
            type Value = Anonymous;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"auto\"")
            }

            fn visit_bool<E: de::Error>(self, is_any: bool) -> Result<Anonymous, E> {
                Ok(if is_any { Anonymous::Yes } else { Anonymous::No })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Anonymous, E> {
                match text {
                    "auto" => Ok(Anonymous::Auto),
                    _ => Err(E::custom("true, false or \"auto\" is expected")),
                }
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl Serialize for Anonymous {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Yes => serializer.serialize_bool(true),
            Self::No => serializer.serialize_bool(false),
        }
    }
}

/// Hashes of new passwords: the cost of an attempt.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
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

/// Users and rules that operators change while the broker runs, kept in the folder of the store.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// Number of users; 0: none are kept.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000>")]
    pub users_max: u32,
    /// Number of rules; 0: none are kept.
    #[serde(deserialize_with = "between::<_, _, 0, 10_000>")]
    pub rules_max: u32,
}

impl Database {
    /// Whether users or rules are kept.
    pub fn is_used(&self) -> bool {
        self.users_max > 0 || self.rules_max > 0
    }
}

/// The field of CONNECT that has the token.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
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
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// File with the keys (a JSON Web Key Set); empty: tokens are not accepted.
    pub key_set: PathBuf,
    /// URL of the keys, instead of a file; empty for none. The URL may have a name and a password.
    pub key_set_url: String,
    /// PEM file with certificate authorities for the server of that URL, as for HTTP authentication.
    pub key_set_ca: PathBuf,
    /// Seconds after which the keys are fetched again, unless the server says that they are valid for less.
    #[serde(deserialize_with = "between::<_, _, 10, 86_400>")]
    pub key_set_refresh_s: u32,
    /// The field of CONNECT that has the token.
    pub token_in: TokenIn,
    /// Required `iss`; empty for any.
    pub issuer: String,
    /// Required member of `aud`; empty for any.
    pub audience: String,
    /// Claim with the user name.
    pub user_claim: String,
    /// Claim with access rules for the client; empty: none is looked for.
    pub acl_claim: String,
    /// Rules in that claim.
    #[serde(deserialize_with = "between::<_, _, 1, 1_000>")]
    pub acl_rules_max: u32,
    /// Tolerated clock difference in seconds.
    #[serde(deserialize_with = "between::<_, _, 0, 3_600>")]
    pub leeway_s: u32,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            key_set: PathBuf::new(),
            key_set_url: String::new(),
            key_set_ca: PathBuf::new(),
            key_set_refresh_s: 300,
            token_in: TokenIn::Password,
            issuer: String::new(),
            audience: String::new(),
            user_claim: "sub".to_owned(),
            acl_claim: "acl".to_owned(),
            acl_rules_max: 64,
            leeway_s: 30,
        }
    }
}

/// Authentication by an HTTP server.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
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
    /// What the server is sent.
    pub params: Params,
    /// What the server answers.
    pub answer: ServerAnswer,
    /// Whether the server is asked, too, if a user has another password in the file or the database.
    pub after_passwords: bool,
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
            params: Params::Ringmq,
            answer: ServerAnswer::Ringmq,
            after_passwords: false,
        }
    }
}

/// Authorization by an HTTP server.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// URL of the server that is asked about what no rule decides; empty for none. The URL may have a name and a password.
    pub url: String,
    /// PEM file with certificate authorities for the server, as for authentication.
    pub ca: PathBuf,
    /// Timeout in milliseconds.
    #[serde(deserialize_with = "between::<_, _, 1, 60_000>")]
    pub timeout_ms: u32,
    /// Seconds for which an answer is cached for the same client, action and topic.
    #[serde(deserialize_with = "between::<_, _, 1, 86_400>")]
    pub cache_s: u32,
    /// Number of answers that each core caches.
    #[serde(deserialize_with = "between::<_, _, 100, 1_000_000>")]
    pub cache_max: u32,
    /// Decision if the server does not answer.
    pub on_failure: OnFailure,
    /// What the server is sent.
    pub params: Params,
    /// What the server answers.
    pub answer: ServerAnswer,
    /// URL that is asked whether a user may do everything, if the other one denies something; empty for none.
    pub superuser_url: String,
    /// Whether the server is asked, too, if a rule denies something.
    pub after_rules: bool,
}

impl Default for Authorization {
    fn default() -> Self {
        Self {
            url: String::new(),
            ca: PathBuf::new(),
            timeout_ms: 2_000,
            cache_s: 60,
            cache_max: 10_000,
            on_failure: OnFailure::Deny,
            params: Params::Ringmq,
            answer: ServerAnswer::Ringmq,
            superuser_url: String::new(),
            after_rules: false,
        }
    }
}

/// What an HTTP server is sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Params {
    /// JSON with the names of this broker.
    #[default]
    Ringmq,
    /// JSON with the names of Mosquitto's plugin go-auth.
    Json,
    /// A form with these names.
    Form,
}

/// What an HTTP server answers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ServerAnswer {
    /// `{"allow": true}`.
    #[default]
    Ringmq,
    /// A status.
    Status,
    /// `{"ok": true}`.
    Json,
    /// `ok`.
    Text,
}

/// Decision if the HTTP server does not answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Refuse the client, or what it wants to do.
    #[default]
    Deny,
    /// Admit the client as the user that it claims to be, or let it do what it wants to do.
    Allow,
}
