//! What a publisher is told of its PUBLISH, and what it may send on.

use super::{publisher, subscriber};
use crate::support::reason::{NO_MATCHING_SUBSCRIBERS, NOT_AUTHORIZED, QUOTA_EXCEEDED, SUCCESS};
use crate::support::{Ack, Broker, Client, Publish, V5, V31, V311};

/// The reason in the PUBACK or PUBREC of this PUBLISH; an exchange that goes on is brought to its
/// end.
#[track_caller]
fn reason_of(client: &mut Client, publish: Publish) -> u8 {
    client.send(&publish);
    let ack = client.expect_ack();
    assert_eq!((ack.kind, ack.packet_identifier), (3 + publish.qos, publish.id()));
    if publish.qos == 2 && ack.reason < 0x80 {
        client.send(Ack::pubrel(publish.id()));
        client.expect(Ack::pubcomp(publish.id()));
    }
    ack.reason
}

#[test]
fn a_publish_without_matching_subscribers_is_acknowledged_with_0x10() {
    let broker = Broker::start();
    // Where the specification says that a server may, this one does.
    let nobody = if broker.is_ours() { &[NO_MATCHING_SUBSCRIBERS][..] } else { &[0x00, 0x10] };
    let _subscriber = subscriber(&broker, V5, "heard", 0);
    let mut client = publisher(&broker, V5);
    for qos in [1, 2] {
        let reason = reason_of(&mut client, Publish::new("unheard", "payload").qos(qos, 1));
        assert!(nobody.contains(&reason), "{reason:#04x}");
        let reason = reason_of(&mut client, Publish::new("heard", "payload").qos(qos, 1));
        assert_eq!(reason, SUCCESS);
    }
}

#[test]
fn a_publish_that_is_not_allowed_is_refused_with_0x87_and_leaves_nothing_behind() {
    // A refused message at QoS 2 takes no place in the Receive Maximum.
    let broker = Broker::with_config("limits.receive_maximum = 1");
    let mut watcher = subscriber(&broker, V5, "$SYS/mine", 0);
    let mut client = publisher(&broker, V5);
    for id in 1..=3 {
        for qos in [1, 2] {
            let publish = Publish::new("$SYS/mine", "payload").qos(qos, id).retain();
            assert_eq!(reason_of(&mut client, publish), NOT_AUTHORIZED);
        }
    }
    client.publish(Publish::new("a", "payload").qos(2, 1));
    watcher.expect_alive();
    subscriber(&broker, V5, "$SYS/mine", 0).expect_alive();
}

#[test]
fn a_retained_message_beyond_the_bound_is_refused_with_0x97() {
    let broker = Broker::with_config("limits.retained_messages_max = 1");
    let mut watcher = subscriber(&broker, V5, "#", 0);
    let mut client = publisher(&broker, V5);
    client.publish(Publish::new("a", "first").qos(1, 1).retain());
    watcher.expect_message("first");
    for qos in [1, 2] {
        let publish = Publish::new("b", "too many").qos(qos, 1).retain();
        assert_eq!(reason_of(&mut client, publish), QUOTA_EXCEEDED);
    }
    watcher.expect_alive();
    // Another message for the same topic needs no room, and a removal makes some.
    client.publish(Publish::new("a", "second").qos(1, 1).retain());
    watcher.expect_message("second");
    client.publish(Publish::new("a", "").qos(1, 1).retain());
    watcher.expect_message("");
    client.publish(Publish::new("b", "fits").qos(1, 1).retain());
    watcher.expect_message("fits");
    subscriber(&broker, V5, "#", 0).expect(Publish::new("b", "fits").retain());
}

#[test]
fn a_retained_message_beyond_the_bound_of_bytes_is_refused_with_0x97() {
    let broker = Broker::with_config("limits.retained_bytes_max = 1000");
    let mut client = publisher(&broker, V5);
    let retained = |topic, length| Publish::new(topic, "x".repeat(length)).qos(1, 1).retain();
    assert_ne!(reason_of(&mut client, retained("a", 500)), QUOTA_EXCEEDED);
    assert_eq!(reason_of(&mut client, retained("b", 600)), QUOTA_EXCEEDED);
    // In place of the one before there is room for it.
    assert_ne!(reason_of(&mut client, retained("a", 600)), QUOTA_EXCEEDED);
}

#[test]
fn where_no_refusal_can_be_told_a_retained_message_beyond_the_bound_is_still_delivered() {
    let broker = Broker::with_config("limits.retained_messages_max = 1");
    for (version, qos) in [(V31, 2), (V311, 1), (V5, 0)] {
        let mut watcher = subscriber(&broker, version, "b", 0);
        let mut client = publisher(&broker, version);
        client.publish(Publish::new("a", "kept").qos(1, 1).retain());
        let mut publish = Publish::new("b", "passing").retain();
        if qos > 0 {
            publish = publish.qos(qos, 1);
        }
        client.publish(publish);
        watcher.expect(Publish::new("b", "passing"));
        subscriber(&broker, version, "b", 0).expect_alive();
    }
}

#[test]
fn what_was_acknowledged_takes_no_place_in_the_servers_receive_maximum() {
    let broker = Broker::with_config("limits.receive_maximum = 1");
    let mut client = publisher(&broker, V5);
    client.send(Publish::new("a", "unfinished").qos(2, 1));
    assert_eq!(client.expect_ack().kind, 5);
    // Neither does QoS 0 take one.
    for _ in 0..3 {
        client.send(Publish::new("a", "payload"));
    }
    client.expect_alive();
    client.send(Ack::pubrel(1));
    client.expect(Ack::pubcomp(1));
    for id in 1..=3 {
        client.publish(Publish::new("a", "payload").qos(1, id));
        client.publish(Publish::new("a", "payload").qos(2, id));
    }
}
