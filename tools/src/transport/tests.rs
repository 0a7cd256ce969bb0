//! Streams against independent servers that echo their input: rustls with its own buffers, and
//! tungstenite.

use std::{
    net::{TcpListener, TcpStream as StdStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Poll};
use rustls::{
    HandshakeKind, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version,
};
use tungstenite::{
    Message, WebSocket,
    handshake::server::{ErrorResponse, Request, Response},
};

use super::*;
use crate::certificate;

/// A folder with certificates, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmq-bench-transport-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        certificate::write(&folder, None).expect("written");
        Self(folder)
    }

    fn server_config(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_file(self.0.join("server.pem"));
        let key = PrivateKeyDer::from_pem_file(self.0.join("server-key.pem"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("PEM")], key.expect("PEM"));
        Arc::new(config.expect("a matching pair"))
    }

    fn tls(&self) -> TlsSettings {
        TlsSettings {
            authority: self.0.join(certificate::AUTHORITY),
            server_name: "localhost".into(),
            version: None,
            resumes: true,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An echo server, which reports each handshake.
fn serve(
    tls: Option<Arc<ServerConfig>>,
    is_websocket: bool,
) -> (LoopbackAddress, Receiver<HandshakeKind>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("a bound socket").to_string();
    let (told, kinds) = mpsc::channel();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let (tls, told) = (tls.clone(), told.clone());
            thread::spawn(move || -> Option<()> {
                let Some(config) = tls else { return echo(socket, is_websocket) };
                let mut connection = ServerConnection::new(config).expect("the operation starts");
                while connection.is_handshaking() {
                    connection.complete_io(&mut socket).ok()?;
                }
                told.send(connection.handshake_kind().expect("the handshake is complete")).ok()?;
                echo(StreamOwned::new(connection, socket), is_websocket)
            });
        }
    });
    (address.parse().expect("127.0.0.1 is loopback"), kinds)
}

fn echo(mut stream: impl Read + Write, is_websocket: bool) -> Option<()> {
    if is_websocket {
        let mut websocket = tungstenite::accept_hdr(stream, agree).ok()?;
        loop {
            echo_message(&mut websocket)?;
        }
    }
    let mut buffer = [0; 10_000];
    loop {
        let count = stream.read(&mut buffer).ok().filter(|&count| count > 0)?;
        stream.write_all(&buffer[..count]).and_then(|()| stream.flush()).ok()?;
    }
}

fn echo_message(websocket: &mut WebSocket<impl Read + Write>) -> Option<()> {
    match websocket.read().ok()? {
        Message::Binary(bytes) => {
            websocket.send(Message::Ping("are you there".into())).ok()?;
            websocket.send(Message::Binary(bytes)).ok()
        }
        Message::Pong(_) => Some(()),
        _ => None,
    }
}

/// Accepts MQTT at `/mqtt`.
#[allow(clippy::result_large_err, reason = "the signature required by tungstenite")]
fn agree(
    request: &Request,
    mut response: Response,
) -> std::result::Result<Response, ErrorResponse> {
    if request.uri().path() != "/mqtt" {
        let mut refusal = ErrorResponse::new(Some("MQTT is elsewhere".into()));
        *refusal.status_mut() = "404".parse().expect("a status");
        return Err(refusal);
    }
    response.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().expect("a value"));
    Ok(response)
}

/// Connects, sends `bytes`, and reads until all have returned.
fn exchange(connector: &Connector, bytes: &[u8]) -> io::Result<Vec<u8>> {
    exchange_as(0, connector, bytes)
}

