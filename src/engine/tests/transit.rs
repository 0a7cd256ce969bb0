//! Messages of shared subscriptions, and Wills, in transit between cores when the broker crashes.

use super::cores::Cores;
use super::durability::{WALL_AT_ZERO_US, image};
use super::*;
use crate::engine::work::TURN_STEPS;
use crate::storage::commit::{JournalConfig, RecordBatch, StoreState};
use crate::storage::record::{Content, Identifiers, Record, SessionNumber};

const GROUP: &str = "$share/g/t";

/// Cores with persistent sessions, and the stored records of each.
struct Kept {
    cores: Cores,
    stored: Vec<RecordBatch>,
}

impl Kept {
    fn new() -> Self {
        Self::on(2)
    }

    fn on(cores: u16) -> Self {
        let mut cores = Cores::new(cores);
        for world in &mut cores.0 {
            world
                .engine
                .open_journal(JournalConfig { wall_at_zero_us: WALL_AT_ZERO_US, waits: true });
        }
        Self { cores, stored: Vec::new() }
    }

    /// A broker restored from stored records, in this order.
    fn after_crash(stored: &[RecordBatch]) -> Self {
        Self::after_crash_on(2, stored)
    }

    fn after_crash_on(cores: u16, stored: &[RecordBatch]) -> Self {
        let mut next = Self::on(cores);
        let mut learned = Vec::new();
        for world in &mut next.cores.0 {
            let mut own = crate::storage::image::Image::default();
            for records in stored {
                world.engine.read_records(&mut own, &records.bytes).expect("records");
            }
            learned.push(world.engine.restore(own));
        }
        for world in &mut next.cores.0 {
            learned.iter().for_each(|of| world.engine.learn_restored(of));
            world.engine.end_restore();
            world.advance_ms(100);
        }
        next
    }

    /// A Client Identifier that is at home on the core.
    fn name(&self, core: usize, name: &str) -> String {
        let engine = &self.cores.0[core].engine;
        let mut names = (0_u32..).map(|number| format!("{name}{number}"));
        names
            .find(|name| engine.mesh.home(name, engine.router.replica()) == CoreId(core as u16))
            .expect("one")
    }

    /// A client that is at home on the core.
    fn connect(&mut self, core: usize, name: &str) -> ConnectionId {
        let name = self.name(core, name);
        self.connect_as(core, &name)
    }

    fn connect_as(&mut self, core: usize, name: &str) -> ConnectionId {
        let world = &mut self.cores.0[core];
        let id = world.accept();
        world.send_connect(id, &Client::persistent(name));
        self.settle();
        id
    }

    fn join(&mut self, core: usize, name: &str, qos: Qos) -> ConnectionId {
        let id = self.connect(core, name);
        self.cores.0[core].subscribe(id, GROUP, qos);
        self.settle();
        id
    }

    fn store(&mut self, core: usize) {
        self.stored.extend(self.cores.0[core].store_all());
    }

    fn settle(&mut self) {
        for _ in 0..4 {
            self.cores.settle();
            (0..self.cores.0.len()).for_each(|core| self.store(core));
        }
    }

    /// The number of copies that all members receive when they reconnect one after the other.
    fn copies(&mut self) -> usize {
        let ids = [self.connect(0, "worker"), self.connect(1, "worker")];
        self.settle();
        ids.iter().zip(&mut self.cores.0).map(|(&id, world)| world.payloads(id).len()).sum()
    }
}

