//! Limits of a user over all sessions and cores: sessions, retained messages, queued bytes.

use super::cores::Cores;
use super::durability::WALL_AT_ZERO_US;
use super::*;
use crate::base::metrics::Drop as DropCause;
use crate::config::{Protection, QueuePolicy};
use crate::storage::commit::JournalConfig;
use crate::storage::image::{Image, Whole};

/// Admits a client named `USER-SOMETHING` as that user, and other clients without a user.
pub(super) struct ByPrefix;

impl Access for ByPrefix {
    fn authenticate(&mut self, _: Now, _: u64, who: &Credentials<'_>) -> Authentication {
        let user = who.client_identifier.split_once('-').map(|(user, _)| user.into());
        Authentication::Granted(Grant { user, ..Grant::default() })
    }
}

fn world(change: impl FnOnce(&mut Protection)) -> World {
    World::with(|settings| change(&mut settings.protection), Box::new(ByPrefix))
}

impl Cores {
    fn puback(&mut self, core: usize, id: ConnectionId, topic: &str, payload: &[u8]) -> String {
        let mut publish = publish(topic, payload, Qos::AtLeastOnce, 1);
        publish.retain = true;
        self.0[core].send(id, Version::V5, &Packet::Publish(publish));
        self.settle();
        self.0[core].packets(id, Version::V5).pop().expect("PUBACK")
    }
}

impl World {
    /// Connects a client, and returns its CONNACK.
    fn connack(&mut self, client: &Client<'_>) -> String {
        let id = self.accept();
        self.send_connect(id, client);
        self.packets(id, client.version).remove(0)
    }

    fn puback(&mut self, id: ConnectionId, topic: &str, payload: &[u8]) -> String {
        let mut publish = publish(topic, payload, Qos::AtLeastOnce, 1);
        publish.retain = true;
        self.send(id, Version::V5, &Packet::Publish(publish));
        self.packets(id, Version::V5).pop().expect("PUBACK")
    }

    fn drops(&mut self, cause: DropCause) -> u64 {
        self.engine.metrics().drops.of(cause)
    }
}

#[test]
fn sessions_of_a_user_are_bounded_connected_or_not_and_its_own_may_be_resumed() {
    let mut world = world(|bounds| bounds.sessions_per_user_max = 2);
    let first = world.connect(&Client::persistent("u-1"));
    world.cut(first);
    let second = world.connect(&Client::v5("u-2"));
    assert!(world.connack(&Client::v5("u-3")).contains("QuotaExceeded"));
    assert_eq!(world.engine.metrics().sessions_over_user, 1);
    assert!(world.connack(&Client::v5("v-1")).contains("Success"));
    assert!((0..9).all(|n| world.connack(&Client::v5(&format!("n{n}"))).contains("Success")));
    // The user's own session, resumed, and a Clean Start that replaces it.
    assert!(world.connack(&Client::persistent("u-1")).contains("Success"));
    assert!(world.connack(&Client::v5("u-1")).contains("Success"));
    assert!(world.connack(&Client::v5("u-3")).contains("QuotaExceeded"));
    world.cut(second); // its session ends with it
    assert!(world.connack(&Client::v5("u-3")).contains("Success"));
}

#[test]
fn retained_messages_of_a_user_are_bounded_and_removed_ones_make_room() {
    let mut world = world(|bounds| {
        bounds.retained_messages_per_user_max = 2;
        bounds.retained_bytes_per_user_max = 300;
    });
    let (one, two) = (world.connect(&Client::v5("u-1")), world.connect(&Client::v5("u-2")));
    let (other, nobody) = (world.connect(&Client::v5("v-1")), world.connect(&Client::v5("n")));
    assert!(world.puback(one, "a", b"1").contains("NoMatching"));
    assert!(world.puback(two, "b", b"1").contains("NoMatching"));
    assert!(world.puback(one, "c", b"1").contains("QuotaExceeded"));
    assert_eq!(world.drops(DropCause::UserRetainedFull), 1);
    assert!(world.puback(other, "c", b"1").contains("NoMatching"));
    assert!((0..9).all(|n| world.puback(nobody, &format!("n/{n}"), b"1").contains("NoMatching")));
    // Any client of the user may replace its messages, as far as the bytes allow.
    assert!(world.puback(two, "a", b"2").contains("NoMatching"));
    assert!(world.puback(one, "a", &[b'x'; 300]).contains("QuotaExceeded"));
    // Messages that are cleared, replaced by another user or expired no longer count.
    assert!(world.puback(one, "a", b"").contains("NoMatching"));
    assert!(world.puback(one, "d", b"1").contains("NoMatching"));
    assert!(world.puback(other, "d", b"2").contains("NoMatching"));
    let mut mortal = publish("e", b"1", Qos::AtLeastOnce, 1);
    (mortal.retain, mortal.properties.message_expiry_interval) = (true, Some(1));
    world.send(one, Version::V5, &Packet::Publish(mortal));
    assert!(world.packets(one, Version::V5).remove(0).contains("NoMatching"));
    assert!(world.puback(one, "f", b"1").contains("QuotaExceeded"));
    world.advance_ms(2_000);
    assert!(world.puback(one, "f", b"1").contains("NoMatching"));
}

