//! What a link does with the packets of both sides.

mod refusals;
mod services;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use flume::Receiver;
use proptest::prelude::*;

use super::mapping::{InMap, OutMap};
use super::{Attempt, Counters, Event, Link, Report, SESSION_PREFIX, Start, Terms};
use crate::base::send_buffer::SendBuffer;
use crate::config::bridge::{Accepts, InRule, OutRule, Retained};
use crate::transport::Fault;
use crate::wire::{
    self, Ack, Connack, ConnackProperties, Connect, Disconnect, Frame, PINGREQ, PINGRESP, Packet,
    PacketIdentifier, Publish, PublishProperties, Qos, ReasonCode, Suback, UserProperties, Version,
};

const BROKER: &str = "0000000a";

const NOTHING: &[u8] = &[];

fn terms() -> Terms {
    let out = OutRule {
        filter: "site/#".to_owned(),
        qos_max: 2,
        local_prefix: "site/".to_owned(),
        remote_prefix: "plant7/".to_owned(),
        to: String::new(),
    };
    let r#in = InRule {
        filter: "cmd/#".to_owned(),
        qos: 1,
        local_prefix: "do/".to_owned(),
        remote_prefix: "cmd/".to_owned(),
        to: String::new(),
    };
    Terms {
        session: format!("{SESSION_PREFIX}far").into(),
        known_as: None,
        topic_alias_maximum: 0,
        unsubscribes_out: false,
        user: None,
        client_identifier: "ringmq-far".into(),
        keep_alive_s: 60,
        session_expiry_s: 600,
        retained: Retained::Initial,
        hops_max: 8,
        broker: BROKER.into(),
        packet_bytes_max: 100_000,
        sent_bytes_max: None,
        receive_maximum: 100,
        out: OutMap::new(&[out]),
        r#in: InMap::new(&[r#in]),
        group: None,
        echoes: Some(Arc::default()),
        accepts: Accepts::default(),
        notification: None,
    }
}

/// A link between a session and a far broker, which the test plays.
struct Between {
    link: Link,
    events: Receiver<Event>,
    counters: Arc<Counters>,
    version: Version,
}

impl Between {
    /// A link that has sent CONNECT, and the CONNECT.
    fn connecting(version: Version) -> (Self, Vec<u8>) {
        let (sender, events) = flume::unbounded();
        let counters = Arc::new(Counters::default());
        let report = Report::new(sender, Arc::clone(&counters));
        let attempt = Attempt {
            version,
            is_bridge: false,
            no_local: true,
            start: Start::Resume,
            username: None,
            password: None,
        };
        let link = Link::connect(Arc::new(terms()), attempt, report);
        let mut between = Self { link, events, counters, version };
        let first = between.says(&[]);
        (between, first)
    }

    /// A link that the far broker has accepted so.
    fn accepted(version: Version, properties: ConnackProperties<'_>) -> Self {
        let (mut between, _) = Self::connecting(version);
        let connack = Connack { session_present: true, reason: ReasonCode::Success, properties };
        between.hears(&encoded(&Packet::Connack(connack), version)).expect("accepted");
        between.says(&[]); // SUBSCRIBE
        between
    }

    fn open(version: Version) -> Self {
        Self::accepted(version, ConnackProperties::default())
    }

    /// What the session gets when the far broker sends these bytes.
    fn hears(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut plain = Vec::new();
        self.link.receive(bytes, &mut plain).map(|()| plain)
    }

    /// What the far broker gets when the session sends these bytes.
    fn says(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (mut buffer, mut scratch) = (SendBuffer::default(), Vec::new());
        buffer.append(|out| out.extend_from_slice(bytes));
        self.link.wrap(&mut buffer, &mut scratch);
        let mut sent = Vec::new();
        buffer.take(usize::MAX, &mut sent);
        sent
    }

    /// What the far broker gets for a packet of the session.
    fn passes_out(&mut self, packet: &Packet<'_>) -> Vec<u8> {
        self.says(&encoded(packet, Version::V5))
    }

