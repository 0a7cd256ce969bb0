//! Bridges: other brokers of which the broker is a client, and the topics that go to them and come from them.

pub mod changes;
mod check;
mod connections;
mod overlap;
mod profile;
mod queue;
mod server;
mod tcp;
pub mod template;
#[cfg(all(test, feature = "bridge"))]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::listener::TlsVersion;
use super::number::between;
use crate::wire;
pub(super) use check::check;
pub use profile::{Accepts, Profile, end_of_token};
pub use queue::{BridgePolicy, BridgeQueue, Qos0};
pub use server::{Server, Way};
pub use tcp::BridgeTcp;

/// One bridge: a connection to another broker.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// Name, by which the log and the session of the bridge are known; unique.
    pub name: String,
    /// Addresses of the other broker, tried in this order.
    pub servers: Vec<Server>,
    /// Which of the servers is preferred.
    #[serde(default)]
    pub prefer: Prefer,
    /// Kind of the other broker.
    #[serde(default)]
    pub profile: Profile,
    /// Topic at both brokers that says whether the bridge is connected, with the profile `mosquitto`; empty for that of
    /// Mosquitto.
    #[serde(default)]
    pub notification_topic: String,
    /// Protocol version.
    #[serde(default)]
    pub version: Version,
    /// Client Identifier at the other broker; empty for that of [`Bridge::client_identifier`].
    #[serde(default)]
    pub client_identifier: String,
    /// User Name at the other broker; empty for none.
    #[serde(default)]
    pub username: String,
    /// Password at the other broker; empty for none, or for that of a file.
    #[serde(default)]
    pub password: String,
    /// File with the Password, read for each connection; empty for none.
    #[serde(default)]
    pub password_file: PathBuf,
    /// Whether each connection begins a new session at the other broker.
    #[serde(default)]
    pub clean_start: bool,
    /// Seconds that the other broker is asked to keep the session without a connection (MQTT 5.0).
    #[serde(default = "session_expiry_s", deserialize_with = "between::<_, _, 0, 4_294_967_295>")]
    pub session_expiry_s: u32,
    /// Keep Alive in seconds.
    #[serde(default = "keep_alive_s", deserialize_with = "between::<_, _, 5, 65_535>")]
    pub keep_alive_s: u16,
    /// Seconds without an acknowledgement, although messages wait for one, after which the connection is made anew.
    #[serde(default = "stalled_s", deserialize_with = "between::<_, _, 1, 86_400>")]
    pub stalled_s: u32,
    /// Address of this machine that connections are made from; empty for the one that the system chooses.
    #[serde(default)]
    pub bind: String,
    /// Whether CONNECT says before MQTT 5.0 that the client is a bridge, with bit 7 of the Protocol Version.
    #[serde(default = "has_bridge_bit")]
    pub bridge_bit: bool,
    /// What happens to messages that the other broker sends back.
    #[serde(default)]
    pub echo: Echo,
    /// Bytes of a packet to the other broker at most; 0 for those that it accepts.
    #[serde(default, deserialize_with = "between::<_, _, 0, 268_435_460>")]
    pub packet_bytes_max: u32,
    /// Receive Maximum, which the other broker is told in MQTT 5.0; 0 for that of clients.
    #[serde(default, deserialize_with = "between::<_, _, 0, 65_535>")]
    pub receive_maximum: u16,
    /// Topic Aliases that the other broker may use, which it is told in MQTT 5.0.
    #[serde(default, deserialize_with = "between::<_, _, 0, 65_535>")]
    pub topic_alias_maximum: u16,
    /// Whether each connection to a session that the other broker has kept unsubscribes there from what goes out.
    #[serde(default)]
    pub unsubscribe_out: bool,
    /// When a reload changes what needs another connection.
    #[serde(default)]
    pub reload: ReloadMode,
    /// When the bridge connects.
    #[serde(default)]
    pub start: StartMode,
    /// Messages that wait before a bridge with [`StartMode::Lazy`] connects.
    #[serde(default = "lazy_messages", deserialize_with = "between::<_, _, 1, 4_294_967_295>")]
    pub lazy_messages: u32,
    /// Seconds without a message after which such a bridge disconnects.
    #[serde(default = "idle_s", deserialize_with = "between::<_, _, 1, 86_400>")]
    pub idle_s: u32,
    /// Connections to the other broker.
    #[serde(default = "connections", deserialize_with = "between::<_, _, 1, 16>")]
    pub connections: u16,
    /// Name of the shared subscriptions at the other broker; empty for subscriptions that are not shared.
    #[serde(default)]
    pub share: String,
    /// User by whose rules messages come in and go out; empty for none.
    #[serde(default)]
    pub user: String,
    /// Client Identifier under which rules look at the bridge; empty for that of its session.
    #[serde(default)]
    pub local_client_identifier: String,
    /// Which retained messages go to the other broker.
    #[serde(default)]
    pub retained: Retained,
    /// Brokers that a message may have passed at most.
    #[serde(default = "hops_max", deserialize_with = "between::<_, _, 1, 64>")]
    pub hops_max: u8,
    /// Options of TLS; none: the defaults for servers with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BridgeTls>,
    /// Bounds of the queue.
    #[serde(default)]
    pub queue: BridgeQueue,
    /// When a connection is made again.
    #[serde(default)]
    pub reconnect: Reconnect,
    /// Options of TCP.
    #[serde(default)]
    pub tcp: BridgeTcp,
    /// Messages that go to the other broker.
    #[serde(default, rename = "out")]
    pub outgoing: Vec<OutRule>,
    /// Messages that come from the other broker.
    #[serde(default, rename = "in")]
    pub incoming: Vec<InRule>,
}

