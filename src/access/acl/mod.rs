//! Rules that say who may publish and subscribe where, and who may use which Client Identifier, and how a decision comes about: from top to
//! bottom, the first rule that fits decides, and where none fits the answer is no. Knows no file
//! and no connection; `parse` reads the text.

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

/// Rules, in the order of their file.
#[derive(Debug, Default)]
pub struct Rules {
    sections: Vec<Section>,
    /// By user, the groups it is in.
    groups: HashMap<Box<str>, Vec<Box<str>>>,
    /// By user and by group, the sections whose first condition names it.
    of_users: HashMap<Box<str>, Vec<u32>>,
    of_groups: HashMap<Box<str>, Vec<u32>>,
    /// The others.
    of_any: Vec<u32>,
}

/// Rules for the same clients.
#[derive(Debug)]
struct Section {
    line: u32,
    /// All of it has to apply.
    who: Vec<Who>,
    rules: Vec<Rule>,
    /// Those about Client Identifiers.
    identifiers: Vec<IdentifierRule>,
}

/// A condition on a client.
#[derive(Debug, PartialEq, Eq)]
enum Who {
    Everyone,
    /// Clients with a name.
    Users,
    /// Clients without.
    Anonymous,
    User(Box<str>),
    Group(Box<str>),
    /// A Client Identifier; `*` stands for any characters.
    Client(Box<str>),
}

/// One line that allows or denies.
#[derive(Debug)]
pub struct Rule {
    /// Where it stands.
    pub line: u32,
    /// Whether it allows.
    pub allows: bool,
    publish: bool,
    subscribe: bool,
    retain: Option<bool>,
    shared: Option<bool>,
    qos_min: u8,
    qos_max: u8,
    filter: Filter,
}

/// Who wants something.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its name, if it has one.
    pub user: Option<&'a str>,
    /// Client Identifier.
    pub client_identifier: &'a str,
}

/// What it wants.
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

/// How a wish was decided.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'r> {
    /// The QoS it is allowed with, at most; none when it is not.
    pub qos: Option<Qos>,
    /// The rule that decided, and the line of its section; none when none fits.
    pub by: Option<(&'r Rule, u32)>,
}

impl Rules {
    /// Reads the text of a file; `file` names it in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, AclError> {
        parse::parse(text, file)
    }

    /// Rules there are.
    pub fn len(&self) -> usize {
        self.sections.iter().map(|section| section.rules.len() + section.identifiers.len()).sum()
    }

    /// Whether there is none: nobody may do anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sections for a client, in order: to be asked once, for all its wishes.
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

    /// What a decision about `text` by these sections takes at most, in steps of a core's budget: some
    /// eight rules that look at a short text are one.
    pub fn steps(&self, sections: &[u32], text: &str) -> usize {
        let rules: usize =
            sections.iter().map(|&number| self.sections[number as usize].rules.len()).sum();
        rules * (1 + text.len() / 64) / 8
    }

    /// Decides; `sections` are the subject's.
    pub fn decide(&self, sections: &[u32], subject: &Subject<'_>, wish: &Wish<'_>) -> Verdict<'_> {
        for &number in sections {
            let section = &self.sections[number as usize];
            if let Some(rule) = section.rules.iter().find(|rule| rule.fits(subject, wish)) {
                return Verdict { qos: rule.grants(wish), by: Some((rule, section.line)) };
            }
        }
        Verdict { qos: None, by: None }
    }

    /// The same for somebody who asks once.
    pub fn decide_once(&self, subject: &Subject<'_>, wish: &Wish<'_>) -> Verdict<'_> {
        self.decide(&self.sections_of(subject), subject, wish)
    }

    /// What is said of the subject's Client Identifier; none where no rule is about Client Identifiers,
    /// and everybody may use every one.
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

    /// Whether the first rule for a client lets it publish everything: then no other is needed.
    pub fn lets_publish_all(&self, sections: &[u32]) -> bool {
        let mut rules = sections.iter().flat_map(|&number| &self.sections[number as usize].rules);
        rules.find(|rule| rule.publish).is_some_and(|rule| {
            rule.allows && rule.filter.is_everything() && rule.retain.is_none() && rule.is_any_qos()
        })
    }
}

impl Section {
    /// Whether it is for one user alone.
    fn names_user(&self) -> bool {
        self.who.iter().any(|who| matches!(who, Who::User(_)))
    }
}

impl Rule {
    /// Whether it decides about a wish. A rule that allows has to allow all of it; a rule that
    /// denies decides as soon as part of it is denied.
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
                // One that allows grants less than was asked for, rather than nothing.
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

/// As it could stand in the file.
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

/// The Topic Filter in that of a shared subscription.
fn shared_filter(filter: &str) -> Option<&str> {
    filter.strip_prefix("$share/")?.split_once('/').map(|(_, filter)| filter)
}
