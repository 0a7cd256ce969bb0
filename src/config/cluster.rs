//! A cluster of brokers.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::number::between;
use super::storage::{Data, Storage, Sync};

/// Bytes of the names of a cluster and a node.
const NAME_BYTES_MAX: usize = 32;

/// Engine servers that can be named.
const SERVERS_MAX: usize = 16;

/// Nodes have numbers below this one.
const NODES_MAX: i64 = 64;

/// How many copies of a node's log there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replicas {
    /// The log is on the disk of its node.
    #[default]
    One,
    /// It is also in a stream of the engine.
    Three,
}

impl<'de> Deserialize<'de> for Replicas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match between::<_, u8, 1, 3>(deserializer)? {
            1 => Ok(Self::One),
            3 => Ok(Self::Three),
            _ => Err(de::Error::custom("2 is not 1 or 3")),
        }
    }
}

impl Serialize for Replicas {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::One => 1,
            Self::Three => 3,
        })
    }
}

/// What counts while the stream of a node's log confirms nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Degrade {
    /// Acknowledgements wait.
    #[default]
    None,
    /// The disk alone counts after some seconds.
    Disk,
}

/// A cluster of brokers.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The name of the cluster; empty for a broker that is alone.
    pub name: String,
    /// This node in the cluster.
    pub node: ClusterNode,
    /// The address for clients that other nodes tell, as `HOST:PORT`; empty for none.
    pub advertise: String,
    /// Seconds for which a client whose session is at a node that has left is refused, so that it finds the session again
    /// if the node comes back; then it begins another one. 0: at once.
    #[serde(deserialize_with = "between::<_, _, 0, 604_800>")]
    pub absent_session_wait_s: u32,
    /// Seconds for which a node is emptied at most before it stops on SIGTERM; 0 to stop at once.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub drain_on_stop_s: u32,
    /// The engine.
    pub engine: ClusterEngine,
    /// The program of the engine; empty for `nats-server` on `PATH`.
    pub engine_path: PathBuf,
    /// The port on loopback of the engine server that the broker runs.
    #[serde(deserialize_with = "between::<_, _, 1, 65_535>")]
    pub engine_port: u16,
    /// The address on which it listens for the other servers.
    pub routes_listen: String,
    /// Addresses of the other servers.
    pub routes: Vec<String>,
    /// File with the secret that the servers share; empty for none.
    pub routes_secret_file: PathBuf,
    /// User name at engine servers that run already; empty for none.
    pub user: String,
    /// Password there.
    pub password: String,
    /// File with NATS credentials; empty for none.
    pub credentials: PathBuf,
    /// File with the seed of an NKey; empty for none.
    pub nkey: PathBuf,
    /// File with certificates of authorities; empty for those of the system.
    pub tls_ca: PathBuf,
    /// File with this node's certificate; empty for none.
    pub tls_certificate: PathBuf,
    /// File with its key.
    pub tls_key: PathBuf,
    /// Copies of this node's log.
    pub replicas: Replicas,
    /// What counts while the stream confirms nothing.
    pub degrade: Degrade,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: String::new(),
            node: ClusterNode::Host,
            advertise: String::new(),
            absent_session_wait_s: 30,
            drain_on_stop_s: 0,
            engine: ClusterEngine::Spawn,
            engine_path: PathBuf::new(),
            engine_port: 4222,
            routes_listen: "0.0.0.0:6222".to_owned(),
            routes: Vec::new(),
            routes_secret_file: PathBuf::new(),
            user: String::new(),
            password: String::new(),
            credentials: PathBuf::new(),
            nkey: PathBuf::new(),
            tls_ca: PathBuf::new(),
            tls_certificate: PathBuf::new(),
            tls_key: PathBuf::new(),
            replicas: Replicas::One,
            degrade: Degrade::None,
        }
    }
}

/// A node in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClusterNode {
    /// It has the name of this machine.
    #[default]
    Host,
    /// It has this name, and the number that it had before or one that is free.
    Name(String),
    /// It has this number, which is also its name.
    Number(u8),
}

