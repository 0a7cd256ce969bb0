//! Properties of the codec for arbitrary packets: encoded packets decode to the same packet, and
//! damaged ones are rejected or decode to another packet, without a panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use ringmq::wire::*;

/// Packets borrow their fields; the strategies leak the borrowed values, a few megabytes per run.
fn leak<T>(values: Vec<T>) -> &'static [T] {
    values.leak()
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

fn text() -> impl Strategy<Value = &'static str> {
    let text = prop_oneof![
        8 => "[^\0]{0,12}",
        1 => "[a-z]{120,140}", // where a length needs a second byte
    ];
    text.prop_map(|text| &*text.leak())
}

fn topic() -> impl Strategy<Value = &'static str> {
    "[^\0+#]{1,12}".prop_map(|text| &*text.leak())
}

fn data() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..20).prop_map(leak)
}

fn payload() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        1 => vec(any::<u8>(), 100..300),
        1 => vec(Just(0x55), 16_300..16_500),
    ]
    .prop_map(leak)
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

fn packet_identifier() -> impl Strategy<Value = PacketIdentifier> {
    (1..=u16::MAX).prop_map(|value| PacketIdentifier::new(value).unwrap())
}

fn subscription_identifier() -> impl Strategy<Value = u32> {
    prop_oneof![1..200_u32, 1..=268_435_455_u32]
}

fn user_properties() -> impl Strategy<Value = UserProperties<'static>> {
    vec((text(), text()), 0..4).prop_map(|pairs| {
        let mut section = Vec::new();
        for (name, value) in pairs {
            UserProperties::push(&mut section, name, value);
        }
        UserProperties::encoded(section.leak())
    })
}

fn reason(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    let codes: Vec<_> =
        ReasonCode::ALL.iter().copied().filter(|code| code.allowed_in(packet)).collect();
    proptest::sample::select(codes)
}

prop_compose! {
    fn will()(
        (qos, retain, topic, payload) in (qos(), any::<bool>(), topic(), data()),
        delay_interval_s in prop_oneof![Just(0), any::<u32>()],
        message_expiry_interval in option::of(any::<u32>()),
        payload_format_indicator in option::of(0..=1_u8),
        response_topic in option::of(topic()),
        correlation_data in option::of(data()),
        content_type in option::of(text()),
        user_properties in user_properties(),
    ) -> Will<'static> {
        Will {
            qos, retain, topic, payload, delay_interval_s, message_expiry_interval,
            payload_format_indicator, response_topic, correlation_data, content_type,
            user_properties, passed_on: PassedOn::default(),
        }
    }
}

prop_compose! {
    fn connect_properties()(
        session_expiry_interval in option::of(any::<u32>()),
        receive_maximum in option::of(1..=u16::MAX),
        maximum_packet_size in option::of(1..=u32::MAX),
        topic_alias_maximum in any::<u16>(),
        request_response_information in any::<bool>(),
        request_problem_information in any::<bool>(),
        user_properties in user_properties(),
        authentication in option::of((text(), option::of(data()))),
    ) -> ConnectProperties<'static> {
        ConnectProperties {
            session_expiry_interval, receive_maximum, maximum_packet_size, topic_alias_maximum,
            request_response_information, request_problem_information, user_properties,
            authentication_method: authentication.map(|(method, _)| method),
            authentication_data: authentication.and_then(|(_, data)| data),
        }
    }
}

prop_compose! {
    fn connect()(
        (clean_start, keep_alive_s) in (any::<bool>(), any::<u16>()),
        client_identifier in text(),
        username in option::of(text()),
        password in option::of(data()),
        will in option::of(will()),
        properties in connect_properties(),
    ) -> Packet<'static> {
        Packet::Connect(Connect {
            version: Version::V5, is_bridge: false, clean_start, keep_alive_s, client_identifier, username, password,
            will, properties,
        })
    }
}

