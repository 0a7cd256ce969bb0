//! Far brokers that send back what they have from here, and services that do not accept everything.

use super::*;

/// A link in 3.1.1, as a bridge or not, of a bridge whose topics come back.
fn overlapping(terms: Terms, is_bridge: bool) -> Between {
    let (sender, events) = flume::unbounded();
    let counters = Arc::new(Counters::default());
    let report = Report::new(sender, Arc::clone(&counters));
    let (version, start) = (Version::V311, Start::Resume);
    let attempt =
        Attempt { version, is_bridge, no_local: true, start, username: None, password: None };
    let link = Link::connect(Arc::new(terms), attempt, report);
    let mut between = Between { link, events, counters, version };
    between.says(&[]);
    let connack = Connack {
        session_present: true,
        reason: ReasonCode::Success,
        properties: ConnackProperties::default(),
    };
    between.hears(&encoded(&Packet::Connack(connack), version)).expect("accepted");
    between.says(&[]);
    between
}

fn all_terms() -> Terms {
    let (filter, none) = ("#".to_owned(), String::new());
    let out = OutRule {
        filter: filter.clone(),
        qos_max: 2,
        local_prefix: none.clone(),
        remote_prefix: none.clone(),
        to: String::new(),
    };
    let r#in = InRule {
        filter,
        qos: 2,
        local_prefix: none.clone(),
        remote_prefix: none.clone(),
        to: none,
    };
    Terms { out: OutMap::new(&[out]), r#in: InMap::new(&[r#in]), ..terms() }
}

#[test]
fn what_the_far_broker_sends_back_is_acknowledged_counted_and_dropped_once() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut between = overlapping(all_terms(), false);
        let identifier = (qos != Qos::AtMostOnce).then(|| PacketIdentifier::new(7).expect("not 0"));
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: "a/b",
            packet_identifier: identifier,
            properties: PublishProperties::default(),
            payload: b"x",
        };
        assert!(!between.passes_out(&Packet::Publish(publish.clone())).is_empty());
        assert_eq!(between.passes_in(&Packet::Publish(publish.clone())), NOTHING, "{qos:?}");
        let answered = between.says(&[]);
        let expected = match qos {
            Qos::AtMostOnce => Vec::new(),
            Qos::AtLeastOnce => vec![0x40, 2, 0, 7],
            Qos::ExactlyOnce => vec![0x50, 2, 0, 7],
        };
        assert_eq!(answered, expected);
        assert_eq!(between.counters.loops.load(Ordering::Relaxed), 1);
        // The same of somebody else.
        assert_ne!(between.passes_in(&Packet::Publish(publish)), NOTHING, "{qos:?}");
        assert_eq!(between.counters.loops.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn an_echo_is_recognised_on_the_next_connection() {
    let echoes = Some(Arc::default());
    let with = || Terms { echoes: echoes.clone(), ..all_terms() };
    let publish = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "a",
        packet_identifier: None,
        properties: PublishProperties::default(),
        payload: b"x",
    };
    let mut first = overlapping(with(), false);
    first.passes_out(&Packet::Publish(publish.clone()));
    let mut second = overlapping(with(), false);
    assert_eq!(second.passes_in(&Packet::Publish(publish)), NOTHING);
}

#[test]
fn a_far_broker_that_knows_the_bridge_sends_no_echo_and_nothing_is_taken_for_one() {
    let publish = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "a",
        packet_identifier: None,
        properties: PublishProperties::default(),
        payload: b"x",
    };
    let off = Terms { echoes: None, ..all_terms() };
    for mut between in [overlapping(all_terms(), true), overlapping(off, false)] {
        between.passes_out(&Packet::Publish(publish.clone()));
        assert_ne!(between.passes_in(&Packet::Publish(publish.clone())), NOTHING);
    }
}

#[test]
fn what_a_service_does_not_accept_is_not_sent_and_qos_and_retain_are_those_that_it_has() {
    let text = "[[bridges]]\nname = \"a\"\nprofile = \"azure-iot-hub\"\nservers = [\"mqtts://h\"]\n\
                username = \"h/dev/?api-version=1\"\n[[bridges.out]]\nfilter = \"#\"\n";
    let settings = crate::config::Settings::from_toml(text).expect("TOML");
    let terms = Terms { accepts: settings.bridges[0].accepts(), ..all_terms() };
    let mut between = overlapping(terms, false);
    let publish = |topic| Publish {
        dup: false,
        qos: Qos::ExactlyOnce,
        retain: true,
        topic,
        packet_identifier: PacketIdentifier::new(7),
        properties: PublishProperties::default(),
        payload: b"x",
    };
    let of_other = Packet::Publish(publish("devices/other/messages/events/"));
    assert_eq!(between.passes_out(&of_other), NOTHING);
    assert_eq!(between.counters.unmapped.load(Ordering::Relaxed), 1);
    let sent = between.passes_out(&Packet::Publish(publish("devices/dev/messages/events/")));
    assert_eq!(sent.first(), Some(&0x32), "QoS 1, without RETAIN");
}

#[test]
fn the_topics_that_a_far_broker_sets_aliases_for_are_bounded() {
    let terms = Terms { topic_alias_maximum: 1_000, packet_bytes_max: 1 << 20, ..all_terms() };
    let (sender, _events) = flume::unbounded();
    let attempt = Attempt {
        version: Version::V5,
        is_bridge: false,
        no_local: true,
        start: Start::Resume,
        username: None,
        password: None,
    };
    let mut link = Link::connect(Arc::new(terms), attempt, Report::new(sender, Arc::default()));
    let mut hears = |packet: &Packet<'_>| {
        let mut plain = Vec::new();
        link.receive(&encoded(packet, Version::V5), &mut plain).map(|()| link.bytes_held())
    };
    let connack = Connack {
        session_present: true,
        reason: ReasonCode::Success,
        properties: ConnackProperties::default(),
    };
    hears(&Packet::Connack(connack)).expect("accepted");
    let topic = "x".repeat(60_000);
    let mut held = 0;
    let error = (1..=1_000).find_map(|alias| {
        let properties = PublishProperties { topic_alias: Some(alias), ..Default::default() };
        let publish = Publish { properties, ..publish(&topic, Qos::AtMostOnce, 0) };
        match hears(&Packet::Publish(publish)) {
            Ok(bytes) => {
                held = bytes;
                None
            }
            Err(fault) => Some(fault.what),
        }
    });
    assert!(error.expect("a bound").contains("more than 4 MiB"));
    assert!((3 << 20..6 << 20).contains(&held), "{held} bytes are counted");
}
