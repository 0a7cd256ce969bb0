//! Spans of sampled messages: which messages are sampled, and what their spans say.

use super::*;
use crate::config::Sampling;
use crate::control::question::Question;
use crate::control::span::{
    DELIVERIES_MAX, MessageSpan, NAME_BYTES_MAX, SPANS_MAX, SpanSource, spans,
};

pub const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

impl World {
    pub fn sample(&mut self, sampling: Sampling) -> SpanSource {
        let (sink, source) = spans();
        let replies =
            self.begin_question(|reply| Question::Sample { sampling, sink: Some(sink), reply });
        assert_eq!(replies.try_next().expect("answered").1, Ok(self.now));
        source
    }

    pub fn publish_traced(
        &mut self,
        id: ConnectionId,
        topic: &str,
        qos: Qos,
        parent: Option<&str>,
    ) {
        let mut section = Vec::new();
        parent.iter().for_each(|of| UserProperties::push(&mut section, "traceparent", of));
        let user_properties = UserProperties::encoded(&section);
        let properties = PublishProperties { user_properties, ..Default::default() };
        let packet = Publish { properties, ..publish(topic, b"payload", qos, 7) };
        self.send(id, Version::V5, &Packet::Publish(packet));
        self.now = Now(self.now.0 + 1);
    }
}

fn topics(source: &SpanSource) -> Vec<Box<str>> {
    source.take(SPANS_MAX).into_iter().map(|span| span.topic).collect()
}

#[test]
fn a_message_is_sampled_if_its_traceparent_says_so_or_by_its_share() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    let source = world.sample(Sampling::Asked);
    for (topic, parent) in
        [("none", None), ("no", Some(UNSAMPLED)), ("yes", Some(PARENT)), ("odd", Some("x"))]
    {
        world.publish_traced(id, topic, Qos::AtMostOnce, parent);
    }
    assert_eq!(topics(&source), ["yes".into()]);
    let source = world.sample(Sampling::Share(0.25));
    for number in 0..1_000 {
        world.publish_traced(id, &(number % 4).to_string(), Qos::AtMostOnce, None);
    }
    world.publish_traced(id, "no", Qos::AtMostOnce, Some(UNSAMPLED));
    let sampled = topics(&source);
    assert!((200..300).contains(&sampled.len()), "{}", sampled.len());
    for topic in ["0", "1", "2", "3"] {
        let of = sampled.iter().filter(|sampled| ***sampled == *topic).count();
        assert!((30..90).contains(&of), "{topic}: {of}: topics that take turns are all sampled");
    }
    assert!(!sampled.contains(&"no".into()));
    let source = world.sample(Sampling::Off);
    world.publish_traced(id, "off", Qos::AtMostOnce, Some(PARENT));
    assert!(topics(&source).is_empty());
    world.advance_ms(1);
    assert!(
        !world.engine.observers.watch.watches_packets()
            && !world.engine.observers.watch.shows_packets()
    );
}

#[test]
fn a_span_has_the_message_its_fan_out_and_at_most_eight_deliveries() {
    let mut world = World::new();
    let ids: Vec<_> = (0..20).map(|n| world.connect(&Client::v5(&format!("s{n}")))).collect();
    ids.iter().for_each(|&id| world.subscribe(id, "t", Qos::AtLeastOnce));
    let away = world.connect(&Client::persistent("away"));
    world.subscribe(away, "t", Qos::AtLeastOnce);
    world.cut(away);
    let publisher = world.connect(&Client::v5("publisher"));
    let source = world.sample(Sampling::Asked);
    let began = world.now;
    world.publish_traced(publisher, "t", Qos::AtLeastOnce, Some(PARENT));
    let all = source.take(SPANS_MAX);
    let [MessageSpan { deliveries, parent, .. }] = &all[..] else { panic!("{all:?}") };
    let span = &all[0];
    assert_eq!((&*span.client_identifier, &*span.topic), ("publisher", "t"));
    assert_eq!((span.qos, span.payload_bytes, span.recipients, span.cores), (1, 7, 21, 0));
    assert_eq!((span.began, span.waited), (began, false));
    assert_eq!(parent.expect("a parent").span_id[0], 0xB7);
    assert_eq!(deliveries.len(), DELIVERIES_MAX);
    assert!(deliveries.iter().all(|delivery| delivery.sent == Some(began) && delivery.qos == 1));
    let metrics = world.engine.metrics();
    assert_eq!((metrics.spans_recorded, metrics.spans_dropped), (1, 0));
}

#[test]
fn a_delivery_that_waits_in_a_queue_ends_the_span_after_five_seconds() {
    let mut world = World::new();
    let slow = world.connect(&Client::v5("slow"));
    world.subscribe(slow, "t", Qos::AtMostOnce);
    let publisher = world.connect(&Client::v5("publisher"));
    let source = world.sample(Sampling::Asked);
    world.stuck.insert(slow);
    world.publish_traced(publisher, "t", Qos::AtMostOnce, None);
    world.publish_traced(publisher, "t", Qos::AtMostOnce, Some(PARENT));
    assert!(topics(&source).is_empty(), "the copy has not left");
    world.advance_ms(6_000);
    let all = source.take(SPANS_MAX);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].deliveries[0].sent, None);
}

#[test]
fn spans_for_which_nobody_has_room_are_dropped_and_counted() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    let source = world.sample(Sampling::Share(1.0));
    for _ in 0..SPANS_MAX + 3 {
        world.publish_traced(id, "t", Qos::AtMostOnce, None);
    }
    let metrics = world.engine.metrics();
    assert_eq!((metrics.spans_recorded, metrics.spans_dropped), (SPANS_MAX as u64, 3));
    assert_eq!(source.take(usize::MAX).len(), SPANS_MAX);
}

#[test]
fn packets_that_arrive_together_are_sampled_each_with_its_own_topic_and_alias() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    let source = world.sample(Sampling::Share(1.0));
    let with_alias = |topic: &'static str| {
        let properties = PublishProperties { topic_alias: Some(1), ..Default::default() };
        Packet::Publish(Publish { properties, ..publish(topic, b"x", Qos::AtMostOnce, 0) })
    };
    world.send_all(id, &[with_alias("a"), with_alias(""), with_alias("b"), with_alias("")]);
    assert_eq!(topics(&source), ["a".into(), "a".into(), "b".into(), "b".into()]);
}

#[test]
fn long_names_are_cut_and_what_sampling_takes_is_on_the_ledger() {
    let mut world = World::new();
    let subscriber = world.connect(&Client::v5("s"));
    world.subscribe(subscriber, "#", Qos::AtMostOnce);
    let id = world.connect(&Client::v5("c"));
    let bytes = |world: &World| world.engine.memory.ledger().bytes() as usize;
    let before = bytes(&world);
    let source = world.sample(Sampling::Asked);
    assert!(bytes(&world) > before + SPANS_MAX * NAME_BYTES_MAX);
    world.publish_traced(id, &"ä".repeat(20_000), Qos::AtMostOnce, Some(PARENT));
    let [span] = &source.take(SPANS_MAX)[..] else { panic!("one span") };
    assert_eq!((span.topic.len(), span.recipients), (NAME_BYTES_MAX, 1));
    assert!(span.deliveries[0].sent.is_some(), "the copy is recognized by the part that is there");
    world.sample(Sampling::Off);
    assert!(bytes(&world) < before + SPANS_MAX * NAME_BYTES_MAX);
}
