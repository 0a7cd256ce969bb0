//! Far brokers that refuse, forget and limit, played by the test.

use std::time::Duration;

use crate::far::{Far, Packet};
use crate::support::{Ack, Broker, Client, Connect, Disconnect, Publish};
use crate::{ONE_SETUP, SETUPS, Site, Witness, at_once, connected, logged};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";
const IN: &str = "[[bridges.in]]\nfilter = \"a/#\"\n[[bridges.in]]\nfilter = \"b/#\"\n";

fn started(setup: &str, far: &Far, more: &str) -> Broker {
    Site::new(setup).bridge("far", far.address, more).start()
}

/// Like `started`, until the connection comes that stays.
fn bridged(setup: &str, far: &Far, more: &str) -> Broker {
    let broker = started(setup, far, more);
    far.discard();
    broker
}

fn publisher(broker: &Broker) -> Client {
    Client::connect(broker, Connect::v5("publisher"))
}

#[test]
fn a_far_broker_without_5_0_is_asked_with_3_1_1_as_a_bridge_and_then_as_a_client() {
    // Return code 1 in 3.1.1, and 0x84 in 5.0, as brokers of either version answer.
    for refusals in [[&[0x20, 2, 0, 1][..]; 2], [&[0x20, 3, 0, 0x84, 0], &[0x20, 2, 0, 1]]] {
        for setup in SETUPS {
            let far = Far::new();
            let near = started(setup, &far, &format!("{OUT}{IN}"));
            for (level, refusal) in [5, 0x84].into_iter().zip(refusals) {
                let (mut peer, connect) = far.accept();
                assert_eq!(connect.level, level, "{setup}");
                peer.raw(refusal);
                peer.expect_end();
            }
            far.discard();
            let (mut peer, connect) = far.accept();
            assert_eq!((connect.level, connect.clean_start), (4, false), "{setup}");
            peer.connack(false, &[]);
            assert_eq!(peer.grant(&[2, 2]), [("a/#".to_owned(), 2), ("b/#".to_owned(), 2)]);
            let mut here = Witness::at(&near, "a/#");
            let mut client = publisher(&near);
            client.publish(Publish::new("t", "out").qos(2, 1));
            let got = peer.publish();
            assert_eq!((got.text(), got.qos), ("out", 2), "{setup}");
            peer.send(Ack::pubrec(got.id()));
            peer.expect(Ack::pubrel(got.id()));
            peer.send(Ack::pubcomp(got.id()));
            peer.send(Publish::new("a/1", "in").qos(2, 9));
            peer.expect(Ack::pubrec(9));
            peer.send(Ack::pubrel(9));
            peer.expect(Ack::pubcomp(9));
            assert_eq!(here.texts(1), ["in"], "{setup}");
        }
    }
}

#[test]
fn connect_and_subscribe_say_what_the_configuration_says() {
    let far = Far::new();
    let rules = "client_identifier = \"plant-7\"\nkeep_alive_s = 33\n\
                 [[bridges.in]]\nfilter = \"a/#\"\nqos = 1\n[[bridges.in]]\nfilter = \"b\"\nqos = 0\n";
    let _near = bridged(ONE_SETUP, &far, rules);
    let (mut peer, connect) = far.accept();
    assert_eq!((connect.level, connect.keep_alive_s), (5, 33));
    assert_eq!(connect.client_identifier, "plant-7");
    peer.connack(false, &[]);
    // No Local, Retain As Published, Retain Handling 1.
    assert_eq!(peer.grant(&[1, 0]), [("a/#".to_owned(), 0x1D), ("b".to_owned(), 0x1C)]);
    drop(peer);
    // The session is asked for again.
    let (_, connect) = far.accept();
    assert!(!connect.clean_start);
}

#[test]
fn a_refused_filter_leaves_the_others_and_is_in_the_log() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let near = bridged(setup, &far, &format!("{OUT}{IN}"));
        let mut here = Witness::at(&near, "#");
        let mut peer = far.serve(false, &[]);
        peer.grant(&[2, 0x87]);
        logged(&near, "has refused a subscription", 1);
        assert!(near.log().contains("\"b/#\""), "{setup}: the log names the filter");
        peer.send(Publish::new("a/1", "in").qos(1, 1));
        peer.expect(Ack::puback(1));
        assert_eq!(here.texts(1), ["in"], "{setup}");
        publisher(&near).publish(Publish::new("t", "out").qos(1, 1));
        assert_eq!(peer.publish().text(), "out", "{setup}");
    });
}

