//! Chapter 4: operational behaviour. Topics and subscriptions (4.7 and 4.8) have modules of their
//! own.

mod errors;
mod exactly_once;
mod flow_control;
mod order;
mod qos;
mod request_and_redirection;
mod retry;
mod session_state;

use crate::support::{Ack, Broker, Client, Connect, Property, Publish, V5, Version};

/// A connected session `s` with a subscription to `t/#` at `qos`.
fn subscriber(broker: &Broker, version: Version, qos: u8) -> Client {
    let mut subscriber = Client::connect(broker, durable(version));
    subscriber.subscribe("t/#", qos);
    subscriber
}

/// The CONNECT of `s`, which creates or resumes the session.
fn durable(version: Version) -> Connect {
    Connect::new(version, "s").durable()
}

/// Reconnects `s`; its session must still exist.
#[track_caller]
fn resumed(broker: &Broker, connect: Connect) -> Client {
    let client = Client::connect(broker, connect.clone());
    let expected = connect.version != crate::support::V31;
    assert_eq!(client.connack.session_present, expected, "the session is lost");
    client
}

/// Publishes "0", "1" and so on to `t/a` at `qos`, and completes each exchange.
#[track_caller]
fn publish_numbers(broker: &Broker, version: Version, qos: u8, numbers: std::ops::Range<u16>) {
    let mut publisher = Client::connect(broker, Connect::new(version, "publisher"));
    for number in numbers {
        publisher.publish(Publish::new("t/a", number.to_string()).qos(qos, number + 1));
    }
    publisher.disconnect();
}

/// Receives PUBREC, and leaves the message's PUBREL unanswered.
#[track_caller]
fn release(subscriber: &mut Client, publish: &Publish) {
    subscriber.send(Ack::pubrec(publish.id()));
    subscriber.expect(Ack::pubrel(publish.id()));
}

/// Sets a Receive Maximum, in 5.0.
fn receive_maximum(connect: Connect, maximum: u16) -> Connect {
    assert_eq!(connect.version, V5);
    connect.property(Property::ReceiveMaximum(maximum))
}
