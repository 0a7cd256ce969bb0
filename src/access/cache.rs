//! Cache of the decisions for one connection: most clients publish to few topics.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::wire::Qos;

/// Topics cached for a connection.
const TOPICS_MAX: usize = 16;

/// Longer topics are not cached.
const TOPIC_BYTES_MAX: usize = 256;

/// Decisions about publishing, by topic.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    topics: Vec<Topic>,
    /// Index of the topic that is replaced next.
    oldest: usize,
}

/// Decisions about a topic.
#[derive(Debug)]
struct Topic {
    hash: u64,
    name: Box<str>,
    /// A bit for each QoS and RETAIN: whether it has been decided, and whether it is allowed.
    known: u8,
    allowed: u8,
}

impl Decisions {
    /// Whether publishing is allowed: from the cache, otherwise by `decide`.
    pub fn decide(
        &mut self,
        hasher: &DefaultHashBuilder,
        topic: &str,
        qos: Qos,
        retain: bool,
        decide: impl FnOnce() -> bool,
    ) -> bool {
        if topic.len() > TOPIC_BYTES_MAX {
            return decide();
        }
        let bit = 1 << (2 * u8::from(qos) + u8::from(retain));
        let hash = hasher.hash_one(topic);
        let is_it = |known: &&mut Topic| known.hash == hash && *known.name == *topic;
        if let Some(known) = self.topics.iter_mut().find(is_it) {
            if known.known & bit == 0 {
                known.known |= bit;
                known.allowed |= if decide() { bit } else { 0 };
            }
            return known.allowed & bit != 0;
        }
        let is_allowed = decide();
        let allowed = if is_allowed { bit } else { 0 };
        let fresh = Topic { hash, name: topic.into(), known: bit, allowed };
        if self.topics.len() < TOPICS_MAX {
            self.topics.push(fresh);
        } else {
            self.topics[self.oldest] = fresh;
            self.oldest = (self.oldest + 1) % TOPICS_MAX;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_asked_for_once_and_kept_apart_by_topic_qos_and_retain() {
        let (mut decisions, hasher) = (Decisions::default(), DefaultHashBuilder::default());
        let mut asked = 0;
        let wishes = [("a", Qos::AtMostOnce, false), ("a", Qos::AtMostOnce, true)];
        let wishes = wishes
            .into_iter()
            .chain([("a", Qos::ExactlyOnce, true), ("b", Qos::AtMostOnce, false)]);
        for round in 0..3 {
            for (number, (topic, qos, retain)) in wishes.clone().enumerate() {
                let seen = decisions.decide(&hasher, topic, qos, retain, || {
                    asked += 1;
                    number % 2 == 0
                });
                assert_eq!(seen, number % 2 == 0, "{round} {topic}");
            }
        }
        assert_eq!(asked, 4);
    }

    #[test]
    fn however_many_topics_there_are_few_are_remembered_and_all_are_decided() {
        let (mut decisions, hasher) = (Decisions::default(), DefaultHashBuilder::default());
        for number in 0..1_000 {
            let topic = format!("t/{number}");
            let seen =
                decisions.decide(&hasher, &topic, Qos::AtMostOnce, false, || number % 3 == 0);
            assert_eq!(seen, number % 3 == 0);
        }
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        assert!(decisions.decide(&hasher, &long, Qos::AtMostOnce, false, || true));
        assert!(!decisions.decide(&hasher, &long, Qos::AtMostOnce, false, || false));
        assert_eq!(decisions.topics.len(), TOPICS_MAX);
    }
}
