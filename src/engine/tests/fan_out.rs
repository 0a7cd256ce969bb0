//! Messages with more recipients than fit into one turn.

use super::cores::Cores;
use super::durability::{image, kept, taken_up};
use super::*;
use crate::engine::work::TURN_STEPS;
use crate::storage::commit::{RecordBatch, StoreState};
use crate::wire::{Unsubscribe, UnsubscribeFilters};

/// A world in which each part of a turn delivers a message to one subscriber.
struct Cut {
    world: World,
    /// Subscribers of `t`, in the order in which they subscribed.
    subscribers: Vec<ConnectionId>,
    publisher: ConnectionId,
    /// Records that are durable so far.
    stored: Vec<RecordBatch>,
}

impl Cut {
    fn new(mut world: World, qos: Qos, count: usize) -> Self {
        let mut stored = Vec::new();
        let mut connect = |world: &mut World, name: &str| {
            let id = world.accept();
            world.send_connect(id, &Client::persistent(name));
            stored.extend(world.store_all());
            id
        };
        let publisher = connect(&mut world, "publisher");
        let names: Vec<String> = (0..count).map(|n| format!("subscriber {n:02}")).collect();
        let subscribers: Vec<ConnectionId> =
            names.iter().map(|name| connect(&mut world, name)).collect();
        for &id in &subscribers {
            world.subscribe(id, "t", qos);
            stored.extend(world.store_all());
            world.packets(id, Version::V5);
        }
        world.packets(publisher, Version::V5);
        world.engine.cut_fan_outs(1);
        Self { world, subscribers, publisher, stored }
    }

    /// Publishes a message and ends the turn.
    fn begin(&mut self, payload: &[u8], qos: Qos, number: u16) {
        self.world.arrive(self.publisher, &Packet::Publish(publish("t", payload, qos, number)));
        self.world.turn();
    }
}

impl World {
    fn arrive(&mut self, id: ConnectionId, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        self.engine.handle_received(self.now, id, &bytes);
    }

    fn unsubscribe(&mut self, id: ConnectionId, filter: &str) {
        let filters = [filter];
        let unsubscribe = Unsubscribe {
            packet_identifier: identifier(2),
            user_properties: UserProperties::none(),
            filters: UnsubscribeFilters::list(&filters),
        };
        self.arrive(id, &Packet::Unsubscribe(unsubscribe));
    }

    /// Payloads that each client has received since the last call.
    fn payloads_of(&mut self, ids: &[ConnectionId]) -> Vec<Vec<String>> {
        ids.iter().map(|&id| self.payloads(id)).collect()
    }

    fn go_on(&mut self) {
        self.engine.handle_timeout(self.now);
        self.turn();
    }
}

fn has(count: usize, all: usize, payloads: &[&str]) -> Vec<Vec<String>> {
    let payloads: Vec<String> = payloads.iter().map(|&payload| payload.to_owned()).collect();
    (0..all).map(|n| if n < count { payloads.clone() } else { Vec::new() }).collect()
}

#[test]
fn a_turn_is_bounded_however_many_subscribe() {
    for (qos, away, subscribers, takes_turns) in [
        (Qos::AtMostOnce, false, 70_000, false),
        (Qos::AtLeastOnce, false, 70_000, true),
        (Qos::ExactlyOnce, false, 40_000, true),
        (Qos::AtLeastOnce, true, 21_000, true),
    ] {
        let change = |settings: &mut Settings| settings.limits.connections_max = 75_000;
        let mut world = World::with(change, Box::new(AllowAll));
        let names: Vec<String> = (0..subscribers).map(|n| format!("{n}")).collect();
        let mut ids = Vec::new();
        for name in &names {
            let id = world.connect(&Client::persistent(name));
            world.subscribe(id, "t", qos);
            world.packets(id, Version::V5);
            if away {
                world.cut(id);
            }
            ids.push(id);
        }
        let publisher = world.connect(&Client::v5("publisher"));
        world.engine.work.take_turn_max();
        for number in 1..=3 {
            world.publish(publisher, "t", b"m", qos, number);
        }
        let steps = world.engine.work.take_turn_max();
        assert!(steps < TURN_STEPS + 2 * 2_048, "{qos:?}, away {away}: {steps} steps in a turn");
        assert!(steps > TURN_STEPS / 4, "{qos:?}, away {away}: {steps} steps in a turn");
        let metrics = world.engine.metrics();
        if away {
            assert_eq!(metrics.messages_queued, 3 * subscribers);
        } else {
            assert_eq!(metrics.publishes_sent, 3 * subscribers);
        }
        assert_eq!(metrics.fan_outs_divided > 0, takes_turns, "{qos:?}, away {away}");
    }
}