#[test]
fn the_queues_of_a_user_are_bounded_in_bytes_together_and_drop_by_policy() {
    for (policy, left) in [(QueuePolicy::DropNewest, 4), (QueuePolicy::DropOldest, 4)] {
        let change = |settings: &mut Settings| {
            settings.limits.queue_policy = policy;
            settings.protection.queue_bytes_per_user_max = 4 * 1_060;
        };
        let mut world = World::with(change, Box::new(ByPrefix));
        for name in ["u-1", "u-2", "v-1"] {
            let id = world.connect(&Client::persistent(name));
            world.subscribe(id, "t", Qos::AtLeastOnce);
            world.cut(id);
        }
        let publisher = world.connect(&Client::v5("p"));
        for n in 0..6 {
            world.publish(publisher, "t", &[b'0' + n; 1_000], Qos::AtLeastOnce, 1);
        }
        assert_eq!(world.drops(DropCause::UserQueueFull), 2 * (6 - 2) + 2, "{policy:?}");
        let queued = world.engine.metrics().messages_queued;
        assert_eq!(queued, 2 * left, "{policy:?}");
        // Received messages make room, and so does a session that ends.
        let id = world.connect(&Client::v5("u-1"));
        world.cut(id);
        let id = world.accept();
        world.send_connect(id, &Client::persistent("u-2"));
        let first = if policy == QueuePolicy::DropNewest { "0" } else { "4" };
        assert!(world.payloads(id)[0].starts_with(first), "{policy:?}");
        world.cut(id);
        world.publish(publisher, "t", &[b'x'; 1_000], Qos::AtLeastOnce, 1);
        assert_eq!(world.engine.metrics().drops.of(DropCause::UserQueueFull), 11, "{policy:?}");
    }
}

#[test]
fn limits_of_a_user_apply_across_all_cores_and_leave_nothing_behind() {
    let change = |settings: &mut Settings| {
        settings.protection.sessions_per_user_max = 3;
        settings.protection.retained_messages_per_user_max = 3;
    };
    let mut cores = Cores(
        Place::each(2).into_iter().map(|at| World::at(at, change, Box::new(ByPrefix))).collect(),
    );
    let homes = |core: &World, from: usize| {
        let at_home = |name: &String| {
            core.engine.mesh.home(name, core.engine.router.replica()) == core.engine.core()
        };
        (from..).map(|n| format!("u-{n}")).filter(at_home).take(3).collect::<Vec<_>>()
    };
    let names = [homes(&cores.0[0], 0), homes(&cores.0[1], 0)];
    let bytes_before: Vec<u64> = cores.0.iter().map(|w| w.engine.memory.ledger().bytes()).collect();
    let ids = [
        cores.0[0].connect(&Client::v5(&names[0][0])),
        cores.0[1].connect(&Client::v5(&names[1][0])),
        cores.0[1].connect(&Client::v5(&names[1][1])),
    ];
    for (core, names) in names.iter().enumerate() {
        assert!(cores.0[core].connack(&Client::v5(&names[2])).contains("QuotaExceeded"));
    }
    cores.settle();
    for (core, id, topic) in [(0, ids[0], "a"), (1, ids[1], "b"), (1, ids[2], "c")] {
        assert!(!cores.puback(core, id, topic, b"1").contains("QuotaExceeded"));
    }
    assert!(cores.puback(0, ids[0], "d", b"1").contains("QuotaExceeded"));
    // One core replaces and clears messages published on another.
    for topic in ["b", "c"] {
        assert!(!cores.puback(0, ids[0], topic, b"2").contains("QuotaExceeded"));
        cores.puback(1, ids[1], topic, b"");
    }
    for topic in ["d", "e"] {
        assert!(!cores.puback(0, ids[0], topic, b"1").contains("QuotaExceeded"));
    }
    assert!(cores.puback(0, ids[0], "f", b"1").contains("QuotaExceeded"));
    for topic in ["a", "d", "e"] {
        cores.puback(0, ids[0], topic, b"");
    }
    cores.0[0].cut(ids[0]);
    cores.0[1].cut(ids[1]);
    cores.0[1].cut(ids[2]);
    for _ in 0..6 {
        cores.0.iter_mut().for_each(|world| world.advance_ms(1_000));
        cores.settle();
    }
    let after: Vec<u64> = cores.0.iter().map(|w| w.engine.memory.ledger().bytes()).collect();
    assert_eq!(after, bytes_before);
}

#[test]
fn sessions_and_queues_count_for_their_users_again_after_a_restart() {
    let change = |settings: &mut Settings| {
        settings.protection.sessions_per_user_max = 1;
        settings.protection.queue_bytes_per_user_max = 2 * 1_060;
    };
    let start = || {
        let mut world = World::with(change, Box::new(ByPrefix));
        world.engine.open_journal(JournalConfig { wall_at_zero_us: WALL_AT_ZERO_US, waits: false });
        world
    };
    let mut first = start();
    let id = first.connect(&Client::persistent("u-1"));
    first.subscribe(id, "t", Qos::AtLeastOnce);
    first.cut(id);
    let publisher = first.connect(&Client::v5("p"));
    first.publish(publisher, "t", &[b'1'; 1_000], Qos::AtLeastOnce, 1);
    let mut image = Image::default();
    for records in first.store_all() {
        image.apply(&records.bytes, &Whole).expect("records");
    }
    let mut second = start();
    second.engine.restore(image);
    assert!(second.connack(&Client::v5("u-2")).contains("QuotaExceeded"));
    let publisher = second.connect(&Client::v5("p"));
    for _ in 0..2 {
        second.publish(publisher, "t", &[b'1'; 1_000], Qos::AtLeastOnce, 1);
    }
    assert_eq!(second.drops(DropCause::UserQueueFull), 1);
    let id = second.accept();
    second.send_connect(id, &Client::persistent("u-1"));
    assert_eq!(second.payloads(id).len(), 2);
}
