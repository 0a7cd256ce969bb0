//! Far brokers of MQTT 5.0 that refuse subscriptions with No Local.

use crate::far::{Far, Packet, Peer};
use crate::support::{Broker, Client, Connect, Publish};
use crate::{ONE_SETUP, SETUPS, Site, Witness, at_once, logged};

/// No Local in the options of a subscription.
const NO_LOCAL: u8 = 4;
const RULES: &str =
    "version = \"5\"\n[[bridges.out]]\nfilter = \"a/#\"\n[[bridges.in]]\nfilter = \"a/#\"\n";

/// What the bridge subscribes to; whether it asks for No Local.
#[track_caller]
fn asked(peer: &mut Peer, reason: u8) -> bool {
    let filters = peer.grant(&[reason]);
    let [(filter, options)] = &filters[..] else { panic!("{filters:?}") };
    assert_eq!(filter, "a/#");
    options & NO_LOCAL != 0
}

/// What the far broker sends back is dropped, and what others publish there passes.
#[track_caller]
fn echoes_are_dropped(near: &Broker, peer: &mut Peer) {
    let mut here = Witness::at(near, "a/#");
    let mut client = Client::connect(near, Connect::v5("publisher"));
    for text in ["one", "two"] {
        client.publish(Publish::new("a/x", text).qos(1, 1));
        let sent = peer.publish();
        assert_eq!(sent.text(), text);
        // Without its path, as brokers do that pass no User Properties on.
        peer.send(Publish::new("a/x", text).qos(1, 1));
        peer.expect(crate::support::Ack::puback(1));
        peer.send(crate::support::Ack::puback(sent.id()));
    }
    peer.send(Publish::new("a/x", "of another"));
    assert_eq!(here.texts_before("of another"), ["one", "two"]);
}

#[test]
fn a_far_broker_that_refuses_no_local_is_asked_without_it_and_what_it_sends_back_is_dropped() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let near = Site::new(setup).bridge("far", far.address, RULES).start();
        far.discard();
        let mut peer = far.serve(false, &[]);
        assert!(asked(&mut peer, 0x83), "{setup}");
        assert!(!asked(&mut peer, 2), "{setup}: once more without");
        logged(&near, "grants subscriptions only without No Local", 1);
        echoes_are_dropped(&near, &mut peer);
        drop(peer);
        // On the next connection it is not asked for, and the log does not say it again.
        let mut peer = far.serve(true, &[]);
        assert!(!asked(&mut peer, 2), "{setup}");
        echoes_are_dropped(&near, &mut peer);
        assert_eq!(near.log().matches("without No Local").count(), 1, "{setup}");
    });
}

#[test]
fn a_subscription_that_is_refused_without_no_local_too_is_refused_for_its_first_reason() {
    let far = Far::new();
    let near = Site::new(ONE_SETUP).bridge("far", far.address, RULES).start();
    far.discard();
    let mut peer = far.serve(false, &[]);
    assert!(asked(&mut peer, 0x8F));
    assert!(!asked(&mut peer, 0x80));
    logged(&near, "\"code\":143", 1);
    assert!(!near.log().contains("without No Local"));
    drop(peer);
    let mut peer = far.serve(true, &[]);
    assert!(asked(&mut peer, 2), "No Local was not the reason");
}

#[test]
fn a_far_broker_that_ends_connections_with_no_local_is_connected_without_it() {
    at_once([true, false].into_iter(), |says_why| {
        let far = Far::new();
        let near = Site::new(ONE_SETUP).bridge("far", far.address, RULES).start();
        far.discard();
        for session_present in [false, true] {
            let mut peer = far.serve(session_present, &[]);
            match peer.next() {
                Some(Packet::Subscribe(_, filters)) => assert!(filters[0].1 & NO_LOCAL != 0),
                other => panic!("{other:?}"),
            }
            if says_why {
                // DISCONNECT, protocol error
                peer.raw(&[0xE0, 2, 0x82, 0]);
                peer.expect_end();
            }
        }
        let mut peer = far.serve(true, &[]);
        assert!(!asked(&mut peer, 2));
        logged(&near, "ends connections that subscribe with No Local", 1);
        echoes_are_dropped(&near, &mut peer);
    });
}

#[test]
fn a_connection_that_ends_for_another_reason_while_it_subscribes_says_nothing_of_no_local() {
    let far = Far::new();
    let near = Site::new(ONE_SETUP).bridge("far", far.address, RULES).start();
    far.discard();
    for session_present in [false, true, true] {
        let mut peer = far.serve(session_present, &[]);
        assert!(matches!(peer.next(), Some(Packet::Subscribe(..))));
        // DISCONNECT, server shutting down
        peer.raw(&[0xE0, 2, 0x8B, 0]);
        peer.expect_end();
    }
    let mut peer = far.serve(true, &[]);
    assert!(asked(&mut peer, 2));
    assert!(!near.log().contains("No Local"));
}
