//! The admin interface: where it listens, and who may use it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::address::Addresses;
use super::number::between;
use super::{Bind, Settings};

/// The admin interface.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Addresses and Unix sockets to listen on; empty for none.
    #[serde(deserialize_with = "binds")]
    pub listen: Vec<AdminBind>,
    /// Whether the web page is served.
    pub dashboard: bool,
    /// Who may read the metrics.
    pub metrics: Scrapers,
    /// Concurrent connections.
    #[serde(deserialize_with = "between::<_, _, 4, 1_024>")]
    pub connections_max: u32,
    /// Host names in URLs of the interface, besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// Whether addresses that other machines reach may be used without TLS.
    pub insecure: bool,
    /// Group whose members may read through the Unix socket; empty for none.
    pub socket_group: String,
    /// Who may use the interface through TCP.
    pub access: AdminAccess,
    /// TLS.
    pub tls: AdminTls,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: vec![AdminBind::Unix],
            dashboard: true,
            metrics: Scrapers::Auto,
            connections_max: 32,
            hosts: Vec::new(),
            insecure: false,
            socket_group: String::new(),
            access: AdminAccess::default(),
            tls: AdminTls::default(),
        }
    }
}

/// Where the admin interface listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBind {
    /// A Unix socket in the runtime directory, otherwise in the folder of the store.
    Unix,
    /// An address or a path.
    Bind(Bind),
}

impl fmt::Display for AdminBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Bind(bind) => bind.fmt(f),
        }
    }
}

impl Serialize for AdminBind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A list of `unix`, `unix:PATH` and addresses; a host name stands for each of its addresses.
fn binds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AdminBind>, D::Error> {
    let mut all = Vec::new();
    for text in Vec::<String>::deserialize(deserializer)? {
        if text == "unix" {
            all.push(AdminBind::Unix);
        } else if text.starts_with("unix:") {
            all.push(AdminBind::Bind(text.parse().map_err(de::Error::custom)?));
        } else {
            let addresses = text.parse::<Addresses>().map_err(de::Error::custom)?.0;
            all.extend(addresses.into_iter().map(|one| AdminBind::Bind(Bind::Address(one))));
        }
    }
    Ok(all)
}

/// Who may read the metrics.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Scrapers {
    /// Everybody through loopback and Unix sockets; with the role `read` otherwise.
    #[default]
    Auto,
    /// Everybody.
    Open,
    /// With the role `read`.
    Closed,
}

/// What a user of the admin interface may do. Each role includes the ones before.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read everything but payloads and traces.
    Read,
    /// Read payloads and traces; disconnect and ban clients, publish, reload.
    Operate,
    /// Delete sessions and retained messages, and replace the broker by a new version.
    Admin,
}

impl Role {
    /// All roles, each with more rights than the one before.
    pub const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Admin];

    /// Name in the configuration, in the file of tokens and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("{text:?} is not a role: read, operate or admin"))
    }
}

/// Who may use the admin interface through TCP.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct AdminAccess {
    /// File of tokens; empty for none.
    pub tokens_file: PathBuf,
    /// Group of the ACL file whose members log in with their passwords; empty for none.
    pub password_group: String,
    /// The role of these members.
    pub password_role: Role,
}

impl Default for AdminAccess {
    fn default() -> Self {
        let (tokens_file, password_group) = (PathBuf::new(), String::new());
        Self { tokens_file, password_group, password_role: Role::Operate }
    }
}

/// TLS of the admin interface.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct AdminTls {
    /// PEM file with the server certificate and intermediate certificates; empty for no TLS.
    pub certificate: PathBuf,
    /// PEM file with the key of the certificate.
    pub key: PathBuf,
    /// PEM file with the certificate authorities of clients; empty for none.
    pub client_ca: PathBuf,
    /// Roles by the Common Name of the client certificate.
    pub roles: BTreeMap<String, Role>,
}

