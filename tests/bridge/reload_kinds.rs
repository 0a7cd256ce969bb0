//! Reloads: each kind of key, traffic meanwhile, and what the admin interface says of them.

#[cfg(feature = "admin")]
use std::process::Command;
#[cfg(feature = "admin")]
use std::time::Duration;

#[cfg(feature = "admin")]
use serde_json::{Value, json};

use crate::far::{Far, Packet, Peer};
use crate::folder::Folder;
use crate::support::{Ack, Client, Connect, Publish};
use crate::{ONE_SETUP, SETUPS, Site, Witness, at_once, bridge, connected, logged, numbers};

const IN: &str = "[[bridges.in]]\nfilter = \"a/#\"\nqos = 1\n";
const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";

/// A bridge that has connected and subscribed.
fn first_connection(far: &Far) -> Peer {
    far.discard();
    let mut peer = far.serve(false, &[]);
    peer.grant(&[1]);
    peer
}

#[test]
fn keys_of_the_connection_make_another_one_and_the_sessions_stay() {
    let folder = Folder::new("reload-password");
    let password = folder.write("password", "secret\n");
    let cases = [
        "keep_alive_s = 33".to_owned(),
        "session_expiry_s = 5".to_owned(),
        "username = \"u\"".to_owned(),
        format!("username = \"u\"\npassword_file = {password:?}"),
        "client_identifier = \"other\"".to_owned(),
        "version = \"3.1.1\"".to_owned(),
        "clean_start = true".to_owned(),
        "user = \"somebody\"".to_owned(),
    ];
    at_once(cases.iter(), |keys| {
        let far = Far::new();
        let site = Site::new(ONE_SETUP);
        let table = |keys: &str| bridge("far", far.address, &format!("{keys}\n{IN}{OUT}"));
        let near = site.start_with(&table(""));
        let mut peer = first_connection(&far);
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        client.publish(Publish::new("t", "under way").qos(1, 1));
        assert_eq!(peer.publish().text(), "under way");
        near.reconfigure(&site.text(&table(keys)));
        assert_eq!(peer.next(), Some(Packet::Disconnect), "{keys}");
        drop(peer);
        let (mut peer, connect) = far.accept();
        let expected = (
            if keys.contains("keep_alive") { 33 } else { 60 },
            if keys.contains("3.1.1") { 0x84 } else { 5 },
            keys.contains("clean_start"),
        );
        assert_eq!((connect.keep_alive_s, connect.level, connect.clean_start), expected, "{keys}");
        assert_eq!(connect.client_identifier == "other", keys.contains("other"), "{keys}");
        peer.connack(true, &[]);
        peer.grant(&[1]);
        let got = peer.publish();
        assert_eq!(got.text(), "under way", "{keys}");
        peer.send(Ack::puback(got.id()));
        client.publish(Publish::new("t", "next").qos(1, 2));
        assert_eq!(peer.publish().text(), "next", "{keys}");
    });
}

#[test]
fn another_server_gets_the_queue() {
    at_once(SETUPS.iter().copied(), |setup| {
        let (one, two) = (Far::new(), Far::new());
        let site = Site::new(setup);
        let table = |far: &Far| bridge("far", far.address, &format!("{IN}{OUT}"));
        let near = site.start_with(&table(&one));
        let mut peer = first_connection(&one);
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        client.publish(Publish::new("t", "under way").qos(1, 1));
        assert_eq!(peer.publish().text(), "under way", "{setup}");
        near.reconfigure(&site.text(&table(&two)));
        assert_eq!(peer.next(), Some(Packet::Disconnect), "{setup}");
        let mut peer = two.serve(false, &[]);
        peer.grant(&[1]);
        assert_eq!(peer.publish().text(), "under way", "{setup}");
    });
}