    /// What the session gets for a packet of the far broker.
    fn passes_in(&mut self, packet: &Packet<'_>) -> Vec<u8> {
        self.hears(&encoded(packet, self.version)).expect("a valid packet")
    }
}

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

fn identifier(number: u16) -> PacketIdentifier {
    PacketIdentifier::new(number).expect("not zero")
}

fn ack(number: u16, reason: ReasonCode) -> Ack<'static> {
    Ack::new(identifier(number), reason)
}

fn publish(topic: &str, qos: Qos, number: u16) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_identifier: (qos != Qos::AtMostOnce).then(|| identifier(number)),
        properties: PublishProperties::default(),
        payload: b"x",
    }
}

/// The only packet in these bytes.
fn one(bytes: &[u8], version: Version) -> Packet<'_> {
    match wire::frame(bytes, usize::MAX) {
        Ok(Frame::Complete { total, .. }) if total == bytes.len() => {
            wire::decode(bytes, version).expect("a valid packet")
        }
        other => panic!("{other:?} in {bytes:02x?}"),
    }
}

/// The packet of a PUBLISH, with the path of this broker if `version` has properties.
#[track_caller]
fn is_publish(bytes: &[u8], version: Version, expected: &Publish<'_>) {
    let mut path = Vec::new();
    if version == Version::V5 {
        UserProperties::push(&mut path, "ringmq-path", BROKER);
    }
    let properties = PublishProperties {
        user_properties: UserProperties::encoded(&path),
        ..PublishProperties::default()
    };
    let expected = Publish { properties, ..expected.clone() };
    assert_eq!(bytes, encoded(&Packet::Publish(expected), version));
}

