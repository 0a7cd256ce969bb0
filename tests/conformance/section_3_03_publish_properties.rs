//! 3.3.2: the Topic Name and the properties of PUBLISH.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::reason::{
    MALFORMED_PACKET, NO_MATCHING_SUBSCRIBERS, PAYLOAD_FORMAT_INVALID, PROTOCOL_ERROR,
    QUOTA_EXCEEDED, TOPIC_ALIAS_INVALID, TOPIC_NAME_INVALID,
};
use crate::support::{
    Broker, Client, Connect, Property, Publish, Subscribe, for_all_versions, for_versions, frame,
    property, string, user_properties,
};

/// The PUBLISH as received by a connected client, by one that was disconnected, and by one that
/// subscribes later.
fn received_by_all(publish: Publish) -> [Publish; 3] {
    let broker = Broker::start();
    let mut present = Client::connect(&broker, Connect::v5("present"));
    present.subscribe("a", 0);
    let away = || Connect::v5("away").durable();
    let mut client = Client::connect(&broker, away());
    client.subscribe("a", 1);
    client.disconnect();
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    publisher.publish(publish.qos(1, 1).retain());
    let mut late = Client::connect(&broker, Connect::v5("late"));
    late.subscribe("a", 0);
    let mut away = Client::connect(&broker, away());
    [present.expect_publish(), away.expect_publish(), late.expect_publish()]
}

/// All receivers receive exactly these properties.
#[track_caller]
fn expect_passed_on(properties: &[Property]) {
    let publish = Publish { properties: properties.to_vec(), ..Publish::new("a", "payload") };
    for received in received_by_all(publish) {
        assert_eq!(received.properties, properties);
    }
}

/// A string property with ill-formed UTF-8 ends the connection.
#[track_caller]
fn expect_string_is_checked(identifier: u8) {
    let broker = Broker::start();
    for value in [&b"\xFF"[..], b"a\0b"] {
        let property = Property::Raw([vec![identifier], string(value)].concat());
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.send(Publish::new("a", "payload").property(property));
        client.expect_disconnect(MALFORMED_PACKET);
    }
}

#[test]
fn mqtt_3_3_2_1_the_topic_name_is_the_first_field_and_checked_as_a_string() {
    for_versions(|version| {
        let broker = Broker::start();
        for rest in [&[][..], &[0x00], &[0x00, 0x02, b'a']] {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.raw(&frame(0x30, rest));
            client.expect_violation(MALFORMED_PACKET);
        }
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&frame(0x30, &[0x00, 0x01, 0xFF, 0x00]));
        client.expect_violation(MALFORMED_PACKET);
    });
}

#[test]
fn mqtt_3_3_2_2_topic_name_has_no_wildcard() {
    for_versions(|version| {
        let broker = Broker::start();
        for topic in ["#", "a/#", "+", "a/+/b", "a+", "a#b"] {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.send(Publish::new(topic, "payload"));
            client.expect_violation(TOPIC_NAME_INVALID);
        }
    });
}

#[test]
fn mqtt_3_3_2_3_the_topic_name_is_forwarded_unchanged() {
    for_all_versions(|version| {
        let broker = Broker::start();
        for filter in ["#", "a/+", "a/b", "+/b"] {
            let mut client = Client::connect(&broker, Connect::new(version, "c"));
            client.subscribe(filter, 0);
            client.send(Publish::new("a/b", "payload"));
            client.expect(Publish::new("a/b", "payload"));
            client.expect_alive();
        }
    });
}

#[test]
fn mqtt_3_3_2_4_the_payload_format_indicator_reaches_all_receivers() {
    expect_passed_on(&[]);
    expect_passed_on(&[Property::PayloadFormatIndicator(0)]);
    expect_passed_on(&[Property::PayloadFormatIndicator(1)]);
}

#[test]
fn a_payload_format_indicator_is_0_or_1() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.send(Publish::new("a", "payload").property(Property::PayloadFormatIndicator(2)));
    client.expect_disconnect(PROTOCOL_ERROR);
}

