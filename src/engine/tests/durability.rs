//! Answers that wait until records are stored, and the records that are written.

use super::*;
use crate::base::ids::SessionId;
use crate::storage::commit::{JournalConfig, RecordBatch, StoreState};
use crate::storage::image::{Image, Whole};

pub(super) const WALL_AT_ZERO_US: u64 = 1 << 50;

pub(super) fn kept() -> World {
    kept_by(Box::new(AllowAll))
}

fn kept_by(access: Box<dyn Access>) -> World {
    let mut world = World::with(|_| {}, access);
    world.engine.open_journal(JournalConfig { wall_at_zero_us: WALL_AT_ZERO_US, waits: true });
    world
}

/// A broker with a store, a client with a persistent session subscribed to `t`, and a publisher.
pub(super) fn kept_pair(qos: Qos) -> (World, ConnectionId, ConnectionId) {
    let mut world = kept();
    let consumer = world.connect_kept("consumer");
    world.subscribe_kept(consumer, qos);
    let publisher = world.connect(&Client::v5("publisher"));
    (world, consumer, publisher)
}

/// A broker restored from an image.
pub(super) fn taken_up(image: Image) -> World {
    let mut world = kept();
    world.engine.restore(image);
    world.store_all();
    world
}

impl World {
    /// The batch that the engine hands over at the end of a turn.
    pub(super) fn records(&mut self) -> Option<RecordBatch> {
        let records = self.engine.poll_records();
        assert!(self.engine.poll_records().is_none(), "one batch at a time");
        records
    }

    /// Reports that all batches up to `up_to` are stored.
    pub(super) fn stored(&mut self, up_to: u64) {
        let now = self.now;
        self.engine.handle_stored(now, StoreState { up_to, ..StoreState::default() });
        self.settle();
    }

    /// Hands over and stores batches until none is left, and returns them.
    pub(super) fn store_all(&mut self) -> Vec<RecordBatch> {
        let mut all = Vec::new();
        while let Some(records) = self.records() {
            self.stored(records.number);
            all.push(records);
        }
        all
    }

    /// Connects a client with a persistent session and drops its CONNACK.
    fn connect_kept(&mut self, name: &str) -> ConnectionId {
        let id = self.accept();
        self.send_connect(id, &Client::persistent(name));
        self.store_all();
        let packets = self.packets(id, Version::V5);
        assert!(packets[0].starts_with("Connack"), "{packets:?}");
        id
    }

    /// Connects a client with a persistent session, and returns the records of it.
    fn connect_kept_logged(&mut self, name: &str) -> Vec<RecordBatch> {
        let id = self.accept();
        self.send_connect(id, &Client::persistent(name));
        self.store_all()
    }

    fn subscribe_kept(&mut self, id: ConnectionId, qos: Qos) {
        self.subscribe(id, "t", qos);
        self.store_all();
        assert!(self.packets(id, Version::V5)[0].starts_with("Suback"));
    }
}

pub(super) fn image<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Image {
    let mut image = Image::default();
    for records in batches {
        image.apply(&records.bytes, &Whole).expect("records");
    }
    image
}

#[test]
fn connack_and_suback_wait_until_the_session_is_stored() {
    let mut world = kept();
    let id = world.accept();
    world.send_connect(id, &Client::persistent("c"));
    world.subscribe(id, "t", Qos::AtLeastOnce);
    assert!(world.packets(id, Version::V5).is_empty());
    let first = world.records().expect("the session").number;
    world.stored(first);
    let packets = world.packets(id, Version::V5);
    assert!(packets[0].starts_with("Connack") && packets[1].starts_with("Suback"), "{packets:?}");
}

#[test]
fn acknowledgements_wait_for_the_store_except_at_qos_0() {
    let (mut world, consumer, publisher) = kept_pair(Qos::AtLeastOnce);
    world.publish(publisher, "t", b"1", Qos::AtLeastOnce, 1);
    assert_eq!(world.payloads(consumer), ["1"], "the consumer does not wait for the store");
    let first = world.records().expect("the message").number;
    // Messages that arrive while the first batch is being stored are collected.
    world.publish(publisher, "t", b"2", Qos::AtLeastOnce, 2);
    world.publish(publisher, "t", b"3", Qos::AtMostOnce, 0);
    assert_eq!(world.payloads(consumer), ["2", "3"]);
    assert!(world.records().is_none() && world.packets(publisher, Version::V5).is_empty());
    world.stored(first);
    assert_eq!(world.packets(publisher, Version::V5).len(), 1);
    world.store_all();
    assert_eq!(world.packets(publisher, Version::V5).len(), 1);
}

