//! The budget of a turn: no input of one client takes more steps of a turn than the budget, and other
//! clients are served meanwhile. Each of these inputs would take seconds of one turn without a budget.

use super::durability::{kept, kept_pair};
use super::*;
use crate::base::limits;
use crate::engine::work::{BYTES_PER_STEP, TURN_STEPS};
use crate::storage::commit::StoreState;
use crate::wire::{Auth, Disconnect, PacketType, Unsubscribe, UnsubscribeFilters};

/// Twice the largest undivided piece of work: each of the two parts of a turn ends with one.
const PIECES_MAX: u32 = 2 * 2_048;

/// The number of bytes that an executor reads at a time.
const READ_BYTES: usize = 64 * 1024;

impl World {
    /// Receives bytes as an executor reads them: one buffer a turn, and none while the socket is not
    /// read. `between` is called after each turn.
    fn stream(&mut self, id: ConnectionId, bytes: &[u8], mut between: impl FnMut(&mut World)) {
        let mut rest = bytes;
        for _ in 0..1_000_000 {
            if !rest.is_empty() && !self.paused.contains(&id) && !self.closed.contains(&id) {
                let (read, left) = rest.split_at(rest.len().min(READ_BYTES));
                rest = left;
                self.engine.handle_received(self.now, id, read);
            }
            self.turn();
            between(self);
            let is_idle = !self.engine.poll_timeout().is_some_and(|due| due.is_due(self.now));
            if self.closed.contains(&id) || rest.is_empty() && is_idle {
                return;
            }
            if !is_idle {
                self.engine.handle_timeout(self.now);
            }
        }
        panic!("the input is never processed");
    }

    /// Fails if a turn exceeded the budget since the last call.
    #[track_caller]
    fn assert_turns_are_bounded(&mut self) {
        self.assert_turns_are_bounded_besides_copying(0);
    }

    /// The same, for packets of so many bytes, which are copied at once.
    #[track_caller]
    fn assert_turns_are_bounded_besides_copying(&mut self, bytes: usize) {
        let steps = self.engine.work.take_turn_max();
        let bound = TURN_STEPS + PIECES_MAX + (bytes / BYTES_PER_STEP) as u32;
        assert!(steps <= bound, "{steps} steps in a turn");
    }

    fn keep_under(&mut self, publisher: ConnectionId, topic: &str) {
        let retained = Publish { retain: true, ..publish(topic, b"kept", Qos::AtMostOnce, 0) };
        self.send(publisher, Version::V5, &Packet::Publish(retained));
    }

    /// Sends filters by SUBSCRIBE, and returns the Reason Codes of SUBACK.
    fn subscribe_to_all(&mut self, id: ConnectionId, filters: &[String], qos: Qos) -> Vec<u8> {
        self.stream(id, &subscribe_packet(filters, qos), |_| {});
        let mut reasons = Vec::new();
        self.each_packet(id, Version::V5, |packet| {
            if let Packet::Suback(suback) = packet {
                reasons.extend_from_slice(suback.reasons);
            }
        });
        reasons
    }
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(Version::V5, &mut bytes);
    bytes
}

fn subscribe_packet(filters: &[String], qos: Qos) -> Vec<u8> {
    let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
    let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), options)).collect();
    encoded(&Packet::Subscribe(Subscribe {
        packet_identifier: identifier(1),
        subscription_identifier: None,
        user_properties: UserProperties::none(),
        filters: SubscribeFilters::list(&filters),
    }))
}

fn unsubscribe_packet(filters: &[String]) -> Vec<u8> {
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    encoded(&Packet::Unsubscribe(Unsubscribe {
        packet_identifier: identifier(2),
        user_properties: UserProperties::none(),
        filters: UnsubscribeFilters::list(&filters),
    }))
}

fn numbered(count: usize, name: impl Fn(usize) -> String) -> Vec<String> {
    (0..count).map(name).collect()
}

