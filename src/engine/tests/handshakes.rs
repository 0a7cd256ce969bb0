//! Many TLS handshakes at once, with a bounded number of steps a turn, against clients of rustls.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::config::Limits;
use crate::config::listener::{KernelTls, Listener, Transport};
use crate::transport::{Cipher, Ciphers, ListenerPolicies, ListenerPolicy, tls::TlsConfig};

/// The listener with TLS; the first listener has none.
const TLS: u16 = 1;

/// A client with its connection.
pub(super) struct Comer {
    pub id: ConnectionId,
    pub tls: ClientConnection,
}

impl Comer {
    /// Sends the bytes that the client wants to write.
    pub fn say(&mut self, world: &mut World) {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).expect("writes to memory succeed");
        }
        world.engine.handle_received(world.now, self.id, &bytes);
    }

    /// Reads the answer of the broker, and returns whether there was one.
    pub fn hear(&mut self, world: &mut World) -> bool {
        let bytes = std::mem::take(world.received.get_mut(&self.id).expect("known"));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest).expect("reads from memory succeed");
            self.tls.process_new_packets().expect("valid TLS records");
        }
        !bytes.is_empty()
    }
}

/// A broker with a limit of handshake steps a turn, and clients that have been accepted.
fn crowd(steps: u32, clients: usize) -> (World, Vec<Comer>) {
    crowd_with(|limits| limits.tls_handshakes_per_turn_max = steps, clients)
}

fn crowd_with(bounds: impl FnOnce(&mut Limits), clients: usize) -> (World, Vec<Comer>) {
    crowd_of(KernelTls::Off, bounds, clients)
}

/// As `crowd_with`, with a kernel TLS setting of the listener; the kernel supports all ciphers.
pub(super) fn crowd_of(
    kernel: KernelTls,
    bounds: impl FnOnce(&mut Limits),
    clients: usize,
) -> (World, Vec<Comer>) {
    let names = vec!["localhost".to_owned()];
    let issued = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let tcp = Listener::tcp("127.0.0.1:0".parse().expect("an address"));
    let mut listener = tcp.clone();
    listener.transport = Transport::Tls;
    (listener.tls.certificate, listener.tls.key) = ("certificate".into(), "key".into());
    listener.tls.kernel = kernel;
    let mut ciphers = Ciphers::default();
    Cipher::ALL.into_iter().for_each(|cipher| ciphers.add(cipher));
    let read = |path: &Path| match path.to_str() {
        Some("key") => Ok(issued.signing_key.serialize_pem().into_bytes()),
        _ => Ok(issued.cert.pem().into_bytes()),
    };
    let tls_config = TlsConfig::open(&listener, &read)
        .expect("the key belongs to the certificate")
        .with_kernel(ciphers);
    let policies: ListenerPolicies =
        [ListenerPolicy::new(&tcp, None), ListenerPolicy::new(&listener, Some(tls_config))]
            .map(Arc::new)
            .into();
    let mut world = World::with(|settings| bounds(&mut settings.limits), Box::new(AllowAll));
    world.engine.set_listeners(policies);

    let mut roots = RootCertStore::empty();
    roots.add(issued.cert.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let comers = (0..clients).map(|_| {
        let peer = Peer { address: None, listener: TLS };
        let id = world.engine.handle_accepted(world.now, peer).expect("accepted");
        world.received.insert(id, Vec::new());
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::clone(&config), name).expect("a TLS client");
        Comer { id, tls }
    });
    let comers = comers.collect();
    (world, comers)
}

/// The next turn of a core that has work left.
fn next_turn(world: &mut World) {
    let due = world.engine.poll_timeout().is_some_and(|deadline| deadline.is_due(world.now));
    assert!(due, "a core does not sleep while a handshake waits");
    world.engine.handle_timeout(world.now);
    world.turn();
}

#[test]
fn a_turn_takes_a_bounded_number_of_handshake_steps_and_serves_other_clients() {
    for steps in [1, 3] {
        let (mut world, mut comers) = crowd(steps, 7);
        let inside = world.connect(&Client::v5("inside"));
        comers.iter_mut().for_each(|comer| comer.say(&mut world));
        assert!(world.engine.has_put_off());
        let mut answered = 0;
        while answered < 7 {
            let mut ping = Vec::new();
            Packet::Pingreq.encode(Version::V5, &mut ping);
            world.engine.handle_received(world.now, inside, &ping);
            next_turn(&mut world);
            assert_eq!(world.packets(inside, Version::V5), ["Pingresp"]);
            let now = comers.iter_mut().filter_map(|comer| comer.hear(&mut world).then_some(()));
            let now = now.count() as u32;
            // The first handshakes were served on arrival, and the turn has the rest of its steps.
            assert!(now == steps || answered + now == 7, "{now} in a turn of {steps}");
            answered += now;
        }
        assert!(!world.engine.has_put_off() && world.paused.is_empty());
        assert_eq!(world.engine.metrics().tls_waited, u64::from(7 - steps));
    }
}

#[test]
fn a_handshake_in_progress_is_finished_before_another_begins() {
    let (mut world, mut comers) = crowd(1, 5);
    comers.iter_mut().for_each(|comer| comer.say(&mut world));
    world.turn();
    for number in 0..5 {
        assert!(comers[number].hear(&mut world), "the handshake is served in this turn");
        assert!(comers[number + 1..].iter_mut().all(|comer| !comer.hear(&mut world)));
        comers[number].say(&mut world);
        world.turn();
        assert_eq!(world.engine.metrics().tls_handshakes, number as u64 + 1);
        if world.engine.has_put_off() {
            next_turn(&mut world);
        }
    }
}

#[test]
fn a_client_that_trickles_its_handshake_does_not_delay_others() {
    let (mut world, mut comers) = crowd(1, 4);
    comers.iter_mut().for_each(|comer| comer.say(&mut world));
    world.turn();
    assert!(comers[0].hear(&mut world));
    let mut rest = Vec::new();
    comers[0].tls.write_tls(&mut rest).expect("writes to memory succeed");
    let mut answered = 0;
    for byte in &rest[..10] {
        world.engine.handle_received(world.now, comers[0].id, &[*byte]);
        world.turn();
        answered += comers[1..].iter_mut().map(|it| u32::from(it.hear(&mut world))).sum::<u32>();
    }
    assert_eq!(answered, 3, "in ten turns, some of which the trickling client takes");
    world.engine.handle_received(world.now, comers[0].id, &rest[10..]);
    world.settle();
    assert_eq!(
        world.engine.metrics().tls_handshakes,
        1,
        "the trickling client completes its handshake"
    );
}

#[test]
fn handshakes_above_the_limit_are_closed_and_counted() {
    let bounds = |limits: &mut Limits| {
        (limits.tls_handshakes_per_turn_max, limits.tls_handshakes_waiting_max) = (1, 2);
    };
    let (mut world, mut comers) = crowd_with(bounds, 5);
    comers.iter_mut().for_each(|comer| comer.say(&mut world));
    // One handshake is served at once, and two wait.
    assert_eq!(world.engine.metrics().connections_refused, 2);
    world.settle();
    let answered = comers.iter_mut().map(|comer| comer.hear(&mut world));
    assert_eq!(answered.collect::<Vec<_>>(), [true, true, true, false, false]);
}
