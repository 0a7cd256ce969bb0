//! Listeners open, change and close while the broker runs.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use ringmq::config::Role;
use ringmq::wire::Qos;
use serde_json::{Value, json};

use crate::folder::Folder;
use crate::mqtt::Mqtt;
use crate::reload::{change, reload, write};
use crate::support::{Broker, CONFIG, EXECUTORS, wait_for};

/// A port that nobody has.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it listens").port()
}

/// A listener at a port, with more keys.
fn listener(port: u16, more: &str) -> String {
    format!("[[listeners]]\nbind = \"127.0.0.1:{port}\"\n{more}\n")
}

fn listeners(broker: &Broker) -> Vec<Value> {
    let answer = broker.ask(Role::Read, "GET", "/api/v1/listeners", "").json();
    answer["listeners"].as_array().expect("a list").clone()
}

fn at(broker: &Broker, port: u16) -> Option<Value> {
    let address = format!("127.0.0.1:{port}");
    listeners(broker).into_iter().find(|of| of["address"] == address.as_str())
}

fn connect(port: u16, name: &str) -> (Mqtt, String) {
    Mqtt::connect_to(&format!("127.0.0.1:{port}"), name, None)
}

#[test]
fn a_reload_opens_and_closes_listeners_on_every_executor() {
    for flags in EXECUTORS {
        let broker = Broker::start("open", flags);
        let (first, second) = (free_port(), free_port());
        let keys = change(&broker, &listener(first, ""));
        assert!(keys.iter().any(|key| key == "listeners[0].bind"), "{flags}: {keys:?}");
        // As many as cores accept.
        let mut clients: Vec<Mqtt> = (0..8)
            .map(|number| {
                let (client, connack) = connect(first, &format!("a{number}"));
                assert!(connack.contains("Success"), "{flags}: {connack}");
                client
            })
            .collect();
        let found = at(&broker, first).expect("it is open");
        assert_eq!((&found["open"], &found["connections"]), (&json!(true), &json!(8)), "{flags}");
        assert_eq!(found["listener"], 1, "{flags}");
        // The first one is gone, and its clients stay.
        change(&broker, &listener(second, ""));
        assert!(TcpStream::connect(("127.0.0.1", first)).is_err(), "{flags}: it is closed");
        for client in &mut clients {
            client.publish("t", Qos::AtLeastOnce, 1, false);
            client.expect("Puback", "");
        }
        let found = at(&broker, first).expect("it has clients");
        assert_eq!((&found["open"], &found["connections"]), (&json!(false), &json!(8)), "{flags}");
        let (_other, connack) = connect(second, "b");
        assert!(connack.contains("Success"), "{flags}: {connack}");
        assert_eq!(at(&broker, second).expect("open")["listener"], 2, "{flags}");
        drop(clients);
        wait_for("the last client leaves", || at(&broker, first).is_none().then_some(()));
        // The address is free for others, and can be opened again under its number.
        drop(TcpListener::bind(("127.0.0.1", first)).expect("it is free"));
        change(&broker, &listener(first, ""));
        let (_again, connack) = connect(first, "c");
        assert!(connack.contains("Success"), "{flags}: {connack}");
        assert_eq!(at(&broker, first).expect("open")["listener"], 1, "{flags}");
        let (_early, connack) = Mqtt::connect(&broker, "d", None);
        assert!(connack.contains("Success"), "{flags}: the others are as they were");
        assert!(broker.stop(), "{flags}");
    }
}

