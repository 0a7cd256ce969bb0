//! Encoded client packets for tests and benchmarks that feed the engine.
#![allow(dead_code, reason = "not used by all tests that share this module")]

use ringmq::wire::{
    Connect, ConnectProperties, Packet, PacketIdentifier, Publish, PublishProperties, Qos,
    Subscribe, SubscribeFilters, SubscribeOptions, UserProperties, Version,
};

/// Any packet.
pub fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

/// CONNECT with a clean start.
pub fn connect(client_identifier: &str, version: Version) -> Vec<u8> {
    connect_as(client_identifier, version, true)
}

/// CONNECT of a 3.1.1 client with Clean Session 0.
pub fn connect_kept(client_identifier: &str, version: Version) -> Vec<u8> {
    connect_as(client_identifier, version, false)
}

fn connect_as(client_identifier: &str, version: Version, clean_start: bool) -> Vec<u8> {
    let connect = Connect {
        version,
        is_bridge: false,
        clean_start,
        keep_alive_s: 0,
        client_identifier,
        username: None,
        password: None,
        will: None,
        properties: ConnectProperties::default(),
    };
    encoded(&Packet::Connect(connect), version)
}

/// SUBSCRIBE to one filter.
pub fn subscribe(filter: &str, qos: Qos, version: Version) -> Vec<u8> {
    let options =
        SubscribeOptions { qos, no_local: false, retain_as_published: false, retain_handling: 0 };
    let filters = [(filter, options)];
    let subscribe = Subscribe {
        packet_identifier: PacketIdentifier::new(1).expect("not zero"),
        subscription_identifier: None,
        user_properties: UserProperties::none(),
        filters: SubscribeFilters::list(&filters),
    };
    encoded(&Packet::Subscribe(subscribe), version)
}

/// PUBLISH with a payload of 64 bytes.
pub fn publish(topic: &str, qos: Qos, identifier: u16, version: Version) -> Vec<u8> {
    publish_bytes(topic, qos, identifier, version, &[b'x'; 64])
}

/// PUBLISH with this payload.
pub fn publish_bytes(
    topic: &str,
    qos: Qos,
    identifier: u16,
    version: Version,
    payload: &[u8],
) -> Vec<u8> {
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_identifier: PacketIdentifier::new(identifier).filter(|_| qos != Qos::AtMostOnce),
        properties: PublishProperties::default(),
        payload,
    };
    encoded(&Packet::Publish(publish), version)
}
