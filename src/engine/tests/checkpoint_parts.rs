//! Checkpoints of large sessions: in parts, each within the budget of a turn, while the session changes.

use super::durability::{WALL_AT_ZERO_US, image, kept, taken_up};
use super::*;
use crate::engine::work::TURN_STEPS;
use crate::storage::commit::{JournalConfig, RecordBatch, StoreState};
use crate::storage::image::Image;
use crate::storage::record::{CHECKPOINT_CONTENTS, Record};
use crate::wire::{Unsubscribe, UnsubscribeFilters};

/// Messages that a client may have unacknowledged.
const WINDOW: u16 = 3;

impl World {
    /// Ends a turn, hands over a batch if there is one and stores it. The store wants a checkpoint.
    fn turn_of_checkpoint(&mut self) -> Option<RecordBatch> {
        self.engine.handle_timeout(self.now);
        self.turn();
        let records = self.engine.poll_records();
        let up_to = self.engine.durability.journal().number() - 1;
        let state = StoreState { up_to, checkpoint: 1, ..StoreState::default() };
        self.engine.handle_stored(self.now, state);
        self.turn();
        records
    }

    /// All batches from now on to the end of the checkpoint.
    fn rest_of_checkpoint(&mut self) -> Vec<RecordBatch> {
        let mut batches: Vec<RecordBatch> = Vec::new();
        for _ in 0..100_000 {
            batches.extend(self.turn_of_checkpoint());
            if batches.last().is_some_and(|last| last.checkpoint == 1) {
                return batches;
            }
        }
        panic!("the checkpoint does not end");
    }
}

/// A world in which so many messages wait for a client that is away, and its records.
fn waiting(mut world: World, messages: usize) -> (World, Vec<RecordBatch>) {
    let id = world.accept();
    world.send_connect(id, &slow());
    world.subscribe(id, "t", Qos::ExactlyOnce);
    let mut stored = world.store_all();
    world.cut(id);
    let publisher = world.connect(&Client::v5("publisher"));
    for number in 0..messages {
        let payload = number.to_string();
        world.publish(publisher, "t", payload.as_bytes(), Qos::AtLeastOnce, 1);
        if number % 64 == 63 {
            stored.extend(world.store_all());
        }
    }
    stored.extend(world.store_all());
    world.packets(publisher, Version::V5);
    (world, stored)
}

/// A client that takes few messages at a time.
fn slow() -> Client<'static> {
    let mut client = Client::persistent("slow");
    client.properties.receive_maximum = Some(WINDOW);
    client
}

#[test]
fn a_session_of_100_000_messages_is_logged_in_parts_within_the_budget_of_a_turn() {
    let change = |settings: &mut Settings| settings.limits.queue_messages_max = 100_000;
    let mut world = World::with(change, Box::new(AllowAll));
    world.engine.open_journal(JournalConfig { wall_at_zero_us: WALL_AT_ZERO_US, waits: true });
    let (mut world, _) = waiting(world, 100_000);
    world.engine.work.take_turn_max();
    let batches = world.rest_of_checkpoint();
    let steps = world.engine.work.take_turn_max();
    assert!((100..=TURN_STEPS / 2).contains(&steps), "{steps} steps in a turn");
    let most = batches.iter().map(|records| records.bytes.len()).max();
    assert!(most < Some(limits::CHECKPOINT_BYTES + 1_024), "{most:?} bytes in a batch");
    let image = image(&batches);
    let session = image.sessions.values().next().expect("the session");
    let payloads = session
        .queue
        .iter()
        .map(|of| &of.content.as_ref().expect("queued").get().expect("logged").payload);
    assert!(
        payloads.map(|bytes| &**bytes).eq((0..100_000)
            .map(|n: u32| n.to_string())
            .collect::<Vec<_>>()
            .iter()
            .map(|text| text.as_bytes()))
    );
}

