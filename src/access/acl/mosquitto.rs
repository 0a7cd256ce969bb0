//! Parser of Mosquitto's files of access rules (`acl_file`), which become sections of [`Rules`].
//!
//! Each user has a list, as have the clients without a name; patterns are for everybody and are asked when the list
//! does not decide. In both, each `deny` goes before everything else. Subscriptions are granted, and filtered.

use std::collections::HashMap;

use shards::TopicFilter;

use super::filter::Filter;
use super::parse::{self, AclError, Wrong, wrong};
use super::{Rule, Rules, Section, Who};

#[cfg(test)]
mod tests;

/// The rules of a list, in the order in which they are asked.
#[derive(Default)]
struct List {
    /// The first line.
    line: u32,
    denials: Vec<Rule>,
    others: Vec<Rule>,
}

impl List {
    fn push(&mut self, rule: Rule) {
        if self.denials.is_empty() && self.others.is_empty() {
            self.line = rule.line;
        }
        match rule.allows {
            true => self.others.push(rule),
            false => self.denials.push(rule),
        }
    }
}

/// What has been read of a file.
#[derive(Default)]
struct File {
    lists: Vec<(Who, List)>,
    /// Places in `lists`, by user; none: clients without a name.
    places: HashMap<Option<Box<str>>, usize>,
    /// The list of the lines that follow.
    user: Option<Box<str>>,
    patterns: List,
}

/// Parses the text of a file, which errors call `file`.
pub(super) fn parse(text: &str, file: &str) -> Result<Rules, AclError> {
    let mut read = File::default();
    for (number, line) in text.lines().enumerate() {
        let number = number as u32 + 1;
        read.take_line(number, line).map_err(|wrong| parse::located(file, number, line, wrong))?;
    }
    Ok(read.into_rules())
}

impl File {
    fn take_line(&mut self, number: u32, line: &str) -> Result<(), Wrong> {
        let line = line.trim_end_matches(is_blank);
        if line.starts_with('#') {
            return Ok(());
        }
        let (place, kind, rest) = first_word(0, line);
        match kind {
            "" => Ok(()),
            "user" => {
                let name = rest.trim_matches(is_blank);
                if name.is_empty() {
                    return wrong(line.len(), "the user's name is expected");
                }
                self.user = Some(name.into());
                Ok(())
            }
            "topic" => {
                let rule = take_rule(number, place + kind.len() + 1, rest, false)?;
                let Self { lists, places, user, .. } = self;
                let list = *places.entry(user.clone()).or_insert_with(|| {
                    let who = user.clone().map_or(Who::Anonymous, Who::User);
                    lists.push((who, List::default()));
                    lists.len() - 1
                });
                lists[list].1.push(rule);
                Ok(())
            }
            "pattern" => {
                self.patterns.push(take_rule(number, place + kind.len() + 1, rest, true)?);
                Ok(())
            }
            _ => wrong(place, "`user`, `topic` or `pattern` is expected; a comment begins with #"),
        }
    }

    fn into_rules(self) -> Rules {
        let mut rules = Rules { is_filtering: true, ..Rules::default() };
        let mut push = |line, who, of: Vec<Rule>| {
            if !of.is_empty() {
                rules.sections.push(Section { rules: of, ..Section::new(line, who) });
            }
        };
        for (who, List { line, mut denials, others }) in self.lists {
            denials.extend(others);
            push(line, vec![who], denials);
        }
        let List { line, denials, others } = self.patterns;
        // A client without a name is not denied what names of users are inserted into.
        let (of_users, of_all) = denials.into_iter().partition(|rule| rule.filter.names_user());
        push(line, vec![Who::PlainNames], of_all);
        push(line, vec![Who::PlainNames, Who::Users], of_users);
        push(line, vec![Who::PlainNames], others);
        parse::index(&mut rules, 0);
        rules
    }
}

/// Takes the rest of a line: the access, if there is one, and the topic.
fn take_rule(line: u32, place: usize, text: &str, is_pattern: bool) -> Result<Rule, Wrong> {
    let (first_at, first, rest) = first_word(place, text);
    if first.is_empty() {
        return wrong(place - 1, "a Topic Filter is expected");
    }
    let topic = rest.trim_matches(is_blank);
    let (access, at, topic) = match topic.is_empty() {
        true => ("readwrite", first_at, first),
        false => (first, first_at + first.len() + 1, topic),
    };
    let (publish, subscribe) = match access {
        "read" => (false, true),
        "write" => (true, false),
        "readwrite" | "deny" => (true, true),
        _ => {
            return wrong(
                first_at,
                "`read`, `write`, `readwrite` or `deny` is expected before a topic",
            );
        }
    };
    // A rule is about a topic whose name begins with $share, which no client can publish to.
    if !topic.starts_with("$share/") && TopicFilter::parse(topic, usize::MAX).is_err() {
        return wrong(
            at,
            "invalid Topic Filter: + matches a whole level, and # is allowed only as the last level",
        );
    }
    Ok(Rule {
        line,
        allows: access != "deny",
        publish,
        subscribe,
        retain: None,
        shared: None,
        qos_min: 0,
        qos_max: 2,
        filter: Filter::new(&escaped(topic, is_pattern)),
    })
}

/// A topic in the syntax of [`Filter`], where `%%` is a percent sign: Mosquitto has no escape, and inserts names into
/// patterns only.
fn escaped(topic: &str, is_pattern: bool) -> String {
    let mut escaped = String::with_capacity(topic.len());
    let mut characters = topic.chars().peekable();
    while let Some(character) = characters.next() {
        escaped.push(character);
        let names = is_pattern && matches!(characters.peek(), Some('u' | 'c'));
        if character == '%' && !names {
            escaped.push('%');
        }
    }
    escaped
}

/// The first word of a text, its place, and what follows. Only spaces separate words.
fn first_word(place: usize, text: &str) -> (usize, &str, &str) {
    let rest = text.trim_start_matches(' ');
    let place = place + text.len() - rest.len();
    match rest.split_once(' ') {
        Some((word, rest)) => (place, word, rest),
        None => (place, rest, ""),
    }
}

/// Whether isspace(3) is true for a character.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}
