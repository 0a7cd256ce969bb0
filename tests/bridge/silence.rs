//! Far brokers that swallow packets. A Keep Alive is 5 s at least, so that these tests take seconds.

use crate::ONE_SETUP;
use crate::Site;
use crate::far::{Far, Packet, Peer};
use crate::support::{Ack, Broker, Client, Connect, Publish};

const OUT: &str = "keep_alive_s = 5\nstalled_s = 5\n[[bridges.out]]\nfilter = \"t/#\"\n";

/// A bridge with a message on its way.
fn begin(qos: u8) -> (Broker, Far, Peer, Publish) {
    let far = Far::new();
    let near = Site::new(ONE_SETUP).bridge("far", far.address, OUT).start();
    far.discard();
    let mut peer = far.serve(false, &[]);
    let mut client = Client::connect(&near, Connect::v5("publisher"));
    client.publish(Publish::new("t", "x").qos(qos, 1));
    let got = peer.publish();
    (near, far, peer, got)
}

#[test]
fn a_far_broker_that_answers_no_pingreq_is_connected_again_and_gets_the_message_again() {
    let (_near, far, mut peer, got) = begin(1);
    // Acknowledged, then silent.
    peer.send(Ack::puback(got.id()));
    assert_eq!(peer.next(), Some(Packet::Pingreq));
    assert_eq!(peer.next(), None, "the end of the connection");
    far.serve(true, &[]);
}

#[test]
fn a_far_broker_that_answers_pingreq_and_acknowledges_nothing_is_connected_again() {
    for qos in [1, 2] {
        let (_near, far, mut peer, got) = begin(qos);
        let mut pings = 0;
        loop {
            match peer.next() {
                Some(Packet::Pingreq) => peer.raw(&[0xD0, 0]),
                Some(Packet::Disconnect) => {}
                None => break,
                other => panic!("{other:?}"),
            }
            pings += 1;
            assert!(pings < 100, "the connection does not end");
        }
        let mut peer = far.serve(true, &[]);
        assert_eq!(peer.publish(), got.dup(), "QoS {qos}");
    }
}

#[test]
fn a_far_broker_that_acknowledges_nothing_is_connected_again_after_stalled_s_whatever_the_keep_alive_is()
 {
    let far = Far::new();
    let out = "keep_alive_s = 65535\nstalled_s = 1\n[[bridges.out]]\nfilter = \"t/#\"\n";
    let near = Site::new(ONE_SETUP).bridge("far", far.address, out).start();
    far.discard();
    let mut peer = far.serve(false, &[]);
    Client::connect(&near, Connect::v5("publisher")).publish(Publish::new("t", "x").qos(1, 1));
    let got = peer.publish();
    peer.expect_end();
    crate::logged(&near, "no message was acknowledged for the time of stalled_s", 1);
    let mut peer = far.serve(true, &[]);
    assert_eq!(peer.publish(), got.dup());
}

#[test]
fn a_far_broker_that_does_not_answer_connect_is_connected_again() {
    let far = Far::new();
    let near = Site::new(ONE_SETUP).bridge("far", far.address, OUT).start();
    let (mut silent, _) = far.accept();
    silent.expect_end();
    far.discard();
    let mut peer = far.serve(false, &[]);
    Client::connect(&near, Connect::v5("publisher")).publish(Publish::new("t", "x").qos(1, 1));
    assert_eq!(peer.publish().text(), "x");
}

#[test]
fn a_far_broker_that_completes_no_qos_2_exchange_is_connected_again_and_gets_pubrel_again() {
    let (_near, far, mut peer, got) = begin(2);
    peer.send(Ack::pubrec(got.id()));
    peer.expect(Ack::pubrel(got.id()));
    loop {
        match peer.next() {
            Some(Packet::Pingreq) => peer.raw(&[0xD0, 0]),
            Some(Packet::Disconnect) => {}
            None => break,
            other => panic!("{other:?}"),
        }
    }
    let mut peer = far.serve(true, &[]);
    peer.expect(Ack::pubrel(got.id()));
    peer.send(Ack::pubcomp(got.id()));
}

#[test]
fn a_quiet_connection_whose_far_broker_answers_pingreq_stays() {
    let (near, _far, mut peer, got) = begin(1);
    peer.send(Ack::puback(got.id()));
    for _ in 0..3 {
        assert_eq!(peer.next(), Some(Packet::Pingreq));
        peer.raw(&[0xD0, 0]);
    }
    Client::connect(&near, Connect::v5("later")).publish(Publish::new("t", "y").qos(1, 1));
    assert_eq!(peer.publish().text(), "y");
}