#[test]
fn an_address_that_cannot_be_bound_refuses_the_whole_reload_and_nothing_changes() {
    for flags in ["--mode sync", "--mode poll --cores 2", "--cores 2"] {
        let broker = Broker::start("bound", flags);
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("it listens").port();
        let good = free_port();
        let more = format!("[mqtt]\nmaximum_qos = 0\n{}{}", listener(good, ""), listener(port, ""));
        write(&broker, &more);
        for query in ["?dry_run=true", ""] {
            let outcome = reload(&broker, query);
            assert_eq!(outcome["applied"], json!([]), "{flags}: {outcome}");
            let error = &outcome["errors"][0];
            assert_eq!(error["key"], "listeners[1]", "{flags}: {error}");
            assert_eq!(error["line"], CONFIG.lines().count() + 6, "{flags}: {error}");
            let what = error["what"].as_str().expect("text");
            assert!(what.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{what}");
        }
        assert!(TcpStream::connect(("127.0.0.1", good)).is_err(), "{flags}: it is not open");
        let (_client, connack) = Mqtt::connect(&broker, "a", None);
        assert!(connack.contains("maximum_qos: None"), "{flags}: {connack}");
        assert_eq!(listeners(&broker).len(), 1, "{flags}");
        // A dry run of a good one opens nothing either.
        write(&broker, &listener(good, ""));
        assert_eq!(reload(&broker, "?dry_run=true")["errors"], json!([]), "{flags}");
        assert!(TcpStream::connect(("127.0.0.1", good)).is_err(), "{flags}: it is not open");
        drop(taken);
        change(&broker, &more);
        for port in [good, port] {
            let (_client, connack) = connect(port, "b");
            assert!(connack.contains("maximum_qos: Some(0)"), "{flags}: {connack}");
        }
        assert!(broker.stop(), "{flags}");
    }
}

#[test]
fn changed_rules_hold_for_newcomers_and_connections_that_there_are_count() {
    for flags in ["--mode sync", "--mode poll --cores 2", "--cores 2"] {
        let broker = Broker::start("rules", flags);
        let port = free_port();
        change(&broker, &listener(port, ""));
        let (mut early, connack) = connect(port, "early");
        assert!(connack.contains("Success"), "{flags}: {connack}");
        change(&broker, &listener(port, "connections_max = 2"));
        let (_second, connack) = connect(port, "second");
        assert!(connack.contains("Success"), "{flags}: {connack}");
        let (_third, connack) = connect(port, "third");
        assert!(!connack.contains("Success"), "{flags}: {connack}");
        change(&broker, &listener(port, "connections_max = 2\nanonymous = false"));
        early.send(&[0xE0, 0]);
        wait_for("the client leaves", || {
            (at(&broker, port).expect("open")["connections"] == 1).then_some(())
        });
        let (_fourth, connack) = connect(port, "fourth");
        assert!(connack.contains("NotAuthorized"), "{flags}: {connack}");
        change(&broker, &listener(port, "connections_max = 2"));
        let (_fifth, connack) = connect(port, "fifth");
        assert!(connack.contains("Success"), "{flags}: {connack}");
        assert!(broker.stop(), "{flags}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn another_interface_for_an_address_that_is_open_refuses_the_reload() {
    let broker = Broker::start("interface", "");
    let port = free_port();
    change(&broker, &listener(port, "interface = \"lo\""));
    write(&broker, &listener(port, ""));
    let report = reload(&broker, "");
    let what = report["errors"][0]["what"].as_str().unwrap_or_default();
    assert!(what.contains("interface: ") && what.contains("restart the broker"), "{report}");
    let (_client, connack) = connect(port, "a");
    assert!(connack.contains("Success"), "{connack}");
    assert!(broker.stop());
}

#[test]
fn a_reload_with_close_disconnects_the_clients_of_removed_listeners_and_no_others() {
    for flags in ["--mode sync", "--mode poll --cores 2", "--cores 2"] {
        let broker = Broker::start("close", flags);
        let port = free_port();
        change(&broker, &listener(port, ""));
        let mut gone: Vec<Mqtt> =
            (0..4).map(|number| connect(port, &format!("gone{number}")).0).collect();
        let (mut stays, _) = Mqtt::connect(&broker, "stays", None);
        write(&broker, "");
        let outcome = reload(&broker, "?close=true");
        assert_eq!(outcome["errors"], json!([]), "{flags}: {outcome}");
        assert_eq!(outcome["clients_disconnected"], 4, "{flags}: {outcome}");
        for client in &mut gone {
            client.expect("Disconnect", "AdministrativeAction");
        }
        stays.publish("t", Qos::AtLeastOnce, 1, false);
        stays.expect("Puback", "");
        broker.wait_for_log("the cause", |line| line["cause"] == "listener-closed");
        assert!(broker.stop(), "{flags}");
    }
}

#[test]
fn a_unix_socket_opens_changes_its_permissions_and_is_removed() {
    for flags in ["--mode sync", "--mode poll --cores 2", "--cores 2"] {
        let broker = Broker::start("unix", flags);
        let path = broker.folder.0.join("mqtt.sock");
        let socket = |mode: &str| {
            format!(
                "[[listeners]]\nbind = \"unix:{}\"\ntransport = \"unix\"\n[listeners.unix]\nmode = \"{mode}\"\n",
                path.display()
            )
        };
        let mode = || std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        write(&broker, &socket("0600"));
        assert_eq!(reload(&broker, "?dry_run=true")["errors"], json!([]), "{flags}");
        assert!(!path.exists(), "{flags}: a dry run leaves nothing");
        change(&broker, &socket("0600"));
        assert_eq!(mode(), 0o600, "{flags}");
        UnixStream::connect(&path).expect("it listens");
        change(&broker, &socket("0660"));
        assert_eq!(mode(), 0o660, "{flags}");
        UnixStream::connect(&path).expect("it still listens");
        change(&broker, "");
        assert!(!path.exists(), "{flags}: it is removed");
        change(&broker, &socket("0600"));
        UnixStream::connect(&path).expect("it listens again");
        assert!(broker.stop(), "{flags}");
        assert!(!path.exists(), "{flags}: it is removed at the end");
    }
}

#[test]
fn listeners_that_come_and_go_again_and_again_leave_nothing_behind() {
    for flags in EXECUTORS {
        let broker = Broker::with(Folder::new("churn"), CONFIG, flags);
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let descriptors = || {
            let folder = format!("/proc/{}/fd", broker.pid());
            std::fs::read_dir(folder).map_or(0, |entries| entries.count())
        };
        change(&broker, &listener(ports[0], ""));
        change(&broker, "");
        let before = descriptors();
        for round in 0..30 {
            let port = ports[round % ports.len()];
            change(&broker, &listener(port, ""));
            let (_client, connack) = connect(port, "a");
            assert!(connack.contains("Success"), "{flags}: {connack}");
        }
        change(&broker, "");
        wait_for("descriptors", || (descriptors() <= before + 2).then_some(()));
        assert!(broker.stop(), "{flags}");
    }
}