fn exchange_as(client: u32, connector: &Connector, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut poll = Poll::new()?;
    let mut stream = connector.connect(client, poll.registry(), Token(0))?;
    let (mut events, mut came, mut buffer) =
        (Events::with_capacity(8), Vec::new(), vec![0; 40_000]);
    let (mut sent, mut is_connected) = (0, false);
    let deadline = Instant::now() + Duration::from_secs(20);
    while came.len() < bytes.len() {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        poll.poll(&mut events, Some(Duration::from_millis(10)))?;
        is_connected = is_connected || stream.is_connected()?;
        loop {
            let outcome = match stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                outcome => outcome?,
            };
            match outcome {
                ReadOutcome::More(count) => came.extend_from_slice(&buffer[..count]),
                ReadOutcome::Last(count) => {
                    came.extend_from_slice(&buffer[..count]);
                    break;
                }
                ReadOutcome::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        while sent < bytes.len() {
            match stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        stream.flush()?;
    }
    if let Some(layers) = &stream.layers {
        let kept = layers.unsent.capacity();
        assert_eq!(kept, 0, "an idle client keeps no buffer");
    }
    Ok(came)
}

fn connector(address: LoopbackAddress, tls: Option<TlsSettings>, path: Option<&str>) -> Connector {
    let transport = Transport { tls, websocket_path: path.map(str::to_owned) };
    Connector::new(address, Sources::new(0, 1), &transport).expect("sound settings")
}

fn message() -> Vec<u8> {
    (0..300_000u32).map(|number| (number.wrapping_mul(number) >> 7) as u8).collect()
}

#[test]
fn every_transport_transfers_data_unchanged() {
    let folder = Folder::new();
    let config = || folder.server_config(&[&version::TLS13, &version::TLS12]);
    for (tls, path) in [(false, None), (true, None), (false, Some("/mqtt")), (true, Some("/mqtt"))]
    {
        let (address, _kinds) = serve(tls.then(config), path.is_some());
        let connector = connector(address, tls.then(|| folder.tls()), path);
        let message = message();
        for length in [1, 200, message.len()] {
            let came = exchange(&connector, &message[..length]).expect("the data returns");
            assert!(came == message[..length], "TLS {tls}, WebSocket {path:?}, {length} bytes");
        }
    }
}

#[test]
fn reconnecting_clients_resume_unless_disabled() {
    let folder = Folder::new();
    for version in [&version::TLS12, &version::TLS13] {
        for resumes in [true, false] {
            let (address, kinds) = serve(Some(folder.server_config(&[version])), false);
            let connector = connector(address, Some(TlsSettings { resumes, ..folder.tls() }), None);
            let kind_of = |client| {
                exchange_as(client, &connector, b"hello").expect("the data returns");
                kinds.recv().expect("a handshake")
            };
            assert_eq!(kind_of(7), HandshakeKind::Full);
            let wanted = if resumes { HandshakeKind::Resumed } else { HandshakeKind::Full };
            assert_eq!((kind_of(7), kind_of(7)), (wanted, wanted), "{version:?}");
            assert_eq!(kind_of(8), HandshakeKind::Full, "a ticket is its client's alone");
        }
    }
}

#[test]
fn the_requested_tls_version_is_used() {
    let folder = Folder::new();
    let (address, _kinds) = serve(Some(folder.server_config(&[&version::TLS12])), false);
    for (version, comes) in [(TlsVersion::V1_2, true), (TlsVersion::V1_3, false)] {
        let tls = TlsSettings { version: Some(version), ..folder.tls() };
        let outcome = exchange(&connector(address, Some(tls), None), b"hello");
        assert_eq!(outcome.is_ok(), comes, "{version:?}: {outcome:?}");
    }
}

#[test]
fn an_unexpected_certificate_is_refused_with_a_remedy() {
    let (folder, other) = (Folder::new(), Folder::new());
    let (address, _kinds) = serve(Some(folder.server_config(&[&version::TLS13])), false);
    let refused = |tls: TlsSettings| {
        let error = exchange(&connector(address, Some(tls), None), b"hello").expect_err("refused");
        error.to_string()
    };
    let text = refused(other.tls());
    assert!(text.contains("certificate is refused") && text.contains("--ca"), "{text}");
    let text = refused(TlsSettings { server_name: "example.org".into(), ..folder.tls() });
    assert!(text.contains("certificate is refused") && text.contains("--tls-name"), "{text}");
}

#[test]
fn a_refused_websocket_is_reported_with_its_status() {
    let (address, _kinds) = serve(None, true);
    let error = exchange(&connector(address, None, Some("/elsewhere")), b"hello");
    let text = error.expect_err("refused").to_string();
    assert!(text.contains("/elsewhere with HTTP status 404"), "{text}");
}

#[test]
fn a_broker_without_the_transport_is_detected() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address: LoopbackAddress =
        listener.local_addr().expect("bound").to_string().parse().expect("loopback");
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _: io::Result<()> = StdStream::write_all(&mut socket, b"\x20\x02\x00\x01 and more");
        }
    });
    let folder = Folder::new();
    for (tls, path, word) in [(Some(folder.tls()), None, "TLS"), (None, Some("/mqtt"), "not HTTP")]
    {
        let error =
            exchange(&connector(address, tls, path), b"hello").expect_err("another protocol");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn an_unusable_authority_is_named() {
    let folder = Folder::new();
    let wrong = |file: &str| {
        let tls = TlsSettings { authority: folder.0.join(file), ..folder.tls() };
        let address = "127.0.0.1:1".parse().expect("loopback");
        let transport = Transport { tls: Some(tls), websocket_path: None };
        Connector::new(address, Sources::new(0, 1), &transport).expect_err("refused").to_string()
    };
    assert!(wrong("missing.pem").contains("missing.pem"));
    assert!(wrong("server-key.pem").contains("has no certificate"));
}
