//! Commands of operators to a bridge, by `broker ctl`.

use std::process::{Command, Output};

use serde_json::Value;

use crate::far::{Far, Packet, Peer};
use crate::folder::Folder;
use crate::support::{Ack, Broker, Client, Connect, Publish};
use crate::{
    NUMBER, ONE_SETUP, SETUPS, Site, Witness, at_once, flows, numbers, publish, wait_until,
};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";
const BOTH: &str = "[[bridges.out]]\nfilter = \"t/#\"\n[[bridges.in]]\nfilter = \"cmd/#\"\n";

/// A broker with a bridge `far` and an admin interface.
pub struct Near {
    pub broker: Broker,
    socket: String,
    _folder: Folder,
}

impl Near {
    pub fn start(site: Site) -> Self {
        Self::start_with(site, "").0
    }

    /// Starts with further tables, which a reload may change. Also returns the site with the admin interface.
    pub fn start_with(site: Site, tables: &str) -> (Self, Site) {
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = Folder::new(&format!("ctl-{number}"));
        let socket = format!("unix:{}", folder.path("admin"));
        let site = site.with(&format!("[admin]\nlisten = [{socket:?}]"));
        (Self { broker: site.start_with(tables), socket, _folder: folder }, site)
    }

    /// Runs `broker ctl`.
    fn ctl(&self, words: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        command.args(["ctl", "--at", &self.socket]).args(words.split_whitespace());
        command.output().expect("the process starts")
    }

    /// The same, which succeeds; what it prints.
    #[track_caller]
    pub fn does(&self, words: &str) -> String {
        let output = self.ctl(words);
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The same, which fails with this exit code; what it says.
    #[track_caller]
    fn fails(&self, words: &str, code: i32) -> String {
        let output = self.ctl(words);
        assert_eq!(output.status.code(), Some(code), "{words}: {output:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    /// What is known of the bridge.
    #[track_caller]
    pub fn shown(&self) -> Value {
        serde_json::from_str(&self.does("--json bridge show far")).expect("JSON")
    }

    #[track_caller]
    pub fn is_in_state(&self, state: &str) {
        wait_until(state, || self.shown()["state"] == state);
    }
}

#[test]
fn a_bridge_that_is_stopped_leaves_and_stays_away_with_its_messages_queued_until_it_is_started() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Site::new(setup);
        let near = Near::start(Site::new(setup).bridge("far", far.address, BOTH));
        let far = far.start();
        near.is_in_state("up");
        flows(&far, "cmd/probe", &near.broker, "cmd/probe");
        let mut there = Witness::at(&far, "t/#");
        assert_eq!(near.does("bridge stop far"), "stopped\n", "{setup}");
        assert_eq!(near.shown()["state"], "stopped", "{setup}");
        // What the far broker logs of the end.
        wait_until("DISCONNECT", || far.log().contains("client-disconnected"));
        for number in numbers(0..30) {
            publish(&near.broker, Publish::new("t/a", &number).qos(1, 1));
        }
        assert_eq!(near.shown()["queued"], 30, "{setup}");
        assert_eq!(near.does("bridge stop far"), "stopped\n", "again");
        assert_eq!(near.does("bridge start far"), "started\n");
        assert_eq!(there.texts(30), numbers(0..30), "{setup}");
        assert_eq!(near.does("bridge start far"), "started\n", "again");
        near.is_in_state("up");
        assert_eq!(near.shown()["connects"], 2, "{setup}");
        assert_eq!(near.shown()["sessions_lost"], 0, "{setup}");
    });
}

#[test]
fn a_bridge_that_waits_for_its_next_attempt_connects_at_once_by_the_command_reconnect() {
    let far = Site::new(ONE_SETUP);
    let near = Site::new(ONE_SETUP).with(&format!(
        "[[bridges]]\nname = \"far\"\nservers = [\"mqtt://{}\"]\n\
         reconnect = {{ first_ms = 60000, most_s = 86400 }}\n{OUT}",
        far.address
    ));
    let near = Near::start(near);
    near.is_in_state("down");
    let far = far.start();
    near.does("bridge reconnect far");
    near.is_in_state("up");
    assert_eq!(near.shown()["connects"], 1);
    // With a connection, too: the session goes on.
    near.does("bridge reconnect far");
    wait_until("a second connection", || near.shown()["connects"] == 2);
    near.is_in_state("up");
    assert_eq!(near.shown()["session_present"], true);
    drop(far);
}