/// If a recipient unsubscribes meanwhile, its other subscriptions are checked, as many as a client may have.
#[test]
fn a_turn_is_bounded_while_clients_with_many_filters_unsubscribe() {
    let change = |settings: &mut Settings| settings.limits.connections_max = 45_000;
    let mut world = World::with(change, Box::new(AllowAll));
    for n in 0..40_000 {
        let id = world.connect(&Client::v5(&format!("{n}")));
        world.subscribe(id, "t", Qos::ExactlyOnce);
    }
    let filters: Vec<String> = (0..1_900).map(|n| format!("{n}/+")).collect();
    let mut last = Vec::new();
    for n in 0..30 {
        let id = world.connect(&Client::v5(&format!("last {n}")));
        for filter in &filters {
            world.subscribe(id, filter, Qos::AtMostOnce);
        }
        world.subscribe(id, "t", Qos::ExactlyOnce);
        world.packets(id, Version::V5);
        last.push(id);
    }
    let publisher = world.connect(&Client::v5("publisher"));
    world.arrive(publisher, &Packet::Publish(publish("t", b"m", Qos::ExactlyOnce, 1)));
    assert!(!world.engine.router.fan_outs().is_empty());
    world.engine.work.end_turn();
    world.engine.work.take_turn_max();
    for &id in &last {
        world.unsubscribe(id, "0/+");
    }
    world.settle();
    let steps = world.engine.work.take_turn_max();
    assert!(steps < TURN_STEPS + 2 * 2_048, "{steps} steps in a turn");
    assert_eq!(world.payloads_of(&last), has(30, 30, &["m"]));
}

#[test]
fn each_subscriber_receives_each_message_once_and_in_order() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut cut = Cut::new(World::new(), qos, 6);
        for (number, payload) in (1..).zip([b"1", b"2", b"3"]) {
            cut.world.arrive(cut.publisher, &Packet::Publish(publish("t", payload, qos, number)));
        }
        cut.world.settle();
        assert_eq!(cut.world.payloads_of(&cut.subscribers), has(6, 6, &["1", "2", "3"]), "{qos:?}");
        assert!(cut.world.engine.metrics().fan_outs_divided > 0);
        assert!(cut.world.engine.router.fan_outs().is_empty());
    }
}

#[test]
fn a_publisher_is_acknowledged_and_read_again_once_all_subscribers_have_its_message() {
    let mut cut = Cut::new(World::new(), Qos::AtLeastOnce, 4);
    cut.begin(b"m", Qos::AtLeastOnce, 7);
    // One recipient in each part of the turn.
    assert_eq!(cut.world.payloads_of(&cut.subscribers), has(2, 4, &["m"]));
    assert!(cut.world.paused.contains(&cut.publisher));
    assert_eq!(cut.world.packets(cut.publisher, Version::V5), [""; 0]);
    cut.world.go_on();
    assert_eq!(cut.world.packets(cut.publisher, Version::V5), [""; 0]);
    cut.world.go_on();
    let answers = cut.world.packets(cut.publisher, Version::V5);
    assert!(answers.len() == 1 && answers[0].starts_with("Puback"), "{answers:?}");
    assert!(!cut.world.paused.contains(&cut.publisher));
}