impl<'de> Deserialize<'de> for ClusterNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl de::Visitor<'_> for Written {
            type Value = ClusterNode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a number from 0 to 63")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ClusterNode, E> {
                match (0..NODES_MAX).contains(&number) {
                    true => Ok(ClusterNode::Number(number as u8)),
                    false => Err(E::custom(format!("{number} is not from 0 to 63"))),
                }
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ClusterNode, E> {
                match name {
                    "" => Ok(ClusterNode::Host),
                    name => Ok(ClusterNode::Name(name.to_owned())),
                }
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl Serialize for ClusterNode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Host => serializer.serialize_str(""),
            Self::Name(name) => serializer.serialize_str(name),
            Self::Number(number) => serializer.serialize_u8(*number),
        }
    }
}

/// The engine that carries what nodes tell each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClusterEngine {
    /// The broker runs a server.
    #[default]
    Spawn,
    /// These servers run already.
    Servers(Vec<String>),
}

impl<'de> Deserialize<'de> for ClusterEngine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> de::Visitor<'de> for Written {
            type Value = ClusterEngine;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"spawn\", or a list of servers such as [\"nats://10.0.0.1:4222\"]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ClusterEngine, E> {
                match text {
                    "spawn" => Ok(ClusterEngine::Spawn),
                    // One server, or several with commas, as an environment variable has them. A list in brackets
                    // is no text.
                    urls if urls.contains("://") && !urls.starts_with('[') => {
                        let urls = urls.split(',').map(str::trim).filter(|url| !url.is_empty());
                        Ok(ClusterEngine::Servers(urls.map(str::to_owned).collect()))
                    }
                    _ => Err(E::custom(format!("{text:?} is not \"spawn\" or a list of servers"))),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<ClusterEngine, A::Error> {
                let mut servers = Vec::new();
                while let Some(server) = list.next_element()? {
                    servers.push(server);
                }
                Ok(ClusterEngine::Servers(servers))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl Serialize for ClusterEngine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Spawn => serializer.serialize_str("spawn"),
            Self::Servers(servers) => serializer.collect_seq(servers),
        }
    }
}

impl Cluster {
    /// Whether this broker is a node of a cluster.
    pub fn is_enabled(&self) -> bool {
        !self.name.is_empty()
    }