#[test]
fn a_connection_that_the_far_broker_does_not_answer_ends_by_a_command() {
    let far = Far::new();
    let near = Near::start(Site::new(ONE_SETUP).bridge("far", far.address, OUT));
    let (mut silent, _) = far.accept();
    near.does("bridge stop far");
    assert_eq!(near.shown()["state"], "stopped");
    silent.expect_end();
    near.does("bridge start far");
    far.discard();
    let _peer = far.serve(false, &[]);
    near.is_in_state("up");
}

/// A far broker to which the bridge has connected for the first time.
fn first(far: &Far) -> Peer {
    far.discard();
    far.serve(false, &[])
}

#[test]
fn reset_session_ends_the_session_of_the_far_broker_and_begins_a_new_one() {
    let far = Far::new();
    let near = Near::start(Site::new(ONE_SETUP).bridge("far", far.address, OUT));
    let mut peer = first(&far);
    near.is_in_state("up");
    let _peer = std::thread::scope(|scope| {
        scope.spawn(|| near.does("bridge reset-session far"));
        assert_eq!(peer.next(), Some(Packet::Disconnect));
        assert_eq!(peer.next(), None);
        // Clean Start, and at once DISCONNECT: the session is gone.
        first(&far)
    });
    near.is_in_state("up");
    assert_eq!(near.shown()["session_present"], false);
    assert_eq!(near.shown()["sessions_lost"], 0, "nothing was lost");
}

#[test]
fn a_session_that_the_far_broker_has_lost_is_counted_and_the_first_one_is_not() {
    let far = Far::new();
    let near = Near::start(Site::new(ONE_SETUP).bridge("far", far.address, OUT));
    let peer = first(&far);
    near.is_in_state("up");
    assert_eq!(near.shown()["sessions_lost"], 0);
    drop(peer);
    let _peer = far.serve(false, &[]);
    wait_until("a lost session", || near.shown()["sessions_lost"] == 1);
}

#[test]
fn drop_queue_drops_what_waits_and_counts_it_and_what_is_in_flight_stays() {
    let far = Far::new();
    let site = Site::new(ONE_SETUP).with("[limits]\nqueue_messages_max = 5000").with_store();
    let site = site.bridge("far", far.address, OUT);
    let near = Near::start(site);
    far.discard();
    // Receive Maximum 2
    let mut peer = far.serve(false, &[0x21, 0, 2]);
    near.is_in_state("up");
    let mut client = Client::connect(&near.broker, Connect::v5("publisher"));
    for number in numbers(0..2000) {
        client.publish(Publish::new("t", &number).qos(1, 1));
    }
    let inflight = [peer.publish(), peer.publish()];
    assert_eq!((&near.shown()["queued"], &near.shown()["inflight"]), (&1998.into(), &2.into()));
    assert!(near.does("bridge drop-queue far").contains("1998"));
    let shown = near.shown();
    assert_eq!((&shown["queued"], &shown["dropped_by_operator"]), (&0.into(), &1998.into()));
    assert!(near.does("--json api GET /metrics").contains(
        "ringmq_bridge_messages_dropped_total{bridge=\"far\",cause=\"by-operator\"} 1998"
    ));
    client.publish(Publish::new("t", "new").qos(1, 1));
    for publish in inflight {
        peer.send(Ack::puback(publish.id()));
    }
    assert_eq!(peer.publish().text(), "new");
}

