//! WebSocket, with TLS and without, and Unix sockets on the way to the far broker.
#![cfg(all(feature = "tls", feature = "websocket"))]

use std::net::SocketAddr;

use crate::folder::Folder;
use crate::support::{Broker, Publish};
use crate::{NUMBER, ONE_SETUP, SETUPS, Site, Witness, at_once, connected, flows, logged, publish};

const RULES: &str = "\
[[bridges.out]]
filter = \"site/#\"
[[bridges.in]]
filter = \"cmd/#\"
";

/// A far broker that listens in each way.
pub struct Far {
    pub broker: Broker,
    pub folder: Folder,
    ws: SocketAddr,
    wss: SocketAddr,
}

impl Far {
    pub fn start(setup: &str) -> Self {
        let (ws, wss) = (crate::free_address(), crate::free_address());
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = Folder::new(&format!("ways-{number}"));
        let issued = rcgen::generate_simple_self_signed(vec![wss.ip().to_string()]).expect("one");
        let certificate = folder.write("certificate", &issued.cert.pem());
        let key = folder.write("key", &issued.signing_key.serialize_pem());
        let socket = folder.path("s");
        let site = Site::new(setup).with(&format!(
            "[[listeners]]\nbind = \"{ws}\"\ntransport = \"ws\"\nanonymous = true\n\
             [[listeners]]\nbind = \"unix:{socket}\"\ntransport = \"unix\"\n\
             [[listeners]]\nbind = \"{wss}\"\ntransport = \"wss\"\nanonymous = true\n\
             [listeners.tls]\ncertificate = {certificate:?}\nkey = {key:?}"
        ));
        let broker = site.start();
        logged(&broker, "\"listening\"", 4);
        Self { broker, folder, ws, wss }
    }

    /// The servers in each way, and tables that they need.
    pub fn ways(&self) -> [(String, String); 3] {
        let ca = self.folder.path("certificate");
        [
            (format!("ws://{}", self.ws), String::new()),
            (format!("wss://{}/mqtt", self.wss), format!("[bridges.tls]\nca = {ca:?}\n")),
            (format!("unix:{}", self.folder.path("s")), String::new()),
        ]
    }
}

fn near(setup: &str, name: &str, server: &str, more: &str) -> Broker {
    let bridge = format!(
        "[[bridges]]\nname = {name:?}\nservers = [{server:?}]\n\
         reconnect = {{ first_ms = 50, most_s = 1, stable_s = 0 }}\n{more}"
    );
    Site::new(setup).with(&bridge).start()
}

#[test]
fn messages_pass_both_ways_over_websocket_with_and_without_tls_and_over_unix_sockets() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::start(setup);
        for (number, (server, more)) in far.ways().into_iter().enumerate() {
            let near = near(setup, &format!("b{number}"), &server, &format!("{more}{RULES}"));
            connected(&near, 1);
            flows(&far.broker, "cmd/probe", &near, "cmd/probe");
            let (mut there, mut here) =
                (Witness::at(&far.broker, "site/#"), Witness::at(&near, "cmd/#"));
            // Frames of each form of length, and more than one.
            for bytes in [1, 200, 70_000, 300_000] {
                let text = "x".repeat(bytes);
                for qos in 0..=2 {
                    let of = |topic: &str| match qos {
                        0 => Publish::new(topic, text.clone()),
                        _ => Publish::new(topic, text.clone()).qos(qos, 1),
                    };
                    publish(&near, of("site/a"));
                    assert!(there.texts(1) == [&*text], "{setup} {server}: {bytes} bytes go");
                    publish(&far.broker, of("cmd/a"));
                    assert!(here.texts(1) == [&*text], "{setup} {server}: {bytes} bytes come");
                }
            }
        }
    });
}

#[test]
fn what_the_far_broker_has_against_a_websocket_is_in_the_log() {
    let far = Far::start(ONE_SETUP);
    let near = near(ONE_SETUP, "b", &format!("ws://{}/nowhere", far.ws), RULES);
    logged(&near, "404 Not Found; check the path of the server", 1);
    assert!(!near.log().contains("bridge connected"));
}

#[test]
fn a_unix_socket_that_is_not_there_is_tried_again() {
    let far = Far::start(ONE_SETUP);
    let path = far.folder.path("later");
    let near = near(ONE_SETUP, "b", &format!("unix:{path}"), RULES);
    logged(&near, &format!("unix:{path}: "), 1);
    std::os::unix::fs::symlink(far.folder.path("s"), &path).expect("a link");
    connected(&near, 1);
    flows(&far.broker, "cmd/probe", &near, "cmd/probe");
}