#[test]
fn messages_for_sessions_that_are_not_stored_do_not_wait() {
    let mut world = kept();
    let consumer = world.connect(&Client::v5("consumer"));
    world.subscribe(consumer, "t", Qos::ExactlyOnce);
    world.packets(consumer, Version::V5);
    let publisher = world.connect(&Client::v5("publisher"));
    for (qos, number) in [(Qos::AtLeastOnce, 1), (Qos::ExactlyOnce, 2)] {
        world.publish(publisher, "t", b"m", qos, number);
        assert_eq!(world.packets(publisher, Version::V5).len(), 1);
        assert_eq!(world.payloads(consumer), ["m"]);
    }
    assert!(world.records().is_none());
}

#[test]
fn a_delivery_acknowledged_before_its_batch_is_handed_over_is_never_written() {
    let (mut world, consumer, publisher) = kept_pair(Qos::AtLeastOnce);
    world.publish(publisher, "t", b"first", Qos::AtLeastOnce, 1);
    let first = world.records().expect("a batch");
    for number in 2..10u16 {
        world.publish(publisher, "t", &[b'x'; 500], Qos::AtLeastOnce, number);
        world.send(consumer, Version::V5, &Packet::Puback(ack(number)));
    }
    world.stored(first.number);
    let second = world.records().expect("a batch, even if it is empty");
    assert!(second.bytes.is_empty(), "{} bytes", second.bytes.len());
    world.stored(second.number);
    assert_eq!(world.packets(publisher, Version::V5).len(), 9);
    let image = image(&[first]);
    let of = image.sessions.values().find(|of| &*of.client_identifier == "consumer");
    assert!(of.is_none(), "the session was logged before");
}

#[test]
fn the_end_of_a_delivery_waits_for_the_next_record_for_a_limited_time() {
    let (mut world, consumer, publisher) = kept_pair(Qos::AtLeastOnce);
    world.publish(publisher, "t", b"1", Qos::AtLeastOnce, 1);
    world.store_all();
    world.send(consumer, Version::V5, &Packet::Puback(ack(1)));
    assert!(world.records().is_none(), "no answer waits for the record");
    world.publish(publisher, "t", b"2", Qos::AtLeastOnce, 2);
    assert_eq!(world.store_all().len(), 1, "both records in one batch");
    world.send(consumer, Version::V5, &Packet::Puback(ack(2)));
    assert!(world.records().is_none());
    world.advance_ms(limits::RECORDS_REST_S * 1_000 + 100);
    assert_eq!(world.store_all().len(), 1);
}

#[test]
fn a_message_for_many_sessions_is_written_once() {
    let mut world = kept();
    let consumers: Vec<_> = (0..50).map(|n| world.connect_kept(&format!("c{n}"))).collect();
    for &consumer in &consumers {
        world.subscribe_kept(consumer, Qos::AtLeastOnce);
    }
    let publisher = world.connect(&Client::v5("publisher"));
    world.publish(publisher, "t", &[b'x'; 10_000], Qos::AtLeastOnce, 1);
    let bytes = world.records().expect("a batch").bytes.len();
    assert!((10_000..14_000).contains(&bytes), "{bytes} bytes");
}

#[test]
fn qos_2_publish_and_pubrel_wait_for_their_records() {
    let (mut world, consumer, publisher) = kept_pair(Qos::ExactlyOnce);
    world.publish(publisher, "t", b"1", Qos::ExactlyOnce, 1);
    world.publish(publisher, "t", b"2", Qos::ExactlyOnce, 2);
    assert!(world.payloads(consumer).is_empty());
    world.store_all();
    assert_eq!(world.payloads(consumer), ["1", "2"]);
    world.send(consumer, Version::V5, &Packet::Pubrec(ack(1)));
    assert!(world.packets(consumer, Version::V5).is_empty());
    world.store_all();
    assert!(world.packets(consumer, Version::V5)[0].starts_with("Pubrel"));
}

