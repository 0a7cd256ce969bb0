//! Cost of the codec per packet: `cargo bench --bench wire`. With `RINGMQ_BENCH_SHORT=1` it only
//! verifies that the benchmarks run.

use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, Divan, black_box};
use ringmq::wire::*;

fn main() {
    let is_short = std::env::var_os("RINGMQ_BENCH_SHORT").is_some_and(|value| value == "1");
    let divan = Divan::from_args();
    let divan = if is_short {
        divan.sample_count(5).sample_size(10).max_time(Duration::from_millis(50))
    } else {
        divan
    };
    divan.main();
}

const TOPIC: &str = "plant/7/line/3/temperature";
const PAYLOAD: [u8; 64] = [0x55; 64];

fn user_properties() -> Vec<u8> {
    let mut section = Vec::new();
    UserProperties::push(&mut section, "unit", "celsius");
    UserProperties::push(&mut section, "source", "probe-17");
    section
}

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

fn publish(version: Version, properties: PublishProperties<'_>) -> Vec<u8> {
    let publish = Publish {
        qos: Qos::AtLeastOnce,
        topic: TOPIC,
        packet_identifier: PacketIdentifier::new(7),
        properties,
        payload: &PAYLOAD,
        ..Publish::default()
    };
    encoded(&Packet::Publish(publish), version)
}

fn bench_decode(bencher: Bencher<'_, '_>, bytes: &[u8], version: Version) {
    bencher
        .counter(ItemsCount::new(1_usize))
        .counter(BytesCount::of_slice(bytes))
        .bench_local(|| decode(black_box(bytes), black_box(version)).is_ok());
}

#[divan::bench]
fn decode_publish_3_1_1(bencher: Bencher<'_, '_>) {
    let bytes = publish(Version::V311, PublishProperties::default());
    bench_decode(bencher, &bytes, Version::V311);
}

#[divan::bench]
fn decode_publish_5(bencher: Bencher<'_, '_>) {
    let bytes = publish(Version::V5, PublishProperties::default());
    bench_decode(bencher, &bytes, Version::V5);
}

#[divan::bench]
fn decode_publish_5_with_properties(bencher: Bencher<'_, '_>) {
    let user_properties = user_properties();
    let properties = PublishProperties {
        message_expiry_interval: Some(60),
        content_type: Some("application/json"),
        user_properties: UserProperties::encoded(&user_properties),
        ..PublishProperties::default()
    };
    bench_decode(bencher, &publish(Version::V5, properties), Version::V5);
}

#[divan::bench]
fn decode_puback(bencher: Bencher<'_, '_>) {
    bench_decode(bencher, &[0x40, 2, 0, 7], Version::V5);
}

#[divan::bench]
fn decode_connect(bencher: Bencher<'_, '_>) {
    let connect = Connect {
        version: Version::V5,
        is_bridge: false,
        clean_start: true,
        keep_alive_s: 60,
        client_identifier: "probe-17",
        username: Some("plant"),
        password: Some(b"secret"),
        will: Some(Will { topic: "plant/7/gone", payload: b"probe-17", ..Will::default() }),
        properties: ConnectProperties {
            session_expiry_interval: Some(3_600),
            receive_maximum: Some(100),
            ..ConnectProperties::default()
        },
    };
    bench_decode(bencher, &encoded(&Packet::Connect(connect), Version::V5), Version::V5);
}

fn bench_header(bencher: Bencher<'_, '_>, header: &PublishHeader<'_>) {
    let mut out = Vec::with_capacity(1024);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        out.clear();
        black_box(header).encode(black_box(&mut out))
    });
}

fn header(version: Version) -> PublishHeader<'static> {
    PublishHeader {
        version,
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: TOPIC,
        packet_identifier: 7,
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: &[],
        passed_on: &[],
        payload_len: PAYLOAD.len(),
    }
}

#[divan::bench]
fn encode_header_3_1_1(bencher: Bencher<'_, '_>) {
    bench_header(bencher, &header(Version::V311));
}

#[divan::bench]
fn encode_header_5(bencher: Bencher<'_, '_>) {
    bench_header(bencher, &header(Version::V5));
}

#[divan::bench]
fn encode_header_5_with_properties(bencher: Bencher<'_, '_>) {
    let passed_on = user_properties();
    let header = PublishHeader {
        message_expiry_interval: Some(60),
        topic_alias: Some(3),
        subscription_identifiers: &[1, 300],
        passed_on: &passed_on,
        ..header(Version::V5)
    };
    bench_header(bencher, &header);
}

#[divan::bench]
fn encode_puback(bencher: Bencher<'_, '_>) {
    let ack = Ack::new(PacketIdentifier::new(7).expect("not zero"), ReasonCode::Success);
    let packet = Packet::Puback(ack);
    let mut out = Vec::with_capacity(1024);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        out.clear();
        black_box(&packet).encode(Version::V5, black_box(&mut out));
    });
}
