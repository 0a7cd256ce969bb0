//! Traces: which packets and drops they show, of whom, and that they cost nothing when they are over.

use std::sync::Arc;

use super::cores::Cores;
use super::*;
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::config::QueuePolicy;
use crate::control::drain::Purpose;
use crate::control::question::Question;
use crate::control::trace::{TraceEvent, TraceFilter, TraceSource, Traced, TracedPacket};
use crate::wire::{Ack, PacketType};

impl World {
    fn trace(&mut self, filter: TraceFilter) -> TraceSource {
        let source = TraceSource::new(1);
        self.trace_to(&source, 0, filter);
        source
    }

    fn trace_to(&mut self, source: &TraceSource, core: usize, filter: TraceFilter) {
        let (sink, filter) = (source.sink(core), Arc::new(filter));
        let replies = self.begin_question(|reply| Question::Trace { filter, sink, reply });
        assert_eq!(replies.try_next().expect("answered").1, Ok(self.now));
    }
}

fn of_client(client: &str) -> TraceFilter {
    TraceFilter { client_identifier: Some(client.into()), ..TraceFilter::default() }
}

fn of_topic(filter: &str) -> TraceFilter {
    TraceFilter { topic_filter: Some(filter.into()), ..TraceFilter::default() }
}

fn events(source: &TraceSource) -> Vec<TraceEvent> {
    source.take().into_iter().flat_map(|taken| taken.events).collect()
}

/// The events as text: direction, packet or cause, client, topic.
fn shown(source: &TraceSource) -> Vec<String> {
    let line = |event: &TraceEvent| {
        let packet = |packet: &TracedPacket| packet.packet_type.map_or("?", PacketType::name);
        let what = match &event.what {
            Traced::Received(of) => format!("received {}", packet(of)),
            Traced::Sent(of) => format!("sent {}", packet(of)),
            Traced::Dropped { cause, messages } => format!("dropped {messages} {cause:?}"),
        };
        let client = event.client_identifier.as_deref().unwrap_or("?");
        let topic = event.topic.as_deref().map(|topic| format!(" {topic}"));
        format!("{what} {client}{}", topic.unwrap_or_default())
    };
    events(source).iter().map(line).collect()
}

#[test]
fn a_client_that_connects_after_the_trace_began_is_shown_from_connect_to_disconnect() {
    let mut world = World::new();
    let source = world.trace(of_client("c"));
    let other = world.connect(&Client::v5("other"));
    let id = world.connect(&Client::v5("c"));
    world.subscribe(id, "t/#", Qos::AtLeastOnce);
    world.publish(other, "t/1", b"x", Qos::AtLeastOnce, 1);
    world.send(id, Version::V5, &Packet::Puback(ack(1)));
    world.publish(id, "elsewhere", b"x", Qos::AtMostOnce, 0);
    world.send(id, Version::V5, &Packet::Pingreq);
    world.send(id, Version::V5, &Packet::Disconnect(Default::default()));
    let expected = [
        "received CONNECT c",
        "sent CONNACK c",
        "received SUBSCRIBE c",
        "sent SUBACK c",
        "sent PUBLISH c t/1",
        "received PUBACK c",
        "received PUBLISH c elsewhere",
        "received PINGREQ c",
        "sent PINGRESP c",
        "received DISCONNECT c",
    ];
    assert_eq!(shown(&source), expected);
}

#[test]
fn an_event_has_every_field_of_its_packet_and_a_payload_if_it_is_asked_for() {
    let mut world = World::new();
    let source = world.trace(TraceFilter { payload_bytes_max: 3, ..of_client("c") });
    let id = world.connect(&Client::v5("c"));
    world.subscribe(id, "t", Qos::AtLeastOnce);
    let message = Publish { retain: true, ..publish("t", b"payload", Qos::AtLeastOnce, 9) };
    world.send(id, Version::V5, &Packet::Publish(message));
    let all = events(&source);
    let packet = |number: usize| match &all[number].what {
        Traced::Received(packet) | Traced::Sent(packet) => packet.clone(),
        Traced::Dropped { .. } => panic!("{:?}", all[number]),
    };
    assert_eq!(packet(1).reason, Some(ReasonCode::Success));
    assert_eq!((packet(2).filters, packet(2).qos), (vec!["t".into()], Some(1)));
    assert_eq!(packet(3).reasons, [1]);
    let received = packet(4);
    let expected = TracedPacket {
        packet_type: Some(PacketType::Publish),
        bytes: 2 + 3 + 2 + 1 + 7,
        packet_identifier: Some(9),
        qos: Some(1),
        retain: Some(true),
        dup: Some(false),
        payload_bytes: Some(7),
        payload: Some((*b"pay").into()),
        ..TracedPacket::default()
    };
    assert_eq!(*received, expected);
    assert_eq!(all[4].topic.as_deref(), Some("t"));
    assert_eq!(all[4].at, world.now);
    let sent: Vec<_> = (5..all.len()).map(packet).collect();
    let kinds: Vec<_> = sent.iter().filter_map(|packet| packet.packet_type).collect();
    assert!(kinds.contains(&PacketType::Publish) && kinds.contains(&PacketType::Puback));
    // Without the wish, no payload leaves the engine.
    drop(source);
    let source = world.trace(of_client("c"));
    world.publish(id, "t", b"secret", Qos::AtMostOnce, 0);
    let text = format!("{:?}", events(&source));
    assert!(text.contains("payload_bytes: Some(6)") && text.contains("payload: None"), "{text}");
}

