//! What passes a bridge, and how.

use crate::support::{Broker, Client, Connect, Property, Publish, user_properties};
use crate::{SETUPS, Site, Witness, at_once, connected, flows, numbers, publish};

const RULES: &str = "\
[[bridges.out]]
filter = \"site/#\"
local_prefix = \"site/\"
remote_prefix = \"plant7/\"
[[bridges.out]]
filter = \"lower/#\"
qos_max = 1
[[bridges.in]]
filter = \"cmd/#\"
remote_prefix = \"cmd/\"
local_prefix = \"do/\"
[[bridges.in]]
filter = \"raw\"
qos = 0
";

/// Two brokers with these rules between them.
fn pair(setup: &str, rules: &str) -> (Broker, Broker) {
    let far = Site::new(setup);
    let near = Site::new(setup).bridge("far", far.address, rules);
    let (far, near) = (far.start(), near.start());
    connected(&near, 1);
    flows(&far, "cmd/probe", &near, "do/probe");
    (near, far)
}

#[test]
fn messages_of_each_qos_go_out_and_come_in_with_mapped_topics() {
    at_once(crate::versions(&["3.1.1", "3.1"]), |(version, setup)| {
        let (near, far) = pair(setup, &format!("version = {version:?}\n{RULES}"));
        let mut there = Witness::at(&far, "#");
        let mut here = Witness::at(&near, "do/#");
        for qos in 0..=2 {
            let of = |topic: &str| match qos {
                0 => Publish::new(topic, "x"),
                _ => Publish::new(topic, "x").qos(qos, 1),
            };
            publish(&near, of("site/a/b"));
            let got = there.next();
            assert_eq!((&*got.topic, got.qos), ("plant7/a/b", qos), "{setup} {version}");
            publish(&near, of("lower/a"));
            let got = there.next();
            assert_eq!((&*got.topic, got.qos), ("lower/a", qos.min(1)), "{setup} {version}");
            publish(&far, of("cmd/c"));
            let got = here.next();
            assert_eq!((&*got.topic, got.qos), ("do/c", qos), "{setup} {version}");
            assert_eq!(there.next().topic, "cmd/c");
        }
    });
}

#[test]
fn a_message_that_no_rule_names_does_not_pass() {
    at_once(SETUPS.iter().copied(), |setup| {
        let (near, far) = pair(setup, RULES);
        let mut there = Witness::at(&far, "#");
        let mut here = Witness::at(&near, "#");
        let mut client = Client::connect(&near, Connect::v5("c"));
        for topic in ["other", "sit", "plant7/a", "do/a", "cmd/a", "raw"] {
            client.publish(Publish::new(topic, "stays").qos(1, 1));
        }
        client.publish(Publish::new("site/end", "end").qos(1, 1));
        assert_eq!(there.texts_before("end"), [""; 0], "{setup}");
        let mut client = Client::connect(&far, Connect::v5("c"));
        for topic in ["other", "site/a", "plant7/a", "do/a", "raw/a"] {
            client.publish(Publish::new(topic, "stays").qos(1, 1));
        }
        client.publish(Publish::new("raw", "qos 0").qos(2, 1));
        client.publish(Publish::new("cmd/end", "the end").qos(1, 1));
        let texts = here.texts_before("the end");
        assert_eq!(texts[texts.len() - 1], "qos 0", "{setup}: {texts:?}");
        assert!(texts[..texts.len() - 1].iter().all(|text| text == "stays" || text == "end"));
        assert_eq!(texts.len(), 6 + 1 + 1, "{setup}: what is published here, and what has come");
    });
}

