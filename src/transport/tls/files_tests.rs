//! What is said of certificates and keys that are of no use, or of less than their owner thinks.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::judge;
use crate::base::ids::Peer;
use crate::config::listener::{ClientCertificate, Listener, Transport as Kind};
use crate::transport::tls::server_config::TlsConfig;
use crate::transport::{Fault, Layer, ListenerPolicy, Scratch};

const VERSION_1: &str = include_str!("fixtures/version-1.pem");
const VERSION_1_KEY: &str = include_str!("fixtures/version-1.key");
const ITS_AUTHORITY: &str = include_str!("fixtures/authority.pem");
const P521: &str = include_str!("fixtures/p521.pem");
const P521_KEY: &str = include_str!("fixtures/p521.key");

/// A root, an authority below it, and what that one issues.
struct Chain {
    root: CertifiedIssuer<'static, KeyPair>,
    between: CertifiedIssuer<'static, KeyPair>,
}

impl Chain {
    fn new() -> Self {
        let params = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).expect("no names");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let key = || KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(params("root"), key()).expect("it is signed");
        let below = params("between");
        let between = CertifiedIssuer::signed_by(below, key(), &root).expect("it is signed");
        Self { root, between }
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        issue_by(&self.between, change)
    }
}

fn issue_by<S: rcgen::SigningKey>(
    issuer: &Issuer<'_, S>,
    change: impl FnOnce(&mut CertificateParams),
) -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().expect("ASCII"))];
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    (params.signed_by(&key, issuer).expect("it is signed").pem(), key.serialize_pem())
}

fn open(certificate: &str, key: &str, authorities: Option<&str>) -> Result<TlsConfig, String> {
    let mut listener = Listener::tcp("127.0.0.1:0".parse().expect("an address"));
    listener.transport = Kind::Tls;
    listener.tls.certificate = "server.pem".into();
    listener.tls.key = "server.key".into();
    if authorities.is_some() {
        listener.tls.client_certificate = ClientCertificate::Required;
        listener.tls.client_ca = "clients.pem".into();
    }
    let read = |path: &Path| {
        let text = match path.to_str() {
            Some("server.pem") => certificate,
            Some("server.key") => key,
            _ => authorities.expect("it is not asked for"),
        };
        Ok(text.as_bytes().to_vec())
    };
    TlsConfig::open(&listener, &read)
}

fn refusal(certificate: &str, key: &str, authorities: Option<&str>) -> String {
    open(certificate, key, authorities).expect_err("it is of no use")
}

#[test]
fn a_certificate_of_version_1_is_refused_with_the_way_to_make_another_one() {
    let what = refusal(VERSION_1, VERSION_1_KEY, None);
    assert!(what.starts_with("tls.certificate server.pem: "), "{what}");
    assert!(what.contains("of version 1") && what.contains("-extfile"), "{what}");
}

#[test]
fn a_key_on_a_curve_that_is_not_known_is_named_with_those_that_are() {
    let what = refusal(P521, P521_KEY, None);
    assert!(what.starts_with("tls.key server.key: its key is ECDSA on P-521"), "{what}");
    assert!(what.contains("P-256 or P-384"), "{what}");
    let (certificate, key) = Chain::new().issue(|_| ());
    let what = refusal(&certificate, &key, Some(P521));
    assert!(what.starts_with("tls.client_ca clients.pem: certificate 1 (CN=localhost)"), "{what}");
    assert!(what.contains("ECDSA on P-521"), "{what}");
    // Beside another one it is only said: lists of authorities hold many.
    open(&certificate, &key, Some(&format!("{P521}{ITS_AUTHORITY}"))).expect("one is of use");
}

#[test]
fn a_chain_that_does_not_begin_with_the_keys_own_certificate_is_refused_with_its_place() {
    let chain = Chain::new();
    let (own, key) = chain.issue(|_| ());
    let between = chain.between.as_ref().pem();
    let what = refusal(&format!("{between}{own}"), &key, None);
    assert!(what.contains("certificate 2 of the file belongs to the key, not the first"), "{what}");
    let (_, other) = chain.issue(|_| ());
    let what = refusal(&own, &other, None);
    assert!(what.contains("it must be the key of server.pem"), "{what}");
    open(&format!("{own}{between}"), &key, None).expect("it is in order");
}

fn doubts(pems: &[&str], now_s: u64) -> Vec<String> {
    let chain = pems.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()));
    let chain: Vec<_> = chain.map(|certificate| certificate.expect("PEM")).collect();
    let parse = |der: &'_ CertificateDer<'static>| {
        let der: &'static [u8] = Box::leak(Box::from(der.as_ref()));
        X509Certificate::from_der(der).expect("X.509").1
    };
    judge::doubts_about_chain(&chain.iter().map(parse).collect::<Vec<_>>(), now_s)
}

