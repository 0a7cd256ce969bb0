//! The counted cases, by name: one for each operation of the data path.

use std::hint::black_box;
use std::io::IoSlice;
use std::num::NonZeroU64;

use bytes::Bytes;
use ringmq::base::clock::{Deadline, Now};
use ringmq::base::send_buffer::SendBuffer;
use ringmq::base::timer_wheel::Wheel;
use ringmq::wire::*;
use shards::*;

use crate::world::{World, messages, packets};

/// A repeated operation.
pub struct Case {
    /// Its name in the table.
    pub name: &'static str,
    /// Number of repetitions per run: the count is divided by it.
    pub operations: f64,
    /// Prepares a run, uncounted, and returns it.
    build: fn() -> Box<dyn FnMut()>,
}

const fn case(name: &'static str, operations: u32, build: fn() -> Box<dyn FnMut()>) -> Case {
    Case { name, operations: operations as f64, build }
}

/// All cases, in the order of the table.
pub const CASES: &[Case] = &[
    case("wire: decode PUBLISH 3.1.1", MANY, || decoding(publish_3_1_1(TOPIC), Version::V311)),
    case("wire: decode PUBLISH 3.1.1, long topic", MANY, || {
        decoding(publish_3_1_1(LONG_TOPIC), Version::V311)
    }),
    case("wire: decode PUBLISH 5 with properties", MANY, || {
        decoding(publish_5_with_properties(), Version::V5)
    }),
    case("wire: decode PUBACK", MANY, || decoding(vec![0x40, 2, 0, 7], Version::V5)),
    case("wire: decode CONNECT", MANY, || {
        decoding(packets::connect("probe-17", Version::V5), Version::V5)
    }),
    case("wire: encode PUBLISH header 3.1.1", MANY, || encoding(Version::V311)),
    case("wire: encode PUBLISH header 5", MANY, || encoding(Version::V5)),
    case("index: match exact", MANY, || matching(topic, topic)),
    case("index: match plus", MANY, || matching(plus, topic)),
    case("index: match plus first", MANY, || matching(plus_first, topic)),
    case("index: match hash", MANY, || matching(hash, topic)),
    case("index: match hash, long topic", MANY, || matching(long_hash, long_topic)),
    case("index: match none", MANY, || matching(plus, |n| format!("elsewhere/{n}/below"))),
    case("index: subscribe and unsubscribe", MANY, subscribing),
    case("replica: match exact", MANY, || replica_matching(topic)),
    case("replica: match plus", MANY, || replica_matching(plus)),
    case("replica: announce and withdraw", MANY, announcing),
    case("retained: look up", MANY, retained_looking_up),
    case("retained: walk a filter, for a topic", FILTERS, retained_walking),
    case("mesh: item through a lane", MANY, through_a_lane),
    case("outbox: small frame copied and written", MANY, frames_copied),
    case("outbox: payload by reference and written", MANY, frames_by_reference),
    case("outbox: PINGREQ to PINGRESP", MANY, pinging),
    case("timers: turn without any due", MANY, idle_turns),
    case("timers: armed and fired", MANY, timers_firing),
    case("engine: PUBLISH nobody wants", BATCH, || delivering(1, Qos::AtMostOnce, 0)),
    case("engine: PUBLISH nobody wants, with rules", BATCH, || ruled("a/topic", false)),
    case("engine: PUBLISH nobody wants, with rules, each elsewhere", BATCH, || {
        ruled("a/topic", true)
    }),
    case("engine: 1 subscriber, QoS 0", BATCH, || delivering(1, Qos::AtMostOnce, 1)),
    case("engine: 1 subscriber, QoS 1", BATCH, || delivering(1, Qos::AtLeastOnce, 1)),
    case("engine: 100 subscribers, QoS 0, for each", BATCH * 100, || {
        delivering(1, Qos::AtMostOnce, 100)
    }),
    case("engine: 100 subscribers, QoS 1, for each", BATCH * 100, || {
        delivering(1, Qos::AtLeastOnce, 100)
    }),
    case("engine: long topics through wildcards, QoS 0", MANY, wildcards_and_long_topics),
    case("engine: 1 subscriber to all, QoS 0", BATCH, || to_all(World::new(1, false), false)),
    case("engine: 1 subscriber to all, QoS 0, with rules", BATCH, || {
        to_all(World::with_filters(&ten_rules("write")), false)
    }),
    case("engine: 1 subscriber to all, QoS 0, filtered by rules", BATCH, || {
        to_all(World::with_filters(&ten_rules("deny")), false)
    }),
    case("engine: 1 subscriber to all, each elsewhere, with rules", BATCH, || {
        to_all(World::with_filters(&ten_rules("write")), true)
    }),
    case("engine: 1 subscriber to all, each elsewhere, filtered by rules", BATCH, || {
        to_all(World::with_filters(&ten_rules("deny")), true)
    }),
    case("engine: to another core, QoS 0", BATCH, || delivering(2, Qos::AtMostOnce, 1)),
    case("engine: to another core, QoS 1", BATCH, || delivering(2, Qos::AtLeastOnce, 1)),
    case("engine: client comes and goes", VISITS, coming_and_going),
];

