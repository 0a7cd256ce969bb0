//! The data that survives a stop, a crash or a full disk, as seen from outside.
#![cfg(feature = "store")]

#[allow(dead_code, unused_imports, unused_macros)] // shared with tests that use the rest
#[path = "conformance/support/mod.rs"]
mod support;

#[path = "support/folder.rs"]
mod folder;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use folder::Folder;
use support::{
    Ack, Broker, Client, Connect, Property, Publish, SILENCE, Subscribe, Will, for_versions,
};

impl Folder {
    fn broker(&self, more: &str) -> Broker {
        let (head, storage) = more.split_once('|').unwrap_or((more, ""));
        Broker::with_config(&format!("{head}\n[storage]\ndata = {:?}\n{storage}\n", self.0))
    }

    fn bytes(&self) -> u64 {
        let files = std::fs::read_dir(&self.0).expect("readable");
        files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |of| of.len())).sum()
    }
}

fn store(arguments: &[&str], data: &Path, input: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(["store", "--data"]).arg(data).args(arguments).stdin(input);
    command.output().expect("the command runs")
}

fn publish(broker: &Broker, topic: &str, payload: &str) {
    let mut publisher = Client::connect(broker, Connect::v5("publisher"));
    publisher.publish(Publish::new(topic, payload).qos(1, 1));
}

fn kept(name: &str) -> Connect {
    Connect::v5(name).resume().expiry(3_600)
}

#[test]
fn sessions_retained_messages_and_exchanges_survive_a_restart_with_other_cores() {
    for_versions(|version| {
        let folder = Folder::new(&format!("outlive-{version:?}"));
        let broker = folder.broker("cores = 1");
        let who = |name: &str| Connect::new(version, name).resume().durable();
        let mut client = Client::connect(&broker, who("c"));
        client.subscribe("t/+", 2);
        client.send(Publish::new("t/own", "half").qos(2, 7));
        assert_eq!(client.expect_ack(), Ack::pubrec(7));
        let own = client.expect_publish();
        client.vanish();
        publish(&broker, "t/1", "first");
        publish(&broker, "t/2", "second");
        let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
        publisher.publish(Publish::new("kept", "retained").qos(1, 1).retain());
        publisher.publish(Publish::new("gone", "retained").qos(1, 2).retain());
        publisher.publish(Publish::new("gone", "").qos(1, 3).retain());
        drop((publisher, broker)); // SIGKILL
        let broker = folder.broker("cores = 3");
        let mut client = Client::connect(&broker, who("c"));
        assert!(client.connack.session_present);
        let again = client.expect_publish();
        assert_eq!((again.text(), again.id(), again.dup), ("half", own.id(), true));
        client.acknowledge(&again);
        client.expect_message("first");
        client.expect_message("second");
        // An exchange between PUBREC and PUBREL: a duplicate is acknowledged, and not forwarded.
        client.send(Publish::new("t/own", "half").qos(2, 7).dup());
        assert_eq!(client.expect_ack(), Ack::pubrec(7));
        client.expect_silence(SILENCE);
        publish(&broker, "t/3", "third");
        client.expect_message("third");
        let mut newcomer = Client::connect(&broker, Connect::v5("newcomer"));
        newcomer.subscribe("#", 0);
        newcomer.expect_message("retained");
        newcomer.expect_silence(SILENCE);
    });
}

#[test]
fn acknowledged_messages_and_ended_sessions_do_not_reappear() {
    let folder = Folder::new("ended");
    let broker = folder.broker("");
    let mut client = Client::connect(&broker, kept("c"));
    client.send(Subscribe::new(1, "a", 1).and("b", 1));
    client.expect_suback();
    publish(&broker, "a", "1");
    let got = client.expect_message("1");
    client.acknowledge(&got);
    client.send(support::Unsubscribe::new(2, "b"));
    assert!(matches!(client.receive(), support::Packet::Unsuback(_)));
    let over = Client::connect(&broker, kept("over"));
    over.disconnect_with(support::Disconnect::new().property(Property::SessionExpiryInterval(0)));
    client.vanish();
    publish(&broker, "a", "2");
    drop(broker);
    let broker = folder.broker("");
    assert!(!Client::connect(&broker, kept("over")).connack.session_present);
    let mut client = Client::connect(&broker, kept("c"));
    client.expect_message("2");
    publish(&broker, "b", "3");
    client.expect_silence(SILENCE);
}