/// A message waits for a member on one core, which disconnects, so that the message goes to a member on
/// another core. Returns the records stored by then, and the records of the hand-over by core.
fn handed_over(qos: Qos) -> (Vec<RecordBatch>, [Vec<RecordBatch>; 2]) {
    let mut kept = Kept::new();
    let first = kept.join(1, "worker", qos);
    let publisher = kept.connect(0, "publisher");
    kept.cores.0[1].stuck.insert(first);
    // The first message fills the outbox, so that the second stays queued and can be handed over.
    let other = kept.connect(0, "other");
    kept.cores.0[0].publish(other, "t", &[b'1'; 1_000_000], Qos::AtMostOnce, 0);
    kept.cores.settle();
    kept.cores.0[0].publish(publisher, "t", b"2", qos, 2);
    kept.settle();
    let answers = kept.cores.0[0].packets(publisher, Version::V5);
    assert!(answers.last().is_some_and(|last| last.starts_with("Pub")), "{answers:?}");
    kept.join(0, "worker", qos);
    kept.cores.0[1].cut(first);
    kept.cores.carry(1, 0);
    let logged = [0, 1].map(|core| kept.cores.0[core].records().into_iter().collect());
    (kept.stored, logged)
}

#[test]
fn an_acknowledged_message_between_cores_survives_a_crash_and_reaches_one_member() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let (_, [here, there]) = handed_over(qos);
        assert!(!here.is_empty() && !there.is_empty(), "both cores log the hand-over");
        // Any subset of the records of the two cores may be stored by then, in any order.
        for heard in [&[][..], &[0], &[1], &[0, 1], &[1, 0]] {
            let stored = heard_of(handed_over(qos), heard);
            let mut next = Kept::after_crash(&stored);
            assert_eq!(next.copies(), 1, "{qos:?}, records of cores {heard:?} are stored");
            // No message is in transit any more: the next start distributes none.
            let mut last = Kept::after_crash(&[stored, next.stored].concat_records());
            assert!(last.copies() <= 1, "{qos:?}, records of cores {heard:?} are stored");
            assert_eq!(image(&last.stored).sessions.values().filter(is_forward).count(), 0);
        }
    }
}

#[test]
fn a_resent_message_goes_to_no_other_member_after_a_crash() {
    let mut kept = Kept::new();
    kept.join(1, "first", Qos::ExactlyOnce);
    let publisher = kept.connect(0, "publisher");
    kept.cores.0[0].publish(publisher, "t", b"m", Qos::ExactlyOnce, 1);
    kept.cores.carry(0, 1);
    // The message is on disk on the core of the member, and not acknowledged to its publisher.
    kept.store(1);
    let mut next = Kept::after_crash(&kept.stored);
    let other = next.join(0, "second", Qos::ExactlyOnce);
    let publisher = next.connect(0, "publisher");
    let mut again = publish("t", b"m", Qos::ExactlyOnce, 1);
    again.dup = true;
    next.cores.0[0].send(publisher, Version::V5, &Packet::Publish(again));
    next.settle();
    assert!(next.cores.0[0].payloads(other).is_empty(), "the first member has the message");
    let first = next.connect(1, "first");
    next.settle();
    assert_eq!(next.cores.0[1].payloads(first), ["m"]);
}

#[test]
fn an_identifier_is_free_although_its_message_reached_the_group_after_the_end_of_the_exchange() {
    let mut kept = Kept::on(3);
    let first = kept.join(1, "first", Qos::ExactlyOnce);
    kept.join(2, "second", Qos::ExactlyOnce);
    let publisher = kept.connect(0, "publisher");
    // Core 0 does not know yet that the member on core 1 has left.
    kept.cores.0[1].cut(first);
    for identifier in [1, 2] {
        kept.cores.0[0].publish(publisher, "t", b"old", Qos::ExactlyOnce, identifier);
    }
    for core in [1, 2] {
        kept.cores.carry(0, core);
        kept.store(core.into());
        kept.cores.carry(core, 0);
    }
    for identifier in [1, 2] {
        kept.cores.0[0].send(publisher, Version::V5, &Packet::Pubrel(ack(identifier)));
    }
    kept.store(0);
    let answers = kept.cores.0[0].packets(publisher, Version::V5).concat();
    assert_eq!(answers.matches("Pubcomp").count(), 2, "{answers}");
    assert!(kept.cores.0[1].engine.metrics.forwarded_by_qos[2] > 0, "one message is passed on");
    kept.cores.carry(1, 2);
    kept.store(2);
    let mut next = Kept::after_crash_on(3, &kept.stored);
    let second = next.connect(2, "second");
    next.settle();
    assert_eq!(next.cores.0[2].payloads(second), ["old", "old"]);
    let publisher = next.connect(0, "publisher");
    for identifier in [1, 2] {
        let mut new = publish("t", b"new", Qos::ExactlyOnce, identifier);
        new.dup = true;
        next.cores.0[0].send(publisher, Version::V5, &Packet::Publish(new));
    }
    next.settle();
    assert_eq!(next.cores.0[2].payloads(second), ["new", "new"]);
}

