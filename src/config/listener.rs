//! Listeners: address, transport and options of each.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::address::Addresses;
use super::mqtt::check_assigned_prefix;
use super::number::between;
use super::proxy::Proxy;
pub use super::unix_socket::UnixSocket;
pub use super::websocket::WebSocket;
use crate::wire::Version;

/// One listener.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address or path to listen on.
    pub bind: Bind,
    /// Network interface whose connections are accepted (`SO_BINDTODEVICE`, Linux); none: all.
    #[serde(default)]
    pub interface: Option<String>,
    /// Transport.
    #[serde(default)]
    pub transport: Transport,
    /// Concurrent connections of this listener; 0 for no limit of its own.
    #[serde(default, deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_max: u32,
    /// Whether anonymous clients are admitted; none: `access.anonymous` decides.
    #[serde(default)]
    pub anonymous: Option<bool>,
    /// File of the users of this listener and their passwords, instead of those of `access`; empty for none.
    #[serde(default)]
    pub password_file: PathBuf,
    /// File of the access rules for clients of this listener, instead of those of `access`; empty for none.
    #[serde(default)]
    pub acl_file: PathBuf,
    /// Accepted protocol versions; empty for all.
    #[serde(default)]
    pub versions: Vec<ProtocolVersion>,
    /// Highest QoS of clients of this listener, where it is lower than that of `mqtt`.
    #[serde(default = "any_qos", deserialize_with = "between::<_, _, 0, 2>")]
    pub maximum_qos: u8,
    /// How Client Identifiers begin that are assigned to clients of this listener; none: as `mqtt` says.
    #[serde(default)]
    pub assigned_identifier_prefix: Option<String>,
    /// Whether the User Name takes the place of the Client Identifier.
    #[serde(default)]
    pub username_as_client_identifier: bool,
    /// How all topics and Topic Filters of clients of this listener begin, without their knowing; none: nothing is put
    /// before them.
    #[serde(default)]
    pub mount_point: Option<String>,
    /// Trusted proxies, whose connections begin with a PROXY header that has the client's address.
    #[serde(default)]
    pub proxy_protocol_from: Vec<Proxy>,
    /// User name from the certificate that the proxy describes in its header.
    #[serde(default)]
    pub proxy_protocol_identity: ProxiedIdentity,
    /// Whether a proxy has to say in its header that the client uses TLS.
    #[serde(default)]
    pub proxy_protocol_requires_tls: bool,
    /// Options of TLS.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: Tls,
    /// Options of WebSocket.
    #[serde(default, skip_serializing_if = "is_default")]
    pub websocket: WebSocket,
    /// Permissions of a Unix socket.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unix: UnixSocket,
}

/// The highest QoS that there is.
fn any_qos() -> u8 {
    2
}

/// Bytes of the name of a network interface at most (`IFNAMSIZ` of Linux, without the end).
const INTERFACE_BYTES_MAX: usize = 15;

/// Bytes of a mount point at most: it is a part of each topic.
const MOUNT_POINT_BYTES_MAX: usize = 1_024;

/// Checks a mount point, the beginning of topics of a listener's clients: topics have to be valid behind it.
pub fn check_mount_point(mount_point: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("mount_point {mount_point:?}: {what}"));
    match mount_point {
        "" => wrong("is empty; remove it, or name the beginning of topics, such as \"site7/\""),
        long if long.len() > MOUNT_POINT_BYTES_MAX => wrong("needs 1,024 bytes at most"),
        of if of.contains(['+', '#']) => wrong("has a wildcard; topics have none"),
        of if of.contains('\0') => wrong("has the character U+0000; topics cannot have it"),
        of if of.starts_with('$') => wrong("begins with $; these topics are the broker's"),
        _ => Ok(()),
    }
}

/// A table that the transport of a listener may not use is not written.
fn is_default<T: Default + PartialEq>(table: &T) -> bool {
    *table == T::default()
}

