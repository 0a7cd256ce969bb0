//! Queued messages when access rules change: each is checked before it is sent, over several turns, and
//! none is checked unless the rules have changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::durability::image;
use super::*;
use crate::base::metrics::Drop as DropCause;
use crate::engine::work::TURN_STEPS;
use crate::storage::commit::JournalConfig;

/// Steps that each decision is charged.
const DECISION_STEPS: usize = 40;

/// Permits everything until the rules change, and then nothing below `secret/`.
#[derive(Clone, Default)]
struct Rules {
    have_changed: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    steps: usize,
}

impl Rules {
    fn allow(&mut self, topic: &str) -> bool {
        self.asked.fetch_add(1, Relaxed);
        self.steps += DECISION_STEPS;
        !self.have_changed.load(Relaxed) || !topic.starts_with("secret/")
    }

    fn change(&self, world: &mut World) {
        self.have_changed.store(true, Relaxed);
        world.engine.handle_answers(world.now);
        world.settle();
    }

    fn asked(&self) -> u64 {
        self.asked.swap(0, Relaxed)
    }
}

impl Access for Rules {
    fn authenticate(&mut self, _: Now, _: u64, _: &Credentials<'_>) -> Authentication {
        let user = Some("user".into());
        Authentication::Granted(Grant { user, ..Grant::default() })
    }

    fn may_subscribe(
        &mut self,
        _: Now,
        who: &Identity<'_>,
        filter: &str,
        qos: Qos,
    ) -> Decision<Qos> {
        let filter = filter.strip_prefix("$share/g/").unwrap_or(filter);
        let is_trusted = who.client_identifier.as_str() == "trusted";
        match self.allow(filter) || is_trusted {
            true => Decision::Allowed(qos),
            false => Decision::Denied,
        }
    }

    fn may_publish_will(
        &mut self,
        of: &WillOwner<'_>,
        will: &crate::message::Content<'_>,
        _: bool,
        _: bool,
    ) -> bool {
        assert_eq!(of.user, Some("user"));
        self.allow(will.topic)
    }

    fn revision(&mut self) -> u64 {
        1 + u64::from(self.have_changed.load(Relaxed))
    }

    fn take_steps(&mut self) -> usize {
        std::mem::take(&mut self.steps)
    }
}

fn world() -> (World, Rules) {
    world_with(false)
}

/// `have_changed`: the rules have changed before the start.
fn world_with(have_changed: bool) -> (World, Rules) {
    let rules = Rules::default();
    rules.have_changed.store(have_changed, Relaxed);
    (World::with(|_| {}, Box::new(rules.clone())), rules)
}

fn denied(world: &mut World) -> u64 {
    world.engine.metrics().drops.of(DropCause::NotAuthorized)
}

/// A disconnected client with `messages` queued, every second one below `secret/`.
fn away(world: &mut World, messages: usize, qos: Qos) -> ConnectionId {
    let reader = world.connect(&Client::persistent("reader"));
    for filter in ["secret/#", "open/#"] {
        world.subscribe(reader, filter, qos);
    }
    world.cut(reader);
    let writer = world.connect(&Client::v5("writer"));
    for number in 0..messages {
        let topic = if number % 2 == 0 { "secret/t" } else { "open/t" };
        world.publish(writer, topic, number.to_string().as_bytes(), Qos::AtLeastOnce, 1);
    }
    writer
}

#[test]
fn queued_messages_are_not_checked_unless_access_rules_have_changed() {
    let (mut world, rules) = world();
    away(&mut world, 100, Qos::AtLeastOnce);
    rules.asked();
    let reader = world.accept();
    world.send_connect(reader, &Client::persistent("reader"));
    assert_eq!(world.payloads(reader).len(), 100);
    assert_eq!(rules.asked(), 2, "only the subscriptions are checked");
    assert_eq!(denied(&mut world), 0);
}

#[test]
fn queued_messages_are_checked_against_new_rules_in_order_and_over_several_turns() {
    const MESSAGES: usize = 6_000;
    let (mut world, rules) = world();
    away(&mut world, MESSAGES, Qos::AtLeastOnce);
    rules.change(&mut world);
    // A message that arrives after the change and before the client reconnects.
    let late = world.connect(&Client::v5("late"));
    world.publish(late, "secret/t", b"late", Qos::AtLeastOnce, 1);
    world.engine.work.take_turn_max();
    let reader = world.accept();
    world.send_connect(reader, &Client::persistent("reader"));
    let mut seen = Vec::new();
    for _ in 0..MESSAGES {
        let publishes = world.publishes(reader);
        if publishes.is_empty() {
            break;
        }
        for (topic, payload, _, identifier) in publishes {
            assert_eq!(topic, "open/t");
            seen.push(payload.parse::<usize>().expect("a number"));
            let puback = Packet::Puback(ack(identifier.expect("QoS 1")));
            world.send(reader, Version::V5, &puback);
        }
    }
    assert_eq!(seen, (0..MESSAGES).skip(1).step_by(2).collect::<Vec<_>>());
    assert_eq!(denied(&mut world), MESSAGES as u64 / 2 + 1);
    assert_eq!(world.engine.metrics().messages_queued, 0);
    let most = world.engine.work.take_turn_max();
    // Each part of a turn ends with a decision that is not divided.
    assert!(most <= TURN_STEPS + 4 * DECISION_STEPS as u32, "{most} steps in a turn");
    // The two subscriptions at SUBSCRIBE and on reconnection, and each message once.
    assert_eq!(rules.asked(), 2 + MESSAGES as u64 + 1 + 2);
}

