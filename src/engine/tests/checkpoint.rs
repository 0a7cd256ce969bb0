//! Checkpoints and restarts from them: each message once, on disk and in memory.

use super::durability::{WALL_AT_ZERO_US, image, kept, taken_up};
use super::*;
use crate::storage::commit::{JournalConfig, RecordBatch, StoreState};
use crate::storage::image::{Image, SharedContent};

const SESSIONS: usize = 40;
const MESSAGES: usize = 20;
/// The contents are more than a part of a checkpoint.
const PAYLOAD_BYTES: usize = 16_384;

/// A world in which the same messages wait in many sessions, and its stored records.
fn crowd() -> (World, Vec<RecordBatch>) {
    let mut world = kept();
    let mut stored = Vec::new();
    for name in names() {
        let id = world.accept();
        world.send_connect(id, &Client::persistent(&name));
        world.subscribe(id, "t", Qos::AtLeastOnce);
        stored.extend(world.store_all());
        world.cut(id);
        stored.extend(world.store_all());
    }
    let publisher = world.connect(&Client::v5("publisher"));
    for number in 1..=MESSAGES {
        let payload = [number as u8; PAYLOAD_BYTES];
        world.publish(publisher, "t", &payload, Qos::AtLeastOnce, number as u16);
        stored.extend(world.store_all());
    }
    (world, stored)
}

fn names() -> impl Iterator<Item = String> {
    (0..SESSIONS).map(|n| format!("session {n}"))
}

/// The batches of a whole checkpoint.
fn checkpoint_records(world: &mut World) -> Vec<RecordBatch> {
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut up_to = world.engine.durability.journal().number() - 1;
    while batches.last().is_none_or(|last| last.checkpoint != 1) {
        let state = StoreState { up_to, checkpoint: 1, ..StoreState::default() };
        world.engine.handle_stored(world.now, state);
        let records = world.records().expect("another batch of the checkpoint");
        up_to = records.number;
        batches.push(records);
    }
    batches
}

/// Fails unless all messages wait in all sessions, in order.
fn assert_complete(batches: &[&RecordBatch], what: &str) {
    let own = image(batches.iter().copied());
    let sessions: Vec<_> =
        own.sessions.values().filter(|of| of.client_identifier.starts_with("session")).collect();
    assert_eq!(sessions.len(), SESSIONS, "{what}");
    for session in sessions {
        let first_bytes = session.queue.iter().map(|of| {
            let content = of.content.as_ref().and_then(|content| content.get());
            usize::from(content.expect("the content of the message").payload[0])
        });
        assert!(first_bytes.eq(1..=MESSAGES), "{what}: {}", session.client_identifier);
    }
}

#[test]
fn a_checkpoint_logs_each_message_once_and_in_parts() {
    let (mut world, _) = crowd();
    let batches = checkpoint_records(&mut world);
    let bytes: usize = batches.iter().map(|records| records.bytes.len()).sum();
    let deliveries = SESSIONS * MESSAGES * 64;
    assert!(bytes < MESSAGES * PAYLOAD_BYTES + SESSIONS * 256 + deliveries, "{bytes} bytes");
    let most = batches.iter().map(|records| records.bytes.len()).max();
    assert!(most < Some(limits::CHECKPOINT_BYTES + 2 * PAYLOAD_BYTES), "{most:?} bytes in a batch");
    assert_complete(&batches.iter().collect::<Vec<_>>(), "the checkpoint replaces earlier records");
}

#[test]
fn a_crash_during_a_checkpoint_loses_no_message() {
    let (mut world, stored) = crowd();
    let batches = checkpoint_records(&mut world);
    for cut in 0..=batches.len() {
        let batches: Vec<&RecordBatch> = stored.iter().chain(&batches[..cut]).collect();
        assert_complete(&batches, &format!("{cut} of {} batches", batches.len()));
    }
}

#[test]
fn acknowledgements_during_a_checkpoint_are_not_lost() {
    let (mut world, stored) = crowd();
    let up_to = world.engine.durability.journal().number() - 1;
    let state = StoreState { up_to, checkpoint: 1, ..StoreState::default() };
    world.engine.handle_stored(world.now, state);
    let mut all = stored;
    let first = world.records().expect("the first part of the checkpoint");
    let state = StoreState { up_to: first.number, checkpoint: 1, ..StoreState::default() };
    world.engine.handle_stored(world.now, state);
    all.push(first);
    let id = world.accept();
    world.send_connect(id, &Client::persistent("session 3"));
    for _ in 0..2 * MESSAGES {
        all.extend(world.store_all());
    }
    for number in 1..=MESSAGES as u16 {
        world.send(id, Version::V5, &Packet::Puback(ack(number)));
    }
    all.extend(world.store_all());
    world.advance_ms(60_000);
    all.extend(world.store_all());
    let image = image(&all);
    for session in image.sessions.values().filter(|of| &*of.client_identifier == "session 3") {
        assert_eq!((session.queue.len(), session.inflight.len()), (0, 0));
    }
}

#[test]
fn sessions_share_a_queued_message_after_a_restart() {
    let (mut world, stored) = crowd();
    let batches = checkpoint_records(&mut world);
    let before = world.engine.metrics().memory_bytes;
    for batches in [stored.iter().collect::<Vec<_>>(), batches.iter().collect()] {
        let mut next = taken_up(image(batches));
        let metrics = next.engine.metrics();
        assert_eq!(metrics.messages_queued, (SESSIONS * MESSAGES) as u64);
        let after = metrics.memory_bytes;
        assert!(after < before + before / 4, "{after} bytes after {before}");
    }
}

