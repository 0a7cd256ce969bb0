//! Parser of files of access rules. Errors have line, column, and what was expected.

use std::fmt;

use shards::{TopicError, TopicFilter};

use super::filter::{self, Filter};
use super::identifier::{IdentifierRule, Pattern};
use super::{Rule, Rules, Section, Who};

/// Syntax error in a file of access rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError {
    file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: usize,
    message: String,
}

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl std::error::Error for AclError {}

/// Error in a line, at this byte.
pub(super) struct Wrong(pub usize, pub String);

pub(super) fn wrong<T>(place: usize, message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(place, message.into()))
}

pub(super) fn parse(text: &str, file: &str) -> Result<Rules, AclError> {
    let mut rules = Rules::default();
    let mut mentioned = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = number as u32 + 1;
        take_line(&mut rules, &mut mentioned, number, line)
            .map_err(|wrong| located(file, number, line, wrong))?;
    }
    for (number, place, group) in mentioned {
        if !rules.groups.values().flatten().any(|known| *known == group) {
            let line = text.lines().nth(number as usize - 1).unwrap_or_default();
            let message =
                format!("unknown group {group:?}; define it by a line `group {group}: USER …`");
            return Err(located(file, number, line, Wrong(place, message)));
        }
    }
    index(&mut rules, 0);
    Ok(rules)
}

pub(super) fn located(
    file: &str,
    line_number: u32,
    line: &str,
    Wrong(place, message): Wrong,
) -> AclError {
    let column = line.get(..place).map_or(1, |before| before.chars().count() + 1);
    AclError { file: file.to_owned(), line: line_number, column, message }
}

/// Adds a rule in a section of its own, after all others. Groups need not have members.
#[cfg(feature = "admin")]
pub(super) fn push(rules: &mut Rules, number: u32, who: &str, rule: &str) -> Result<(), String> {
    let located = |of: &str, Wrong(place, message): Wrong| {
        let column = of.get(..place).map_or(1, |before| before.chars().count() + 1);
        format!("{of:?}, column {column}: {message}")
    };
    let mut words = Words { line: who, place: 0 };
    let who = take_who(&mut words, number, &mut Vec::new()).map_err(|wrong| located(who, wrong))?;
    let mut section = Section::new(number, who);
    let mut words = Words { line: rule, place: 0 };
    take_decision(&mut section, &mut words, number).map_err(|wrong| located(rule, wrong))?;
    let before = rules.sections.len();
    rules.sections.push(section);
    index(rules, before);
    Ok(())
}

/// Indexes the sections from number `from` on by user and group, so that sections for others cost a client nothing.
pub(super) fn index(rules: &mut Rules, from: usize) {
    for (number, section) in rules.sections.iter_mut().enumerate().skip(from) {
        let number = number as u32;
        section.names_client = section.rules.iter().any(|rule| rule.filter.names_client());
        match section.who.iter().find(|who| matches!(who, Who::User(_) | Who::Group(_))) {
            Some(Who::User(user)) => {
                rules.of_users.entry(user.clone()).or_default().push(number);
            }
            Some(Who::Group(group)) => {
                rules.of_groups.entry(group.clone()).or_default().push(number);
            }
            _ => rules.of_any.push(number),
        }
    }
}

type Mentioned = Vec<(u32, usize, Box<str>)>;

fn take_line(
    rules: &mut Rules,
    mentioned: &mut Mentioned,
    number: u32,
    line: &str,
) -> Result<(), Wrong> {
    let mut words = Words { line, place: 0 };
    let Some((place, first)) = words.next()? else { return Ok(()) };
    if first.starts_with('#') {
        return Ok(());
    }
    match first {
        "group" => take_group(rules, &mut words),
        "for" => {
            let who = take_who(&mut words, number, mentioned)?;
            rules.sections.push(Section::new(number, who));
            Ok(())
        }
        "allow" | "deny" => {
            let Some(section) = rules.sections.last_mut() else {
                return wrong(place, "a line `for …` has to come before, which names the clients");
            };
            words.place = place;
            take_decision(section, &mut words, number)
        }
        _ => wrong(place, "`group`, `for`, `allow` or `deny` is expected; a comment begins with #"),
    }
}