#[test]
fn later_messages_queue_behind_a_retained_message_that_waits_for_the_store() {
    // A few subscribers, and so many that they share an encoding.
    for consumers in [1, limits::FAN_OUT_BATCH_RECIPIENTS_MIN] {
        let mut world = kept();
        let publisher = world.connect(&Client::v5("publisher"));
        let mut retained = publish("t", b"old", Qos::ExactlyOnce, 1);
        retained.retain = true;
        world.send(publisher, Version::V5, &Packet::Publish(retained));
        world.store_all();
        let ids: Vec<_> = (0..consumers).map(|n| world.connect_kept(&format!("c{n}"))).collect();
        ids.iter().for_each(|&id| world.subscribe(id, "t", Qos::ExactlyOnce));
        // SUBACK has been sent, and the records after it are being stored.
        let records = world.records().expect("the subscriptions");
        world.stored(records.number);
        for (payload, qos) in [("0", Qos::AtMostOnce), ("1", Qos::AtLeastOnce)] {
            world.publish(publisher, "t", payload.as_bytes(), qos, 2);
        }
        ids.iter()
            .for_each(|&id| assert!(world.payloads(id).is_empty(), "the older message is first"));
        world.store_all();
        ids.iter().for_each(|&id| assert_eq!(world.payloads(id), ["old", "0", "1"]));
    }
}

#[test]
fn a_session_that_ends_with_its_connection_keeps_its_order() {
    let (mut world, _, publisher) = kept_pair(Qos::ExactlyOnce);
    world.publish(publisher, "t", b"1", Qos::ExactlyOnce, 1);
    world.publish(publisher, "t", b"2", Qos::ExactlyOnce, 2);
    let mut client = Client::v5("consumer");
    client.clean_start = false;
    let again = world.accept();
    world.send_connect(again, &client);
    world.publish(publisher, "t", b"3", Qos::ExactlyOnce, 3);
    world.store_all();
    assert_eq!(world.payloads(again), ["1", "2", "3"]);
    world.cut(again);
    let image = image(&world.store_all());
    assert!(world.find_session_of("consumer").is_none() && image.sessions.is_empty());
}

#[test]
fn pubcomp_waits_for_the_store_as_the_identifier_may_be_used_again() {
    let mut world = kept();
    let publisher = world.connect_kept("publisher");
    world.publish(publisher, "t", b"1", Qos::ExactlyOnce, 1);
    assert!(world.packets(publisher, Version::V5).is_empty());
    world.store_all();
    assert!(world.packets(publisher, Version::V5)[0].starts_with("Pubrec"));
    world.send(publisher, Version::V5, &Packet::Pubrel(ack(1)));
    assert!(world.packets(publisher, Version::V5).is_empty());
    world.store_all();
    assert!(world.packets(publisher, Version::V5)[0].starts_with("Pubcomp"));
}

#[test]
fn publishers_are_paused_while_the_backlog_of_the_store_is_large() {
    let mut world = kept();
    let consumer = world.connect_kept("consumer");
    world.subscribe_kept(consumer, Qos::AtLeastOnce);
    world.stuck.insert(consumer);
    let publisher = world.connect(&Client::v5("publisher"));
    let mut handed = Vec::new();
    for number in 1..2_000u16 {
        world.publish(publisher, "t", &[b'x'; 10_000], Qos::AtLeastOnce, number);
        handed.extend(world.engine.poll_records());
        if world.paused.contains(&publisher) {
            break;
        }
    }
    let bytes: usize = handed.iter().map(|records| records.bytes.len()).sum();
    assert!(world.paused.contains(&publisher), "{bytes} bytes wait");
    assert!(bytes < 2 * limits::JOURNAL_BYTES_MAX, "{bytes} bytes wait");
    let last = handed.last().expect("some").number;
    world.stored(last);
    assert!(!world.paused.contains(&publisher));
}

