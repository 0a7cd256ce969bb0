//! What the membership promises.

use super::super::{JoinError, MembershipEvent};
use super::world::{S, World};
use crate::cluster::view::{LaneVersions, ViewError};

fn three() -> World {
    let mut world = World::new(7);
    for name in ["a", "b", "c"] {
        world.start(name, None);
        assert!(world.until(20 * S, World::is_settled), "{name} joins");
    }
    world
}

#[test]
fn nodes_that_join_agree_on_the_view_and_have_numbers_of_their_own() {
    let world = three();
    assert_eq!(world.members(), [0, 1, 2]);
    assert_eq!(
        (0..3).map(|node| world.own(node).map(|own| own.0)).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2)]
    );
}

#[test]
fn nodes_that_start_at_once_have_numbers_of_their_own() {
    let mut world = World::new(8);
    for name in ["a", "b", "c", "d", "e"] {
        world.start(name, None);
    }
    assert!(world.until(30 * S, World::is_settled));
    assert_eq!(world.members(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_node_that_neither_speaks_nor_renews_is_evicted_and_no_other() {
    let mut world = three();
    world.run(60 * S);
    assert_eq!(world.members(), [0, 1, 2]);
    world.kill(2);
    // It may have renewed its lease three seconds ago.
    assert!(!world.until(6 * S, |world| world.members().len() < 3), "not before its lease expires");
    assert!(world.until(10 * S, |world| world.members() == [0, 1]));
    world.run(60 * S);
    assert_eq!(world.members(), [0, 1]);
}

#[test]
fn a_broker_that_starts_again_takes_its_number_at_once_with_the_next_incarnation() {
    let mut world = three();
    let before = world.own(1).expect("a member");
    world.kill(1);
    world.boot(1);
    assert!(
        world.until(2 * S, |world| world.own(1).is_some()),
        "it need not wait for its own lease"
    );
    let after = world.own(1).expect("a member");
    assert!(after.0 == before.0 && after.1 > before.1, "{before:?} {after:?}");
    world.kill(1);
    assert!(world.until(30 * S, |world| world.members() == [0, 2]));
    world.start("d", None);
    assert!(
        world.until(30 * S, |world| world.members() == [0, 2, 3]),
        "a number that was used stays free"
    );
    world.boot(1);
    assert!(world.until(30 * S, World::is_settled));
    assert_eq!(world.own(1).map(|own| own.0), Some(1));
}

#[test]
fn a_paused_node_is_evicted_notices_and_joins_as_new() {
    let mut world = three();
    let before = world.own(2).expect("a member");
    world.pause(2, 40 * S);
    assert!(world.until(25 * S, |world| world.members() == [0, 1]));
    assert!(world.until(60 * S, World::is_settled), "it comes back");
    assert!(world.has(2, &MembershipEvent::Evicted));
    assert!(world.own(2).expect("a member").1 > before.1);
    assert!(world.own(0).is_some() && !world.has(0, &MembershipEvent::Evicted));
}

#[test]
fn of_two_nodes_that_do_not_hear_each_other_the_one_with_the_higher_number_leaves() {
    let mut world = World::new(9);
    world.start("a", None);
    world.run(5 * S);
    world.start("b", None);
    assert!(world.until(20 * S, World::is_settled));
    world.nodes[1].rejoins = false;
    world.apart.insert((0, 1));
    assert!(!world.until(9 * S, |world| world.members().len() < 2), "it is held ten seconds");
    assert!(world.until(15 * S, |world| world.members() == [0]));
    world.run(S);
    assert!(world.has(1, &MembershipEvent::Evicted) && !world.has(0, &MembershipEvent::Evicted));
}

#[test]
fn a_node_that_nobody_hears_leaves_whatever_its_number_is() {
    let mut world = three();
    world.nodes[0].rejoins = false;
    world.apart.extend([(0, 1), (0, 2)]);
    assert!(world.until(30 * S, |world| world.members() == [1, 2]));
    world.run(60 * S);
    assert_eq!(world.members(), [1, 2]);
}

#[test]
fn a_node_without_quorum_is_isolated_and_healed_if_it_is_still_a_member() {
    let mut world = World::new(10);
    world.start("a", None);
    assert!(world.until(10 * S, World::is_settled));
    world.nodes[0].is_cut_off = true;
    assert!(world.until(15 * S, |world| world.has(0, &MembershipEvent::Isolated)));
    world.run(30 * S);
    assert!(world.own(0).is_some(), "it serves on");
    world.heal();
    assert!(world.until(15 * S, |world| world.has(0, &MembershipEvent::Healed)));
    assert_eq!(world.members(), [0]);
}

#[test]
fn a_node_that_was_cut_off_and_evicted_is_not_healed_but_joins_as_new() {
    let mut world = three();
    world.nodes[0].is_cut_off = true;
    assert!(world.until(30 * S, |world| world.members() == [1, 2]));
    assert!(world.own(0).is_some(), "it cannot know");
    world.heal();
    assert!(world.until(30 * S, World::is_settled));
    assert!(world.has(0, &MembershipEvent::Evicted) && !world.has(0, &MembershipEvent::Healed));
}

#[test]
fn a_node_that_leaves_is_out_of_the_view() {
    let mut world = three();
    world.nodes[1].membership.as_mut().expect("it runs").leave();
    assert!(world.until(10 * S, |world| world.has(1, &MembershipEvent::Left)));
    assert_eq!(world.members(), [0, 2]);
}

#[test]
fn a_second_broker_with_the_same_name_or_number_is_refused_while_the_first_runs() {
    for (name, number) in [("b", None), ("d", Some(1))] {
        let mut world = three();
        let own = world.own(1);
        let second = world.start(name, number);
        world.nodes[second].rejoins = false;
        assert!(world.until(40 * S, |world| world.refusal(second).is_some()));
        let Some(JoinError::Taken(what)) = world.refusal(second) else { panic!("it is taken") };
        assert!(what.contains("\"b\"") && what.contains("cluster.node"), "{what}");
        assert_eq!(world.own(1), own);
    }
    let mut world = three();
    world.kill(1);
    let second = world.start("b", None);
    assert!(
        world.until(40 * S, |world| world.own(second).is_some_and(|own| own.0 == 1)),
        "a dead one is replaced"
    );
}

#[test]
fn a_clock_that_differs_by_more_than_two_seconds_refuses_the_join() {
    for (clock, is_refused) in [(3 * S as i64, true), (-3 * S as i64, true), (S as i64, false)] {
        let mut world = three();
        let late = world.start("d", None);
        world.nodes[late].clock = clock;
        world.nodes[late].rejoins = false;
        world.until(60 * S, |world| world.refusal(late).is_some() || world.own(late).is_some());
        match world.refusal(late) {
            Some(JoinError::Clock { ahead_ms, .. }) => {
                assert!(is_refused && (ahead_ms * 1_000 - clock).abs() < 100_000, "{ahead_ms}");
            }
            Some(other) => panic!("{other}"),
            None => assert!(!is_refused && world.own(late).is_some()),
        }
    }
}

#[test]
fn versions_and_formats_of_later_brokers_are_refused_by_name() {
    let mut world = three();
    let old = world.start("d", None);
    world.nodes[old].me.lanes = LaneVersions { lowest: 3, highest: 4 };
    world.nodes[old].rejoins = false;
    world.boot(old);
    assert!(world.until(20 * S, |world| world.refusal(old).is_some()));
    assert_eq!(world.refusal(old), Some(JoinError::Versions("a".to_owned())));
    let mut world = World::new(11);
    world.foreign = Some(br#"{"format":9,"members":"other"}"#.to_vec());
    let old = world.start("a", None);
    world.nodes[old].rejoins = false;
    assert!(world.until(20 * S, |world| world.refusal(old).is_some()));
    let error = world.refusal(old).expect("it is refused");
    assert_eq!(error, JoinError::View(ViewError::Newer { found: 9 }));
    assert!(error.to_string().contains("update this broker"), "{error}");
}

#[test]
fn whatever_is_lost_late_or_dead_no_two_act_as_one_and_all_agree_in_the_end() {
    let rounds = std::env::var("RINGMQ_MEMBERSHIP_SEEDS").ok().and_then(|text| text.parse().ok());
    for seed in 0..rounds.unwrap_or(60) {
        let mut world = World::new(seed);
        world.is_faulty = true;
        for name in ["a", "b", "c", "d"] {
            world.start(name, None);
        }
        for _ in 0..30 {
            let pause = world.random.below(8 * S);
            world.run(pause);
            world.disturb();
        }
        world.heal();
        assert!(world.until(180 * S, World::is_settled), "seed {seed}: {:?}", world.members());
        let revision = world.revision;
        world.run(60 * S);
        assert!(world.is_settled() && world.revision == revision, "seed {seed}: it stays so");
    }
}

#[test]
fn a_node_that_is_gone_for_good_is_forgotten_and_its_number_is_free() {
    let mut world = three();
    let refusal = world.forget(0, "c").expect_err("it is a member");
    assert!(refusal.contains("member"), "{refusal}");
    assert!(world.forget(0, "nobody").is_err());
    world.kill(2);
    assert!(world.until(30 * S, |world| world.members() == [0, 1]));
    world.run(20 * S);
    world.start("d", None);
    assert!(world.until(30 * S, |world| world.members() == [0, 1, 3]), "its number waits for it");
    world.forget(0, "c").expect("it is gone");
    world.run(5 * S);
    world.start("e", None);
    assert!(world.until(30 * S, |world| world.members() == [0, 1, 2, 3]));
    assert!(world.forget(1, "c").is_err(), "all know");
}
