//! TLS as a client: bridges to other brokers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::certificates::files_of;
use super::{FRAGMENT_BYTES_MAX, Phase, Tls, server_judge};
use crate::base::pem::{self, Kind};
use crate::config::bridge::{Authorities, BridgeTls};
use crate::config::listener::TlsVersion;
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
pub struct ClientTlsConfig {
    config: Arc<ClientConfig>,
    /// When the own certificate expires, in seconds since 1970.
    expires_s: Option<u64>,
}

impl ClientTlsConfig {
    /// Reads the files that the configuration names. An error says which key is wrong, and why.
    pub fn read(settings: &BridgeTls) -> Result<Self, String> {
        let roots = match &settings.ca {
            // A folder may be that of the machine.
            Authorities::File(file) => read_roots("ca", file, !file.is_dir())?,
            Authorities::System => read_roots("ca", &system_file()?, false)?,
        };
        let builder = ClientConfig::builder_with_protocol_versions(&versions(settings));
        let builder = match settings.verify_name {
            true => builder.with_root_certificates(roots),
            false => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName::new(roots)?))
            }
        };
        let mut expires_s = None;
        let mut config = match settings.certificate.as_os_str().is_empty() {
            true => builder.with_no_client_auth(),
            false => {
                let chain: Vec<CertificateDer<'static>> =
                    read("certificate", &settings.certificate, Kind::Certificates)?;
                expires_s = chain.first().and_then(expires_of);
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
        Ok(Self { config: Arc::new(config), expires_s })
    }

    /// When the own certificate has expired, if it has, in words.
    pub fn expired(&self) -> Option<String> {
        let expires_s = self.expires_s.filter(|&expires_s| expires_s < server_judge::now_s());
        expires_s.map(|of| format!("tls.certificate has expired ({})", server_judge::date_of(of)))
    }

    /// Starts TLS to a server of this name or address. Its first bytes are appended to `said`.
    pub fn begin(&self, server: &str, said: &mut Vec<u8>) -> Result<ClientTls, String> {
        let name = ServerName::try_from(server.to_owned())
            .map_err(|_| format!("tls.server_name: {server:?} is no host name and no address"))?;
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.config), name)
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

/// When a certificate expires, in seconds since 1970.
fn expires_of(certificate: &CertificateDer<'static>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

fn versions(settings: &BridgeTls) -> Vec<&'static rustls::SupportedProtocolVersion> {
    let version = |version: &TlsVersion| match version {
        TlsVersion::V1_2 => &rustls::version::TLS12,
        TlsVersion::V1_3 => &rustls::version::TLS13,
    };
    settings.versions.iter().map(version).collect()
}

/// Verifies certificates as usual, but for the name in them.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl AnyName {
    fn new(roots: RootCertStore) -> Result<Self, String> {
        let verifier = WebPkiServerVerifier::builder(Arc::new(roots)).build();
        verifier.map(Self).map_err(|error| format!("tls.ca: {error}"))
    }
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        // The name is compared last.
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
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
    let mut certificates: Vec<CertificateDer<'static>> = Vec::new();
    for file in files_of(key, file)? {
        certificates.extend(read(key, &file, Kind::Certificates)?);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    #[test]
    fn without_a_name_to_verify_a_certificate_still_has_to_be_of_the_authorities() {
        let authority = || {
            let mut params = CertificateParams::new(Vec::new()).expect("no names");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
                .expect("it is signed")
        };
        let (ours, others) = (authority(), authority());
        let key = KeyPair::generate().expect("a key");
        let issue = |authority, end: Option<(i32, u8, u8)>| {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
            if let Some((year, month, day)) = end {
                params.not_after = rcgen::date_time_ymd(year, month, day);
            }
            params.signed_by(&key, authority).expect("it is signed").der().clone()
        };
        let mut roots = RootCertStore::empty();
        roots.add(ours.as_ref().der().clone()).expect("usable");
        let verifier = AnyName::new(roots).expect("an authority");
        let verify = |certificate: &CertificateDer<'_>, name: &'static str| {
            let name = ServerName::try_from(name).expect("a name");
            verifier.verify_server_cert(certificate, &[], &name, &[], UnixTime::now()).is_ok()
        };
        let certificate = issue(&ours, None);
        assert!(verify(&certificate, "localhost") && verify(&certificate, "elsewhere.example"));
        assert!(!verify(&issue(&others, None), "localhost"), "of other authorities");
        assert!(!verify(&issue(&ours, Some((2000, 1, 1))), "localhost"), "expired");
    }

    #[test]
    fn authorities_are_read_from_all_files_of_a_folder() {
        let folder = std::env::temp_dir().join(format!("ringmq-roots-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let settings = BridgeTls { ca: Authorities::File(folder.clone()), ..BridgeTls::default() };
        let empty = ClientTlsConfig::read(&settings).expect_err("no file");
        for name in ["a.pem", "b.crt", "c.txt"] {
            let params = CertificateParams::new(Vec::new()).expect("no names");
            let key = KeyPair::generate().expect("a key");
            let text = params.self_signed(&key).expect("it is signed").pem();
            std::fs::write(folder.join(name), text).expect("written");
        }
        let count = read_roots("ca", &folder, false).map(|roots| roots.len());
        let read = ClientTlsConfig::read(&settings).map(drop);
        std::fs::remove_dir_all(&folder).expect("removed");
        assert!(empty.starts_with("tls.ca ") && empty.contains("0 files"), "{empty}");
        assert_eq!((count, read), (Ok(2), Ok(())));
    }
}
