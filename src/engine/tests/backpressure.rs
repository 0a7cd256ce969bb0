//! Backpressure: a live consumer loses no message, a stuck one delays no publisher, and no limit is exceeded.

use super::*;
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::config::QueuePolicy;

const PAYLOAD: [u8; 1_000] = [b'x'; 1_000];

/// Publishes until the publisher is paused, at most `times` times; returns the number of messages.
fn publish_until_paused(world: &mut World, publisher: ConnectionId, times: usize) -> usize {
    for round in 0..times {
        if world.paused.contains(&publisher) {
            return round;
        }
        world.publish(publisher, "t", &PAYLOAD, Qos::AtMostOnce, 0);
    }
    times
}

#[test]
fn a_publisher_is_not_read_while_its_consumer_is_behind_and_nothing_is_lost() {
    let mut world = World::new();
    let (consumer, publisher) = (world.connect(&Client::v5("c")), world.connect(&Client::v5("p")));
    world.subscribe(consumer, "t", Qos::AtMostOnce);
    world.stuck.insert(consumer);
    let sent = publish_until_paused(&mut world, publisher, 5_000);
    assert!(sent < 200, "paused at an eighth of the outbox bound, not after {sent}");
    // Input that the executor has read already waits in the engine, in order.
    world.publish(publisher, "t", b"last", Qos::AtMostOnce, 0);
    world.unstick(consumer);
    assert!(world.paused.is_empty());
    let payloads = world.payloads(consumer);
    assert_eq!((payloads.len(), payloads.last().map(String::as_str)), (sent + 1, Some("last")));
    assert_eq!(world.engine.metrics().drops.total(), 0);
}

#[test]
fn a_stuck_consumer_delays_its_publisher_up_to_the_limit_and_stays_within_its_bound() {
    let mut world = World::new();
    let (consumer, publisher) = (world.connect(&Client::v5("c")), world.connect(&Client::v5("p")));
    world.subscribe(consumer, "t", Qos::AtMostOnce);
    world.stuck.insert(consumer);
    publish_until_paused(&mut world, publisher, 5_000);
    assert!(world.paused.contains(&publisher));
    world.advance_ms(limits::STUCK_LOOK_MS - 50);
    assert!(world.paused.contains(&publisher));
    world.advance_ms(100);
    assert!(world.paused.is_empty(), "no publisher waits for a consumer that reads nothing");
    for _ in 0..3_000 {
        world.publish(publisher, "t", &PAYLOAD, Qos::AtMostOnce, 0);
        assert!(world.paused.is_empty());
    }
    let sessions = 2 * limits::SESSION_BYTES as u64 + 1_024;
    let bound = u64::from(world.engine.config.limits.outbox_bytes_max) + sessions;
    let metrics = world.engine.metrics();
    assert!(metrics.memory_bytes <= bound, "{} over {bound}", metrics.memory_bytes);
    assert!(metrics.drops.of(DropCause::OutboxFull) > 1_900);
}

#[test]
fn a_consumer_that_acknowledges_less_than_the_kernel_buffers_is_not_stuck() {
    let mut world = World::new();
    let (consumer, publisher) = (world.connect(&Client::v5("c")), world.connect(&Client::v5("p")));
    world.subscribe(consumer, "t", Qos::AtMostOnce);
    world.stuck.insert(consumer);
    world.unacknowledged.insert(consumer, 4 << 20);
    publish_until_paused(&mut world, publisher, 5_000);
    // No bytes are written, and none are acknowledged for several seconds.
    for _ in 0..10 {
        for _ in 0..12 {
            world.advance_ms(limits::STUCK_LOOK_MS + 50);
            assert!(world.paused.contains(&publisher), "the publisher waits");
        }
        *world.unacknowledged.get_mut(&consumer).expect("set") -= 65_536;
    }
    assert_eq!(world.engine.metrics().consumers_stuck, 0);
    for second in 0..17 {
        world.advance_ms(limits::STUCK_LOOK_MS + 50);
        assert_eq!(
            world.paused.is_empty(),
            second >= 15,
            "{second}: the consumer has read nothing more"
        );
    }
    assert_eq!(world.engine.metrics().consumers_stuck, 1);
    *world.unacknowledged.get_mut(&consumer).expect("set") -= 1;
    world.advance_ms(limits::STUCK_LOOK_MS + 50);
    publish_until_paused(&mut world, publisher, 100);
    assert!(world.paused.contains(&publisher), "the consumer reads again");
}

