//! Reloads: filters and bridges that come and go, as a far broker sees it that the test plays.

use std::time::Duration;

use crate::far::{Far, Packet, Peer};
use crate::support::{Ack, Broker, Client, Connect, Publish};
use crate::{ONE_SETUP, Site, Witness, at_once, bridge, connected, logged, versions};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";

fn rules(version: &str, more: &str) -> String {
    format!("version = {version:?}\n{more}")
}

/// `in` tables with QoS 1.
fn incoming(filters: &[&str]) -> String {
    filters.iter().map(|of| format!("[[bridges.in]]\nfilter = {of:?}\nqos = 1\n")).collect()
}

/// The connection that stays of a bridge that starts, with this many filters granted.
fn first_connection(far: &Far, filters: usize) -> Peer {
    far.discard();
    let mut peer = far.serve(false, &[]);
    if filters > 0 {
        assert_eq!(peer.grant(&vec![1; filters]).len(), filters);
    }
    peer
}

/// Lets the broker read another configuration, and waits until it has.
fn reload(site: &Site, running: &Broker, tables: &str) {
    let done = r#""what":"bridges","message":"reloaded""#;
    let before = reloads(running);
    running.reconfigure(&site.text(tables));
    crate::wait_until(done, || reloads(running) > before);
}

fn reloads(running: &Broker) -> usize {
    let is_it = |line: &&str| line.contains("\"reloaded\"") && line.contains("\"bridges\"");
    running.log().lines().filter(is_it).count()
}

fn publisher(broker: &Broker) -> Client {
    Client::connect(broker, Connect::v5("publisher"))
}

/// The filters of SUBSCRIBE, without their options.
fn granted(peer: &mut Peer, reasons: &[u8]) -> Vec<String> {
    peer.grant(reasons).into_iter().map(|(filter, _)| filter).collect()
}

#[test]
fn changed_filters_are_subscribed_and_unsubscribed_without_another_connection() {
    at_once(versions(&["3.1.1", "3.1"]), |(version, setup)| {
        let far = Far::new();
        let site = Site::new(setup);
        let table = |filters: &[&str], out: &str| {
            bridge("far", far.address, &rules(version, &(incoming(filters) + out)))
        };
        let near = site.start_with(&table(&["a/#", "b/#"], OUT));
        let mut peer = first_connection(&far, 2);
        let mut here = Witness::at(&near, "#");
        let other_out = "[[bridges.out]]\nfilter = \"u/#\"\n[[bridges.out]]\nfilter = \"t/1\"\n";
        reload(&site, &near, &table(&["b/#", "c/#"], other_out));
        // Only the difference, and in this order.
        assert_eq!(granted(&mut peer, &[1]), ["c/#"], "{setup} {version}");
        assert_eq!(peer.unsubscribed(), ["a/#"], "{setup} {version}");
        peer.send(Publish::new("c/1", "new").qos(1, 1));
        peer.expect(Ack::puback(1));
        peer.send(Publish::new("b/1", "same").qos(1, 2));
        peer.expect(Ack::puback(2));
        assert_eq!(here.texts(2), ["new", "same"], "{setup} {version}");
        let mut client = publisher(&near);
        for (topic, number) in [("u/1", 1), ("t/2", 2), ("t/1", 3)] {
            client.publish(Publish::new(topic, topic).qos(1, number));
        }
        for expected in ["u/1", "t/1"] {
            let got = peer.publish();
            assert_eq!(got.topic, expected, "{setup} {version}");
            peer.send(Ack::puback(got.id()));
        }
        // Nothing has changed.
        let more = "[limits]\nsessions_max = 77\n";
        near.reconfigure(&site.text(&(table(&["b/#", "c/#"], other_out) + more)));
        logged(&near, "limits.sessions_max", 1);
        assert_eq!(peer.within(Duration::from_millis(200)), None, "{setup} {version}");
    });
}

