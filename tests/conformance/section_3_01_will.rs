//! 3.1.2.5 and 3.1.3.2: the Will Message.

use std::time::{Duration, Instant};

use crate::support::reason::{DISCONNECT_WITH_WILL, MALFORMED_PACKET, SESSION_TAKEN_OVER};
use crate::support::{
    Broker, Client, Connect, Disconnect, Property, V5, V31, V311, Version, Will, for_all_versions,
    for_each_version, for_versions, property, settle, user_properties,
};

fn watcher(broker: &Broker, version: Version) -> Client {
    let mut watcher = Client::connect(broker, Connect::new(version, "watcher"));
    watcher.subscribe("will/#", 2);
    watcher
}

fn will() -> Will {
    Will::new("will/of/c", "last words")
}

/// A 5.0 client with a Will whose session outlives the connection.
fn heir(broker: &Broker, will: Will) -> Client {
    Client::connect(broker, Connect::v5("c").durable().will(will))
}

#[test]
fn mqtt_3_1_2_7_the_will_is_stored_and_published_at_its_qos() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut watcher = watcher(&broker, version);
        for qos in [0, 1, 2] {
            let connect = Connect::new(version, "c").will(will().qos(qos));
            let client = Client::connect(&broker, connect);
            watcher.expect_alive();
            client.vanish();
            let publish = watcher.expect_message("last words");
            assert_eq!((publish.topic.as_str(), publish.qos), ("will/of/c", qos));
        }
    });
}

#[test]
fn mqtt_3_1_2_8_the_will_is_published_when_the_connection_ends_without_disconnect() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut watcher = watcher(&broker, version);
        let connect = || Connect::new(version, "c").will(will());
        // The network connection is lost.
        Client::connect(&broker, connect()).vanish();
        watcher.expect_message("last words");
        // The client violates the protocol.
        let mut client = Client::connect(&broker, connect());
        client.raw(&[0x00, 0x00]);
        client.expect_violation(MALFORMED_PACKET);
        watcher.expect_message("last words");
        // Another client takes over the Client Identifier.
        let _client = Client::connect(&broker, connect());
        Client::connect(&broker, Connect::new(version, "c")).disconnect();
        watcher.expect_message("last words");
        // The client disconnects normally.
        Client::connect(&broker, connect()).disconnect();
        watcher.expect_alive();
    });
}

#[test]
fn mqtt_311_3_1_2_8_the_will_is_published_unless_the_client_sent_disconnect() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        let mut watcher = watcher(&broker, version);
        for connect in [Connect::new(version, "c"), Connect::new(version, "c").resume()] {
            Client::connect(&broker, connect.clone().will(will())).vanish();
            watcher.expect_message("last words");
            Client::connect(&broker, connect.will(will())).disconnect();
            watcher.expect_alive();
        }
    });
}

#[test]
fn mqtt_3_1_2_8_disconnect_0x04_publishes_the_will() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, V5);
    let client = Client::connect(&broker, Connect::v5("c").will(will()));
    client.disconnect_with(Disconnect::new().reason(DISCONNECT_WITH_WILL));
    watcher.expect_message("last words");
}

#[test]
fn mqtt_3_1_2_8_the_will_is_published_after_its_delay() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, V5);
    heir(&broker, will().delay(1)).vanish();
    let since = Instant::now();
    watcher.expect_silence(Duration::from_millis(700));
    let publish = watcher.expect_message("last words");
    let waited = since.elapsed().as_secs_f32();
    assert!((0.9..2.5).contains(&waited), "published after {waited} s");
    // The delay is not forwarded to subscribers.
    assert_eq!(publish.properties, []);
}