#[test]
fn a_part_of_a_checkpoint_ends_where_many_places_have_nothing_to_log() {
    let change = |settings: &mut Settings| settings.limits.connections_max = 40_000;
    let mut world = World::with(change, Box::new(AllowAll));
    world.engine.open_journal(JournalConfig { wall_at_zero_us: WALL_AT_ZERO_US, waits: true });
    for n in 0..40_000 {
        world.connect(&Client::v5(&n.to_string()));
    }
    let mut turns = 1;
    while world.turn_of_checkpoint().is_none() {
        turns += 1;
    }
    assert!(turns > 40_000 / limits::CHECKPOINT_PLACES, "{turns} turns");
}

/// Payloads that a client of an earlier process receives.
fn received_after_restart(stored: &[&RecordBatch]) -> Vec<String> {
    let mut next = taken_up(image(stored.iter().copied()));
    let id = next.accept();
    next.send_connect(id, &slow());
    next.store_all();
    let mut payloads = Vec::new();
    loop {
        let got = next.publishes(id);
        if got.is_empty() {
            return payloads;
        }
        for (_, payload, _, identifier) in got {
            payloads.push(payload);
            next.send(id, Version::V5, &Packet::Puback(ack(identifier.expect("QoS 1"))));
        }
        next.store_all();
    }
}

#[test]
fn a_restart_after_a_checkpoint_that_was_cut_within_a_session_delivers_every_message_in_order() {
    let (mut world, stored) = waiting(kept(), 60);
    let expected: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    world.engine.cut_checkpoints(200);
    let batches = world.rest_of_checkpoint();
    assert!(batches.len() > 5, "{} batches", batches.len());
    for cut in 0..=batches.len() {
        let kept: Vec<&RecordBatch> = stored.iter().chain(&batches[..cut]).collect();
        assert_eq!(received_after_restart(&kept), expected, "{cut} of {} batches", batches.len());
        // The next process makes a checkpoint of its own.
        let mut next = taken_up(image(kept.iter().copied()));
        next.engine.cut_checkpoints(200);
        let again = next.rest_of_checkpoint();
        let all: Vec<&RecordBatch> = kept.into_iter().chain(&again).collect();
        assert_eq!(received_after_restart(&all), expected, "after {cut} batches and a checkpoint");
    }
    let complete: Vec<&RecordBatch> = batches.iter().collect();
    assert_eq!(received_after_restart(&complete), expected, "the checkpoint alone");
}

#[test]
fn a_checkpoint_waits_for_an_ended_session_whose_messages_go_to_other_members() {
    let mut world = kept();
    let member = |world: &mut World, name: &str| {
        let id = world.accept();
        world.send_connect(id, &Client::persistent(name));
        world.subscribe(id, "$share/g/t", Qos::AtLeastOnce);
        world.store_all();
        world.cut(id);
        world.store_all();
    };
    member(&mut world, "leaving");
    let publisher = world.connect(&Client::v5("publisher"));
    for number in 0..5_000 {
        world.publish(publisher, "t", number.to_string().as_bytes(), Qos::AtLeastOnce, 1);
        if number % 64 == 0 {
            world.store_all();
        }
    }
    world.store_all();
    member(&mut world, "staying");
    let up_to = world.engine.durability.journal().number() - 1;
    let state = StoreState { up_to, checkpoint: 1, ..StoreState::default() };
    world.engine.handle_stored(world.now, state);
    let id = world.accept();
    let connect = Connect {
        version: Version::V5,
        is_bridge: false,
        clean_start: true,
        keep_alive_s: 0,
        client_identifier: "leaving",
        username: None,
        password: None,
        will: None,
        properties: ConnectProperties::default(),
    };
    let mut bytes = Vec::new();
    Packet::Connect(connect).encode(Version::V5, &mut bytes);
    world.engine.handle_received(world.now, id, &bytes);
    world.turn();
    assert!(!world.engine.sessions.leftovers().is_empty(), "some messages are left");
    let image = image(&world.rest_of_checkpoint());
    assert_eq!(image.sessions.values().map(|of| of.queue.len()).sum::<usize>(), 5_000);
}

/// The state without the records that only a checkpoint writes.
fn image_of_changes<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Image {
    let mut image = Image::default();
    for records in batches {
        let (mut rest, mut changes) = (&records.bytes[..], Vec::new());
        while let Some(record) = Record::decode(&mut rest).expect("records") {
            match &record {
                Record::Rewrite { .. } | Record::Requeued { .. } | Record::Rewritten { .. } => {}
                Record::Content { number, .. } if *number >= CHECKPOINT_CONTENTS => {}
                _ => record.encode(&mut changes),
            }
        }
        image.apply(&changes, &crate::storage::image::Whole).expect("records");
    }
    image
}