#[test]
fn a_stuck_consumer_that_reads_again_slows_its_publisher_again() {
    let mut world = World::new();
    let (consumer, publisher) = (world.connect(&Client::v5("c")), world.connect(&Client::v5("p")));
    world.subscribe(consumer, "t", Qos::AtMostOnce);
    world.stuck.insert(consumer);
    publish_until_paused(&mut world, publisher, 5_000);
    world.advance_ms(limits::STUCK_LOOK_MS + 50);
    publish_until_paused(&mut world, publisher, 100);
    assert!(world.paused.is_empty(), "stuck");
    world.take_some(consumer, 1_000);
    world.advance_ms(limits::STUCK_LOOK_MS + 50);
    publish_until_paused(&mut world, publisher, 100);
    assert!(world.paused.contains(&publisher));
}

#[test]
fn a_stuck_consumer_does_not_count_among_the_consumers_of_a_publisher() {
    let mut world = World::new();
    let consumers = ["stuck", "live"].map(|name| {
        let id = world.connect(&Client::v5(name));
        world.subscribe(id, "t", Qos::AtMostOnce);
        id
    });
    let publisher = world.connect(&Client::v5("p"));
    world.stuck.insert(consumers[0]);
    assert_eq!(publish_until_paused(&mut world, publisher, 300), 300, "one of two is no majority");
    world.advance_ms(limits::STUCK_LOOK_MS + 50);
    world.stuck.insert(consumers[1]);
    let sent = publish_until_paused(&mut world, publisher, 5_000);
    assert!(sent < 200, "the other consumer is the only live one: {sent}");
}

#[test]
fn all_publishers_that_wait_for_a_consumer_resume_once_it_has_caught_up() {
    let mut world = World::new();
    let consumer = world.connect(&Client::v5("c"));
    world.subscribe(consumer, "t", Qos::AtMostOnce);
    let publishers: Vec<ConnectionId> =
        (0..50).map(|number| world.connect(&Client::v5(&format!("p{number}")))).collect();
    world.stuck.insert(consumer);
    publish_until_paused(&mut world, publishers[0], 5_000);
    for &publisher in &publishers[1..] {
        world.publish(publisher, "t", b"m", Qos::AtMostOnce, 0);
    }
    assert_eq!(world.paused.len(), 50);
    world.unstick(consumer);
    assert!(world.paused.is_empty(), "{} still wait", world.paused.len());
}

#[test]
fn one_slow_consumer_among_many_delays_no_publisher() {
    let mut world = World::new();
    let consumers: Vec<ConnectionId> = (0..10)
        .map(|number| {
            let id = world.connect(&Client::v5(&format!("c{number}")));
            world.subscribe(id, "t", Qos::AtMostOnce);
            world.packets(id, Version::V5);
            id
        })
        .collect();
    let publisher = world.connect(&Client::v5("p"));
    world.stuck.insert(consumers[3]);
    for _ in 0..3_000 {
        world.publish(publisher, "t", &PAYLOAD, Qos::AtMostOnce, 0);
        assert!(world.paused.is_empty());
    }
    for (number, &id) in consumers.iter().enumerate().filter(|&(number, _)| number != 3) {
        assert_eq!(world.payloads(id).len(), 3_000, "consumer {number}");
    }
}

#[test]
fn everything_on_the_ledger_is_released_in_the_end() {
    let mut world = World::new();
    let consumer = world.connect(&Client::persistent("c"));
    let publisher = world.connect(&Client::v5("p"));
    world.subscribe(consumer, "t", Qos::ExactlyOnce);
    world.stuck.insert(consumer);
    for number in 1..400 {
        world.publish(publisher, "t", &PAYLOAD, Qos::ExactlyOnce, number);
    }
    world.engine.handle_received(world.now, publisher, &[0x32, 0xff, 0xff, 0x03, 1, 2, 3]);
    world.settle();
    assert!(world.engine.metrics().memory_bytes > 100_000);
    world.cut(publisher);
    world.cut(consumer);
    world.advance_ms(3_601_000);
    assert_eq!(world.engine.metrics().memory_bytes, 0);
    assert_eq!(world.engine.sessions.len(), 0);
}

