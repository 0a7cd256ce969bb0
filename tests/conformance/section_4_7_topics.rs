//! 4.7: Topic Names and Topic Filters, and their matching.

use crate::support::{
    Broker, Client, Connect, Publish, Suback, Subscribe, Unsubscribe, V5, Version, Will,
    for_all_versions, for_versions, reason, settle,
};

fn client(broker: &Broker, version: Version) -> Client {
    Client::connect(broker, Connect::new(version, "c"))
}

/// Expects SUBSCRIBE to `filter` to be a violation.
#[track_caller]
fn expect_malformed(broker: &Broker, version: Version, filter: impl AsRef<[u8]>) {
    let mut client = client(broker, version);
    client.send(Subscribe::new(1, filter, 0));
    client.expect_violation(reason::MALFORMED_PACKET);
}

/// Expects each filter to match exactly the `topics` beside it.
#[track_caller]
fn expect_matches(version: Version, topics: &[&str], cases: &[(&str, &[&str])]) {
    let broker = Broker::start();
    let mut client = client(&broker, version);
    let mut publisher = Client::connect(&broker, Connect::new(version, "publisher"));
    for (filter, matched) in cases {
        client.subscribe(filter, 0);
        for topic in topics {
            publisher.send(Publish::new(topic, *filter));
        }
        publisher.expect_alive();
        settle();
        for topic in topics.iter().filter(|topic| matched.contains(topic)) {
            assert_eq!(client.expect_publish(), Publish::new(topic, *filter));
        }
        client.expect_alive();
        client.send(Unsubscribe::new(1, filter));
        client.receive();
    }
}

#[test]
fn mqtt_4_7_0_1_a_wildcard_in_a_topic_name_ends_the_connection() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut subscriber = Client::connect(&broker, Connect::v5("subscriber"));
        subscriber.subscribe("#", 0);
        for topic in ["#", "+", "a/#", "a/+", "+/a", "a+", "a#b", "a/+b/c"] {
            let mut client = client(&broker, version);
            client.send(Publish::new(topic, "m"));
            client.expect_violation(reason::TOPIC_NAME_INVALID);
        }
        subscriber.expect_alive();
    });
}

#[test]
fn mqtt_4_7_1_1_a_misplaced_multi_level_wildcard_ends_the_connection() {
    for_all_versions(|version| {
        let broker = Broker::start();
        for filter in
            ["a#", "a/b#", "#a", "a/#b", "a/#/b", "#/a", "#/", "##", "a/##", "a/+#", "/#/"]
        {
            expect_malformed(&broker, version, filter);
        }
    });
}

#[test]
fn mqtt_4_7_1_1_a_multi_level_wildcard_is_the_whole_last_level() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        for filter in ["#", "/#", "a/#", "a/b/#", "//#", "+/#", "a/+/#", "$a/#"] {
            client.subscribe(filter, 0);
        }
    });
}

#[test]
fn mqtt_4_7_1_2_a_single_level_wildcard_beside_other_characters_ends_the_connection() {
    for_all_versions(|version| {
        let broker = Broker::start();
        for filter in ["a+", "+a", "a/b+", "a/+b", "a/+b/c", "++", "a/++/b", "+a/b", "a+/#"] {
            expect_malformed(&broker, version, filter);
        }
    });
}

#[test]
fn mqtt_4_7_1_2_a_single_level_wildcard_may_be_at_any_level() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = client(&broker, version);
        for filter in ["+", "+/a", "a/+", "a/+/b", "+/+", "/+", "+/", "+/+/+", "$a/+"] {
            client.subscribe(filter, 0);
        }
    });
}

#[test]
fn a_single_level_wildcard_matches_any_one_level() {
    for_versions(|version| {
        expect_matches(
            version,
            &["a", "a/", "a/b", "a/c", "a/b/c", "/", "/a", "b/a", "a//b", "a/b/"],
            &[
                ("+", &["a"]),
                ("a/+", &["a/", "a/b", "a/c"]),
                ("+/+", &["a/", "a/b", "a/c", "/", "/a", "b/a"]),
                ("/+", &["/", "/a"]),
                ("+/a", &["/a", "b/a"]),
                ("+/", &["a/", "/"]),
                ("a/+/c", &["a/b/c"]),
                ("a/+/b", &["a//b"]),
                ("a/+/+", &["a/b/c", "a//b", "a/b/"]),
                ("+/+/", &["a/b/"]),
            ],
        );
    });
}

