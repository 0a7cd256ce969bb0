//! Wills of clients that were connected when the broker went down.

use super::durability::{image, kept};
use super::*;
use crate::base::limits;
use crate::storage::commit::{RecordBatch, StoreState};
use crate::wire::{Disconnect, ReasonCode};

const GRACE_MS: u64 = 30_000;

/// A broker with a disconnected watcher, and its stored records.
struct Kept {
    world: World,
    stored: Vec<RecordBatch>,
}

impl Kept {
    fn new() -> Self {
        let mut new = Self { world: kept(), stored: Vec::new() };
        let watcher = new.connect(&Client::persistent("watcher"));
        new.world.subscribe(watcher, "will/#", Qos::AtLeastOnce);
        new.store();
        new.world.cut(watcher);
        new.store();
        new
    }

    fn store(&mut self) {
        self.stored.extend(self.world.store_all());
    }

    fn connect(&mut self, client: &Client<'_>) -> ConnectionId {
        let id = self.world.accept();
        self.world.send_connect(id, client);
        self.store();
        assert!(self.world.packets(id, client.version)[0].starts_with("Connack"));
        id
    }

    /// A broker restored from the stored records, after its first turn.
    fn after_crash(&self) -> Self {
        let mut world = kept();
        world.engine.restore(image(&self.stored));
        world.engine.end_restore();
        let mut next = Self { world, stored: self.stored.iter().map(again).collect() };
        // Sooner than any timer fires.
        next.pass_ms(0);
        next
    }

    fn pass_ms(&mut self, ms: u64) {
        self.world.advance_ms(ms);
        self.store();
    }

    /// The topics of the messages that the watcher receives when it reconnects.
    fn seen(&mut self) -> Vec<String> {
        let watcher = self.world.accept();
        self.world.send_connect(watcher, &Client::persistent("watcher"));
        self.store();
        let publishes = self.world.publishes(watcher);
        for (_, _, _, identifier) in &publishes {
            let number = identifier.expect("QoS 1");
            self.world.send(watcher, Version::V5, &Packet::Puback(ack(number)));
        }
        self.world.cut(watcher);
        self.store();
        publishes.into_iter().map(|(topic, _, _, _)| topic).collect()
    }

    fn wills_stored(&self) -> usize {
        let image = image(&self.stored);
        let waiting = image.sessions.values().filter(|session| session.will.is_some());
        image.wills.len() + waiting.count()
    }
}

fn again(records: &RecordBatch) -> RecordBatch {
    RecordBatch { number: records.number, bytes: records.bytes.clone(), checkpoint: 0 }
}

fn will(topic: &str) -> Option<wire::Will<'_>> {
    Some(wire::Will { topic, payload: b"dead", qos: Qos::AtLeastOnce, ..wire::Will::default() })
}

#[test]
fn the_will_of_a_client_that_does_not_reconnect_after_a_restart_is_published_once() {
    let mut kept = Kept::new();
    kept.connect(&Client { will: will("will/clean"), ..Client::v5("clean") });
    kept.connect(&Client { will: will("will/durable"), ..Client::persistent("durable") });
    // Another crash meanwhile restarts the grace period.
    let mut next = kept.after_crash();
    next.pass_ms(GRACE_MS - 1_000);
    let mut next = next.after_crash();
    next.pass_ms(GRACE_MS - 1_000);
    assert_eq!(next.world.engine.metrics().wills_left, 2);
    assert!(next.seen().is_empty());
    next.pass_ms(2_000);
    let mut seen = next.seen();
    seen.sort();
    assert_eq!(seen, ["will/clean", "will/durable"]);
    assert_eq!((next.wills_stored(), next.world.engine.metrics().wills_left), (0, 0));
    let mut last = next.after_crash();
    last.pass_ms(2 * GRACE_MS);
    assert!(last.seen().is_empty());
}

#[test]
fn the_will_of_a_client_that_reconnects_after_a_restart_is_cancelled() {
    let mut kept = Kept::new();
    let clients = || [Client::v5("clean"), Client::persistent("durable")];
    for client in clients() {
        kept.connect(&Client { will: will("will/before"), ..client });
    }
    let mut next = kept.after_crash();
    next.pass_ms(GRACE_MS - 1_000);
    let ids = clients().map(|client| next.connect(&client));
    assert_eq!(next.wills_stored(), 0);
    next.pass_ms(2 * GRACE_MS);
    ids.into_iter().for_each(|id| next.world.cut(id));
    assert!(next.seen().is_empty(), "no Will is left");
}

#[test]
fn a_session_that_ended_with_the_broker_is_not_restored_for_its_will() {
    let mut kept = Kept::new();
    kept.connect(&Client { will: will("will/w"), ..Client::v5("clean") });
    let mut next = kept.after_crash();
    assert!(next.world.engine.sessions.find("clean").is_none());
    let id = next.world.accept();
    next.world.send_connect(id, &Client { clean_start: false, ..Client::v5("clean") });
    next.store();
    let connack = &next.world.packets(id, Version::V5)[0];
    assert!(connack.contains("session_present: false"), "{connack}");
}

