//! The configuration changes while clients are connected.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use ringmq::config::Role;
use ringmq::wire::{Qos, Version};
use serde_json::{Value, json};

use crate::folder::Folder;
use crate::mqtt::Mqtt;
use crate::packets;
use crate::support::{Answer, Broker, CONFIG, EXECUTORS};

/// Writes the configuration, with more sections.
pub fn write(broker: &Broker, more: &str) {
    let folder = broker.folder.0.display().to_string();
    broker.folder.write("broker.toml", &(CONFIG.to_owned() + more).replace("{FOLDER}", &folder));
}

pub fn reload(broker: &Broker, query: &str) -> Value {
    let Answer { status, body, .. } =
        broker.ask(Role::Operate, "POST", &format!("/api/v1/reload{query}"), "");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("JSON")
}

/// Changes the configuration; everything in it has to change live.
#[track_caller]
pub fn change(broker: &Broker, more: &str) -> Vec<String> {
    write(broker, more);
    let outcome = reload(broker, "");
    let (errors, later) = (&outcome["errors"], &outcome["needs_restart"]);
    assert!(*errors == json!([]) && *later == json!([]), "{outcome:#}");
    let applied = outcome["applied"].as_array().expect("a list").iter();
    applied.map(|of| of["key"].as_str().expect("a key").to_owned()).collect()
}

