//! Which topics clients may read, for subscriptions that the rules cover in part.

use std::collections::HashMap;
use std::sync::Arc;

use crate::access::acl::{Rules, Subject};
use crate::access::topic_rules::TopicRules;
use crate::engine::{ReadDecisions, ReadRules, Reader};

/// Rules, as the topic caches of the cores ask them.
#[derive(Debug)]
pub(super) struct Reading(pub TopicRules);

impl ReadRules for Reading {
    fn decide<'a>(&'a self, topic: &'a str) -> Box<dyn ReadDecisions + 'a> {
        Box::new(Decisions { rules: &self.0, topic, decided: HashMap::new(), steps: 0 })
    }
}

/// Decisions about one topic.
struct Decisions<'a> {
    rules: &'a TopicRules,
    topic: &'a str,
    /// What sections of rules say to every client that they apply to.
    decided: HashMap<(*const Rules, u32), Option<bool>>,
    steps: usize,
}

impl ReadDecisions for Decisions<'_> {
    fn may_read(&mut self, reader: &Reader<'_>) -> bool {
        let Self { rules, topic, decided, steps } = self;
        let Some(rules) = rules.of(reader.listener).filter(|rules| rules.is_filtering()) else {
            // No rules apply, or they have decided about the whole subscription.
            return true;
        };
        let subject = Subject { user: reader.user, client_identifier: reader.client_identifier };
        *steps += 1;
        for &section in &rules.sections_of(&subject) {
            let mut decide = || {
                *steps += rules.steps(&[section], topic);
                rules.reads_in(section, &subject, topic)
            };
            let verdict = match rules.names_client(section) {
                true => decide(),
                false => *decided.entry((Arc::as_ptr(rules), section)).or_insert_with(decide),
            };
            if let Some(may_read) = verdict {
                return may_read;
            }
        }
        false
    }

    fn steps(&self) -> usize {
        self.steps
    }
}
