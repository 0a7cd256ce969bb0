//! Handshakes and records against rustls' own client, without a socket.

use std::io::{Read as _, Write as _};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore, SupportedCipherSuite,
};

use super::*;
use crate::base::identity::AlternativeName;
use crate::base::ids::Peer;
use crate::config::listener::{ClientCertificate, KernelTls, Listener, Transport as Kind};
use crate::transport::{Cipher, ListenerPolicy, Scratch, Transport};

/// An policy that asks for certificates, and a client that shows one.
fn pair(from: IdentityFrom) -> (Box<Transport>, ClientConnection) {
    pair_with(from, None)
}

/// The same with a client that speaks only one suite, if any is named.
fn pair_with(
    from: IdentityFrom,
    suite: Option<SupportedCipherSuite>,
) -> (Box<Transport>, ClientConnection) {
    pair_at(|tls| tls.identity = from, suite)
}

/// The same where the listener is changed by `set`.
fn pair_at(
    set: impl FnOnce(&mut listener::Tls),
    suite: Option<SupportedCipherSuite>,
) -> (Box<Transport>, ClientConnection) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key()).expect("it is signed");
    let issue = |common_name: &str, names: Vec<SanType>| {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationName, "Water, Gas");
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
    listener.tls.certificate = "certificate".into();
    listener.tls.key = "key".into();
    listener.tls.client_ca = "authority".into();
    listener.tls.kernel = KernelTls::Auto;
    set(&mut listener.tls);
    let read = |path: &Path| {
        let text = match path.to_str() {
            Some("certificate") => server.pem(),
            Some("key") => server_key.serialize_pem(),
            _ => authority.as_ref().pem(),
        };
        Ok(text.into_bytes())
    };
    let mut ciphers = Ciphers::default();
    Cipher::ALL.into_iter().for_each(|cipher| ciphers.add(cipher));
    let tls_config = TlsConfig::open(&listener, &read).expect("they fit").with_kernel(ciphers);
    let policy = ListenerPolicy::new(&listener, Some(tls_config));
    let peer = Peer { address: None, listener: 0 };
    let transport = policy.transport_for(&peer).expect("TLS");
    let mut roots = RootCertStore::empty();
    roots.add(authority.as_ref().der().clone()).expect("it is one");
    let key = PrivateKeyDer::from_pem_slice(client_key.serialize_pem().as_bytes());
    let mut provider = rustls::crypto::ring::default_provider();
    let versions = match suite {
        None => rustls::DEFAULT_VERSIONS.to_vec(),
        Some(suite) => {
            provider.cipher_suites = vec![suite];
            vec![suite.version()]
        }
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client.der().clone()], key.expect("a key"))
        .expect("they fit");
    config.enable_secret_extraction = true;
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
        (IdentityFrom::Subject, Some("O=Water\\, Gas,CN=pump 7")),
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

/// Suites that a server with a key of ECDSA speaks.
fn suites() -> impl Iterator<Item = SupportedCipherSuite> {
    let all = rustls::crypto::ring::default_provider().cipher_suites;
    all.into_iter().filter(|suite| !format!("{suite:?}").contains("RSA"))
}

/// Sends the client something.
fn send(transport: &mut Transport, client: &mut ClientConnection, bytes: &[u8]) {
    let (mut mqtt, mut scratch) = (SendBuffer::default(), Scratch::default());
    mqtt.append(|out| out.extend_from_slice(bytes));
    let (mut wrapped, _) = transport.wrap(mqtt, SendBuffer::default(), &mut scratch);
    assert_eq!(take(&mut wrapped, client), bytes);
}