/// A PUBLISH whose Payload Format Indicator states text.
fn declared_as_text(payload: impl AsRef<[u8]>) -> Publish {
    Publish::new("a", payload).property(Property::PayloadFormatIndicator(1))
}

#[test]
fn a_payload_declared_as_utf_8_is_checked_if_configured() {
    let broker = Broker::with_config("mqtt.payload_format_validate = true");
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.subscribe("a", 0);
    for qos in [1, 2] {
        client.send(declared_as_text(b"\xFF").qos(qos, 1));
        let ack = client.expect_ack();
        assert_eq!((ack.kind, ack.reason), (3 + qos, PAYLOAD_FORMAT_INVALID));
    }
    for payload in ["é", ""] {
        client.publish(declared_as_text(payload).qos(1, 1));
        client.expect_message(payload);
    }
    // Without the indicator, the payload is bytes.
    client.send(Publish::new("a", b"\xFF"));
    assert_eq!(client.expect_publish().payload, b"\xFF");
    client.send(Publish::new("a", b"\xFF").property(Property::PayloadFormatIndicator(0)));
    assert_eq!(client.expect_publish().payload, b"\xFF");
    // QoS 0 has no acknowledgement that could carry the Reason Code.
    client.send(declared_as_text(b"\xFF"));
    client.expect_disconnect(PAYLOAD_FORMAT_INVALID);
}

#[test]
fn a_payload_declared_as_utf_8_is_not_checked_by_default() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.subscribe("a", 0);
    client.send(declared_as_text(b"\xFF"));
    client.expect(declared_as_text(b"\xFF"));
}

#[test]
fn mqtt_3_3_2_5_an_expired_message_is_not_delivered() {
    let broker = Broker::start();
    let connect = || Connect::v5("c").durable();
    let mut client = Client::connect(&broker, connect());
    client.subscribe("a/#", 1);
    client.disconnect();
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    let expires = Property::MessageExpiryInterval(1);
    publisher.publish(Publish::new("a/1", "expires").qos(1, 1).property(expires).retain());
    publisher.publish(Publish::new("a/2", "stays").qos(1, 1).retain());
    std::thread::sleep(Duration::from_millis(1200));
    let mut client = Client::connect(&broker, connect());
    client.expect_message("stays");
    client.expect_alive();
    let mut late = Client::connect(&broker, Connect::v5("late"));
    late.subscribe("a/#", 0);
    late.expect_message("stays");
    late.expect_alive();
}

#[test]
fn expired_messages_in_a_full_queue_make_room_for_new_ones() {
    for policy in ["drop-newest", "drop-oldest", "keep-latest"] {
        let broker = Broker::with_config(&format!(
            "limits.queue_messages_max = 20\nlimits.queue_policy = {policy:?}"
        ));
        let connect = || Connect::v5("c").durable();
        let mut client = Client::connect(&broker, connect());
        client.subscribe("a/#", 1);
        client.disconnect();
        let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
        for number in 1..=20 {
            // Two of them stay.
            let publish = Publish::new(&format!("a/{number}"), number.to_string()).qos(1, number);
            publisher.publish(match number % 10 {
                0 => publish,
                _ => publish.property(Property::MessageExpiryInterval(1)),
            });
        }
        std::thread::sleep(Duration::from_millis(1200));
        for number in 21..=38 {
            let topic = format!("a/{number}");
            publisher.publish(Publish::new(&topic, number.to_string()).qos(1, number));
        }
        let mut client = Client::connect(&broker, connect());
        for number in [10, 20].into_iter().chain(21..=38) {
            client.expect_message(&number.to_string());
        }
        client.expect_alive();
    }
}