#[test]
fn a_resent_message_that_was_passed_on_reaches_one_member_whatever_a_crash_has_left_of_it() {
    // Any subset of the cores may have stored their records, in any order.
    for stored in [&[][..], &[1], &[2], &[1, 2], &[2, 1]] {
        let mut kept = Kept::on(3);
        let first = kept.join(1, "first", Qos::ExactlyOnce);
        let publisher = kept.connect(0, "publisher");
        kept.join(2, "second", Qos::ExactlyOnce);
        // Core 0 does not know yet that the member on core 1 has left.
        kept.cores.0[1].cut(first);
        for (identifier, payload) in [(1, b"1"), (2, b"2")] {
            kept.cores.0[0].publish(publisher, "t", payload, Qos::ExactlyOnce, identifier);
        }
        kept.cores.carry(0, 1);
        kept.cores.carry(0, 2);
        for &core in stored {
            kept.store(core);
            kept.cores.carry(1, 2);
        }
        kept.cores.carry(1, 2);
        let mut next = Kept::after_crash_on(3, &kept.stored);
        let second = next.connect(2, "second");
        let publisher = next.connect(0, "publisher");
        next.settle();
        for (identifier, payload) in [(1, b"1"), (2, b"2")] {
            let mut again = publish("t", payload, Qos::ExactlyOnce, identifier);
            again.dup = true;
            next.cores.0[0].send(publisher, Version::V5, &Packet::Publish(again));
        }
        next.settle();
        let first = next.connect(1, "first");
        next.settle();
        let mut all = next.cores.0[2].payloads(second);
        all.extend(next.cores.0[1].payloads(first));
        all.sort();
        assert_eq!(all, ["1", "2"], "stored: {stored:?}");
    }
}

/// Two cores after a crash, with a QoS 2 message of core 0 that is on disk for its subscriber on core 1
/// and was not acknowledged to its publisher. Both clients are connected again.
fn taken() -> (Kept, ConnectionId, ConnectionId) {
    let mut kept = Kept::new();
    let consumer = kept.connect(1, "consumer");
    kept.cores.0[1].subscribe(consumer, "t", Qos::ExactlyOnce);
    kept.settle();
    let publisher = kept.connect(0, "publisher");
    kept.cores.0[0].publish(publisher, "t", b"1", Qos::ExactlyOnce, 1);
    kept.cores.carry(0, 1);
    kept.store(1);
    let mut next = Kept::after_crash(&kept.stored);
    let consumer = next.connect(1, "consumer");
    let publisher = next.connect(0, "publisher");
    (next, consumer, publisher)
}

impl Kept {
    /// The publisher of core 0 resends a message that was not acknowledged.
    fn send_again(&mut self, publisher: ConnectionId, payload: &[u8]) {
        let mut again = publish("t", payload, Qos::ExactlyOnce, 1);
        again.dup = true;
        self.cores.0[0].send(publisher, Version::V5, &Packet::Publish(again));
        self.settle();
    }

    fn complete(&mut self, publisher: ConnectionId) {
        self.cores.0[0].send(publisher, Version::V5, &Packet::Pubrel(ack(1)));
        self.settle();
        let answers = self.cores.0[0].packets(publisher, Version::V5).concat();
        assert!(answers.contains("Pubrec") && answers.contains("Pubcomp"), "{answers}");
    }