#[test]
fn a_message_that_the_far_broker_refuses_is_dropped_and_the_next_one_goes_on() {
    // Receive Maximum 1: a message that stays would block the others.
    const RECEIVE_MAXIMUM_1: &[u8] = &[0x21, 0, 1];
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let near = bridged(setup, &far, OUT);
        let mut peer = far.serve(false, RECEIVE_MAXIMUM_1);
        let mut client = publisher(&near);
        for (number, reason) in [0x80, 0x83, 0x87, 0x90, 0x91, 0x99].into_iter().enumerate() {
            let number = number as u16 + 1;
            client.publish(Publish::new("t/1", number.to_string()).qos(1, number));
            client.publish(Publish::new("t/2", number.to_string()).qos(2, number));
            let got = peer.publish();
            assert_eq!((&*got.topic, got.text()), ("t/1", &*number.to_string()), "{setup}");
            peer.send(Ack::puback(got.id()).reason(reason));
            let got = peer.publish();
            assert_eq!((&*got.topic, got.text()), ("t/2", &*number.to_string()), "{setup}");
            peer.send(Ack::pubrec(got.id()).reason(reason));
        }
        // No Matching Subscribers is no error.
        client.publish(Publish::new("t/2", "last").qos(2, 1));
        let got = peer.publish();
        peer.send(Ack::pubrec(got.id()).reason(0x10));
        peer.expect(Ack::pubrel(got.id()));
        peer.send(Ack::pubcomp(got.id()));
        logged(&near, "has refused a message", 1);
    });
}

#[test]
fn unacknowledged_messages_are_repeated_on_the_next_connection_as_far_as_they_had_come() {
    at_once(crate::versions(&["3.1.1"]), |(version, setup)| {
        let far = Far::new();
        let near = bridged(setup, &far, &format!("version = {version:?}\n{OUT}"));
        let mut peer = far.serve(false, &[]);
        let mut client = publisher(&near);
        client.publish(Publish::new("t/1", "one").qos(1, 1));
        client.publish(Publish::new("t/2", "two").qos(2, 2));
        client.publish(Publish::new("t/3", "three").qos(2, 3));
        let (one, two, three) = (peer.publish(), peer.publish(), peer.publish());
        peer.send(Ack::pubrec(three.id()));
        peer.expect(Ack::pubrel(three.id()));
        drop(peer);
        let mut peer = far.serve(true, &[]);
        assert_eq!(peer.publish(), one.dup(), "{setup} {version}");
        assert_eq!(peer.publish(), two.clone().dup(), "{setup} {version}");
        peer.expect(Ack::pubrel(three.id()));
        peer.send(Ack::pubcomp(three.id()));
        peer.send(Ack::pubrec(two.id()));
        peer.expect(Ack::pubrel(two.id()));
    });
}

#[test]
fn a_qos_2_message_that_is_repeated_by_the_far_broker_comes_in_once() {
    at_once(crate::versions(&["3.1.1"]), |(version, setup)| {
        let far = Far::new();
        let near = bridged(setup, &far, &format!("version = {version:?}\n{IN}"));
        let mut here = Witness::at(&near, "#");
        let mut peer = far.serve(false, &[]);
        peer.grant(&[2, 2]);
        peer.send(Publish::new("a/1", "once").qos(2, 7));
        peer.expect(Ack::pubrec(7));
        drop(peer);
        let mut peer = far.serve(true, &[]);
        peer.grant(&[2, 2]);
        peer.send(Publish::new("a/1", "once").qos(2, 7).dup());
        peer.expect(Ack::pubrec(7));
        peer.send(Ack::pubrel(7));
        peer.expect(Ack::pubcomp(7));
        peer.send(Publish::new("a/1", "end").qos(2, 7));
        peer.expect(Ack::pubrec(7));
        assert_eq!(here.texts(2), ["once", "end"], "{setup} {version}");
    });
}

