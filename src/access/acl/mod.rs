//! Access rules: who may publish and subscribe to which topics, and who may use which Client Identifier. The
//! first rule that matches decides, from top to bottom; without a match, access is denied. Knows no file and no
//! connection; `parse` reads the text.

mod filter;
mod identifier;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;

use filter::Filter;
pub use identifier::{IdentifierRule, IdentifierVerdict};
pub use parse::AclError;

use crate::wire::Qos;

/// Access rules, in the order of the file.
#[derive(Debug, Default)]
pub struct Rules {
    sections: Vec<Section>,
    /// Groups by user.
    groups: HashMap<Box<str>, Vec<Box<str>>>,
    /// Sections by the user or group that their first condition names.
    of_users: HashMap<Box<str>, Vec<u32>>,
    of_groups: HashMap<Box<str>, Vec<u32>>,
    /// All other sections.
    of_any: Vec<u32>,
}

/// A section: rules for the same clients.
#[derive(Debug)]
struct Section {
    line: u32,
    /// Conditions, all of which have to apply.
    who: Vec<Who>,
    rules: Vec<Rule>,
    /// Rules about Client Identifiers.
    identifiers: Vec<IdentifierRule>,
}

/// A condition on a client.
#[derive(Debug, PartialEq, Eq)]
enum Who {
    Everyone,
    /// Clients with a user name.
    Users,
    /// Anonymous clients.
    Anonymous,
    User(Box<str>),
    Group(Box<str>),
    /// Pattern of Client Identifiers; `*` matches any characters.
    Client(Box<str>),
}

/// A rule: one line of the file.
#[derive(Debug)]
pub struct Rule {
    /// Line number.
    pub line: u32,
    /// Whether the rule allows or denies.
    pub allows: bool,
    publish: bool,
    subscribe: bool,
    retain: Option<bool>,
    shared: Option<bool>,
    qos_min: u8,
    qos_max: u8,
    filter: Filter,
}

/// The client to decide about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// User name; none for an anonymous client.
    pub user: Option<&'a str>,
    /// Client Identifier.
    pub client_identifier: &'a str,
}

/// The request to decide about.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'a> {
    /// To publish a message.
    Publish {
        /// Topic Name.
        topic: &'a str,
        /// QoS.
        qos: Qos,
        /// RETAIN flag.
        retain: bool,
    },
    /// To subscribe.
    Subscribe {
        /// Topic Filter, with `$share/NAME/` when shared.
        filter: &'a str,
        /// Maximum QoS.
        qos: Qos,
    },
}

/// A decision.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'r> {
    /// Highest QoS allowed; none if access is denied.
    pub qos: Option<Qos>,
    /// The rule that decided, and the line of its section; none if no rule matches.
    pub by: Option<(&'r Rule, u32)>,
}

impl Rules {
    /// Parses the text of a file, which errors call `file`.
    pub fn parse(text: &str, file: &str) -> Result<Self, AclError> {
        parse::parse(text, file)
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.sections.iter().map(|section| section.rules.len() + section.identifiers.len()).sum()
    }

    /// Whether there are no rules: everything is denied.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sections that apply to a client, in order, for all decisions about the client.
    pub fn sections_of(&self, subject: &Subject<'_>) -> Box<[u32]> {
        let mut found = self.of_any.clone();
        if let Some(user) = subject.user {
            found.extend(self.of_users.get(user).into_iter().flatten());
            let groups = self.groups.get(user).into_iter().flatten();
            found.extend(groups.filter_map(|group| self.of_groups.get(group)).flatten());
        }
        found.retain(|&number| self.applies(&self.sections[number as usize], subject));
        found.sort_unstable();
        found.into()
    }

    fn applies(&self, section: &Section, subject: &Subject<'_>) -> bool {
        let is_in = |group: &str| {
            let mut groups = subject.user.and_then(|user| self.groups.get(user)).into_iter();
            groups.any(|groups| groups.iter().any(|known| &**known == group))
        };
        section.who.iter().all(|who| match who {
            Who::Everyone => true,
            Who::Users => subject.user.is_some(),
            Who::Anonymous => subject.user.is_none(),
            Who::User(user) => subject.user == Some(user),
            Who::Group(group) => is_in(group),
            Who::Client(pattern) => filter::fits(pattern, subject.client_identifier),
        })
    }

    /// Highest cost of a decision about `text` by these sections, in steps of a core's budget: about eight rules
    /// and a short text are one step.
    pub fn steps(&self, sections: &[u32], text: &str) -> usize {
        let rules: usize =
            sections.iter().map(|&number| self.sections[number as usize].rules.len()).sum();
        rules * (1 + text.len() / 64) / 8
    }

