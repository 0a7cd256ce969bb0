//! Data received before the end of a stream is processed in order and answered before the end is
//! handled: on every executor, with one core and several, over every transport, whatever delays the
//! stream.
//!
//! ```text
//! cargo test --test stream                                          some hundred streams
//! RINGMQ_STREAM_SEED=1000 RINGMQ_STREAM_COUNT=500 cargo test --test stream any    others, and more of them
//! ```
#![cfg(all(unix, feature = "tls", feature = "websocket"))]

#[path = "../support/matrix.rs"]
#[allow(dead_code, reason = "other tests record these combinations for the matrix")]
mod matrix;
#[path = "../support/packets.rs"]
mod packets;
#[path = "../simulation/random.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod random;
mod script;
#[path = "../transports/support.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod support;
mod witness;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use random::Random;
use ringmq::wire::Qos;
use script::{Ends, Expected, Script};
use support::{Broker, Client, EXECUTORS, TRANSPORTS};
use witness::Witness;

/// A user whose password takes a while to verify.
const USER: &str = "user";
const ACCESS: &str = "[access]\nanonymous = true\npassword_file = \"FOLDER/passwords\"\n";
/// Messages per second, and burst size.
const THROTTLED: &str = "[protection]\nmessages_per_second_max = 50\n";

/// A broker with the user.
fn broker(flags: &str, more: &str) -> Broker {
    Broker::start_with(flags, &format!("{ACCESS}{more}"), |folder, _| {
        // Cheap passwords are verified in the pool, too.
        let cheap = folder.join("cheap.toml");
        std::fs::write(&cheap, "[access.hashing]\nmemory_kib = 64\niterations = 1\n")
            .expect("written");
        let mut passwd = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["passwd", "--file"])
            .arg(folder.join("passwords"))
            .arg("--config")
            .arg(cheap)
            .args(["add", USER])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command runs");
        let mut stdin = passwd.stdin.take().expect("piped");
        stdin.write_all(format!("{USER}{USER}\n").as_bytes()).expect("taken");
        drop(stdin);
        assert!(passwd.wait().expect("the process exits").success());
    })
}

/// The responses until the broker ends the stream.
fn answers(client: &mut Client) -> Vec<(u8, u16)> {
    let mut answers = Vec::new();
    while let Ok((first, body)) = client.packet() {
        let identifier = match first {
            0x20 | 0xD0 => 0,
            _ => u16::from_be_bytes([body[0], body[1]]),
        };
        answers.push((first, identifier));
    }
    answers.sort_by_key(|(kind, _)| *kind);
    answers
}

/// A client sends these bytes and ends its stream. Returns the responses until the broker closes.
fn say_and_end(broker: &Broker, transport: &str, bytes: &[u8]) -> Vec<(u8, u16)> {
    let mut client = broker.client(transport);
    client.send(bytes).expect("the data is sent");
    client.shut(false).expect("the stream is shut down");
    answers(&mut client)
}

#[test]
fn a_flood_before_disconnect_and_fin_reaches_a_slow_subscriber_completely() {
    const COUNT: usize = 30_000;
    for flags in EXECUTORS {
        let broker = broker(flags, "");
        for transport in ["tcp", "tls", "ws"] {
            let name = format!("flood-{transport}");
            let topic = script::topic(&name);
            let mut subscriber = broker.client("unix");
            subscriber.connect(&format!("subscriber-{transport}"));
            subscriber.subscribe(&topic);
            std::thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    let mut bytes = script::connect(&name, true, None);
                    for number in 0..COUNT {
                        let payload = format!("{number:0400}");
                        bytes.extend(script::publish(
                            &topic,
                            Qos::AtMostOnce,
                            0,
                            payload.as_bytes(),
                        ));
                    }
                    bytes.extend(script::disconnect());
                    say_and_end(&broker, transport, &bytes);
                });
                for number in 0..COUNT {
                    if number % 10_000 == 0 {
                        std::thread::sleep(Duration::from_millis(300));
                    }
                    let payload = subscriber.publish_received(&topic);
                    assert_eq!(
                        payload,
                        format!("{number:0400}").as_bytes(),
                        "{flags}: {transport}"
                    );
                }
                sender.join().expect("the thread ends");
            });
        }
    }
}

#[test]
fn packets_sent_with_connect_are_processed_after_a_slow_authentication() {
    for flags in EXECUTORS {
        let broker = broker(flags, "");
        let witness = Witness::of(&broker);
        for (number, transport) in TRANSPORTS.into_iter().cycle().take(24).enumerate() {
            let name = format!("authenticates-{number}");
            let mut bytes = script::connect(&name, true, Some(USER));
            bytes.extend(script::publish(&script::topic(&name), Qos::AtMostOnce, 0, b"said"));
            bytes.extend(script::disconnect());
            let answers = say_and_end(&broker, transport, &bytes);
            assert_eq!(answers, [(0x20, 0)], "{flags}: {transport}");
            witness.expects(&name, &Expected::of(&bytes), &format!("{flags}: {transport}"));
        }
        witness.has_seen_no_other_will(flags);
    }
}

#[test]
fn a_throttled_client_that_disconnects_loses_no_message_and_its_will_is_not_published() {
    for flags in EXECUTORS {
        let broker = broker(flags, THROTTLED);
        let witness = Witness::of(&broker);
        std::thread::scope(|scope| {
            for transport in TRANSPORTS {
                let (broker, witness) = (&broker, &witness);
                scope.spawn(move || {
                    let name = format!("throttled-{transport}");
                    let topic = script::topic(&name);
                    let mut bytes = script::connect(&name, true, None);
                    for number in 0..150 {
                        let payload = format!("{number}");
                        bytes.extend(script::publish(
                            &topic,
                            Qos::AtMostOnce,
                            0,
                            payload.as_bytes(),
                        ));
                    }
                    bytes.extend(script::disconnect());
                    say_and_end(broker, transport, &bytes);
                    witness.expects(&name, &Expected::of(&bytes), &format!("{flags}: {transport}"));
                });
            }
        });
        witness.has_seen_no_other_will(flags);
    }
}