#[test]
fn mqtt_3_1_2_8_the_will_is_published_when_the_session_ends() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, V5);
    // The session ends with the connection.
    Client::connect(&broker, Connect::v5("c").will(will().delay(3600))).vanish();
    watcher.expect_message("last words");
    // The session ends because DISCONNECT sets its Session Expiry Interval to 0.
    let client = heir(&broker, will().delay(3600));
    let ends = Property::SessionExpiryInterval(0);
    client.disconnect_with(Disconnect::new().reason(DISCONNECT_WITH_WILL).property(ends));
    watcher.expect_message("last words");
    // The session ends because of Clean Start.
    heir(&broker, will().delay(3600)).vanish();
    watcher.expect_alive();
    let _client = Client::connect(&broker, Connect::v5("c"));
    watcher.expect_message("last words");
    // The session ends because its Session Expiry Interval passes.
    let connect = Connect::v5("d").resume().expiry(1).will(will().delay(3600));
    Client::connect(&broker, connect).vanish();
    let since = Instant::now();
    watcher.expect_message("last words");
    let waited = since.elapsed().as_secs_f32();
    assert!((0.9..2.5).contains(&waited), "published after {waited} s");
}

#[test]
fn mqtt_3_1_2_10_the_will_is_removed_once_published_or_after_disconnect() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut watcher = watcher(&broker, version);
        let connect = || Connect::new(version, "c").durable();
        Client::connect(&broker, connect().will(will())).vanish();
        watcher.expect_message("last words");
        // The session is resumed without the Will.
        let client = Client::connect(&broker, connect());
        assert!(client.connack.session_present);
        client.vanish();
        watcher.expect_alive();
        Client::connect(&broker, connect().will(will())).disconnect();
        Client::connect(&broker, connect()).vanish();
        watcher.expect_alive();
    });
}

#[test]
fn mqtt_311_3_1_2_12_without_a_will_nothing_is_published() {
    for_each_version(&[V31, V311], |version| {
        let broker = Broker::start();
        let mut watcher = watcher(&broker, version);
        watcher.subscribe("#", 2);
        Client::connect(&broker, Connect::new(version, "c")).vanish();
        watcher.expect_alive();
    });
}

#[test]
fn a_will_replaces_that_of_the_previous_connection() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, V5);
    heir(&broker, Will::new("will/of/c", "first").delay(3600)).vanish();
    heir(&broker, Will::new("will/of/c", "second")).vanish();
    watcher.expect_message("second");
    watcher.expect_alive();
}

#[test]
fn mqtt_3_1_2_14_without_will_retain_the_will_is_not_retained() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut early = watcher(&broker, version);
        Client::connect(&broker, Connect::new(version, "c").will(will())).vanish();
        assert!(!early.expect_message("last words").retain);
        settle();
        let mut late = Client::connect(&broker, Connect::new(version, "late"));
        late.subscribe("will/#", 0);
        late.expect_alive();
    });
}

#[test]
fn mqtt_3_1_2_15_with_will_retain_the_will_is_retained() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut early = watcher(&broker, version);
        Client::connect(&broker, Connect::new(version, "c").will(will().retain())).vanish();
        assert!(!early.expect_message("last words").retain);
        settle();
        let mut late = Client::connect(&broker, Connect::new(version, "late"));
        late.subscribe("will/#", 0);
        assert!(late.expect_message("last words").retain);
        // An empty payload removes the retained message, as with PUBLISH.
        let nothing = Will::new("will/of/c", "").retain();
        Client::connect(&broker, Connect::new(version, "c").will(nothing)).vanish();
        assert!(early.expect_message("").payload.is_empty());
        settle();
        let mut later = Client::connect(&broker, Connect::new(version, "later"));
        later.subscribe("will/#", 0);
        later.expect_alive();
    });
}

#[test]
fn mqtt_3_1_3_9_a_new_connection_within_the_delay_cancels_the_will() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, V5);
    heir(&broker, will().delay(1)).vanish();
    let client = Client::connect(&broker, Connect::v5("c").durable());
    assert!(client.connack.session_present);
    watcher.expect_silence(Duration::from_millis(1500));
}

#[test]
fn mqtt_3_1_3_9_a_take_over_of_the_session_cancels_a_delayed_will() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, V5);
    let mut old = heir(&broker, will().delay(1));
    let _new = Client::connect(&broker, Connect::v5("c").durable());
    old.expect_disconnect(SESSION_TAKEN_OVER);
    watcher.expect_silence(Duration::from_millis(1500));
}