fn setting(broker: &Broker, key: &str) -> Value {
    let config = broker.ask(Role::Read, "GET", "/api/v1/config", "").json();
    let settings = config["settings"].as_array().expect("a list").clone();
    settings.into_iter().find(|of| of["key"] == key).unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn a_reload_says_what_changes_what_needs_a_restart_and_where_an_error_is() {
    let broker = Broker::start("answer", "--mode poll");
    let config = broker.folder.path("broker.toml");
    assert_eq!(setting(&broker, "limits.sessions_max")["origin"], json!({"kind": "default"}));
    assert_eq!(setting(&broker, "mode")["origin"], json!({"kind": "flag", "flag": "--mode"}));
    let more = "[limits]\nsessions_max = 5\n[uring]\nentries = 7\n\
                [access.http]\nurl = \"http://u:hunter2@127.0.0.1:9/\"\n";
    write(&broker, more);
    for query in ["?dry_run=true", ""] {
        let outcome = reload(&broker, query);
        let expected = json!({
            "applied": [
                {"key": "access.http.url", "running": "", "wanted": "http://***@127.0.0.1:9/"},
                {"key": "limits.sessions_max", "running": 2_000_000, "wanted": 5},
            ],
            "needs_restart": [{"key": "uring.entries", "running": 1_024, "wanted": 7}],
            "bridges": [],
            "errors": [],
            "clients_disconnected": 0,
        });
        assert_eq!(outcome, expected, "{query}");
    }
    let line = CONFIG.lines().count() + 2;
    let limit = setting(&broker, "limits.sessions_max");
    assert_eq!(limit["value"], 5);
    assert_eq!(limit["origin"], json!({"kind": "file", "file": config, "line": line}));
    assert_eq!(limit["live"], true);
    assert_eq!(setting(&broker, "uring.entries")["value"], 1_024, "until a restart");
    assert_eq!(setting(&broker, "access.http.url")["value"], "http://***@127.0.0.1:9/");
    let told = |message: &str, key: &str| {
        broker.wait_for_log(key, |line| line["message"] == message && line["key"] == key)
    };
    let told_change = told("setting changed", "limits.sessions_max");
    assert_eq!(told_change["wanted"], "5");
    told("this setting changes with the next start", "uring.entries");

    // One error keeps everything as it is: a wrong key, and a file that cannot be read.
    write(&broker, "[limits]\nsessions_max = 6\nsession_max = 7\n");
    let outcome = reload(&broker, "");
    assert_eq!(outcome["applied"], json!([]));
    let error = &outcome["errors"][0];
    assert_eq!((&error["file"], &error["line"]), (&json!(config), &json!(line + 1)));
    assert_eq!(error["key"], "limits.session_max");
    assert!(error["what"].as_str().expect("text").contains("unknown field"), "{error}");
    write(&broker, "[limits]\nsessions_max = 6\n[access]\nacl_file = \"/nonexistent\"\n");
    let outcome = reload(&broker, "");
    assert_eq!(outcome["applied"], json!([]));
    assert!(outcome["errors"][0]["what"].as_str().expect("text").contains("/nonexistent"));
    assert_eq!(setting(&broker, "limits.sessions_max")["value"], 5);
    assert!(broker.stop());
}

#[test]
fn a_signal_does_the_same_as_a_request() {
    let broker = Broker::start("signal", "--mode poll --cores 2");
    write(&broker, "[mqtt]\nmaximum_qos = 0\n");
    broker.signal("-HUP");
    broker.wait_for_log("the change", |line| line["key"] == "mqtt.maximum_qos");
    let (_, connack) = Mqtt::connect(&broker, "a", None);
    assert!(connack.contains("maximum_qos: Some(0)"), "{connack}");
    assert!(broker.stop());
}

#[test]
fn changed_limits_hold_for_the_next_decision_and_what_connack_announced_for_who_is_in() {
    for flags in EXECUTORS {
        let broker = Broker::start("limits", flags);
        let (mut early, connack) = Mqtt::connect(&broker, "early", None);
        assert!(connack.contains("maximum_qos: None"), "{flags}: {connack}");
        let keys = change(
            &broker,
            "[limits]\ntopic_bytes_max = 8\npacket_bytes_max = 200\n[mqtt]\nmaximum_qos = 0\n\
             retain_available = false\n",
        );
        assert_eq!(keys.len(), 4, "{flags}: {keys:?}");
        let (mut late, connack) = Mqtt::connect(&broker, "late", None);
        assert!(connack.contains("maximum_qos: Some(0)"), "{flags}: {connack}");
        assert!(connack.contains("maximum_packet_size: Some(200)"), "{flags}: {connack}");
        early.publish("t", Qos::AtLeastOnce, 1, true);
        early.expect("Puback", "");
        late.publish("t", Qos::AtLeastOnce, 1, false);
        late.expect("Disconnect", "QosNotSupported");
        let large = packets::publish_bytes("t", Qos::AtLeastOnce, 2, Version::V5, &[b'x'; 1_000]);
        early.send(&large);
        early.expect("Puback", "");
        // CONNACK says nothing of this one.
        early.publish("too/long/a/topic", Qos::AtLeastOnce, 3, false);
        early.expect("Disconnect", "");
        let (_, connack) = Mqtt::connect(&broker, "x".repeat(150).as_str(), None);
        assert!(connack.contains("Connack"), "{flags}: {connack}");
        assert!(broker.stop(), "{flags}");
    }
}

#[test]
fn lowered_limits_throw_nobody_out() {
    for flags in EXECUTORS {
        let broker = Broker::start("lowered", flags);
        let mut clients: Vec<Mqtt> =
            ["a", "b"].map(|name| Mqtt::connect(&broker, name, None).0).into();
        change(
            &broker,
            "[limits]\nconnections_max = 1\nsessions_max = 1\n[protection]\nexempt = []\n\
             connections_per_address_max = 1\nconnections_per_user_max = 1\n",
        );
        let (_, connack) = Mqtt::connect(&broker, "c", None);
        assert!(!connack.contains("Success"), "{flags}: {connack}");
        for client in &mut clients {
            client.publish("t", Qos::AtLeastOnce, 1, false);
            client.expect("Puback", "");
        }
        change(&broker, "[limits]\nconnections_max = 0\n");
        let (_, connack) = Mqtt::connect(&broker, "c", None);
        assert!(connack.contains("Success"), "{flags}: {connack}");
        assert!(broker.stop(), "{flags}");
    }
}

#[test]
fn access_control_can_begin_change_and_end_while_the_broker_runs() {
    for flags in EXECUTORS {
        let broker = Broker::start("access", flags);
        let (mut early, _) = Mqtt::connect(&broker, "early", None);
        early.publish("no", Qos::AtLeastOnce, 1, false);
        early.expect("Puback", "reason: NoMatchingSubscribers");
        add_user(&broker.folder, "alice");
        broker.folder.write(
            "acl",
            "for user alice\n allow publish alice\nfor everyone\n allow publish yes\n",
        );
        let files = format!(
            "password_file = {:?}\nacl_file = {:?}\n",
            broker.folder.path("passwords"),
            broker.folder.path("acl")
        );
        change(&broker, &format!("[access]\nanonymous = true\n{files}"));
        // Rules hold for clients that were connected when there were none.
        early.publish("no", Qos::AtLeastOnce, 2, false);
        early.expect("Puback", "reason: NotAuthorized");
        early.publish("yes", Qos::AtLeastOnce, 3, false);
        early.expect("Puback", "reason: NoMatchingSubscribers");
        let (mut alice, connack) = Mqtt::connect(&broker, "a", Some("alice"));
        assert!(connack.contains("Success"), "{flags}: {connack}");
        alice.publish("alice", Qos::AtLeastOnce, 1, false);
        alice.expect("Puback", "reason: NoMatchingSubscribers");
        let (_, connack) = Mqtt::connect(&broker, "m", Some("mallory"));
        assert!(!connack.contains("Success"), "{flags}: {connack}");
        // Nobody new without a name.
        change(&broker, &format!("[access]\nanonymous = false\n{files}"));
        let (_, connack) = Mqtt::connect(&broker, "n", None);
        assert!(!connack.contains("Success"), "{flags}: {connack}");
        early.publish("yes", Qos::AtLeastOnce, 4, false);
        early.expect("Puback", "");
        // Without a password file there is no alice.
        change(&broker, "[access]\nanonymous = true\n");
        alice.expect("Disconnect", "NotAuthorized");
        early.publish("no", Qos::AtLeastOnce, 5, false);
        early.expect("Puback", "reason: NoMatchingSubscribers");
        assert!(broker.stop(), "{flags}");
    }
}

/// Adds a user whose password is the name.
fn add_user(folder: &Folder, name: &str) {
    let cheap = folder
        .write("cheap.toml", "[access.hashing]\nmemory_kib = 8\niterations = 1\nscram = false\n");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(["passwd", "--file", &folder.path("passwords"), "--config", &cheap, "add", name]);
    let piped = std::process::Stdio::piped;
    let mut child =
        command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().expect("it runs");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(format!("{name}\n").as_bytes()).expect("it reads");
    drop(input);
    let out = child.wait_with_output().expect("it ends");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn tokens_of_the_admin_interface_change_with_a_reload() {
    let broker = Broker::start("tokens", "--mode poll");
    let folder = broker.folder.0.display().to_string();
    let other = CONFIG.replace("{FOLDER}/tokens", "{FOLDER}/none").replace("{FOLDER}", &folder);
    broker.folder.write("none", "");
    broker.folder.write("broker.toml", &other);
    let outcome = broker.unix().ask("POST", "/api/v1/reload", &[], "").json();
    assert_eq!(outcome["applied"][0]["key"], "admin.access.tokens_file", "{outcome:#}");
    assert_eq!(broker.ask(Role::Admin, "GET", "/api/v1/config", "").status, 401);
    assert!(broker.stop());
}

#[test]
fn the_log_level_changes_with_a_reload() {
    let broker = Broker::start("level", "--mode poll");
    change(&broker, "[log]\nlevel = \"error\"\n");
    change(&broker, "[log]\nlevel = \"error\"\n[mqtt]\nmaximum_qos = 1\n");
    change(&broker, "[mqtt]\nmaximum_qos = 1\nretain_available = false\n");
    broker.wait_for_log("a line", |line| line.to_string().contains("mqtt.retain_available"));
    let log = broker.log.lock().expect("no panic").clone();
    assert!(!log.iter().any(|line| line.to_string().contains("mqtt.maximum_qos")), "{log:#?}");
    assert!(broker.stop());
}

#[test]
fn reloads_under_load_lose_nothing() {
    const RELOADS: u32 = 20;
    const WINDOW: u32 = 100;
    for flags in EXECUTORS {
        let broker = Broker::start("load", flags);
        let (mut subscriber, _) = Mqtt::connect(&broker, "subscriber", None);
        for filter in ["t", "end"] {
            subscriber.send(&packets::subscribe(filter, Qos::AtLeastOnce, Version::V5));
            subscriber.expect("Suback", "");
        }
        let (mut publisher, _) = Mqtt::connect(&broker, "publisher", None);
        let receiving = std::thread::spawn(move || {
            let mut received = 0;
            loop {
                let packet = subscriber.next().expect("a message");
                assert!(packet.starts_with("Publish"), "{packet}");
                let mut ack = vec![0x40, 2];
                let identifier = packet.split("packet_identifier: Some(PacketIdentifier(").nth(1);
                let identifier = identifier.and_then(|rest| rest.split(')').next());
                let identifier: u16 = identifier.expect("QoS 1").parse().expect("a number");
                ack.extend_from_slice(&identifier.to_be_bytes());
                subscriber.send(&ack);
                if packet.contains("topic: \"end\"") {
                    return received;
                }
                received += 1;
            }
        });
        let has_reloaded = Arc::new(AtomicBool::new(false));
        let may_end = Arc::clone(&has_reloaded);
        let sending = std::thread::spawn(move || {
            let (mut sent, mut acknowledged) = (0, 0);
            loop {
                let ends = may_end.load(Relaxed);
                while !ends && sent - acknowledged < WINDOW {
                    publisher.publish("t", Qos::AtLeastOnce, 1 + (sent % 60_000) as u16, false);
                    sent += 1;
                }
                if acknowledged == sent {
                    publisher.publish("end", Qos::AtLeastOnce, 60_001, false);
                    publisher.expect("Puback", "");
                    return sent;
                }
                let packet = publisher.next().expect("an acknowledgement");
                assert!(packet.starts_with("Puback") && packet.contains("Success"), "{packet}");
                acknowledged += 1;
            }
        });
        for reloads in 1..=RELOADS {
            assert!(!receiving.is_finished() && !sending.is_finished(), "{flags}: {reloads}");
            let more = format!(
                "[limits]\ninflight_max = {}\nreceive_maximum = {}\nqueue_messages_max = {}\n\
                 [protection]\nmessages_per_second_max = {}\n[mqtt]\nsys_interval_s = {}\n",
                10 + reloads % 100,
                100 + reloads % 7,
                50_000 + reloads,
                if reloads % 2 == 0 { 0 } else { 50_000 },
                reloads % 3,
            );
            change(&broker, &more);
        }
        has_reloaded.store(true, Relaxed);
        let sent = sending.join().expect("all are acknowledged");
        assert_eq!(receiving.join().expect("all are received"), sent, "{flags}");
        assert!(sent > RELOADS, "{flags}: {sent}");
        assert!(broker.stop(), "{flags}");
    }
}