/// Takes a line `allow …` or `deny …`.
fn take_decision(section: &mut Section, words: &mut Words<'_>, number: u32) -> Result<(), Wrong> {
    let allows = match words.next()? {
        Some((_, "allow")) => true,
        Some((_, "deny")) => false,
        Some((place, _)) => return wrong(place, "`allow` or `deny` is expected"),
        None => return wrong(words.line.len(), "`allow` or `deny` is expected"),
    };
    match words.peek()? {
        Some((_, "client")) => {
            words.next()?;
            section.identifiers.push(take_identifier(words, number, allows)?);
        }
        _ => section.rules.push(take_rule(words, number, allows)?),
    }
    Ok(())
}

fn take_group(rules: &mut Rules, words: &mut Words<'_>) -> Result<(), Wrong> {
    let Some((place, name)) = words.next()? else {
        return wrong(words.place, "the group's name is expected");
    };
    let Some(name) = name.strip_suffix(':').filter(|name| !name.is_empty()) else {
        return wrong(
            place,
            "the group's name with a colon is expected, as in `group admins: alice`",
        );
    };
    let mut is_empty = true;
    while let Some((_, user)) = words.next()? {
        let groups = rules.groups.entry(user.into()).or_default();
        if !groups.iter().any(|known| **known == *name) {
            groups.push(name.into());
        }
        is_empty = false;
    }
    match is_empty {
        true => wrong(words.place, "the names of users are expected"),
        false => Ok(()),
    }
}

fn take_who(
    words: &mut Words<'_>,
    number: u32,
    mentioned: &mut Mentioned,
) -> Result<Vec<Who>, Wrong> {
    const EXPECTED: &str = "`everyone`, `users`, `anonymous`, `user NAME`, `group NAME` or `client PATTERN` is expected";
    let mut who = Vec::new();
    while let Some((place, kind)) = words.next()? {
        let mut name = |what: &str| match words.next()? {
            Some((place, name)) => Ok((place, Box::<str>::from(name))),
            None => wrong(words.line.len(), format!("{what} is expected")),
        };
        who.push(match kind {
            "everyone" => Who::Everyone,
            "users" => Who::Users,
            "anonymous" => Who::Anonymous,
            "user" => Who::User(name("the user's name")?.1),
            "client" => Who::Client(name("a Client Identifier, or a pattern with *,")?.1),
            "group" => {
                let (place, name) = name("the group's name")?;
                mentioned.push((number, place, name.clone()));
                Who::Group(name)
            }
            _ => return wrong(place, EXPECTED),
        });
    }
    match who.is_empty() {
        true => wrong(words.line.len(), EXPECTED),
        false => Ok(who),
    }
}

fn take_rule(words: &mut Words<'_>, line: u32, allows: bool) -> Result<Rule, Wrong> {
    let (place, action) = match words.next()? {
        Some((place, action)) => (place, action),
        None => (words.line.len(), ""),
    };
    let (publish, subscribe) = match action {
        "publish" => (true, false),
        "subscribe" => (false, true),
        "all" => (true, true),
        _ => return wrong(place, "`publish`, `subscribe`, `all` or `client` is expected"),
    };
    let (mut retain, mut shared, mut qos_min, mut qos_max) = (None, None, 0, 2);
    while let Some((place, word)) = words.peek()? {
        let value = |text: &str| match text {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => wrong(place, "`yes` or `no` is expected after the ="),
        };
        let qos = |text: &str| match text {
            "0" => Ok(0),
            "1" => Ok(1),
            "2" => Ok(2),
            _ => wrong(place, "a QoS is expected: 0, 1 or 2"),
        };
        if let Some(text) = word.strip_prefix("retain=") {
            if !publish {
                return wrong(place, "retain= applies to publishing only");
            }
            retain = Some(value(text)?);
        } else if let Some(text) = word.strip_prefix("shared=") {
            if !subscribe {
                return wrong(place, "shared= applies to subscriptions only");
            }
            shared = Some(value(text)?);
        } else if let Some(text) = word.strip_prefix("qos<=") {
            qos_max = qos(text)?;
        } else if let Some(text) = word.strip_prefix("qos>=") {
            qos_min = qos(text)?;
        } else if let Some(text) = word.strip_prefix("qos=") {
            (qos_min, qos_max) = (qos(text)?, qos(text)?);
        } else if word.starts_with("qos<") || word.starts_with("qos>") {
            return wrong(place, "`qos<=N`, `qos>=N` or `qos=N` is expected");
        } else {
            break;
        }
        words.next()?;
    }
    if qos_min > qos_max {
        return wrong(place, "no QoS satisfies both bounds of this line");
    }
    let filter = take_filter(words)?;
    Ok(Rule { line, allows, publish, subscribe, retain, shared, qos_min, qos_max, filter })
}