#[test]
fn a_take_over_publishes_a_will_without_delay() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, V5);
    let mut old = heir(&broker, will());
    let _new = Client::connect(&broker, Connect::v5("c").durable());
    old.expect_disconnect(SESSION_TAKEN_OVER);
    watcher.expect_message("last words");
    // Clean Start ends the session and thereby the delay.
    let _old = heir(&broker, will().delay(3600));
    let _new = Client::connect(&broker, Connect::v5("c"));
    watcher.expect_message("last words");
}

#[test]
fn mqtt_3_1_3_10_user_properties_of_a_will_keep_their_order() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, V5);
    let pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("a", "3")];
    let properties =
        pairs.iter().fold(will(), |will, (name, value)| will.property(Property::user(name, value)));
    Client::connect(&broker, Connect::v5("c").will(properties)).vanish();
    let publish = watcher.expect_message("last words");
    assert_eq!(user_properties(&publish.properties), pairs);
}

#[test]
fn all_properties_of_a_will_are_forwarded() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, V5);
    let will = will()
        .qos(1)
        .property(Property::PayloadFormatIndicator(1))
        .property(Property::ContentType("text/plain".into()))
        .property(Property::ResponseTopic("answers".into()))
        .property(Property::CorrelationData(vec![0, 1, 0xFF]))
        .property(Property::MessageExpiryInterval(100));
    Client::connect(&broker, Connect::v5("c").will(will)).vanish();
    let publish = watcher.expect_message("last words");
    let list = &publish.properties;
    assert_eq!(property!(list, PayloadFormatIndicator), Some(1));
    assert_eq!(property!(list, ContentType), Some("text/plain".to_owned()));
    assert_eq!(property!(list, ResponseTopic), Some("answers".to_owned()));
    assert_eq!(property!(list, CorrelationData), Some(vec![0, 1, 0xFF]));
    let expiry = property!(list, MessageExpiryInterval).expect("a Message Expiry Interval");
    assert!((98..=100).contains(&expiry), "{expiry}");
    assert_eq!(list.len(), 5, "{list:?}");
}

#[test]
fn the_message_expiry_interval_of_a_will_starts_with_its_publication() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, V5);
    let will = will().delay(2).property(Property::MessageExpiryInterval(1));
    heir(&broker, will).vanish();
    let publish = watcher.expect_message("last words");
    assert_eq!(property!(publish.properties, MessageExpiryInterval), Some(1));
}

#[test]
fn a_will_is_queued_for_a_disconnected_session() {
    for_versions(|version| {
        let broker = Broker::start();
        let connect = || Connect::new(version, "watcher").durable();
        let mut watcher = Client::connect(&broker, connect());
        watcher.subscribe("will/#", 1);
        watcher.disconnect();
        Client::connect(&broker, Connect::new(version, "c").will(will().qos(1))).vanish();
        Client::connect(&broker, connect()).expect_message("last words");
    });
}

#[test]
fn a_misplaced_or_duplicate_will_property_is_refused() {
    use crate::support::reason::PROTOCOL_ERROR;
    let broker = Broker::start();
    for property in [Property::TopicAlias(1), Property::SubscriptionIdentifier(1)] {
        let connect = Connect::v5("c").will(will().property(property));
        Client::refused(&broker, connect, MALFORMED_PACKET);
    }
    let wrong = [
        will().delay(1).delay(1),
        will().property(Property::PayloadFormatIndicator(2)),
        will().property(Property::ResponseTopic("a/#".into())),
    ];
    for will in wrong {
        Client::refused(&broker, Connect::v5("c").will(will), PROTOCOL_ERROR);
    }
}

#[test]
fn a_client_receives_its_own_will_after_it_reconnects() {
    // No session is excluded: the client's own session receives the Will as any other.
    let broker = Broker::start();
    let mut client = heir(&broker, will().qos(1));
    client.subscribe("will/#", 1);
    client.vanish();
    Client::connect(&broker, Connect::v5("c").durable()).expect_message("last words");
}
