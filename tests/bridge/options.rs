//! Keys of bridges that stand for options of other brokers.

use crate::far::{Far, Packet};
use crate::folder::Folder;
use crate::support::{Ack, Broker, Client, Connect, Publish};
use crate::{ONE_SETUP, SETUPS, Site, Witness, at_once, bridge, connected, flows, logged, publish};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";
const IN: &str = "[[bridges.in]]\nfilter = \"a/#\"\nqos = 1\n";
const OFFLINE: &str = "[bridges.queue]\noffline = false\n";

/// Waits until the session of the bridge has been open that many times, the first time without a far broker.
#[track_caller]
fn session_open(near: &Broker, times: usize) {
    logged(near, "\"keep_alive_s\":0,\"clean_start\":false,", times);
}

#[test]
fn a_bridge_that_queues_nothing_while_it_is_away_sends_what_is_published_while_it_is_connected() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let near = Site::new(setup).bridge("far", far.address, &format!("{OUT}{OFFLINE}")).start();
        far.discard();
        let mut peer = far.serve(false, &[]);
        session_open(&near, 2);
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        for number in 0..20 {
            client.publish(Publish::new("t/1", number.to_string()).qos(1, number + 1));
            let got = peer.publish();
            assert_eq!(got.text(), number.to_string(), "{setup}");
            peer.send(Ack::puback(got.id()));
        }
        drop(peer);
        logged(&near, "\"bridge is not connected\"", 1);
        for number in 0..20 {
            client.publish(Publish::new("t/1", "dropped").qos(1 + (number % 2) as u8, number + 1));
        }
        let (mut peer, _) = far.accept();
        peer.connack(true, &[]);
        session_open(&near, 3);
        client.publish(Publish::new("t/1", "next").qos(1, 1));
        assert_eq!(peer.publish().text(), "next", "{setup}");
    });
}

#[test]
fn what_waits_for_a_bridge_that_queues_nothing_while_it_is_away_is_dropped_with_the_connection() {
    // Receive Maximum 2: the other messages wait.
    const RECEIVE_MAXIMUM_2: &[u8] = &[0x21, 0, 2];
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let near =
            Site::new(setup).with_store().bridge("far", far.address, &format!("{OUT}{OFFLINE}"));
        let running = near.start();
        far.discard();
        let mut peer = far.serve(false, RECEIVE_MAXIMUM_2);
        session_open(&running, 2);
        let mut client = Client::connect(&running, Connect::v5("publisher"));
        for number in 0..2_000 {
            client.publish(Publish::new("t/1", number.to_string()).qos(1, number % 20 + 1));
        }
        assert_eq!([peer.publish(), peer.publish()].map(|of| of.text().to_owned()), ["0", "1"]);
        drop(peer);
        logged(&running, "\"bridge is not connected\"", 1);
        let (mut peer, _) = far.accept();
        peer.connack(true, &[]);
        // What was under way comes again.
        for number in ["0", "1"] {
            let got = peer.publish();
            assert_eq!((got.text(), got.dup), (number, true), "{setup}");
            peer.send(Ack::puback(got.id()));
        }
        session_open(&running, 3);
        client.publish(Publish::new("t/1", "next").qos(1, 1));
        let got = peer.publish();
        assert_eq!(got.text(), "next", "{setup}");
    });
}

#[test]
fn a_far_broker_uses_as_many_topic_aliases_as_it_is_allowed() {
    let of = |topic: &str, alias: u8| {
        let topic_bytes = [&[0, topic.len() as u8], topic.as_bytes()].concat();
        let rest = [&topic_bytes[..], &[3, 0x23, 0, alias], b"text"].concat();
        [&[0x30, rest.len() as u8], &rest[..]].concat()
    };
    let keys = format!("topic_alias_maximum = 2\n{IN}");
    let far = Far::new();
    let near = Site::new(ONE_SETUP).bridge("far", far.address, &keys).start();
    let mut here = Witness::at(&near, "a/#");
    far.discard();
    let mut peer = far.serve(false, &[]);
    peer.grant(&[1]);
    for (topic, alias) in [("a/one", 1), ("a/two", 2), ("", 1), ("", 2), ("a/three", 1), ("", 1)] {
        peer.raw(&of(topic, alias));
    }
    let topics: Vec<String> = (0..6).map(|_| here.next().topic).collect();
    assert_eq!(topics, ["a/one", "a/two", "a/one", "a/two", "a/three", "a/three"]);
    peer.raw(&of("a/four", 3));
    logged(&near, "above Topic Alias Maximum", 1);
    // Aliases end with the connection.
    let mut peer = far.serve(true, &[]);
    peer.grant(&[1]);
    peer.raw(&of("", 1));
    logged(&near, "a Topic Alias that it has not set", 1);
}

