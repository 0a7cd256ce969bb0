//! Packets that wait for a decision of the access control.

use std::sync::{Arc, Mutex};

use super::*;

/// Decides about topics below `later/` when the test says so.
#[derive(Clone, Default)]
struct Slow {
    /// Decisions that the engine has not heard of.
    decided: Arc<Mutex<Vec<(u64, bool)>>>,
    /// Connections with a question.
    asked: Arc<Mutex<Vec<u64>>>,
    answers: Vec<(u64, bool)>,
}

impl Slow {
    fn decide<T>(&mut self, exchange: u64, topic: &str, allowed: T) -> Decision<T> {
        if !topic.starts_with("later/") {
            return Decision::Allowed(allowed);
        }
        match self.answers.iter().position(|of| of.0 == exchange) {
            Some(at) if self.answers.remove(at).1 => Decision::Allowed(allowed),
            Some(_) => Decision::Denied,
            None => {
                self.asked.lock().expect("no panic").push(exchange);
                Decision::Pending
            }
        }
    }

    /// Answers the only open question.
    fn answer(&self, world: &mut World, is_allowed: bool) {
        let asked = std::mem::take(&mut *self.asked.lock().expect("no panic"));
        assert_eq!(asked.len(), 1, "one question at a time: {asked:?}");
        self.decided.lock().expect("no panic").push((asked[0], is_allowed));
        world.engine.handle_answers(world.now);
        world.settle();
    }
}

impl Access for Slow {
    fn authenticate(&mut self, _: Now, _: u64, _: &Credentials<'_>) -> Authentication {
        Authentication::Granted(Grant::default())
    }

    fn may_publish(
        &mut self,
        _: Now,
        who: &Identity<'_>,
        topic: &str,
        _: Qos,
        _: bool,
    ) -> Decision {
        self.decide(who.exchange, topic, ())
    }

    fn may_subscribe(
        &mut self,
        _: Now,
        who: &Identity<'_>,
        filter: &str,
        qos: Qos,
    ) -> Decision<Qos> {
        self.decide(who.exchange, filter, qos)
    }

    fn poll_decided(&mut self, _: Now) -> Option<u64> {
        let (exchange, is_allowed) = self.decided.lock().expect("no panic").pop()?;
        self.answers.push((exchange, is_allowed));
        Some(exchange)
    }
}

fn world() -> (World, Slow) {
    let slow = Slow::default();
    (World::with(|_| {}, Box::new(slow.clone())), slow)
}

fn topics(world: &mut World, id: ConnectionId) -> Vec<String> {
    world.publishes(id).into_iter().map(|of| of.0).collect()
}

#[test]
fn a_message_that_waits_for_a_decision_is_delivered_once_and_before_later_ones() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let (mut world, slow) = world();
        let reader = world.connect(&Client::v5("reader"));
        world.subscribe(reader, "#", Qos::AtMostOnce);
        world.packets(reader, Version::V5);
        let writer = world.connect(&Client::v5("writer"));
        let held = world.engine.memory.ledger().bytes();
        world.publish(writer, "later/1", &[b'x'; 1_000], qos, 1);
        assert!(world.engine.memory.ledger().bytes() > held + 1_000, "the ledger has the packet");
        world.publish(writer, "now/1", b"", qos, 2);
        assert!(topics(&mut world, reader).is_empty(), "{qos:?}");
        assert!(world.packets(writer, Version::V5).is_empty(), "{qos:?}");
        assert!(world.paused.contains(&writer), "its socket is not read");
        let other = world.connect(&Client::v5("other"));
        world.publish(other, "now/2", b"", Qos::AtMostOnce, 0);
        assert_eq!(topics(&mut world, reader), ["now/2"], "other clients are served");
        slow.answer(&mut world, true);
        assert_eq!(topics(&mut world, reader), ["later/1", "now/1"]);
        let answers = world.packets(writer, Version::V5).len();
        assert_eq!(answers, if qos == Qos::AtMostOnce { 0 } else { 2 });
        assert!(!world.paused.contains(&writer));
        assert_eq!(world.engine.metrics().publishes_received, 3, "each is counted once");
    }
}