#[test]
fn expired_retained_messages_make_room_for_new_ones() {
    let broker = Broker::with_config("limits.retained_messages_max = 20");
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    let retain = |publisher: &mut Client, number: u16| {
        let publish = Publish::new(&format!("a/{number}"), number.to_string()).qos(1, number);
        // Two of twenty stay.
        let expires = number <= 20 && !number.is_multiple_of(10);
        publisher.send(match expires {
            true => publish.property(Property::MessageExpiryInterval(1)).retain(),
            false => publish.retain(),
        });
        publisher.expect_ack().reason
    };
    for number in 1..=20 {
        assert_eq!(retain(&mut publisher, number), NO_MATCHING_SUBSCRIBERS, "{number}");
    }
    assert_eq!(retain(&mut publisher, 21), QUOTA_EXCEEDED);
    std::thread::sleep(Duration::from_millis(1200));
    for number in 21..=38 {
        assert_eq!(retain(&mut publisher, number), NO_MATCHING_SUBSCRIBERS, "{number}");
    }
    assert_eq!(retain(&mut publisher, 39), QUOTA_EXCEEDED);
}

#[test]
fn mqtt_3_3_2_6_the_message_expiry_interval_counts_down() {
    let broker = Broker::start();
    let connect = || Connect::v5("c").durable();
    let mut client = Client::connect(&broker, connect());
    client.subscribe("a", 1);
    client.disconnect();
    let mut present = Client::connect(&broker, Connect::v5("present"));
    present.subscribe("a", 0);
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    let expires = Property::MessageExpiryInterval(10);
    publisher.publish(Publish::new("a", "payload").qos(1, 1).property(expires).retain());
    let left = |client: &mut Client| {
        let publish = client.expect_message("payload");
        property!(publish.properties, MessageExpiryInterval).expect("what is left")
    };
    assert!((9..=10).contains(&left(&mut present)));
    std::thread::sleep(Duration::from_millis(1100));
    let mut late = Client::connect(&broker, Connect::v5("late"));
    late.subscribe("a", 0);
    for client in [&mut Client::connect(&broker, connect()), &mut late] {
        let left = left(client);
        assert!((6..=9).contains(&left), "{left}");
    }
}

/// A PUBLISH that sets an alias for its topic.
fn with_alias(topic: &str, alias: u16) -> Publish {
    Publish::new(topic, "payload").property(Property::TopicAlias(alias))
}

#[test]
fn mqtt_3_3_2_7_topic_aliases_do_not_outlive_their_connection() {
    let broker = Broker::start();
    let connect = || Connect::v5("c").durable().property(Property::TopicAliasMaximum(10));
    let mut client = Client::connect(&broker, connect());
    client.subscribe("a/#", 1);
    client.send(with_alias("elsewhere", 1));
    for _ in 0..3 {
        client.publish(Publish::new("a/topic/that/is/worth/an/alias", "payload").qos(1, 9));
        client.expect_message("payload");
    }
    client.disconnect();
    // A new connection starts without aliases in both directions.
    let mut client = Client::connect(&broker, connect());
    client.publish(Publish::new("a/topic/that/is/worth/an/alias", "payload").qos(1, 9));
    assert_eq!(client.expect_message("payload").topic, "a/topic/that/is/worth/an/alias");
    client.send(with_alias("", 1));
    client.expect_disconnect(PROTOCOL_ERROR);
}

#[test]
fn mqtt_3_3_2_8_a_topic_alias_is_not_0() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.send(with_alias("a", 0));
    client.expect_disconnect(TOPIC_ALIAS_INVALID);
}

#[test]
fn mqtt_3_3_2_9_a_topic_alias_above_the_servers_maximum_ends_the_connection() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    let maximum = property!(client.connack.properties, TopicAliasMaximum).unwrap_or(0);
    client.send(with_alias("a", maximum + 1));
    client.expect_disconnect(TOPIC_ALIAS_INVALID);
}