#[test]
fn expiry_continues_while_the_broker_is_down() {
    let folder = Folder::new("time");
    let broker = folder.broker("");
    Client::connect(&broker, Connect::v5("short").resume().expiry(2)).vanish();
    let mut long = Client::connect(&broker, kept("long"));
    long.subscribe("t", 1);
    long.subscribe("will", 1);
    long.vanish();
    let will = Will::new("will", "connection lost").qos(1).delay(2);
    Client::connect(&broker, kept("willing").will(will)).vanish();
    let mut publisher = Client::connect(&broker, Connect::v5("p"));
    let soon = Publish::new("t", "soon over").property(Property::MessageExpiryInterval(2));
    publisher.publish(soon.qos(1, 1));
    let later = Publish::new("t", "later").property(Property::MessageExpiryInterval(60));
    publisher.publish(later.qos(1, 2));
    sleep(SILENCE);
    drop((publisher, broker));
    sleep(Duration::from_millis(2_200));
    let broker = folder.broker("");
    sleep(SILENCE);
    assert!(!Client::connect(&broker, kept("short")).connack.session_present);
    let mut long = Client::connect(&broker, kept("long"));
    let later = long.expect_message("later");
    let left = later.properties.iter().find_map(|property| match property {
        Property::MessageExpiryInterval(left) => Some(*left),
        _ => None,
    });
    assert!(left.is_some_and(|left| left < 59), "{left:?} seconds are left");
    long.expect_message("connection lost");
}

#[test]
fn a_clean_stop_loses_no_state_and_publishes_no_will() {
    for executor in ["auto", "poll", "monoio", "glommio"] {
        let is_there = (executor != "monoio" || cfg!(feature = "monoio"))
            && (executor != "glommio" || cfg!(feature = "glommio"));
        if is_there {
            check_clean_stop(executor);
        }
    }
}

fn check_clean_stop(executor: &str) {
    let folder = Folder::new("stop");
    let mut broker = folder.broker(&format!("cores = 2\nexecutor = {executor:?}"));
    let mut watcher = Client::connect(&broker, kept("watcher"));
    watcher.subscribe("#", 1);
    let _willing = Client::connect(&broker, kept("willing").will(Will::new("w", "dead").qos(1)));
    publish(&broker, "t", "1");
    watcher.expect_publish(); // never acknowledged
    broker.stop();
    watcher.expect_disconnect(0x8B);
    broker.await_end();
    let broker = folder.broker("");
    let mut watcher = Client::connect(&broker, kept("watcher"));
    watcher.expect_message("1");
    watcher.expect_silence(SILENCE);
}

#[test]
fn after_a_crash_only_wills_of_clients_that_do_not_return_are_published() {
    let folder = Folder::new("wills");
    let broker = folder.broker("cores = 2");
    let mut watcher = Client::connect(&broker, kept("watcher"));
    watcher.subscribe("gone/#", 1);
    let names = ["clean", "durable", "returning", "polite"];
    let who = |name: &str| match name {
        "durable" => kept(name),
        _ => Connect::v5(name),
    };
    let mut clients = names.map(|name| {
        let will = Will::new(&format!("gone/{name}"), name).qos(1).retain();
        Client::connect(&broker, who(name).will(will))
    });
    clients[3].send(support::Disconnect::new());
    sleep(SILENCE);
    drop(broker); // SIGKILL
    let broker = folder.broker("cores = 1|will_grace_s = 2");
    let returning = Client::connect(&broker, who("returning"));
    let mut watcher = Client::connect(&broker, kept("watcher"));
    watcher.expect_silence(SILENCE);
    let mut seen = [watcher.expect_publish(), watcher.expect_publish()];
    seen.sort_by(|a, b| a.text().cmp(b.text()));
    assert_eq!(seen.each_ref().map(|publish| publish.text()), ["clean", "durable"]);
    seen.iter().for_each(|publish| watcher.acknowledge(publish));
    watcher.expect_silence(SILENCE);
    drop((returning, broker));
    let broker = folder.broker("|will_grace_s = 0");
    let mut newcomer = Client::connect(&broker, Connect::v5("newcomer"));
    newcomer.subscribe("gone/#", 0);
    assert!(newcomer.expect_publish().retain && newcomer.expect_publish().retain);
    newcomer.expect_silence(Duration::from_millis(500));
}