#[test]
fn a_longer_will_delay_interval_counts_after_the_broker_was_down() {
    let mut kept = Kept::new();
    let delayed = will("will/w").map(|will| wire::Will { delay_interval_s: 100, ..will });
    kept.connect(&Client { will: delayed, ..Client::persistent("durable") });
    let mut next = kept.after_crash();
    next.pass_ms(99_000);
    assert!(next.seen().is_empty());
    next.pass_ms(2_000);
    assert_eq!(next.seen(), ["will/w"]);
}

#[test]
fn a_will_is_stored_before_connack_even_if_the_session_is_not_persistent() {
    let mut kept = Kept::new();
    let id = kept.world.accept();
    kept.world.send_connect(id, &Client { will: will("will/w"), ..Client::v5("clean") });
    assert!(kept.world.packets(id, Version::V5).is_empty());
    kept.store();
    assert!(kept.world.packets(id, Version::V5)[0].starts_with("Connack"));
    assert_eq!(kept.wills_stored(), 1);
    let plain = kept.world.accept();
    kept.world.send_connect(plain, &Client::v5("plain"));
    assert!(
        kept.world.packets(plain, Version::V5)[0].starts_with("Connack"),
        "CONNACK without a Will does not wait"
    );
}

#[test]
fn a_will_disposed_before_a_restart_is_not_published_again() {
    let with_will = |name| Client { will: will("will/w"), ..Client::persistent(name) };
    let says = |reason| {
        let disconnect = Disconnect { reason, ..Disconnect::default() };
        move |kept: &mut Kept, id| {
            kept.world.send(id, Version::V5, &Packet::Disconnect(disconnect.clone()));
        }
    };
    type End = Box<dyn Fn(&mut Kept, ConnectionId)>;
    let ends: [(&str, usize, End); 4] = [
        ("goodbye", 0, Box::new(says(ReasonCode::Success))),
        ("goodbye with the Will", 1, Box::new(says(ReasonCode::DisconnectWithWillMessage))),
        ("cut off", 1, Box::new(|kept, id| kept.world.cut(id))),
        (
            "taken over",
            1,
            Box::new(|kept, _| {
                kept.connect(&Client::persistent("c"));
            }),
        ),
    ];
    for (what, copies, end) in ends {
        let mut kept = Kept::new();
        let id = kept.connect(&with_will("c"));
        assert_eq!(kept.wills_stored(), 1);
        end(&mut kept, id);
        kept.store();
        assert_eq!(kept.wills_stored(), 0, "{what}");
        let mut next = kept.after_crash();
        next.pass_ms(2 * GRACE_MS);
        assert_eq!(next.seen().len(), copies, "{what}");
    }
}

#[test]
fn a_clean_stop_leaves_wills_to_the_next_start() {
    let mut kept = Kept::new();
    kept.connect(&Client { will: will("will/w"), ..Client::v5("clean") });
    let now = kept.world.now;
    kept.world.engine.handle_shutdown(now);
    kept.stored.extend(kept.world.engine.drain_records());
    let mut next = kept.after_crash();
    assert!(next.seen().is_empty());
    next.pass_ms(GRACE_MS + 1_000);
    assert_eq!(next.seen(), ["will/w"]);
}

#[test]
fn a_checkpoint_logs_wills_of_connected_and_of_absent_clients() {
    let mut kept = Kept::new();
    kept.connect(&Client { will: will("will/left"), ..Client::v5("left") });
    let mut next = kept.after_crash();
    next.connect(&Client { will: will("will/clean"), ..Client::v5("clean") });
    next.connect(&Client { will: will("will/durable"), ..Client::persistent("durable") });
    let last = next.stored.last().expect("some").number;
    let state = StoreState { up_to: last, checkpoint: 1, ..StoreState::default() };
    let now = next.world.now;
    next.world.engine.handle_stored(now, state);
    let checkpoint = next.world.records().expect("everything");
    assert_eq!(checkpoint.checkpoint, 1);
    assert_eq!(image(&[checkpoint]).wills, image(&next.stored).wills);
    assert_eq!(next.wills_stored(), 3);
}