#[test]
fn a_multi_level_wildcard_matches_the_parent_level_and_all_below() {
    for_versions(|version| {
        expect_matches(
            version,
            &["a", "a/", "a/b", "a/b/c", "a/b/c/d", "b", "ab", "/", "/a", "A"],
            &[
                ("a/#", &["a", "a/", "a/b", "a/b/c", "a/b/c/d"]),
                ("a/b/#", &["a/b", "a/b/c", "a/b/c/d"]),
                ("/#", &["/", "/a"]),
                ("#", &["a", "a/", "a/b", "a/b/c", "a/b/c/d", "b", "ab", "/", "/a", "A"]),
                ("+/#", &["a", "a/", "a/b", "a/b/c", "a/b/c/d", "b", "ab", "/", "/a", "A"]),
                ("a/+/#", &["a/", "a/b", "a/b/c", "a/b/c/d"]),
                ("+/b/#", &["a/b", "a/b/c", "a/b/c/d"]),
            ],
        );
    });
}

#[test]
fn empty_levels_are_levels() {
    for_versions(|version| {
        let topics = ["a", "/a", "a/", "/a/", "//", "/", "a//b", "a/b", "///"];
        for topic in topics {
            expect_matches(version, &topics, &[(topic, &[topic])]);
        }
    });
}

#[test]
fn mqtt_4_7_2_1_a_leading_wildcard_does_not_match_a_topic_that_begins_with_dollar() {
    for_versions(|version| {
        expect_matches(
            version,
            &["$a", "$a/b", "$a/b/c", "$", "a$", "a/$b", "/$a"],
            &[
                ("#", &["a$", "a/$b", "/$a"]),
                ("+", &["a$"]),
                ("+/b", &[]),
                ("+/#", &["a$", "a/$b", "/$a"]),
                ("+/b/c", &[]),
                ("+/+/c", &[]),
            ],
        );
    });
}

#[test]
fn a_filter_that_begins_with_dollar_matches_such_topics() {
    for_versions(|version| {
        expect_matches(
            version,
            &["$a", "$a/b", "$a/b/c", "$", "a"],
            &[
                ("$a/#", &["$a", "$a/b", "$a/b/c"]),
                ("$a/+", &["$a/b"]),
                ("$a/+/c", &["$a/b/c"]),
                ("$a/b", &["$a/b"]),
                ("$", &["$"]),
                ("$/#", &["$"]),
            ],
        );
    });
}

#[test]
fn retained_messages_of_dollar_topics_are_not_sent_for_a_leading_wildcard() {
    let broker = Broker::start();
    let mut publisher = Client::connect(&broker, Connect::v5("publisher"));
    publisher.publish(Publish::new("$a/b", "kept").qos(1, 1).retain());
    let mut client = client(&broker, V5);
    for filter in ["#", "+/b", "+/#"] {
        client.subscribe(filter, 0);
        client.expect_alive();
    }
    client.subscribe("$a/+", 0);
    client.expect(Publish::new("$a/b", "kept").retain());
}

#[test]
fn retained_messages_are_matched_by_the_same_rules() {
    for_versions(|version| {
        let broker = Broker::start();
        let mut publisher = Client::connect(&broker, Connect::new(version, "publisher"));
        let topics = ["a", "a/", "a/b", "/a", "/", "a/b/c", "$a/b"];
        for topic in topics {
            publisher.publish(Publish::new(topic, topic).qos(1, 1).retain());
        }
        let mut client = client(&broker, version);
        let cases: [(&str, &[&str]); 6] = [
            ("a/#", &["a", "a/", "a/b", "a/b/c"]),
            ("a/+", &["a/", "a/b"]),
            ("+/+", &["/", "/a", "a/", "a/b"]),
            ("+", &["a"]),
            ("/", &["/"]),
            ("#", &["/", "/a", "a", "a/", "a/b", "a/b/c"]),
        ];
        for (filter, matched) in cases {
            client.subscribe(filter, 0);
            let mut got: Vec<String> =
                matched.iter().map(|_| client.expect_publish().topic).collect();
            got.sort();
            assert_eq!(got, matched, "{filter}");
            client.expect_alive();
        }
    });
}

#[test]
fn mqtt_4_7_3_1_an_empty_filter_or_topic_name_ends_the_connection() {
    for_all_versions(|version| {
        let broker = Broker::start();
        expect_malformed(&broker, version, "");
        let mut sender = client(&broker, version);
        sender.send(Unsubscribe::new(1, ""));
        sender.expect_violation(reason::MALFORMED_PACKET);
        let mut sender = client(&broker, version);
        sender.send(Publish::new("", "m"));
        sender.expect_violation(reason::PROTOCOL_ERROR);
    });
}

#[test]
fn mqtt_4_7_3_2_a_null_character_in_a_filter_or_topic_name_ends_the_connection() {
    for_all_versions(|version| {
        let broker = Broker::start();
        for text in ["\0", "a\0", "a/\0/b"] {
            expect_malformed(&broker, version, text);
            let mut sender = client(&broker, version);
            sender.send(Unsubscribe::new(1, text));
            sender.expect_violation(reason::MALFORMED_PACKET);
            let mut sender = client(&broker, version);
            sender.send(Publish::new(text, "m"));
            sender.expect_violation(reason::MALFORMED_PACKET);
        }
    });
}

