//! Topics of the other side that are made of what the wildcards of a filter stand for, such as `x/{1}/y`.

use shards::{TOPIC_BYTES_MAX, has_wildcard};
use smallvec::SmallVec;

use super::is_of_broker;

/// Wildcards of a filter whose texts need no memory of their own while a topic is made.
const WILDCARDS: usize = 8;

/// A topic with places for what wildcards stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Box<[Piece]>);

/// A part of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is written.
    Text(Box<str>),
    /// What the wildcard of the filter with this number stands for, counted from 0.
    Wildcard(usize),
}

impl Template {
    /// Reads the text of a key for topics of this filter.
    pub fn parse(text: &str, filter: &str) -> Result<Self, String> {
        if has_wildcard(text) || text.contains('\0') || text.len() > TOPIC_BYTES_MAX {
            return Err(format!(
                "to is a topic: without +, # and U+0000, up to {TOPIC_BYTES_MAX} bytes; {{1}} stands for the first \
                 wildcard of the filter"
            ));
        }
        let count = wildcards(filter).count();
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let found = after.split_once('}').and_then(|(number, after)| {
                let number = number.parse::<usize>().ok().filter(|of| (1..=count).contains(of))?;
                Some((Piece::Wildcard(number - 1), after))
            });
            let Some((wildcard, after)) = found else { return Err(no_such_place(count)) };
            if pieces.contains(&wildcard) {
                return Err(format!(
                    "to names a wildcard twice; each of {{1}} to {{{count}}} stands once"
                ));
            }
            push_text(&mut pieces, before)?;
            pieces.push(wildcard);
            rest = after;
        }
        push_text(&mut pieces, rest)?;
        if is_of_broker(text) {
            return Err(
                "to: topics of $SYS and $CONTROL are of one broker; choose another".to_owned()
            );
        }
        Ok(Self(pieces.into()))
    }

    /// The parts, in their order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Bytes of what is written as it is.
    pub fn text_bytes(&self) -> usize {
        let bytes = |piece: &Piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Wildcard(_) => 0,
        };
        self.0.iter().map(bytes).sum()
    }

    /// Appends the topic for a topic that the filter matches. A `#` that stands for no level takes the `/` before it away
    /// at the end of the topic, and the one behind it at the beginning.
    pub fn write(&self, filter: &str, topic: &str, into: &mut String) {
        let found: SmallVec<[Option<&str>; WILDCARDS]> = captures(filter, topic).collect();
        let mut begins_with_nothing = false;
        for (place, piece) in self.0.iter().enumerate() {
            match piece {
                Piece::Text(text) if std::mem::take(&mut begins_with_nothing) => {
                    into.push_str(text.strip_prefix('/').unwrap_or(text));
                }
                Piece::Text(text) => into.push_str(text),
                Piece::Wildcard(number) => match found.get(*number).copied().flatten() {
                    Some(text) => into.push_str(text),
                    None if place == 0 => begins_with_nothing = true,
                    None if place + 1 == self.0.len() && into.ends_with('/') => drop(into.pop()),
                    None => {}
                },
            }
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) -> Result<(), String> {
    if text.contains('}') {
        return Err("to has a } without a {; a place is written as {1}".to_owned());
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    Ok(())
}

fn no_such_place(count: usize) -> String {
    match count {
        0 => "to has a {, and the filter has no wildcard that a place such as {1} would stand for; write the topic \
              without braces"
            .to_owned(),
        count => format!(
            "to has a {{ that begins no place: the wildcards of the filter are {{1}} to {{{count}}}"
        ),
    }
}

/// The wildcards of a filter, in their order.
fn wildcards(filter: &str) -> impl Iterator<Item = &str> {
    filter.split('/').filter(|level| matches!(*level, "+" | "#"))
}

/// Whether the wildcard of a filter with this number, from 0, stands for any number of levels.
pub(super) fn is_open(filter: &str, number: usize) -> bool {
    wildcards(filter).nth(number) == Some("#")
}

/// What the wildcards of a filter stand for in a topic that it matches; none for a `#` that stands for no level.
fn captures<'a>(filter: &'a str, topic: &'a str) -> impl Iterator<Item = Option<&'a str>> {
    let mut rest = Some(topic);
    filter.split('/').filter_map(move |level| {
        let before = rest;
        if level == "#" {
            return Some(before);
        }
        let (first, after) = match before {
            Some(text) => match text.split_once('/') {
                Some((first, after)) => (Some(first), Some(after)),
                None => (Some(text), None),
            },
            None => (None, None),
        };
        rest = after;
        (level == "+").then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(filter: &str, to: &str, topic: &str) -> String {
        let mut into = String::new();
        Template::parse(to, filter).expect(to).write(filter, topic, &mut into);
        into
    }

    #[test]
    fn a_place_has_what_the_wildcard_of_its_number_stands_for() {
        for (filter, to, topic, expected) in [
            ("a/+/b", "x/{1}/y", "a/7/b", "x/7/y"),
            ("+/+", "{2}/{1}", "a/b", "b/a"),
            ("+/+", "{2}", "a/b", "b"),
            ("site/+/#", "plant/{1}/of/{2}", "site/hall/t/1", "plant/hall/of/t/1"),
            ("site/#", "x-{1}", "site/a", "x-a"),
            ("site/#", "x/{1}", "site", "x"),
            ("site/#", "{1}/x", "site", "x"),
            ("site/#", "x/{1}", "site/", "x/"),
            ("#", "all/{1}", "a/b", "all/a/b"),
            ("+/b", "x/{1}", "/b", "x/"),
            ("a/b", "c", "a/b", "c"),
        ] {
            assert_eq!(mapped(filter, to, topic), expected, "{filter} {to} {topic}");
        }
    }

    #[test]
    fn a_place_that_stands_for_nothing_is_named() {
        for (filter, to, expected) in [
            ("a/+", "x/{2}", "are {1} to {1}"),
            ("a/+", "x/{0}", "are {1} to {1}"),
            ("a/+", "x/{a}", "are {1} to {1}"),
            ("a/+", "x/{1", "are {1} to {1}"),
            ("a/+/+", "{1}/{1}", "names a wildcard twice"),
            ("a/b", "x/{1}", "has no wildcard"),
            ("a/+", "x}/{1}", "} without a {"),
            ("a/+", "x/#", "without +, #"),
            ("a/+", "$SYS/{1}", "choose another"),
        ] {
            let what = Template::parse(to, filter).expect_err(to);
            assert!(what.contains(expected), "{to}: {what}");
        }
    }
}