prop_compose! {
    fn connack_properties()(
        (session_expiry_interval, receive_maximum, maximum_qos, retain_available) in (
            option::of(any::<u32>()), option::of(1..=u16::MAX), option::of(0..=1_u8),
            option::of(any::<bool>()),
        ),
        (maximum_packet_size, assigned_client_identifier, topic_alias_maximum, reason_string) in (
            option::of(1..=u32::MAX), option::of(text()), option::of(any::<u16>()),
            option::of(text()),
        ),
        user_properties in user_properties(),
        (wildcard_subscription_available, subscription_identifiers_available,
            shared_subscription_available, server_keep_alive) in (
            option::of(any::<bool>()), option::of(any::<bool>()), option::of(any::<bool>()),
            option::of(any::<u16>()),
        ),
        (response_information, server_reference, authentication_method, authentication_data) in (
            option::of(text()), option::of(text()), option::of(text()), option::of(data()),
        ),
    ) -> ConnackProperties<'static> {
        ConnackProperties {
            session_expiry_interval, receive_maximum, maximum_qos, retain_available,
            maximum_packet_size, assigned_client_identifier, topic_alias_maximum, reason_string,
            user_properties, wildcard_subscription_available, subscription_identifiers_available,
            shared_subscription_available, server_keep_alive, response_information,
            server_reference, authentication_method, authentication_data,
        }
    }
}

prop_compose! {
    fn connack()(
        session_present in any::<bool>(),
        reason in reason(PacketType::Connack),
        properties in connack_properties(),
    ) -> Packet<'static> {
        let session_present = session_present && reason == ReasonCode::Success;
        Packet::Connack(Connack { session_present, reason, properties })
    }
}

prop_compose! {
    fn publish_properties()(
        payload_format_indicator in option::of(0..=1_u8),
        message_expiry_interval in option::of(any::<u32>()),
        topic_alias in option::of(1..=u16::MAX),
        response_topic in option::of(topic()),
        correlation_data in option::of(data()),
        subscription_identifiers in vec(subscription_identifier(), 0..4),
        user_properties in user_properties(),
        content_type in option::of(text()),
    ) -> PublishProperties<'static> {
        PublishProperties {
            payload_format_indicator, message_expiry_interval, topic_alias, response_topic,
            correlation_data, user_properties, content_type,
            subscription_identifiers: SubscriptionIdentifiers::list(leak(subscription_identifiers)),
            passed_on: PassedOn::default(),
        }
    }
}

prop_compose! {
    fn publish()(
        (dup, qos, retain) in (any::<bool>(), qos(), any::<bool>()),
        topic in topic(),
        is_aliased in any::<bool>(),
        packet_identifier in packet_identifier(),
        properties in publish_properties(),
        payload in payload(),
    ) -> Publish<'static> {
        let has_identifier = qos != Qos::AtMostOnce;
        Publish {
            dup: dup && has_identifier,
            qos,
            retain,
            topic: if is_aliased && properties.topic_alias.is_some() { "" } else { topic },
            packet_identifier: has_identifier.then_some(packet_identifier),
            properties,
            payload,
        }
    }
}

fn ack(packet: PacketType) -> impl Strategy<Value = Ack<'static>> {
    (packet_identifier(), reason(packet), option::of(text()), user_properties()).prop_map(
        |(packet_identifier, reason, reason_string, user_properties)| Ack {
            packet_identifier,
            reason,
            reason_string,
            user_properties,
        },
    )
}

prop_compose! {
    fn subscribe()(
        packet_identifier in packet_identifier(),
        subscription_identifier in option::of(subscription_identifier()),
        user_properties in user_properties(),
        filters in vec((topic(), qos(), any::<bool>(), any::<bool>(), 0..=2_u8), 1..5),
    ) -> Packet<'static> {
        let with_options = |(filter, qos, no_local, retain_as_published, retain_handling)| {
            (filter, SubscribeOptions { qos, no_local, retain_as_published, retain_handling })
        };
        let filters = leak(filters.into_iter().map(with_options).collect());
        Packet::Subscribe(Subscribe {
            packet_identifier, subscription_identifier, user_properties,
            filters: SubscribeFilters::list(filters),
        })
    }
}