#[test]
fn what_clients_may_find_wrong_with_a_chain_is_said_of_it() {
    const YEAR_2024: u64 = 1_704_067_200;
    let chain = Chain::new();
    let (own, _) = chain.issue(|_| ());
    let (root, between) = (chain.root.as_ref().pem(), chain.between.as_ref().pem());
    assert_eq!(doubts(&[&own, &between, &root], YEAR_2024), Vec::<String>::new());
    for (pems, says) in [
        (vec![&own, &root, &between], "certificate 2 (CN=root) is not the one that signed"),
        (vec![&between, &root], "says CA:TRUE"),
    ] {
        let pems: Vec<&str> = pems.into_iter().map(String::as_str).collect();
        let doubts = doubts(&pems, YEAR_2024);
        assert!(doubts.iter().any(|what| what.contains(says)), "{says}: {doubts:?}");
    }
    let (old, _) = chain.issue(|params| params.not_after = rcgen::date_time_ymd(2023, 1, 1));
    assert!(
        doubts(&[&old], YEAR_2024)[0].contains("certificate 1 has expired (2023-01-01T00:00:00Z)")
    );
    let (new, _) = chain.issue(|params| params.not_before = rcgen::date_time_ymd(2025, 1, 1));
    assert!(
        doubts(&[&new], YEAR_2024)[0]
            .contains("before 2025-01-01T00:00:00Z; is this machine's clock right?")
    );
}

/// A listener that asks for certificates, and the authority of its own.
fn policy(authorities: &str) -> (ListenerPolicy, Chain) {
    let chain = Chain::new();
    let (own, own_key) = chain.issue(|_| ());
    let tls_config = open(&own, &own_key, Some(authorities)).expect("it is of use");
    let mut listener = Listener::tcp("127.0.0.1:0".parse().expect("an address"));
    listener.transport = Kind::Tls;
    (ListenerPolicy::new(&listener, Some(tls_config)), chain)
}

/// A client that shows this.
fn client_config(
    of_server: &Chain,
    versions: &[&'static SupportedProtocolVersion],
    certificate: &str,
    key: &str,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(of_server.between.as_ref().der().clone()).expect("it is one");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let shown = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    // Not checked here, as other clients do not check it.
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![shown], key));
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(shown));
    Arc::new(config)
}

/// What the listener gets of a client that says something as soon as it can, and what it finds wrong.
fn heard(policy: &ListenerPolicy, config: &Arc<ClientConfig>) -> (Vec<u8>, Option<Fault>) {
    let mut transport = policy.transport_for(&Peer { address: None, listener: 0 }).expect("TLS");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(config), name).expect("it begins");
    client.writer().write_all(b"MQTT").expect("there is room");
    let mut scratch = Scratch::default();
    for _ in 0..4 {
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said).expect("memory takes all");
        }
        if let Err(fault) = transport.receive(&said, &mut scratch) {
            return (scratch.plain, Some(fault));
        }
        let (mut answer, _) = transport.wrap(Default::default(), Default::default(), &mut scratch);
        let mut bytes = Vec::new();
        answer.take(usize::MAX, &mut bytes);
        client.read_tls(&mut &bytes[..]).expect("memory is read");
        client.process_new_packets().expect("it is sound");
    }
    (scratch.plain, None)
}

/// What the listener finds wrong with a client that shows this.
fn fault_of_client(authorities: &str, certificate: &str, key: &str) -> Fault {
    let (policy, chain) = policy(authorities);
    heard(&policy, &client_config(&chain, rustls::DEFAULT_VERSIONS, certificate, key))
        .1
        .expect("it is refused")
}

#[test]
fn what_comes_with_the_ticket_of_a_certificate_that_has_expired_is_not_heard() {
    let chain = Chain::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later");
    let (certificate, key) = chain.issue(|params| {
        params.not_after =
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs() + 1);
    });
    let (policy, of_server) = policy(&chain.between.as_ref().pem());
    let configs = [&rustls::version::TLS12, &rustls::version::TLS13]
        .map(|version| client_config(&of_server, &[version], &certificate, &key));
    for config in &configs {
        assert_eq!(heard(&policy, config), (b"MQTT".to_vec(), None));
        assert_eq!(heard(&policy, config), (b"MQTT".to_vec(), None), "by the ticket");
    }
    std::thread::sleep(Duration::from_millis(2_100));
    for config in &configs {
        let (heard, fault) = heard(&policy, config);
        assert_eq!(String::from_utf8_lossy(&heard), "");
        let fault = fault.expect("it is refused").what;
        assert!(fault.contains("it has expired since the full handshake"), "{fault}");
    }
}

#[test]
fn a_clients_certificate_that_is_refused_is_explained() {
    let chain = Chain::new();
    let between = chain.between.as_ref().pem();
    let (authority, authority_key) = issue_by(&chain.between, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let (old, old_key) = chain.issue(|params| params.not_after = rcgen::date_time_ymd(2023, 1, 1));
    let (strange, strange_key) = Chain::new().issue(|_| ());
    for (authorities, certificate, key, says) in [
        (ITS_AUTHORITY, VERSION_1, VERSION_1_KEY, "of version 1"),
        (&between, &authority, &authority_key, "it says CA:TRUE"),
        (&between, &old, &old_key, "certificate expired"),
        (ITS_AUTHORITY, &strange, &strange_key, "none of the authorities in tls.client_ca has"),
        (&between, &strange, &strange_key, "another key; it may have been created again"),
    ] {
        let fault = fault_of_client(authorities, certificate, key);
        assert_eq!(fault.layer, Layer::ClientCertificate);
        assert!(fault.what.contains(says), "{says}: {fault}");
    }
}
