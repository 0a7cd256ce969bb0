//! Cache of the decisions for one connection: most clients publish to few topics.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::base::clock::Now;
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

/// A decision, and how long it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decided {
    pub is_allowed: bool,
    /// Until then, or for ever.
    pub until: Option<Now>,
}

impl Decided {
    /// A decision of rules, which holds as long as they do.
    pub fn by_rule(is_allowed: bool) -> Self {
        Self { is_allowed, until: None }
    }

    /// Whether the decision still holds.
    pub fn holds(&self, now: Now) -> bool {
        self.until.is_none_or(|until| now.0 < until.0)
    }
}

/// Decisions about a topic.
#[derive(Debug)]
struct Topic {
    hash: u64,
    name: Box<str>,
    /// A bit for each QoS and RETAIN: whether it has been decided, and whether it is allowed.
    known: u8,
    allowed: u8,
    /// Until when they hold, in microseconds; the highest number for ever.
    until_us: u64,
}

impl Decisions {
    /// Whether publishing is allowed: from the cache, otherwise by `decide`; none if that has no decision yet.
    pub fn decide(
        &mut self,
        hasher: &DefaultHashBuilder,
        topic: &str,
        qos: Qos,
        retain: bool,
        now: Now,
        decide: impl FnOnce() -> Option<Decided>,
    ) -> Option<bool> {
        if topic.len() > TOPIC_BYTES_MAX {
            return decide().map(|decided| decided.is_allowed);
        }
        let bit = 1 << (2 * u8::from(qos) + u8::from(retain));
        let hash = hasher.hash_one(topic);
        let is_it = |known: &&mut Topic| known.hash == hash && *known.name == *topic;
        let until_us = |decided: &Decided| decided.until.map_or(u64::MAX, |until| until.0);
        if let Some(known) = self.topics.iter_mut().find(is_it) {
            if known.until_us <= now.0 {
                (known.known, known.allowed, known.until_us) = (0, 0, u64::MAX);
            }
            if known.known & bit == 0 {
                let decided = decide()?;
                known.known |= bit;
                known.allowed |= if decided.is_allowed { bit } else { 0 };
                known.until_us = known.until_us.min(until_us(&decided));
            }
            return Some(known.allowed & bit != 0);
        }
        let decided = decide()?;
        let allowed = if decided.is_allowed { bit } else { 0 };
        let until_us = until_us(&decided);
        let fresh = Topic { hash, name: topic.into(), known: bit, allowed, until_us };
        if self.topics.len() < TOPICS_MAX {
            self.topics.push(fresh);
        } else {
            self.topics[self.oldest] = fresh;
            self.oldest = (self.oldest + 1) % TOPICS_MAX;
        }
        Some(decided.is_allowed)
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
                let seen = decisions.decide(&hasher, topic, qos, retain, Now(0), || {
                    asked += 1;
                    Some(Decided::by_rule(number % 2 == 0))
                });
                assert_eq!(seen, Some(number % 2 == 0), "{round} {topic}");
            }
        }
        assert_eq!(asked, 4);
    }

    #[test]
    fn however_many_topics_there_are_few_are_remembered_and_all_are_decided() {
        let (mut decisions, hasher) = (Decisions::default(), DefaultHashBuilder::default());
        for number in 0..1_000 {
            let topic = format!("t/{number}");
            let by_rule = || Some(Decided::by_rule(number % 3 == 0));
            let seen = decisions.decide(&hasher, &topic, Qos::AtMostOnce, false, Now(0), by_rule);
            assert_eq!(seen, Some(number % 3 == 0));
        }
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        for may in [true, false] {
            let by_rule = || Some(Decided::by_rule(may));
            let seen = decisions.decide(&hasher, &long, Qos::AtMostOnce, false, Now(0), by_rule);
            assert_eq!(seen, Some(may));
        }
        assert_eq!(decisions.topics.len(), TOPICS_MAX);
    }

    #[test]
    fn a_decision_holds_for_its_time_and_none_is_remembered_before_it_is_there() {
        let (mut decisions, hasher) = (Decisions::default(), DefaultHashBuilder::default());
        let mut decide = |now: u64, decided: Option<Decided>| {
            decisions.decide(&hasher, "t", Qos::AtMostOnce, false, Now(now), || decided)
        };
        let until = |until: u64, is_allowed| Some(Decided { is_allowed, until: Some(Now(until)) });
        assert_eq!(decide(0, None), None);
        assert_eq!(decide(0, until(10, true)), Some(true));
        assert_eq!(decide(9, None), Some(true), "it is cached");
        assert_eq!(decide(10, None), None, "it is over");
        assert_eq!(decide(10, until(20, false)), Some(false));
        assert_eq!(decide(19, None), Some(false));
    }
}
