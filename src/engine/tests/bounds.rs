//! Limits on connection time, slow packets and message rate.

use std::time::Duration;

use super::*;
use crate::wire::Auth;

/// Admits clients with the method `time`, for as many seconds as their authentication data say.
struct ForSeconds;

impl Access for ForSeconds {
    fn authenticate(&mut self, _: Now, _: u64, who: &Credentials<'_>) -> Authentication {
        let seconds = who.method.and_then(|(_, data)| std::str::from_utf8(data).ok());
        let valid_for = seconds.map(|text| Duration::from_secs(text.parse().expect("a number")));
        Authentication::Granted(Grant { valid_for, ..Grant::default() })
    }
}

fn connect_for(world: &mut World, seconds: &'static [u8]) -> ConnectionId {
    let mut client = Client::v5("c");
    client.properties.authentication_method = Some("time");
    client.properties.authentication_data = Some(seconds);
    world.connect(&client)
}

#[test]
fn a_client_is_disconnected_when_its_credentials_expire() {
    let mut world = World::with(|_| {}, Box::new(ForSeconds));
    let short = connect_for(&mut world, b"200");
    let long = world.connect(&Client::v5("for ever"));
    world.advance_ms(199_000);
    assert!(world.closed.is_empty());
    world.advance_ms(2_000);
    let packets = world.packets(short, Version::V5);
    assert!(packets[0].contains("MaximumConnectTime"), "{packets:?}");
    assert!(world.closed.contains(&short));
    assert_eq!(world.engine.metrics().stays_ended, 1);
    world.advance_ms(86_400_000);
    assert!(!world.closed.contains(&long));
}

#[test]
fn a_client_that_reauthenticates_in_time_stays_connected() {
    let mut world = World::with(|_| {}, Box::new(ForSeconds));
    let id = connect_for(&mut world, b"100");
    world.advance_ms(90_000);
    let again = Auth {
        reason: ReasonCode::Reauthenticate,
        authentication_method: Some("time"),
        authentication_data: Some(b"100"),
        reason_string: None,
        user_properties: UserProperties::none(),
    };
    world.send(id, Version::V5, &Packet::Auth(again));
    assert!(world.packets(id, Version::V5)[0].contains("Success"));
    world.advance_ms(95_000);
    assert!(world.closed.is_empty());
    world.advance_ms(10_000);
    assert!(world.closed.contains(&id));
}

fn encoded(topic: &str, qos: Qos, number: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet::Publish(publish(topic, b"payload", qos, number)).encode(Version::V5, &mut bytes);
    bytes
}

impl World {
    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.engine.handle_received(self.now, id, bytes);
        self.settle();
    }
}

#[test]
fn a_packet_not_complete_in_time_ends_its_connection_even_if_it_trickles() {
    let mut world = World::with(|of| of.protection.packet_timeout_s = 100, Box::new(AllowAll));
    let slow = world.connect(&Client::v5("slow"));
    let fine = world.connect(&Client::v5("fine"));
    let bytes = encoded("t", Qos::AtLeastOnce, 1);
    let (head, tail) = bytes.split_at(bytes.len() - 5);
    world.receive(slow, head);
    for _ in 0..10 {
        // A packet in two halves is accepted as long as each is complete in time.
        world.receive(fine, head);
        world.advance_ms(9_000);
        world.receive(fine, tail);
    }
    assert!(world.closed.is_empty());
    world.receive(slow, &tail[..1]);
    world.advance_ms(9_000);
    assert!(world.closed.is_empty());
    world.advance_ms(9_000);
    assert!(world.closed.contains(&slow) && !world.closed.contains(&fine));
    assert_eq!(world.engine.metrics().timeouts, 1);
    world.cut(fine);
    assert_eq!(world.engine.metrics().memory_bytes, 0);
}

#[test]
fn an_incomplete_packet_of_a_client_that_is_not_read_is_not_overdue() {
    let mut world = World::with(
        |of| (of.protection.packet_timeout_s, of.protection.bytes_per_second_max) = (10, 1),
        Box::new(AllowAll),
    );
    let id = world.connect(&Client::v5("c"));
    let bytes = encoded("t", Qos::AtLeastOnce, 1);
    world.receive(id, &bytes); // it may go on in as many seconds as that has bytes
    world.receive(id, &bytes[..5]);
    assert!(world.paused.contains(&id));
    (0..bytes.len() - 2).for_each(|_| world.advance_ms(1_000));
    assert!(world.closed.is_empty() && world.paused.contains(&id));
    world.advance_ms(2_000);
    assert!(world.paused.is_empty());
    world.advance_ms(25_000);
    assert!(world.closed.contains(&id), "the client is read and does not send the rest");
}