#[test]
fn messages_of_other_publishers_wait_if_they_have_many_recipients_and_overtake_if_few() {
    let mut cut = Cut::new(World::new(), Qos::AtLeastOnce, 4);
    let alone = cut.world.connect(&Client::v5("alone"));
    cut.world.subscribe(alone, "few", Qos::AtLeastOnce);
    cut.world.packets(alone, Version::V5);
    let other = cut.world.connect(&Client::v5("other"));
    cut.begin(b"1", Qos::AtLeastOnce, 7);
    cut.world.arrive(other, &Packet::Publish(publish("t", b"2", Qos::AtLeastOnce, 1)));
    cut.world.turn();
    cut.world.arrive(alone, &Packet::Publish(publish("few", b"x", Qos::AtLeastOnce, 1)));
    cut.world.turn();
    assert_eq!(cut.world.payloads(alone), ["x"]);
    assert!(!cut.world.engine.router.fan_outs().is_empty(), "both fan-outs are in progress");
    cut.world.settle();
    assert_eq!(cut.world.payloads_of(&cut.subscribers), has(4, 4, &["1", "2"]));
}

#[test]
fn a_client_that_unsubscribes_before_its_turn_receives_the_message_only_by_another_subscription() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let mut cut = Cut::new(World::new(), qos, 6);
        cut.world.subscribe(cut.subscribers[5], "+", qos);
        cut.world.packets(cut.subscribers[5], Version::V5);
        cut.begin(b"m", qos, 7);
        for subscriber in [cut.subscribers[4], cut.subscribers[5]] {
            cut.world.unsubscribe(subscriber, "t");
            cut.world.settle();
        }
        let got = cut.world.payloads_of(&cut.subscribers);
        let expected: Vec<Vec<String>> =
            (0..6).map(|n| if n == 4 { Vec::new() } else { vec!["m".to_owned()] }).collect();
        assert_eq!(got, expected, "{qos:?}");
        assert!(cut.world.engine.router.fan_outs().is_empty());
    }
}

#[test]
fn the_place_of_a_session_that_ends_before_its_turn_stays_taken_during_the_fan_out() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let mut cut = Cut::new(World::new(), qos, 6);
        cut.begin(b"m", qos, 7);
        let sessions = cut.world.engine.sessions.len();
        // The last subscriber's session ends, and a new client takes its Client Identifier.
        let newcomer = cut.world.accept();
        let mut client = Client::persistent("subscriber 05");
        client.clean_start = true;
        cut.world.send_connect(newcomer, &client);
        let got = cut.world.payloads_of(&cut.subscribers);
        assert_eq!(got, has(5, 6, &["m"]), "{qos:?}");
        assert_eq!(cut.world.payloads(newcomer), [""; 0], "{qos:?}");
        assert_eq!(
            cut.world.engine.sessions.len(),
            sessions,
            "the slot of the session is free again"
        );
    }
}

#[test]
fn a_client_that_changes_its_version_before_its_turn_receives_the_message_in_it() {
    let mut cut = Cut::new(World::new(), Qos::AtMostOnce, 6);
    cut.begin(b"m", Qos::AtMostOnce, 0);
    let back = cut.world.accept();
    let client = Client { version: Version::V311, ..Client::persistent("subscriber 05") };
    cut.world.send_connect(back, &client);
    assert_eq!(cut.world.payloads_of(&cut.subscribers), has(5, 6, &["m"]));
    let packets = cut.world.packets(back, Version::V311);
    assert!(packets.len() == 2 && packets[1].starts_with("Publish"), "{packets:?}");
}