fn session_expiry_s() -> u32 {
    604_800
}

fn keep_alive_s() -> u16 {
    60
}

fn stalled_s() -> u32 {
    60
}

fn lazy_messages() -> u32 {
    1
}

fn idle_s() -> u32 {
    60
}

fn connections() -> u16 {
    1
}

fn hops_max() -> u8 {
    8
}

fn has_bridge_bit() -> bool {
    true
}

/// The highest QoS that there is.
fn any_qos() -> u8 {
    2
}

impl Bridge {
    /// The Client Identifier on a machine of this host name.
    pub fn client_identifier(&self, host: &str) -> String {
        match self.client_identifier.is_empty() {
            true => format!("ringmq-{host}-{}", self.name),
            false => self.client_identifier.clone(),
        }
    }

    /// Whether the connection uses TLS: all servers do, or none.
    pub fn has_tls(&self) -> bool {
        self.servers.iter().any(|server| server.has_tls)
    }
}

/// Which of its servers a bridge prefers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Prefer {
    /// The first one: each attempt begins with it, and a connection to another one ends when it is there again.
    #[default]
    First,
    /// None: an attempt begins with the server after that of the connection before.
    Any,
}

/// Protocol version of a bridge.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Version {
    /// MQTT 5.0, or 3.1.1 where the other broker refuses it.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// MQTT 5.0.
    #[serde(rename = "5", alias = "5.0")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 3.1.
    #[serde(rename = "3.1")]
    V31,
}

impl Version {
    /// The versions to try, one after the other.
    pub fn attempts(self) -> &'static [wire::Version] {
        match self {
            Self::Auto => &[wire::Version::V5, wire::Version::V311],
            Self::V5 => &[wire::Version::V5],
            Self::V311 => &[wire::Version::V311],
            Self::V31 => &[wire::Version::V31],
        }
    }
}

/// What happens to messages that the other broker sends back, where it does not know that it serves a bridge and
/// messages have no path: before MQTT 5.0, without the bit of bridges.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Echo {
    /// They are recognised and dropped, if topics overlap.
    #[default]
    Auto,
    /// They are messages like others.
    Off,
}

/// When a bridge connects.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum StartMode {
    /// With the broker, and again after each end.
    #[default]
    Always,
    /// When an operator starts it.
    Manual,
    /// When messages wait, until there is no traffic.
    Lazy,
    /// With the broker; after the end of the connection, or an attempt without success, when an operator starts it.
    Once,
}

/// When a reload changes what needs another connection.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ReloadMode {
    /// At once: the connection ends for it.
    #[default]
    Immediate,
    /// When the connection ends by itself.
    Lazy,
}