#[test]
fn retain_and_properties_are_kept_both_ways() {
    at_once(SETUPS.iter().copied(), |setup| {
        let (near, far) = pair(setup, RULES);
        for (from, topic, to, mapped) in
            [(&near, "site/p", &far, "plant7/p"), (&far, "cmd/p", &near, "do/p")]
        {
            let mut witness = Witness::at(to, mapped);
            publish(
                from,
                Publish::new(topic, "x")
                    .qos(2, 1)
                    .retain()
                    .property(Property::MessageExpiryInterval(300))
                    .property(Property::ContentType("text/plain".to_owned()))
                    .property(Property::ResponseTopic("answer/here".to_owned()))
                    .property(Property::CorrelationData(vec![0, 1, 255]))
                    .property(Property::PayloadFormatIndicator(1))
                    .property(Property::user("a", "1"))
                    .property(Property::user("a", "2")),
            );
            let got = witness.next();
            assert!(got.retain, "{setup}: RETAIN of {topic}");
            let has = |property: &Property| got.properties.contains(property);
            assert!(has(&Property::ContentType("text/plain".to_owned())), "{got:?}");
            assert!(has(&Property::ResponseTopic("answer/here".to_owned())), "{got:?}");
            assert!(has(&Property::CorrelationData(vec![0, 1, 255])), "{got:?}");
            assert!(has(&Property::PayloadFormatIndicator(1)), "{got:?}");
            let expiry = crate::support::property!(got.properties, MessageExpiryInterval);
            assert!(expiry.is_some_and(|left| (200..=300).contains(&left)), "{got:?}");
            let users = user_properties(&got.properties);
            assert_eq!(users[..2], [("a", "1"), ("a", "2")], "{setup}");
            // It is retained there.
            let mut later = Witness::of(to, Connect::v5("later"), mapped);
            assert_eq!(later.next().text(), "x", "{setup}");
            // An empty one removes it there.
            publish(from, Publish::new(topic, "").qos(1, 1).retain());
            assert_eq!(witness.next().text(), "", "{setup}");
            let mut after = Witness::of(to, Connect::v5("after"), mapped);
            publish(to, Publish::new(mapped, "end").qos(1, 1));
            assert_eq!(after.next().text(), "end", "{setup}");
        }
    });
}

#[test]
fn what_was_retained_before_the_bridge_was_there_goes_out_as_the_mode_says() {
    for (mode, expected) in
        [("initial", Some(true)), ("always", Some(true)), ("clear", None), ("live", None)]
    {
        let setup = crate::ONE_SETUP;
        let far = Site::new(setup);
        let plain = Site::new(setup).with_store();
        let near = plain.start();
        publish(&near, Publish::new("site/kept", "old").qos(1, 1).retain());
        drop(near);
        let rules = format!("retained = {mode:?}\n{RULES}");
        let near = plain.bridge("far", far.address, &rules);
        let far = far.start();
        let mut there = Witness::at(&far, "#");
        let near = near.start();
        connected(&near, 1);
        if let Some(retain) = expected {
            let got = there.next();
            assert_eq!((got.text(), got.retain), ("old", retain), "{mode}");
        }
        publish(&near, Publish::new("site/new", "new").qos(1, 1).retain());
        let got = there.next();
        assert_eq!((got.text(), got.retain), ("new", mode != "clear"), "{mode}");
    }
}

#[test]
fn many_messages_of_a_publisher_stay_in_order_both_ways() {
    const COUNT: u16 = 500;
    at_once(SETUPS.iter().copied(), |setup| {
        let (near, far) = pair(setup, RULES);
        for (from, topic, to, mapped) in
            [(&near, "site/o", &far, "plant7/o"), (&far, "cmd/o", &near, "do/o")]
        {
            for qos in 0..=2u8 {
                let mut witness = Witness::at(to, mapped);
                let mut client = Client::connect(from, Connect::v5("publisher"));
                for number in 0..COUNT {
                    let publish = Publish::new(topic, number.to_string());
                    match qos {
                        0 => client.send(publish),
                        _ => client.publish(publish.qos(qos, number + 1)),
                    }
                }
                assert_eq!(witness.texts(COUNT.into()), numbers(0..COUNT), "{setup} {qos} {topic}");
            }
        }
    });
}
