//! TLS as a client, with rustls' unbuffered API: records are decrypted in memory that all clients
//! share, and only incomplete records are stored.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use mio::net::TcpStream;
use rustls::{
    ClientConfig, NamedGroup, RootCertStore,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        UnbufferedClientConnection,
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus},
    version,
};
use serde::{Deserialize, Serialize};

use super::wrong;
use crate::error::{Error, Result};

/// Maximum plaintext of a record (RFC 8446, 5.1).
const FRAGMENT_BYTES_MAX: usize = 16 * 1024;
/// Maximum overhead of encryption per record: header, nonce, content type, tag; a key update before
/// it.
const RECORD_EXTRA_BYTES: usize = 128;

/// TLS settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// PEM file of the authority that issued the broker's certificate.
    pub authority: PathBuf,
    /// The expected name in the broker's certificate.
    pub server_name: String,
    /// The only version, or the highest that both support.
    pub version: Option<TlsVersion>,
    /// Whether clients resume sessions with tickets.
    pub resumes: bool,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum TlsVersion {
    /// RFC 5246.
    #[value(name = "1.2")]
    V1_2,
    /// RFC 8446.
    #[value(name = "1.3")]
    V1_3,
}

/// The shared configuration of the clients of a process.
pub struct Client {
    config: Arc<ClientConfig>,
    tickets: Arc<Tickets>,
    server_name: ServerName<'static>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Client {
    /// Reads the authority. `protocol` is offered by ALPN.
    pub fn new(settings: &TlsSettings, protocol: &str) -> Result<Self> {
        let name = settings.server_name.clone();
        let server_name = ServerName::try_from(name).map_err(|error| {
            let name = &settings.server_name;
            Error::Usage(format!("--tls-name {name} is not a host name: {error}"))
        })?;
        let versions: &[_] = match settings.version {
            None => &[&version::TLS13, &version::TLS12],
            Some(TlsVersion::V1_2) => &[&version::TLS12],
            Some(TlsVersion::V1_3) => &[&version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("the provider has ciphers for both");
        let roots = read_authority(&settings.authority)?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        let tickets = Arc::new(Tickets::default());
        config.resumption = match settings.resumes {
            true => Resumption::store(Arc::clone(&tickets) as Arc<dyn ClientSessionStore>),
            false => Resumption::disabled(),
        };
        Ok(Self { config: Arc::new(config), tickets, server_name })
    }

    /// The TLS layer for a new connection of client `client`.
    pub fn begin(&self, client: u32) -> io::Result<Tls> {
        let (config, name) = (Arc::clone(&self.config), self.server_name.clone());
        let tickets = Arc::clone(&self.tickets);
        tickets.look_after(client);
        let connection = UnbufferedClientConnection::new(config, name).map_err(failed)?;
        let kept = Vec::new();
        Ok(Tls { connection, client, tickets, kept, is_open: false, is_ended: false })
    }
}

fn read_authority(path: &Path) -> Result<RootCertStore> {
    let wrong = |what: String| Error::Usage(format!("--ca {}: {what}", path.display()));
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| wrong(format!("invalid PEM: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(wrong(
            "the file has no certificate; PEM has lines like -----BEGIN CERTIFICATE-----".into(),
        )),
        false => Ok(roots),
    }
}

/// TLS of one connection.
pub struct Tls {
    connection: UnbufferedClientConnection,
    client: u32,
    tickets: Arc<Tickets>,
    /// An incomplete record. rustls stores offsets into it, so it is passed in every call.
    kept: Vec<u8>,
    is_open: bool,
    is_ended: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("is_open", &self.is_open).finish_non_exhaustive()
    }
}

impl Tls {
    /// Starts the handshake.
    pub fn begin(&mut self, unsent: &mut Vec<u8>) -> io::Result<()> {
        self.open(&mut [], &mut [], unsent).map(|_| ())
    }

    /// Whether the handshake is complete.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the input has ended.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Reads available data, through `records`. Responses are added to `unsent`; returns the number
    /// of filled bytes of `buffer`, and whether there may be more to read.
    pub fn read(
        &mut self,
        socket: &mut TcpStream,
        records: &mut Vec<u8>,
        buffer: &mut [u8],
        unsent: &mut Vec<u8>,
    ) -> io::Result<(usize, bool)> {
        // At most as much as fits after decryption: records are longer than their content.
        let most = buffer.len();
        if records.len() < most {
            records.resize(most, 0);
        }
        let before = self.kept.len();
        let count = socket.read(&mut records[before..most])?;
        if count == 0 {
            self.is_ended = true;
            return Ok((0, false));
        }
        records[..before].copy_from_slice(&self.kept);
        let end = before + count;
        let (used, filled) = self.open(&mut records[..end], buffer, unsent)?;
        self.kept.clear();
        self.kept.extend_from_slice(&records[used..end]);
        if self.kept.is_empty() {
            // Idle clients keep no buffer.
            self.kept = Vec::new();
        }
        Ok((filled, end == most))
    }