#[test]
fn a_client_above_its_rate_limit_is_slowed_and_loses_no_message() {
    let mut world =
        World::with(|of| of.protection.messages_per_second_max = 10, Box::new(AllowAll));
    let subscriber = world.connect(&Client::v5("s"));
    world.subscribe(subscriber, "t", Qos::AtMostOnce);
    let publisher = world.connect(&Client::v5("p"));
    let bytes: Vec<u8> = (0..35).flat_map(|_| encoded("t", Qos::AtMostOnce, 0)).collect();
    world.packets(subscriber, Version::V5);
    world.receive(publisher, &bytes);
    assert!(world.paused.contains(&publisher));
    let first = world.payloads(subscriber).len();
    assert!((10..=11).contains(&first), "{first}");
    let mut more = 0;
    for _ in 0..20 {
        world.advance_ms(100);
        let seen = world.payloads(subscriber).len();
        assert!(seen <= 2, "{seen} in a tenth of a second");
        more += seen;
    }
    assert!((19..=21).contains(&more), "{more} in two seconds");
    (0..10).for_each(|_| world.advance_ms(100));
    assert_eq!(first + more + world.payloads(subscriber).len(), 35);
    assert!(world.paused.is_empty() && world.engine.metrics().clients_throttled > 0);
    // The rate limit of a client does not slow others.
    world.publish(subscriber, "t", b"x", Qos::AtMostOnce, 0);
    assert_eq!(world.payloads(subscriber).len(), 1);
}

/// WebSocket behind a proxy, as the first listener.
#[cfg(feature = "websocket")]
fn open_to_proxied_pages(world: &mut World) -> Peer {
    use crate::config::listener::{Listener, Transport};
    let address: std::net::SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let mut listener = Listener::tcp(address);
    listener.transport = Transport::Ws;
    listener.proxy_protocol_from = vec!["127.0.0.0/8".parse().expect("a network")];
    let policy = crate::transport::ListenerPolicy::new(&listener, None);
    world.engine.set_listeners([policy.into()].into());
    Peer { address: Some(address), listener: 0 }
}

#[test]
#[cfg(feature = "websocket")]
fn incomplete_proxy_headers_requests_and_frames_count_as_memory_until_they_are_used() {
    let mut world = World::new();
    let peer = open_to_proxied_pages(&mut world);
    let parts: [(&[u8], u64); 5] = [
        (b"PROXY TCP4 192.0.2.1 ", 21),
        (b"192.0.2.2 1 2\r\nGET /mqtt HTTP/1.1\r\n", 20),
        (
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
            0,
        ),
        (b"\x89\x85\0\0\0\0abc", 3),    // a ping of five bytes
        (b"de\x82\x83\0\0\0\0\x10", 1), // and the beginning of a packet
    ];
    for cut_after in 0..parts.len() {
        let id = world.engine.handle_accepted(world.now, peer).expect("accepted");
        for (part, held) in &parts[..=cut_after] {
            world.engine.handle_received(world.now, id, part);
            while let Some(action) = world.engine.poll_action() {
                if let Action::Send { connection, buffer } = action {
                    let (bytes, mut buffer) = (buffer.len(), buffer);
                    buffer.clear();
                    world.engine.handle_sent(world.now, connection, bytes, Some(buffer));
                }
            }
            // Buffers grow in steps.
            let bytes = world.engine.metrics().input_bytes;
            assert!((*held..2 * held + 64).contains(&bytes) || *held == bytes, "{part:?}: {bytes}");
        }
        world.engine.handle_closed(world.now, id);
        assert_eq!(world.engine.metrics().memory_bytes, 0);
    }
}

/// Fails if it is called with the address of the proxy.
#[cfg(feature = "websocket")]
struct NotTheProxy;

#[cfg(feature = "websocket")]
impl Access for NotTheProxy {
    fn may_stay(&mut self, _: Now, peer: &Peer) -> Result<(), Cause> {
        assert_ne!(peer.address.map(|address| address.port()), Some(1), "the address of the proxy");
        Ok(())
    }

    fn gone(&mut self, _: Now, peer: &Peer, _: u64, _: bool) {
        assert_ne!(
            peer.address.map(|address| address.port()),
            Some(1),
            "the proxy was never counted"
        );
    }

    fn authenticate(&mut self, _: Now, _: u64, who: &Credentials<'_>) -> Authentication {
        assert_ne!(who.address.map(|address| address.port()), Some(1), "the address of the proxy");
        Authentication::Granted(Grant::default())
    }
}

#[test]
#[cfg(feature = "websocket")]
fn a_client_behind_a_proxy_is_never_counted_as_the_proxy_however_its_bytes_are_split() {
    let mut connect = Vec::new();
    let packet = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c";
    connect.extend(
        b"PROXY TCP4 192.0.2.1 192.0.2.2 7 8\r\nGET /mqtt HTTP/1.1\r\nUpgrade: websocket\r\n\
          Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x82\x8f\0\0\0\0",
    );
    connect.extend(packet);
    let good = connect.len();
    connect.extend(b"\x81\x80\0\0\0\0"); // a text frame
    for (bytes, is_let_in) in [(good, true), (connect.len(), false), (20, false)] {
        let mut world = World::with(|_| {}, Box::new(NotTheProxy));
        let peer = open_to_proxied_pages(&mut world);
        let id = world.engine.handle_accepted(world.now, peer).expect("accepted");
        world.engine.handle_received(world.now, id, &connect[..bytes]);
        assert_eq!(world.engine.metrics().clients_connected, u64::from(is_let_in));
        world.engine.handle_closed(world.now, id);
    }
}