#[test]
fn a_store_of_an_earlier_format_is_read() {
    for format in [1, 3, 4, 5] {
        let folder = Folder::new(&format!("format-{format}"));
        let of_format = || {
            let inspect = store(&["inspect", "--json"], &folder.0, Stdio::null());
            let seen: serde_json::Value = serde_json::from_slice(&inspect.stdout).expect("JSON");
            seen["format"].as_u64()
        };
        let kept = format!("{}/tests/stores/format-{format}", env!("CARGO_MANIFEST_DIR"));
        for file in std::fs::read_dir(kept).expect("a store") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), folder.0.join(file.file_name())).expect("copied");
        }
        assert_eq!(of_format(), Some(format));
        let broker = folder.broker("");
        let for_ever = |name: &str| Connect::v5(name).resume().expiry(u32::MAX);
        let mut panel = Client::connect(&broker, for_ever("panel"));
        panel.expect_message("open");
        panel.expect_message("closed");
        assert!(Client::connect(&broker, for_ever("mortal")).connack.session_present);
        let mut newcomer = Client::connect(&broker, Connect::v5("newcomer"));
        newcomer.subscribe("#", 0);
        newcomer.expect_message("open");
        drop((panel, newcomer, broker));
        assert_eq!(of_format(), Some(7));
        assert!(store(&["verify"], &folder.0, Stdio::null()).status.success());
    }
}

#[test]
fn without_a_data_folder_no_files_are_written() {
    let folder = Folder::new("none");
    let broker = Broker::with_config("[storage]\ndata = \"none\"\n");
    Client::connect(&broker, kept("c")).vanish();
    drop(broker);
    assert_eq!(folder.bytes(), 0);
    let broker = Broker::with_config("");
    assert!(!Client::connect(&broker, kept("c")).connack.session_present);
}

/// A small file system in memory; `None` if this user may not mount one.
struct SmallDisk(Folder);

impl SmallDisk {
    fn new(name: &str, size: &str) -> Option<Self> {
        let folder = Folder::new(name);
        let size = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&folder.0)
            .stderr(Stdio::null())
            .status();
        let is_there = mounted.is_ok_and(|status| status.success());
        if !is_there {
            eprintln!("SKIPPED: no permission to mount a file system");
        }
        is_there.then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
    }
}

fn sys_value(broker: &Broker, topic: &str, is_so: impl Fn(&str) -> bool) {
    let mut client = Client::connect(broker, Connect::v5("watch"));
    client.subscribe(&format!("$SYS/broker/{topic}"), 0);
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        let publish = client.expect_publish();
        if is_so(publish.text()) {
            return;
        }
    }
    panic!("{topic} does not reach the expected value");
}

#[test]
fn a_full_disk_only_delays_acknowledgements_until_there_is_room() {
    let Some(disk) = SmallDisk::new("full", "2m") else { return };
    let ballast = disk.0.0.join("ballast");
    let config = "mqtt.sys_interval_s = 1";
    let broker = disk.0.broker(config);
    let mut consumer = Client::connect(&broker, kept("consumer"));
    consumer.subscribe("t", 1);
    consumer.vanish();
    publish(&broker, "t", "before");
    // Fills the disk.
    let mut size = 4 << 20;
    while size > 1_000 {
        let file = std::fs::File::options().create(true).append(true).open(&ballast);
        if std::io::Write::write_all(&mut file.expect("a file"), &vec![0; size]).is_err() {
            size /= 2;
        }
    }
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    publisher.send(Publish::new("t", vec![b'x'; 8_000]).qos(1, 1));
    publisher.expect_silence(SILENCE);
    sys_value(&broker, "store/failing", |value| value == "1");
    // Clients that need no store are served as usual.
    let with_will = Connect::v5("live").will(Will::new("gone", "live"));
    let mut live = Client::connect(&broker, with_will);
    live.subscribe("live", 1);
    live.publish(Publish::new("live", "as ever").qos(1, 1));
    live.expect_message("as ever");
    std::fs::remove_file(&ballast).expect("removed");
    assert_eq!(publisher.expect_ack(), Ack::puback(1));
    sys_value(&broker, "store/failing", |value| value == "0");
    drop(broker);
    let inspect = store(&["inspect", "--json"], &disk.0.0, Stdio::null());
    let seen: serde_json::Value = serde_json::from_slice(&inspect.stdout).expect("JSON");
    assert_eq!(seen["wills"], 1, "{seen}");
    let broker = disk.0.broker(config);
    let mut consumer = Client::connect(&broker, kept("consumer"));
    consumer.expect_message("before");
    assert_eq!(consumer.expect_publish().payload.len(), 8_000);
    drop((consumer, broker));
}

