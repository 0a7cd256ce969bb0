//! Reloads of bridges that are stopped, idle or degraded, their queues, and commands to bridges by name after a reload.

use std::cell::RefCell;

use crate::commands::Near;
use crate::far::{Far, Packet};
use crate::support::{Client, Connect, Publish};
use crate::{ONE_SETUP, SETUPS, Site, at_once, bridge, numbers, publish, wait_until};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";

/// Publishes again and again until so many messages wait for the bridge: a reload takes its time to get to the queue.
#[track_caller]
fn fills(near: &Near, topic: &str, count: u64) {
    let client = RefCell::new(Client::connect(&near.broker, Connect::v5("filler")));
    wait_until(&format!("{count} messages wait"), || {
        client.borrow_mut().publish(Publish::new(topic, "x").qos(1, 1));
        near.shown()["queued"].as_u64() >= Some(count)
    });
}

#[test]
fn a_bridge_that_is_stopped_takes_over_a_change_and_stays_stopped() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let table = |more: &str| bridge("far", far.address, more);
        let (near, site) = Near::start_with(Site::new(setup), &table(OUT));
        far.discard();
        let mut peer = far.serve(false, &[]);
        near.is_in_state("up");
        near.does("bridge stop far");
        assert_eq!(peer.next(), Some(Packet::Disconnect), "{setup}");
        let changed = "keep_alive_s = 33\n[[bridges.out]]\nfilter = \"u/#\"\n";
        near.broker.reconfigure(&site.text(&table(changed)));
        fills(&near, "u/1", 1);
        assert_eq!(near.shown()["state"], "stopped", "{setup}");
        near.does("bridge start far");
        let (mut peer, connect) = far.accept();
        assert_eq!(connect.keep_alive_s, 33, "{setup}");
        peer.connack(true, &[]);
        assert_eq!(peer.publish().topic, "u/1", "{setup}");
        assert_eq!(near.shown()["connects"], 2, "{setup}");
    });
}

#[test]
fn a_lazy_bridge_that_is_idle_connects_when_it_is_not_lazy_any_more_and_leaves_when_it_is_again() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let table = |start: &str| bridge("far", far.address, &format!("{start}\n{OUT}"));
        let lazy = table("start = \"lazy\"\nlazy_messages = 3\nidle_s = 1");
        let (near, site) = Near::start_with(Site::new(setup), &lazy);
        near.is_in_state("idle");
        near.broker.reconfigure(&site.text(&table("")));
        far.discard();
        let mut peer = far.serve(false, &[]);
        near.is_in_state("up");
        near.broker.reconfigure(&site.text(&lazy));
        assert_eq!(peer.next(), Some(Packet::Disconnect), "{setup}");
        near.is_in_state("idle");
        near.broker.reconfigure(&site.text(&table("start = \"manual\"")));
        near.is_in_state("stopped");
    });
}

#[test]
fn other_bounds_of_a_queue_hold_after_a_reload_and_without_them_those_of_all_sessions() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = crate::free_address();
        let table = |queue: &str| bridge("far", far, &format!("start = \"manual\"\n{OUT}{queue}"));
        let bound = |most: u32| table(&format!("[bridges.queue]\nmessages_max = {most}\n"));
        let (near, site) = Near::start_with(Site::new(setup), &bound(2));
        near.is_in_state("stopped");
        fills(&near, "t/1", 2);
        publish(&near.broker, Publish::new("t/1", "too many").qos(1, 1));
        assert_eq!(near.shown()["queued"], 2, "{setup}");
        near.broker.reconfigure(&site.text(&bound(4)));
        fills(&near, "t/1", 4);
        publish(&near.broker, Publish::new("t/1", "too many").qos(1, 1));
        assert_eq!(near.shown()["queued"], 4, "{setup}");
        near.broker.reconfigure(&site.text(&table("")));
        fills(&near, "t/1", 9);
    });
}

#[test]
fn other_bounds_of_a_queue_hold_on_the_connection_that_there_is() {
    let far = Far::new();
    let table = |queue: &str| bridge("far", far.address, &format!("{OUT}{queue}"));
    let (near, site) =
        Near::start_with(Site::new(ONE_SETUP), &table("[bridges.queue]\nmessages_max = 2\n"));
    far.discard();
    // Receive Maximum 1
    let mut peer = far.serve(false, &[0x21, 0, 1]);
    near.is_in_state("up");
    fills(&near, "t/1", 2);
    assert_eq!(peer.publish().topic, "t/1");
    near.broker.reconfigure(&site.text(&table("")));
    fills(&near, "t/1", 5);
    assert_eq!(peer.within(std::time::Duration::from_millis(200)), None);
}

#[test]
fn a_bridge_is_not_degraded_any_more_once_a_reload_takes_the_refused_filter_away() {
    let far = Far::new();
    let one = "[[bridges.in]]\nfilter = \"a\"\n";
    let two = format!("{one}[[bridges.in]]\nfilter = \"b\"\n");
    let table = |rules: &str| bridge("far", far.address, rules);
    let (near, site) = Near::start_with(Site::new(ONE_SETUP), &table(&two));
    far.discard();
    let mut peer = far.serve(false, &[]);
    peer.grant(&[2, 0x87]);
    near.is_in_state("degraded");
    near.broker.reconfigure(&site.text(&table(one)));
    assert_eq!(peer.unsubscribed(), ["b"]);
    near.is_in_state("up");
}

#[test]
fn commands_find_a_bridge_by_its_name_after_others_are_gone() {
    let tables = |names: &[&str]| -> String {
        let table = |name: &&str| {
            bridge(name, crate::free_address(), &format!("start = \"manual\"\n{OUT}"))
        };
        names.iter().map(table).collect()
    };
    let (near, site) = Near::start_with(Site::new(ONE_SETUP), &tables(&["one", "far"]));
    near.is_in_state("stopped");
    fills(&near, "t/1", 1);
    near.broker.reconfigure(&site.text(&tables(&["new", "far"])));
    wait_until("one is gone", || !near.does("bridge list").contains("one"));
    let before = near.shown()["queued"].as_u64().expect("a number");
    for number in numbers(0..3) {
        publish(&near.broker, Publish::new("t/1", &number).qos(1, 1));
    }
    assert!(near.does("bridge drop-queue far").contains(&(before + 3).to_string()));
    assert_eq!(near.shown()["dropped_by_operator"], before + 3);
    near.does("bridge stop new");
}