#[test]
fn after_the_far_broker_has_lost_its_session_nothing_is_missing_and_no_new_message_is_taken_for_an_old_one()
 {
    at_once(crate::versions(&["3.1.1"]), |(version, setup)| {
        let far = Far::new();
        let near = bridged(setup, &far, &format!("version = {version:?}\n{OUT}{IN}"));
        let mut here = Witness::at(&near, "a/#");
        let mut peer = far.serve(false, &[]);
        peer.grant(&[2, 2]);
        peer.send(Publish::new("a/1", "old").qos(2, 7));
        peer.expect(Ack::pubrec(7));
        let mut client = publisher(&near);
        client.publish(Publish::new("t/1", "sent").qos(2, 1));
        client.publish(Publish::new("t/2", "released").qos(2, 2));
        let (sent, released) = (peer.publish(), peer.publish());
        peer.send(Ack::pubrec(released.id()));
        peer.expect(Ack::pubrel(released.id()));
        drop(peer);
        let mut peer = far.serve(false, &[]);
        // In any order: SUBSCRIBE and what was not complete.
        let (mut is_repeated, mut is_released, mut is_subscribed) = (false, false, false);
        while !(is_repeated && is_released && is_subscribed) {
            match peer.next() {
                Some(Packet::Publish(again)) => {
                    assert_eq!(again.text(), "sent", "{setup}");
                    assert_eq!(again.id(), sent.id());
                    peer.send(Ack::pubrec(again.id()));
                    is_repeated = true;
                }
                Some(Packet::Ack(ack)) if ack == Ack::pubrel(released.id()) => {
                    let unknown = if version == "5" { 0x92 } else { 0 };
                    peer.send(Ack::pubcomp(released.id()).reason(unknown));
                    is_released = true;
                }
                Some(Packet::Ack(ack)) => {
                    assert_eq!(ack, Ack::pubrel(sent.id()), "{setup}");
                    peer.send(Ack::pubcomp(sent.id()));
                }
                Some(Packet::Subscribe(identifier, _)) => {
                    peer.suback(identifier, &[2, 2]);
                    is_subscribed = true;
                }
                other => panic!("{setup}: {other:?}"),
            }
        }
        peer.send(Publish::new("a/1", "new").qos(2, 7));
        assert_eq!(here.texts(2), ["old", "new"], "{setup} {version}");
    });
}

#[test]
fn messages_go_with_the_qos_that_the_far_broker_supports_and_without_retain_if_it_has_none() {
    at_once(SETUPS.iter().copied(), |setup| {
        for maximum in [0, 1] {
            let far = Far::new();
            // Otherwise a message that is published while the bridge subscribes is sent as retained, too.
            let near = bridged(setup, &far, &format!("retained = \"live\"\n{OUT}"));
            // Maximum QoS, Receive Maximum 1, no retained messages.
            let mut peer = far.serve(false, &[0x24, maximum, 0x21, 0, 1, 0x25, 0]);
            connected(&near, 1);
            let mut client = publisher(&near);
            for number in 1..=5 {
                for qos in [2, 1] {
                    client.publish(Publish::new("t", number.to_string()).qos(qos, number).retain());
                    let got = peer.publish();
                    let expected = (&*number.to_string(), maximum, false);
                    assert_eq!((got.text(), got.qos, got.retain), expected, "{setup}");
                    if maximum == 1 {
                        peer.send(Ack::puback(got.id()));
                    }
                }
            }
        }
    });
}

#[test]
fn no_more_messages_are_under_way_than_the_far_broker_accepts() {
    const COUNT: u16 = 20;
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let near = bridged(setup, &far, OUT);
        let mut peer = far.serve(false, &[0x21, 0, 2]);
        let mut client = publisher(&near);
        for number in 0..COUNT {
            client.publish(Publish::new("t", number.to_string()).qos(1, number + 1));
        }
        let mut under_way = vec![peer.publish(), peer.publish()];
        for number in 2..COUNT {
            let more = peer.within(Duration::from_millis(10));
            assert_eq!(more, None, "{setup}: more than Receive Maximum");
            peer.send(Ack::puback(under_way.remove(0).id()));
            let got = peer.publish();
            assert_eq!(got.text(), number.to_string(), "{setup}");
            under_way.push(got);
        }
    });
}

#[test]
fn a_message_larger_than_the_far_broker_accepts_is_dropped_and_does_not_hold_the_others() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let near = bridged(setup, &far, OUT);
        // Maximum Packet Size 500, Receive Maximum 1.
        let mut peer = far.serve(false, &[0x27, 0, 0, 1, 0xF4, 0x21, 0, 1]);
        let mut client = publisher(&near);
        for number in 1..=3 {
            for (qos, bytes) in [(1, 501), (2, 501), (1, 600), (2, 2_000), (0, 5_000)] {
                let large = Publish::new("t/large", vec![b'x'; bytes]);
                match qos {
                    0 => client.send(large),
                    _ => client.publish(large.qos(qos, number)),
                }
            }
            client.publish(Publish::new("t/small", number.to_string()).qos(2, number));
            let got = peer.publish();
            assert_eq!((&*got.topic, got.text()), ("t/small", &*number.to_string()), "{setup}");
            peer.send(Ack::pubrec(got.id()));
            peer.expect(Ack::pubrel(got.id()));
            peer.send(Ack::pubcomp(got.id()));
        }
    });
}