    /// The records of a whole checkpoint, from which the next start restores.
    fn checkpoint_records(&mut self) -> Vec<RecordBatch> {
        let mut batches: Vec<RecordBatch> = Vec::new();
        // The checkpoint begins once the other core has given receipts for earlier batches.
        for _ in 0..4 {
            for world in &mut self.cores.0 {
                let up_to = world.engine.durability.journal().number() - 1;
                let state = StoreState { up_to, checkpoint: 1, ..StoreState::default() };
                world.engine.handle_stored(world.now, state);
                batches.extend(world.records());
            }
            self.cores.carry(0, 1);
            self.cores.carry(1, 0);
        }
        assert_eq!(batches.iter().filter(|records| records.checkpoint == 1).count(), 2);
        batches
    }
}

#[test]
fn the_identifier_of_a_message_from_before_a_crash_is_free_once_the_message_is_received() {
    let (mut next, consumer, publisher) = taken();
    next.send_again(publisher, b"1");
    next.complete(publisher);
    next.send_again(publisher, b"2");
    assert_eq!(next.cores.0[1].payloads(consumer), ["1", "2"]);
}

#[test]
fn the_identifier_is_free_after_a_checkpoint_and_another_crash() {
    let (mut next, _, publisher) = taken();
    next.send_again(publisher, b"1");
    next.complete(publisher);
    let mut last = Kept::after_crash(&next.checkpoint_records());
    let (consumer, publisher) = (last.connect(1, "consumer"), last.connect(0, "publisher"));
    last.send_again(publisher, b"2");
    assert_eq!(last.cores.0[1].payloads(consumer), ["1", "2"]);
}

#[test]
fn a_checkpoint_logs_sessions_that_have_an_unacknowledged_message() {
    let (mut next, ..) = taken();
    let mut last = Kept::after_crash(&next.checkpoint_records());
    let (consumer, publisher) = (last.connect(1, "consumer"), last.connect(0, "publisher"));
    last.send_again(publisher, b"1");
    assert_eq!(last.cores.0[1].payloads(consumer), ["1"]);
}

/// A restored Will is due on core 0 for a subscriber of core 1; its client is absent for the delay
/// interval, or has just failed. Returns the records stored by then, and the records of the Will by
/// core.
fn will_under_way(qos: Qos, delay_interval_s: u32) -> (Vec<RecordBatch>, [Vec<RecordBatch>; 2]) {
    let mut kept = Kept::new();
    let watcher = kept.connect(1, "watcher");
    kept.cores.0[1].subscribe(watcher, "t", qos);
    kept.settle();
    let name = kept.name(0, "mortal");
    let will = wire::Will { topic: "t", payload: b"dead", qos, ..wire::Will::default() };
    let will = Some(wire::Will { delay_interval_s, ..will });
    let mortal = kept.cores.0[0].accept();
    kept.cores.0[0].send_connect(mortal, &Client { will, ..Client::persistent(&name) });
    kept.settle();
    kept.cores.0[1].cut(watcher);
    kept.settle();
    kept.cores.0[0].cut(mortal);
    if delay_interval_s > 0 {
        kept.settle();
        kept.cores.0[0].advance_ms(20_000);
    }
    kept.cores.carry(0, 1);
    let logged = [0, 1].map(|core| kept.cores.0[core].records().into_iter().collect());
    (kept.stored, logged)
}