#[test]
fn a_half_closed_connection_receives_connack_puback_and_suback() {
    for flags in EXECUTORS {
        let broker = broker(flags, "");
        for (number, transport) in TRANSPORTS.into_iter().cycle().take(60).enumerate() {
            let name = format!("half-{number}");
            let mut bytes = script::connect(&name, false, None);
            bytes.extend(script::publish(&script::topic(&name), Qos::AtLeastOnce, 7, b"x"));
            bytes.extend(script::subscribe(8, "a", Qos::AtMostOnce));
            let answers = say_and_end(&broker, transport, &bytes);
            assert_eq!(answers, [(0x20, 0), (0x40, 7), (0x90, 8)], "{flags}: {transport}");
        }
    }
}

#[test]
fn a_half_closed_connection_with_a_slow_reader_receives_all_queued_messages() {
    // More than a socket buffer, and read so slowly that the socket does not become writable in seconds.
    const COUNT: usize = 45;
    for flags in EXECUTORS {
        let broker = broker(flags, "");
        let mut client = broker.client("unix");
        let topic = script::topic("slow");
        let mut bytes = script::connect("slow", false, None);
        bytes.extend(script::subscribe(1, &topic, Qos::AtMostOnce));
        for _ in 0..COUNT {
            bytes.extend(script::publish(&topic, Qos::AtMostOnce, 0, &[b'x'; 10_000]));
        }
        client.send(&bytes).expect("the data is sent");
        client.shut(false).expect("the stream is shut down");
        let mut messages = 0;
        while messages < COUNT {
            let packet = client.packet();
            let (first, _) = packet.unwrap_or_else(|error| panic!("{flags}: {messages}: {error}"));
            messages += usize::from(first == 0x30);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A broker with a store, and a persistent session that is subscribed to all topics.
fn storing(flags: &str) -> (Broker, Client) {
    let broker = broker(&format!("{flags} --data FOLDER/data"), "");
    let mut keeper = broker.client("tcp");
    keeper.send(&script::connect_kept("keeper")).expect("the data is sent");
    keeper.send(&script::subscribe(1, "s/#", Qos::AtLeastOnce)).expect("the data is sent");
    assert_eq!(keeper.packet().expect("a response").0, 0x20);
    assert_eq!(keeper.packet().expect("a response").0, 0x90);
    (broker, keeper)
}

#[test]
fn acknowledgements_that_wait_for_the_store_are_sent_before_disconnect_or_the_end_is_handled() {
    for flags in EXECUTORS {
        let (broker, _keeper) = storing(flags);
        for (number, transport) in TRANSPORTS.into_iter().cycle().take(12).enumerate() {
            let name = format!("stored-{number}");
            let mut bytes = script::connect(&name, true, None);
            let topic = script::topic(&name);
            for identifier in 1..20 {
                bytes.extend(script::publish(&topic, Qos::AtLeastOnce, identifier, b"x"));
            }
            if number % 2 == 0 {
                bytes.extend(script::disconnect());
            }
            let answers = say_and_end(&broker, transport, &bytes);
            assert_eq!(answers, Expected::of(&bytes).answers, "{flags}: {transport}");
        }
    }
}

/// Plays a script, and compares the outcome.
fn play(broker: &Broker, witness: &Witness, transport: &str, script: &Script, what: &str) {
    let mut client = broker.client(transport);
    for piece in script.pieces() {
        // After invalid data, the broker may have closed the connection.
        let _ = client.send(piece);
        if script.pauses {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    match script.ends {
        Ends::Half { is_said } => {
            let _ = client.shut(is_said);
            let mut answers = answers(&mut client);
            if script.expected.is_broken {
                answers.clone_from(&script.expected.answers);
            }
            assert_eq!(answers, script.expected.answers, "{what}");
        }
        Ends::Closed => drop(client.shut(false)),
        // Data that had not arrived by then is lost.
        Ends::Reset => {
            client.reset();
            return witness.expects_no_more_than(&script.name, &script.expected, what);
        }
    }
    witness.expects(&script.name, &script.expected, what);
}

#[test]
fn a_stream_cut_at_any_position_is_processed_up_to_its_end() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse().ok());
    let first: u64 = number("RINGMQ_STREAM_SEED").unwrap_or(1);
    let count: u64 = number("RINGMQ_STREAM_COUNT").unwrap_or(40);
    for flags in EXECUTORS {
        for (more, messages) in [("", 100), (THROTTLED, 90)] {
            let broker = broker(flags, more);
            let witness = Witness::of(&broker);
            std::thread::scope(|scope| {
                for transport in TRANSPORTS {
                    let (broker, witness) = (&broker, &witness);
                    scope.spawn(move || {
                        for seed in first..first + count / if more.is_empty() { 1 } else { 8 } {
                            let name = format!("{transport}-{seed}");
                            let mut random = Random::new(seed);
                            let script = Script::draw(&mut random, &name, messages, USER);
                            let what = format!("{flags}: {transport}: {more:?}: seed {seed}");
                            if std::env::var_os("RINGMQ_STREAM_TOLD").is_some() {
                                println!("{what}: {script:?}");
                            }
                            play(broker, witness, transport, &script, &what);
                        }
                    });
                }
            });
            witness.has_seen_no_other_will(flags);
        }
    }
}
