//! TLS configuration of a listener: certificates, keys, certificate authorities and revocation lists, read at
//! start and again at a reload, which does not affect open connections.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{ServerConfig, SupportedProtocolVersion, version};

use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::config::listener::{self, ClientCertificate, ExpiredList, KernelTls, TlsVersion};
use crate::transport::Ciphers;
use crate::transport::tls::certificates::{Certificates, read_authorities, read_lists};
use crate::transport::tls::{RECORD_HEADER_BYTES, Tls};

/// Reads a file.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// TLS configuration of a listener.
#[derive(Debug)]
pub struct TlsConfig {
    settings: listener::Tls,
    /// Protocols accepted by ALPN; empty to accept any.
    protocols: Vec<Vec<u8>>,
    /// Ciphers that kernel TLS supports; empty if it is not used.
    ciphers: Ciphers,
    /// What was read from files. Locked once per handshake, to clone the `Arc`.
    loaded: RwLock<Loaded>,
}

/// What was read from the files of a listener.
#[derive(Debug)]
pub struct Loaded {
    /// Configuration of new connections.
    config: Arc<ServerConfig>,
    /// When the first of the certificates expires, in seconds since 1970.
    expire_s: Option<i64>,
}

impl TlsConfig {
    /// Reads the files of a listener. Errors name the file, the key of the configuration, and a remedy.
    pub fn open(listener: &listener::Listener, read: Read<'_>) -> Result<Self, String> {
        let protocols = protocols(listener);
        let settings = listener.tls.clone();
        let ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
        let loaded = RwLock::new(load(&settings, &protocols, ticketer, read)?);
        Ok(Self { settings, protocols, ciphers: Ciphers::default(), loaded })
    }

    /// Enables kernel TLS with these ciphers, if the listener is configured for it.
    pub fn with_kernel(self, ciphers: Ciphers) -> Self {
        match self.settings.kernel {
            KernelTls::Auto => Self { ciphers, ..self },
            KernelTls::Off => self,
        }
    }

    /// Reads the files again, for [`Self::put_in_force`].
    pub fn read_again(&self, read: Read<'_>) -> Result<Loaded, String> {
        let ticketer = match self.settings.client_certificate {
            // Tickets stay valid, so that clients can resume.
            ClientCertificate::None => Arc::clone(&self.config().ticketer),
            // A ticket represents a client certificate, which may have been revoked.
            _ => ring::Ticketer::new().map_err(|error| error.to_string())?,
        };
        load(&self.settings, &self.protocols, ticketer, read)
    }

    /// New connections use what was read from now on.
    pub fn put_in_force(&self, loaded: Loaded) {
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    /// When the first of the certificates expires, in seconds since 1970.
    pub fn certificates_expire_s(&self) -> Option<i64> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).expire_s
    }

    /// The configuration of new connections.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Starts TLS on a new connection.
    pub fn begin(&self) -> Option<Tls> {
        let tls = Tls::new(self.config(), &self.settings, self.ciphers);
        let begun = tls.inspect_err(|error| {
            rated!(error, log_rate::now(), %error, "cannot start TLS");
        });
        begun.ok()
    }
}

/// Protocol names of a listener for ALPN.
fn protocols(listener: &listener::Listener) -> Vec<Vec<u8>> {
    match &listener.tls.alpn {
        Some(names) => names.iter().map(|name| name.clone().into_bytes()).collect(),
        None if listener.transport.has_websocket() => vec![b"http/1.1".to_vec()],
        None => vec![b"mqtt".to_vec()],
    }
}

fn load(
    settings: &listener::Tls,
    protocols: &[Vec<u8>],
    ticketer: Arc<dyn ProducesTickets>,
    read: Read<'_>,
) -> Result<Loaded, String> {
    let provider = Arc::new(ring::default_provider());
    let certificates = Certificates::read(settings, &provider, read)?;
    let expire_s = certificates.expire_s();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(settings))
        .map_err(|error| format!("tls.versions: {error}"))?;
    let builder = match settings.client_certificate {
        ClientCertificate::None => builder.with_no_client_auth(),
        asked => {
            let roots = read_authorities(&settings.client_ca, read)?;
            let lists = read_lists(settings, read)?;
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            if !lists.is_empty() {
                // As in other servers: the lists are those of the authorities that issue client certificates.
                verifier = verifier.with_crls(lists).only_check_end_entity_revocation();
                if settings.client_crl_expired == ExpiredList::Refuse {
                    verifier = verifier.enforce_revocation_expiration();
                }
            }
            if asked == ClientCertificate::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|error| {
                format!("tls.client_ca {}: {error}", settings.client_ca.display())
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = protocols.to_vec();
    // Session tickets keep the state at the client: a cache here would grow with every client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A ticket would admit a client after its revocation list has expired.
    if settings.client_crl.is_empty() || settings.client_crl_expired == ExpiredList::Accept {
        config.ticketer = ticketer;
        config.send_tls13_tickets = 1;
    } else {
        config.send_tls13_tickets = 0;
    }
    // The library includes the record header.
    config.max_fragment_size = Some(usize::from(settings.record_bytes_max) + RECORD_HEADER_BYTES);
    // Required to extract the keys for kernel TLS.
    config.enable_secret_extraction = settings.kernel == KernelTls::Auto;
    Ok(Loaded { config: Arc::new(config), expire_s })
}

fn versions(settings: &listener::Tls) -> Vec<&'static SupportedProtocolVersion> {
    let known = [(TlsVersion::V1_2, &version::TLS12), (TlsVersion::V1_3, &version::TLS13)];
    let wanted = known.iter().filter(|(version, _)| settings.versions.contains(version));
    wanted.map(|(_, version)| *version).collect()
}