#[test]
fn a_bridge_gives_up_subscriptions_to_what_goes_out_in_a_session_that_was_kept() {
    let rules = "unsubscribe_out = true\n\
                 [[bridges.out]]\nfilter = \"site/#\"\nlocal_prefix = \"site/\"\nremote_prefix = \"plant/\"\n\
                 [[bridges.out]]\nfilter = \"a/#\"\n[[bridges.in]]\nfilter = \"a/#\"\nqos = 1\n";
    let far = Far::new();
    let _near = Site::new(ONE_SETUP).bridge("far", far.address, rules).start();
    far.discard();
    let mut peer = far.serve(false, &[]);
    peer.grant(&[1]);
    drop(peer);
    // A session from before may have them; the other one was new.
    let mut peer = far.serve(true, &[]);
    peer.grant(&[1]);
    assert_eq!(peer.unsubscribed(), ["plant/#"], "and not what comes in, too");
}

#[test]
fn a_lazy_reload_holds_when_the_connection_has_ended_by_itself() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let site = Site::new(setup);
        let table = |keys: &str| {
            let more = format!("reload = \"lazy\"\n{keys}\n{IN}{OUT}");
            bridge("far", far.address, &more)
        };
        let near = site.start_with(&table(""));
        far.discard();
        let mut peer = far.serve(false, &[]);
        peer.grant(&[1]);
        near.reconfigure(&site.text(&table("client_identifier = \"next\"")));
        logged(&near, "holds for the next connection", 1);
        logged(&near, "\"effect\":\"deferred\"", 1);
        // The last reload counts.
        near.reconfigure(&site.text(&table("client_identifier = \"last\"\nkeep_alive_s = 33")));
        logged(&near, "holds for the next connection", 2);
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        client.publish(Publish::new("t/1", "on the same connection").qos(1, 1));
        let got = peer.publish();
        assert_eq!(got.text(), "on the same connection", "{setup}");
        peer.send(Ack::puback(got.id()));
        drop(peer);
        let (_, connect) = far.accept();
        assert_eq!((&*connect.client_identifier, connect.keep_alive_s), ("last", 33), "{setup}");
    });
}

#[test]
fn a_lazy_bridge_table_that_is_changed_to_immediate_connects_again_at_once() {
    let far = Far::new();
    let site = Site::new(ONE_SETUP);
    let table = |keys: &str| bridge("far", far.address, &format!("{keys}\n{IN}{OUT}"));
    let near = site.start_with(&table("reload = \"lazy\""));
    far.discard();
    let mut peer = far.serve(false, &[]);
    peer.grant(&[1]);
    near.reconfigure(&site.text(&table("reload = \"lazy\"\nkeep_alive_s = 30")));
    logged(&near, "holds for the next connection", 1);
    near.reconfigure(&site.text(&table("reload = \"immediate\"\nkeep_alive_s = 31")));
    assert_eq!(peer.next(), Some(Packet::Disconnect));
    drop(peer);
    assert_eq!(far.accept().1.keep_alive_s, 31);
}

#[test]
fn rules_know_a_bridge_by_its_own_client_identifier() {
    let acl = "for user bridge\n  allow subscribe t/#\n  allow publish of/%c/#\n\
               for anonymous\n  allow all #\n";
    at_once(SETUPS.iter().copied(), |setup| {
        let number = crate::NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = Folder::new(&format!("known-{number}"));
        let file = folder.write("acl", acl);
        let rules = "user = \"bridge\"\nlocal_client_identifier = \"plant 7\"\n\
                     [[bridges.in]]\nfilter = \"of/#\"\n";
        let far = Site::new(setup);
        let near = Site::new(setup)
            .with(&format!("[access]\nanonymous = true\nacl_file = {file:?}"))
            .bridge("far", far.address, rules);
        let (far, near) = (far.start(), near.start());
        connected(&near, 1);
        flows(&far, "of/plant 7/probe", &near, "of/plant 7/probe");
        let mut here = Witness::at(&near, "of/#");
        publish(&far, Publish::new("of/$bridge/far/a", "denied").qos(1, 1));
        publish(&far, Publish::new("of/plant 7/a", "allowed").qos(1, 1));
        assert_eq!(here.texts(1), ["allowed"], "{setup}");
    });
}