    /// Decrypts records; returns the number of bytes consumed, and the number of bytes of `plain`
    /// filled.
    fn open(
        &mut self,
        records: &mut [u8],
        plain: &mut [u8],
        unsent: &mut Vec<u8>,
    ) -> io::Result<(usize, usize)> {
        self.tickets.look_after(self.client);
        let (mut used, mut filled) = (0, 0);
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                self.connection.process_tls_records(&mut records[used..]);
            let is_done = match state {
                Err(error) => {
                    self.collect_alert(&mut records[used + discard..], unsent);
                    return Err(failed(error));
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(failed)?;
                        discard += record.discard;
                        let end = filled + record.payload.len();
                        plain[filled..end].copy_from_slice(record.payload);
                        filled = end;
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(|out| data.encode(out), unsent);
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    false
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.is_ended = true;
                    true
                }
                Ok(ConnectionState::WriteTraffic(_)) => {
                    self.is_open = true;
                    true
                }
                Ok(ConnectionState::BlockedHandshake) => true,
                Ok(state) => return Err(wrong(format!("TLS: unexpected {state:?}"))),
            };
            used += discard;
            if is_done {
                return Ok((used, filled));
            }
        }
    }

    /// After an error: the alert for the broker.
    fn collect_alert(&mut self, rest: &mut [u8], unsent: &mut Vec<u8>) {
        while self.connection.wants_write()
            && let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
                self.connection.process_tls_records(rest)
        {
            encode(|out| data.encode(out), unsent);
        }
    }

    /// Encrypts `plain` and appends it to `out`. The handshake must be complete.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let begin = out.len();
        let records = plain.len() / FRAGMENT_BYTES_MAX + 1;
        out.resize(begin + plain.len() + records * RECORD_EXTRA_BYTES, 0);
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.kept);
        match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let sealed = traffic.encrypt(plain, &mut out[begin..]);
                let bytes = sealed.map_err(|error| wrong(format!("TLS: {error}")))?;
                out.truncate(begin + bytes);
                Ok(())
            }
            Ok(state) => Err(wrong(format!("TLS: unexpected {state:?}"))),
            Err(error) => Err(failed(error)),
        }
    }
}

fn failed(error: rustls::Error) -> io::Error {
    match error {
        rustls::Error::InvalidCertificate(why) => wrong(format!(
            "the broker's certificate is refused: {why}; --ca is the expected issuer, \
             --tls-name the expected name"
        )),
        rustls::Error::AlertReceived(alert) => wrong(format!("the broker refused TLS: {alert:?}")),
        error => wrong(format!("TLS: {error}")),
    }
}

/// Appends the output of `encode`, which reports the required space.
fn encode(
    mut encode: impl FnMut(&mut [u8]) -> std::result::Result<usize, EncodeError>,
    out: &mut Vec<u8>,
) {
    let begin = out.len();
    let mut room = 512;
    loop {
        out.resize(begin + room, 0);
        match encode(&mut out[begin..]) {
            Ok(bytes) => return out.truncate(begin + bytes),
            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
            Err(EncodeError::AlreadyEncoded) => return out.truncate(begin),
        }
    }
}

/// The session tickets per client. rustls' own store is per server and not per client: a new client
/// would use the ticket of another.
#[derive(Default)]
struct Tickets {
    /// The client being processed. All clients are in one thread.
    client: AtomicU32,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    group: Option<NamedGroup>,
    tls12: HashMap<u32, Tls12ClientSessionValue>,
    tls13: HashMap<u32, Tls13ClientSessionValue>,
}

impl Tickets {
    fn client(&self) -> u32 {
        self.client.load(Ordering::Relaxed)
    }

    fn look_after(&self, client: u32) {
        self.client.store(client, Ordering::Relaxed);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("client", &self.client()).finish_non_exhaustive()
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().tls12.insert(self.client(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().tls12.get(&self.client()).cloned()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().tls12.remove(&self.client());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.kept().tls13.insert(self.client(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tls13.remove(&self.client())
    }
}