#[test]
fn a_checkpoint_equals_the_records_before_it() {
    let mut world = kept_by(Box::new(Named));
    let mut logged = Vec::new();
    let away = world.accept();
    world.send_connect(away, &Client::persistent("away"));
    world.subscribe(away, "t", Qos::ExactlyOnce);
    logged.extend(world.store_all());
    let publisher = world.accept();
    world.send_connect(publisher, &Client::persistent("publisher"));
    logged.extend(world.store_all());
    for (number, qos) in [(1, Qos::AtLeastOnce), (2, Qos::ExactlyOnce), (3, Qos::ExactlyOnce)] {
        world.publish(publisher, "t", &[number as u8; 10], qos, number);
        logged.extend(world.store_all());
    }
    let mut retained = publish("$own/t", b"kept", Qos::AtLeastOnce, 9);
    retained.retain = true;
    world.send(publisher, Version::V5, &Packet::Publish(retained));
    world.send(away, Version::V5, &Packet::Pubrec(ack(2)));
    logged.extend(world.store_all());
    world.cut(away);
    world.publish(publisher, "t", b"waits", Qos::AtLeastOnce, 4);
    logged.extend(world.store_all());
    let last = logged.last().expect("some").number;
    let now = world.now;
    let state = StoreState { up_to: last, checkpoint: 1, ..StoreState::default() };
    world.engine.handle_stored(now, state);
    let checkpoint = world.records().expect("everything");
    assert_eq!(checkpoint.checkpoint, 1);
    let (before, after) = (image(&logged), image(&[checkpoint]));
    assert_eq!(before.sessions, after.sessions);
    assert_eq!(before.retained, after.retained);
    let of = after
        .sessions
        .values()
        .find(|of| &*of.client_identifier == "away")
        .expect("the session of away");
    assert_eq!((of.inflight.len(), of.queue.len(), after.retained.len()), (3, 1, 1));
    assert_eq!(of.owner.as_deref(), Some("away's user"));
}

/// Admits every client as a user named after its Client Identifier.
struct Named;

impl Access for Named {
    fn authenticate(&mut self, _: Now, _: u64, who: &Credentials<'_>) -> Authentication {
        let user = format!("{}'s user", who.client_identifier).into();
        Authentication::Granted(Grant { user: Some(user), ..Grant::default() })
    }
}

#[test]
fn a_session_is_restored_with_its_owner_and_without_one_as_by_earlier_versions() {
    let mut named = kept_by(Box::new(Named));
    named.connect_kept("c");
    let mut logged = named.connect_kept_logged("d");
    let of = |logged: &[RecordBatch], name: &str| {
        let image = image(logged);
        let mut sessions = image.sessions.into_values();
        sessions.find(|of| &*of.client_identifier == name).expect("the session is restored").owner
    };
    assert_eq!(of(&logged, "d").as_deref(), Some("d's user"));
    let mut again = kept_by(Box::new(AllowAll));
    again.engine.restore(image(&logged));
    let id = again.accept();
    again.send_connect(id, &Client::persistent("d"));
    logged.extend(again.store_all());
    assert!(
        again.packets(id, Version::V5)[0].contains("NotAuthorized"),
        "an anonymous client is not the user of d"
    );
    let mut unnamed = kept();
    let logged = unnamed.connect_kept_logged("e");
    assert_eq!(of(&logged, "e"), None);
}

#[test]
fn a_delivery_of_a_checkpoint_that_ends_in_the_same_batch_is_removed_with_its_message() {
    let mut world = kept();
    let consumer = world.accept();
    world.send_connect(consumer, &Client::persistent("consumer"));
    world.subscribe(consumer, "t", Qos::AtLeastOnce);
    let mut logged = world.store_all();
    let publisher = world.connect(&Client::v5("publisher"));
    world.publish(publisher, "t", b"1", Qos::AtLeastOnce, 1);
    logged.extend(world.records());
    let first = logged.last().expect("a batch").number;
    world.publish(publisher, "t", b"2", Qos::AtLeastOnce, 2);
    let (now, up_to) = (world.now, first - 1);
    let state = StoreState { up_to, checkpoint: 1, ..StoreState::default() };
    world.engine.handle_stored(now, state);
    assert!(world.records().is_none(), "the first is being stored");
    world.send(consumer, Version::V5, &Packet::Puback(ack(2)));
    world.engine.handle_stored(now, StoreState { up_to: first, ..state });
    logged.extend(world.records());
    let image = image(&logged);
    let of = image.sessions.values().next().expect("the consumer");
    let payloads: Vec<_> = of.inflight.iter().filter_map(|of| of.content.as_ref()).collect();
    assert_eq!(payloads.len(), 1);
    assert_eq!(&*payloads[0].get().expect("logged").payload, b"1");
}

