//! Bridges that a configuration file of Mosquitto has, with Mosquitto as the far broker.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::folder::Folder;
use crate::mosquitto::{Mosquitto, program};
use crate::support::{Broker, Publish};
use crate::{Witness, flows, free_address, publish, wait_until};

/// A broker that runs on a file of Mosquitto.
struct Near {
    broker: Broker,
    child: Child,
    _folder: Folder,
}

impl Near {
    fn start(lines: &str) -> Self {
        let address = free_address();
        let folder = Folder::new(&format!("mosquitto-conf-{}", address.port()));
        let (port, host) = (address.port(), address.ip());
        folder.write(
            "mosquitto.conf",
            &format!("listener {port} {host}\nallow_anonymous true\n{lines}"),
        );
        let child = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["--mosquitto-conf", &folder.path("mosquitto.conf")])
            .env("RINGMQ_ADMIN__LISTEN", "[]")
            .env("RINGMQ_CORES", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the broker starts");
        wait_until("the broker listens", || std::net::TcpStream::connect(address).is_ok());
        Self { broker: Broker::running_at(address), child, _folder: folder }
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each form of a topic: both ways, with and without prefixes, and a single topic.
const TOPICS: &str = "\
topic plain/# out 1
topic down/# in 1
topic shared/# both 2
topic # out 1 here/ there/
topic cmd/# in 1 local/ remote/
topic only/+ out 2 \"\" put/
topic \"\" out 1 one/topic other/name
topic \"\" in 1 in/here in/there
topic least
";

/// Topics at this broker and at the far one, with the highest QoS of the messages.
const OUT: &[(&str, &str, u8)] = &[
    ("plain/a", "plain/a", 1),
    ("shared/a", "shared/a", 2),
    ("here/a/b", "there/a/b", 1),
    ("only/a", "put/only/a", 2),
    ("one/topic", "other/name", 1),
    ("least", "least", 0),
];

/// Topics at the far broker and at this one, with the highest QoS of the messages.
const IN: &[(&str, &str, u8)] = &[
    ("down/a", "down/a", 1),
    ("shared/b", "shared/b", 2),
    ("remote/cmd/a", "local/cmd/a", 1),
    ("in/there", "in/here", 1),
];

#[test]
fn each_topic_line_of_a_file_of_mosquitto_carries_its_messages_in_each_version() {
    let Some(program) = program() else { return };
    let mosquitto = Mosquitto::with(program, "");
    let far = mosquitto.broker();
    for version in ["", "bridge_protocol_version mqttv50\n", "bridge_protocol_version mqttv31\n"] {
        let near = Near::start(&format!(
            "connection far{}\naddress {}\nrestart_timeout 1 1\nremote_clientid c{}\n{version}{TOPICS}",
            version.len(),
            mosquitto.address,
            version.len()
        ));
        let near = &near.broker;
        flows(&far, "down/probe", near, "down/probe");
        for (from, to, topics) in [(near, &far, OUT), (&far, near, IN)] {
            for (topic, mapped, qos) in topics {
                let mut witness = Witness::at(to, mapped);
                publish(from, Publish::new(topic, "x").qos(2, 1));
                let got = witness.next();
                assert_eq!((got.text(), got.qos), ("x", *qos), "{version}{topic} as {mapped}");
            }
        }
        let mut there = Witness::at(&far, "#");
        for topic in ["plain", "none/a", "down/a", "cmd/a", "one", "only/a/b", "in/here"] {
            publish(near, Publish::new(topic, "stays").qos(1, 1));
        }
        publish(near, Publish::new("here/end", "end").qos(1, 1));
        // `plain/#` has the level above it, too.
        let texts = there.texts_before("end");
        assert_eq!(texts, ["stays"], "{version}: only what a line names goes out");
        assert!(there.within(Duration::from_millis(100)).is_none(), "{version}: once");
    }
}

#[test]
fn a_shared_subscription_of_a_file_of_mosquitto_deals_the_messages_among_its_bridges() {
    const COUNT: usize = 20;
    let Some(program) = program() else { return };
    let mosquitto = Mosquitto::with(program, "");
    let far = mosquitto.broker();
    let near: Vec<Near> = ["$share/g/work/# in 1 here/", "work/# in 1 here/ $share/g/"]
        .into_iter()
        .enumerate()
        .map(|(number, topic)| {
            Near::start(&format!(
                "connection far\naddress {}\nrestart_timeout 1 1\nremote_clientid c{number}\ntopic {topic}\n\
                 topic own/# out 1\n",
                mosquitto.address
            ))
        })
        .collect();
    for near in &near {
        flows(&near.broker, "own/probe", &far, "own/probe");
    }
    let mut here: Vec<Witness> =
        near.iter().map(|near| Witness::at(&near.broker, "here/#")).collect();
    // The far broker may grant a subscription after it has taken what went out before.
    let mut is_dealt = vec![false; here.len()];
    wait_until("each is dealt a message", || {
        publish(&far, Publish::new("work/probe", "probe").qos(1, 1));
        for (at, is_dealt) in here.iter_mut().zip(&mut is_dealt) {
            *is_dealt |= at.within(Duration::from_millis(100)).is_some();
        }
        is_dealt.iter().all(|is_dealt| *is_dealt)
    });
    here.iter_mut().for_each(|at| drop(at.until_quiet()));
    for number in 0..COUNT {
        publish(&far, Publish::new("work/a", number.to_string()).qos(1, 1));
    }
    let mut dealt: Vec<Vec<String>> = vec![Vec::new(); here.len()];
    wait_until("all have come", || {
        for (at, texts) in here.iter_mut().zip(&mut dealt) {
            while let Some(got) = at.within(Duration::from_millis(100)) {
                assert_eq!(got.topic, "here/work/a", "without the prefix of the other side");
                texts.push(got.text().to_owned());
            }
        }
        dealt.iter().map(Vec::len).sum::<usize>() >= COUNT
    });
    assert!(dealt.iter().all(|texts| !texts.is_empty()), "each has a part: {dealt:?}");
    let mut all: Vec<String> = dealt.concat();
    all.sort_by_key(|text| text.parse::<usize>().expect("a number"));
    let expected: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    assert_eq!(all, expected, "each message once");
}

#[test]
fn a_bridge_of_a_file_of_mosquitto_logs_in_with_its_name_and_password() {
    let Some(program) = program() else { return };
    let folder = Folder::new("mosquitto-conf-users");
    let users = folder.path("users");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c", &users, "plant7", "hush hush"])
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: mosquitto_passwd is not installed");
    }
    // The state of the connection is its Will.
    let rules = "topic read #\nuser plant7\ntopic write own/#\ntopic write $SYS/broker/connection/+/state\n";
    folder.write("acl", rules);
    let lines = format!("password_file {users}\nacl_file {}\n", folder.path("acl"));
    let mosquitto = Mosquitto::with(program, &lines);
    let far = mosquitto.broker();
    let near = Near::start(&format!(
        "connection far\naddress {}\nrestart_timeout 1\nremote_username plant7\nremote_password hush hush\n\
         topic # out 1\n",
        mosquitto.address
    ));
    // Anonymous clients may not publish there.
    flows(&near.broker, "own/a", &far, "own/a");
}