#[test]
fn mqtt_3_3_2_11_topic_aliases_of_the_server_stay_within_the_clients_maximum() {
    let broker = Broker::start();
    let connect = Connect::v5("c").property(Property::TopicAliasMaximum(3));
    let mut client = Client::connect(&broker, connect);
    client.subscribe("topic/#", 0);
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    let mut names = HashMap::new();
    for number in [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 0, 4, 4] {
        let topic = format!("topic/with/a/name/that/is/worth/an/alias/{number}");
        publisher.publish(Publish::new(&topic, "payload").qos(1, 1));
        let publish = client.expect_message("payload");
        let Some(alias) = property!(publish.properties, TopicAlias) else {
            assert_eq!(publish.topic, topic);
            continue;
        };
        assert!(alias <= 3, "{alias}");
        if !publish.topic.is_empty() {
            names.insert(alias, publish.topic);
        }
        assert_eq!(names.get(&alias), Some(&topic));
    }
}

#[test]
fn mqtt_3_3_2_12_all_topic_aliases_up_to_the_maximum_are_accepted() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    let maximum = property!(client.connack.properties, TopicAliasMaximum).unwrap_or(0);
    client.subscribe("t/#", 0);
    for alias in 1..=maximum {
        client.send(with_alias(&format!("t/{alias}"), alias));
        assert_eq!(client.expect_message("payload").topic, format!("t/{alias}"));
    }
    for alias in 1..=maximum {
        client.send(with_alias("", alias));
        let publish = client.expect_message("payload");
        // The publisher's aliases do not apply to the subscriber.
        assert_eq!((publish.topic, publish.properties), (format!("t/{alias}"), vec![]));
    }
    // An alias may be reassigned to another topic.
    client.send(with_alias("t/new", 1));
    client.expect_message("payload");
    client.send(with_alias("", 1));
    assert_eq!(client.expect_message("payload").topic, "t/new");
}

#[test]
fn an_unknown_topic_alias_is_a_protocol_error() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.send(with_alias("", 1));
    client.expect_disconnect(PROTOCOL_ERROR);
}

#[test]
fn an_empty_topic_name_without_alias_is_a_protocol_error() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.send(Publish::new("", "payload"));
    client.expect_disconnect(PROTOCOL_ERROR);
}

#[test]
fn topic_aliases_of_two_clients_are_independent() {
    let broker = Broker::start();
    let mut one = Client::connect(&broker, Connect::v5("one"));
    let mut two = Client::connect(&broker, Connect::v5("two"));
    let mut watcher = Client::connect(&broker, Connect::v5("watcher"));
    watcher.subscribe("of/+", 0);
    one.publish(with_alias("of/one", 1).qos(1, 1));
    two.publish(with_alias("of/two", 1).qos(1, 1));
    one.publish(with_alias("", 1).qos(1, 1));
    two.publish(with_alias("", 1).qos(2, 1));
    for topic in ["of/one", "of/two", "of/one", "of/two"] {
        assert_eq!(watcher.expect_publish().topic, topic);
    }
}

#[test]
fn a_message_with_only_a_topic_alias_is_retained_under_its_topic() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.send(with_alias("a/b", 3));
    client.publish(with_alias("", 3).qos(1, 1).retain());
    client.subscribe("a/+", 0);
    client.expect(Publish::new("a/b", "payload").retain());
}

#[test]
fn a_frequent_topic_is_sent_by_alias_to_clients_that_accept_aliases() {
    let broker = Broker::start();
    let connect = Connect::v5("c").property(Property::TopicAliasMaximum(1));
    let mut client = Client::connect(&broker, connect);
    client.subscribe("a/long/topic", 0);
    client.send(Publish::new("a/long/topic", "payload"));
    let first = client.expect_publish();
    if !broker.is_ours() && first.properties.is_empty() {
        return;
    }
    assert_eq!(first, with_alias("a/long/topic", 1));
    client.send(Publish::new("a/long/topic", "payload"));
    client.expect(with_alias("", 1));
}

#[test]
fn a_message_sent_again_does_not_use_aliases_of_the_previous_connection() {
    let broker = Broker::start();
    let connect = || Connect::v5("c").durable().property(Property::TopicAliasMaximum(10));
    let topic = "a/topic/that/is/worth/an/alias";
    let mut client = Client::connect(&broker, connect());
    client.subscribe(topic, 1);
    for _ in 0..2 {
        client.publish(Publish::new(topic, "payload").qos(1, 9));
        client.expect_publish();
    }
    client.vanish();
    let mut client = Client::connect(&broker, connect());
    let again = client.expect_publish();
    assert_eq!((again.dup, &again.topic[..]), (true, topic));
    let alias = property!(again.properties, TopicAlias);
    let next = client.expect_publish();
    let is_by_alias = alias.is_some() && property!(next.properties, TopicAlias) == alias;
    assert!(next.dup && (next.topic == topic || next.topic.is_empty() && is_by_alias), "{next:?}");
}