impl Listener {
    /// A listener for MQTT over TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            bind: Bind::Address(address),
            interface: None,
            transport: Transport::Tcp,
            connections_max: 0,
            anonymous: None,
            password_file: PathBuf::new(),
            acl_file: PathBuf::new(),
            versions: Vec::new(),
            maximum_qos: any_qos(),
            assigned_identifier_prefix: None,
            username_as_client_identifier: false,
            mount_point: None,
            proxy_protocol_from: Vec::new(),
            proxy_protocol_identity: ProxiedIdentity::None,
            proxy_protocol_requires_tls: false,
            tls: Tls::default(),
            websocket: WebSocket::default(),
            unix: UnixSocket::default(),
        }
    }

    /// Whether the listener has users of its own, in a password file.
    pub fn has_password_file(&self) -> bool {
        !self.password_file.as_os_str().is_empty()
    }

    /// Whether the listener has access rules of its own.
    pub fn has_acl_file(&self) -> bool {
        !self.acl_file.as_os_str().is_empty()
    }

    /// Whether clients of a protocol version are accepted.
    pub fn accepts(&self, version: Version) -> bool {
        let is_of = |accepted: &ProtocolVersion| match accepted {
            ProtocolVersion::V3_1 => version == Version::V31,
            ProtocolVersion::V3_1_1 => version == Version::V311,
            ProtocolVersion::V5_0 => version == Version::V5,
        };
        self.versions.is_empty() || self.versions.iter().any(is_of)
    }

    /// Checks conditions that involve several keys.
    pub(super) fn check(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("[[listeners]] bind = \"{}\": {what}", self.bind));
        match (&self.bind, self.transport) {
            (Bind::Path(_), Transport::Tcp) => {
                return wrong("a path is for transport \"unix\", or for \"ws\" behind a proxy");
            }
            (Bind::Address(_), Transport::Unix) => {
                return wrong(
                    "transport \"unix\" needs a path, such as bind = \"unix:/run/name.sock\"",
                );
            }
            (Bind::Address(_), _) if self.unix != UnixSocket::default() => {
                return wrong("[listeners.unix] is present, but bind is not a path");
            }
            (Bind::Path(_), _) if !cfg!(unix) => {
                return wrong("Unix sockets are not supported on this system; name an address");
            }
            (_, Transport::Tls | Transport::Wss) if !cfg!(feature = "tls") => {
                return wrong("this broker was built without TLS; build it with --features tls");
            }
            (_, Transport::Ws | Transport::Wss) if !cfg!(feature = "websocket") => {
                return wrong(
                    "this broker was built without WebSocket; build it with --features websocket",
                );
            }
            _ => {}
        }
        self.interface.as_deref().map_or(Ok(()), |of| self.check_interface(of)).or_else(wrong)?;
        let prefix = self.assigned_identifier_prefix.as_deref();
        prefix.map_or(Ok(()), check_assigned_prefix).or_else(|what| wrong(&what))?;
        self.mount_point
            .as_deref()
            .map_or(Ok(()), check_mount_point)
            .or_else(|what| wrong(&what))?;
        self.check_proxies().or_else(wrong)?;
        if !self.transport.has_tls() {
            return match self.tls == Tls::default() {
                true => self.check_websocket(),
                false => {
                    wrong("[listeners.tls] is present, but the transport is neither tls nor wss")
                }
            };
        }
        self.tls.check().or_else(wrong)?;
        self.check_websocket()
    }

    fn check_interface(&self, interface: &str) -> Result<(), &'static str> {
        let is_name = (1..=INTERFACE_BYTES_MAX).contains(&interface.len())
            && !interface.contains(|of: char| of == '/' || of == '\0' || of.is_whitespace());
        match (&self.bind, is_name) {
            (Bind::Path(_), _) => Err("interface is for addresses, and bind is a path"),
            (_, false) => Err(
                "interface is the name of a network interface, such as \"eth0\", up to 15 bytes",
            ),
            (_, true) if !cfg!(target_os = "linux") => Err(
                "interface is not supported on this system; bind to an address of the interface",
            ),
            (_, true) => Ok(()),
        }
    }

    fn check_proxies(&self) -> Result<(), &'static str> {
        let has_path = matches!(self.bind, Bind::Path(_));
        let fits = |proxy: &Proxy| has_path == (*proxy == Proxy::Unix);
        if !self.proxy_protocol_from.iter().all(fits) {
            return Err(match has_path {
                true => {
                    "connections through a Unix socket have no address: use proxy_protocol_from = \
                         [\"unix\"] if all of them come from a proxy"
                }
                false => {
                    "proxy_protocol_from \"unix\" is for unix:/path; name networks or addresses"
                }
            });
        }
        let has_identity = self.proxy_protocol_identity != ProxiedIdentity::None;
        let (asks, has_proxies) = (
            has_identity || self.proxy_protocol_requires_tls,
            !self.proxy_protocol_from.is_empty(),
        );
        match self.transport.has_tls() {
            _ if !asks => Ok(()),
            _ if !has_proxies && has_identity => {
                Err("proxy_protocol_identity needs a trusted proxy; name the proxies in \
                     proxy_protocol_from")
            }
            _ if !has_proxies => {
                Err("proxy_protocol_requires_tls needs a trusted proxy; name the proxies in \
                     proxy_protocol_from")
            }
            true if has_identity => {
                Err("proxy_protocol_identity is for proxies that terminate TLS, but this listener \
                     terminates TLS itself; use tls.identity")
            }
            true => Err(
                "proxy_protocol_requires_tls is for proxies that terminate TLS, but this listener \
                         terminates TLS itself: each of its clients uses TLS",
            ),
            false => Ok(()),
        }
    }

    /// Checks that the listener uses a table of this name.
    pub(super) fn check_table(&self, name: &str) -> Result<(), String> {
        let (is_used, why) = match name {
            "tls" => (self.transport.has_tls(), "the transport is neither tls nor wss"),
            "websocket" => (self.transport.has_websocket(), "the transport is neither ws nor wss"),
            _ => (matches!(self.bind, Bind::Path(_)), "bind is not a path"),
        };
        is_used.then_some(()).ok_or_else(|| {
            format!(
                "[[listeners]] bind = \"{}\": [listeners.{name}] is present, but {why}",
                self.bind
            )
        })
    }

    fn check_websocket(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("[[listeners]] bind = \"{}\": {what}", self.bind));
        if !self.transport.has_websocket() && self.websocket != WebSocket::default() {
            return wrong(
                "[listeners.websocket] is present, but the transport is neither ws nor wss",
            );
        }
        if !self.websocket.forwarded_for_from.is_empty() && !self.proxy_protocol_from.is_empty() {
            return wrong(
                "websocket.forwarded_for_from and proxy_protocol_from both give the address of a client; \
                 use one of them",
            );
        }
        let is_address = matches!(self.bind, Bind::Address(_));
        if is_address && self.websocket.forwarded_for_from.contains(&Proxy::Unix) {
            return wrong("websocket.forwarded_for_from: \"unix\" is for a listener at a path");
        }
        self.websocket.check().or_else(|what| wrong(&what))
    }
}