#[test]
fn keys_of_single_messages_hold_from_then_on_on_the_same_connection() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let site = Site::new(setup);
        let table = |more: &str| bridge("far", far.address, more);
        let near = site.start_with(&table(&format!("{IN}{OUT}")));
        let mut peer = first_connection(&far);
        let mut here = Witness::at(&near, "#");
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        let changed = format!(
            "retained = \"clear\"\nhops_max = 3\n{IN}local_prefix = \"here/\"\n\
             {OUT}qos_max = 1\nremote_prefix = \"there/\"\n"
        );
        near.reconfigure(&site.text(&table(&changed)));
        logged(&near, "\"bridge changes\"", 1);
        // The connection takes the change some time after the reload.
        let until = std::time::Instant::now() + crate::PATIENCE;
        loop {
            client.publish(Publish::new("t", "x").qos(2, 1).retain());
            here.next();
            let got = loop {
                match peer.next() {
                    Some(Packet::Publish(got)) => break got,
                    Some(Packet::Ack(_)) => {}
                    other => panic!("{setup}: {other:?}"),
                }
            };
            match got.qos {
                1 => peer.send(Ack::puback(got.id())),
                _ => {
                    peer.send(Ack::pubrec(got.id()));
                    peer.expect(Ack::pubrel(got.id()));
                    peer.send(Ack::pubcomp(got.id()));
                }
            }
            if got.topic == "there/t" {
                assert_eq!((got.qos, got.retain), (1, false), "{setup}");
                break;
            }
            assert!(std::time::Instant::now() < until, "{setup}: {got:?}");
        }
        peer.send(Publish::new("a/1", "in").qos(1, 9));
        peer.expect(Ack::puback(9));
        assert_eq!(here.next().topic, "here/a/1", "{setup}");
    });
}

#[test]
fn nothing_is_lost_while_bridges_are_reloaded() {
    const COUNT: u16 = 400;
    const EACH: u16 = 20;
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Site::new(setup);
        let site = Site::new(setup);
        let more_in = "[[bridges.in]]\nfilter = \"more\"\n";
        let kinds = [
            format!("{IN}{OUT}"),
            format!("{IN}{OUT}{more_in}"),
            format!("keep_alive_s = 30\n{IN}{OUT}"),
            format!("keep_alive_s = 30\n{IN}{OUT}[[bridges.out]]\nfilter = \"u\"\n"),
            format!("{IN}[[bridges.out]]\nfilter = \"t/+\"\n"),
        ];
        let table = |kind: &str| bridge("far", far.address, kind);
        let there = far.start();
        let near = site.start_with(&table(&kinds[0]));
        connected(&near, 1);
        let mut witness = Witness::at(&there, "t/#");
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        for number in 0..COUNT {
            if number % EACH == 0 {
                let round = usize::from(number / EACH) + 1;
                near.reconfigure(&site.text(&table(&kinds[round % kinds.len()])));
                logged(&near, "\"bridge changes\"", round);
            }
            client.publish(Publish::new("t/1", number.to_string()).qos(1, number + 1));
        }
        client.publish(Publish::new("t/1", "end").qos(1, 1));
        let mut came = witness.texts_before("end");
        let mut seen = std::collections::HashSet::new();
        came.retain(|text| seen.insert(text.clone()));
        assert_eq!(came, numbers(0..COUNT), "{setup}");
    });
}

/// A broker with an admin interface on a socket of a file.
#[cfg(feature = "admin")]
fn administered(folder: &Folder) -> Site {
    let socket = folder.0.join("admin.sock");
    Site::new(ONE_SETUP).with(&format!("[admin]\nlisten = [\"unix:{}\"]", socket.display()))
}

