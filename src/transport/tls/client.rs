//! TLS as a client: bridges to other brokers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::{FRAGMENT_BYTES_MAX, Phase, Tls};
use crate::base::pem::{self, Kind};
use crate::config::bridge::{Authorities, BridgeTls};
use crate::transport::Ciphers;

/// Environment variable that names the certificate authorities of this machine.
const CERT_FILE: &str = "SSL_CERT_FILE";

/// Where systems keep the certificate authorities that they trust: Debian and OpenWrt, Red Hat, Alpine and BSD, SUSE.
const SYSTEM_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// The client's end of TLS.
pub type ClientTls = Tls<UnbufferedClientConnection>;

/// Configuration of TLS to a far broker.
#[derive(Clone, Debug)]
pub struct ClientTlsConfig(Arc<ClientConfig>);

impl ClientTlsConfig {
    /// Reads the files that the configuration names. An error says which key is wrong, and why.
    pub fn read(settings: &BridgeTls) -> Result<Self, String> {
        let roots = match &settings.ca {
            Authorities::File(file) => read_roots("ca", file, true)?,
            Authorities::System => read_roots("ca", &system_file()?, false)?,
        };
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match settings.certificate.as_os_str().is_empty() {
            true => builder.with_no_client_auth(),
            false => {
                let chain: Vec<CertificateDer<'static>> =
                    read("certificate", &settings.certificate, Kind::Certificates)?;
                let keys: Vec<PrivateKeyDer<'static>> = read("key", &settings.key, Kind::Key)?;
                let key = keys.into_iter().next();
                let key = key.ok_or_else(|| wrong("key", &settings.key, "it has no key"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong("certificate", &settings.certificate, error))?
            }
        };
        config.alpn_protocols =
            settings.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        Ok(Self(Arc::new(config)))
    }

    /// Starts TLS to a server of this name or address. Its first bytes are appended to `said`.
    pub fn begin(&self, server: &str, said: &mut Vec<u8>) -> Result<ClientTls, String> {
        let name = ServerName::try_from(server.to_owned())
            .map_err(|_| format!("tls.server_name: {server:?} is no host name and no address"))?;
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.0), name)
            .map_err(|error| error.to_string())?;
        let mut tls = Tls {
            connection,
            incoming: Vec::new(),
            phase: Phase::Hello,
            identity_from: None,
            identity: None,
            ciphers: Ciphers::default(),
            fragment_bytes_max: FRAGMENT_BYTES_MAX as u16,
            looks: 0,
            is_offloading: false,
        };
        let (mut records, mut plain) = (Vec::new(), Vec::new());
        tls.receive(&[], &mut records, &mut plain, said, &mut super::Received::default())
            .map_err(|fault| fault.what)?;
        Ok(tls)
    }
}

fn system_file() -> Result<PathBuf, String> {
    if let Some(file) = std::env::var_os(CERT_FILE).filter(|file| !file.is_empty()) {
        return Ok(file.into());
    }
    let found = SYSTEM_FILES.iter().map(PathBuf::from).find(|file| file.is_file());
    found.ok_or_else(|| {
        format!(
            "tls.ca: no list of certificate authorities of this machine was found; install one (ca-certificates), set \
             {CERT_FILE}, or name a file"
        )
    })
}

/// Reads certificate authorities. With `is_strict`, every one has to be usable; the list of a machine may have some
/// that this TLS library does not accept.
fn read_roots(key: &str, file: &Path, is_strict: bool) -> Result<RootCertStore, String> {
    let certificates: Vec<CertificateDer<'static>> = read(key, file, Kind::Certificates)?;
    let mut roots = RootCertStore::empty();
    for (number, certificate) in certificates.into_iter().enumerate() {
        if let (Err(error), true) = (roots.add(certificate), is_strict) {
            return Err(wrong(key, file, format!("certificate {}: {error}", number + 1)));
        }
    }
    match roots.is_empty() {
        true => Err(wrong(key, file, "none of its certificates can be used")),
        false => Ok(roots),
    }
}

fn read<T: rustls::pki_types::pem::PemObject>(
    key: &str,
    file: &Path,
    kind: Kind,
) -> Result<Vec<T>, String> {
    let text = std::fs::read(file).map_err(|error| {
        wrong(key, file, format!("{error}; name a PEM file that the broker's user may read"))
    })?;
    let name = file.display().to_string();
    pem::read(&text, kind).map_err(|what| wrong(key, file, what.replace("FILE", &name)))
}

fn wrong(key: &str, file: &Path, what: impl std::fmt::Display) -> String {
    format!("tls.{key} {}: {what}", file.display())
}