/// Address or path of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// An address and a port.
    Address(SocketAddr),
    /// Path of a Unix socket.
    Path(PathBuf),
}

impl Bind {
    /// Whether the system chooses the port.
    pub fn is_any_port(&self) -> bool {
        matches!(self, Self::Address(address) if address.port() == 0)
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Path(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::str::FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() {
                true => Err("unix: needs a path, such as unix:/run/ringmq.sock".to_owned()),
                false => Ok(Self::Path(path.into())),
            };
        }
        // Further addresses become listeners of their own.
        text.parse::<Addresses>().map(|addresses| Self::Address(addresses.0[0]))
    }
}

impl<'de> Deserialize<'de> for Bind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Bind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Transport of a listener.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// MQTT over TCP.
    #[default]
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT in WebSocket frames.
    Ws,
    /// MQTT in WebSocket frames over TLS.
    Wss,
    /// MQTT over a Unix socket.
    Unix,
}

impl Transport {
    /// All transports, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Tls, Self::Ws, Self::Wss, Self::Unix];

    /// Name in the configuration and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
        }
    }

    /// Whether connections use TLS.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Whether connections use WebSocket.
    pub fn has_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// Highest number of plaintext bytes in a TLS record (RFC 8446, 5.1).
const RECORD_BYTES_MAX: u16 = 16_384;

/// Highest number of ALPN protocols of a listener.
const ALPN_MAX: usize = 16;