const MANY: u32 = 1_000;
const FILTERS: u32 = 2_000;
const BATCH: u32 = 500;
const VISITS: u32 = 100;

const TOPIC: &str = "plant/7/line/3/temperature";
const LONG_TOPIC: &str = "enterprise/europe/plant-0007/building-12/line-0003/cell-0042/\
    machine-press-0815/sensor-bearing-front-left/measurement/temperature/celsius/average/minute";

/// Runs each case whose name contains `part` once to warm up, and once counted.
pub fn run(part: &str) {
    for case in CASES.iter().filter(|case| case.name.contains(part)) {
        let mut work = (case.build)();
        work();
        counted(&mut work);
    }
}

/// The counted function; callgrind finds it by its name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

/// Repeats a small operation.
fn many(mut work: impl FnMut(u32) + 'static) -> Box<dyn FnMut()> {
    Box::new(move || (0..MANY).for_each(&mut work))
}

fn publish_3_1_1(topic: &str) -> Vec<u8> {
    packets::publish(topic, Qos::AtLeastOnce, 7, Version::V311)
}

fn publish_5_with_properties() -> Vec<u8> {
    let mut user_properties = Vec::new();
    UserProperties::push(&mut user_properties, "unit", "celsius");
    let properties = PublishProperties {
        message_expiry_interval: Some(60),
        content_type: Some("application/json"),
        user_properties: UserProperties::encoded(&user_properties),
        ..PublishProperties::default()
    };
    let publish = Publish { topic: TOPIC, properties, payload: &[b'x'; 64], ..Publish::default() };
    packets::encoded(&Packet::Publish(publish), Version::V5)
}

fn decoding(bytes: Vec<u8>, version: Version) -> Box<dyn FnMut()> {
    many(move |_| {
        assert!(frame(black_box(&bytes), PACKET_BYTES_MAX).is_ok());
        assert!(decode(black_box(&bytes), black_box(version)).is_ok());
    })
}

fn encoding(version: Version) -> Box<dyn FnMut()> {
    let mut out = Vec::with_capacity(256);
    many(move |number| {
        let header = PublishHeader {
            version,
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: TOPIC,
            packet_identifier: number as u16 | 1,
            message_expiry_interval: None,
            topic_alias: None,
            subscription_identifiers: &[],
            passed_on: &[],
            payload_len: 64,
        };
        out.clear();
        black_box(&header).encode(black_box(&mut out));
    })
}

fn topic(n: u32) -> String {
    format!("site/{}/device/{n}/state", n % 100)
}

fn plus(n: u32) -> String {
    format!("site/{}/device/{n}/+", n % 100)
}

fn plus_first(n: u32) -> String {
    format!("+/+/device/{n}/state")
}

fn hash(n: u32) -> String {
    format!("site/{}/device/{n}/#", n % 100)
}

fn long_topic(n: u32) -> String {
    format!("{LONG_TOPIC}/{n}/of/the/day")
}

fn long_hash(n: u32) -> String {
    format!("{LONG_TOPIC}/{n}/#")
}

fn subscription(subscriber: u32) -> Subscription {
    let options = SubscriptionOptions::new(1, false, false);
    Subscription { subscriber: SubscriberId(subscriber), options, identifier: 0 }
}

fn parsed(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text, 32).expect("a well-formed filter")
}

fn index(filter: fn(u32) -> String) -> SubscriptionIndex {
    let mut index = SubscriptionIndex::new(0x5EED);
    for n in 0..FILTERS {
        index.subscribe(&parsed(&filter(n)), subscription(n));
    }
    index
}