#[test]
fn a_client_that_changes_its_version_receives_each_message_of_a_batch() {
    let mut cut = Cut::new(World::new(), Qos::AtMostOnce, 6);
    cut.world.arrive(cut.publisher, &Packet::Publish(publish("t", b"a", Qos::AtMostOnce, 0)));
    cut.world.arrive(cut.publisher, &Packet::Publish(publish("t", b"b", Qos::AtMostOnce, 0)));
    cut.world.turn();
    let back = cut.world.accept();
    let client = Client { version: Version::V311, ..Client::persistent("subscriber 05") };
    cut.world.send_connect(back, &client);
    assert_eq!(cut.world.payloads_of(&cut.subscribers), has(5, 6, &["a", "b"]));
    let mut payloads = Vec::new();
    cut.world.each_packet(back, Version::V311, |packet| {
        if let Packet::Publish(publish) = packet {
            payloads.push(publish.payload.to_vec());
        }
    });
    assert_eq!(payloads, [b"a", b"b"]);
}

#[test]
fn another_core_gets_a_receipt_once_all_recipients_have_a_message_and_then_for_later_ones() {
    let mut cores = Cores::new(2);
    let publisher = cores.connect(0);
    let subscribers: Vec<_> = (0..5).map(|_| cores.connect(1)).collect();
    for &id in &subscribers {
        cores.0[1].subscribe(id, "t", Qos::AtLeastOnce);
    }
    cores.settle();
    for &id in &subscribers {
        cores.0[1].packets(id, Version::V5);
    }
    cores.0[1].engine.cut_fan_outs(1);
    let mut batches = [(1, b"1"), (2, b"2")].map(|(number, payload)| {
        cores.0[0].publish(publisher, "t", payload, Qos::AtLeastOnce, number);
        cores.0[0].engine.poll_batch(CoreId(1)).expect("a message")
    });
    let there = &mut cores.0[1];
    there.engine.handle_batch(there.now, CoreId(0), std::mem::take(&mut batches[0]));
    there.turn();
    assert_eq!(there.payloads_of(&subscribers), has(2, 5, &["1"]));
    assert!(there.engine.poll_batch(CoreId(0)).is_none(), "no receipt yet");
    there.engine.handle_batch(there.now, CoreId(0), std::mem::take(&mut batches[1]));
    assert!(there.engine.has_unread_batches(), "the second batch waits for the fan-out");
    there.settle();
    assert!(there.payloads_of(&subscribers)[4] == ["1", "2"]);
    cores.settle();
    assert_eq!(
        cores.0[0].packets(publisher, Version::V5).len(),
        2,
        "both messages are acknowledged"
    );
}

#[test]
fn a_stop_of_the_broker_delivers_earlier_messages_to_all() {
    let mut cut = Cut::new(World::new(), Qos::AtLeastOnce, 6);
    cut.begin(b"m", Qos::AtLeastOnce, 7);
    cut.world.engine.handle_shutdown(cut.world.now);
    cut.world.turn();
    assert_eq!(cut.world.payloads_of(&cut.subscribers), has(6, 6, &["m"]));
}

impl Cut {
    /// Disconnects all subscribers.
    fn go_away(&mut self) {
        for &subscriber in &self.subscribers {
            self.world.cut(subscriber);
        }
        self.stored.extend(self.world.store_all());
    }
}

/// Number of deliveries that a start after a crash finds.
fn found(stored: &[RecordBatch]) -> usize {
    image(stored).sessions.values().map(|of| of.queue.len() + of.inflight.len()).sum()
}

#[test]
fn a_message_is_acknowledged_once_all_of_its_deliveries_are_durable() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut cut = Cut::new(kept(), qos, 4);
        cut.go_away();
        cut.begin(b"m", qos, 7);
        while !cut.world.engine.router.fan_outs().is_empty() {
            let records = cut.world.records();
            let up_to = records.as_ref().map_or(0, |records| records.number);
            cut.stored.extend(records);
            let state = StoreState { up_to, ..StoreState::default() };
            cut.world.engine.handle_stored(cut.world.now, state);
            cut.world.turn();
            assert_eq!(cut.world.packets(cut.publisher, Version::V5), [""; 0], "{qos:?}");
            cut.world.go_on();
        }
        assert_eq!(
            cut.world.packets(cut.publisher, Version::V5),
            [""; 0],
            "some records are not stored yet"
        );
        cut.stored.extend(cut.world.store_all());
        let answers = cut.world.packets(cut.publisher, Version::V5);
        assert!(answers.len() == 1 && answers[0].starts_with("Pub"), "{answers:?}");
        assert_eq!(found(&cut.stored), 4, "{qos:?}");
    }
}