fn offline_queue(policy: QueuePolicy, count: usize) -> Vec<String> {
    let mut world = World::with(
        |settings| {
            settings.limits.queue_messages_max = 3;
            settings.limits.queue_policy = policy;
        },
        Box::new(AllowAll),
    );
    let consumer = world.connect(&Client::persistent("c"));
    world.subscribe(consumer, "t/+", Qos::AtLeastOnce);
    world.cut(consumer);
    let publisher = world.connect(&Client::v5("p"));
    for number in 0..count {
        let topic = format!("t/{}", number % 2);
        world.publish(publisher, &topic, number.to_string().as_bytes(), Qos::AtLeastOnce, 1);
    }
    let dropped = world.engine.metrics().drops.total();
    let consumer = world.connect(&Client::persistent("c"));
    // CONNACK was removed together with the packets after it: connect again.
    world.cut(consumer);
    let consumer = world.accept();
    world.send_connect(consumer, &Client::persistent("c"));
    let payloads = world.payloads(consumer);
    assert_eq!(payloads.len() as u64 + dropped, count as u64, "every drop is counted");
    payloads
}

#[test]
fn drop_newest_keeps_the_first_messages() {
    assert_eq!(offline_queue(QueuePolicy::DropNewest, 5), ["0", "1", "2"]);
}

#[test]
fn drop_oldest_keeps_the_last_messages() {
    assert_eq!(offline_queue(QueuePolicy::DropOldest, 5), ["2", "3", "4"]);
}

#[test]
fn keep_latest_keeps_one_message_a_topic() {
    assert_eq!(offline_queue(QueuePolicy::KeepLatest, 7), ["6", "5"]);
}

#[test]
fn bytes_in_flight_are_bounded_and_a_larger_message_is_sent_alone() {
    let mut world =
        World::with(|settings| settings.limits.inflight_bytes_max = 2_500, Box::new(AllowAll));
    let consumer = world.connect(&Client::persistent("c"));
    world.subscribe(consumer, "t", Qos::ExactlyOnce);
    let publisher = world.connect(&Client::v5("p"));
    for number in 1..=6 {
        world.publish(publisher, "t", &PAYLOAD, Qos::AtLeastOnce, number);
    }
    world.publish(publisher, "t", &[b'l'; 9_000], Qos::ExactlyOnce, 7);
    world.publish(publisher, "t", b"last", Qos::AtLeastOnce, 8);
    let sizes = |world: &mut World, id| -> Vec<(usize, u16)> {
        let sent = world.publishes(id).into_iter();
        sent.map(|(_, payload, _, number)| (payload.len(), number.expect("QoS 1 or 2"))).collect()
    };
    // Two are below the bound, and the third reaches it.
    assert_eq!(sizes(&mut world, consumer), [(1_000, 1), (1_000, 2), (1_000, 3)]);
    world.send(consumer, Version::V5, &Packet::Puback(ack(2)));
    assert_eq!(sizes(&mut world, consumer), [(1_000, 4)]);
    for number in [1, 3] {
        world.send(consumer, Version::V5, &Packet::Puback(ack(number)));
    }
    assert_eq!(sizes(&mut world, consumer), [(1_000, 5), (1_000, 6)]);
    // On another connection, what is in flight comes again, within the bound.
    world.cut(consumer);
    let consumer = world.accept();
    world.send_connect(consumer, &Client::persistent("c"));
    assert_eq!(sizes(&mut world, consumer), [(1_000, 4), (1_000, 5), (1_000, 6)]);
    for number in [4, 5, 6] {
        world.send(consumer, Version::V5, &Packet::Puback(ack(number)));
    }
    assert_eq!(sizes(&mut world, consumer), [(9_000, 7)]);
    // Its payload is there with PUBREC.
    world.send(consumer, Version::V5, &Packet::Pubrec(ack(7)));
    assert_eq!(sizes(&mut world, consumer), [(4, 8)]);
}

#[test]
fn disconnect_ends_a_connected_consumer_with_quota_exceeded() {
    let mut world = World::with(
        |settings| {
            settings.limits.queue_messages_max = 3;
            settings.limits.queue_policy = QueuePolicy::Disconnect;
            settings.limits.inflight_max = 1;
        },
        Box::new(AllowAll),
    );
    let consumer = world.connect(&Client::v5("c"));
    world.subscribe(consumer, "t", Qos::AtLeastOnce);
    let publisher = world.connect(&Client::v5("p"));
    for number in 1..=4 {
        world.publish(publisher, "t", b"m", Qos::AtLeastOnce, number);
        assert!(world.closed.is_empty());
    }
    world.publish(publisher, "t", b"m", Qos::AtLeastOnce, 5);
    assert!(world.closed.contains(&consumer));
    let packets = world.packets(consumer, Version::V5);
    assert!(packets.last().is_some_and(|last| last.contains("QuotaExceeded")), "{packets:?}");
}