fn matching(filter: fn(u32) -> String, topic: fn(u32) -> String) -> Box<dyn FnMut()> {
    let index = index(filter);
    let topics: Vec<String> = (0..MANY).map(topic).collect();
    let mut out = Matches::default();
    many(move |n| {
        index.matches(black_box(&topics[n as usize]), &mut out);
        black_box(&out);
    })
}

fn subscribing() -> Box<dyn FnMut()> {
    let mut index = index(plus);
    let filters: Vec<String> = (0..MANY).map(|n| plus(n + FILTERS)).collect();
    many(move |n| {
        let text = &filters[n as usize];
        index.subscribe(&parsed(text), subscription(n));
        let filter = index.find(text).expect("just subscribed");
        index.unsubscribe(filter, SubscriberId(n));
    })
}

fn announce(replica: &mut Replica, text: &str) {
    match parsed(text) {
        filter if filter.has_wildcard() => replica.announce_wildcard(1, &filter),
        _ => replica.announce_exact(1, replica.fingerprint(text)),
    }
}

fn replica(filter: fn(u32) -> String) -> Replica {
    let mut replica = Replica::new(0x5EED);
    (0..FILTERS).for_each(|n| announce(&mut replica, &filter(n)));
    replica
}

fn replica_matching(filter: fn(u32) -> String) -> Box<dyn FnMut()> {
    let replica = replica(filter);
    let topics: Vec<String> = (0..MANY).map(topic).collect();
    let mut out = CoreMatches::default();
    many(move |n| {
        replica.matches(black_box(&topics[n as usize]), &mut out);
        assert!(out.cores == [1]);
    })
}

fn announcing() -> Box<dyn FnMut()> {
    let mut replica = replica(topic);
    let filters: Vec<String> = (0..MANY).map(|n| topic(n + FILTERS)).collect();
    many(move |n| {
        let text = &filters[n as usize];
        announce(&mut replica, text);
        replica.withdraw_exact(1, replica.fingerprint(text));
    })
}

fn retained() -> RetainedIndex<NonZeroU64> {
    let mut index = RetainedIndex::new(0x5EED);
    (0..FILTERS).for_each(|n| assert!(index.insert(&topic(n), NonZeroU64::MIN).is_none()));
    index
}

fn retained_looking_up() -> Box<dyn FnMut()> {
    let index = retained();
    let topics: Vec<String> = (0..MANY).map(topic).collect();
    many(move |n| assert!(index.get(black_box(&topics[n as usize])).is_some()))
}

fn retained_walking() -> Box<dyn FnMut()> {
    let index = retained();
    Box::new(move || {
        let mut found = 0;
        index.scan("site/+/device/+/state", &mut Cursor::default(), usize::MAX, &mut |topic, _| {
            black_box(topic);
            found += 1;
            ScanStep::Next
        });
        assert!(found == FILTERS);
    })
}

fn through_a_lane() -> Box<dyn FnMut()> {
    let (mut sender, mut receiver) = mesh::ring::<[u64; 4]>(8);
    many(move |n| {
        sender.push(black_box([u64::from(n); 4])).expect("there is room");
        black_box(receiver.pop().expect("just pushed"));
    })
}

/// What an executor does with a buffer, without the system call.
fn write(buffer: &mut SendBuffer) {
    let mut slices = [IoSlice::new(&[]); 64];
    let count = black_box(&*buffer).io_slices(&mut slices);
    let bytes = slices[..count].iter().map(|slice| slice.len()).sum();
    buffer.advance(bytes);
    assert!(buffer.is_empty());
    buffer.clear();
}

fn frames_copied() -> Box<dyn FnMut()> {
    let mut buffer = SendBuffer::default();
    many(move |n| {
        buffer.append(|out| out.extend_from_slice(black_box(&[0x30; 80])));
        if n % 50 == 49 {
            write(&mut buffer);
        }
    })
}

fn frames_by_reference() -> Box<dyn FnMut()> {
    let mut buffer = SendBuffer::default();
    let payload = Bytes::from(vec![0x55; 4_096]);
    many(move |n| {
        buffer.append(|out| out.extend_from_slice(black_box(&[0x30; 16])));
        buffer.append_shared(black_box(&payload).clone());
        if n % 20 == 19 {
            write(&mut buffer);
        }
    })
}

fn pinging() -> Box<dyn FnMut()> {
    let mut world = World::new(1, false);
    let clients: Vec<_> = (0..MANY).map(|_| world.client(0, "a/topic", Qos::AtMostOnce)).collect();
    Box::new(move || world.ping(&clients))
}

