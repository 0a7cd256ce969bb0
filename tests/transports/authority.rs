//! A certificate authority for tests, and clients that trust this authority or any server.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::Tls;

/// A certificate and its key.
pub struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Issued {
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a signed certificate"))
    }

    fn sign(&self, names: &[&str], common_name: &str, serial: u64) -> Issued {
        self.sign_with(names, common_name, serial, |_| {})
    }

    fn sign_with(
        &self,
        names: &[&str],
        common_name: &str,
        serial: u64,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        Issued { certificate: params.signed_by(&key, &self.0).expect("a signed certificate"), key }
    }

    /// The public key of the server whose files are in a folder, in the encoding of certificates.
    pub fn server_public_key(folder: &Path) -> Vec<u8> {
        let key = std::fs::read_to_string(folder.join("key.pem")).expect("the file exists");
        KeyPair::from_pem(&key).expect("a key").subject_public_key_info()
    }

    /// The root certificate that clients need.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        vec![self.0.as_ref().der().clone()]
    }

    /// A client certificate.
    pub fn issue(&self, common_name: &str, serial: u64) -> Issued {
        self.sign(&[], common_name, serial)
    }

    /// A client certificate that is valid for this many seconds, and the end of its last second.
    pub fn issue_for(&self, common_name: &str, serial: u64, seconds: u64) -> (Issued, SystemTime) {
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
        let last = Duration::from_secs(now.as_secs() + seconds);
        let issued = self.sign_with(&[], common_name, serial, |params| {
            params.not_after = date_time_ymd(1970, 1, 1) + last;
        });
        (issued, SystemTime::UNIX_EPOCH + last + Duration::from_secs(1))
    }

    /// Writes the files of a server.
    pub fn write_server(&self, folder: &Path) {
        let write = |name: &str, text: String| {
            std::fs::write(folder.join(name), text).expect("written");
        };
        let server = self.sign(&["localhost", "127.0.0.1"], "server", 1);
        // Not atomically, as no reload happens in between.
        write("server.pem", server.certificate.pem());
        write("key.pem", server.key.serialize_pem());
        let other = self.sign(&["other.example", "*.wild.example"], "other", 2);
        write("other.pem", other.certificate.pem());
        write("other-key.pem", other.key.serialize_pem());
        write("ca.pem", self.0.as_ref().pem());
        self.write_revoked(folder, &[]);
    }

    pub fn write_revoked(&self, folder: &Path, serials: &[u64]) {
        self.write_list(folder, serials, 4000);
    }

    /// A revocation list whose next update is due at the beginning of a year.
    pub fn write_list(&self, folder: &Path, serials: &[u64], year: i32) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.0).expect("a signed certificate").pem().expect("PEM");
        std::fs::write(folder.join("crl.pem"), list).expect("written");
    }

    /// A client configuration that trusts this authority and presents a certificate.
    pub fn client_config(&self, shows: Option<&Issued>) -> Tls {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.as_ref().der().clone()).expect("a valid certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match shows {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let key = PrivateKeyDer::from_pem_slice(issued.key_pem().as_bytes());
                let chain = vec![issued.certificate.der().clone()];
                builder.with_client_auth_cert(chain, key.expect("a key")).expect("a matching pair")
            }
        };
        Arc::new(config)
    }
}

/// A verifier that accepts any server, for clients that connect while certificates change.
#[derive(Debug)]
pub struct AcceptAnyServer;

impl rustls::client::danger::ServerCertVerifier for AcceptAnyServer {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