#[test]
fn the_first_packet_to_the_far_broker_is_connect_and_its_connack_opens_the_session() {
    for version in [Version::V5, Version::V311] {
        let (mut between, connect) = Between::connecting(version);
        match one(&connect, version) {
            Packet::Connect(Connect { client_identifier, keep_alive_s, clean_start, .. }) => {
                assert_eq!(
                    (client_identifier, keep_alive_s, clean_start),
                    ("ringmq-far", 60, false)
                );
            }
            other => panic!("{other:?}"),
        }
        let connack = Connack {
            session_present: false,
            reason: ReasonCode::Success,
            properties: ConnackProperties::default(),
        };
        let session = between.passes_in(&Packet::Connack(connack));
        let Ok(Frame::Complete { total, .. }) = wire::frame(&session, usize::MAX) else {
            panic!("{session:02x?}")
        };
        match one(&session[..total], Version::V5) {
            Packet::Connect(connect) => assert_eq!(connect.client_identifier, "$bridge/far"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(one(&session[total..], Version::V5), Packet::Subscribe(_)));
        let subscribe = between.says(&[]);
        match one(&subscribe, version) {
            Packet::Subscribe(subscribe) => {
                let filters: Vec<_> = subscribe.filters.iter().map(|(of, _)| of).collect();
                assert_eq!(filters, ["cmd/#"]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(between.events.try_recv(), Ok(Event::Connected { session_present: false }));
    }
}

#[test]
fn a_refused_connection_is_a_fault_and_tells_the_code() {
    for (version, bytes, code) in [
        (Version::V5, &[0x20, 3, 0, 0x87, 0][..], 0x87),
        (Version::V5, &[0x20, 2, 0, 1], 1),
        (Version::V311, &[0x20, 2, 0, 5], 5),
    ] {
        let (mut between, _) = Between::connecting(version);
        between.hears(bytes).expect_err("refused");
        match between.events.try_recv() {
            Ok(Event::Refused { code: told, .. }) => assert_eq!(told, code),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn messages_are_mapped_and_keep_qos_dup_and_retain_in_both_directions() {
    for version in [Version::V5, Version::V311] {
        let mut between = Between::open(version);
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for (dup, retain) in [(false, false), (qos != Qos::AtMostOnce, true)] {
                let of = |topic| Publish { dup, retain, ..publish(topic, qos, 7) };
                let far = between.passes_out(&Packet::Publish(of("site/a")));
                is_publish(&far, version, &of("plant7/a"));
                let session = between.passes_in(&Packet::Publish(of("cmd/b")));
                is_publish(&session, Version::V5, &of("do/b"));
            }
        }
    }
}

#[test]
fn each_acknowledgement_is_translated_in_both_directions() {
    type Make = fn(Ack<'static>) -> Packet<'static>;
    let kinds: [Make; 4] = [Packet::Puback, Packet::Pubrec, Packet::Pubrel, Packet::Pubcomp];
    for version in [Version::V5, Version::V311, Version::V31] {
        let mut between = Between::open(version);
        for make in kinds {
            for number in [1, 255, 256, u16::MAX] {
                let success = make(ack(number, ReasonCode::Success));
                assert_eq!(between.passes_out(&success), encoded(&success, version));
                assert_eq!(between.passes_in(&success), encoded(&success, Version::V5));
            }
        }
        let denied = ack(3, ReasonCode::NotAuthorized);
        let expected = match version {
            Version::V5 => denied.clone(),
            _ => ack(3, ReasonCode::Success),
        };
        let far = between.passes_out(&Packet::Puback(denied));
        assert_eq!(far, encoded(&Packet::Puback(expected), version));
    }
}

#[test]
fn a_message_that_no_rule_maps_is_acknowledged_and_not_passed() {
    let mut between = Between::open(Version::V5);
    assert_eq!(between.passes_in(&Packet::Publish(publish("other", Qos::AtLeastOnce, 4))), NOTHING);
    let puback = Packet::Puback(ack(4, ReasonCode::Success));
    assert_eq!(between.says(&[]), encoded(&puback, Version::V5));
    assert_eq!(between.passes_in(&Packet::Publish(publish("other", Qos::ExactlyOnce, 5))), NOTHING);
    let pubrec = Packet::Pubrec(ack(5, ReasonCode::Success));
    assert_eq!(between.says(&[]), encoded(&pubrec, Version::V5));
    assert_eq!(
        between.passes_out(&Packet::Publish(publish("other", Qos::AtLeastOnce, 6))),
        NOTHING
    );
    assert!(matches!(one(&between.hears(&[]).expect("open"), Version::V5), Packet::Puback(_)));
    assert_eq!(between.counters.unmapped.load(Ordering::Relaxed), 3);
}

#[test]
fn an_exchange_of_qos_2_is_completed_here_where_the_far_broker_has_only_qos_1() {
    let properties = ConnackProperties { maximum_qos: Some(1), ..ConnackProperties::default() };
    let mut between = Between::accepted(Version::V5, properties);
    let far = between.passes_out(&Packet::Publish(publish("site/a", Qos::ExactlyOnce, 9)));
    is_publish(&far, Version::V5, &publish("plant7/a", Qos::AtLeastOnce, 9));
    let pubrec = between.passes_in(&Packet::Puback(ack(9, ReasonCode::Success)));
    assert_eq!(pubrec, encoded(&Packet::Pubrec(ack(9, ReasonCode::Success)), Version::V5));
    assert_eq!(between.passes_out(&Packet::Pubrel(ack(9, ReasonCode::Success))), NOTHING);
    let pubcomp = between.hears(&[]).expect("open");
    assert_eq!(pubcomp, encoded(&Packet::Pubcomp(ack(9, ReasonCode::Success)), Version::V5));
}

#[test]
fn a_message_that_comes_back_is_acknowledged_counted_and_not_passed_in_either_direction() {
    let mut between = Between::open(Version::V5);
    let path = |path: &str| {
        let mut section = Vec::new();
        UserProperties::push(&mut section, "ringmq-path", path);
        section
    };
    let of = |topic, section| Publish {
        properties: PublishProperties {
            user_properties: UserProperties::encoded(section),
            ..PublishProperties::default()
        },
        ..publish(topic, Qos::AtLeastOnce, 8)
    };
    let section = path("0000000b,0000000a");
    assert_eq!(between.passes_in(&Packet::Publish(of("cmd/a", &section))), NOTHING);
    assert!(matches!(one(&between.says(&[]), Version::V5), Packet::Puback(_)));
    let section = path("0000000a,0000000b");
    assert_eq!(between.passes_out(&Packet::Publish(of("site/a", &section))), NOTHING);
    assert!(matches!(one(&between.hears(&[]).expect("open"), Version::V5), Packet::Puback(_)));
    assert_eq!(between.counters.loops.load(Ordering::Relaxed), 2);
    let section = path("0000000b,0000000a");
    assert!(!between.passes_out(&Packet::Publish(of("site/a", &section))).is_empty());
}

#[test]
fn a_message_larger_than_the_far_broker_accepts_is_done_with_and_counted() {
    let properties =
        ConnackProperties { maximum_packet_size: Some(100), ..ConnackProperties::default() };
    let mut between = Between::accepted(Version::V5, properties);
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let large = Publish { payload: &[b'x'; 100], ..publish("site/a", qos, 3) };
        assert_eq!(between.passes_out(&Packet::Publish(large)), NOTHING);
        let session = between.hears(&[]).expect("open");
        match qos {
            Qos::AtMostOnce => assert_eq!(session, NOTHING),
            _ => assert!(matches!(
                one(&session, Version::V5),
                Packet::Puback(ack) | Packet::Pubrec(ack) if ack.reason.is_error()
            )),
        }
    }
    assert_eq!(between.counters.too_large.load(Ordering::Relaxed), 3);
}

#[test]
fn packets_that_a_server_does_not_send_and_malformed_ones_are_faults() {
    for bytes in [
        &b"\x00\x00"[..],
        b"\x10\x00",
        b"\x82\x05\x00\x01\x00\x01a",
        b"\xC0\x00",
        b"\x30\x02\x00\x05",
        b"\x36\x05\x00\x01a\x00\x01",
        b"\x32\x05\x00\x01a\x00\x00",
        b"\x40\x02\x00\x00",
        b"\x60\x02\x00\x01",
        b"\x20\x03\x00\x00\x00",
        b"\x30\xff\xff\xff\xff\x7f",
        b"\x30\xff\xff\xff\x7f",
        b"\xF0\x00",
    ] {
        for version in [Version::V5, Version::V311] {
            assert!(Between::open(version).hears(bytes).is_err(), "{bytes:02x?} {version:?}");
        }
    }
}

#[test]
fn the_end_of_the_session_is_a_plain_disconnect_to_the_far_broker_and_the_last_packet() {
    let mut between = Between::open(Version::V5);
    let disconnect = Disconnect { reason: ReasonCode::ServerShuttingDown, ..Disconnect::default() };
    let far = between.passes_out(&Packet::Disconnect(disconnect));
    assert_eq!(far, [0xE0, 0]);
    assert_eq!(between.hears(&[0xD0, 0]).expect("ignored"), NOTHING);
}

#[test]
fn silence_is_ended_by_pingreq_and_a_missing_answer_by_a_fault() {
    let mut between = Between::open(Version::V311);
    let mut ticks = 0;
    while between.says(&[]) != PINGREQ {
        between.link.tick().expect("alive");
        ticks += 1;
        assert!(ticks < 4, "later than the Keep Alive");
    }
    between.hears(&PINGRESP).expect("valid");
    for _ in 0..2 {
        between.link.tick().expect("answered");
    }
    while between.says(&[]) != PINGREQ {
        between.link.tick().expect("alive");
    }
    between.link.tick().expect_err("not answered");
}

/// The packets in these bytes: their types, and the filters that they name.
fn filters(bytes: &[u8], version: Version) -> Vec<(&'static str, Vec<String>)> {
    let (mut all, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let Ok(Frame::Complete { total, .. }) = wire::frame(rest, usize::MAX) else {
            panic!("{bytes:02x?}")
        };
        all.push(match one(&rest[..total], version) {
            Packet::Subscribe(of) => {
                ("SUBSCRIBE", of.filters.iter().map(|(filter, _)| filter.to_owned()).collect())
            }
            Packet::Unsubscribe(of) => {
                ("UNSUBSCRIBE", of.filters.iter().map(str::to_owned).collect())
            }
            Packet::Disconnect(of) => match of.session_expiry_interval {
                Some(0) => ("DISCONNECT and end", Vec::new()),
                _ => ("DISCONNECT", Vec::new()),
            },
            other => panic!("{other:?}"),
        });
        rest = &rest[total..];
    }
    all
}

fn named(packet: &'static str, filters: &[&str]) -> (&'static str, Vec<String>) {
    (packet, filters.iter().map(|&filter| filter.to_owned()).collect())
}

/// SUBACK and UNSUBACK for one filter each.
const SUBACK_3: &[u8] = b"\x90\x03\xff\xff\x01";
const UNSUBACK_3: &[u8] = b"\xB0\x02\xff\xfe";

#[test]
fn other_filters_are_asked_for_on_both_sides_and_messages_take_the_other_rules_at_once() {
    let mut between = Between::open(Version::V311);
    between.hears(SUBACK_3).expect("valid");
    let rule = |filter: &str| OutRule {
        filter: filter.to_owned(),
        qos_max: 2,
        local_prefix: String::new(),
        remote_prefix: "x/".to_owned(),
        to: String::new(),
    };
    let other = InRule {
        filter: "b".to_owned(),
        qos: 1,
        local_prefix: String::new(),
        remote_prefix: String::new(),
        to: String::new(),
    };
    let other = Terms { out: OutMap::new(&[rule("new")]), r#in: InMap::new(&[other]), ..terms() };
    between.link.change(Arc::new(other));
    let expected = [named("SUBSCRIBE", &["new"]), named("UNSUBSCRIBE", &["site/#"])];
    assert_eq!(filters(&between.hears(&[]).expect("open"), Version::V5), expected);
    let expected = [named("SUBSCRIBE", &["b"]), named("UNSUBSCRIBE", &["cmd/#"])];
    assert_eq!(filters(&between.says(&[]), Version::V311), expected);
    let far = between.passes_out(&Packet::Publish(publish("new", Qos::AtLeastOnce, 1)));
    is_publish(&far, Version::V311, &publish("x/new", Qos::AtLeastOnce, 1));
    while between.events.try_recv().is_ok() {}
    between.hears(UNSUBACK_3).expect("valid");
    assert_eq!(between.events.try_recv(), Ok(Event::Unsubscribed(vec!["cmd/#".into()])));
    assert!(between.link.wants("b") && !between.link.wants("cmd/#"));
}

#[test]
fn a_bridge_that_is_given_up_leaves_nothing_at_the_far_broker_and_sends_nothing_more() {
    for (version, suback, unsuback) in [
        (Version::V5, &b"\x90\x04\xff\xff\x00\x01"[..], &b"\xB0\x04\xff\xfe\x00\x00"[..]),
        (Version::V311, SUBACK_3, UNSUBACK_3),
    ] {
        let mut between = Between::open(version);
        between.hears(suback).expect("valid");
        between.link.give_up();
        let expected = [named("UNSUBSCRIBE", &["cmd/#"])];
        assert_eq!(filters(&between.says(&[]), version), expected);
        while between.events.try_recv().is_ok() {}
        between.hears(unsuback).expect("valid");
        let end = if version == Version::V5 { "DISCONNECT and end" } else { "DISCONNECT" };
        assert_eq!(filters(&between.says(&[]), version), [named(end, &[])]);
        let told: Vec<Event> = between.events.try_iter().collect();
        assert_eq!(told, [Event::Unsubscribed(vec!["cmd/#".into()]), Event::GivenUp]);
        let late = Packet::Publish(publish("site/a", Qos::AtLeastOnce, 1));
        assert_eq!(between.passes_out(&late), NOTHING);
        assert!(!between.link.wants("cmd/#"));
    }
}

/// What a far broker may send on an open connection.
fn of_far(version: Version) -> impl Strategy<Value = Vec<u8>> {
    let qos = prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
    let topic = prop::sample::select(vec!["cmd/a", "cmd/b/c", "other", "cmd/"]);
    let message = (qos, topic, 1..u16::MAX, prop::collection::vec(any::<u8>(), 0..300)).prop_map(
        move |(qos, topic, number, payload)| {
            let of = Publish { payload: &payload, ..publish(topic, qos, number) };
            encoded(&Packet::Publish(of), version)
        },
    );
    let acknowledgement = (0..4, 1..u16::MAX).prop_map(move |(kind, number)| {
        let of = ack(number, ReasonCode::Success);
        let packet = match kind {
            0 => Packet::Puback(of),
            1 => Packet::Pubrec(of),
            2 => Packet::Pubrel(of),
            _ => Packet::Pubcomp(of),
        };
        encoded(&packet, version)
    });
    let suback = Just({
        let suback = Suback {
            packet_identifier: identifier(u16::MAX),
            reason_string: None,
            user_properties: UserProperties::none(),
            reasons: &[1],
        };
        encoded(&Packet::Suback(suback), version)
    });
    prop_oneof![4 => message, 4 => acknowledgement, 1 => suback, 1 => Just(PINGRESP.to_vec())]
}

/// What reaches both sides when these pieces come from the far broker one after the other.
fn results(version: Version, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>, bool) {
    let mut between = Between::open(version);
    let (mut session, mut far) = (Vec::new(), Vec::new());
    for piece in pieces {
        match between.hears(piece) {
            Ok(plain) => session.extend(plain),
            Err(_) => return (session, far, false),
        }
        far.extend(between.says(&[]));
    }
    (session, far, true)
}

/// The pieces of bytes between these places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|of| of.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    places.push(bytes.len());
    let mut begin = 0;
    let piece = |end| {
        let piece = &bytes[begin..end];
        begin = end;
        piece
    };
    places.into_iter().map(piece).collect()
}

proptest! {
    #[test]
    fn packets_cut_anywhere_have_the_same_result(
        (version, packets) in prop::sample::select(vec![Version::V5, Version::V311])
            .prop_flat_map(|version| (Just(version), prop::collection::vec(of_far(version), 1..12))),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
    ) {
        let bytes = packets.concat();
        let whole = results(version, &[&bytes]);
        prop_assert!(whole.2, "a fault");
        prop_assert_eq!(results(version, &cut(&bytes, &places)), whole);
    }

    #[test]
    fn any_bytes_of_the_far_broker_are_packets_or_a_fault(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        is_open in any::<bool>(),
        is_v5 in any::<bool>(),
    ) {
        let version = if is_v5 { Version::V5 } else { Version::V311 };
        let mut between = match is_open {
            true => Between::open(version),
            false => Between::connecting(version).0,
        };
        if let Ok(session) = between.hears(&bytes) {
            // What the engine gets is well-formed.
            let mut rest = &session[..];
            while !rest.is_empty() {
                let Ok(Frame::Complete { total, .. }) = wire::frame(rest, usize::MAX) else {
                    panic!("not whole packets: {session:02x?}");
                };
                prop_assert!(wire::decode(&rest[..total], Version::V5).is_ok());
                rest = &rest[total..];
            }
        }
    }

    #[test]
    fn a_packet_that_is_changed_is_a_packet_or_a_fault(
        mut packet in of_far(Version::V5),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let place = place.index(packet.len());
        packet[place] = byte;
        let _ = Between::open(Version::V5).hears(&packet);
    }
}