#[test]
fn keep_latest_conflates_for_a_connected_consumer_that_is_slow() {
    let mut world = World::with(
        |settings| settings.limits.queue_policy = QueuePolicy::KeepLatest,
        Box::new(AllowAll),
    );
    let consumer = world.connect(&Client::v5("c"));
    world.subscribe(consumer, "t", Qos::AtMostOnce);
    let publisher = world.connect(&Client::v5("p"));
    world.stuck.insert(consumer);
    publish_until_paused(&mut world, publisher, 1_000);
    world.advance_ms(1_000);
    for number in 0..500 {
        let payload = number.to_string();
        world.publish(publisher, "t", payload.as_bytes(), Qos::AtMostOnce, 0);
    }
    world.unstick(consumer);
    assert_eq!(world.payloads(consumer).last().map(String::as_str), Some("499"));
    assert!(world.engine.metrics().drops.of(DropCause::Superseded) > 400);
}

#[test]
fn retained_messages_arrive_in_portions_and_completely() {
    let mut world = World::new();
    let publisher = world.connect(&Client::v5("p"));
    for number in 0..20_000 {
        let topic = format!("r/{number}");
        let mut retained = publish(&topic, &PAYLOAD[..100], Qos::AtLeastOnce, 1);
        retained.retain = true;
        world.send(publisher, Version::V5, &Packet::Publish(retained));
    }
    let consumer = world.connect(&Client::v5("c"));
    world.stuck.insert(consumer);
    world.subscribe(consumer, "r/#", Qos::AtMostOnce);
    let memory = world.engine.metrics().memory_bytes;
    world.subscribe(consumer, "nothing", Qos::AtMostOnce);
    assert!(world.engine.metrics().memory_bytes - memory < 200_000, "no flood");
    world.unstick(consumer);
    let mut topics: Vec<String> =
        world.publishes(consumer).into_iter().map(|(topic, ..)| topic).collect();
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 20_000);
}

#[test]
fn an_offline_backlog_delays_no_publisher() {
    let mut world = World::new();
    let consumer = world.connect(&Client::persistent("c"));
    world.subscribe(consumer, "t", Qos::AtLeastOnce);
    world.cut(consumer);
    let publisher = world.connect(&Client::v5("p"));
    for number in 1..=20_000 {
        world.publish(publisher, "t", &PAYLOAD, Qos::AtLeastOnce, number);
    }
    world.connect(&Client::persistent("c"));
    for number in 1..=500 {
        world.publish(publisher, "t", b"live", Qos::AtLeastOnce, number);
        assert!(world.paused.is_empty());
    }
}

#[test]
fn above_the_memory_bound_new_clients_get_server_busy_and_publishers_pause() {
    let mut world =
        World::with(|settings| settings.limits.memory_bytes_max = 50_000, Box::new(AllowAll));
    let consumer = world.connect(&Client::persistent("c"));
    world.subscribe(consumer, "t", Qos::AtLeastOnce);
    world.cut(consumer);
    let publisher = world.connect(&Client::v5("p"));
    for number in 1..=60 {
        world.publish(publisher, "t", &PAYLOAD, Qos::AtLeastOnce, number);
    }
    assert!(world.paused.contains(&publisher));
    let newcomer = world.accept();
    world.send_connect(newcomer, &Client::v5("n"));
    assert!(world.packets(newcomer, Version::V5)[0].contains("ServerBusy"));
    world.advance_ms(150);
    assert!(world.engine.metrics().drops.of(DropCause::MemoryFull) > 0);
    assert!(world.engine.metrics().memory_bytes < 120_000);
}

#[test]
fn a_client_is_not_paused_by_its_own_subscription() {
    let mut world = World::with(|settings| settings.limits.inflight_max = 1, Box::new(AllowAll));
    let client = world.connect(&Client::v5("both"));
    world.subscribe(client, "t", Qos::AtLeastOnce);
    for number in 1..=20_000 {
        world.publish(client, "t", b"m", Qos::AtLeastOnce, number);
        assert!(world.paused.is_empty());
    }
}