/// TLS of a listener.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the server certificate and intermediate certificates.
    pub certificate: PathBuf,
    /// PEM file with the key of the certificate.
    pub key: PathBuf,
    /// Further certificates, chosen by SNI according to the names in them.
    pub names: Vec<CertificateFiles>,
    /// Protocol versions.
    pub versions: Vec<TlsVersion>,
    /// Protocols accepted by ALPN (RFC 7301); an empty list accepts any. By default `mqtt`, or `http/1.1` for
    /// WebSocket.
    pub alpn: Option<Vec<String>>,
    /// Whether clients need a certificate.
    pub client_certificate: ClientCertificate,
    /// PEM file with the certificate authorities of clients.
    pub client_ca: PathBuf,
    /// PEM files with certificate revocation lists of these authorities.
    pub client_crl: Vec<PathBuf>,
    /// Use of revocation lists that are past their `nextUpdate`.
    pub client_crl_expired: ExpiredList,
    /// User name from the client certificate.
    pub identity: IdentityFrom,
    /// Plaintext bytes of a TLS record that is sent: for devices whose buffers are too small for records of
    /// 16 KiB.
    #[serde(deserialize_with = "between::<_, _, 512, 16_384>")]
    pub record_bytes_max: u16,
    /// Whether kernel TLS is used after CONNECT.
    pub kernel: KernelTls,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            names: Vec::new(),
            versions: vec![TlsVersion::V1_2, TlsVersion::V1_3],
            alpn: None,
            client_certificate: ClientCertificate::None,
            client_ca: PathBuf::new(),
            client_crl: Vec::new(),
            client_crl_expired: ExpiredList::Accept,
            identity: IdentityFrom::None,
            record_bytes_max: RECORD_BYTES_MAX,
            kernel: KernelTls::Off,
        }
    }
}

impl Tls {
    fn check(&self) -> Result<(), &'static str> {
        let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
        if is_empty(&self.certificate) || is_empty(&self.key) {
            return Err("TLS needs certificate and key in [listeners.tls], both PEM files");
        }
        if self.versions.is_empty() {
            return Err("tls.versions is empty; name \"1.2\", \"1.3\" or both");
        }
        if self.record_bytes_max < RECORD_BYTES_MAX && self.kernel == KernelTls::Auto {
            return Err("tls.record_bytes_max does not apply to kernel TLS: remove tls.kernel or \
                        record_bytes_max");
        }
        let names = self.alpn.as_deref().unwrap_or_default();
        if names.len() > ALPN_MAX || names.iter().any(|name| !(1..=255).contains(&name.len())) {
            return Err("tls.alpn accepts up to 16 names of 1 to 255 bytes each, such as \"mqtt\"");
        }
        let asks = self.client_certificate != ClientCertificate::None;
        if asks && is_empty(&self.client_ca) {
            return Err(
                "tls.client_certificate needs certificate authorities; name their PEM file in \
                        tls.client_ca",
            );
        }
        let is_told = !is_empty(&self.client_ca)
            || !self.client_crl.is_empty()
            || self.identity != IdentityFrom::None;
        if self.client_crl.is_empty() && self.client_crl_expired != ExpiredList::Accept {
            return Err("tls.client_crl_expired needs revocation lists; name their PEM files in \
                        tls.client_crl");
        }
        if !asks && is_told {
            return Err("tls.client_ca, client_crl and identity have no effect while \
                        tls.client_certificate is \"none\"; use \"optional\" or \"required\"");
        }
        Ok(())
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file with the certificate and intermediate certificates.
    pub certificate: PathBuf,
    /// PEM file with the key of the certificate.
    pub key: PathBuf,
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum ProtocolVersion {
    /// MQTT 3.1.
    #[serde(rename = "3.1")]
    V3_1,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V3_1_1,
    /// MQTT 5.0.
    #[serde(rename = "5.0")]
    V5_0,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// Certificates are not requested.
    #[default]
    None,
    /// A certificate is optional; an invalid one is refused.
    Optional,
    /// A valid certificate is required.
    Required,
}

/// Use of revocation lists that are past their `nextUpdate`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ExpiredList {
    /// The list is still used: clients that it does not name are admitted.
    #[default]
    Accept,
    /// All certificates of its authority are refused.
    Refuse,
}

/// Whether kernel TLS is used.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum KernelTls {
    /// TLS in the broker.
    #[default]
    Off,
    /// Kernel TLS if the kernel supports it.
    Auto,
}

/// User name from a certificate that a proxy describes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ProxiedIdentity {
    /// None.
    #[default]
    None,
    /// The Common Name, if the proxy has verified the certificate.
    Cn,
}

/// User name from a client certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityFrom {
    /// None.
    #[default]
    None,
    /// The Common Name of the subject.
    Cn,
    /// The whole subject, as in RFC 2253.
    Subject,
    /// The first Subject Alternative Name of any type.
    San,
    /// The first Subject Alternative Name that is a host name.
    SanDns,
    /// The first Subject Alternative Name that is an email address.
    SanEmail,
    /// The first Subject Alternative Name that is a URI.
    SanUri,
}