/// A client whose session changes during a checkpoint.
struct Busy {
    world: World,
    publisher: ConnectionId,
    consumer: Option<ConnectionId>,
    random: u64,
    sent: u16,
}

impl Busy {
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// The client acknowledges some of what it has received.
    fn acknowledge(&mut self) {
        let Some(id) = self.consumer else { return };
        let mut answers = Vec::new();
        self.world.each_packet(id, Version::V5, |packet| match packet {
            Packet::Publish(publish) => {
                let answer = publish.packet_identifier.map(PacketIdentifier::get).map(ack);
                answers.extend(answer.map(|ack| match publish.qos {
                    Qos::ExactlyOnce => Packet::Pubrec(ack),
                    _ => Packet::Puback(ack),
                }));
            }
            Packet::Pubrel(of) => answers.push(Packet::Pubcomp(ack(of.packet_identifier.get()))),
            _ => {}
        });
        for answer in answers {
            self.world.send(id, Version::V5, &answer);
        }
    }

    fn change(&mut self) {
        let filter = format!("f/{}", self.below(12));
        let identifier_of = |number| PacketIdentifier::new(number).expect("not zero");
        match (self.below(10), self.consumer) {
            (0..4, _) => {
                self.sent += 1;
                let qos =
                    if self.sent.is_multiple_of(3) { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
                let payload = self.sent.to_string();
                self.world.publish(self.publisher, "t", payload.as_bytes(), qos, self.sent);
            }
            (4..7, Some(_)) => self.acknowledge(),
            (7, Some(id)) => self.world.subscribe(id, &filter, Qos::AtLeastOnce),
            (8, Some(id)) => {
                let filters = [filter.as_str()];
                let unsubscribe = Unsubscribe {
                    packet_identifier: identifier_of(2),
                    user_properties: UserProperties::none(),
                    filters: UnsubscribeFilters::list(&filters),
                };
                self.world.send(id, Version::V5, &Packet::Unsubscribe(unsubscribe));
            }
            (9, Some(id)) if self.below(3) == 0 => {
                self.world.cut(id);
                self.consumer = None;
            }
            (9, Some(id)) => {
                let number = self.below(20) as u16 + 1;
                let message = publish("elsewhere", b"m", Qos::ExactlyOnce, number);
                self.world.send(id, Version::V5, &Packet::Publish(message));
            }
            (_, None) => {
                let id = self.world.accept();
                self.world.send_connect(id, &slow());
                self.consumer = Some(id);
            }
            _ => {}
        }
    }
}

#[test]
fn a_checkpoint_of_a_session_that_changes_meanwhile_may_end_anywhere() {
    for seed in 1..=40 {
        let (mut world, mut stored) = waiting(kept(), 30);
        let publisher = world.accept();
        world.send_connect(publisher, &Client::persistent("busy"));
        stored.extend(world.store_all());
        world.engine.cut_checkpoints(100);
        let random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
        let mut busy = Busy { world, publisher, consumer: None, random, sent: 0 };
        for _ in 0..10 {
            busy.change();
            stored.extend(busy.world.store_all());
        }
        let mut batches: Vec<RecordBatch> = Vec::new();
        while batches.last().is_none_or(|last| last.checkpoint == 0) {
            batches.extend(busy.world.turn_of_checkpoint());
            for _ in 0..busy.below(3) {
                busy.change();
            }
        }
        for cut in 0..=batches.len() {
            let kept = || stored.iter().chain(&batches[..cut]);
            let (found, expected) = (image(kept()).sessions, image_of_changes(kept()).sessions);
            assert_eq!(found, expected, "seed {seed}, {cut} of {} batches", batches.len());
        }
        let (found, expected) = (image(&batches), image_of_changes(stored.iter().chain(&batches)));
        assert_eq!(found.sessions, expected.sessions, "seed {seed}, the checkpoint alone");
    }
}
