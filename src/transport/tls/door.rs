//! What a listener needs to speak TLS: certificates, keys, authorities, revocation lists; read at start
//! and, without touching those who are in, again on SIGHUP.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Tls;
use crate::config::listener::{self, ClientCertificate, IdentityFrom, KernelTls, TlsVersion};
use crate::engine::{AlternativeName, CertificateIdentity};
use crate::log_rate::{self, rated};
use crate::transport::Ciphers;

/// Reads a file.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// What a listener needs to speak TLS.
#[derive(Debug)]
pub struct Door {
    settings: listener::Tls,
    /// What is spoken inside, as clients may ask for it by ALPN.
    protocol: &'static [u8],
    /// Those by which the kernel goes on with connections; none where it does not.
    ciphers: Ciphers,
    /// What newcomers get. It is locked for as long as it takes to count one more user of it, once a
    /// handshake.
    config: RwLock<Arc<ServerConfig>>,
}

impl Door {
    /// Reads everything a listener names. The error names file and key, and what to do.
    pub fn open(listener: &listener::Listener, read: Read<'_>) -> Result<Self, String> {
        let protocol: &[u8] = match listener.transport.has_websocket() {
            true => b"http/1.1",
            false => b"mqtt",
        };
        let settings = listener.tls.clone();
        let ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
        let config = build(&settings, protocol, ticketer, read)?;
        let (ciphers, config) = (Ciphers::default(), RwLock::new(Arc::new(config)));
        Ok(Self { settings, protocol, ciphers, config })
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
        let config = Arc::new(build(&self.settings, self.protocol, ticketer, read)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection that begins with a handshake.
    pub fn begin(&self) -> Option<Tls> {
        let tls = Tls::new(self.config(), self.settings.identity, self.ciphers);
        let begun = tls.inspect_err(|error| {
            rated!(error, log_rate::now(), %error, "cannot begin TLS");
        });
        begun.ok()
    }
}

fn build(
    settings: &listener::Tls,
    protocol: &[u8],
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
    config.alpn_protocols = vec![protocol.to_vec()];
    // Clients keep what resumption takes: a table here would grow with every client that ever came.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ticketer;
    config.send_tls13_tickets = 1;
    // rustls gives keys away only if it was told before.
    config.enable_secret_extraction = settings.kernel == KernelTls::Auto;
    Ok(config)
}

fn versions(settings: &listener::Tls) -> Vec<&'static SupportedProtocolVersion> {
    let known = [(TlsVersion::V1_2, &version::TLS12), (TlsVersion::V1_3, &version::TLS13)];
    let wanted = known.iter().filter(|(version, _)| settings.versions.contains(version));
    wanted.map(|(_, version)| *version).collect()
}

/// Says what is wrong with a file.
fn wrong(key: &str, file: &Path, what: impl std::fmt::Display) -> String {
    format!("tls.{key} {}: {what}", file.display())
}

fn read_pem<T: PemObject>(
    key: &str,
    file: &Path,
    read: Read<'_>,
    kind: &str,
) -> Result<Vec<T>, String> {
    let text = read(file).map_err(|error| {
        wrong(key, file, format!("{error}; name a PEM file that the broker's user may read"))
    })?;
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&text).collect();
    let items = items.map_err(|error| wrong(key, file, format!("is no good PEM: {error:?}")))?;
    match items.is_empty() {
        true => Err(wrong(
            key,
            file,
            format!("holds no {kind}; PEM is text with lines like -----BEGIN {kind}-----"),
        )),
        false => Ok(items),
    }
}

fn read_authorities(file: &Path, read: Read<'_>) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_pem("client_ca", file, read, "CERTIFICATE")? {
        roots.add(certificate).map_err(|error| wrong("client_ca", file, error))?;
    }
    Ok(Arc::new(roots))
}