    /// Decides about a request; `sections` are those of the client.
    pub fn decide(&self, sections: &[u32], subject: &Subject<'_>, wish: &Wish<'_>) -> Verdict<'_> {
        for &number in sections {
            let section = &self.sections[number as usize];
            if let Some(rule) = section.rules.iter().find(|rule| rule.fits(subject, wish)) {
                return Verdict { qos: rule.grants(wish), by: Some((rule, section.line)) };
            }
        }
        Verdict { qos: None, by: None }
    }

    /// Decides about a single request.
    pub fn decide_once(&self, subject: &Subject<'_>, wish: &Wish<'_>) -> Verdict<'_> {
        self.decide(&self.sections_of(subject), subject, wish)
    }

    /// Decides about the client's Client Identifier; none if the file has no rules about Client Identifiers, so that
    /// any client may use any.
    pub fn decide_identifier(&self, subject: &Subject<'_>) -> Option<IdentifierVerdict<'_>> {
        if self.sections.iter().all(|section| section.identifiers.is_empty()) {
            return None;
        }
        let sections = self.sections_of(subject);
        let sections = sections.iter().map(|&number| &self.sections[number as usize]);
        let mut all = sections.flat_map(|of| of.identifiers.iter().map(move |rule| (of, rule)));
        let found = all.find(|(_, rule)| rule.fits(subject));
        let is_allowed = found.is_some_and(|(_, rule)| rule.allows);
        let is_own =
            is_allowed && found.is_some_and(|(of, rule)| of.names_user() || rule.names_user());
        Some(IdentifierVerdict { is_allowed, is_own, by: found.map(|(of, rule)| (rule, of.line)) })
    }

    /// Whether the first rule for a client allows publishing to every topic, so that no other rule is needed.
    pub fn lets_publish_all(&self, sections: &[u32]) -> bool {
        let mut rules = sections.iter().flat_map(|&number| &self.sections[number as usize].rules);
        rules.find(|rule| rule.publish).is_some_and(|rule| {
            rule.allows && rule.filter.is_everything() && rule.retain.is_none() && rule.is_any_qos()
        })
    }
}

impl Section {
    /// Whether the section is for a single user.
    fn names_user(&self) -> bool {
        self.who.iter().any(|who| matches!(who, Who::User(_)))
    }
}

impl Rule {
    /// Whether the rule decides about a request. An `allow` rule has to cover all of the request; a `deny` rule
    /// decides if it covers a part.
    fn fits(&self, subject: &Subject<'_>, wish: &Wish<'_>) -> bool {
        match *wish {
            Wish::Publish { topic, qos, retain } => {
                self.publish
                    && self.retain.is_none_or(|expected| expected == retain)
                    && (self.qos_min..=self.qos_max).contains(&u8::from(qos))
                    && self.filter.matches(topic, subject, self.allows)
            }
            Wish::Subscribe { filter, qos } => {
                let (is_shared, filter) = match shared_filter(filter) {
                    Some(inner) => (true, inner),
                    None => (false, filter),
                };
                // An `allow` rule grants a lower QoS rather than nothing.
                let highest = if self.allows { u8::from(Qos::ExactlyOnce) } else { self.qos_max };
                self.subscribe
                    && self.shared.is_none_or(|expected| expected == is_shared)
                    && (self.qos_min..=highest).contains(&u8::from(qos))
                    && match self.allows {
                        true => self.filter.covers(filter, subject),
                        false => self.filter.overlaps(filter, subject),
                    }
            }
        }
    }

    fn grants(&self, wish: &Wish<'_>) -> Option<Qos> {
        let (Wish::Publish { qos, .. } | Wish::Subscribe { qos, .. }) = *wish;
        let at_most = Qos::try_from(self.qos_max).unwrap_or(Qos::ExactlyOnce);
        self.allows.then(|| qos.min(at_most))
    }

    fn is_any_qos(&self) -> bool {
        (self.qos_min, self.qos_max) == (0, 2)
    }
}

/// The rule in the syntax of the file.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allows { "allow " } else { "deny " })?;
        f.write_str(match (self.publish, self.subscribe) {
            (true, true) => "all",
            (true, false) => "publish",
            _ => "subscribe",
        })?;
        let word = |yes| if yes { "yes" } else { "no" };
        if let Some(retain) = self.retain {
            write!(f, " retain={}", word(retain))?;
        }
        if let Some(shared) = self.shared {
            write!(f, " shared={}", word(shared))?;
        }
        if self.qos_min > 0 {
            write!(f, " qos>={}", self.qos_min)?;
        }
        if self.qos_max < 2 {
            write!(f, " qos<={}", self.qos_max)?;
        }
        write!(f, " {}", self.filter)
    }
}

/// The Topic Filter of a shared subscription, without `$share/NAME/`.
fn shared_filter(filter: &str) -> Option<&str> {
    filter.strip_prefix("$share/")?.split_once('/').map(|(_, filter)| filter)
}