#[test]
fn messages_queued_for_a_slow_client_are_checked_against_the_rules_in_force_when_they_are_sent() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let (mut world, rules) = world();
        let mut slow = Client::persistent("slow");
        slow.properties.receive_maximum = Some(1);
        let reader = world.connect(&slow);
        world.subscribe(reader, "secret/#", qos);
        world.subscribe(reader, "open/#", qos);
        let writer = world.connect(&Client::v5("writer"));
        for (number, topic) in (1..).zip(["secret/1", "secret/2", "open/3"]) {
            world.publish(writer, topic, b"m", qos, number);
        }
        let sent = world.publishes(reader);
        assert_eq!(sent[0].0, "secret/1", "the message was sent before the change");
        rules.change(&mut world);
        let number = sent[0].3.expect("an identifier");
        match qos {
            Qos::AtLeastOnce => world.send(reader, Version::V5, &Packet::Puback(ack(number))),
            _ => {
                world.send(reader, Version::V5, &Packet::Pubrec(ack(number)));
                world.send(reader, Version::V5, &Packet::Pubcomp(ack(number)));
            }
        }
        let topics: Vec<String> = world.publishes(reader).into_iter().map(|of| of.0).collect();
        assert_eq!(topics, ["open/3"]);
        assert_eq!(denied(&mut world), 1);
    }
}

#[test]
fn after_a_restart_queued_messages_and_wills_are_checked_against_the_rules_in_force() {
    let config = || JournalConfig { wall_at_zero_us: 1_700_000_000_000_000, waits: false };
    let (mut world, _) = world();
    world.engine.open_journal(config());
    away(&mut world, 10, Qos::AtLeastOnce);
    for topic in ["secret/will", "open/will"] {
        let mut client = Client::v5(topic);
        let qos = Qos::AtLeastOnce;
        client.will = Some(wire::Will { topic, payload: b"will", qos, ..wire::Will::default() });
        world.connect(&client);
    }
    let stored = world.store_all();
    // Nothing changes after the start.
    let (mut next, _) = world_with(true);
    next.engine.open_journal(config());
    next.engine.restore(image(&stored));
    next.engine.end_restore();
    next.advance_ms(100);
    next.now = Now(next.now.0 + 60_000_000);
    next.engine.handle_timeout(next.now);
    next.settle();
    next.store_all();
    assert_eq!(denied(&mut next), 1, "the Will");
    let reader = next.accept();
    next.send_connect(reader, &Client::persistent("reader"));
    next.store_all();
    let publishes = next.publishes(reader);
    let topics: Vec<&str> = publishes.iter().map(|of| &*of.0).collect();
    assert_eq!(topics, ["open/t", "open/t", "open/t", "open/t", "open/t", "open/will"]);
    assert_eq!(denied(&mut next), 6);
}

#[test]
fn a_message_a_group_member_may_no_longer_receive_goes_to_another_member() {
    // More subscriptions than one turn can check, the shared one among the last.
    const SUBSCRIPTIONS: usize = 2_000;
    let (mut world, rules) = world();
    let reader = world.connect(&Client::persistent("reader"));
    world.subscribe(reader, "$share/g/secret/#", Qos::AtLeastOnce);
    for number in 0..SUBSCRIPTIONS {
        world.subscribe(reader, &format!("open/{number}"), Qos::AtLeastOnce);
    }
    world.cut(reader);
    let writer = world.connect(&Client::v5("writer"));
    for number in 1..=5 {
        world.publish(writer, "secret/t", b"m", Qos::AtLeastOnce, number);
    }
    world.publish(writer, "open/7", b"m", Qos::AtLeastOnce, 6);
    rules.change(&mut world);
    let trusted = world.connect(&Client::v5("trusted"));
    world.subscribe(trusted, "$share/g/secret/#", Qos::AtLeastOnce);
    let reader = world.accept();
    world.send_connect(reader, &Client::persistent("reader"));
    let topics: Vec<String> = world.publishes(reader).into_iter().map(|of| of.0).collect();
    assert_eq!(topics, ["open/7"]);
    assert_eq!(world.payloads(trusted).len(), 5);
    assert_eq!(denied(&mut world), 0);
}

#[test]
fn a_check_of_all_clients_takes_several_turns_and_replies_when_it_is_complete() {
    use crate::control::{AccessChecked, EngineCommand, replies};
    let rules = Rules::default();
    let access = Box::new(rules.clone());
    let mut world = World::with(|settings| settings.limits.connections_max = 2_000, access);
    let (to, replies) = replies();
    world.engine.handle_command(world.now, EngineCommand::CheckAccess(to.core(0)));
    let nothing = Some((0, Ok(AccessChecked::default())));
    assert_eq!(replies.try_next(), nothing, "with unchanged rules all clients count as checked");
    let per_turn = crate::base::limits::SESSIONS_CHECKED_PER_TURN;
    for number in 0..3 * per_turn {
        let id = world.connect(&Client::v5(&format!("c{number}")));
        let filter = if number % 2 == 0 { "secret/t" } else { "open/t" };
        world.subscribe(id, filter, Qos::AtMostOnce);
    }
    rules.have_changed.store(true, Relaxed);
    world.engine.handle_command(world.now, EngineCommand::CheckAccess(to.core(0)));
    for _ in 0..3 {
        assert!(world.engine.has_commands());
        assert_eq!(replies.try_next(), None, "the check continues in the next turn");
        world.turn();
    }
    // A command received meanwhile is answered at the end of the check as well.
    world.engine.handle_command(world.now, EngineCommand::CheckAccess(to.core(1)));
    world.settle();
    let subscriptions_ended = (3 * per_turn).div_ceil(2) as u64;
    let checked = Ok(AccessChecked { clients_disconnected: 0, subscriptions_ended });
    assert_eq!(replies.try_next(), Some((0, checked)));
    assert_eq!(replies.try_next(), Some((1, checked)));
    assert!(!world.engine.has_commands());
}
