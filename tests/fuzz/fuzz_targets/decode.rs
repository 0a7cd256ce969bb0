//! Arbitrary bytes, decoded as a client's and as a server's stream of each version. The first byte
//! selects the version.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq::wire::{self, Frame, PACKET_BYTES_MAX, Packet, Version};

fuzz_target!(|input: &[u8]| {
    let Some((&version, stream)) = input.split_first() else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(version) % 3];
    // Complete or incomplete, valid or invalid: the decoder must return one of these results.
    let _ = wire::decode(stream, version);
    let _ = wire::connect_level(stream);
    read(stream, version);
});

fn read(mut stream: &[u8], mut version: Version) {
    loop {
        let total = match wire::frame(stream, PACKET_BYTES_MAX) {
            Ok(Frame::Complete { header, total }) => {
                assert!((2..=5).contains(&header) && header <= total && total <= stream.len());
                total
            }
            Ok(Frame::Incomplete { need }) => {
                return assert!(need == 0 || need > stream.len());
            }
            Err(_) => return,
        };
        let (frame, rest) = stream.split_at(total);
        match wire::decode(frame, version) {
            Ok(packet) => {
                if let Packet::Connect(connect) = &packet {
                    version = connect.version;
                    assert_eq!(wire::connect_level(frame), Some(version as u8));
                }
                look_at(&packet);
            }
            Err(violation) => assert!(violation.reason().is_error()),
        }
        stream = rest;
    }
}

/// Reads all fields that are decoded on demand.
fn look_at(packet: &Packet<'_>) {
    assert!(!format!("{packet:?}").is_empty());
    match packet {
        Packet::Subscribe(subscribe) => assert_ne!(subscribe.filters.iter().count(), 0),
        Packet::Unsubscribe(unsubscribe) => assert_ne!(unsubscribe.filters.iter().count(), 0),
        Packet::Publish(publish) => {
            let properties = &publish.properties;
            assert!(!properties.subscription_identifiers.iter().any(|identifier| identifier == 0));
            assert!(!publish.topic.is_empty() || properties.topic_alias.is_some());
        }
        _ => {}
    }
}