#[test]
fn messages_that_were_dropped_by_a_command_do_not_come_back_with_a_restart() {
    let far = Far::new();
    let site = Site::new(ONE_SETUP).with_store().bridge("far", far.address, OUT);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = Folder::new(&format!("ctl-{number}"));
    let socket = format!("unix:{}", folder.path("admin"));
    let site = site.with(&format!("[admin]\nlisten = [{socket:?}]"));
    let near = Near { broker: site.start(), socket: socket.clone(), _folder: folder };
    near.does("bridge stop far");
    for number in numbers(0..50) {
        publish(&near.broker, Publish::new("t", &number).qos(1, 1));
    }
    assert!(near.does("bridge drop-queue far").contains("50"));
    publish(&near.broker, Publish::new("t", "kept").qos(1, 1));
    assert_eq!(near.shown()["queued"], 1);
    let Near { broker, _folder, .. } = near;
    drop(broker); // SIGKILL
    let near = Near { broker: site.start(), socket, _folder };
    near.does("bridge stop far");
    // One may be in flight.
    let shown = near.shown();
    let count = |field: &str| shown[field].as_u64().expect("a number");
    assert_eq!(count("queued") + count("inflight"), 1, "{shown}");
}

#[test]
fn a_command_says_what_is_wrong_with_it() {
    let far = crate::free_address();
    let near = Near::start(Site::new(ONE_SETUP).bridge("far", far, OUT));
    for command in ["show", "start", "stop", "reconnect", "reset-session", "drop-queue"] {
        let said = near.fails(&format!("bridge {command} near"), 1);
        assert!(said.contains("no bridge \"near\"; the bridges are far"), "{said}");
    }
    near.does("bridge stop far");
    for command in ["reconnect", "reset-session"] {
        let said = near.fails(&format!("bridge {command} far"), 1);
        assert!(said.contains("bridge \"far\" is stopped; start it first"), "{said}");
    }
    for list in ["bridges", "bridge list"] {
        assert!(near.does(list).contains("stopped"));
    }
}

#[test]
fn a_bridge_with_start_manual_queues_and_connects_by_a_command_only() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Site::new(setup);
        let keys = format!("start = \"manual\"\n{OUT}");
        let near = Near::start(Site::new(setup).bridge("far", far.address, &keys));
        let far = far.start();
        near.is_in_state("stopped");
        let mut there = Witness::at(&far, "t/#");
        wait_until("the session", || near.shown()["queued"] == 0);
        publish(&near.broker, Publish::new("t", "x").qos(1, 1));
        assert_eq!((&near.shown()["connects"], &near.shown()["queued"]), (&0.into(), &1.into()));
        near.does("bridge start far");
        assert_eq!(there.texts(1), ["x"], "{setup}");
    });
}

#[test]
fn a_lazy_bridge_connects_when_messages_wait_and_leaves_without_traffic() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Site::new(setup);
        let keys = format!("start = \"lazy\"\nlazy_messages = 3\nidle_s = 1\n{OUT}");
        let near = Near::start(Site::new(setup).bridge("far", far.address, &keys));
        let far = far.start();
        near.is_in_state("idle");
        let mut there = Witness::at(&far, "t/#");
        wait_until("the session", || near.shown()["queued"] == 0);
        for round in [0, 3] {
            let texts = numbers(round..round + 3);
            for text in &texts[..2] {
                publish(&near.broker, Publish::new("t", text).qos(1, 1));
            }
            assert_eq!(
                (&near.shown()["state"], &near.shown()["queued"]),
                (&"idle".into(), &2.into())
            );
            publish(&near.broker, Publish::new("t", &texts[2]).qos(1, 1));
            assert_eq!(there.texts(3), texts, "{setup}");
            near.is_in_state("idle");
        }
        assert_eq!(near.shown()["connects"], 2, "{setup}");
        // A command connects it without messages, and it leaves again.
        near.does("bridge start far");
        wait_until("a third connection", || near.shown()["connects"] == 3);
        near.is_in_state("idle");
    });
}

#[test]
fn readiness_with_bridges_names_those_that_should_be_connected_and_are_not() {
    let (up, down) = (Site::new(ONE_SETUP), crate::free_address());
    let site = Site::new(ONE_SETUP).bridge("far", up.address, OUT);
    let near = Near::start(site.bridge("other", down, OUT));
    let _up = up.start();
    near.is_in_state("up");
    assert!(near.does("health").contains("store_writes"), "bridges do not count");
    let output = near.ctl("health --bridges");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not connected: other"), "{said}");
    near.does("bridge stop other");
    near.does("health --bridges");
    // What was wrong is remembered.
    let other = near.does("--json bridge show other");
    let other: Value = serde_json::from_str(&other).expect("JSON");
    assert!(other["why"].is_null() && other["last_error"].is_string(), "{other}");
}