prop_compose! {
    fn unsubscribe()(
        packet_identifier in packet_identifier(),
        user_properties in user_properties(),
        filters in vec(topic(), 1..5),
    ) -> Packet<'static> {
        let filters = UnsubscribeFilters::list(leak(filters));
        Packet::Unsubscribe(Unsubscribe { packet_identifier, user_properties, filters })
    }
}

fn reasons(packet: PacketType) -> impl Strategy<Value = &'static [u8]> {
    vec(reason(packet).prop_map(|reason| reason as u8), 1..5).prop_map(leak)
}

prop_compose! {
    fn suback()(
        packet_identifier in packet_identifier(),
        reasons in reasons(PacketType::Suback),
        reason_string in option::of(text()),
        user_properties in user_properties(),
    ) -> Packet<'static> {
        Packet::Suback(Suback { packet_identifier, reasons, reason_string, user_properties })
    }
}

prop_compose! {
    fn unsuback()(
        packet_identifier in packet_identifier(),
        reasons in reasons(PacketType::Unsuback),
        reason_string in option::of(text()),
        user_properties in user_properties(),
    ) -> Packet<'static> {
        Packet::Unsuback(Unsuback { packet_identifier, reasons, reason_string, user_properties })
    }
}

prop_compose! {
    fn disconnect()(
        reason in reason(PacketType::Disconnect),
        session_expiry_interval in option::of(any::<u32>()),
        reason_string in option::of(text()),
        user_properties in user_properties(),
        server_reference in option::of(text()),
    ) -> Packet<'static> {
        Packet::Disconnect(Disconnect {
            reason, session_expiry_interval, reason_string, user_properties, server_reference,
        })
    }
}

prop_compose! {
    fn auth()(
        reason in reason(PacketType::Auth),
        authentication_method in text().prop_map(Some),
        authentication_data in option::of(data()),
        reason_string in option::of(text()),
        user_properties in user_properties(),
    ) -> Packet<'static> {
        Packet::Auth(Auth {
            reason, authentication_method, authentication_data, reason_string, user_properties,
        })
    }
}

/// Any packet of 5.0.
fn packet_of_5() -> impl Strategy<Value = Packet<'static>> {
    prop_oneof![
        3 => connect(),
        2 => connack(),
        4 => publish().prop_map(Packet::Publish),
        1 => ack(PacketType::Puback).prop_map(Packet::Puback),
        1 => ack(PacketType::Pubrec).prop_map(Packet::Pubrec),
        1 => ack(PacketType::Pubrel).prop_map(Packet::Pubrel),
        1 => ack(PacketType::Pubcomp).prop_map(Packet::Pubcomp),
        2 => subscribe(),
        1 => suback(),
        1 => unsubscribe(),
        1 => unsuback(),
        1 => Just(Packet::Pingreq),
        1 => Just(Packet::Pingresp),
        1 => disconnect(),
        1 => auth(),
    ]
}

/// Any packet of any version.
fn packet() -> impl Strategy<Value = (Version, Packet<'static>)> {
    (version(), packet_of_5()).prop_map(|(version, packet)| (version, fit(packet, version)))
}