#[test]
fn a_trace_of_a_topic_shows_its_messages_to_and_from_everybody_and_no_other_packets() {
    let mut world = World::new();
    let publisher = world.connect(&Client::v5("publisher"));
    let ids = ["a", "b", "d", "e", "f"].map(|name| world.connect(&Client::v5(name)));
    for &id in &ids {
        world.subscribe(id, "#", Qos::AtMostOnce);
    }
    let source = world.trace(of_topic("t/+"));
    world.publish(publisher, "t/1", b"x", Qos::AtMostOnce, 0);
    world.publish(publisher, "other", b"x", Qos::AtMostOnce, 0);
    let mut expected = vec!["received PUBLISH publisher t/1".to_owned()];
    expected.extend(["a", "b", "d", "e", "f"].map(|name| format!("sent PUBLISH {name} t/1")));
    assert_eq!(shown(&source), expected);
}

#[test]
fn a_topic_is_shown_although_the_packet_has_an_alias_instead() {
    let mut world = World::new();
    let properties = ConnectProperties { topic_alias_maximum: 1, ..Default::default() };
    let subscriber = world.connect(&Client { properties, ..Client::v5("subscriber") });
    world.subscribe(subscriber, "#", Qos::AtMostOnce);
    let publisher = world.connect(&Client::v5("publisher"));
    let source = world.trace(of_topic("a/long/topic"));
    let with_alias = |topic: &'static str| {
        let properties = PublishProperties { topic_alias: Some(2), ..Default::default() };
        Packet::Publish(Publish { properties, ..publish(topic, b"x", Qos::AtMostOnce, 0) })
    };
    world.send_all(publisher, &[with_alias("a/long/topic"), with_alias(""), with_alias("")]);
    let shown = shown(&source);
    let of = |what: &str| shown.iter().filter(|line| *line == what).count();
    assert_eq!(of("received PUBLISH publisher a/long/topic"), 3, "{shown:?}");
    assert_eq!(of("sent PUBLISH subscriber a/long/topic"), 3, "{shown:?}");
}

#[test]
fn a_drop_is_shown_with_its_cause_and_topic() {
    let change = |settings: &mut Settings| {
        settings.limits.queue_messages_max = 1;
        settings.limits.queue_policy = QueuePolicy::DropNewest;
    };
    let mut world = World::with(change, Box::new(AllowAll));
    let away = world.connect(&Client::persistent("away"));
    world.subscribe(away, "t", Qos::AtLeastOnce);
    world.cut(away);
    let publisher = world.connect(&Client::v5("publisher"));
    let (client, topic) = (world.trace(of_client("away")), world.trace(of_topic("t")));
    for number in 1..=3 {
        world.publish(publisher, "t", b"x", Qos::AtLeastOnce, number);
    }
    assert_eq!(shown(&client), ["dropped 1 QueueFull away t"; 2]);
    let of_topic = shown(&topic);
    assert_eq!(of_topic.iter().filter(|line| line.starts_with("dropped")).count(), 2);
    assert_eq!(of_topic.iter().filter(|line| line.starts_with("received")).count(), 3);
    assert_eq!(world.engine.metrics().drops.of(DropCause::QueueFull), 2);
}

#[test]
fn a_refused_client_is_shown_with_the_reason() {
    let mut world = World::new();
    world.drain(Some(Purpose::Drain));
    let source = world.trace(of_client("refused"));
    let id = world.accept();
    world.send_connect(id, &Client::v5("refused"));
    let all = events(&source);
    let reason = |event: &TraceEvent| match &event.what {
        Traced::Sent(packet) => packet.reason,
        _ => None,
    };
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(reason(&all[1]), Some(ReasonCode::UseAnotherServer), "{all:?}");
    assert_eq!(all[1].client_identifier.as_deref(), Some("refused"));
}