#[test]
fn a_bridge_that_is_gone_ends_its_session_at_the_far_broker_and_its_queue_stays_for_the_next_one() {
    at_once(versions(&["3.1.1"]), |(version, setup)| {
        let far = Far::new();
        let site = Site::new(setup);
        let table = bridge("far", far.address, &rules(version, &(incoming(&["a/#", "b"]) + OUT)));
        let near = site.start_with(&table);
        let mut peer = first_connection(&far, 2);
        let mut client = publisher(&near);
        client.publish(Publish::new("t/1", "one").qos(1, 1));
        assert_eq!(peer.publish().text(), "one");
        near.reconfigure(&site.text(""));
        assert_eq!(peer.unsubscribed(), ["a/#", "b"], "{setup} {version}");
        if version == "5" {
            assert_eq!(peer.next(), Some(Packet::EndSession), "{setup}");
            drop(peer);
        } else {
            // Before 5.0, only another connection ends the session.
            assert_eq!(peer.next(), Some(Packet::Disconnect), "{setup}");
            drop(peer);
            far.discard();
        }
        logged(&near, "\"bridge ended; its session is kept", 1);
        assert!(near.log().contains("broker ctl session delete"), "{setup}");
        client.publish(Publish::new("t/1", "two").qos(1, 2));
        near.reconfigure(&site.text(&table));
        let (mut peer, connect) = far.accept();
        assert!(!connect.clean_start, "{setup}");
        peer.connack(false, &[]);
        assert_eq!(peer.grant(&[1, 1]).len(), 2, "{setup}");
        for expected in ["one", "two"] {
            let got = peer.publish();
            assert_eq!(got.text(), expected, "{setup} {version}");
            peer.send(Ack::puback(got.id()));
        }
    });
}

#[test]
fn a_bridge_that_is_new_starts_and_the_others_stay_connected() {
    at_once(versions(&[]), |(version, setup)| {
        let (one, two) = (Far::new(), Far::new());
        let site = Site::new(setup);
        let table = |name: &str, far: &Far| bridge(name, far.address, &rules(version, OUT));
        let near = site.start_with(&table("one", &one));
        let mut first = first_connection(&one, 0);
        let both = table("two", &two) + &table("one", &one);
        reload(&site, &near, &both);
        let mut second = first_connection(&two, 0);
        publisher(&near).publish(Publish::new("t", "both").qos(1, 1));
        assert_eq!((first.publish().text(), second.publish().text()), ("both", "both"), "{setup}");
    });
}

#[test]
fn what_a_file_does_not_name_any_more_is_unsubscribed_after_a_restart() {
    at_once(versions(&["3.1.1"]), |(version, setup)| {
        let far = Far::new();
        let site = Site::new(setup).with_store();
        let table = |filters: &[&str]| {
            bridge("far", far.address, &rules(version, &(incoming(filters) + OUT)))
        };
        let near = site.start_with(&table(&["a/#", "b", "c"]));
        let peer = first_connection(&far, 3);
        // SIGKILL
        drop((near, peer));
        let near = site.start_with(&table(&["b"]));
        let mut peer = far.serve(true, &[]);
        assert_eq!(granted(&mut peer, &[1]), ["b"], "{setup} {version}");
        let mut given_up = peer.unsubscribed();
        given_up.sort();
        assert_eq!(given_up, ["a/#", "c"], "{setup} {version}");
        // Once it has been answered, it is not given up again.
        let mut here = Witness::at(&near, "b");
        peer.send(Publish::new("b", "end").qos(1, 1));
        peer.expect(Ack::puback(1));
        assert_eq!(here.texts(1), ["end"]);
        near.stop();
        peer.expect_end();
        drop((here, near));
        let _near = site.start_with(&table(&["b"]));
        let mut peer = far.serve(true, &[]);
        assert_eq!(granted(&mut peer, &[1]), ["b"], "{setup} {version}");
        assert_eq!(peer.within(Duration::from_millis(200)), None, "{setup} {version}");
    });
}

