//! Memory accounting of subscriptions, retained topics and cached matches, and eviction from the cache.

use super::*;

fn with_memory(bytes: u64) -> World {
    let change = |of: &mut Settings| {
        of.limits.memory_bytes_max = bytes;
        of.limits.connections_max = 10_000;
        of.limits.wildcard_subscriptions_per_client_max = 100_000;
        of.limits.subscriptions_per_client_max = 100_000;
    };
    World::with(change, Box::new(AllowAll))
}

fn deep(n: usize) -> String {
    format!("{n}/{}", vec!["a/+"; 60].join("/"))
}

/// Reason Codes of the SUBACKs received since the last call.
fn granted(world: &mut World, id: ConnectionId) -> usize {
    let packets = world.packets(id, Version::V5);
    packets.iter().filter(|packet| packet.contains("Suback") && packet.contains("[0]")).count()
}

fn retain(world: &mut World, id: ConnectionId, topic: &str) -> bool {
    let message = Publish { retain: true, ..publish(topic, b"x", Qos::AtLeastOnce, 1) };
    world.send(id, Version::V5, &Packet::Publish(message));
    // A client that publishes while memory is full is not read for a while.
    world.advance_ms(2 * limits::MEMORY_PAUSE_MS);
    let packets = world.packets(id, Version::V5);
    assert_eq!(packets.len(), 1, "{packets:?}");
    !packets[0].contains("QuotaExceeded")
}

#[test]
fn deep_filters_are_on_the_ledger_refused_at_the_bound_and_make_room_when_they_end() {
    let mut world = with_memory(4 << 20);
    let id = world.connect(&Client::v5("c"));
    let before = world.engine.metrics().memory_bytes;
    (0..8_000).for_each(|n| world.subscribe(id, &deep(n), Qos::AtMostOnce));
    let accepted = granted(&mut world, id);
    assert!((2_000..7_900).contains(&accepted), "{accepted} of 8,000 found room in 4 MiB");
    let metrics = world.engine.metrics();
    let each = metrics.subscription_bytes as usize / accepted;
    assert!((480..1_500).contains(&each), "120 levels take {each} bytes");
    assert!(metrics.memory_bytes >= metrics.subscription_bytes && each > 0);
    world.cut(id);
    let after = world.engine.metrics().memory_bytes;
    assert!(after < before + 300_000, "{before} bytes before, {after} after");
    let next = world.connect(&Client::v5("next"));
    world.subscribe(next, "a/+", Qos::AtMostOnce);
    assert_eq!(granted(&mut world, next), 1);
}

#[test]
fn deep_topics_of_retained_messages_are_on_the_ledger_and_refused_at_the_bound() {
    let mut world = with_memory(4 << 20);
    let id = world.connect(&Client::v5("c"));
    let topic = |n: usize| deep(n).replace('+', "b");
    let kept = (0..2_000).take_while(|&n| retain(&mut world, id, &topic(n))).count();
    assert!((300..1_000).contains(&kept), "{kept} topics of 121 levels found room in 4 MiB");
    let metrics = world.engine.metrics();
    assert!(metrics.retained_topic_bytes > 3 << 20, "{}", metrics.retained_topic_bytes);
    assert!(!retain(&mut world, id, &topic(5_000)));
    for n in 0..kept {
        let topic = topic(n);
        let empty = Publish { retain: true, ..publish(&topic, b"", Qos::AtMostOnce, 1) };
        world.send(id, Version::V5, &Packet::Publish(empty));
        world.advance_ms(2 * limits::MEMORY_PAUSE_MS);
    }
    let left = world.engine.metrics().retained_topic_bytes;
    assert!(left < 100_000, "{left} bytes left on the ledger");
    assert!(retain(&mut world, id, &topic(5_000)));
}

/// A client with shared subscriptions that match every topic, and another one that publishes to new
/// topics.
fn fill_cache(world: &mut World, topics: usize) -> u64 {
    world.engine.config.limits.shared_subscriptions_per_client_max = 1_000;
    let id = world.connect(&Client::v5("groups"));
    (0..500).for_each(|n| world.subscribe(id, &format!("$share/g{n}/#"), Qos::AtMostOnce));
    let publisher = world.connect(&Client::v5("p"));
    for n in 0..topics {
        world.publish(publisher, &format!("topic/{n}"), b"m", Qos::AtMostOnce, 0);
    }
    world.engine.metrics().topic_cache_bytes
}

#[test]
fn cached_matches_count_their_memory_and_are_bounded_in_bytes() {
    let mut world = with_memory(16 << 20);
    let few = fill_cache(&mut world, 5);
    let many = fill_cache(&mut world, 20);
    assert!(many - few > 15 * 500 * 30, "{few} bytes with 5 answers, {many} with 20");
    let bound = (16 << 20) / limits::TOPIC_CACHE_MEMORY_SHARE;
    let most = fill_cache(&mut world, 300);
    assert!((bound / 8..=bound + 100_000).contains(&most), "{most} bytes of {bound}");
    let memory = world.engine.metrics().memory_bytes;
    assert!(memory > most);
}

#[test]
fn a_large_cache_is_dropped_over_several_turns_and_counts_until_then() {
    const TOPICS: usize = 4_000;
    let mut world = with_memory(64 << 20);
    let publisher = world.connect(&Client::v5("p"));
    let publish = |world: &mut World, topic: &str| {
        world.publish(publisher, topic, b"m", Qos::AtMostOnce, 0);
    };
    (0..TOPICS).for_each(|n| publish(&mut world, &format!("topic/{n}")));
    let full = world.engine.metrics().topic_cache_bytes;
    assert!(full > TOPICS as u64 * 50, "{full} bytes");
    world.subscribe(publisher, "topic/+", Qos::AtMostOnce);
    publish(&mut world, "topic/1");
    assert_eq!(world.payloads(publisher), ["m"], "no entry from before is used");
    let soon = world.engine.metrics().topic_cache_bytes;
    assert!(soon > full / 4 * 3, "{soon} of {full} bytes are left after a few turns");
    (0..TOPICS / 16).for_each(|_| world.advance_ms(1));
    let left = world.engine.metrics().topic_cache_bytes;
    assert!(left < full / 20, "{left} of {full} bytes are left");
}

#[test]
fn cached_matches_are_evicted_before_any_client_is_refused() {
    let mut world = with_memory(8 << 20);
    assert!(fill_cache(&mut world, 15) > 150_000);
    // Other data takes all but a small share of the memory.
    let held = world.engine.memory.ledger().bytes();
    world.engine.memory.ledger().charge((8 << 20) - (300 << 10) - held as usize);
    world.advance_ms(1);
    assert_eq!(world.engine.metrics().topic_cache_bytes, 0);
    let id = world.connect(&Client::v5("new"));
    world.subscribe(id, "a/+", Qos::AtMostOnce);
    assert_eq!(granted(&mut world, id), 1);
    let publisher = world.connect(&Client::v5("p"));
    world.publish(publisher, "a/b", b"m", Qos::AtMostOnce, 0);
    assert_eq!(world.payloads(id), ["m"], "matched without the cache");
    world.engine.memory.ledger().release(1 << 20);
    world.advance_ms(1);
    (0..10).for_each(|n| world.publish(publisher, &format!("t/{n}"), b"m", Qos::AtMostOnce, 0));
    assert!(world.engine.metrics().topic_cache_bytes > 0);
}
