//! Shared subscriptions with many members: the cost of a message, and the member that receives it.

use super::*;

/// A world in which group `g` on topic `t` has disconnected members.
fn with_members_away(count: usize, qos: Qos) -> World {
    let mut world = World::with(|of| of.limits.connections_max = 1_000_000, Box::new(AllowAll));
    for n in 0..count {
        add_away(&mut world, &format!("away {n}"), qos);
    }
    world
}

fn add_away(world: &mut World, name: &str, qos: Qos) {
    let id = world.connect(&Client::persistent(name));
    world.subscribe(id, "$share/g/t", qos);
    world.cut(id);
}

/// The number of queued messages of a session.
fn waiting(world: &World, name: &str) -> usize {
    let session = world.engine.sessions.find(name).expect("a session of that name");
    world.engine.sessions.queued(session)
}

#[test]
fn the_cost_of_a_message_does_not_grow_with_the_members_that_are_away() {
    let cost = |members: usize| {
        let mut world = with_members_away(members, Qos::AtLeastOnce);
        let publisher = world.connect(&Client::v5("p"));
        // The shortest of several runs, as other processes use the machine too.
        let run = |world: &mut World| {
            let began = std::time::Instant::now();
            (1..=200).for_each(|n| world.publish(publisher, "t", b"m", Qos::AtLeastOnce, n));
            began.elapsed()
        };
        (0..5).map(|_| run(&mut world)).min().expect("some")
    };
    let (few, many) = (cost(4), cost(4_000));
    assert!(many < 10 * few, "{few:?} with 4 members, {many:?} with 4,000");
}

#[test]
fn members_that_are_away_receive_messages_in_turn() {
    let mut world = with_members_away(10, Qos::AtLeastOnce);
    let publisher = world.connect(&Client::v5("p"));
    (1..=30).for_each(|n| world.publish(publisher, "t", b"m", Qos::AtLeastOnce, n));
    for n in 0..10 {
        assert_eq!(waiting(&world, &format!("away {n}")), 3);
    }
}

#[test]
fn a_message_is_not_lost_if_most_members_cannot_queue_it() {
    let mut world = with_members_away(300, Qos::AtMostOnce);
    add_away(&mut world, "waits", Qos::AtLeastOnce);
    (300..600).for_each(|n| add_away(&mut world, &format!("away {n}"), Qos::AtMostOnce));
    let publisher = world.connect(&Client::v5("p"));
    (1..=5).for_each(|n| world.publish(publisher, "t", b"m", Qos::AtLeastOnce, n));
    assert_eq!(waiting(&world, "waits"), 5);
    world.publish(publisher, "t", b"m", Qos::AtMostOnce, 0);
    assert_eq!(waiting(&world, "waits"), 5, "QoS 0 is not queued for disconnected members");
}

#[test]
fn a_member_that_keeps_up_is_found_among_many_that_do_not() {
    let mut world = World::with(|of| of.limits.connections_max = 1_000, Box::new(AllowAll));
    let busy = |world: &mut World, n: usize| {
        let name = format!("busy {n}");
        let mut client = Client::persistent(&name);
        client.properties.receive_maximum = Some(1);
        let id = world.connect(&client);
        world.subscribe(id, &format!("own/{n}"), Qos::AtLeastOnce);
        world.subscribe(id, "$share/g/t", Qos::AtLeastOnce);
    };
    (0..100).for_each(|n| busy(&mut world, n));
    let fit = world.connect(&Client::v5("fit"));
    world.subscribe(fit, "$share/g/t", Qos::AtLeastOnce);
    (100..200).for_each(|n| busy(&mut world, n));
    let publisher = world.connect(&Client::v5("p"));
    // No member acknowledges: from now on the inflight window of each is full.
    for n in 0..200 {
        world.publish(publisher, &format!("own/{n}"), b"m", Qos::AtMostOnce, 0);
        world.publish(publisher, &format!("own/{n}"), b"m", Qos::AtLeastOnce, n + 1);
    }
    (300..400).for_each(|n| world.publish(publisher, "t", b"m", Qos::AtLeastOnce, n));
    let got = world.payloads(fit).len();
    assert!(
        got >= 13,
        "each message tries 32 of 201 members, so one in seven reaches it: it got {got}"
    );
    let others: Vec<usize> = (0..200).map(|n| waiting(&world, &format!("busy {n}"))).collect();
    assert!(
        others.iter().all(|&messages| messages <= 1),
        "other members receive at most one message each: {others:?}"
    );
}

#[test]
fn a_member_that_is_granted_a_lower_qos_queues_no_more_messages() {
    let mut world = World::new();
    let member = world.connect(&Client::persistent("member"));
    world.subscribe(member, "$share/g/t", Qos::AtLeastOnce);
    world.subscribe(member, "$share/g/t", Qos::AtMostOnce);
    world.cut(member);
    let publisher = world.connect(&Client::v5("p"));
    world.publish(publisher, "t", b"m", Qos::AtLeastOnce, 1);
    assert_eq!(waiting(&world, "member"), 0);
    let member = world.connect(&Client { clean_start: false, ..Client::persistent("member") });
    world.publish(publisher, "t", b"m", Qos::AtLeastOnce, 2);
    assert_eq!(world.payloads(member), ["m"], "a connected member receives the message");
}