#[test]
fn a_far_broker_that_has_lost_its_session_is_not_asked_to_give_up_anything() {
    let far = Far::new();
    let site = Site::new(ONE_SETUP).with_store();
    let table = |filters: &[&str]| bridge("far", far.address, &rules("5", &incoming(filters)));
    let near = site.start_with(&table(&["a", "b"]));
    let peer = first_connection(&far, 2);
    drop((near, peer));
    let _near = site.start_with(&table(&["b"]));
    let mut peer = far.serve(false, &[]);
    assert_eq!(granted(&mut peer, &[1]), ["b"]);
    assert_eq!(peer.within(Duration::from_millis(200)), None);
}

#[test]
fn a_bridge_that_is_gone_over_a_restart_is_in_the_log_with_what_is_kept() {
    at_once(crate::SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let site = Site::new(setup).with_store();
        let table = bridge("far", far.address, &rules("5", &(incoming(&["a/#"]) + OUT)));
        let near = site.start_with(&table);
        let mut peer = first_connection(&far, 1);
        publisher(&near).publish(Publish::new("t/1", "waits").qos(1, 1));
        assert_eq!(peer.publish().text(), "waits");
        drop((near, peer));
        let near = site.start_with("");
        let text = "this bridge is not configured any more";
        logged(&near, text, 1);
        let log = near.log();
        let line = log.lines().find(|line| line.contains(text)).expect("just seen");
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["level"], "WARN", "{setup}: {line}");
        assert_eq!((&line["bridge"], &line["messages"]), (&"far".into(), &1.into()), "{line}");
        assert_eq!(line["session"], "$bridge/far", "{setup}");
        assert!(line["filters"].to_string().contains("a/#"), "{setup}: {line}");
    });
}

#[test]
fn a_bad_table_changes_nothing() {
    let far = Far::new();
    let site = Site::new(ONE_SETUP);
    let table = |more: &str| bridge("far", far.address, &rules("5", more));
    let near = site.start_with(&table(&(incoming(&["a"]) + OUT)));
    let mut peer = first_connection(&far, 1);
    for (number, (bad, what)) in [
        (table(&incoming(&["a", "b/#/c"])), "b/#/c"),
        (table(&(incoming(&["b"]) + OUT)) + &table(OUT), "used twice"),
        (
            table(&format!("username = \"u\"\npassword_file = \"/nonexistent\"\n{OUT}")),
            "/nonexistent",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        near.reconfigure(&site.text(&bad));
        logged(&near, "cannot reload", number + 1);
        assert!(near.log().contains(what), "{what}: {}", near.log());
    }
    publisher(&near).publish(Publish::new("t", "still here").qos(1, 1));
    assert_eq!(peer.publish().text(), "still here");
    assert_eq!(peer.within(Duration::from_millis(200)), None);
}

#[test]
fn a_change_while_the_far_broker_is_away_holds_from_then_on() {
    at_once(crate::SETUPS.iter().copied(), |setup| {
        let far = Site::new(setup).with_store();
        let there = far.start();
        let kept = || Connect::v5("witness").resume().expiry(600);
        drop(Witness::of(&there, kept(), "#"));
        drop(there); // SIGKILL
        let site = Site::new(setup);
        let near = site.start_with(&bridge("far", far.address, OUT));
        logged(&near, "\"bridge is not connected\"", 1);
        let out = "[[bridges.out]]\nfilter = \"u/#\"\nremote_prefix = \"x/\"\n";
        reload(&site, &near, &bridge("far", far.address, out));
        // Registered anew, then the next attempt.
        logged(
            &near,
            "\"bridge is not connected\"",
            near.log().matches("not connected").count() + 1,
        );
        let mut client = publisher(&near);
        client.publish(Publish::new("u/1", "queued").qos(1, 1));
        client.publish(Publish::new("t/1", "not bridged").qos(1, 2));
        let far = far.start();
        let mut there = Witness::of(&far, kept(), "#");
        connected(&near, 1);
        let first = there.next();
        assert_eq!((&*first.topic, first.text()), ("x/u/1", "queued"), "{setup}");
    });
}