#[test]
fn a_message_is_acknowledged_even_if_its_last_recipients_are_not_persistent() {
    let mut cut = Cut::new(kept(), Qos::AtLeastOnce, 2);
    cut.go_away();
    for name in ["a", "b", "c"] {
        let id = cut.world.connect(&Client::v5(name));
        cut.world.subscribe(id, "t", Qos::AtLeastOnce);
    }
    cut.begin(b"m", Qos::AtLeastOnce, 7);
    cut.world.store_all();
    cut.world.settle();
    let answers = cut.world.packets(cut.publisher, Version::V5);
    assert!(answers.len() == 1 && answers[0].starts_with("Puback"), "{answers:?}");
}

#[test]
fn a_qos_2_message_interrupted_by_a_crash_reaches_each_session_once_when_sent_again() {
    let mut cut = Cut::new(kept(), Qos::ExactlyOnce, 4);
    cut.go_away();
    cut.begin(b"m", Qos::ExactlyOnce, 7);
    // The records so far become durable, then the process ends.
    cut.stored.extend(cut.world.records());
    assert!(!cut.world.engine.router.fan_outs().is_empty());
    assert_eq!(found(&cut.stored), 2);
    let mut next = taken_up(image(&cut.stored));
    let publisher = next.accept();
    next.send_connect(publisher, &Client::persistent("publisher"));
    next.store_all();
    let again = Publish { dup: true, ..publish("t", b"m", Qos::ExactlyOnce, 7) };
    next.send(publisher, Version::V5, &Packet::Publish(again));
    next.store_all();
    assert_eq!(all_payloads(&mut next), vec![["m"]; 4]);
}

impl Cut {
    /// Subscribers of `t`, of which the first has a subscription of its own.
    fn with_a_topic_of_one(topic: &str) -> Self {
        let mut cut = Self::new(kept(), Qos::ExactlyOnce, 4);
        cut.world.subscribe(cut.subscribers[0], topic, Qos::ExactlyOnce);
        cut.stored.extend(cut.world.store_all());
        cut
    }

    /// The process ends, and the publisher sends its last message again to the next one. Payloads that the
    /// subscribers receive from it.
    fn after_a_crash(&self, again: Publish<'_>) -> Vec<Vec<String>> {
        let mut next = taken_up(image(&self.stored));
        let publisher = next.accept();
        next.send_connect(publisher, &Client::persistent("publisher"));
        next.store_all();
        next.send(publisher, Version::V5, &Packet::Publish(Publish { dup: true, ..again }));
        next.store_all();
        all_payloads(&mut next)
    }
}

#[test]
fn a_qos_2_message_of_one_recipient_is_received_with_its_delivery_though_another_fan_out_continues()
{
    let mut cut = Cut::with_a_topic_of_one("few");
    let other = cut.world.connect(&Client::v5("other"));
    cut.world.arrive(other, &Packet::Publish(publish("t", b"0", Qos::AtMostOnce, 0)));
    cut.world.turn();
    assert!(!cut.world.engine.router.fan_outs().is_empty());
    let message = publish("few", b"m", Qos::ExactlyOnce, 7);
    cut.world.arrive(cut.publisher, &Packet::Publish(message.clone()));
    cut.world.turn();
    assert!(!cut.world.engine.router.fan_outs().is_empty());
    cut.stored.extend(cut.world.records());
    assert_eq!(found(&cut.stored), 1);
    assert_eq!(cut.after_a_crash(message), [vec!["m"], vec![], vec![], vec![]]);
}