#[test]
fn a_subscribe_of_110_000_filters_takes_many_turns_and_others_are_served_in_each() {
    let mut world = World::new();
    let (hostile, other) = (world.connect(&Client::v5("h")), world.connect(&Client::v5("o")));
    for topic in numbered(1_000, |n| format!("{n}")) {
        world.keep_under(other, &topic);
    }
    world.engine.work.take_turn_max();
    let filters = numbered(110_000, |n| format!("{n}"));
    let (mut turns, mut answered) = (0, 0);
    world.stream(hostile, &subscribe_packet(&filters, Qos::AtMostOnce), |world| {
        turns += 1;
        world.engine.handle_received(world.now, other, b"\xC0\x00");
        world.turn();
        answered += world.packets(other, Version::V5).len();
    });
    assert!(turns > 10 && answered == turns, "{answered} answers in {turns} turns");
    world.assert_turns_are_bounded();
    let (mut reasons, mut retained) = (Vec::new(), 0);
    world.each_packet(hostile, Version::V5, |packet| match packet {
        Packet::Suback(suback) => reasons.extend_from_slice(suback.reasons),
        Packet::Publish(_) => retained += 1,
        other => panic!("{other:?}"),
    });
    let filters_max = world.engine.config.limits.subscribe_filters_max as usize;
    assert_eq!(reasons.len(), 110_000);
    assert!(reasons[..filters_max].iter().all(|&reason| reason == 0));
    assert!(reasons[filters_max..].iter().all(|&reason| reason == 0x97));
    assert_eq!(retained, 1_000);
    assert_eq!(world.engine.metrics().packets_divided, 1);
}

#[test]
fn a_large_subscribe_that_breaks_the_protocol_at_its_end_changes_nothing() {
    let mut world = World::new();
    let hostile = world.connect(&Client::v5("h"));
    let mut filters = numbered(200_000, |n| format!("{n}"));
    filters.push("a/#/b".to_owned());
    let memory_bytes = world.engine.metrics().memory_bytes;
    let mut most = 0;
    let packet = subscribe_packet(&filters, Qos::AtMostOnce);
    world.stream(hostile, &packet, |world| {
        most = most.max(world.engine.metrics().subscriptions);
    });
    assert_eq!(most, 0);
    assert!(world.closed.contains(&hostile));
    assert!(
        world.engine.metrics().memory_bytes < memory_bytes,
        "the memory of the packet is released"
    );
    world.assert_turns_are_bounded_besides_copying(packet.len());
}

#[test]
fn an_unsubscribe_of_10_000_filters_does_not_walk_the_queue_for_each() {
    let mut world = World::new();
    let mut filters = numbered(9_990, |n| format!("f/{n}"));
    filters.extend(numbered(10, |n| format!("$share/g{n}/s/{n}")));
    let (hostile, publisher) =
        (world.connect(&Client::persistent("h")), world.connect(&Client::v5("p")));
    assert!(world.subscribe_to_all(hostile, &filters, Qos::AtLeastOnce).iter().all(|&r| r == 1));
    world.stuck.insert(hostile);
    for _ in 0..20_000 {
        world.publish(publisher, "s/1", b"x", Qos::AtMostOnce, 0);
        world.publish(publisher, "s/1", b"x", Qos::AtLeastOnce, 1);
    }
    world.engine.work.take_turn_max();
    world.stream(hostile, &unsubscribe_packet(&filters), |_| {});
    world.assert_turns_are_bounded();
    assert_eq!(world.engine.metrics().subscriptions, 0);
}

#[test]
fn sixty_thousand_open_exchanges_are_ended_one_by_one_in_constant_time() {
    let mut world = kept();
    let mut client = Client::v5("h");
    client.version = Version::V311;
    client.clean_start = false;
    let hostile = world.accept();
    world.send_connect(hostile, &client);
    world.store_all();
    for number in 1..=65_535 {
        let publish = publish("t", b"", Qos::ExactlyOnce, number);
        let mut bytes = Vec::new();
        Packet::Publish(publish).encode(Version::V311, &mut bytes);
        world.engine.handle_received(world.now, hostile, &bytes);
        if number % 500 == 0 {
            world.store_all();
        }
    }
    world.store_all();
    let open = |world: &World| {
        world.engine.sessions.iter().map(|(_, s)| s.inbound.as_ref().map_or(0, |i| i.used())).sum()
    };
    let before: usize = open(&world);
    assert_eq!(before, 65_535);
    let mut pubrels = Vec::new();
    for number in (1..=65_535).rev() {
        Packet::Pubrel(ack(number)).encode(Version::V311, &mut pubrels);
    }
    let mut world = world;
    for chunk in pubrels.chunks(READ_BYTES) {
        world.stream(hostile, chunk, |world| drop(world.store_all()));
    }
    world.store_all();
    let after: usize = open(&world);
    assert_eq!(after, 0);
    world.assert_turns_are_bounded();
}