/// Sessions have other home cores after a restart: the deliveries of a message that a core restores may have been
/// logged by several cores, each with a copy of its content.
#[test]
fn sessions_share_a_message_that_several_cores_have_logged() {
    let (world, stored) = crowd();
    let before = world.engine.memory.ledger().bytes();
    let mut whole = image(&stored);
    for session in whole.sessions.values_mut() {
        for content in session.queue.iter_mut().filter_map(|of| of.content.as_mut()) {
            *content = SharedContent::new(content.get().expect("it was logged").clone());
        }
    }
    let mut next = taken_up(whole);
    let metrics = next.engine.metrics();
    assert_eq!(metrics.messages_queued, (SESSIONS * MESSAGES) as u64);
    let after = metrics.memory_bytes;
    assert!(after < before + before / 4, "{after} bytes after {before}");
}

#[test]
fn a_client_with_queued_messages_connects_when_memory_is_full_and_receives_them() {
    let (_, stored) = crowd();
    let mut next = taken_up(image(&stored));
    let held = next.engine.metrics().memory_bytes;
    next.engine.memory.set_bytes_max(held / 2);
    let stranger = next.accept();
    next.send_connect(stranger, &Client::persistent("stranger"));
    let packets = next.packets(stranger, Version::V5);
    assert!(packets[0].contains("ServerBusy"), "{packets:?}");
    let names: Vec<String> = names().collect();
    for name in &names {
        let id = next.accept();
        next.send_connect(id, &Client::persistent(name));
        next.store_all();
        let got = next.publishes(id);
        assert_eq!(got.len(), MESSAGES, "{name}");
        for (.., identifier) in got {
            next.send(id, Version::V5, &Packet::Puback(ack(identifier.expect("QoS 1"))));
        }
        next.store_all();
    }
    let metrics = next.engine.metrics();
    assert_eq!(metrics.messages_queued, 0);
    // The clients are connected now, which takes some memory.
    let contents = (MESSAGES * PAYLOAD_BYTES) as u64;
    let connections = SESSIONS as u64 * 4_096;
    let bytes = metrics.memory_bytes;
    assert!(bytes < held - contents + connections, "{bytes} of {held} bytes");
}

#[test]
fn a_rewritten_image_has_each_message_once() {
    let (_, stored) = crowd();
    let whole = image(&stored);
    let mut batches: Vec<Vec<u8>> = Vec::new();
    let last = whole.write(|out| {
        if out.len() > 16_384 {
            batches.push(std::mem::take(out));
        }
    });
    batches.push(last);
    let bytes: usize = batches.iter().map(Vec::len).sum();
    assert!(bytes < MESSAGES * PAYLOAD_BYTES + SESSIONS * (256 + MESSAGES * 64), "{bytes} bytes");
    let mut again = Image::default();
    for batch in &batches {
        again.apply(batch, &crate::storage::image::Whole).expect("records");
    }
    assert_eq!(again.sessions, whole.sessions);
}

/// The clock of a router that starts in 1970 and gets the time from the network while it runs.
#[test]
fn sessions_and_messages_do_not_age_when_the_time_of_day_is_set_forward() {
    let years_us = 50 * 365 * 86_400 * 1_000_000;
    let mut world = kept();
    let id = world.accept();
    world.send_connect(id, &Client::persistent("session"));
    world.subscribe(id, "t", Qos::AtLeastOnce);
    world.store_all();
    world.cut(id);
    let publisher = world.connect(&Client::v5("publisher"));
    let mut message = publish("t", b"m", Qos::AtLeastOnce, 1);
    message.properties.message_expiry_interval = Some(86_400);
    world.send(publisher, Version::V5, &Packet::Publish(message.clone()));
    message.retain = true;
    message.topic = "kept";
    world.send(publisher, Version::V5, &Packet::Publish(message));
    world.store_all();
    world.advance_ms(60_000);
    world.store_all();
    let wall_at_zero_us = WALL_AT_ZERO_US + years_us;
    let mut up_to = world.engine.durability.journal().number() - 1;
    let mut batches: Vec<RecordBatch> = Vec::new();
    while batches.last().is_none_or(|last| last.checkpoint != 1) {
        let state = StoreState { up_to, checkpoint: 1, wall_at_zero_us, ..StoreState::default() };
        world.engine.handle_stored(world.now, state);
        let records = world.records().expect("another batch of the checkpoint");
        up_to = records.number;
        batches.push(records);
    }
    // The broker restarts a minute later.
    let mut next = World::new();
    let again_us = wall_at_zero_us + 120 * 1_000_000;
    next.engine.open_journal(JournalConfig { wall_at_zero_us: again_us, waits: true });
    next.engine.restore(image(&batches));
    next.store_all();
    next.advance_ms(1_000);
    let id = next.accept();
    next.send_connect(id, &Client::persistent("session"));
    next.store_all();
    next.subscribe(id, "kept", Qos::AtMostOnce);
    next.store_all();
    let mut left_s = Vec::new();
    next.each_packet(id, Version::V5, |packet| {
        if let Packet::Publish(publish) = packet {
            left_s.extend(publish.properties.message_expiry_interval);
        }
    });
    assert_eq!(left_s.len(), 2, "both messages are queued");
    assert!(left_s.iter().all(|left| (86_100..86_400).contains(left)), "{left_s:?}");
}
