//! Access rules that a client brings along, in the claims of its token.

use std::sync::Arc;

use super::acl::{Rules, Subject, Verdict, Wish};

/// The sections of the rules: there is one, for everybody.
const SECTIONS: &[u32] = &[0];

/// Rules of one client, which end with its connection. The rules of the broker are asked first.
#[derive(Clone, Debug)]
pub(super) struct Grants {
    rules: Arc<Rules>,
    /// Memory of the rules.
    bytes: usize,
    /// Whether a server is asked about what no rule decides.
    pub is_open: bool,
}

impl PartialEq for Grants {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules)
    }
}

impl Eq for Grants {}

impl Grants {
    /// These rules.
    #[cfg(feature = "jwt")]
    pub fn new(rules: Rules, is_open: bool) -> Self {
        let bytes = rules.bytes();
        Self { rules: Arc::new(rules), bytes, is_open }
    }

    /// Memory of the rules.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Decides about a request.
    pub fn decide(&self, subject: &Subject<'_>, wish: &Wish<'_>) -> Verdict<'_> {
        match self.rules.is_empty() {
            true => Verdict { qos: None, by: None },
            false => self.rules.decide(SECTIONS, subject, wish),
        }
    }

    /// Highest cost of a decision about `text`, in steps of a core's budget.
    pub fn steps(&self, text: &str) -> usize {
        if self.rules.is_empty() { 0 } else { self.rules.steps(SECTIONS, text) }
    }
}