/// The same key, nonce and place? Nonces of TLS 1.2 differ where the sender may choose.
fn fits(key: &Key<'_>, (sequence, secrets): &(u64, ConnectionTrafficSecrets), chooses: bool) {
    let (ConnectionTrafficSecrets::Aes128Gcm { key: theirs, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key: theirs, iv }
    | ConnectionTrafficSecrets::Chacha20Poly1305 { key: theirs, iv }) = secrets
    else {
        panic!("there is no other")
    };
    assert_eq!((key.sequence, key.key), (*sequence, theirs.as_ref()));
    let mut iv: [u8; 12] = iv.as_ref().try_into().expect("twelve bytes");
    if chooses && key.version == 0x0303 && key.cipher != Cipher::Chacha20Poly1305 {
        iv[4] ^= 0x80;
    }
    assert_eq!(key.iv, iv);
}

#[test]
fn the_keys_given_away_are_the_clients_and_stand_where_it_stands() {
    let mut ciphers = Vec::new();
    for suite in suites() {
        let (mut transport, mut client) = pair_with(IdentityFrom::Cn, Some(suite));
        assert!(!transport.fits_kernel().is_some_and(|fits| fits), "nothing is agreed yet");
        exchange(&mut transport, &mut client, usize::MAX);
        for bytes in [1, 40_000] {
            client.writer().write_all(&vec![7; bytes]).expect("there is room");
            assert_eq!(exchange(&mut transport, &mut client, 1_000).len(), bytes);
            send(&mut transport, &mut client, &vec![8; bytes]);
        }
        assert_eq!(transport.fits_kernel(), Some(true));
        assert_eq!(transport.check_kernel(true), Offload::Later);
        assert!(!transport.is_offloading());
        assert_eq!(transport.check_kernel(false), Offload::Ready);
        assert!(transport.is_offloading());
        let (keys, identity) = transport.take_keys().expect("between two records");
        assert_eq!(identity.expect("it showed a certificate").name.as_deref(), Some("pump 7"));
        assert!(transport.is_spent());
        let (sending, receiving) = (keys.sending(), keys.receiving());
        ciphers.push((sending.version, sending.cipher));
        let theirs = client.dangerous_extract_secrets().expect("it is told to");
        fits(&sending, &theirs.rx, true);
        fits(&receiving, &theirs.tx, false);
    }
    ciphers.dedup();
    assert_eq!(ciphers.len(), 6, "{ciphers:?}");
}

#[test]
fn explicit_nonces_of_tls_1_2_do_not_meet_those_that_were_used_here() {
    for suite in suites().filter(|suite| suite.tls13().is_none()) {
        let (mut transport, mut client) = pair_with(IdentityFrom::None, Some(suite));
        exchange(&mut transport, &mut client, usize::MAX);
        let (mut mqtt, mut scratch) = (SendBuffer::default(), Scratch::default());
        mqtt.append(|out| out.extend_from_slice(b"MQTT"));
        let (mut wrapped, _) = transport.wrap(mqtt, SendBuffer::default(), &mut scratch);
        let mut record = Vec::new();
        wrapped.take(usize::MAX, &mut record);
        transport.check_kernel(false);
        let (keys, _) = transport.take_keys().expect("between two records");
        let key = keys.sending();
        if key.cipher == Cipher::Chacha20Poly1305 {
            continue;
        }
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        // Header of five bytes, then the nonce.
        let (used, next) = (number(&record[5..13]), number(&key.iv[4..]));
        assert!(next.wrapping_sub(used) > u64::MAX / 4 && used.wrapping_sub(next) > u64::MAX / 4);
    }
}

#[test]
fn within_a_record_the_keys_stay_and_what_follows_is_understood() {
    let (mut transport, mut client) = pair(IdentityFrom::None);
    exchange(&mut transport, &mut client, usize::MAX);
    assert_eq!(transport.check_kernel(false), Offload::Ready);
    let (mut record, mut scratch) = (Vec::new(), Scratch::default());
    client.writer().write_all(b"whole").expect("there is room");
    client.write_tls(&mut record).expect("memory takes all");
    transport.receive(&record[..7], &mut scratch).expect("it is sound");
    assert!(transport.take_keys().is_none() && !transport.is_offloading());
    assert_eq!(transport.check_kernel(false), Offload::Later);
    transport.receive(&record[7..], &mut scratch).expect("it is sound");
    assert_eq!(scratch.plain, b"whole");
    send(&mut transport, &mut client, b"answer");
    assert_eq!(transport.check_kernel(false), Offload::Ready);
    assert!(transport.take_keys().is_some());
}

