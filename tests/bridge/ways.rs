//! WebSocket, with TLS and without, and Unix sockets on the way to the far broker.
#![cfg(all(feature = "tls", feature = "websocket"))]

use std::net::SocketAddr;

use crate::folder::Folder;
use crate::support::{Broker, Publish};
use crate::{NUMBER, ONE_SETUP, SETUPS, Site, Witness, at_once, connected, flows, logged, publish};

const RULES: &str = "\
[[bridges.out]]
filter = \"site/#\"
[[bridges.in]]
filter = \"cmd/#\"
";

/// A far broker that listens in each way.
pub struct Far {
    pub broker: Broker,
    pub folder: Folder,
    ws: SocketAddr,
    wss: SocketAddr,
}

impl Far {
    pub fn start(setup: &str) -> Self {
        let (ws, wss) = (crate::free_address(), crate::free_address());
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = Folder::new(&format!("ways-{number}"));
        let issued = rcgen::generate_simple_self_signed(vec![wss.ip().to_string()]).expect("one");
        let certificate = folder.write("certificate", &issued.cert.pem());
        let key = folder.write("key", &issued.signing_key.serialize_pem());
        let socket = folder.path("s");
        let site = Site::new(setup).with(&format!(
            "[[listeners]]\nbind = \"{ws}\"\ntransport = \"ws\"\nanonymous = true\n\
             [[listeners]]\nbind = \"unix:{socket}\"\ntransport = \"unix\"\n\
             [[listeners]]\nbind = \"{wss}\"\ntransport = \"wss\"\nanonymous = true\n\
             [listeners.tls]\ncertificate = {certificate:?}\nkey = {key:?}"
        ));
        let broker = site.start();
        logged(&broker, "\"listening\"", 4);
        Self { broker, folder, ws, wss }
    }

    /// The servers in each way, and tables that they need.
    pub fn ways(&self) -> [(String, String); 3] {
        let ca = self.folder.path("certificate");
        [
            (format!("ws://{}", self.ws), String::new()),
            (format!("wss://{}/mqtt", self.wss), format!("[bridges.tls]\nca = {ca:?}\n")),
            (format!("unix:{}", self.folder.path("s")), String::new()),
        ]
    }
}

fn near(setup: &str, name: &str, server: &str, more: &str) -> Broker {
    let bridge = format!(
        "[[bridges]]\nname = {name:?}\nservers = [{server:?}]\n\
         reconnect = {{ first_ms = 50, most_s = 1, stable_s = 0 }}\n{more}"
    );
    Site::new(setup).with(&bridge).start()
}

#[test]
fn messages_pass_both_ways_over_websocket_with_and_without_tls_and_over_unix_sockets() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::start(setup);
        for (number, (server, more)) in far.ways().into_iter().enumerate() {
            let near = near(setup, &format!("b{number}"), &server, &format!("{more}{RULES}"));
            connected(&near, 1);
            flows(&far.broker, "cmd/probe", &near, "cmd/probe");
            let (mut there, mut here) =
                (Witness::at(&far.broker, "site/#"), Witness::at(&near, "cmd/#"));
            // Frames of each form of length, and more than one.
            for bytes in [1, 200, 70_000, 300_000] {
                let text = "x".repeat(bytes);
                for qos in 0..=2 {
                    let of = |topic: &str| match qos {
                        0 => Publish::new(topic, text.clone()),
                        _ => Publish::new(topic, text.clone()).qos(qos, 1),
                    };
                    publish(&near, of("site/a"));
                    assert!(there.texts(1) == [&*text], "{setup} {server}: {bytes} bytes go");
                    publish(&far.broker, of("cmd/a"));
                    assert!(here.texts(1) == [&*text], "{setup} {server}: {bytes} bytes come");
                }
            }
        }
    });
}

#[test]
fn what_the_far_broker_has_against_a_websocket_is_in_the_log() {
    let far = Far::start(ONE_SETUP);
    let near = near(ONE_SETUP, "b", &format!("ws://{}/nowhere", far.ws), RULES);
    logged(&near, "404 Not Found; check the path of the server", 1);
    assert!(!near.log().contains("bridge connected"));
}

#[test]
fn a_unix_socket_that_is_not_there_is_tried_again() {
    let far = Far::start(ONE_SETUP);
    let path = far.folder.path("later");
    let near = near(ONE_SETUP, "b", &format!("unix:{path}"), RULES);
    logged(&near, &format!("unix:{path}: "), 1);
    std::os::unix::fs::symlink(far.folder.path("s"), &path).expect("a link");
    connected(&near, 1);
    flows(&far.broker, "cmd/probe", &near, "cmd/probe");
}