#[test]
fn many_wills_are_published_over_several_turns() {
    // The client after the first part reconnects, two follow.
    let part = limits::LEFT_WILLS_PER_TURN;
    let many = part + 3;
    let mut image = image(&Kept::new().stored);
    for number in 0..many {
        let content = crate::storage::image::OwnedContent {
            topic: "will/w".into(),
            payload: Box::default(),
            passed_on: Box::default(),
            expires_us: None,
            qos: 1,
        };
        let will = crate::storage::image::HeldWill {
            owner: None,
            client_identifier: format!("c{number}").into(),
            delay_interval_s: 0,
            content,
            retain: false,
            message_expiry_interval_s: None,
            listener: None,
        };
        image.wills.insert(crate::storage::record::SessionNumber(1 << 50 | number as u64), will);
    }
    let mut world = kept();
    world.engine.restore(image);
    world.engine.end_restore();
    world.advance_ms(100);
    world.store_all();
    let back = world.accept();
    world.send_connect(back, &Client::v5(&format!("c{part}")));
    world.store_all();
    world.now = Now(world.now.0 + (GRACE_MS + 100) * 1_000);
    world.engine.handle_timeout(world.now);
    assert_eq!(world.engine.metrics().wills_left, 2);
    world.advance_ms(100);
    assert_eq!(world.engine.metrics().wills_left, 0);
    assert_eq!(world.engine.metrics().messages_queued, many as u64 - 1);
}

#[test]
fn clients_with_wills_connect_while_the_store_is_failing() {
    let mut kept = Kept::new();
    let now = kept.world.now;
    let up_to = kept.stored.last().expect("some").number;
    let state = StoreState { up_to, is_failing: true, ..StoreState::default() };
    kept.world.engine.handle_stored(now, state);
    let clean = kept.world.accept();
    kept.world.send_connect(clean, &Client { will: will("will/w"), ..Client::v5("clean") });
    assert!(kept.world.packets(clean, Version::V5)[0].starts_with("Connack"));
    let durable = kept.world.accept();
    let client = Client { will: will("will/w"), ..Client::persistent("durable") };
    kept.world.send_connect(durable, &client);
    assert!(kept.world.packets(durable, Version::V5).is_empty());
    kept.store();
    assert_eq!(kept.wills_stored(), 2);
}

#[test]
fn the_backlog_that_wills_cause_is_bounded() {
    let mut world = kept();
    let payload = vec![0; 60_000];
    let big = || Some(wire::Will { topic: "w", payload: &payload, ..wire::Will::default() });
    for number in 0.. {
        assert!(number * payload.len() < 2 * limits::JOURNAL_BYTES_FAR, "the backlog is bounded");
        let id = world.accept();
        world.send_connect(id, &Client { will: big(), ..Client::v5("again") });
        if world.packets(id, Version::V5).iter().any(|packet| packet.contains("ServerBusy")) {
            break;
        }
        world.cut(id);
    }
    while let Some(records) = world.engine.drain_records() {
        world.engine.handle_stored(
            world.now,
            StoreState { up_to: records.number, ..StoreState::default() },
        );
    }
    world.settle();
    let id = world.accept();
    world.send_connect(id, &Client::v5("later"));
    assert!(world.packets(id, Version::V5)[0].contains("Success"));
}

/// The retained message of a topic, as a new subscriber receives it.
fn retained(world: &mut World, topic: &str) -> Vec<String> {
    let id = world.connect(&Client::v5("reader"));
    world.subscribe(id, topic, Qos::AtMostOnce);
    world.payloads(id)
}

fn retained_will(payload: &[u8]) -> Option<wire::Will<'_>> {
    Some(wire::Will { topic: "state", payload, retain: true, ..wire::Will::default() })
}

#[test]
fn the_will_of_a_client_with_an_assigned_identifier_is_published_at_once() {
    let mut kept = Kept::new();
    let id = kept.world.accept();
    kept.world.send_connect(id, &Client { will: retained_will(b"offline"), ..Client::v5("") });
    kept.store();
    assert_eq!(kept.wills_stored(), 1);
    let mut next = kept.after_crash();
    assert_eq!(next.wills_stored(), 0, "the Will has ended");
    let back = next.world.accept();
    next.world.send_connect(back, &Client { will: retained_will(b"offline"), ..Client::v5("") });
    next.store();
    let online = Publish { retain: true, ..publish("state", b"online", Qos::AtMostOnce, 0) };
    next.world.send(back, Version::V5, &Packet::Publish(online));
    next.pass_ms(2 * GRACE_MS);
    assert_eq!(retained(&mut next.world, "state"), ["online"]);
}

#[test]
fn a_retained_will_from_before_a_restart_does_not_replace_later_messages() {
    let mut kept = Kept::new();
    kept.connect(&Client { will: retained_will(b"offline"), ..Client::v5("named") });
    let mut next = kept.after_crash();
    let other = next.connect(&Client::v5("other"));
    let since = Publish { retain: true, ..publish("state", b"online", Qos::AtMostOnce, 0) };
    next.world.send(other, Version::V5, &Packet::Publish(since));
    next.pass_ms(2 * GRACE_MS);
    assert_eq!(next.wills_stored(), 0, "the Will has ended");
    assert_eq!(retained(&mut next.world, "state"), ["online"]);
    // Without a later retained message, the Will is published.
    let mut kept = Kept::new();
    kept.connect(&Client { will: retained_will(b"offline"), ..Client::v5("named") });
    let mut next = kept.after_crash();
    next.pass_ms(2 * GRACE_MS);
    assert_eq!(retained(&mut next.world, "state"), ["offline"]);
}