#[test]
fn a_message_that_is_denied_after_a_wait_is_answered_with_the_reason() {
    for (qos, expected) in [(Qos::AtLeastOnce, "Puback"), (Qos::ExactlyOnce, "Pubrec")] {
        let (mut world, slow) = world();
        let writer = world.connect(&Client::v5("writer"));
        for _ in 0..2 {
            world.publish(writer, "later/1", b"x", qos, 1);
            slow.answer(&mut world, false);
            let packets = world.packets(writer, Version::V5);
            assert_eq!(packets.len(), 1, "{packets:?}");
            assert!(packets[0].starts_with(expected), "{packets:?}");
            assert!(packets[0].contains("NotAuthorized"), "{packets:?}");
        }
    }
}

#[test]
fn a_subscription_waits_filter_by_filter_and_a_will_before_its_client_is_admitted() {
    let (mut world, slow) = world();
    let reader = world.connect(&Client::v5("reader"));
    let options = SubscribeOptions {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let filters = ["now/#", "later/1", "later/2", "now/2"].map(|filter| (filter, options));
    let subscribe = Subscribe {
        packet_identifier: identifier(7),
        subscription_identifier: None,
        user_properties: UserProperties::none(),
        filters: SubscribeFilters::list(&filters),
    };
    world.send(reader, Version::V5, &Packet::Subscribe(subscribe));
    assert!(world.packets(reader, Version::V5).is_empty());
    slow.answer(&mut world, true);
    assert!(world.packets(reader, Version::V5).is_empty());
    slow.answer(&mut world, false);
    let packets = world.packets(reader, Version::V5);
    assert!(packets[0].contains("[1, 1, 135, 1]"), "{packets:?}");
    for is_allowed in [true, false] {
        // The broker assigns the Client Identifier.
        let mut client = Client::v5("");
        let (topic, payload) = ("later/will", &b"gone"[..]);
        client.will = Some(wire::Will { topic, payload, ..wire::Will::default() });
        let id = world.accept();
        world.send_connect(id, &client);
        assert!(world.packets(id, Version::V5).is_empty());
        slow.answer(&mut world, is_allowed);
        let packets = world.packets(id, Version::V5);
        assert_eq!(packets.len(), 1, "{packets:?}");
        assert_eq!(packets[0].contains("NotAuthorized"), !is_allowed, "{packets:?}");
        assert_eq!(world.closed.contains(&id), !is_allowed);
    }
}

#[test]
fn a_client_that_leaves_while_its_message_waits_is_served_to_the_end() {
    let (mut world, slow) = world();
    let reader = world.connect(&Client::v5("reader"));
    world.subscribe(reader, "#", Qos::AtMostOnce);
    world.packets(reader, Version::V5);
    let writer = world.connect(&Client::v5("writer"));
    world.publish(writer, "later/1", b"", Qos::AtMostOnce, 0);
    world.publish(writer, "now/1", b"", Qos::AtMostOnce, 0);
    world.end(writer);
    assert!(topics(&mut world, reader).is_empty());
    slow.answer(&mut world, true);
    assert_eq!(topics(&mut world, reader), ["later/1", "now/1"]);
    assert!(world.closed.contains(&writer));
}

#[test]
#[cfg(feature = "admin")]
fn the_span_of_a_message_ends_with_the_decision_and_says_why_the_message_was_refused() {
    use crate::config::Sampling;
    use crate::engine::tests::spans::PARENT;
    let (mut world, slow) = world();
    let reader = world.connect(&Client::v5("reader"));
    world.subscribe(reader, "#", Qos::AtMostOnce);
    let writer = world.connect(&Client::v5("writer"));
    let other = world.connect(&Client::v5("other"));
    let source = world.sample(Sampling::Asked);
    for (qos, is_allowed) in [
        (Qos::AtMostOnce, true),
        (Qos::AtMostOnce, false),
        (Qos::AtLeastOnce, true),
        (Qos::AtLeastOnce, false),
    ] {
        world.publish_traced(writer, "later/1", qos, Some(PARENT));
        world.publish_traced(other, "now/1", Qos::AtMostOnce, Some(PARENT));
        let [span] = &source.take(9)[..] else { panic!("the other message has a span") };
        assert_eq!((&*span.topic, span.waited, span.recipients), ("now/1", false, 1));
        slow.answer(&mut world, is_allowed);
        let [span] = &source.take(9)[..] else { panic!("the decided message has a span") };
        assert!(span.waited && span.ended > span.began, "{span:?}");
        let refused = (!is_allowed).then_some(ReasonCode::NotAuthorized);
        assert_eq!((&*span.topic, span.refused), ("later/1", refused));
        assert_eq!(span.deliveries.len(), usize::from(is_allowed), "{span:?}");
        assert!(span.deliveries.iter().all(|delivery| delivery.sent.is_some()));
    }
}
