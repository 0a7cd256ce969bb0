//! 4.3.3 and 4.4: exactly once, with the connection cut at every step of the exchange.

use super::{durable, publish_numbers, resumed, subscriber};
use crate::support::{
    Ack, Broker, Client, Connect, Publish, SILENCE, Version, for_versions, reason,
};

/// The step after which the connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    /// PUBLISH was sent, and PUBREC is lost.
    Publish,
    /// PUBREC was received, and PUBREL not sent.
    Pubrec,
    /// PUBREL was sent, and PUBCOMP is lost.
    Pubrel,
    /// PUBCOMP was received.
    Pubcomp,
}

const CUTS: [Cut; 4] = [Cut::Publish, Cut::Pubrec, Cut::Pubrel, Cut::Pubcomp];

fn publisher(broker: &Broker, version: Version) -> Client {
    Client::connect(broker, Connect::new(version, "p").durable())
}

/// Sends a PUBREL for an exchange that may already be complete: the server may answer that the
/// identifier is unknown.
#[track_caller]
fn release(client: &mut Client, id: u16) {
    client.send(Ack::pubrel(id));
    let pubcomp = client.expect_ack();
    assert!([0, reason::PACKET_IDENTIFIER_NOT_FOUND].contains(&pubcomp.reason), "{pubcomp:?}");
    assert_eq!(pubcomp, Ack::pubcomp(id).reason(pubcomp.reason));
}

#[test]
fn exactly_once_to_the_server_when_the_connection_is_cut_at_any_step() {
    for_versions(|version| {
        for cut in CUTS {
            let broker = Broker::start();
            let mut subscriber = subscriber(&broker, version, 2);
            let mut client = publisher(&broker, version);
            let publish = Publish::new("t/a", "once").qos(2, 7);
            client.send(&publish);
            client.expect(Ack::pubrec(7));
            if cut >= Cut::Pubrel {
                client.send(Ack::pubrel(7));
                client.expect(Ack::pubcomp(7));
            }
            client.vanish();
            let mut client = publisher(&broker, version);
            assert!(client.connack.session_present);
            // The client resumes with what it received before the cut.
            if cut == Cut::Publish {
                client.send(publish.clone().dup());
                client.expect(Ack::pubrec(7));
            }
            if cut != Cut::Pubcomp {
                release(&mut client, 7);
            }
            subscriber.expect_message("once");
            subscriber.expect_silence(SILENCE / 4);
            // The Packet Identifier is available again.
            client.publish(Publish::new("t/a", "next").qos(2, 7));
            subscriber.expect_message("next");
        }
    });
}

#[test]
fn exactly_once_to_the_server_when_the_connection_is_cut_every_time() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 2);
        for dup in [false, true, true] {
            let mut client = publisher(&broker, version);
            client.send(Publish { dup, ..Publish::new("t/a", "once").qos(2, 7) });
            client.expect(Ack::pubrec(7));
            client.vanish();
        }
        for _ in 0..3 {
            let mut client = publisher(&broker, version);
            release(&mut client, 7);
            client.vanish();
        }
        subscriber.expect_message("once");
        subscriber.expect_silence(SILENCE / 4);
    });
}

#[test]
fn exactly_once_to_the_server_when_another_connection_takes_over() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = subscriber(&broker, version, 2);
        let mut first = publisher(&broker, version);
        first.send(Publish::new("t/a", "once").qos(2, 7));
        first.expect(Ack::pubrec(7));
        let mut second = publisher(&broker, version);
        assert!(second.connack.session_present);
        first.expect_violation(reason::SESSION_TAKEN_OVER);
        second.send(Publish::new("t/a", "once").qos(2, 7).dup());
        second.expect(Ack::pubrec(7));
        second.send(Ack::pubrel(7));
        second.expect(Ack::pubcomp(7));
        subscriber.expect_message("once");
        subscriber.expect_silence(SILENCE / 4);
    });
}

#[test]
fn exactly_once_from_the_server_when_the_connection_is_cut_at_any_step() {
    for_versions(|version| {
        for cut in CUTS {
            let broker = Broker::start();
            let mut client = subscriber(&broker, version, 2);
            publish_numbers(&broker, version, 2, 0..1);
            let publish = client.expect_publish();
            let id = publish.id();
            if cut >= Cut::Pubrec {
                client.send(Ack::pubrec(id));
                client.expect(Ack::pubrel(id));
            }
            if cut >= Cut::Pubcomp {
                client.send(Ack::pubcomp(id));
                client.expect_alive();
            }
            client.vanish();
            let mut client = resumed(&broker, durable(version));
            match cut {
                Cut::Publish => {
                    client.expect(publish.dup());
                    client.send(Ack::pubrec(id));
                    client.expect(Ack::pubrel(id));
                    client.send(Ack::pubcomp(id));
                }
                // PUBREC arrived in both cases; whether PUBREL did is unknown to the server.
                Cut::Pubrec | Cut::Pubrel => {
                    client.expect(Ack::pubrel(id));
                    client.send(Ack::pubcomp(id));
                }
                Cut::Pubcomp => {}
            }
            client.expect_silence(SILENCE / 4);
            client.vanish();
            resumed(&broker, durable(version)).expect_silence(SILENCE / 4);
        }
    });
}

#[test]
fn exactly_once_from_the_server_when_the_connection_is_cut_every_time() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut client = subscriber(&broker, version, 2);
        publish_numbers(&broker, version, 2, 0..1);
        let publish = client.expect_publish();
        client.vanish();
        for _ in 0..3 {
            let mut client = resumed(&broker, durable(version));
            client.expect(publish.clone().dup());
            client.vanish();
        }
        let mut client = resumed(&broker, durable(version));
        client.expect(publish.clone().dup());
        client.send(Ack::pubrec(publish.id()));
        client.vanish();
        for _ in 0..3 {
            let mut client = resumed(&broker, durable(version));
            client.expect(Ack::pubrel(publish.id()));
            client.vanish();
        }
        let mut client = resumed(&broker, durable(version));
        client.expect(Ack::pubrel(publish.id()));
        client.send(Ack::pubcomp(publish.id()));
        client.vanish();
        resumed(&broker, durable(version)).expect_silence(SILENCE);
    });
}

#[test]
fn exactly_once_through_the_server_with_both_connections_cut_at_every_step() {
    for_versions(|version| {
        let broker = Broker::start();
        subscriber(&broker, version, 2).vanish();
        let mut received = Vec::new();
        for number in 0..10 {
            let publish = Publish::new("t/a", number.to_string()).qos(2, number + 1);
            let mut client = publisher(&broker, version);
            client.send(&publish);
            client.expect(Ack::pubrec(number + 1));
            client.vanish();
            let mut client = publisher(&broker, version);
            client.send(publish.dup());
            client.expect(Ack::pubrec(number + 1));
            client.vanish();
            let mut client = publisher(&broker, version);
            client.send(Ack::pubrel(number + 1));
            client.expect(Ack::pubcomp(number + 1));
            client.vanish();

            let mut client = resumed(&broker, durable(version));
            let publish = client.expect_publish();
            client.vanish();
            let mut client = resumed(&broker, durable(version));
            client.expect(publish.clone().dup());
            client.send(Ack::pubrec(publish.id()));
            client.expect(Ack::pubrel(publish.id()));
            received.push(publish.text().to_owned());
            client.vanish();
            let mut client = resumed(&broker, durable(version));
            client.expect(Ack::pubrel(publish.id()));
            client.send(Ack::pubcomp(publish.id()));
            client.expect_alive();
            client.vanish();
        }
        let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        assert_eq!(received, expected);
    });
}
