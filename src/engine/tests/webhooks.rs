//! Which events an engine reports to webhooks.

use std::sync::mpsc::Receiver;

use super::*;
use crate::config::{Webhook, WebhookEvent};
use crate::control::webhooks::{Event, Queue, Rules, Tap, What};

/// A world with a webhook for these events, and the events.
fn world(events: &[WebhookEvent]) -> (World, Receiver<Event>) {
    let text = "[[webhooks]]\nname = \"a\"\nurl = \"http://h/\"\nevents = []\nfilters = [\"a/#\"]\n\
                payload_bytes_max = 4";
    let settings = Settings::from_toml(text).expect("valid");
    let webhook = Webhook { events: events.to_vec(), ..settings.webhooks[0].clone() };
    let (queue, take) = Queue::new();
    let mut world = World::new();
    world.engine.set_webhooks(&[Tap::new(Rules::from(&webhook), &queue)]);
    (world, take)
}

fn topics(events: &Receiver<Event>) -> Vec<String> {
    let topic = |event: Event| match event.what {
        What::Publish { topic, .. } => topic.into(),
        other => panic!("{other:?}"),
    };
    events.try_iter().map(topic).collect()
}

#[test]
fn a_message_is_reported_once_if_a_filter_matches_and_its_payload_is_cut() {
    let (mut world, events) = world(&[WebhookEvent::Publish]);
    let id = world.connect(&Client::v5("c"));
    world.publish(id, "a/1", b"123456", Qos::AtMostOnce, 0);
    let event = events.try_recv().expect("it matches");
    assert_eq!((event.client.as_deref(), event.sequence), (Some("c"), 0));
    let What::Publish { payload, payload_bytes, .. } = event.what else { panic!("{event:?}") };
    assert_eq!((&payload[..], payload_bytes), (&b"1234"[..], 6));
    world.publish(id, "b", b"", Qos::AtMostOnce, 0);
    // A QoS 2 message that is sent twice.
    world.publish(id, "a/2", b"", Qos::ExactlyOnce, 7);
    world.publish(id, "a/2", b"", Qos::ExactlyOnce, 7);
    assert_eq!(topics(&events), ["a/2"]);
}

#[test]
fn a_will_is_reported_as_a_message_of_its_client() {
    let (mut world, events) = world(&[WebhookEvent::Publish]);
    let will = wire::Will { topic: "a/will", payload: b"gone", ..wire::Will::default() };
    let id = world.connect(&Client { will: Some(will), ..Client::v5("c") });
    world.engine.handle_closed(world.now, id);
    world.settle();
    let event = events.try_recv().expect("the Will");
    assert_eq!(event.client.as_deref(), Some("c"));
    assert_eq!(events.try_iter().count(), 0);
}

#[test]
fn a_take_over_ends_one_connection_before_the_next_begins_and_an_unwanted_kind_is_not_reported() {
    let (mut world, events) = world(&[WebhookEvent::Connect, WebhookEvent::Disconnect]);
    let first = world.connect(&Client::persistent("c"));
    world.subscribe(first, "a/#", Qos::AtMostOnce);
    world.publish(first, "a/1", b"", Qos::AtMostOnce, 0);
    world.connect(&Client::persistent("c"));
    let causes: Vec<String> = events
        .try_iter()
        .map(|event| match event.what {
            What::Connect { session_present, .. } => format!("connect {session_present}"),
            What::Disconnect { cause, .. } => format!("disconnect {cause}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(causes, ["connect false", "disconnect taken-over", "connect true"]);
}

#[test]
fn events_are_numbered_on_when_the_rules_of_a_webhook_change() {
    let (mut world, events) = world(&[WebhookEvent::Publish]);
    let id = world.connect(&Client::v5("c"));
    world.publish(id, "a/1", b"", Qos::AtMostOnce, 0);
    let (queue, other) = Queue::new();
    let text = "[[webhooks]]\nname = \"b\"\nurl = \"http://h/\"\nevents = [\"publish\"]\nfilters = [\"#\"]";
    let settings = Settings::from_toml(text).expect("valid");
    let tap = Tap::new(Rules::from(&settings.webhooks[0]), &queue);
    for number in 0..2 {
        world.engine.set_webhooks(std::slice::from_ref(&tap));
        world.publish(id, "b", b"", Qos::AtMostOnce, 0);
        assert_eq!(other.try_recv().map(|event| event.sequence), Ok(number));
    }
    assert_eq!(events.try_iter().count(), 1);
    world.engine.set_webhooks(&[]);
    world.publish(id, "b", b"", Qos::AtMostOnce, 0);
    assert_eq!(other.try_iter().count(), 0);
}