#[test]
fn the_state_is_restored_from_its_records() {
    let mut world = kept();
    let mut logged = Vec::new();
    let id = world.accept();
    world.send_connect(id, &Client::persistent("c"));
    world.subscribe(id, "t", Qos::AtLeastOnce);
    logged.extend(world.store_all());
    world.packets(id, Version::V5);
    world.publish(id, "t", b"1", Qos::AtLeastOnce, 1);
    logged.extend(world.store_all());
    world.cut(id);
    world.publish_from_elsewhere(b"2");
    logged.extend(world.store_all());
    let mut next = kept();
    let restored = next.engine.restore(image(&logged));
    assert_eq!((restored.sessions, restored.messages), (1, 2));
    let id = next.connect_kept_with_rest("c");
    let seen: Vec<_> = next.payloads(id);
    assert_eq!(seen, ["1", "2"]);
    assert_eq!(next.engine.router.index().len(), 1);
}

impl World {
    fn find_session_of(&self, name: &str) -> Option<SessionId> {
        self.engine.sessions.find(name)
    }

    fn publish_from_elsewhere(&mut self, payload: &[u8]) {
        let publisher = self.connect(&Client::v5("elsewhere"));
        self.publish(publisher, "t", payload, Qos::AtLeastOnce, 1);
    }

    /// As `connect_kept`, and keeps the packets after CONNACK.
    fn connect_kept_with_rest(&mut self, name: &str) -> ConnectionId {
        let id = self.accept();
        self.send_connect(id, &Client::persistent(name));
        self.store_all();
        id
    }
}

/// A publisher that was given a Receive Maximum of ten, and a disconnected consumer.
fn publisher_with_ten() -> (World, ConnectionId) {
    let mut world =
        World::with(|settings| settings.limits.receive_maximum = 10, Box::new(AllowAll));
    world.engine.open_journal(JournalConfig { wall_at_zero_us: WALL_AT_ZERO_US, waits: true });
    let consumer = world.connect_kept("consumer");
    world.subscribe_kept(consumer, Qos::ExactlyOnce);
    world.cut(consumer);
    world.store_all();
    let publisher = world.connect(&Client::v5("publisher"));
    (world, publisher)
}

#[test]
fn messages_that_wait_for_the_store_do_not_count_against_the_servers_receive_maximum() {
    let (mut world, publisher) = publisher_with_ten();
    // The disk is slow with one batch, and all later messages wait behind it.
    let mut sent = 0;
    while !world.paused.contains(&publisher) {
        sent += 1;
        let qos = if sent % 2 == 0 { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
        world.publish(publisher, "t", b"m", qos, sent);
        assert!(!world.closed.contains(&publisher), "{sent}");
        assert!(
            usize::from(sent) <= limits::ANSWERS_MAX,
            "the number of waiting answers is bounded"
        );
    }
    assert!(sent > 1_000, "{sent}");
    assert!(world.packets(publisher, Version::V5).is_empty());
    world.store_all();
    assert!(!world.paused.contains(&publisher));
    let answers = world.packets(publisher, Version::V5);
    assert_eq!(answers.len(), usize::from(sent));
    for (answer, number) in answers.iter().zip(1..) {
        let kind = if number % 2 == 0 { "Pubrec" } else { "Puback" };
        let is_it = answer.contains(&format!("PacketIdentifier({number})"));
        assert!(answer.starts_with(kind) && is_it, "{answer}");
    }
}

#[test]
fn mqtt_3_3_4_7_with_a_store_unfinished_exchanges_of_the_client_count_against_receive_maximum() {
    let (mut world, publisher) = publisher_with_ten();
    for number in 1..=10 {
        world.publish(publisher, "t", b"m", Qos::ExactlyOnce, number);
        world.store_all();
    }
    assert_eq!(world.packets(publisher, Version::V5).len(), 10);
    world.publish(publisher, "t", b"m", Qos::ExactlyOnce, 11);
    assert!(world.closed.contains(&publisher));
    assert!(world.packets(publisher, Version::V5)[0].contains("ReceiveMaximumExceeded"));
}