#[test]
fn mqtt_4_7_3_3_topics_and_filters_of_65_535_bytes_are_accepted() {
    // A longer one cannot be encoded: the length field has two bytes.
    for_versions(|version| {
        let broker = Broker::start();
        let longest = "x".repeat(65_535);
        let wide = format!("{}é", "y".repeat(65_533));
        let mut client = client(&broker, version);
        for topic in [&longest, &wide] {
            client.send(Subscribe::new(1, topic, 0));
            client.expect(Suback::new(1, &[0]));
            client.send(Publish::new(topic, "m"));
            client.expect(Publish::new(topic, "m"));
            client.send(Publish::new(&topic[1..], "of another topic"));
            client.expect_alive();
        }
    });
}

#[test]
fn mqtt_4_7_3_4_topics_and_filters_are_not_normalized() {
    for_versions(|version| {
        let topics = [
            "caf\u{e9}",
            "cafe\u{301}",
            "Caf\u{e9}",
            " caf\u{e9}",
            "caf\u{e9} ",
            "\u{feff}caf\u{e9}",
            "caf\u{fffd}",
            "caf%C3%A9",
            "a/./b",
            "a/b",
            "a/../b",
            "a\\b",
            "\u{212b}",
            "\u{c5}",
            "\u{1f600}",
            "ss",
            "ß",
        ];
        let cases: Vec<(&str, &[&str])> =
            topics.iter().map(|topic| (*topic, std::slice::from_ref(topic))).collect();
        expect_matches(version, &topics, &cases);
    });
}

#[test]
fn sys_topics_can_be_read() {
    for_versions(|version| {
        let broker = Broker::with_config("[mqtt]\nsys_interval_s = 1\n");
        let mut client = client(&broker, version);
        client.subscribe_to_what_comes("$SYS/#", 0);
        let first = client.expect_publish();
        assert!(first.topic.starts_with("$SYS/broker/"), "{first:?}");
        // A changing topic is sent without a request: the uptime changes every second.
        loop {
            let publish = client.expect_publish();
            if publish.topic == "$SYS/broker/uptime" && !publish.retain {
                break;
            }
        }
    });
}

#[test]
fn sys_topics_are_not_sent_for_a_leading_wildcard() {
    let broker = Broker::with_config("[mqtt]\nsys_interval_s = 1\n");
    let mut client = client(&broker, V5);
    client.subscribe("#", 0);
    client.subscribe("+/broker/uptime", 0);
    client.expect_silence(std::time::Duration::from_millis(1300));
}

#[test]
fn sys_topics_cannot_be_written() {
    for_versions(|version| {
        let broker = Broker::with_config("[mqtt]\nsys_interval_s = 0\n");
        let mut reader = Client::connect(&broker, Connect::v5("reader"));
        reader.subscribe("$SYS/#", 0);
        reader.expect_alive();
        let mut writer = client(&broker, version);
        for (qos, id) in [(1, 1), (2, 2)] {
            writer.send(Publish::new("$SYS/broker/uptime", "forever").qos(qos, id).retain());
            let ack = writer.expect_ack();
            // 3.1.1 has no Reason Code in PUBACK: the message is acknowledged and dropped.
            let refused = if version == V5 { reason::NOT_AUTHORIZED } else { reason::SUCCESS };
            assert_eq!((ack.packet_identifier, ack.reason), (id, refused));
        }
        // `$SYS/#` also matches its parent [MQTT-4.7.1-2].
        let ack = {
            writer.send(Publish::new("$SYS", "the parent").qos(1, 3).retain());
            writer.expect_ack()
        };
        let refused = if version == V5 { reason::NOT_AUTHORIZED } else { reason::SUCCESS };
        assert_eq!((ack.packet_identifier, ack.reason), (3, refused));
        writer.send(Publish::new("$SYS", "at QoS 0"));
        writer.send(Publish::new("$SYS/anything", "at QoS 0"));
        writer.expect_alive();
        reader.expect_alive();
        let mut late = Client::connect(&broker, Connect::v5("late"));
        late.subscribe("$SYS/#", 0);
        late.expect_alive();
        // Other topics with the same prefix are not reserved.
        late.subscribe("$SYSTEM/#", 0);
        writer.publish(Publish::new("$SYSTEM", "m").qos(1, 4));
        late.expect_message("m");
        let with_will = Connect::new(version, "w").will(Will::new("$SYS", "last words"));
        let not_let_in =
            if version == V5 { reason::NOT_AUTHORIZED } else { reason::V3_NOT_AUTHORIZED };
        Client::refused(&broker, with_will, not_let_in);
        reader.subscribe("$SYS/+/uptime", 0);
        reader.expect_alive();
    });
}

#[test]
fn disabled_sys_topics_are_not_published() {
    let broker = Broker::with_config("[mqtt]\nsys_interval_s = 0\n");
    let mut client = client(&broker, V5);
    client.subscribe("$SYS/#", 0);
    client.expect_alive();
}