#[test]
fn a_client_whose_home_is_another_core_is_shown_once_on_each_step() {
    let mut cores = Cores::new(2);
    let source = TraceSource::new(2);
    for core in 0..2 {
        cores.0[core].trace_to(&source, core, TraceFilter::default());
    }
    // One of these names has its home on the other core.
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let id = cores.0[0].accept();
        cores.0[0].send_connect(id, &Client::v5(name));
        for (_, to, handed_over) in std::mem::take(&mut cores.0[0].leaving) {
            let world = &mut cores.0[usize::from(to.0)];
            let id = world.engine.handle_handed_over(world.now, *handed_over).expect("accepted");
            world.adopt(id);
        }
    }
    let taken = source.take();
    let mut clients = std::collections::BTreeMap::<_, Vec<_>>::new();
    for event in taken.iter().flat_map(|taken| &taken.events) {
        clients.entry(event.client_identifier.clone()).or_default().push(&event.what);
    }
    assert_eq!((taken.len(), clients.len()), (2, 8), "both cores have clients");
    for (client, events) in clients {
        let is_right = matches!(events[..], [Traced::Received(_), Traced::Sent(_)]);
        assert!(is_right, "{client:?}: {events:?}");
    }
}

#[test]
fn what_is_sent_to_a_client_that_reads_slowly_is_shown_once() {
    let mut world = World::new();
    let subscriber = world.connect(&Client::v5("slow"));
    world.subscribe(subscriber, "#", Qos::AtMostOnce);
    let publisher = world.connect(&Client::v5("publisher"));
    let source = world.trace(of_client("slow"));
    world.stuck.insert(subscriber);
    for _ in 0..3 {
        world.publish(publisher, "t", &[b'x'; 3_000], Qos::AtMostOnce, 0);
    }
    // The first is with the executor, the others wait for it.
    assert_eq!(shown(&source), ["sent PUBLISH slow t"]);
    world.unstick(subscriber);
    assert_eq!(shown(&source), ["sent PUBLISH slow t"; 2]);
}

#[test]
fn a_slow_reader_costs_bounded_memory_and_learns_how_much_it_missed() {
    let mut world = World::new();
    let publisher = world.connect(&Client::v5("publisher"));
    let before = world.engine.metrics().memory_bytes;
    let source = world.trace(of_client("publisher"));
    let all = limits::TRACE_EVENTS_MAX + 500;
    for _ in 0..all {
        world.publish(publisher, "t", b"x", Qos::AtMostOnce, 0);
    }
    let metrics = world.engine.metrics().clone();
    assert_eq!((metrics.traces_running, metrics.trace_events), (1, all as u64));
    assert_eq!(metrics.trace_events_missed, 500);
    let charged = metrics.memory_bytes - before;
    assert!((1 << 18..=limits::TRACE_BYTES_MAX as u64).contains(&charged), "{charged}");
    let taken = source.take();
    assert_eq!((taken[0].events.len(), taken[0].missed), (limits::TRACE_EVENTS_MAX, 500));
    drop(source);
    world.publish(publisher, "t", b"x", Qos::AtMostOnce, 0);
    let metrics = world.engine.metrics();
    assert_eq!((metrics.traces_running, metrics.memory_bytes), (0, before));
}

#[test]
fn nobody_is_watched_once_the_reader_has_gone() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    drop(world.trace(TraceFilter::default()));
    world.publish(id, "t", b"x", Qos::AtMostOnce, 0);
    world.advance_ms(1);
    assert!(
        !world.engine.observers.watch.shows_packets()
            && !world.engine.observers.watch.watches_packets()
    );
    let events = world.engine.metrics().trace_events;
    world.publish(id, "t", b"x", Qos::AtMostOnce, 0);
    assert_eq!(world.engine.metrics().trace_events, events);
}

#[test]
fn acknowledgements_with_errors_have_their_reason() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    let source = world.trace(of_client("c"));
    let unknown = Ack::new(identifier(77), ReasonCode::Success);
    world.send(id, Version::V5, &Packet::Pubrel(unknown));
    let all = events(&source);
    let Traced::Sent(pubcomp) = &all[1].what else { panic!("{all:?}") };
    assert_eq!(pubcomp.reason, Some(ReasonCode::PacketIdentifierNotFound));
    assert_eq!(pubcomp.packet_identifier, Some(77));
}
