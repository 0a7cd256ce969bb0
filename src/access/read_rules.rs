//! Which topics clients may read, for subscriptions that the rules cover in part.

use std::collections::HashMap;
use std::sync::Arc;

use crate::access::acl::{Rules, Subject};
use crate::engine::{ReadDecisions, ReadRules, Reader};

/// Rules, as the topic caches of the cores ask them.
#[derive(Debug)]
pub(super) struct Reading(pub Arc<Rules>);

impl ReadRules for Reading {
    fn decide<'a>(&'a self, topic: &'a str) -> Box<dyn ReadDecisions + 'a> {
        Box::new(Decisions { rules: &self.0, topic, decided: HashMap::new(), steps: 0 })
    }
}

/// Decisions about one topic.
struct Decisions<'a> {
    rules: &'a Rules,
    topic: &'a str,
    /// What sections say to every client that they apply to.
    decided: HashMap<u32, Option<bool>>,
    steps: usize,
}

impl ReadDecisions for Decisions<'_> {
    fn may_read(&mut self, reader: &Reader<'_>) -> bool {
        let Self { rules, topic, decided, steps } = self;
        let subject = Subject { user: reader.user, client_identifier: reader.client_identifier };
        *steps += 1;
        for &section in &rules.sections_of(&subject) {
            let mut decide = || {
                *steps += rules.steps(&[section], topic);
                rules.reads_in(section, &subject, topic)
            };
            let verdict = match rules.names_client(section) {
                true => decide(),
                false => *decided.entry(section).or_insert_with(decide),
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
