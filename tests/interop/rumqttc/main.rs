//! The rumqttc part of `tests/interop`: `rumqttc_client VERSION PORT`, with the MQTT version 3.1.1
//! or 5. A client receives the messages that it publishes, in order, at each QoS; a failure exits
//! with a nonzero status.

use std::process::ExitCode;
use std::thread;

use rumqttc::{Client, Event, Incoming, MqttOptions, QoS, v5};

const COUNT: usize = 3_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [version, port] = &arguments[..] else {
        eprintln!("usage: rumqttc_client 3.1.1|5 PORT");
        return ExitCode::from(2);
    };
    let port = port.parse().expect("a port number");
    match version.as_str() {
        "3.1.1" => {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                check(&format!("{qos:?}"), &version_3(port, qos));
            }
        }
        "5" => {
            use v5::mqttbytes::QoS;
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                check(&format!("{qos:?}"), &version_5(port, qos));
            }
        }
        other => panic!("no MQTT version {other}: 3.1.1 or 5"),
    }
    ExitCode::SUCCESS
}

fn check(qos: &str, received: &[String]) {
    let expected: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    assert!(received == expected, "{qos}: not {COUNT} messages in order, but {received:?}");
}

fn version_3(port: u16, qos: QoS) -> Vec<String> {
    let mut options = MqttOptions::new("r", "127.0.0.1", port);
    options.set_inflight(100);
    let (client, mut connection) = Client::new(options, 100);
    client.subscribe("mine", qos).expect("queued");
    let publisher = thread::spawn(move || {
        for number in 0..COUNT {
            client.publish("mine", qos, false, number.to_string()).expect("queued");
        }
        client
    });
    let received =
        take_messages(connection.iter().filter_map(|event| match event.expect("no error") {
            Event::Incoming(Incoming::Publish(publish)) => Some(publish.payload.to_vec()),
            _ => None,
        }));
    drop(publisher.join());
    received
}

fn version_5(port: u16, qos: v5::mqttbytes::QoS) -> Vec<String> {
    let options = v5::MqttOptions::new("r", "127.0.0.1", port);
    let (client, mut connection) = v5::Client::new(options, 100);
    client.subscribe("mine", qos).expect("queued");
    let publisher = thread::spawn(move || {
        for number in 0..COUNT {
            client.publish("mine", qos, false, number.to_string()).expect("queued");
        }
        client
    });
    let received =
        take_messages(connection.iter().filter_map(|event| match event.expect("no error") {
            v5::Event::Incoming(v5::Incoming::Publish(publish)) => Some(publish.payload.to_vec()),
            _ => None,
        }));
    drop(publisher.join());
    received
}

fn take_messages(payloads: impl Iterator<Item = Vec<u8>>) -> Vec<String> {
    payloads.take(COUNT).map(|payload| String::from_utf8(payload).expect("text")).collect()
}