/// The answer to `broker ctl`.
#[cfg(feature = "admin")]
#[track_caller]
fn ctl(folder: &Folder, arguments: &[&str]) -> Value {
    let at = format!("unix:{}", folder.0.join("admin.sock").display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    let output = command.args(["ctl", "--json", "--at", &at]).args(arguments).output();
    let output = output.expect("it runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[cfg(feature = "admin")]
#[test]
fn the_report_of_a_reload_names_what_each_bridge_does_and_a_dry_run_does_nothing() {
    let folder = Folder::new("reload-report");
    let site = administered(&folder);
    let (one, two, three) = (Far::new(), Far::new(), Far::new());
    let table = |name: &str, far: &Far, more: &str| bridge(name, far.address, more);
    let base = format!("{IN}{OUT}");
    let tables = ["same", "filters", "prefix", "gone", "line"].map(|name| table(name, &one, &base));
    let near = site.start_with(&tables.concat());
    let changed = [
        table("same", &one, &base),
        table("filters", &one, "[[bridges.in]]\nfilter = \"b\"\n[[bridges.out]]\nfilter = \"u\"\n"),
        table("prefix", &one, &format!("{base}remote_prefix = \"x/\"\n")),
        table("line", &two, &base),
        table("new", &three, &base),
    ];
    near.rewrite(&site.text(&changed.concat()));
    let outcome = ctl(&folder, &["reload", "--dry-run"]);
    let none = || json!([]);
    let plain = |name: &str, effect: &str| {
        json!({
            "name": name, "effect": effect, "subscribes_there": none(), "unsubscribes_there": none(),
            "subscribes_here": none(), "unsubscribes_here": none(),
        })
    };
    let filters = json!({
        "name": "filters", "effect": "resubscribes",
        "subscribes_there": ["b"], "unsubscribes_there": ["a/#"],
        "subscribes_here": ["u"], "unsubscribes_here": ["t/#"],
    });
    let expected = json!([
        plain("same", "unchanged"),
        filters,
        plain("prefix", "adapts"),
        plain("line", "reconnects"),
        plain("new", "started"),
        plain("gone", "ended"),
    ]);
    assert_eq!(outcome["bridges"], expected, "{outcome:#}");
    assert_eq!(outcome["needs_restart"], none());
    let names = |list: Value| -> Vec<Value> {
        list["bridges"].as_array().expect("a list").iter().map(|of| of["name"].clone()).collect()
    };
    let before = ["same", "filters", "prefix", "gone", "line"];
    assert_eq!(names(ctl(&folder, &["bridges"])), before, "a dry run changes nothing");
    assert_eq!(ctl(&folder, &["reload"])["bridges"], expected);
    assert_eq!(names(ctl(&folder, &["bridges"])), ["same", "filters", "prefix", "line", "new"]);
}

#[cfg(feature = "admin")]
#[test]
fn the_queue_of_a_bridge_that_is_gone_is_dropped_when_the_reload_says_so() {
    let folder = Folder::new("reload-drop");
    let site = administered(&folder);
    let far = Far::new();
    let table = bridge("far", far.address, &format!("{IN}{OUT}"));
    let near = site.start_with(&table);
    let mut peer = first_connection(&far);
    let mut client = Client::connect(&near, Connect::v5("publisher"));
    client.publish(Publish::new("t", "dropped").qos(1, 1));
    assert_eq!(peer.publish().text(), "dropped");
    near.rewrite(&site.text(""));
    let outcome = ctl(&folder, &["reload", "--drop-queues"]);
    assert_eq!(outcome["bridges"][0]["effect"], "ended", "{outcome:#}");
    assert_eq!(peer.unsubscribed(), ["a/#"]);
    assert_eq!(peer.next(), Some(Packet::EndSession));
    drop(peer);
    logged(&near, "\"bridge ended, and its queue was dropped\"", 1);
    client.publish(Publish::new("t", "not queued").qos(1, 2));
    near.reconfigure(&site.text(&table));
    let mut peer = first_connection(&far);
    client.publish(Publish::new("t", "next").qos(1, 3));
    assert_eq!(peer.publish().text(), "next");
    assert_eq!(peer.within(Duration::from_millis(200)), None);
}