#[test]
fn a_qos_2_message_of_one_recipient_that_waits_behind_a_fan_out_reaches_it_once_after_a_crash() {
    let mut cut = Cut::with_a_topic_of_one("few");
    // The first message waits in the batch of the turn, and its fan-out begins with the second.
    let message = publish("few", b"m", Qos::ExactlyOnce, 7);
    cut.world.arrive(cut.publisher, &Packet::Publish(publish("t", b"0", Qos::AtMostOnce, 0)));
    cut.world.arrive(cut.publisher, &Packet::Publish(message.clone()));
    cut.world.turn();
    while found(&cut.stored) == 0 {
        assert!(!cut.world.engine.router.fan_outs().is_empty());
        cut.world.go_on();
        cut.stored.extend(cut.world.records());
    }
    assert_eq!(cut.after_a_crash(message), [vec!["m"], vec![], vec![], vec![]]);
}

#[test]
fn a_duplicate_during_a_fan_out_is_acknowledged_at_its_end() {
    let mut cut = Cut::new(World::new(), Qos::ExactlyOnce, 6);
    cut.begin(b"m", Qos::ExactlyOnce, 7);
    cut.world.engine.handle_closed(cut.world.now, cut.publisher);
    let back = cut.world.accept();
    let client = Client::persistent("publisher");
    let connect = Connect {
        version: client.version,
        is_bridge: false,
        clean_start: false,
        keep_alive_s: 0,
        client_identifier: client.name,
        username: None,
        password: None,
        will: None,
        properties: client.properties.clone(),
    };
    cut.world.arrive(back, &Packet::Connect(connect));
    let again = Publish { dup: true, ..publish("t", b"m", Qos::ExactlyOnce, 7) };
    cut.world.arrive(back, &Packet::Publish(again));
    let mut is_acknowledged = false;
    while !is_acknowledged {
        is_acknowledged =
            cut.world.packets(back, Version::V5).iter().any(|p| p.starts_with("Pubrec"));
        assert_eq!(is_acknowledged, cut.world.engine.router.fan_outs().is_empty());
        cut.world.go_on();
    }
    assert_eq!(cut.world.payloads_of(&cut.subscribers), has(6, 6, &["m"]));
}

#[test]
fn a_durable_will_interrupted_by_a_crash_reaches_all_subscribers() {
    let mut cut = Cut::new(kept(), Qos::AtLeastOnce, 4);
    let will =
        wire::Will { topic: "t", payload: b"m", qos: Qos::AtLeastOnce, ..wire::Will::default() };
    let mortal = cut.world.accept();
    cut.world.send_connect(mortal, &Client { will: Some(will), ..Client::persistent("mortal") });
    cut.stored.extend(cut.world.store_all());
    cut.go_away();
    cut.world.engine.handle_closed(cut.world.now, mortal);
    cut.world.turn();
    let logged = cut.world.records().expect("some deliveries");
    let up_to = logged.number;
    cut.stored.push(logged);
    assert!(!cut.world.engine.router.fan_outs().is_empty());
    let mut next = taken_up(image(&cut.stored));
    next.advance_ms(100);
    next.store_all();
    // A subscriber that had the message before the crash may receive it again.
    for got in all_payloads(&mut next) {
        assert!(!got.is_empty() && got.len() <= 2, "{got:?}");
    }
    // Without a crash, the message is done once all subscribers have it.
    let state = StoreState { up_to, ..StoreState::default() };
    cut.world.engine.handle_stored(cut.world.now, state);
    cut.world.settle();
    cut.stored.extend(cut.world.store_all());
    cut.world.advance_ms(10_000);
    cut.stored.extend(cut.world.store_all());
    let mut last = taken_up(image(&cut.stored));
    last.advance_ms(100);
    last.store_all();
    assert_eq!(all_payloads(&mut last), vec![["m"]; 4]);
}

/// Payloads that each of four subscribers receives when it reconnects.
fn all_payloads(world: &mut World) -> Vec<Vec<String>> {
    let of = |n| {
        let id = world.accept();
        world.send_connect(id, &Client::persistent(&format!("subscriber {n:02}")));
        world.store_all();
        world.settle();
        world.payloads(id)
    };
    (0..4).map(of).collect()
}
