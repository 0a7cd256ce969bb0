//! How the server answers a PUBLISH, and the Receive Maximum of the server.

use super::{publisher, subscriber};
use crate::support::reason::{NO_MATCHING_SUBSCRIBERS, NOT_AUTHORIZED, QUOTA_EXCEEDED, SUCCESS};
use crate::support::{Ack, Broker, Client, Publish, V5, V31, V311};

/// The Reason Code in the PUBACK or PUBREC for this PUBLISH; an exchange that continues is
/// completed.
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
    // This server uses the optional Reason Code 0x10.
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
fn an_unauthorized_publish_is_refused_with_0x87_without_side_effects() {
    // A refused QoS 2 message does not count towards the Receive Maximum.
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
fn a_retained_message_beyond_the_limit_is_refused_with_0x97() {
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
    // Replacing a retained message needs no room, and removing one frees some.
    client.publish(Publish::new("a", "second").qos(1, 1).retain());
    watcher.expect_message("second");
    client.publish(Publish::new("a", "").qos(1, 1).retain());
    watcher.expect_message("");
    client.publish(Publish::new("b", "fits").qos(1, 1).retain());
    watcher.expect_message("fits");
    subscriber(&broker, V5, "#", 0).expect(Publish::new("b", "fits").retain());
}

#[test]
fn a_retained_message_beyond_the_byte_limit_is_refused_with_0x97() {
    let broker = Broker::with_config("limits.retained_bytes_max = 1000");
    let mut client = publisher(&broker, V5);
    let retained = |topic, length| Publish::new(topic, "x".repeat(length)).qos(1, 1).retain();
    assert_ne!(reason_of(&mut client, retained("a", 500)), QUOTA_EXCEEDED);
    assert_eq!(reason_of(&mut client, retained("b", 600)), QUOTA_EXCEEDED);
    // Replacing a smaller message leaves enough room.
    assert_ne!(reason_of(&mut client, retained("a", 600)), QUOTA_EXCEEDED);
}

#[test]
fn a_retained_message_beyond_the_limit_is_still_delivered_if_it_cannot_be_refused() {
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
fn acknowledged_messages_do_not_count_towards_the_servers_receive_maximum() {
    let broker = Broker::with_config("limits.receive_maximum = 1");
    let mut client = publisher(&broker, V5);
    client.send(Publish::new("a", "unfinished").qos(2, 1));
    assert_eq!(client.expect_ack().kind, 5);
    // Nor does QoS 0.
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