impl AdminTls {
    /// Whether the addresses use TLS.
    pub fn is_used(&self) -> bool {
        !is_empty(&self.certificate)
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl Settings {
    /// Whether there is an admin interface.
    pub fn has_admin(&self) -> bool {
        cfg!(feature = "admin")
            && (!self.admin_binds().is_empty() || !self.telemetry.endpoint.is_empty())
    }

    /// What the admin interface listens on, with the path of its default socket. A default socket without a place
    /// is left out.
    pub fn admin_binds(&self) -> Vec<Bind> {
        let bind = |bind: &AdminBind| match bind {
            AdminBind::Unix => self.admin_socket().ok().map(Bind::Path),
            AdminBind::Bind(bind) => Some(bind.clone()),
        };
        self.admin.listen.iter().filter_map(bind).collect()
    }

    /// The path of the default socket, or the reason why there is none.
    pub fn admin_socket(&self) -> Result<PathBuf, &'static str> {
        if !cfg!(unix) {
            return Err("this system has no Unix sockets");
        }
        let runtime = std::env::var_os("RUNTIME_DIRECTORY");
        // systemd may list several folders.
        let runtime = runtime.and_then(|folders| std::env::split_paths(&folders).next());
        let folder = match runtime.filter(|folder| folder.is_absolute()) {
            Some(folder) => folder,
            None => self.data_folder().map_err(|_| {
                "neither RUNTIME_DIRECTORY nor a folder of the store is there for it; name a path \
                 in admin.listen"
            })?,
        };
        let path = folder.join("admin.sock");
        match path.as_os_str().len() < SOCKET_PATH_BYTES_MAX {
            true => Ok(path),
            false => Err("its path in the folder of the store would be too long; name a shorter \
                          path in admin.listen"),
        }
    }

    pub(super) fn check_admin(&self) -> Result<(), String> {
        let admin = &self.admin;
        if !cfg!(feature = "admin") && *admin != Admin::default() {
            return Err(
                "[admin]: this broker was built without the admin interface; build it with \
                        `cargo build --release --features admin`"
                    .to_owned(),
            );
        }
        for host in &admin.hosts {
            let is_name =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            if host.is_empty() || !host.chars().all(is_name) {
                return Err(format!(
                    "admin.hosts: {host:?} is not a host name in lower case without a port, such \
                     as \"broker.example.org\""
                ));
            }
        }
        self.check_admin_binds()?;
        self.check_admin_access()
    }

    fn check_admin_binds(&self) -> Result<(), String> {
        let admin = &self.admin;
        for (place, bind) in admin.listen.iter().enumerate() {
            if admin.listen[..place].contains(bind) {
                return Err(format!("admin.listen: {bind} is listened on twice; name it once"));
            }
            let AdminBind::Bind(bind) = bind else { continue };
            if self.every_listener().any(|listener| listener.bind == *bind) && !bind.is_any_port() {
                return Err(format!("admin.listen: {bind} is a listener for MQTT already"));
            }
            match bind {
                Bind::Path(_) if !cfg!(unix) => {
                    return Err(format!("admin.listen: {bind}: this system has no Unix sockets"));
                }
                Bind::Address(address)
                    if !address.ip().is_loopback() && !admin.tls.is_used() && !admin.insecure =>
                {
                    return Err(format!(
                        "admin.listen: other machines reach {bind}, and secrets would be sent as \
                         plain text; configure [admin.tls], or set admin.insecure = true if another \
                         layer encrypts"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_admin_access(&self) -> Result<(), String> {
        let Admin { access, tls, .. } = &self.admin;
        if is_empty(&tls.certificate) != is_empty(&tls.key) {
            return Err("admin.tls: TLS needs certificate and key, both PEM files".to_owned());
        }
        if !is_empty(&tls.client_ca) && !tls.is_used() {
            return Err("admin.tls.client_ca needs certificate and key".to_owned());
        }
        if !tls.roles.is_empty() && is_empty(&tls.client_ca) {
            return Err(
                "admin.tls.roles needs the certificate authorities of clients; name their \
                        PEM file in admin.tls.client_ca"
                    .to_owned(),
            );
        }
        let has_users = self.access.has_password_file() && !is_empty(&self.access.acl_file);
        if !access.password_group.is_empty() && !has_users {
            return Err("admin.access.password_group needs access.password_file, and \
                        access.acl_file with a line `group NAME: USER …`"
                .to_owned());
        }
        Ok(())
    }
}

/// Bytes of a path that the smallest `sockaddr_un` holds.
const SOCKET_PATH_BYTES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        match Settings::from_toml(text) {
            Err(error) => error,
            Ok(settings) => settings.check().expect_err(text).to_string(),
        }
    }

    #[test]
    fn an_address_that_other_machines_reach_needs_tls_or_a_word() {
        let wrong = "[admin]\nlisten = [\"192.0.2.1:9883\"]";
        assert!(error(wrong).contains("plain text"), "{}", error(wrong));
        assert!(error("[admin]\nlisten = [\"9883\"]").contains("plain text"));
        for right in [
            "[admin]\nlisten = [\"192.0.2.1:9883\"]\ninsecure = true",
            "[admin]\nlisten = [\"127.0.0.1:9883\", \"[::1]:9883\"]",
            "[admin]\nlisten = [\"192.0.2.1:9883\"]\n[admin.tls]\ncertificate = \"a\"\nkey = \"b\"",
            "[admin]\nlisten = []",
        ] {
            let settings = Settings::from_toml(right).expect(right);
            settings.check().expect(right);
        }
    }

    #[test]
    fn a_rule_that_has_no_effect_is_an_error() {
        for (wrong, what) in [
            ("[admin.tls]\nkey = \"b\"", "certificate and key"),
            ("[admin.tls]\nclient_ca = \"b\"", "needs certificate"),
            ("[admin.tls.roles]\n\"a\" = \"read\"", "client_ca"),
            ("[admin.tls.roles]\n\"a\" = \"root\"", "operate"),
            ("[admin.access]\npassword_group = \"staff\"", "password_file"),
            ("[admin]\nhosts = [\"a:80\"]", "host name"),
            ("[admin]\nlisten = [\"unix\", \"unix\"]", "twice"),
            ("[admin]\nlisten = [\"unix:\"]", "needs a path"),
            ("[admin]\nlisten = [\"127.0.0.1:1883\"]", "MQTT already"),
            ("[admin]\nconnections_max = 3", "from 4 to"),
        ] {
            assert!(error(wrong).contains(what), "{wrong}: {}", error(wrong));
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_default_socket_is_beside_the_store_and_left_out_without_one() {
        let settings = Settings::from_toml("[storage]\ndata = \"/var/x\"").expect("it parses");
        if std::env::var_os("RUNTIME_DIRECTORY").is_none() {
            assert_eq!(settings.admin_binds(), [Bind::Path("/var/x/admin.sock".into())]);
            let settings = Settings::from_toml("[storage]\ndata = \"none\"").expect("it parses");
            assert_eq!(settings.admin_binds(), []);
        }
    }
}