    /// Checks the keys together; errors begin with the key.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !self.is_enabled() {
            return match *self == Self::default() {
                true => Ok(()),
                false => wrong(
                    "name",
                    "other keys of [cluster] are set but this one is not; name the cluster, the same on each of its \
                     nodes, or remove the section",
                ),
            };
        }
        if !cfg!(feature = "cluster") {
            return wrong(
                "name",
                "this broker was built without clusters; build it with `cargo build --release --features cluster`",
            );
        }
        check_name("name", &self.name)?;
        if let ClusterNode::Name(name) = &self.node {
            check_name("node", name)?;
        }
        if !self.advertise.is_empty() && !is_place(&self.advertise) {
            return wrong("advertise", &not_a_place(&self.advertise));
        }
        if self.tls_certificate.as_os_str().is_empty() != self.tls_key.as_os_str().is_empty() {
            return wrong("tls_certificate", "a certificate and its key (tls_key) belong together");
        }
        if self.degrade != Degrade::None && self.replicas == Replicas::One {
            return wrong(
                "degrade",
                "is for replicas = 3; remove it, as the log is on this node's disk alone",
            );
        }
        match &self.engine {
            ClusterEngine::Spawn => self.check_spawned(),
            ClusterEngine::Servers(servers) => self.check_servers(servers),
        }
    }

    /// Checks what the log has to be; errors begin with the key.
    pub(super) fn check_storage(&self, storage: &Storage) -> Result<(), (&'static str, String)> {
        if self.replicas == Replicas::One {
            return Ok(());
        }
        if storage.data == Data::None {
            return wrong("replicas", "3 needs a store; name a folder in storage.data");
        }
        if storage.sync != Sync::Always {
            return wrong(
                "replicas",
                "3 needs storage.sync = \"always\": an acknowledgement means this node's disk and the stream",
            );
        }
        Ok(())
    }

    fn check_spawned(&self) -> Result<(), (&'static str, String)> {
        let is_set = |path: &PathBuf| !path.as_os_str().is_empty();
        for (key, is_set) in [
            ("user", !self.user.is_empty()),
            ("password", !self.password.is_empty()),
            ("credentials", is_set(&self.credentials)),
            ("nkey", is_set(&self.nkey)),
        ] {
            if is_set {
                return wrong(
                    key,
                    "is for engine servers that run already; name them in cluster.engine, or remove it",
                );
            }
        }
        if self.routes.len() >= SERVERS_MAX {
            return wrong("routes", "more than 15 other servers");
        }
        for route in &self.routes {
            if !is_place(route) {
                return wrong("routes", &not_a_place(route));
            }
        }
        if !is_place(&self.routes_listen) {
            return wrong("routes_listen", &not_a_place(&self.routes_listen));
        }
        if !self.routes.is_empty() && !is_set(&self.routes_secret_file) {
            return wrong(
                "routes_secret_file",
                "servers on several machines need a secret; write the same one, of at least 16 characters, to a file on \
                 each, such as with `openssl rand -hex 16`",
            );
        }
        if is_set(&self.tls_certificate) != is_set(&self.tls_ca) {
            return wrong(
                "tls_ca",
                "servers that are run by brokers know each other by certificates; set tls_ca, tls_certificate and tls_key, \
                 or none of them",
            );
        }
        Ok(())
    }

    fn check_servers(&self, servers: &[String]) -> Result<(), (&'static str, String)> {
        if servers.is_empty() || servers.len() > SERVERS_MAX {
            return wrong("engine", "name 1 to 16 servers, or \"spawn\"");
        }
        for server in servers {
            let place = ["nats://", "tls://"].iter().find_map(|scheme| server.strip_prefix(scheme));
            if place.is_some_and(|place| place.contains('@')) {
                return wrong(
                    "engine",
                    "a URL has a user or a password; set cluster.user and cluster.password",
                );
            }
            if !place.is_some_and(is_place) {
                let what = format!("{server:?}: expected nats://HOST:PORT or tls://HOST:PORT");
                return wrong("engine", &what);
            }
        }
        let own = Self::default();
        for (key, is_set) in [
            ("engine_path", self.engine_path != own.engine_path),
            ("engine_port", self.engine_port != own.engine_port),
            ("routes_listen", self.routes_listen != own.routes_listen),
            ("routes", self.routes != own.routes),
            ("routes_secret_file", self.routes_secret_file != own.routes_secret_file),
        ] {
            if is_set {
                return wrong(
                    key,
                    "is for engine = \"spawn\"; remove it, as the servers in cluster.engine run already",
                );
            }
        }
        if self.user.is_empty() != self.password.is_empty() {
            return wrong("user", "a user and a password belong together");
        }
        let kinds = [
            !self.user.is_empty(),
            !self.credentials.as_os_str().is_empty(),
            !self.nkey.as_os_str().is_empty(),
        ];
        if kinds.iter().filter(|is_set| **is_set).count() > 1 {
            return wrong(
                "user",
                "only one of user and password, credentials, and nkey can be used",
            );
        }
        Ok(())
    }
}

fn wrong<T>(key: &'static str, what: &str) -> Result<T, (&'static str, String)> {
    Err((key, format!("cluster.{key}: {what}")))
}

fn check_name(key: &'static str, name: &str) -> Result<(), (&'static str, String)> {
    let is_name = name.len() <= NAME_BYTES_MAX
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    match is_name {
        true => Ok(()),
        false => wrong(key, &format!("{name:?}: expected up to 32 of A-Z a-z 0-9 - _")),
    }
}

fn not_a_place(text: &str) -> String {
    format!("{text:?}: expected HOST:PORT")
}