#[test]
fn reconnecting_clients_leave_no_timers_behind_for_long() {
    let mut world = World::new();
    let mut client = Client::persistent("c");
    client.properties.session_expiry_interval = Some(1_000_000);
    for _ in 0..2_000 {
        let id = world.accept();
        world.send_connect_with_keep_alive(id, &client, 65_535);
        world.advance_ms(1_000);
        world.cut(id);
    }
    let armed = world.engine.timers.len();
    assert!(armed < 500, "{armed} timers for one client");
}

#[test]
fn connections_above_the_limits_get_the_reason_in_connack() {
    let change = |settings: &mut Settings| {
        settings.limits.connections_max = 2;
        settings.limits.connections_per_second_max = 3;
        settings.limits.sessions_max = 2;
    };
    let mut world = World::with(change, Box::new(AllowAll));
    let first = world.connect(&Client::v5("a"));
    world.connect(&Client::v5("b"));
    let one_too_many = world.accept();
    world.send_connect(one_too_many, &Client::v5("c"));
    assert!(world.packets(one_too_many, Version::V5)[0].contains("QuotaExceeded"));
    assert!(world.closed.contains(&one_too_many));
    world.cut(first);
    for (name, reason) in [("b", "Success"), ("d", "ConnectionRateExceeded")] {
        let id = world.accept();
        world.send_connect(id, &Client::v5(name));
        let connack = &world.packets(id, Version::V5)[0];
        assert!(connack.contains(reason), "{connack}");
    }
    world.advance_ms(1_100);
    let away = world.connect(&Client::persistent("b"));
    world.cut(away);
    world.connect(&Client::v5("e"));
    let id = world.accept();
    world.send_connect(id, &Client::v5("f"));
    let connack = &world.packets(id, Version::V5)[0];
    assert!(
        connack.contains("QuotaExceeded"),
        "the session of a disconnected client counts: {connack}"
    );
}

#[test]
fn far_above_the_limit_connections_are_refused_without_connack() {
    let mut world = World::with(|s| s.limits.connections_max = 2, Box::new(AllowAll));
    let peer = Peer { address: None, listener: 0 };
    let accepted = (0..200).filter(|_| world.engine.handle_accepted(Now(0), peer).is_ok()).count();
    assert_eq!(accepted, 2 + limits::REFUSED_CONNECTIONS_MAX);
    assert_eq!(world.engine.metrics().connections_refused, 198);
}

#[test]
fn a_long_scan_of_retained_topics_leaves_turns_to_other_clients() {
    let mut world = World::new();
    let publisher = world.connect(&Client::v5("p"));
    for number in 0..5_000 {
        let topic = format!("{number}/x");
        let mut retained = publish(&topic, b"m", Qos::AtMostOnce, 0);
        retained.retain = true;
        world.send(publisher, Version::V5, &Packet::Publish(retained));
    }
    let consumer = world.connect(&Client::v5("c"));
    let options = SubscribeOptions {
        qos: Qos::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let filters = [("+/nobody", options)];
    let subscribe = Subscribe {
        packet_identifier: identifier(1),
        subscription_identifier: None,
        user_properties: UserProperties::none(),
        filters: SubscribeFilters::list(&filters),
    };
    let mut bytes = Vec::new();
    Packet::Subscribe(subscribe).encode(Version::V5, &mut bytes);
    world.engine.handle_received(world.now, consumer, &bytes);
    let mut turns = 1;
    world.turn();
    while world.engine.poll_timeout().is_some_and(|deadline| deadline.is_due(world.now)) {
        world.engine.handle_timeout(world.now);
        world.turn();
        turns += 1;
    }
    assert!(turns >= 5, "{turns} turns");
}

#[test]
fn topic_aliases_a_client_sets_are_on_the_ledger_while_it_is_connected() {
    let mut world = World::new();
    let publisher = world.connect(&Client::v5("p"));
    let before = world.engine.metrics().memory_bytes;
    for length in [10_000, 3_000, 20_000] {
        let topic = "t".repeat(length);
        let mut message = publish(&topic, b"m", Qos::AtMostOnce, 0);
        message.properties.topic_alias = Some(64);
        world.send(publisher, Version::V5, &Packet::Publish(message));
        assert_eq!(world.engine.metrics().memory_bytes - before, length as u64);
    }
    world.cut(publisher);
    assert_eq!(world.engine.metrics().memory_bytes, 0);
}
