//! Topic Filters of rules, in which `%u` and `%c` stand for user name and Client Identifier: matching against
//! Topic Names and the Topic Filters of subscriptions.

use std::borrow::Cow;
use std::fmt;

use super::Subject;

/// A Topic Filter of a rule.
#[derive(Clone, Debug)]
pub(in crate::access) struct Filter {
    text: Box<str>,
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(Box<str>),
    /// Text with `%u`, `%c` or `%%` in it.
    Named(Box<str>),
    /// `+`
    Any,
    /// `#`
    Rest,
}

/// A level for one client.
enum Resolved<'a> {
    Text(Cow<'a, str>),
    Any,
    Rest,
    /// The name does not fit into a level: an `allow` rule matches nothing.
    Impossible,
}

impl Filter {
    /// Parses a text that is a Topic Filter once names are inserted.
    pub fn new(text: &str) -> Self {
        let level = |text: &str| match text {
            "+" => Level::Any,
            "#" => Level::Rest,
            _ if text.contains('%') => Level::Named(text.into()),
            _ => Level::Text(text.into()),
        };
        Self { text: text.into(), levels: text.split('/').map(level).collect() }
    }

    /// Memory of the filter besides its own.
    #[cfg(feature = "jwt")]
    pub fn bytes(&self) -> usize {
        // Each text is there twice: whole, and by level.
        2 * self.text.len() + self.levels.len() * size_of::<Level>()
    }

    /// Whether the name of a user is inserted.
    pub fn names_user(&self) -> bool {
        self.inserts('u')
    }

    /// Whether a name of a client is inserted: that of its user, or its Client Identifier.
    pub fn names_client(&self) -> bool {
        self.inserts('u') || self.inserts('c')
    }

    fn inserts(&self, name: char) -> bool {
        let mut characters = self.text.chars();
        while let Some(character) = characters.next() {
            if character == '%' && characters.next() == Some(name) {
                return true;
            }
        }
        false
    }

    pub fn is_everything(&self) -> bool {
        self.levels == [Level::Rest]
    }

    /// Whether a Topic Name matches. If a name does not fit into a level, `allows` determines the safe
    /// answer.
    #[inline(always)] // the most frequent part of a decision; two kinds of rules call it
    pub fn matches(&self, topic: &str, subject: &Subject<'_>, allows: bool) -> bool {
        // [MQTT-4.7.2-1]
        if topic.starts_with('$') && matches!(self.levels[0], Level::Any | Level::Rest) {
            return false;
        }
        let mut levels = topic.split('/');
        for level in &self.levels {
            let own = match level {
                Level::Rest => return true,
                _ => levels.next(),
            };
            let Some(own) = own else { return false };
            let fits = match level.resolve(subject) {
                Resolved::Rest | Resolved::Any => true,
                Resolved::Text(text) => text == own,
                Resolved::Impossible => !allows,
            };
            if !fits {
                return false;
            }
        }
        levels.next().is_none()
    }

    /// Whether every topic that `filter` matches is matched by this one.
    pub fn covers(&self, filter: &str, subject: &Subject<'_>) -> bool {
        if filter.starts_with('$') && matches!(self.levels[0], Level::Any | Level::Rest) {
            return false;
        }
        let mut levels = filter.split('/');
        for level in &self.levels {
            if *level == Level::Rest {
                return true;
            }
            let Some(own) = levels.next() else { return false };
            let covers = match level.resolve(subject) {
                Resolved::Rest => true,
                Resolved::Any => own != "#",
                Resolved::Text(text) => text == own,
                Resolved::Impossible => false,
            };
            if !covers {
                return false;
            }
        }
        levels.next().is_none()
    }

    /// Whether there is a topic that both `filter` and this one match.
    pub fn overlaps(&self, filter: &str, subject: &Subject<'_>) -> bool {
        let is_wild = |level: &str| level == "+" || level == "#";
        let first = filter.split('/').next().unwrap_or_default();
        let own_first = self.levels[0].resolve(subject);
        let own_is_wild = matches!(own_first, Resolved::Any | Resolved::Rest);
        let own_is_special = matches!(&own_first, Resolved::Text(text) if text.starts_with('$'));
        if (first.starts_with('$') && own_is_wild) || (own_is_special && is_wild(first)) {
            return false;
        }
        let mut levels = filter.split('/');
        for level in &self.levels {
            let theirs = levels.next();
            if *level == Level::Rest || theirs == Some("#") {
                return true;
            }
            let Some(theirs) = theirs else { return false };
            let overlaps = match level.resolve(subject) {
                Resolved::Text(text) => theirs == "+" || text == theirs,
                Resolved::Any | Resolved::Rest | Resolved::Impossible => true,
            };
            if !overlaps {
                return false;
            }
        }
        matches!(levels.next(), None | Some("#"))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.starts_with('"') || self.text.trim() != &*self.text {
            true => write!(f, "\"{}\"", self.text),
            false => f.write_str(&self.text),
        }
    }
}

impl Level {
    fn resolve<'a>(&'a self, subject: &Subject<'_>) -> Resolved<'a> {
        let text = match self {
            Self::Text(text) => return Resolved::Text(Cow::Borrowed(text)),
            Self::Any => return Resolved::Any,
            Self::Rest => return Resolved::Rest,
            Self::Named(text) => text,
        };
        let mut resolved = String::new();
        let mut rest = &**text;
        while let Some((before, after)) = rest.split_once('%') {
            resolved.push_str(before);
            let name = match after.chars().next() {
                Some('u') => subject.user,
                Some('c') => Some(subject.client_identifier),
                _ => Some("%"),
            };
            // A name with a level separator or wildcard would match other topics.
            let Some(name) = name.filter(|name| !name.contains(['/', '+', '#'])) else {
                return Resolved::Impossible;
            };
            resolved.push_str(name);
            rest = &after[1..];
        }
        resolved.push_str(rest);
        Resolved::Text(Cow::Owned(resolved))
    }
}

/// Whether a text matches a pattern, in which `*` matches any characters.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    fits_pieces(&pattern.split('*').collect::<Vec<_>>(), text)
}

/// Whether a text matches a pattern, given by the parts between its stars.
pub(super) fn fits_pieces(pieces: &[impl AsRef<str>], text: &str) -> bool {
    let mut pieces = pieces.iter().map(AsRef::as_ref);
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(place) = rest.find(piece) else { return false };
        rest = &rest[place + piece.len()..];
    }
    rest.ends_with(last)
}

/// The text of a rule's filter with a sample name for each `%u` and `%c`; or the position of an error, and its
/// reason.
pub(super) fn sample(text: &str) -> Result<String, (usize, &'static str)> {
    let mut sample = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        if character != '%' {
            sample.push(character);
            continue;
        }
        match characters.next() {
            Some((_, 'u' | 'c' | '%')) => sample.push('n'),
            _ => return Err((place, "%u, %c or %% is expected")),
        }
    }
    Ok(sample)
}
