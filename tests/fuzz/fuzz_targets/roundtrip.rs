//! Every decoded packet can be encoded, and decodes to the same packet. The input is a version, the
//! first byte of a packet and the bytes after its Remaining Length, which is computed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq::wire::{self, Packet, PacketIdentifier, PassedOn, Publish, PublishHeader, Version};

fuzz_target!(|input: &[u8]| {
    let [version, first, body @ ..] = input else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(*version) % 3];
    let bytes = packet(*first, body);
    let Ok(packet) = wire::decode(&bytes, version) else { return };
    let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };

    let mut again = Vec::new();
    packet.encode(version, &mut again);
    assert_eq!(wire::decode(&again, version).as_ref(), Ok(&packet));
    // The second time the encoding is already canonical.
    let mut once_more = Vec::new();
    wire::decode(&again, version).expect("decoded above").encode(version, &mut once_more);
    assert_eq!(again, once_more);

    if let Packet::Publish(publish) = &packet {
        pass_on(publish, version);
    }
});

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
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

/// The PUBLISH header that a broker encodes equals that of the packet.
fn pass_on(publish: &Publish<'_>, version: Version) {
    let mut passed_on = Vec::new();
    publish.properties.passed_on.write(&mut passed_on);
    let identifiers: Vec<u32> = publish.properties.subscription_identifiers.iter().collect();
    let header = PublishHeader {
        version,
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic: publish.topic,
        packet_identifier: publish.packet_identifier.map_or(0, PacketIdentifier::get),
        message_expiry_interval: publish.properties.message_expiry_interval,
        topic_alias: publish.properties.topic_alias,
        subscription_identifiers: &identifiers,
        passed_on: &passed_on,
        payload_len: publish.payload.len(),
    };
    let mut out = Vec::new();
    header.encode(&mut out);
    out.extend_from_slice(publish.payload);
    assert_eq!(out.len(), header.encoded_len());
    assert_eq!(wire::decode(&out, version), Ok(Packet::Publish(publish.clone())));
    assert_eq!(publish.properties.passed_on.is_empty(), passed_on.is_empty());
    assert_ne!(publish.properties.passed_on != PassedOn::default(), passed_on.is_empty());
}
