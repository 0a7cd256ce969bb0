//! Listeners: where clients come in, what is spoken there, and who may.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

use super::address::Addresses;
use super::number::between;
use super::proxy::Proxy;
pub use super::unix_socket::UnixSocket;
pub use super::websocket::WebSocket;

/// One way in.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Where it listens.
    pub bind: Bind,
    /// What is spoken there.
    #[serde(default)]
    pub transport: Transport,
    /// Connections through it at a time; 0 for no bound of its own.
    #[serde(default, deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub connections_max: u32,
    /// Whether clients may come without a User Name; as the access control says when this does not.
    #[serde(default)]
    pub anonymous: Option<bool>,
    /// Proxies whose word is taken for where a client comes from. What they connect begins with a
    /// PROXY header.
    #[serde(default)]
    pub proxy_protocol_from: Vec<Proxy>,
    /// What of a certificate that the proxy has seen, and says in its header, is taken for a client's name.
    #[serde(default)]
    pub proxy_protocol_identity: ProxiedIdentity,
    /// Certificates and what is asked of clients', where TLS is spoken.
    #[serde(default)]
    pub tls: Tls,
    /// What an HTTP request must look like, where WebSocket is spoken.
    #[serde(default)]
    pub websocket: WebSocket,
    /// Whom the socket is for, where it is in the file system.
    #[serde(default)]
    pub unix: UnixSocket,
}

impl Listener {
    /// Plain MQTT over TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            bind: Bind::Address(address),
            transport: Transport::Tcp,
            connections_max: 0,
            anonymous: None,
            proxy_protocol_from: Vec::new(),
            proxy_protocol_identity: ProxiedIdentity::None,
            tls: Tls::default(),
            websocket: WebSocket::default(),
            unix: UnixSocket::default(),
        }
    }

    /// What holds between its keys.
    pub(super) fn check(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("[[listeners]] bind = \"{}\": {what}", self.bind));
        match (&self.bind, self.transport) {
            (Bind::Path(_), Transport::Tcp) => {
                return wrong("a path is for transport \"unix\", or for \"ws\" behind a proxy");
            }
            (Bind::Address(_), Transport::Unix) => {
                return wrong(
                    "transport \"unix\" takes a path; say bind = \"unix:/run/name.sock\"",
                );
            }
            (Bind::Address(_), _) if self.unix != UnixSocket::default() => {
                return wrong("it has a [listeners.unix], but its bind is no path");
            }
            (Bind::Path(_), _) if !cfg!(unix) => {
                return wrong("this system's broker has no Unix sockets; name an address");
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
        self.check_proxies().or_else(wrong)?;
        if !self.transport.has_tls() {
            return match self.tls == Tls::default() {
                true => self.check_websocket(),
                false => {
                    wrong("it has a [listeners.tls], but its transport is neither tls nor wss")
                }
            };
        }
        self.tls.check().or_else(wrong)?;
        self.check_websocket()
    }

    fn check_proxies(&self) -> Result<(), &'static str> {
        let has_path = matches!(self.bind, Bind::Path(_));
        let fits = |proxy: &Proxy| has_path == (*proxy == Proxy::Unix);
        if !self.proxy_protocol_from.iter().all(fits) {
            return Err(match has_path {
                true => {
                    "connections through a socket have no address: say proxy_protocol_from = \
                         [\"unix\"] if all of them are a proxy's"
                }
                false => {
                    "proxy_protocol_from \"unix\" is for unix:/path; name networks or addresses"
                }
            });
        }
        if self.proxy_protocol_identity == ProxiedIdentity::None {
            return Ok(());
        }
        if self.proxy_protocol_from.is_empty() {
            return Err(
                "proxy_protocol_identity is what a proxy says of a certificate; name the proxies \
                        that are believed in proxy_protocol_from",
            );
        }
        match self.transport.has_tls() {
            true => Err(
                "proxy_protocol_identity is for proxies that end TLS, and here TLS ends in the \
                         broker; say tls.identity",
            ),
            false => Ok(()),
        }
    }

    /// Whether a table of that name is for this listener.
    pub(super) fn check_table(&self, name: &str) -> Result<(), String> {
        let (is_used, why) = match name {
            "tls" => (self.transport.has_tls(), "its transport is neither tls nor wss"),
            "websocket" => (self.transport.has_websocket(), "its transport is neither ws nor wss"),
            _ => (matches!(self.bind, Bind::Path(_)), "its bind is no path"),
        };
        is_used.then_some(()).ok_or_else(|| {
            format!(
                "[[listeners]] bind = \"{}\": it has a [listeners.{name}], but {why}",
                self.bind
            )
        })
    }

    fn check_websocket(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("[[listeners]] bind = \"{}\": {what}", self.bind));
        if !self.transport.has_websocket() && self.websocket != WebSocket::default() {
            return wrong(
                "it has a [listeners.websocket], but its transport is neither ws nor wss",
            );
        }
        if !self.websocket.forwarded_for_from.is_empty() && !self.proxy_protocol_from.is_empty() {
            return wrong(
                "websocket.forwarded_for_from and proxy_protocol_from both say where a client is; \
                 say one of them",
            );
        }
        let is_address = matches!(self.bind, Bind::Address(_));
        if is_address && self.websocket.forwarded_for_from.contains(&Proxy::Unix) {
            return wrong("websocket.forwarded_for_from: \"unix\" is for a listener at a path");
        }
        self.websocket.check().or_else(|what| wrong(&what))
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// An address and a port.
    Address(SocketAddr),
    /// A socket in the file system.
    Path(PathBuf),
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
                true => Err("unix: is followed by a path, as in unix:/run/ringmq.sock".to_owned()),
                false => Ok(Self::Path(path.into())),
            };
        }
        // The others, where there are some, are listeners of their own.
        text.parse::<Addresses>().map(|addresses| Self::Address(addresses.0[0]))
    }
}