/// Whether a text is `HOST:PORT`; a host may be an address of IPv6 in brackets.
fn is_place(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        }
    };
    is_port && is_host
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;

    fn check(text: &str) -> Result<(), String> {
        let settings =
            Settings::from_toml(&format!("[cluster]\n{text}")).map_err(|e| e.to_string())?;
        settings.check().map_err(|error| error.to_string())
    }

    #[test]
    fn keys_without_the_name_of_a_cluster_are_an_error() {
        assert_eq!(check(""), Ok(()));
        let error = check("node = 3").expect_err("no name");
        assert!(error.contains("cluster.name"), "{error}");
    }

    #[cfg(not(feature = "cluster"))]
    #[test]
    fn a_broker_without_the_feature_says_how_to_build_it() {
        let error = check("name = \"c\"").expect_err("not built");
        assert!(error.contains("--features cluster"), "{error}");
    }

    #[cfg(feature = "cluster")]
    #[test]
    fn what_is_wrong_with_a_key_is_said_by_its_name() {
        for right in [
            "name = \"c\"",
            "name = \"c\"\nnode = 63\nadvertise = \"[::1]:1883\"",
            "name = \"c\"\nengine = \"nats://h:4222\"",
            "name = \"c\"\nengine = \"nats://h:4222, tls://i:4222\"",
            "name = \"c\"\nengine = [\"tls://h:4222\", \"nats://10.0.0.1:4222\"]\nuser = \"u\"\npassword = \"p\"",
            "name = \"c\"\nroutes = [\"h:6222\"]\nroutes_secret_file = \"/s\"",
        ] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for (wrong, key) in [
            ("name = \"c\"\nreplicas = 2", "replicas"),
            ("name = \"c\"\ndegrade = \"disk\"", "cluster.degrade"),
            ("name = \"c\"\nreplicas = 3\n[storage]\ndata = \"none\"", "cluster.replicas"),
            ("name = \"c\"\nreplicas = 3\n[storage]\nsync = \"interval\"", "cluster.replicas"),
            ("name = \"a b\"", "cluster.name"),
            ("name = \"c\"\nnode = \"x.y\"", "cluster.node"),
            ("name = \"c\"\nnode = 64", "not from 0 to 63"),
            ("name = \"c\"\nadvertise = \"host\"", "cluster.advertise"),
            ("name = \"c\"\nengine = \"run\"", "\"spawn\""),
            ("name = \"c\"\nengine = []", "cluster.engine"),
            ("name = \"c\"\nengine = [\"http://h:1\"]", "cluster.engine"),
            ("name = \"c\"\nengine = [\"nats://u:p@h:1\"]", "cluster.user"),
            ("name = \"c\"\nengine = [\"nats://h:1\"]\nroutes = [\"h:6222\"]", "cluster.routes"),
            ("name = \"c\"\nengine = [\"nats://h:1\"]\nengine_port = 9", "cluster.engine_port"),
            ("name = \"c\"\nengine = [\"nats://h:1\"]\nuser = \"u\"", "cluster.user"),
            (
                "name = \"c\"\nengine = [\"nats://h:1\"]\nnkey = \"/n\"\ncredentials = \"/c\"",
                "only one",
            ),
            ("name = \"c\"\nuser = \"u\"", "cluster.user"),
            ("name = \"c\"\nroutes = [\"h\"]", "cluster.routes"),
            ("name = \"c\"\nroutes = [\"h:6222\"]", "cluster.routes_secret_file"),
            ("name = \"c\"\nroutes_listen = \"6222\"", "cluster.routes_listen"),
            ("name = \"c\"\ntls_key = \"/k\"", "cluster.tls_certificate"),
            ("name = \"c\"\ntls_key = \"/k\"\ntls_certificate = \"/c\"", "cluster.tls_ca"),
            ("name = \"c\"\nengine_port = 0", "not from 1 to 65535"),
        ] {
            let error = check(wrong).expect_err(wrong);
            assert!(error.contains(key), "{wrong}: {error}");
        }
    }
}