/// The packet without the fields that the version does not have.
fn fit(packet: Packet<'static>, version: Version) -> Packet<'static> {
    if version == Version::V5 {
        return packet;
    }
    let none = UserProperties::none();
    match packet {
        Packet::Connect(connect) => Packet::Connect(Connect {
            version,
            is_bridge: connect.keep_alive_s % 2 == 1,
            password: connect.password.filter(|_| connect.username.is_some()),
            will: connect.will.map(|will| Will {
                qos: will.qos,
                retain: will.retain,
                topic: will.topic,
                payload: will.payload,
                ..Will::default()
            }),
            properties: ConnectProperties::default(),
            ..connect
        }),
        Packet::Connack(connack) => Packet::Connack(Connack {
            session_present: connack.session_present && version != Version::V31,
            reason: connack
                .reason
                .return_code()
                .and_then(ReasonCode::from_return_code)
                .unwrap_or(ReasonCode::ServerUnavailable),
            properties: ConnackProperties::default(),
        }),
        Packet::Publish(publish) => Packet::Publish(Publish {
            topic: if publish.topic.is_empty() { "t" } else { publish.topic },
            properties: PublishProperties::default(),
            ..publish
        }),
        Packet::Puback(ack) => Packet::Puback(bare(ack)),
        Packet::Pubrec(ack) => Packet::Pubrec(bare(ack)),
        Packet::Pubrel(ack) => Packet::Pubrel(bare(ack)),
        Packet::Pubcomp(ack) => Packet::Pubcomp(bare(ack)),
        Packet::Subscribe(subscribe) => {
            let only_qos = |(filter, options): (_, SubscribeOptions)| {
                (filter, SubscribeOptions { qos: options.qos, ..Default::default() })
            };
            let filters = leak(subscribe.filters.iter().map(only_qos).collect());
            Packet::Subscribe(Subscribe {
                subscription_identifier: None,
                user_properties: none,
                filters: SubscribeFilters::list(filters),
                ..subscribe
            })
        }
        Packet::Suback(suback) => Packet::Suback(Suback {
            reasons: leak(suback.reasons.iter().map(|&reason| reason.min(0x80)).collect()),
            reason_string: None,
            user_properties: none,
            ..suback
        }),
        Packet::Unsubscribe(unsubscribe) => {
            Packet::Unsubscribe(Unsubscribe { user_properties: none, ..unsubscribe })
        }
        Packet::Unsuback(unsuback) => Packet::Unsuback(Unsuback {
            reasons: &[],
            reason_string: None,
            user_properties: none,
            ..unsuback
        }),
        Packet::Disconnect(_) => Packet::Disconnect(Disconnect::default()),
        Packet::Auth(_) => Packet::Pingreq, // AUTH does not exist
        ping @ (Packet::Pingreq | Packet::Pingresp) => ping,
    }
}

fn bare(ack: Ack<'_>) -> Ack<'static> {
    Ack::new(ack.packet_identifier, ReasonCode::Success)
}

fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

/// The packet as it was before a decoder collected the forwarded properties.
fn ungathered(packet: Packet<'_>) -> Packet<'_> {
    match packet {
        Packet::Publish(mut publish) => {
            publish.properties.passed_on = PassedOn::default();
            Packet::Publish(publish)
        }
        Packet::Connect(mut connect) => {
            if let Some(will) = &mut connect.will {
                will.passed_on = PassedOn::default();
            }
            Packet::Connect(connect)
        }
        packet => packet,
    }
}

/// Every decoded packet can be encoded, and decodes to the same packet.
fn check_reading(bytes: &[u8], version: Version) {
    if let Ok(packet) = decode(bytes, version) {
        let version =
            if let Packet::Connect(connect) = &packet { connect.version } else { version };
        let again = encode(&packet, version);
        assert_eq!(decode(&again, version), Ok(packet), "{bytes:02X?} became {again:02X?}");
    }
}

/// The bytes with their actual Remaining Length.
fn with_remaining_length(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    while rest > 0x7F {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend_from_slice(body);
    out
}

proptest! {
    #[test]
    fn encoded_packets_decode_to_the_same_packet((version, packet) in packet()) {
        let bytes = encode(&packet, version);
        prop_assert_eq!(decode(&bytes, version).map(ungathered), Ok(packet));
        check_reading(&bytes, version);
    }

    #[test]
    fn a_truncated_packet_is_incomplete((version, packet) in packet()) {
        let bytes = encode(&packet, version);
        for cut in 0..bytes.len() {
            let part = &bytes[..cut];
            match frame(part, PACKET_BYTES_MAX) {
                Ok(Frame::Incomplete { need }) => prop_assert!(need == 0 || need == bytes.len()),
                other => prop_assert!(false, "{:?} for {} of {} bytes", other, cut, bytes.len()),
            }
            prop_assert!(decode(part, version).is_err());
        }
    }

    #[test]
    fn a_shortened_packet_causes_no_panic(
        (version, packet) in packet(),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = encode(&packet, version);
        let Ok(Frame::Complete { header, .. }) = frame(&bytes, PACKET_BYTES_MAX) else { panic!() };
        let body = &bytes[header..];
        let body = &body[..cut.index(body.len() + 1)];
        check_reading(&with_remaining_length(bytes[0], body), version);
    }

    #[test]
    fn flipped_bits_cause_no_panic(
        (version, packet) in packet(),
        flips in vec((any::<prop::sample::Index>(), 0..8_u8), 1..4),
        read_as in version(),
    ) {
        let mut bytes = encode(&packet, version);
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
        }
        let _ = frame(&bytes, PACKET_BYTES_MAX);
        let _ = connect_level(&bytes);
        check_reading(&bytes, version);
        check_reading(&bytes, read_as);
    }

    #[test]
    fn arbitrary_bytes_cause_no_panic(
        first in any::<u8>(),
        body in vec(any::<u8>(), 0..60),
        version in version(),
    ) {
        let bytes = with_remaining_length(first, &body);
        let _ = connect_level(&bytes);
        let _ = decode(&body, version);
        check_reading(&bytes, version);
    }

    #[test]
    fn a_stream_is_split_into_packets(packets in vec(packet(), 1..6)) {
        let mut stream = Vec::new();
        for (version, packet) in &packets {
            packet.encode(*version, &mut stream);
        }
        let mut rest = &stream[..];
        for (version, packet) in packets {
            let Ok(Frame::Complete { total, .. }) = frame(rest, PACKET_BYTES_MAX) else { panic!() };
            prop_assert_eq!(decode(&rest[..total], version).map(ungathered), Ok(packet));
            rest = &rest[total..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_message_is_forwarded_unchanged(
        publish in publish(),
        version in version(),
        subscription_identifiers in vec(subscription_identifier(), 0..3),
        topic_alias in option::of(1..=u16::MAX),
    ) {
        let received = encode(&Packet::Publish(publish.clone()), Version::V5);
        let Ok(Packet::Publish(received)) = decode(&received, Version::V5) else { panic!() };
        let mut passed_on = Vec::new();
        received.properties.passed_on.write(&mut passed_on);
        if let Some(slice) = received.properties.passed_on.as_slice() {
            prop_assert_eq!(slice, &passed_on[..]);
        }
        prop_assert_eq!(received.properties.passed_on.is_empty(), passed_on.is_empty());

        let header = PublishHeader {
            version,
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: if publish.topic.is_empty() { "t" } else { publish.topic },
            packet_identifier: publish.packet_identifier.map_or(0, PacketIdentifier::get),
            message_expiry_interval: publish.properties.message_expiry_interval,
            topic_alias,
            subscription_identifiers: &subscription_identifiers,
            passed_on: &passed_on,
            payload_len: publish.payload.len(),
        };
        let mut out = vec![0xAA];
        let packet_identifier_at = header.encode(&mut out);
        if let Some(packet_identifier) = publish.packet_identifier {
            let bytes = packet_identifier.get().to_be_bytes();
            prop_assert_eq!(&out[packet_identifier_at..][..2], &bytes);
        }
        out.extend_from_slice(publish.payload);
        prop_assert_eq!(out.len() - 1, header.encoded_len());

        let properties = PublishProperties {
            topic_alias,
            subscription_identifiers: SubscriptionIdentifiers::list(&subscription_identifiers),
            ..publish.properties.clone()
        };
        let expected = Publish {
            topic: header.topic,
            properties: if version == Version::V5 { properties } else { Default::default() },
            ..publish
        };
        prop_assert_eq!(decode(&out[1..], version).map(ungathered), Ok(Packet::Publish(expected)));
    }

    #[test]
    fn the_level_of_a_connect_packet_is_detected((version, packet) in packet()) {
        let bytes = encode(&packet, version);
        let expected = matches!(packet, Packet::Connect(_)).then_some(version as u8);
        prop_assert_eq!(connect_level(&bytes), expected);
    }
}
