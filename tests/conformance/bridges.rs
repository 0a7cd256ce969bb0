//! Bridges of other brokers. No specification has them; Mosquitto made the conventions: before 5.0 a bridge sets bit 7
//! of the Protocol Version, and reports its state at `$SYS/broker/connection/ID/state`.

use crate::support::{
    Broker, Client, Connect, Packet, Publish, Suback, Subscribe, V5, V31, V311, Version, Will,
    frame, reason, string,
};

/// The CONNECT of a bridge before 5.0.
fn bridge(version: Version, name: &str) -> Connect {
    let connect = Connect::new(version, name);
    match version {
        V31 => connect.protocol("MQIsdp", 0x83),
        _ => connect.protocol("MQTT", 0x84),
    }
}

fn state_of(name: &str) -> String {
    format!("$SYS/broker/connection/{name}/state")
}

/// The messages that arrive at a client until all that was published is routed.
#[track_caller]
fn received(client: &mut Client) -> Vec<Publish> {
    crate::support::settle();
    client.raw(&[0xC0, 0x00]);
    let mut received = Vec::new();
    loop {
        match client.receive() {
            Packet::Pingresp => return received,
            Packet::Publish(publish) => received.push(publish),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_bridge_before_5_receives_none_of_its_own_messages_and_those_of_others_with_their_retain_flag()
{
    for version in [V31, V311] {
        let broker = Broker::start();
        let mut bridge = Client::connect(&broker, bridge(version, "bridge"));
        bridge.subscribe("#", 0);
        bridge.publish(Publish::new("from/bridge", "1").retain());
        bridge.expect_alive();
        let mut other = Client::connect(&broker, Connect::v5("other"));
        other.publish(Publish::new("from/other", "kept").retain());
        other.publish(Publish::new("from/other", "passing"));
        other.expect_alive();
        let received = received(&mut bridge);
        let seen: Vec<_> =
            received.iter().map(|message| (message.text(), message.retain)).collect();
        assert_eq!(seen, [("kept", true), ("passing", false)], "{version:?}");
    }
}

#[test]
fn a_client_before_5_that_is_no_bridge_receives_its_own_messages() {
    let broker = Broker::start();
    let mut client = Client::connect(&broker, Connect::v311("client"));
    client.subscribe("#", 0);
    client.publish(Publish::new("t", "m").retain());
    let received = received(&mut client);
    assert_eq!(received.len(), 1, "{received:?}");
    assert!(!received[0].retain);
}

#[test]
fn a_bridge_may_subscribe_to_a_shared_subscription() {
    let broker = Broker::start();
    let mut bridge = Client::connect(&broker, bridge(V311, "bridge"));
    bridge.send(Subscribe::new(1, "$share/g/t", 0));
    bridge.expect(Suback::new(1, &[0]));
    Client::connect(&broker, Connect::v5("other")).publish(Publish::new("t", "m"));
    assert_eq!(received(&mut bridge).len(), 1);
}

#[test]
fn the_session_of_a_bridge_keeps_its_subscriptions_and_their_options() {
    let broker = Broker::start();
    let connect = || bridge(V311, "bridge").resume();
    let mut client = Client::connect(&broker, connect());
    client.subscribe("#", 1);
    drop(client);
    let mut client = Client::connect(&broker, connect());
    client.publish(Publish::new("own", "m"));
    client.expect_alive();
    Client::connect(&broker, Connect::v5("other")).publish(Publish::new("other", "m").retain());
    let received = received(&mut client);
    let seen: Vec<_> = received.iter().map(|message| (&*message.topic, message.retain)).collect();
    assert_eq!(seen, [("other", true)]);
}

/// Mosquitto's bridges fall back to a version that is understood on return code 1 alone.
#[test]
fn a_protocol_version_below_5_that_is_unknown_is_answered_with_return_code_1() {
    let broker = Broker::start();
    for (name, level) in
        [("MQTT", 0), ("MQTT", 3), ("MQIsdp", 4), ("MQTT", 0x83), ("MQIsdp", 0x84), ("MQTT", 0x80)]
    {
        let mut client = Client::open(&broker, V311);
        let body = [&string(name)[..], &[level, 2, 0, 0], &string("c")[..]].concat();
        client.raw(&frame(0x10, &body));
        let connack = client.expect_refusal(reason::V3_UNACCEPTABLE_VERSION);
        assert!(!connack.session_present, "{name} {level:#X}");
    }
}

#[test]
fn a_client_reports_the_state_of_its_own_connection_retained_and_by_its_will() {
    for connect in
        [bridge(V311, "edge.cloud"), Connect::v311("edge.cloud"), Connect::v5("edge.cloud")]
    {
        let broker = Broker::start();
        let topic = state_of("edge.cloud");
        let mut client = Client::connect(&broker, connect.will(Will::new(&topic, "0").retain()));
        client.publish(Publish::new(&topic, "1").retain().qos(1, 1));
        client.expect_alive();
        let mut observer = Client::connect(&broker, Connect::v5("observer"));
        observer.subscribe_to_what_comes("$SYS/broker/connection/+/state", 0);
        let Packet::Publish(state) = observer.receive() else { panic!("no retained state") };
        assert_eq!((&*state.topic, state.text(), state.retain), (&*topic, "1", true));
        drop(client);
        let Packet::Publish(state) = observer.receive() else { panic!("no Will") };
        assert_eq!((state.text(), state.retain), ("0", false));
    }
}

#[test]
fn a_client_may_not_report_the_state_of_another_connection_or_more_than_256_bytes() {
    let broker = Broker::start();
    let mut observer = Client::connect(&broker, Connect::v5("observer"));
    observer.subscribe("$SYS/broker/connection/#", 0);
    let mut client = Client::connect(&broker, Connect::v5("me"));
    let own = state_of("me");
    for (topic, payload) in [
        (&*state_of("other"), "1".to_owned()),
        (&*state_of("me/me"), "1".to_owned()),
        ("$SYS/broker/connection/me", "1".to_owned()),
        ("$SYS/broker/connection/me/state/x", "1".to_owned()),
        ("$SYS/broker/connection/me/else", "1".to_owned()),
        (&*own, "x".repeat(257)),
    ] {
        client.send(Publish::new(topic, payload).qos(1, 1));
        client.expect(crate::support::Ack::puback(1).reason(reason::NOT_AUTHORIZED));
    }
    client.publish(Publish::new(&own, "x".repeat(256)).qos(1, 1));
    client.expect_alive();
    let received = received(&mut observer);
    assert_eq!(received.len(), 1, "{received:?}");
    for will in [Will::new(&state_of("other"), "0"), Will::new(&state_of("will"), "x".repeat(257))]
    {
        Client::refused(&broker, Connect::v5("will").will(will), reason::NOT_AUTHORIZED);
    }
    for version in [V311, V5] {
        let will = Will::new("$SYS/broker/uptime", "0");
        let code = if version == V5 { reason::NOT_AUTHORIZED } else { reason::V3_NOT_AUTHORIZED };
        Client::refused(&broker, Connect::new(version, "will").will(will), code);
    }
}