#[test]
fn a_session_of_10_000_subscriptions_ends_over_several_turns_and_for_others_at_once() {
    let many = |of: &mut Settings| of.limits.wildcard_subscriptions_per_client_max = 10_000;
    let mut world = World::with(many, Box::new(AllowAll));
    let filters = numbered(10_000, |n| format!("{n}/+/x"));
    let hostile = world.connect(&Client::persistent("h"));
    world.subscribe_to_all(hostile, &filters, Qos::AtLeastOnce);
    world.cut(hostile);
    world.engine.work.take_turn_max();
    let again = world.accept();
    let connect = {
        let mut bytes = Vec::new();
        let connect = Connect {
            version: Version::V5,
            is_bridge: false,
            clean_start: true,
            keep_alive_s: 0,
            client_identifier: "h",
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties::default(),
        };
        Packet::Connect(connect).encode(Version::V5, &mut bytes);
        bytes
    };
    world.engine.handle_received(world.now, again, &connect);
    world.turn();
    let connack = world.packets(again, Version::V5);
    assert!(connack[0].contains("session_present: false"), "{connack:?}");
    assert!(world.engine.metrics().subscriptions > 0, "work is left for later turns");
    // No message reaches the ended session, nor the new one.
    world.publish(again, "1/a/x", b"x", Qos::AtLeastOnce, 1);
    world.settle();
    assert!(world.payloads(again).is_empty());
    assert_eq!(world.engine.metrics().subscriptions, 0);
    assert_eq!(world.engine.sessions.len(), 1);
    world.assert_turns_are_bounded();
}

