//! What a listener needs to speak TLS: certificates, keys, authorities, revocation lists; read at start
//! and, without touching those who are in, again on SIGHUP.

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

/// What a listener needs to speak TLS.
#[derive(Debug)]
pub struct TlsConfig {
    settings: listener::Tls,
    /// What is spoken inside, as clients may ask for it by ALPN; none where it is not agreed on.
    protocols: Vec<Vec<u8>>,
    /// Those by which the kernel goes on with connections; none where it does not.
    ciphers: Ciphers,
    /// What newcomers get. It is locked for as long as it takes to count one more user of it, once a
    /// handshake.
    config: RwLock<Arc<ServerConfig>>,
}

impl TlsConfig {
    /// Reads everything a listener names. The error names file and key, and what to do.
    pub fn open(listener: &listener::Listener, read: Read<'_>) -> Result<Self, String> {
        let protocols = protocols(listener);
        let settings = listener.tls.clone();
        let ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
        let config = build(&settings, &protocols, ticketer, read)?;
        let (ciphers, config) = (Ciphers::default(), RwLock::new(Arc::new(config)));
        Ok(Self { settings, protocols, ciphers, config })
    }

    /// The same, where the kernel goes on with connections of these ciphers if the listener wants it to.
    pub fn with_kernel(self, ciphers: Ciphers) -> Self {
        match self.settings.kernel {
            KernelTls::Auto => Self { ciphers, ..self },
            KernelTls::Off => self,
        }
    }

    /// Reads everything anew. Whoever comes from now on gets that; where it is of no use, what was
    /// there before.
    pub fn reload(&self, read: Read<'_>) -> Result<(), String> {
        let ticketer = match self.settings.client_certificate {
            // Who resumes need not come with a new handshake.
            ClientCertificate::None => Arc::clone(&self.config().ticketer),
            // A ticket stands for a certificate, which may have been revoked.
            _ => ring::Ticketer::new().map_err(|error| error.to_string())?,
        };
        let config = Arc::new(build(&self.settings, &self.protocols, ticketer, read)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection that begins with a handshake.
    pub fn begin(&self) -> Option<Tls> {
        let tls = Tls::new(self.config(), &self.settings, self.ciphers);
        let begun = tls.inspect_err(|error| {
            rated!(error, log_rate::now(), %error, "cannot begin TLS");
        });
        begun.ok()
    }
}

/// The names of what is spoken at a listener, as ALPN has them.
fn protocols(listener: &listener::Listener) -> Vec<Vec<u8>> {
    match &listener.tls.alpn {
        Some(names) => names.iter().map(|name| name.clone().into_bytes()).collect(),
        None if listener.transport.has_websocket() => vec![b"http/1.1".to_vec()],
        None => vec![b"mqtt".to_vec()],
    }
}

fn build(
    settings: &listener::Tls,
    protocols: &[Vec<u8>],
    ticketer: Arc<dyn ProducesTickets>,
    read: Read<'_>,
) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let certificates = Certificates::read(settings, &provider, read)?;
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
                // As elsewhere: the lists are those of the authorities that issue to clients.
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
    // Clients keep what resumption takes: a table here would grow with every client that ever came.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A ticket would let a client in whose list is past its date by then.
    if settings.client_crl.is_empty() || settings.client_crl_expired == ExpiredList::Accept {
        config.ticketer = ticketer;
        config.send_tls13_tickets = 1;
    } else {
        config.send_tls13_tickets = 0;
    }
    // The library counts the record's header too.
    config.max_fragment_size = Some(usize::from(settings.record_bytes_max) + RECORD_HEADER_BYTES);
    // rustls gives keys away only if it was told before.
    config.enable_secret_extraction = settings.kernel == KernelTls::Auto;
    Ok(config)
}

fn versions(settings: &listener::Tls) -> Vec<&'static SupportedProtocolVersion> {
    let known = [(TlsVersion::V1_2, &version::TLS12), (TlsVersion::V1_3, &version::TLS13)];
    let wanted = known.iter().filter(|(version, _)| settings.versions.contains(version));
    wanted.map(|(_, version)| *version).collect()
}