fn take_identifier(
    words: &mut Words<'_>,
    line: u32,
    allows: bool,
) -> Result<IdentifierRule, Wrong> {
    let (place, text) = words.rest()?;
    if text.is_empty() {
        return wrong(place, "a Client Identifier, or a pattern with * and %u, is expected");
    }
    let pattern = Pattern::parse(text).map_err(|(at, what)| Wrong(place + at, what.to_owned()))?;
    Ok(IdentifierRule { line, allows, pattern })
}

fn take_filter(words: &mut Words<'_>) -> Result<Filter, Wrong> {
    let (place, text) = words.rest()?;
    if text.is_empty() {
        return wrong(place, "a Topic Filter is expected, at the end of the line");
    }
    filter_of(place, text)
}

/// The rule that a client brings along.
#[cfg(feature = "jwt")]
pub(super) fn brought(of: &super::Brought<'_>) -> Result<Rule, String> {
    let super::Brought { allows, publish, subscribe, qos: (qos_min, qos_max), retain, topic } = *of;
    let filter = filter_of(0, topic).map_err(|Wrong(_, message)| message)?;
    Ok(Rule { line: 0, allows, publish, subscribe, retain, shared: None, qos_min, qos_max, filter })
}

fn filter_of(place: usize, text: &str) -> Result<Filter, Wrong> {
    let sample = filter::sample(text).map_err(|(at, what)| Wrong(place + at, what.to_owned()))?;
    if sample.starts_with("$share/") {
        return wrong(
            place,
            "a Topic Filter without $share is expected; use shared=yes for shared subscriptions",
        );
    }
    match TopicFilter::parse(&sample, usize::MAX) {
        Ok(_) => Ok(Filter::new(text)),
        Err(TopicError::Empty) => wrong(place, "a Topic Filter is expected"),
        Err(_) => wrong(
            place,
            "invalid Topic Filter: + matches a whole level, and # is allowed only as the last level",
        ),
    }
}

/// The words of a line, with their positions.
struct Words<'a> {
    line: &'a str,
    place: usize,
}

impl<'a> Words<'a> {
    /// Takes the next word, which may be in quotation marks.
    fn next(&mut self) -> Result<Option<(usize, &'a str)>, Wrong> {
        self.skip_blanks();
        let (begin, rest) = (self.place, &self.line[self.place..]);
        if rest.is_empty() {
            return Ok(None);
        }
        if let Some(quoted) = rest.strip_prefix('"') {
            let Some(length) = quoted.find('"') else {
                return wrong(begin, "the closing quotation mark is missing");
            };
            self.place = begin + length + 2;
            return Ok(Some((begin, &quoted[..length])));
        }
        let length = rest.find(char::is_whitespace).unwrap_or(rest.len());
        self.place = begin + length;
        Ok(Some((begin, &rest[..length])))
    }

    /// The next word without taking it; none if it is in quotation marks.
    fn peek(&mut self) -> Result<Option<(usize, &'a str)>, Wrong> {
        self.skip_blanks();
        if self.line[self.place..].starts_with('"') {
            return Ok(None);
        }
        let place = self.place;
        let word = self.next();
        self.place = place;
        word
    }

    /// Takes the rest of the line as one word.
    fn rest(&mut self) -> Result<(usize, &'a str), Wrong> {
        self.skip_blanks();
        if self.line[self.place..].starts_with('"') {
            let (place, word) = self.next()?.unwrap_or((self.place, ""));
            self.skip_blanks();
            return match self.place == self.line.len() {
                true => Ok((place + 1, word)),
                false => wrong(self.place, "nothing is expected after the quotation mark"),
            };
        }
        Ok((self.place, self.line[self.place..].trim_end()))
    }

    fn skip_blanks(&mut self) {
        let rest = &self.line[self.place..];
        self.place += rest.len() - rest.trim_start().len();
    }
}