#[test]
fn messages_just_below_the_maximum_packet_size_of_the_far_broker_are_at_most_so_large() {
    let far = Far::new();
    let near = bridged(ONE_SETUP, &far, OUT);
    let mut peer = far.serve(false, &[0x27, 0, 0, 1, 0xF4]);
    let mut client = publisher(&near);
    for bytes in 380..510u16 {
        client.publish(Publish::new("t", vec![b'x'; bytes.into()]).qos(1, bytes));
    }
    client.publish(Publish::new("t", "end").qos(1, 1));
    loop {
        let got = peer.publish();
        // Fixed header 3, topic 3, Packet Identifier 2, and at least the length of the properties.
        assert!(got.payload.len() + 9 <= 500, "{} bytes of payload", got.payload.len());
        peer.send(Ack::puback(got.id()));
        if got.payload == b"end" {
            break;
        }
    }
}

#[test]
fn a_far_broker_that_disconnects_refuses_or_sends_nonsense_is_connected_again() {
    let setup = ONE_SETUP;
    let far = Far::new();
    let near = started(setup, &far, &format!("version = \"5\"\n{OUT}"));
    // Closed without an answer.
    drop(far.accept());
    // Refusals: Server busy, Not authorized, Quota exceeded.
    for reason in [0x89, 0x87, 0x97] {
        let (mut peer, _) = far.accept();
        peer.raw(&[0x20, 3, 0, reason, 0]);
        peer.expect_end();
    }
    // No CONNACK, but bytes: other packets, a reserved type, an invalid length, another protocol.
    for nonsense in [
        &b"\x40\x02\x00\x01"[..],
        b"\x00\x00",
        b"\x20\xff\xff\xff\xff\xff",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x20\x01\x00",
        b"\x20\x03\x02\x00\x00",
    ] {
        let (mut peer, _) = far.accept();
        peer.raw(nonsense);
        peer.expect_end();
    }
    far.discard();
    for nonsense in [
        &b"\x20\x03\x00\x00\x00"[..],
        b"\x30\x02\x00\x05",
        b"\x36\x05\x00\x01a\x00\x01",
        b"\x40\x02\x00\x00",
        b"\x10\x00",
        b"\x82\x02\x00\x01",
        b"\xF0\x00",
    ] {
        let mut peer = far.serve(true, &[]);
        peer.raw(nonsense);
        peer.expect_end();
    }
    let mut peer = far.serve(true, &[]);
    peer.send(Disconnect::new().reason(0x8B));
    peer.expect_end();
    logged(&near, "the far broker has disconnected", 1);
    let mut peer = far.serve(true, &[]);
    publisher(&near).publish(Publish::new("t", "x").qos(1, 1));
    assert_eq!(peer.publish().text(), "x", "{setup}");
    connected(&near, 8);
}

#[test]
fn a_bridge_says_goodbye_when_the_broker_stops_and_keeps_its_session() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let mut near = bridged(setup, &far, OUT);
        let mut peer = far.serve(false, &[]);
        connected(&near, 1);
        near.stop();
        assert_eq!(peer.next(), Some(Packet::Disconnect), "{setup}");
        assert_eq!(peer.next(), None, "{setup}");
        near.await_end();
    });
}

#[test]
fn an_echo_of_a_plain_far_broker_is_acknowledged_and_does_not_reach_local_subscribers() {
    let rules =
        "version = \"3.1.1\"\n[[bridges.out]]\nfilter = \"t/#\"\n[[bridges.in]]\nfilter = \"#\"\n";
    let far = Far::new();
    let near = started(ONE_SETUP, &far, rules);
    // It knows 3.1.1, and not the bit of bridges.
    let (mut peer, connect) = far.accept();
    assert_eq!(connect.level, 0x84);
    peer.raw(&[0x20, 2, 0, 1]);
    peer.expect_end();
    far.discard();
    let (mut peer, connect) = far.accept();
    assert_eq!(connect.level, 4);
    peer.connack(false, &[]);
    peer.grant(&[2]);
    let mut here = Witness::at(&near, "t/#");
    let mut client = publisher(&near);
    client.publish(Publish::new("t/1", "x").qos(2, 1));
    assert_eq!(here.texts(1), ["x"]);
    let got = peer.publish();
    peer.send(Ack::pubrec(got.id()));
    peer.expect(Ack::pubrel(got.id()));
    peer.send(Ack::pubcomp(got.id()));
    peer.send(Publish::new("t/1", "x").qos(2, 5));
    peer.expect(Ack::pubrec(5));
    peer.send(Ack::pubrel(5));
    peer.expect(Ack::pubcomp(5));
    // The same of somebody else, and the end.
    peer.send(Publish::new("t/1", "x").qos(1, 6));
    peer.expect(Ack::puback(6));
    peer.send(Publish::new("t/1", "end").qos(1, 7));
    peer.expect(Ack::puback(7));
    assert_eq!(here.texts_before("end"), ["x"], "of somebody else, once");
}
