//! The level of the log, changed while the broker runs.

use std::time::{Duration, Instant};

use ringmq::config::Role;

use crate::support::Broker;

#[test]
fn the_log_level_changes_for_a_while_and_goes_back_by_itself() {
    let broker = Broker::start("log-level", "--mode poll --cores 2");
    let level = || broker.ask(Role::Read, "GET", "/api/v1/log", "").json();
    assert_eq!(level()["level"], "info");
    assert!(level()["seconds_left"].is_null());
    let change = |body: &str| broker.ask(Role::Operate, "PUT", "/api/v1/log", body);
    let changed = change("{\"level\":\"trace\",\"seconds\":2}");
    assert_eq!((changed.status, &changed.json()["level"]), (200, &"trace".into()));
    let mut client = std::net::TcpStream::connect(&broker.mqtt).expect("it listens");
    std::io::Write::write_all(&mut client, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a\xC0\0")
        .expect("the server reads");
    std::io::Read::read_exact(&mut client, &mut [0; 6]).expect("CONNACK and PINGRESP");
    broker.wait_for_log("a packet", |line| line["packet"] == "PINGREQ" && line["level"] == "TRACE");
    broker.wait_for_log("its answer", |line| {
        line["packet"] == "PINGRESP" && line["direction"] == "sent"
    });
    let until = Instant::now() + Duration::from_secs(20);
    while level()["level"] != "info" {
        assert!(Instant::now() < until, "{}", level());
        std::thread::sleep(Duration::from_millis(20));
    }
    broker.wait_for_log("the end", |line| line["message"] == "the log is back at its level");
    for body in [
        "{\"level\":\"loud\"}",
        "{\"level\":\"debug\",\"seconds\":0}",
        "{\"level\":\"debug\",\"seconds\":86401}",
    ] {
        assert_eq!(change(body).status, 400, "{body}");
    }
    assert_eq!(level()["level"], "info");
    let changed = change("{\"level\":\"debug\"}").json();
    assert!(changed["level"] == "debug" && changed["seconds_left"].is_null(), "{changed}");
}