/// Which retained messages go to the other broker.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Retained {
    /// All when the other broker has no session of the bridge; then those that are published.
    #[default]
    Initial,
    /// All at each connection; then those that are published.
    Always,
    /// Those that are published.
    Live,
    /// Those that are published, without the flag RETAIN.
    Clear,
}

/// TLS of a bridge.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeTls {
    /// Certificate authorities of the other broker.
    pub ca: Authorities,
    /// PEM file with the client certificate and intermediate certificates; empty for none.
    pub certificate: PathBuf,
    /// PEM file with the key of the certificate; empty for none.
    pub key: PathBuf,
    /// Protocols offered by ALPN (RFC 7301); empty for none.
    pub alpn: Vec<String>,
    /// Name for SNI, and in the certificate of the other broker; empty for the host of the server.
    pub server_name: String,
    /// Whether the certificate has to have that name.
    pub verify_name: bool,
    /// Versions of TLS.
    pub versions: Vec<TlsVersion>,
}

impl Default for BridgeTls {
    fn default() -> Self {
        Self {
            ca: Authorities::System,
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            alpn: Vec::new(),
            server_name: String::new(),
            verify_name: true,
            versions: vec![TlsVersion::V1_2, TlsVersion::V1_3],
        }
    }
}

/// Certificate authorities of the other broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authorities {
    /// Those of this machine.
    #[default]
    System,
    /// Those in a PEM file, or in the files `*.pem` and `*.crt` of a folder.
    File(PathBuf),
}

impl<'de> Deserialize<'de> for Authorities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "" => Err(de::Error::custom("expected \"system\" or a PEM file")),
            "system" => Ok(Self::System),
            _ => Ok(Self::File(text.into())),
        }
    }
}

impl Serialize for Authorities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::System => serializer.serialize_str("system"),
            Self::File(file) => file.serialize(serializer),
        }
    }
}

/// When a connection is made again.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Reconnect {
    /// Milliseconds before the first attempt.
    #[serde(deserialize_with = "between::<_, _, 10, 60_000>")]
    pub first_ms: u32,
    /// Seconds before an attempt at most.
    #[serde(deserialize_with = "between::<_, _, 1, 86_400>")]
    pub most_s: u32,
    /// Seconds after which a connection counts as stable, so that the next attempt is a first one.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub stable_s: u32,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { first_ms: 500, most_s: 60, stable_s: 30 }
    }
}

/// Messages of this broker that go to the other one.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct OutRule {
    /// Topic Filter of topics at this broker.
    pub filter: String,
    /// Highest QoS with which they go.
    #[serde(default = "any_qos", deserialize_with = "between::<_, _, 0, 2>")]
    pub qos_max: u8,
    /// Beginning that is taken off the topic.
    #[serde(default)]
    pub local_prefix: String,
    /// Beginning that is put before the topic at the other broker.
    #[serde(default)]
    pub remote_prefix: String,
    /// Topic at the other broker, with places for the wildcards of the filter; empty: by the prefixes.
    #[serde(default)]
    pub to: String,
}

/// Messages of the other broker that come to this one.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct InRule {
    /// Topic Filter of topics at the other broker.
    pub filter: String,
    /// QoS of the subscription there.
    #[serde(default = "any_qos", deserialize_with = "between::<_, _, 0, 2>")]
    pub qos: u8,
    /// Beginning that is put before the topic at this broker.
    #[serde(default)]
    pub local_prefix: String,
    /// Beginning that is taken off the topic of the other broker.
    #[serde(default)]
    pub remote_prefix: String,
    /// Topic at this broker, with places for the wildcards of the filter; empty: by the prefixes.
    #[serde(default)]
    pub to: String,
}

/// Name of the User Property with the brokers that a message has passed over bridges.
pub const PATH_PROPERTY: &str = "ringmq-path";

/// Whether topics that begin so are those of a broker about itself, `$SYS` and `$CONTROL`, which no bridge carries.
pub fn is_of_broker(topic: &str) -> bool {
    topic.starts_with('$') && matches!(topic.split('/').next(), Some("$SYS" | "$CONTROL"))
}