#[test]
fn a_full_disk_at_start_is_reported() {
    let Some(disk) = SmallDisk::new("start", "64k") else { return };
    std::fs::write(disk.0.0.join("ballast"), vec![0; 60_000]).expect("the write succeeds");
    let mut size = 4_000;
    while size > 0 {
        let file = std::fs::File::options().append(true).open(disk.0.0.join("ballast"));
        if std::io::Write::write_all(&mut file.expect("a file"), &vec![0; size]).is_err() {
            size /= 2;
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(&disk.0.0)
        .output()
        .expect("the command runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("cannot write") && said.contains("--data none"), "{said}");
}

#[test]
fn a_full_store_delays_publishers_until_consumers_make_room() {
    let folder = Folder::new("bound");
    let broker = folder.broker("|bytes_max = 1500000\ncompact_bytes_min = 1048576");
    let mut consumer = Client::connect(&broker, kept("consumer"));
    consumer.subscribe("t", 1);
    consumer.vanish();
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    // One at a time: the store knows its size when it acknowledges.
    let send = |publisher: &mut Client, number| {
        publisher.send(Publish::new("t", vec![b'x'; 50_000]).qos(1, number));
    };
    let mut acknowledged = 0;
    while acknowledged < 60 {
        send(&mut publisher, acknowledged + 1);
        // Until the broker stops reading.
        let Some(()) = acknowledgement(&mut publisher, Duration::from_secs(2)) else { break };
        acknowledged += 1;
    }
    assert!((15..60).contains(&acknowledged), "{acknowledged} are acknowledged at the bound");
    let mut consumer = Client::connect(&broker, kept("consumer"));
    for number in 1..=60 {
        if number > acknowledged {
            if number > acknowledged + 1 {
                send(&mut publisher, number);
            }
            acknowledgement(&mut publisher, Duration::from_secs(20)).expect("there is room again");
        }
        let publish = consumer.expect_publish();
        consumer.acknowledge(&publish);
    }
    assert!(folder.bytes() < 10_000_000, "{} bytes", folder.bytes());
}

fn acknowledgement(client: &mut Client, patience: Duration) -> Option<()> {
    let until = Instant::now() + patience;
    client.raw(&[0xC0, 0x00]);
    while Instant::now() < until {
        match client.receive_within(until.saturating_duration_since(Instant::now()))? {
            support::Packet::Ack(_) => return Some(()),
            support::Packet::Pingresp => {}
            other => panic!("{other:?}"),
        }
    }
    None
}

#[test]
fn obsolete_records_are_compacted_at_runtime() {
    let folder = Folder::new("compact");
    let broker = folder.broker("cores = 2|compact_bytes_min = 1048576");
    let mut away = Client::connect(&broker, kept("away"));
    away.subscribe("t/away", 1);
    away.vanish();
    publish(&broker, "t/away", "waits");
    let mut retainer = Client::connect(&broker, Connect::v5("retainer"));
    for round in 0..200u16 {
        let payload = format!("{round:>60000}");
        retainer.publish(Publish::new("kept", &payload).qos(1, round + 1).retain());
    }
    retainer.publish(Publish::new("kept", "last").qos(1, 300).retain());
    let until = Instant::now() + Duration::from_secs(20);
    while folder.bytes() > 4_000_000 {
        assert!(Instant::now() < until, "{} bytes of 12 MB past", folder.bytes());
        retainer.publish(Publish::new("kept", "last").qos(1, 301).retain());
        sleep(Duration::from_millis(20));
    }
    drop((retainer, broker));
    let broker = folder.broker("");
    let mut away = Client::connect(&broker, kept("away"));
    assert!(away.connack.session_present);
    away.expect_message("waits");
    let mut newcomer = Client::connect(&broker, Connect::v5("newcomer"));
    newcomer.subscribe("kept", 0);
    newcomer.expect_message("last");
}

#[test]
fn broker_store_inspects_exports_imports_and_repairs_a_store() {
    let (folder, other) = (Folder::new("tools"), Folder::new("carried"));
    let broker = folder.broker("");
    let mut client = Client::connect(&broker, kept("c"));
    client.subscribe("t", 1);
    let in_use = store(&["compact"], &folder.0, Stdio::null());
    assert_eq!(in_use.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&in_use.stderr).contains("in use"));
    client.vanish();
    publish(&broker, "t", "carried");
    broker.stop();
    sleep(Duration::from_millis(300));
    drop(broker);
    let inspect = store(&["inspect", "--json"], &folder.0, Stdio::null());
    let seen: serde_json::Value = serde_json::from_slice(&inspect.stdout).expect("JSON");
    assert_eq!((&seen["sessions"], &seen["messages_queued"]), (&1.into(), &1.into()), "{seen}");
    let export = store(&["export"], &folder.0, Stdio::null());
    assert!(export.status.success());
    let lines = folder.0.join("lines.json");
    std::fs::write(&lines, &export.stdout).expect("written");
    let lines = std::fs::File::open(lines).expect("there");
    let import = store(&["import"], &other.0, lines.into());
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    assert!(store(&["compact"], &other.0, Stdio::null()).status.success());
    let broker = other.broker("");
    let mut client = Client::connect(&broker, kept("c"));
    assert!(client.connack.session_present);
    client.expect_message("carried");
    drop((client, broker));
    // A byte in the middle of the largest file.
    let files = std::fs::read_dir(&folder.0).expect("readable").filter_map(Result::ok);
    let logs = files.filter(|file| file.path().extension().is_some_and(|of| of == "log"));
    let largest = logs.max_by_key(|file| file.metadata().map_or(0, |of| of.len()));
    let path = largest.expect("one").path();
    let mut bytes = std::fs::read(&path).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let verify = store(&["verify"], &folder.0, Stdio::null());
    assert_eq!(verify.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&verify.stdout).contains("byte "));
    let start = Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(&folder.0)
        .output()
        .expect("the command runs");
    let said = String::from_utf8_lossy(&start.stderr);
    assert_eq!(start.status.code(), Some(5), "{said}");
    assert!(said.contains("broker store repair") && said.contains(", byte "), "{said}");
    let repair = store(&["repair"], &folder.0, Stdio::null());
    assert!(repair.status.success(), "{}", String::from_utf8_lossy(&repair.stderr));
    assert!(store(&["verify"], &folder.0, Stdio::null()).status.success());
    drop(folder.broker(""));
}

#[test]
fn a_missing_first_or_last_segment_is_named_and_fails_the_start() {
    let folder = Folder::new("ends");
    for start in 0..3 {
        let mut broker = folder.broker("");
        let mut client = Client::connect(&broker, kept(&format!("c{start}")));
        client.subscribe("t", 1);
        client.vanish();
        publish(&broker, "t", "acknowledged");
        broker.stop();
        broker.await_end();
    }
    let first = folder.0.join("0000000000000001.log");
    let last = folder.0.join("0000000000000003.log");
    let aside = folder.0.join("aside");
    let assert_named = |name: &str| {
        let verify = store(&["verify"], &folder.0, Stdio::null());
        assert_eq!(verify.status.code(), Some(5));
        assert!(String::from_utf8_lossy(&verify.stdout).contains(name), "{verify:?}");
        let start = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(&folder.0)
            .output()
            .expect("the command runs");
        let said = String::from_utf8_lossy(&start.stderr);
        assert!(start.status.code() == Some(5) && said.contains(name), "{said}");
    };
    for (path, name) in [(&first, "0000000000000001.log"), (&last, "0000000000000003.log")] {
        std::fs::rename(path, &aside).expect("moved");
        assert_named(name);
        std::fs::rename(&aside, path).expect("moved back");
        assert!(store(&["verify"], &folder.0, Stdio::null()).status.success());
    }
    let whole = std::fs::read(&last).expect("readable");
    std::fs::write(&last, &whole[..whole.len() / 2]).expect("written");
    assert_named("0000000000000003.log");
    std::fs::write(&last, &whole).expect("written");
    drop(folder.broker(""));
}

/// Clients that ignore the server's Receive Maximum send everything at once.
#[test]
fn a_burst_above_the_receive_maximum_is_acknowledged_in_order_after_the_sync() {
    for (mode, cores) in [("auto", 1), ("auto", 3), ("poll", 1), ("poll", 3), ("sync", 1)] {
        let folder = Folder::new(&format!("burst-{mode}-{cores}"));
        let broker = folder
            .broker(&format!("mode = {mode:?}\ncores = {cores}\n[limits]\nreceive_maximum = 10"));
        for number in 0..4 {
            let mut away = Client::connect(&broker, kept(&format!("away-{number}")));
            away.subscribe("t/#", 1);
            away.vanish();
        }
        let mut client = Client::connect(&broker, Connect::v5("burst"));
        const MESSAGES: u16 = 5_000;
        let mut burst = Vec::new();
        for number in 1..=MESSAGES {
            let publish = Publish::new("t/1", number.to_string()).qos(1, number);
            burst.extend(support::Encode::encode(&publish, support::V5));
        }
        client.raw(&burst);
        for number in 1..=MESSAGES {
            assert_eq!(client.expect_ack(), Ack::puback(number), "{mode}, {cores} cores");
        }
        client.expect_alive();
        client.disconnect();
        let mut away = Client::connect(&broker, kept("away-1"));
        for number in 1..=MESSAGES {
            assert!(!away.expect_message(&number.to_string()).dup);
        }
        away.expect_silence(SILENCE);
    }
}