impl<'de> Deserialize<'de> for Bind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
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
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Tls, Self::Ws, Self::Wss, Self::Unix];

    /// Its name in the configuration and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
        }
    }

    /// Whether a client has to begin with TLS.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Whether MQTT is in WebSocket frames.
    pub fn has_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// Bytes in a record of TLS at most (RFC 8446, 5.1).
const RECORD_BYTES_MAX: u16 = 16_384;

/// Protocols of a listener that clients may ask for by ALPN, at most.
const ALPN_MAX: usize = 16;

/// Certificates of a listener, and what is asked of clients'.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the server's certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
    /// Further certificates, each for the names that are in it, which clients ask for by SNI.
    pub names: Vec<CertificateFiles>,
    /// Protocol versions.
    pub versions: Vec<TlsVersion>,
    /// Protocols that clients may ask for by ALPN (RFC 7301); none to agree on none, so that whatever
    /// clients ask for is let in. By default `mqtt`, or `http/1.1` where WebSocket is spoken.
    pub alpn: Option<Vec<String>>,
    /// Whether clients have to show a certificate.
    pub client_certificate: ClientCertificate,
    /// PEM file with the authorities that client certificates are to come from.
    pub client_ca: PathBuf,
    /// PEM files with revocation lists of those authorities; none to look for none.
    pub client_crl: Vec<PathBuf>,
    /// What holds once one of these lists is past its date (`nextUpdate`).
    pub client_crl_expired: ExpiredList,
    /// What of a client's certificate is taken for its name.
    pub identity: IdentityFrom,
    /// Bytes of what is sent in one record at most, before they are sealed: for devices without room for
    /// records of 16 KiB.
    #[serde(deserialize_with = "between::<_, _, 512, 16_384>")]
    pub record_bytes_max: u16,
    /// Whether the kernel goes on with a connection once its client has been let in.
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
            return Err("TLS needs [listeners.tls] certificate and key, PEM files both");
        }
        if self.versions.is_empty() {
            return Err("tls.versions is empty; name \"1.2\", \"1.3\" or both");
        }
        if self.record_bytes_max < RECORD_BYTES_MAX && self.kernel == KernelTls::Auto {
            return Err(
                "tls.record_bytes_max is for records that the broker seals; the kernel makes \
                        its own: leave out tls.kernel, or record_bytes_max",
            );
        }
        let names = self.alpn.as_deref().unwrap_or_default();
        if names.len() > ALPN_MAX || names.iter().any(|name| !(1..=255).contains(&name.len())) {
            return Err("tls.alpn takes up to 16 names of 1 to 255 bytes each, as \"mqtt\"");
        }
        let asks = self.client_certificate != ClientCertificate::None;
        if asks && is_empty(&self.client_ca) {
            return Err("tls.client_certificate asks for certificates; name the PEM file of the \
                        authorities they are to come from in tls.client_ca");
        }
        let is_told = !is_empty(&self.client_ca)
            || !self.client_crl.is_empty()
            || self.identity != IdentityFrom::None;
        if self.client_crl.is_empty() && self.client_crl_expired != ExpiredList::Accept {
            return Err(
                "tls.client_crl_expired says what becomes of lists that are past their date; \
                        name some in tls.client_crl",
            );
        }
        if !asks && is_told {
            return Err("tls.client_ca, client_crl and identity mean nothing while \
                        tls.client_certificate is \"none\"; say \"optional\" or \"required\"");
        }
        Ok(())
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file with the certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// They are not asked for one.
    #[default]
    None,
    /// They may; one that is shown must be good.
    Optional,
    /// They must.
    Required,
}

/// What holds once a revocation list is past its date.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ExpiredList {
    /// What it says: clients that it does not name are let in.
    #[default]
    Accept,
    /// Nobody is let in whose certificate is of its authority.
    Refuse,
}

/// Whether TLS goes on in the kernel.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum KernelTls {
    /// It stays in the broker.
    #[default]
    Off,
    /// It does where the kernel can.
    Auto,
}

/// What a proxy says of a client's certificate that is taken for its name.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ProxiedIdentity {
    /// Nothing.
    #[default]
    None,
    /// The Common Name, where the proxy has verified the certificate.
    Cn,
}

/// What of a client's certificate is taken for its name.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityFrom {
    /// Nothing.
    #[default]
    None,
    /// The Common Name of its subject.
    Cn,
    /// The first Subject Alternative Name of whatever kind.
    San,
    /// The first of those that is a host name.
    SanDns,
    /// The first of those that is an electronic mail address.
    SanEmail,
    /// The first of those that is a URI.
    SanUri,
}
