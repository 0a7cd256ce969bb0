//! Access rules: who may publish and subscribe to which topics, and who may use which Client Identifier. The
//! first rule that matches decides, from top to bottom; without a match, access is denied. Knows no file and no
//! connection; `parse` reads the text.

mod filter;
mod identifier;
mod mosquitto;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;

pub(in crate::access) use filter::Filter;
pub use identifier::{IdentifierRule, IdentifierVerdict};
pub use parse::AclError;

use crate::wire::Qos;

/// Access rules, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    sections: Vec<Section>,
    /// Groups by user.
    groups: HashMap<Box<str>, Vec<Box<str>>>,
    /// Sections by the user or group that their first condition names.
    of_users: HashMap<Box<str>, Vec<u32>>,
    of_groups: HashMap<Box<str>, Vec<u32>>,
    /// All other sections.
    of_any: Vec<u32>,
    /// Subscriptions are granted whatever they match, and filtered by topic.
    is_filtering: bool,
}

/// A section: rules for the same clients.
#[derive(Clone, Debug)]
struct Section {
    line: u32,
    /// Conditions, all of which have to apply.
    who: Vec<Who>,
    rules: Vec<Rule>,
    /// Rules about Client Identifiers.
    identifiers: Vec<IdentifierRule>,
    /// Whether names of clients are inserted into the rules; known once the file is read.
    names_client: bool,
}

/// A condition on a client.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Clients with neither `+` nor `#` in the user name or the Client Identifier.
    PlainNames,
}

/// A rule: one line of the file.
#[derive(Clone, Debug)]
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

/// A rule that a client brings along.
#[cfg(feature = "jwt")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Brought<'a> {
    /// Whether the rule allows or denies.
    pub allows: bool,
    pub publish: bool,
    pub subscribe: bool,
    /// Lowest and highest QoS.
    pub qos: (u8, u8),
    pub retain: Option<bool>,
    /// Topic Filter with `%u`, `%c` and `%%`.
    pub topic: &'a str,
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
    /// To receive messages of a topic, by a subscription that is filtered.
    Receive {
        /// Topic Name.
        topic: &'a str,
    },
}