#[test]
fn a_change_of_keys_is_answered_before_they_are_given_away() {
    let (mut transport, mut client) = pair(IdentityFrom::None);
    exchange(&mut transport, &mut client, usize::MAX);
    client.refresh_traffic_keys().expect("it is TLS 1.3");
    client.writer().write_all(b"mqtt").expect("there is room");
    assert_eq!(exchange(&mut transport, &mut client, usize::MAX), b"mqtt");
    assert_eq!(transport.check_kernel(false), Offload::Ready);
    assert!(transport.take_keys().is_none(), "ours change too, and it is not told yet");
    assert!(transport.has_something_to_say());
    assert_eq!(transport.check_kernel(false), Offload::Later);
    send(&mut transport, &mut client, b"more");
    assert_eq!(transport.check_kernel(false), Offload::Ready);
    let (keys, _) = transport.take_keys().expect("it has been told");
    let theirs = client.dangerous_extract_secrets().expect("it is told to");
    fits(&keys.sending(), &theirs.rx, true);
    fits(&keys.receiving(), &theirs.tx, false);
}

#[test]
fn a_connection_that_ends_while_it_settles_says_so() {
    let (mut transport, mut client) = pair(IdentityFrom::None);
    exchange(&mut transport, &mut client, usize::MAX);
    assert_eq!(transport.check_kernel(false), Offload::Ready);
    let mut scratch = Scratch::default();
    let mut last = transport.close(None, &mut scratch).expect("it says so");
    take(&mut last, &mut client);
    assert_eq!(client.reader().read(&mut [0]).expect("a clean end"), 0);
}

/// The length of the longest record.
fn longest_record(mut records: &[u8]) -> usize {
    let mut longest = 0;
    while let [_, _, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        longest = longest.max(length);
        records = &rest[length..];
    }
    assert!(records.is_empty(), "they are whole");
    longest
}

#[test]
fn records_are_no_longer_than_the_listener_says_in_the_handshake_and_after_it() {
    // Of both versions: a content type and a tag, or a nonce and a tag.
    const SEALED_EXTRA_BYTES_MAX: usize = 24;
    let message: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    for (bytes_max, suite) in [512, 1_000, 4_096, 16_384]
        .into_iter()
        .flat_map(|max| suites().map(move |suite| (max, suite)))
    {
        let (mut transport, mut client) = pair_at(
            |tls| (tls.record_bytes_max, tls.kernel) = (bytes_max, KernelTls::Off),
            Some(suite),
        );
        let (mut scratch, mut longest) = (Scratch::default(), 0);
        client.writer().write_all(b"MQTT").expect("there is room");
        for turn in 0..5 {
            let mut said = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut said).expect("memory takes all");
            }
            transport.receive(&said, &mut scratch).expect("it is sound");
            let mut mqtt = SendBuffer::default();
            if turn == 4 {
                assert_eq!(scratch.plain, b"MQTT");
                mqtt.append(|out| out.extend_from_slice(&message));
            }
            let (mut wrapped, _) = transport.wrap(mqtt, SendBuffer::default(), &mut scratch);
            let mut records = Vec::new();
            wrapped.take(usize::MAX, &mut records);
            longest = longest.max(longest_record(&records));
            let mut again = SendBuffer::default();
            again.append(|out| out.extend_from_slice(&records));
            let plain = take(&mut again, &mut client);
            assert!(turn < 4 || plain == message, "all of it arrives");
        }
        let most = usize::from(bytes_max) + SEALED_EXTRA_BYTES_MAX;
        assert!((usize::from(bytes_max)..=most).contains(&longest), "{bytes_max}: {longest}");
    }
}