#[test]
fn mqtt_3_3_2_13_the_response_topic_is_checked_as_a_string() {
    expect_string_is_checked(0x08);
}

#[test]
fn mqtt_3_3_2_14_the_response_topic_has_no_wildcard() {
    let broker = Broker::start();
    for topic in ["a/#", "+", "a+"] {
        let mut client = Client::connect(&broker, Connect::v5("c"));
        client.send(Publish::new("a", "payload").property(Property::ResponseTopic(topic.into())));
        client.expect_disconnect(PROTOCOL_ERROR);
    }
}

#[test]
fn mqtt_3_3_2_15_the_response_topic_reaches_all_receivers() {
    expect_passed_on(&[Property::ResponseTopic("answers/to/é".into())]);
}

#[test]
fn mqtt_3_3_2_16_the_correlation_data_reaches_all_receivers() {
    expect_passed_on(&[Property::CorrelationData(vec![0x00, 0xFF, 0x80])]);
    expect_passed_on(&[Property::CorrelationData(vec![])]);
}

#[test]
fn mqtt_3_3_2_17_user_properties_reach_all_receivers() {
    expect_passed_on(&[Property::user("name", "value"), Property::user("é", "\u{FEFF}")]);
}

#[test]
fn mqtt_3_3_2_18_user_properties_keep_their_order() {
    let pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("a", "0"), ("c", "3")];
    let list = pairs.map(|(name, value)| Property::user(name, value));
    let publish = Publish { properties: list.to_vec(), ..Publish::new("a", "payload") };
    for received in received_by_all(publish) {
        assert_eq!(user_properties(&received.properties), pairs);
    }
}

#[test]
fn mqtt_3_3_2_19_the_content_type_is_checked_as_a_string() {
    expect_string_is_checked(0x03);
}

#[test]
fn mqtt_3_3_2_20_the_content_type_reaches_all_receivers() {
    expect_passed_on(&[Property::ContentType("application/é".into())]);
}

#[test]
fn properties_between_publisher_and_server_are_not_forwarded() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v5("c"));
    client.send(Subscribe::new(1, "a", 0).property(Property::SubscriptionIdentifier(5)));
    client.expect_suback();
    let kept = [
        Property::user("first", "1"),
        Property::ContentType("text".into()),
        Property::user("second", "2"),
        Property::CorrelationData(b"c".to_vec()),
    ];
    let mut publish = Publish { properties: kept.to_vec(), ..Publish::new("a", "payload") };
    publish.properties.insert(1, Property::TopicAlias(1));
    client.send(publish);
    let received = client.expect_message("payload").properties;
    assert_eq!(user_properties(&received), [("first", "1"), ("second", "2")]);
    assert!(received.contains(&Property::SubscriptionIdentifier(5)), "{received:?}");
    assert!(received.contains(&kept[1]) && received.contains(&kept[3]), "{received:?}");
    assert_eq!(received.len(), 5, "{received:?}");
}

#[test]
fn properties_are_not_sent_to_3_x_clients() {
    let broker = Broker::start();
    let mut old = Client::connect(&broker, Connect::v311("old"));
    old.subscribe("a", 0);
    let mut new = Client::connect(&broker, Connect::v5("new"));
    new.subscribe("a", 0);
    new.send(Publish::new("a", "from 5.0").property(Property::user("name", "value")));
    old.expect(Publish::new("a", "from 5.0"));
    new.expect_message("from 5.0");
    old.send(Publish::new("a", "from 3.1.1"));
    new.expect(Publish::new("a", "from 3.1.1"));
}
