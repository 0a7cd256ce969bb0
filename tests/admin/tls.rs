//! TLS of the interface, and roles by client certificates.

use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use ringmq::config::Role;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use crate::folder::Folder;
use crate::support::{Broker, Client};

/// An authority, which has signed the certificate of the broker and those of clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate and its key in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        (signed.pem(), key.serialize_pem())
    }

    /// A connection to the interface, with a certificate of this name.
    fn connect(
        &self,
        broker: &Broker,
        name: Option<&str>,
    ) -> Client<impl std::io::Read + std::io::Write> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM")).expect("one");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match name.map(|name| self.sign(name)) {
            Some((certificate, key)) => {
                let chain =
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                config.with_client_auth_cert(chain, key).expect("they fit")
            }
            None => config.with_no_client_auth(),
        };
        let host = "localhost".try_into().expect("a name");
        let connection = ClientConnection::new(Arc::new(config), host).expect("a client");
        let stream = TcpStream::connect(broker.address()).expect("it listens");
        stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("an option");
        Client::new(StreamOwned::new(connection, stream))
    }
}

#[test]
fn a_client_certificate_has_the_role_of_its_common_name_and_others_need_a_token() {
    let (folder, authority) = (Folder::new("tls"), Authority::new());
    let (certificate, key) = authority.sign("broker");
    folder.write("ca.pem", &authority.pem);
    folder.write("cert.pem", &certificate);
    folder.write("key.pem", &key);
    let config = "listen = \"127.0.0.1:0\"\n[storage]\ndata = \"none\"\n\
        [admin]\nlisten = [\"127.0.0.1:0\"]\n[admin.access]\ntokens_file = \"{FOLDER}/tokens\"\n\
        [admin.tls]\ncertificate = \"{FOLDER}/cert.pem\"\nkey = \"{FOLDER}/key.pem\"\n\
        client_ca = \"{FOLDER}/ca.pem\"\nroles = { \"robot 1\" = \"operate\" }\n";
    let broker = Broker::with(folder, config, "--mode poll");
    let path = "/api/v1/whoami";
    let answer = authority.connect(&broker, Some("robot 1")).ask("GET", path, &[], "");
    assert_eq!(answer.json(), json!({ "name": "robot 1", "role": "operate" }));
    for name in [Some("robot 2"), None] {
        let mut client = authority.connect(&broker, name);
        assert_eq!(client.ask("GET", path, &[], "").status, 401, "{name:?}");
        let token = format!("Bearer {}", broker.tokens[Role::Read as usize]);
        let answer = client.ask("GET", path, &[("Authorization", &token)], "");
        assert_eq!(answer.json()["role"], "read", "{name:?}");
        let login = json!({ "token": broker.tokens[0] }).to_string();
        let answer = client.ask("POST", "/api/v1/login", &[], &login);
        assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.ends_with("; Secure")));
    }
    // Somebody who speaks no TLS gets no answer, and the place is free again.
    let mut plain = broker.tcp();
    plain.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut plain.stream, &mut rest);
    assert!(!rest.starts_with(b"HTTP"));
    // A reload takes a new certificate, and one that cannot be used leaves the old one.
    broker.folder.write("cert.pem", "nonsense");
    broker.signal("-HUP");
    broker.wait_for_log("refused", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("admin.tls"))
    });
    let answer = authority.connect(&broker, None).ask("GET", "/livez", &[], "");
    assert_eq!(answer.status, 200);
}