fn read_lists(
    settings: &listener::Tls,
    read: Read<'_>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let each = settings.client_crl.iter().map(|f| read_pem("client_crl", f, read, "X509 CRL"));
    Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Certificates by the names that clients ask for.
#[derive(Debug)]
struct Certificates {
    default: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    fn read(
        settings: &listener::Tls,
        provider: &CryptoProvider,
        read: Read<'_>,
    ) -> Result<Self, String> {
        let default = read_key(&settings.certificate, &settings.key, provider, read)?;
        let mut by_name = HashMap::new();
        for files in &settings.names {
            let key = Arc::new(read_key(&files.certificate, &files.key, provider, read)?);
            let names = host_names(&key.cert[0]);
            if names.is_empty() {
                let what = "names no host in its Subject Alternative Names, so nobody asks for it";
                return Err(wrong("names certificate", &files.certificate, what));
            }
            by_name.extend(names.into_iter().map(|name| (name, Arc::clone(&key))));
        }
        Ok(Self { default: Arc::new(default), by_name })
    }

    /// The certificate for a host: one with its name, or with `*` for the first part of it.
    fn of(&self, host: &str) -> &Arc<CertifiedKey> {
        let host = host.to_ascii_lowercase();
        let found = self.by_name.get(&host).or_else(|| {
            let (_, domain) = host.split_once('.')?;
            self.by_name.get(&format!("*.{domain}"))
        });
        found.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = hello.server_name().map_or(&self.default, |host| self.of(host));
        Some(Arc::clone(key))
    }
}

fn read_key(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
    read: Read<'_>,
) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> =
        read_pem("certificate", certificate, read, "CERTIFICATE")?;
    let mut keys: Vec<PrivateKeyDer<'static>> = read_pem("key", key, read, "PRIVATE KEY")?;
    crate::secret_file::warn_if_open(key, "a private key of TLS");
    let first = keys.swap_remove(0);
    CertifiedKey::from_der(chain, first, provider).map_err(|error| {
        let what = format!("{error}; it must be the key of {}", certificate.display());
        wrong("key", key, what)
    })
}

fn host_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let names = alternative_names(certificate);
    let hosts = names.into_iter().filter_map(|name| match name {
        AlternativeName::Dns(host) => Some(host.to_ascii_lowercase()),
        _ => None,
    });
    hosts.collect()
}

fn alternative_names(certificate: &CertificateDer<'_>) -> Vec<AlternativeName> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| names.value.general_names.iter());
    let known = names.filter_map(|name| match name {
        GeneralName::DNSName(host) => Some(AlternativeName::Dns((*host).into())),
        GeneralName::RFC822Name(address) => Some(AlternativeName::Email((*address).into())),
        GeneralName::URI(uri) => Some(AlternativeName::Uri((*uri).into())),
        _ => None,
    });
    known.collect()
}

/// Whom a verified certificate names; none when it cannot be read, which the verifier could.
pub(super) fn identity_of(
    certificate: &CertificateDer<'_>,
    from: IdentityFrom,
) -> Option<CertificateIdentity> {
    let alternative_names = alternative_names(certificate);
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let common_name = certificate.subject().iter_common_name().next();
    let common_name = common_name.and_then(|name| name.as_str().ok()).map(Box::<str>::from);
    let first = |is_wanted: fn(&AlternativeName) -> bool| {
        let name = alternative_names.iter().find(|name| is_wanted(name))?;
        let (AlternativeName::Dns(name)
        | AlternativeName::Email(name)
        | AlternativeName::Uri(name)) = name;
        Some(name.clone())
    };
    let name = match from {
        IdentityFrom::None => None,
        IdentityFrom::Cn => common_name.clone(),
        IdentityFrom::San => first(|_| true),
        IdentityFrom::SanDns => first(|name| matches!(name, AlternativeName::Dns(_))),
        IdentityFrom::SanEmail => first(|name| matches!(name, AlternativeName::Email(_))),
        IdentityFrom::SanUri => first(|name| matches!(name, AlternativeName::Uri(_))),
    };
    Some(CertificateIdentity { common_name, alternative_names, name })
}