#[test]
fn a_stored_will_in_transit_to_another_core_survives_a_crash() {
    for (qos, delay_s) in [(Qos::AtLeastOnce, 10), (Qos::ExactlyOnce, 10), (Qos::AtLeastOnce, 0)] {
        for heard in [&[][..], &[0], &[1], &[0, 1], &[1, 0]] {
            let stored = heard_of(will_under_way(qos, delay_s), heard);
            let mut next = Kept::after_crash(&stored);
            next.cores.0[0].advance_ms(40_000);
            next.settle();
            let watcher = next.connect(1, "watcher");
            next.settle();
            let copies = next.cores.0[1].payloads(watcher).len();
            // A subscriber that received the Will before the crash may receive it again.
            let expected = if heard.contains(&1) { 1..=2 } else { 1..=1 };
            assert!(
                expected.contains(&copies),
                "{qos:?}, {delay_s} s, heard {heard:?}: {copies} copies"
            );
            assert_eq!(under_way(&[stored, next.stored].concat_records()), 0, "heard {heard:?}");
        }
    }
}

#[test]
fn a_restored_will_in_transit_that_reaches_no_other_core_ends_at_once() {
    let stored = heard_of(will_under_way(Qos::AtLeastOnce, 10), &[0]);
    let mut next = Kept::after_crash_on(1, &stored);
    next.settle();
    let watcher = next.connect_as(0, &Kept::new().name(1, "watcher"));
    assert_eq!(next.cores.0[0].payloads(watcher), ["dead"]);
    let all = [stored, next.stored].concat_records();
    assert_eq!(under_way(&all), 0, "the next start does not publish the Will again");
}

#[test]
fn restored_messages_in_transit_are_distributed_within_the_budget_of_a_turn() {
    const MESSAGES: u64 = 50_000;
    let mut kept = Kept::new();
    kept.join(1, "worker", Qos::AtLeastOnce);
    let mut bytes = Vec::new();
    let session = SessionNumber::new(1, 1, 1_000_000);
    let begin = Record::Session { session, client_identifier: "", expiry_interval_s: u32::MAX };
    begin.encode(&mut bytes);
    let content = Content { topic: "t", payload: b"m", passed_on: &[], expires_us: None, qos: 1 };
    Record::Content { number: 1, content }.encode(&mut bytes);
    for number in 1..=MESSAGES {
        let queued = Record::Queued {
            session,
            delivery: 1_000_000 + number,
            content: 1,
            qos: 1,
            retain: false,
            packet_identifier: 0,
            shared: Some(GROUP),
            identifiers: Identifiers::new(),
        };
        queued.encode(&mut bytes);
    }
    let stored = [kept.stored, vec![RecordBatch { number: 1, bytes, checkpoint: 0 }]];
    let stored = stored.concat_records();
    assert_eq!(under_way(&stored), MESSAGES as usize);
    let mut next = Kept::after_crash(&stored);
    for _ in 0..50 {
        next.cores.0.iter_mut().for_each(|world| world.advance_ms(20));
        next.settle();
    }
    for world in &mut next.cores.0 {
        let most = world.engine.work.take_turn_max();
        assert!(most <= TURN_STEPS + 2 * 2_048, "{most} steps in a turn");
    }
    assert_eq!(under_way(&[stored, next.stored].concat_records()), 0, "all are distributed");
}

/// The number of messages that the next start would find in transit.
fn under_way(stored: &[RecordBatch]) -> usize {
    image(stored).sessions.values().filter(is_forward).map(|of| of.queue.len()).sum()
}

/// The stored records followed by those of these cores, in this order.
fn heard_of(of: (Vec<RecordBatch>, [Vec<RecordBatch>; 2]), cores: &[usize]) -> Vec<RecordBatch> {
    let (mut stored, logged) = of;
    let mut logged = logged.map(Some);
    for &core in cores {
        stored.extend(logged[core].take().expect("once"));
    }
    stored
}

fn is_forward(of: &&crate::storage::image::Session) -> bool {
    of.client_identifier.is_empty()
}

trait ConcatRecords {
    fn concat_records(self) -> Vec<RecordBatch>;
}

impl ConcatRecords for [Vec<RecordBatch>; 2] {
    fn concat_records(self) -> Vec<RecordBatch> {
        self.into_iter().flatten().collect()
    }
}