/// Certificates of an authority, in files.
struct Issued {
    folder: Folder,
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Issued {
    fn new() -> Self {
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        // The name tells one authority from another.
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {number}"));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).expect("it is signed");
        let folder = Folder::new(&format!("issued-{number}"));
        folder.write("ca", &authority.as_ref().pem());
        Self { folder, authority }
    }

    /// A certificate of this name, which ends with a year if that is not 0; its files are `NAME` and `NAME.key`.
    fn issue(&self, name: &str, end: i32) {
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("one");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        if end > 0 {
            params.not_before = rcgen::date_time_ymd(end - 1, 1, 1);
            params.not_after = rcgen::date_time_ymd(end, 1, 1);
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("it is signed");
        self.folder.write(name, &certificate.pem());
        self.folder.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// `[bridges.tls]` with the certificate of this name.
    fn tls(&self, name: &str) -> String {
        let path = |name: &str| self.folder.path(name);
        format!(
            "[bridges.tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\nserver_name = \"127.0.0.1\"\n",
            path("ca"),
            path(name),
            path(&format!("{name}.key"))
        )
    }
}

/// Waits for a state of a bridge whose reason has this text.
fn fails_with(near: &Broker, why: &str) {
    let mut states = Witness::at(near, "$SYS/broker/bridges/+/state");
    let until = std::time::Instant::now() + crate::PATIENCE;
    loop {
        let state = states.texts(1).remove(0);
        if state.contains("\"state\":\"tls\"") && state.contains(why) {
            return;
        }
        assert!(std::time::Instant::now() < until, "{why}: {state}");
    }
}

#[test]
fn a_bridge_shows_its_client_certificate_and_offers_its_protocols() {
    use std::io::Read;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let issued = Issued::new();
    issued.issue("there", 0);
    issued.issue("plant7", 0);
    let read = |name: &str| std::fs::read(issued.folder.path(name)).expect("a file");
    let chain = vec![CertificateDer::from_pem_slice(&read("there")).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(&read("there.key")).expect("PEM");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issued.authority.as_ref().der().clone()).expect("usable");
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build();
    let mut config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier.expect("an authority"))
        .with_single_cert(chain, key)
        .expect("they fit");
    config.alpn_protocols = vec![b"other".to_vec(), b"mqtt".to_vec()];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let server = format!("mqtts://{}", listener.local_addr().expect("bound"));
    let tls = issued.tls("plant7") + "alpn = [\"x-amzn-mqtt-ca\", \"mqtt\"]\n";
    let _near = near(ONE_SETUP, "b", &server, &format!("{tls}{RULES}"));
    let (mut socket, _) = listener.accept().expect("the bridge connects");
    socket.set_read_timeout(Some(crate::PATIENCE)).expect("an option");
    let mut far = rustls::ServerConnection::new(Arc::new(config)).expect("a configuration");
    let mut first = [0; 2];
    let mut stream = rustls::Stream::new(&mut far, &mut socket);
    crate::uninterrupted::uninterrupted(|| stream.read(&mut first)).expect("CONNECT");
    assert_eq!(first[0], 0x10, "CONNECT");
    assert_eq!(far.alpn_protocol(), Some(&b"mqtt"[..]));
    let shown = far.peer_certificates().and_then(|chain| chain.first()).expect("it shows one");
    assert!(shown.windows(6).any(|bytes| bytes == b"plant7"), "the certificate of plant7");
}

#[test]
fn messages_pass_both_ways_over_tls_between_brokers_that_verify_each_other() {
    at_once(SETUPS.iter().copied(), |setup| {
        let issued = Issued::new();
        issued.issue("there", 0);
        issued.issue("plant7", 0);
        let (far, address) = far_with_tls(setup, &issued, "there");
        let server = format!("mqtts://{address}");
        let near = near(setup, "b", &server, &format!("{}{RULES}", issued.tls("plant7")));
        connected(&near, 1);
        flows(&far, "cmd/probe", &near, "cmd/probe");
        flows(&near, "site/probe", &far, "site/probe");
    });
}

/// A far broker that asks for client certificates of the authority, and where it listens with TLS.
fn far_with_tls(setup: &str, issued: &Issued, name: &str) -> (Broker, SocketAddr) {
    let address = crate::free_address();
    let path = |name: &str| issued.folder.path(name);
    let broker = Site::new(setup)
        .with(&format!(
            "[[listeners]]\nbind = \"{address}\"\ntransport = \"tls\"\nanonymous = true\n\
             [listeners.tls]\ncertificate = {:?}\nkey = {:?}\nclient_certificate = \"required\"\n\
             client_ca = {:?}",
            path(name),
            path(&format!("{name}.key")),
            path("ca")
        ))
        .start();
    logged(&broker, "\"listening\"", 2);
    (broker, address)
}

#[test]
fn a_certificate_that_has_expired_makes_the_state_tls_with_its_date() {
    let issued = Issued::new();
    for (name, end) in [("there", 0), ("old", 2020), ("plant7", 0), ("old-client", 2021)] {
        issued.issue(name, end);
    }
    let (_far, address) = far_with_tls(ONE_SETUP, &issued, "old");
    let server = format!("mqtts://{address}");
    let near_old = near(ONE_SETUP, "b", &server, &format!("{}{RULES}", issued.tls("plant7")));
    fails_with(&near_old, "of the far broker has expired (2020-01-01T00:00:00Z)");
    let (_far, address) = far_with_tls(ONE_SETUP, &issued, "there");
    let server = format!("mqtts://{address}");
    let table = issued.tls("old-client");
    let near_old = near(ONE_SETUP, "b", &server, &format!("{table}{RULES}"));
    fails_with(&near_old, "tls.certificate has expired (2021-01-01T00:00:00Z)");
    let others = Issued::new();
    others.issue("plant7", 0);
    let near_other = near(ONE_SETUP, "b", &server, &format!("{}{RULES}", others.tls("plant7")));
    fails_with(&near_other, "none of the authorities in tls.ca");
}
