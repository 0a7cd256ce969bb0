//! Handshakes and records against rustls' own client, without a socket.

use std::io::{Read as _, Write as _};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::config::listener::{ClientCertificate, Listener, Transport as Kind};
use crate::engine::AlternativeName;
use crate::engine::Peer;
use crate::transport::{Entrance, Scratch, Transport};

/// An entrance that asks for certificates, and a client that shows one.
fn pair(from: IdentityFrom) -> (Box<Transport>, ClientConnection) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key()).expect("it is signed");
    let issue = |common_name: &str, names: Vec<SanType>| {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        let key = key();
        (params.signed_by(&key, &authority).expect("it is signed"), key)
    };
    let name = |name: &str| name.try_into().expect("ASCII");
    let (server, server_key) = issue("server", vec![SanType::DnsName(name("localhost"))]);
    let names = vec![
        SanType::Rfc822Name(name("pump@example.org")),
        SanType::DnsName(name("pump.example.org")),
        SanType::URI(name("urn:pump:7")),
    ];
    let (client, client_key) = issue("pump 7", names);
    let mut listener = Listener::tcp("127.0.0.1:0".parse().expect("an address"));
    listener.transport = Kind::Tls;
    listener.tls.client_certificate = ClientCertificate::Optional;
    listener.tls.identity = from;
    listener.tls.certificate = "certificate".into();
    listener.tls.key = "key".into();
    listener.tls.client_ca = "authority".into();
    let read = |path: &Path| {
        let text = match path.to_str() {
            Some("certificate") => server.pem(),
            Some("key") => server_key.serialize_pem(),
            _ => authority.as_ref().pem(),
        };
        Ok(text.into_bytes())
    };
    let door = Door::open(&listener, &read).expect("they fit");
    let entrance = Entrance::new(&listener, Some(door));
    let peer = Peer { address: None, listener: 0 };
    let transport = entrance.transport_for(&peer).expect("TLS");
    let mut roots = RootCertStore::empty();
    roots.add(authority.as_ref().der().clone()).expect("it is one");
    let key = PrivateKeyDer::from_pem_slice(client_key.serialize_pem().as_bytes());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client.der().clone()], key.expect("a key"))
        .expect("they fit");
    let name = ServerName::try_from("localhost").expect("a name");
    (transport, ClientConnection::new(Arc::new(config), name).expect("it begins"))
}

/// What the client has to say, in pieces of so many bytes, and what it is answered; the MQTT in it.
fn exchange(transport: &mut Transport, client: &mut ClientConnection, step: usize) -> Vec<u8> {
    let mut scratch = Scratch::default();
    loop {
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said).expect("memory takes all");
        }
        for piece in said.chunks(step) {
            transport.receive(piece, &mut scratch).expect("it is sound");
        }
        let mut plain = std::mem::take(&mut scratch.plain);
        if !transport.has_something_to_say() {
            return plain;
        }
        let (mut wrapped, _) =
            transport.wrap(SendBuffer::default(), SendBuffer::default(), &mut scratch);
        take(&mut wrapped, client);
        scratch.plain.append(&mut plain);
    }
}

/// What the client makes of it.
fn take(wrapped: &mut SendBuffer, client: &mut ClientConnection) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut bytes = Vec::new();
    wrapped.take(usize::MAX, &mut bytes);
    let mut bytes = &bytes[..];
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).expect("memory is read");
        client.process_new_packets().expect("it is sound");
        // An error says that there is no more for now.
        let _ = client.reader().read_to_end(&mut plain);
    }
    plain
}

#[test]
fn a_certificate_names_its_client_as_the_listener_says() {
    for (from, name) in [
        (IdentityFrom::None, None),
        (IdentityFrom::Cn, Some("pump 7")),
        (IdentityFrom::San, Some("pump@example.org")),
        (IdentityFrom::SanDns, Some("pump.example.org")),
        (IdentityFrom::SanEmail, Some("pump@example.org")),
        (IdentityFrom::SanUri, Some("urn:pump:7")),
    ] {
        let (mut transport, mut client) = pair(from);
        assert!(transport.is_laborious() && transport.certificate().is_none());
        exchange(&mut transport, &mut client, usize::MAX);
        assert!(!transport.is_laborious());
        let certificate = transport.certificate().expect("it has shown one");
        assert_eq!(certificate.name.as_deref(), name);
        assert_eq!(certificate.common_name.as_deref(), Some("pump 7"));
        let dns = AlternativeName::Dns("pump.example.org".into());
        assert_eq!(certificate.alternative_names.len(), 3);
        assert_eq!(certificate.alternative_names[1], dns);
    }
}

#[test]
fn records_cut_anywhere_bring_the_same_and_leave_nothing_behind() {
    for step in [1, 7, 1_000, usize::MAX] {
        let (mut transport, mut client) = pair(IdentityFrom::Cn);
        exchange(&mut transport, &mut client, step);
        let message: Vec<u8> = (0..50_000u32).map(|i| i as u8).collect();
        client.set_buffer_limit(None);
        client.writer().write_all(&message).expect("there is room");
        assert!(exchange(&mut transport, &mut client, step) == message, "in pieces of {step}");
        let tls = transport.tls.as_ref().expect("it is TLS");
        assert_eq!(tls.incoming.capacity(), 0);

        let (mut mqtt, mut scratch) = (SendBuffer::default(), Scratch::default());
        mqtt.append(|out| out.extend_from_slice(&message));
        let (mut wrapped, rest) = transport.wrap(mqtt, SendBuffer::default(), &mut scratch);
        assert!(rest.is_empty());
        assert!(take(&mut wrapped, &mut client) == message);
        let mut last = transport.close(None, &mut scratch).expect("it says so");
        take(&mut last, &mut client);
        assert_eq!(client.reader().read(&mut [0]).expect("a clean end"), 0);
    }
}

#[test]
fn keys_are_changed_when_the_client_asks_for_it() {
    let (mut transport, mut client) = pair(IdentityFrom::Cn);
    exchange(&mut transport, &mut client, usize::MAX);
    for _ in 0..3 {
        client.refresh_traffic_keys().expect("it is TLS 1.3");
        client.writer().write_all(b"mqtt").expect("there is room");
        assert_eq!(exchange(&mut transport, &mut client, 3), b"mqtt");
        let (mut mqtt, mut scratch) = (SendBuffer::default(), Scratch::default());
        mqtt.append(|out| out.extend_from_slice(b"more"));
        let (mut wrapped, _) = transport.wrap(mqtt, SendBuffer::default(), &mut scratch);
        assert_eq!(take(&mut wrapped, &mut client), b"more");
    }
}

#[test]
fn what_is_no_tls_is_told_so_and_whatever_follows_means_nothing() {
    let (mut transport, _) = pair(IdentityFrom::None);
    let mut scratch = Scratch::default();
    transport.receive(b"GET / HTTP/1.1\r\n\r\n", &mut scratch).expect_err("it is HTTP");
    assert!(transport.is_broken());
    assert_eq!(transport.receive(b"more", &mut scratch), Ok(Received::default()));
    let mut last = Vec::new();
    transport.close(None, &mut scratch).expect("an alert").take(usize::MAX, &mut last);
    // Alert, of any version, two bytes: fatal.
    assert_eq!((last[0], last[5]), (21, 2), "{last:?}");
    assert!(scratch.plain.is_empty());
}