fn idle_turns() -> Box<dyn FnMut()> {
    let mut wheel = Wheel::new(Now(0));
    (0..MANY).for_each(|key| wheel.arm(Deadline::at_us(1 << 40), key));
    let (mut now, mut fired) = (0, Vec::new());
    many(move |_| {
        now += 1_000;
        wheel.advance(Now(now), &mut fired);
        assert!(fired.is_empty() && wheel.next().is_some());
    })
}

/// Keep Alive of a minute, for as many connections as fire in one call.
fn timers_firing() -> Box<dyn FnMut()> {
    const KEEP_ALIVE_US: u64 = 60_000_000;
    let mut wheel = Wheel::new(Now(0));
    let apart_us = KEEP_ALIVE_US / u64::from(MANY);
    (0..MANY).for_each(|key| wheel.arm(Deadline::at_us(u64::from(key) * apart_us), key));
    let (mut now, mut fired) = (0, Vec::new());
    many(move |_| {
        now += apart_us;
        wheel.advance(Now(now), &mut fired);
        for key in fired.drain(..) {
            wheel.arm(Deadline::at_us(now + KEEP_ALIVE_US), key);
        }
    })
}

fn delivering(cores: u16, qos: Qos, subscribers: usize) -> Box<dyn FnMut()> {
    let (mut world, publisher) = World::fan_out(cores, qos, subscribers);
    let bytes = messages("a/topic", qos, BATCH as u16, 64);
    Box::new(move || world.receive(publisher, &bytes))
}

/// Messages allowed by the last of ten rules, to one topic or each to another.
fn ruled(topic: &str, is_elsewhere: bool) -> Box<dyn FnMut()> {
    let denied: String = (0..9).map(|n| format!("deny publish site/{n}/#\n")).collect();
    let mut world = World::with_rules(&format!("for everyone\n{denied}allow all a/#\n"));
    let publisher = world.client(0, "a/elsewhere", Qos::AtMostOnce);
    let publish = |n: u32| match is_elsewhere {
        true => packets::publish(&format!("a/{n:05}"), Qos::AtMostOnce, 1, Version::V311),
        false => packets::publish(topic, Qos::AtMostOnce, 1, Version::V311),
    };
    let bytes: Vec<u8> = (0..BATCH).flat_map(publish).collect();
    Box::new(move || world.receive(publisher, &bytes))
}

/// Ten rules of Mosquitto, the last of which allows everything. A subscription to all topics is filtered if the others deny,
/// and covered if they are about publishing.
fn ten_rules(access: &str) -> String {
    let others: String = (0..9).map(|n| format!("topic {access} site/{n}/#\n")).collect();
    others + "topic readwrite #\n"
}

/// Messages to a subscriber to all topics, to one topic or each to another.
fn to_all(mut world: World, is_elsewhere: bool) -> Box<dyn FnMut()> {
    let publisher = world.client(0, "elsewhere", Qos::AtMostOnce);
    world.client(0, "#", Qos::AtMostOnce);
    let topic = |n: u32| if is_elsewhere { format!("a/{n:05}") } else { "a/topic".to_owned() };
    let publish = |n: u32| packets::publish(&topic(n), Qos::AtMostOnce, 1, Version::V311);
    let bytes: Vec<u8> = (0..BATCH).flat_map(publish).collect();
    Box::new(move || world.receive(publisher, &bytes))
}

/// Each message to another topic, so that caches do not help, and a subscriber to all topics.
fn wildcards_and_long_topics() -> Box<dyn FnMut()> {
    let mut world = World::new(1, false);
    let publisher = world.client(0, "elsewhere", Qos::AtMostOnce);
    for n in 0..MANY {
        world.client(0, &long_hash(n), Qos::AtMostOnce);
    }
    let mut round = 0;
    Box::new(move || {
        round += 1;
        let publish = |n| {
            let topic = format!("{}/{round}", long_topic(n));
            packets::publish(&topic, Qos::AtMostOnce, 1, Version::V311)
        };
        (0..MANY).for_each(|n| world.receive(publisher, &publish(n)));
    })
}

fn coming_and_going() -> Box<dyn FnMut()> {
    let mut world = World::new(1, false);
    for n in 0..MANY {
        world.client(0, &format!("topic/{n}"), Qos::AtMostOnce);
    }
    Box::new(move || {
        for _ in 0..VISITS {
            let (core, id) = world.client(0, "topic/of/its/own", Qos::AtMostOnce);
            world.engines[core].handle_closed(Now(0), id);
        }
    })
}