#[test]
fn messages_of_a_leaving_group_member_go_to_the_others_over_several_turns() {
    let mut world = World::new();
    let leaver = world.connect(&Client::persistent("l"));
    world.subscribe(leaver, "$share/g/t", Qos::AtLeastOnce);
    let publisher = world.connect(&Client::v5("p"));
    world.cut(leaver);
    for number in 0..20_000_u32 {
        world.publish(publisher, "t", &number.to_be_bytes(), Qos::AtLeastOnce, 1);
    }
    let other = world.connect(&Client::persistent("o"));
    world.subscribe(other, "$share/g/t", Qos::AtLeastOnce);
    world.cut(other);
    world.engine.work.take_turn_max();
    // Its session ends: the other member gets all its messages.
    let leaver = world.connect(&Client::v5("l"));
    world.settle();
    world.assert_turns_are_bounded();
    assert_eq!(world.engine.metrics().messages_queued, 20_000);
    assert_eq!(world.engine.metrics().drops.total(), 0);
    world.cut(leaver);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_not_read() {
    let mut world = World::new();
    let hostile = world.connect(&Client::v5("h"));
    let outbox_bytes_max = u64::from(world.engine.config.limits.outbox_bytes_max);
    let bound = outbox_bytes_max + 8 * READ_BYTES as u64;
    let mut pubrel = Vec::new();
    Packet::Pubrel(ack(7)).encode(Version::V5, &mut pubrel);
    let mut publish_1 = Vec::new();
    Packet::Publish(publish("t", b"", Qos::AtLeastOnce, 9)).encode(Version::V5, &mut publish_1);
    for packet in [b"\xC0\x00".to_vec(), pubrel, publish_1] {
        world.stuck.insert(hostile);
        let flood = packet.repeat(READ_BYTES / packet.len());
        let mut read = 0;
        while !world.paused.contains(&hostile) {
            world.engine.handle_received(world.now, hostile, &flood);
            world.settle();
            read += 1;
            assert!(read < 1_000, "reading must pause");
        }
        let memory_bytes = world.engine.metrics().memory_bytes;
        assert!(memory_bytes < bound, "{memory_bytes} bytes");
        world.unstick(hostile);
        assert!(!world.paused.contains(&hostile), "the client is read again");
        world.packets(hostile, Version::V5);
    }
    assert_eq!(world.engine.metrics().clients_unread, 3);
}

#[test]
fn keep_alive_ends_a_client_that_is_not_read_because_it_reads_nothing() {
    let mut world = World::new();
    let hostile = world.accept();
    world.send_connect_with_keep_alive(hostile, &Client::v5("h"), 10);
    world.stuck.insert(hostile);
    while !world.paused.contains(&hostile) {
        world.engine.handle_received(world.now, hostile, &b"\xC0\x00".repeat(READ_BYTES / 2));
        world.settle();
    }
    for _ in 0..20 {
        world.advance_ms(1_000);
    }
    assert!(world.closed.contains(&hostile));
}

#[test]
fn a_client_that_sends_little_is_served_before_one_that_sent_much() {
    let mut world = World::new();
    let hostile: Vec<ConnectionId> = (0..20)
        .map(|n| {
            let name = format!("h{n}");
            world.connect(&Client::v5(&name))
        })
        .collect();
    let modest = world.connect(&Client::v5("m"));
    let flood =
        encoded(&Packet::Publish(publish("t", b"", Qos::AtMostOnce, 0))).repeat(READ_BYTES / 7);
    for &id in &hostile {
        world.engine.handle_received(world.now, id, &flood);
    }
    world.engine.handle_received(world.now, modest, b"\xC0\x00");
    world.turn();
    world.turn();
    assert_eq!(world.packets(modest, Version::V5).len(), 1, "by the next turn");
    world.settle();
    world.assert_turns_are_bounded();
    assert!(world.engine.metrics().inputs_deferred > 0);
}

#[test]
fn deferred_input_is_processed_after_the_peer_has_closed() {
    let mut world = World::new();
    let (sender, other) = (world.connect(&Client::v5("s")), world.connect(&Client::v5("o")));
    let flood =
        encoded(&Packet::Publish(publish("t", b"", Qos::AtMostOnce, 0))).repeat(READ_BYTES / 7);
    for _ in 0..8 {
        if !world.paused.contains(&sender) {
            world.engine.handle_received(world.now, sender, &flood);
        }
    }
    let before = world.engine.metrics().publishes_received;
    world.engine.handle_closed(world.now, sender);
    assert!(world.engine.sessions.len() == 2 && other != sender);
    world.settle();
    let sent = READ_BYTES / 7;
    let after = world.engine.metrics().publishes_received;
    assert!(after > before && after.is_multiple_of(sent as u64), "{after}");
    assert_eq!(world.engine.metrics().clients_connected, 1);
}

#[test]
fn the_broker_does_not_wait_for_a_closed_peer_that_did_not_read_its_answers() {
    let mut world = World::new();
    let sender = world.connect(&Client::v5("s"));
    world.stuck.insert(sender);
    let flood = b"\xC0\x00".repeat(READ_BYTES / 2);
    for _ in 0..4 {
        world.engine.handle_received(world.now, sender, &flood);
    }
    world.turn();
    world.cut(sender);
    world.settle();
    assert_eq!(world.engine.metrics().clients_connected, 0);
    assert_eq!(world.engine.metrics().connections_open, 0);
}

#[test]
fn hundreds_of_sessions_that_end_at_one_moment_end_over_several_turns() {
    let mut world =
        World::with(|settings| settings.limits.connections_max = 5_000, Box::new(AllowAll));
    let filters = numbered(100, |n| format!("{n}/+"));
    for number in 0..400 {
        let name = format!("c{number}");
        let id = world.connect(&Client::persistent(&name));
        world.subscribe_to_all(id, &filters, Qos::AtMostOnce);
        world.cut(id);
    }
    world.engine.work.take_turn_max();
    world.advance_ms(4_000_000);
    for _ in 0..100 {
        world.advance_ms(60_000);
    }
    assert_eq!(world.engine.metrics().sessions_expired, 400);
    assert_eq!(world.engine.sessions.len(), 0);
    world.assert_turns_are_bounded();
}

#[test]
fn a_queue_of_expired_messages_is_skipped_over_several_turns() {
    let mut world = World::new();
    let (consumer, publisher) =
        (world.connect(&Client::persistent("c")), world.connect(&Client::v5("p")));
    world.subscribe(consumer, "t", Qos::AtLeastOnce);
    world.cut(consumer);
    for _ in 0..30_000 {
        let mut publish = publish("t", b"x", Qos::AtLeastOnce, 1);
        publish.properties.message_expiry_interval = Some(1);
        world.send(publisher, Version::V5, &Packet::Publish(publish));
    }
    world.advance_ms(2_000);
    world.engine.work.take_turn_max();
    world.connect(&Client::persistent("c"));
    world.settle();
    assert_eq!(world.engine.metrics().messages_queued, 0);
    world.assert_turns_are_bounded();
}

/// Frames of one byte each cost the most to unframe; what a later turn unframes is kept as it came, in order, and
/// is served although the peer has sent its last byte.
#[test]
#[cfg(feature = "websocket")]
fn a_flood_of_tiny_websocket_frames_is_unframed_over_several_turns_and_none_is_lost() {
    use crate::config::{Listener, Transport};
    let mut world = World::new();
    let mut listener = Listener::tcp("127.0.0.1:1".parse().expect("an address"));
    listener.transport = Transport::Ws;
    let policy = |listener| crate::transport::ListenerPolicy::new(listener, None).into();
    let plain = Listener::tcp("127.0.0.1:1".parse().expect("an address"));
    world.engine.set_listeners([policy(&plain), policy(&listener)].into());
    let reader = world.connect(&Client::v5("r"));
    world.subscribe(reader, "t", Qos::AtMostOnce);
    let peer = Peer { address: None, listener: 1 };
    let id = world.engine.handle_accepted(world.now, peer).expect("accepted");
    world.received.insert(id, Vec::new());
    let request = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    world.engine.handle_received(world.now, id, request);
    let mut mqtt = vec![0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'w'];
    for number in 0..30_000_u32 {
        let payload = number.to_be_bytes();
        mqtt.extend(encoded_v3(publish("t", &payload, Qos::AtMostOnce, 0)));
    }
    let framed: Vec<u8> = mqtt.iter().flat_map(|byte| [0x82, 0x81, 0, 0, 0, 0, *byte]).collect();
    world.engine.work.take_turn_max();
    let mut turns = 0;
    for bytes in framed.chunks(READ_BYTES) {
        world.engine.handle_received(world.now, id, bytes);
        turns += 1;
        if turns % 8 == 0 {
            world.turn();
        }
    }
    assert!(world.paused.contains(&id), "the socket is not read meanwhile");
    world.engine.handle_ended(world.now, id);
    world.settle();
    assert_eq!(world.payloads(reader).len(), 30_000);
    assert!(world.closed.contains(&id));
    assert_eq!(world.engine.metrics().input_bytes, 0);
    world.assert_turns_are_bounded_besides_copying(8 * READ_BYTES);
}

#[cfg(feature = "websocket")]
fn encoded_v3(publish: Publish<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet::Publish(publish).encode(Version::V311, &mut bytes);
    bytes
}

/// The largest legal packet of each type that a client may send, up to `bytes`: what a turn spends on
/// it must be bounded for any content. A new packet type needs its largest packet here.
fn largest(packet_type: PacketType, bytes: usize) -> Vec<Vec<u8>> {
    let text = "x".repeat(65_000);
    let deep = "a/".repeat(120) + "a";
    let mut section = Vec::new();
    while section.len() < bytes / 2 {
        UserProperties::push(&mut section, "", "");
    }
    let user_properties = UserProperties::encoded(&section);
    match packet_type {
        PacketType::Connect => Vec::new(), // a client sends CONNECT only once
        PacketType::Publish => {
            let payload = vec![b'x'; bytes];
            let mut with_properties = publish("t", b"", Qos::AtMostOnce, 0);
            with_properties.properties.user_properties = user_properties;
            let each = [
                publish("t", &payload, Qos::ExactlyOnce, 1),
                publish(&text, b"x", Qos::AtLeastOnce, 2),
                publish(&deep, b"x", Qos::AtMostOnce, 0),
                with_properties,
            ];
            each.map(|publish| encoded(&Packet::Publish(publish))).into()
        }
        PacketType::Puback => vec![encoded(&Packet::Puback(ack(9)))],
        PacketType::Pubrec => vec![encoded(&Packet::Pubrec(ack(9)))],
        PacketType::Pubrel => vec![encoded(&Packet::Pubrel(ack(9)))],
        PacketType::Pubcomp => vec![encoded(&Packet::Pubcomp(ack(9)))],
        PacketType::Subscribe => vec![
            subscribe_packet(&numbered(bytes / 4, |_| "+".to_owned()), Qos::AtMostOnce),
            subscribe_packet(&numbered(bytes / 9, |n| format!("{n:06}")), Qos::ExactlyOnce),
            subscribe_packet(&numbered(bytes / 245, |n| format!("{n}{deep}")), Qos::AtLeastOnce),
            subscribe_packet(&numbered(bytes / 65_003, |_| text.clone()), Qos::AtLeastOnce),
        ],
        PacketType::Unsubscribe => vec![
            unsubscribe_packet(&numbered(bytes / 3, |_| "+".to_owned())),
            unsubscribe_packet(&numbered(bytes / 8, |n| format!("{n:06}"))),
        ],
        PacketType::Pingreq => vec![encoded(&Packet::Pingreq).repeat(bytes / 2)],
        PacketType::Disconnect => {
            vec![encoded(&Packet::Disconnect(Disconnect {
                user_properties,
                ..Disconnect::default()
            }))]
        }
        PacketType::Auth => vec![encoded(&Packet::Auth(Auth {
            reason: ReasonCode::Reauthenticate,
            authentication_method: Some("m"),
            authentication_data: Some(text.as_bytes()),
            reason_string: None,
            user_properties,
        }))],
        // The server's: a client that sends one is disconnected.
        PacketType::Connack | PacketType::Suback | PacketType::Unsuback | PacketType::Pingresp => {
            vec![vec![(packet_type as u8) << 4, 0]]
        }
    }
}

#[test]
fn no_packet_of_any_type_takes_more_than_the_budget_of_a_turn() {
    let types = (1..=15).filter_map(|number| PacketType::from_first_byte(number << 4));
    let types: Vec<PacketType> = types.collect();
    assert_eq!(types.len(), 15);
    for packet_type in types {
        for packet in largest(packet_type, 1 << 20) {
            let mut world = World::new();
            let hostile = world.connect(&Client::v5("h"));
            let other = world.connect(&Client::v5("o"));
            world.subscribe(other, "#", Qos::ExactlyOnce);
            world.engine.work.take_turn_max();
            // As a whole, as if it had been kept meanwhile; and again behind itself.
            for _ in 0..2 {
                if world.closed.contains(&hostile) || world.paused.contains(&hostile) {
                    break;
                }
                world.engine.handle_received(world.now, hostile, &packet);
                world.turn();
            }
            world.settle();
            // Copying the bytes of the packet, twice, cannot be divided.
            let copied = 4 * (packet.len() / BYTES_PER_STEP) as u32;
            let steps = world.engine.work.take_turn_max();
            let bound = TURN_STEPS + PIECES_MAX + copied;
            assert!(steps <= bound, "{packet_type:?} of {} bytes: {steps} steps", packet.len());
            assert!(
                world.closed.contains(&hostile) || world.engine.metrics().memory_bytes < 64 << 20
            );
        }
    }
    const { assert!(limits::READ_AHEAD_BYTES >= READ_BYTES) };
}

#[cfg(feature = "admin")]
#[test]
fn questions_of_operators_take_a_small_part_of_each_turn() {
    use crate::control::question::{ClientFilter, ListingPlace, PageRequest, Question, TopBy};
    let change = |of: &mut Settings| {
        of.limits.connections_max = 10_000;
        of.limits.wildcard_subscriptions_per_client_max = 10_000;
    };
    let mut world = World::with(change, Box::new(AllowAll));
    let holder = world.connect(&Client::persistent("holder"));
    world.subscribe_to_all(holder, &numbered(10_000, |n| format!("{n}/+")), Qos::AtLeastOnce);
    world.cut(holder);
    let publisher = world.connect(&Client::v5("p"));
    for number in 0..5_000 {
        world.keep_under(publisher, &format!("{number}/{}", "r".repeat(200)));
        world.publish(publisher, "1/x", &[0; 1_000], Qos::AtLeastOnce, 1);
        let id = world.connect(&Client::persistent(&format!("{number}{}", "c".repeat(500))));
        world.subscribe(id, "x", Qos::AtMostOnce);
        world.cut(id);
    }
    world.engine.work.take_turn_max();
    let page = PageRequest { from: ListingPlace::default(), limit: 1_000 };
    let filter = Box::<ClientFilter>::default();
    let (x, holder, all) = (|| "x".into(), || "holder".into(), || "#".into());
    let clients = world.begin_question(|reply| Question::Clients { filter, page, reply });
    let by = TopBy::Queued;
    let top = world.begin_question(|reply| Question::TopClients { by, count: 1_000, reply });
    let subscriptions = world.begin_question(|reply| Question::Subscriptions {
        client_identifier: Some(holder()),
        page,
        reply,
    });
    let queue = world.begin_question(|reply| Question::Queue {
        client_identifier: holder(),
        from: 0,
        limit: 1_000,
        payload_bytes_max: 1_000,
        reply,
    });
    let recipients =
        world.begin_question(|reply| Question::Recipients { topic: x(), limit: 1_000, reply });
    let retained = world.begin_question(|reply| Question::Retained {
        filter: all(),
        from: None,
        limit: 1_000,
        reply,
    });
    let mut turns = 0;
    while world.engine.has_commands() {
        world.turn();
        turns += 1;
        let steps = world.engine.work.take_turn_max();
        assert!(steps <= 2_048, "{steps} steps in a turn");
    }
    // 1,000 clients alone have 500 bytes each.
    assert!(turns > 30, "{turns} turns");
    assert!(clients.try_next().is_some() && top.try_next().is_some());
    assert!(subscriptions.try_next().is_some() && queue.try_next().is_some());
    assert!(recipients.try_next().is_some() && retained.try_next().is_some());
    let cleared = world.begin_question(|reply| Question::ClearRetained {
        filter: all(),
        messages_max: u64::MAX,
        reply,
    });
    world.settle();
    let (_, cleared) = cleared.try_next().expect("it is answered");
    assert_eq!(cleared.expect("it is not refused").messages, 5_000);
    world.assert_turns_are_bounded();
}

/// The store reports all batches of a busy second at once.
#[test]
fn answers_whose_records_are_stored_at_once_are_sent_over_several_turns() {
    const PUBLISHERS: usize = 12;
    const MESSAGES: u16 = 2_000;
    let (mut world, consumer, first) = kept_pair(Qos::AtLeastOnce);
    world.cut(consumer);
    world.store_all();
    let mut publishers = vec![first];
    publishers
        .extend((1..PUBLISHERS).map(|number| world.connect(&Client::v5(&format!("p{number}")))));
    for number in 1..=MESSAGES {
        for &publisher in &publishers {
            world.publish(publisher, "t", b"m", Qos::AtLeastOnce, number);
        }
    }
    let mut last = 0;
    while let Some(batch) = world.engine.poll_records() {
        last = batch.number;
    }
    assert!(world.packets(first, Version::V5).is_empty(), "everything waits for the store");
    world.engine.work.take_turn_max();
    let stored = StoreState { up_to: last, ..StoreState::default() };
    world.engine.handle_stored(world.now, stored);
    let mut counts = vec![0; PUBLISHERS];
    let mut turns = 0;
    loop {
        world.turn();
        turns += 1;
        for (count, &publisher) in counts.iter_mut().zip(&publishers) {
            for answer in world.packets(publisher, Version::V5) {
                *count += 1;
                assert!(answer.contains(&format!("PacketIdentifier({count})")), "{answer}");
            }
        }
        if !world.engine.poll_timeout().is_some_and(|due| due.is_due(world.now)) {
            break;
        }
        world.engine.handle_timeout(world.now);
    }
    assert_eq!(counts, vec![MESSAGES; PUBLISHERS]);
    assert!(turns > 1, "{turns}");
    world.assert_turns_are_bounded();
}