/// How much of what a Topic Filter matches the rules let a client receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covered {
    /// Everything.
    Whole,
    /// A part; whether a rule denies something.
    Part {
        /// Whether a rule denies a part, rather than that none allows it.
        is_denied: bool,
    },
    /// Nothing; whether a rule denies it.
    Nothing {
        /// Whether a rule denies everything or a part, rather than that none allows it.
        is_denied: bool,
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

    /// Parses the text of a file of Mosquitto, which errors call `file`.
    pub fn parse_mosquitto(text: &str, file: &str) -> Result<Self, AclError> {
        mosquitto::parse(text, file)
    }

    /// Subscriptions are allowed or refused whole: something else is asked about those that are refused.
    pub fn decide_whole(&mut self) {
        self.is_filtering = false;
    }

    /// Whether subscriptions are granted whatever they match, and filtered by topic.
    pub fn is_filtering(&self) -> bool {
        self.is_filtering
    }

    /// Adds a rule after all others, for the clients that `who` names as a line `for …` does. `number` takes the
    /// place of a line number. The error says what is wrong with either text.
    #[cfg(feature = "admin")]
    pub(super) fn push(&mut self, number: u32, who: &str, rule: &str) -> Result<(), String> {
        parse::push(self, number, who, rule)
    }

    /// Makes a user a member of a group.
    #[cfg(feature = "admin")]
    pub(super) fn join(&mut self, user: &str, group: &str) {
        let groups = self.groups.entry(user.into()).or_default();
        if !groups.iter().any(|known| **known == *group) {
            groups.push(group.into());
        }
    }

    /// Adds a rule for every client.
    #[cfg(feature = "jwt")]
    pub(super) fn add(&mut self, brought: &Brought<'_>) -> Result<(), String> {
        if self.sections.is_empty() {
            let who = vec![Who::Everyone];
            self.sections.push(Section::new(0, who));
            self.of_any.push(0);
        }
        let rule = parse::brought(brought)?;
        self.sections[0].rules.push(rule);
        Ok(())
    }

    /// Memory of the rules.
    #[cfg(feature = "jwt")]
    pub(super) fn bytes(&self) -> usize {
        let rules = self.sections.iter().flat_map(|section| &section.rules);
        let rules: usize = rules.map(|rule| size_of::<Rule>() + rule.filter.bytes()).sum();
        size_of::<Self>() + self.sections.len() * size_of::<Section>() + rules
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.sections.iter().map(|section| section.rules.len() + section.identifiers.len()).sum()
    }

    /// Whether there are no rules: everything is denied.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a user is a member of a group.
    pub fn is_member(&self, user: &str, group: &str) -> bool {
        let groups = self.groups.get(user).into_iter().flatten();
        groups.into_iter().any(|known| &**known == group)
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
        let is_in = |group: &str| subject.user.is_some_and(|user| self.is_member(user, group));
        section.who.iter().all(|who| match who {
            Who::Everyone => true,
            Who::Users => subject.user.is_some(),
            Who::Anonymous => subject.user.is_none(),
            Who::User(user) => subject.user == Some(user),
            Who::Group(group) => is_in(group),
            Who::Client(pattern) => filter::fits(pattern, subject.client_identifier),
            Who::PlainNames => {
                let names = [subject.user.unwrap_or_default(), subject.client_identifier];
                !names.iter().any(|name| name.contains(['+', '#']))
            }
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

    /// How much of what a Topic Filter matches the rules let a client receive; `sections` are those of the client.
    pub fn covered(&self, sections: &[u32], subject: &Subject<'_>, filter: &str) -> Covered {
        let (is_shared, filter) = inner_filter(filter);
        let (mut is_allowed, mut is_denied) = (false, false);
        let rules = sections.iter().flat_map(|&number| &self.sections[number as usize].rules);
        let is_about = |rule: &&Rule| {
            rule.subscribe && rule.shared.is_none_or(|expected| expected == is_shared)
        };
        for rule in rules.filter(is_about) {
            if !rule.filter.overlaps(filter, subject) {
                continue;
            }
            match (rule.allows, rule.filter.covers(filter, subject)) {
                (true, true) if is_denied => return Covered::Part { is_denied },
                (true, true) => return Covered::Whole,
                (true, false) => is_allowed = true,
                (false, true) if is_allowed => return Covered::Part { is_denied: true },
                (false, true) => return Covered::Nothing { is_denied: true },
                (false, false) => is_denied = true,
            }
        }
        match is_allowed {
            true => Covered::Part { is_denied },
            false => Covered::Nothing { is_denied },
        }
    }

    /// Whether the rules of a section let a client that it applies to receive messages of a topic; none if they do
    /// not decide.
    pub fn reads_in(&self, section: u32, subject: &Subject<'_>, topic: &str) -> Option<bool> {
        self.decide(&[section], subject, &Wish::Receive { topic }).by.map(|(rule, _)| rule.allows)
    }

    /// Whether names of clients are inserted into the rules of a section.
    pub fn names_client(&self, section: u32) -> bool {
        self.sections[section as usize].names_client
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
    fn new(line: u32, who: Vec<Who>) -> Self {
        Self { line, who, rules: Vec::new(), identifiers: Vec::new(), names_client: false }
    }

    /// Whether the section is for a single user.
    fn names_user(&self) -> bool {
        self.who.iter().any(|who| matches!(who, Who::User(_)))
    }
}

impl Rule {
    /// Whether the rule decides about a request. An `allow` rule has to cover all of the request; a `deny` rule
    /// decides if it covers a part.
    fn fits(&self, subject: &Subject<'_>, wish: &Wish<'_>) -> bool {
        let (is_about, topic) = match *wish {
            Wish::Publish { topic, qos, retain } => {
                let is_about = self.publish
                    && self.retain.is_none_or(|expected| expected == retain)
                    && (self.qos_min..=self.qos_max).contains(&u8::from(qos));
                (is_about, topic)
            }
            Wish::Receive { topic } => (self.subscribe, topic),
            Wish::Subscribe { filter, qos } => return self.fits_filter(subject, filter, qos),
        };
        is_about && self.filter.matches(topic, subject, self.allows)
    }

    fn fits_filter(&self, subject: &Subject<'_>, filter: &str, qos: Qos) -> bool {
        let (is_shared, filter) = inner_filter(filter);
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

    fn grants(&self, wish: &Wish<'_>) -> Option<Qos> {
        let at_most = Qos::try_from(self.qos_max).unwrap_or(Qos::ExactlyOnce);
        let granted = match *wish {
            Wish::Publish { qos, .. } | Wish::Subscribe { qos, .. } => qos.min(at_most),
            Wish::Receive { .. } => at_most,
        };
        self.allows.then_some(granted)
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

/// Whether a subscription is shared, and its Topic Filter without `$share/NAME/`.
fn inner_filter(filter: &str) -> (bool, &str) {
    let inner = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
    inner.map_or((false, filter), |(_, inner)| (true, inner))
}
