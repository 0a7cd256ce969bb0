//! Rules about Client Identifiers: patterns in which `*` matches any characters and `%u` the user name.

use std::borrow::Cow;
use std::fmt;

use super::{Subject, filter};

/// A rule about Client Identifiers.
#[derive(Clone, Debug)]
pub struct IdentifierRule {
    /// Line number.
    pub line: u32,
    /// Whether the rule allows or denies.
    pub allows: bool,
    pub(super) pattern: Pattern,
}

/// A pattern of Client Identifiers.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: Box<str>,
    /// The parts between the stars.
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// Text with `%u`, and the characters that a user name must not contain: with them the end of the name
    /// would be ambiguous, and a user could use identifiers of another.
    Named {
        text: Box<str>,
        separators: Vec<char>,
    },
}

/// Decision about a Client Identifier.
#[derive(Clone, Copy, Debug)]
pub struct IdentifierVerdict<'r> {
    /// Whether the client may use it.
    pub is_allowed: bool,
    /// Whether it belongs to the user: the rule names the user, by `%u` or in its section.
    pub is_own: bool,
    /// The rule that decided, and the line of its section; none if no rule matches.
    pub by: Option<(&'r IdentifierRule, u32)>,
}

impl IdentifierRule {
    /// Whether the rule decides about the client's Client Identifier. If the user name does not fit the pattern, a
    /// `deny` rule decides and an `allow` rule does not.
    pub(super) fn fits(&self, subject: &Subject<'_>) -> bool {
        let pieces: Option<Vec<Cow<'_, str>>> =
            self.pattern.pieces.iter().map(|piece| piece.resolve(subject.user)).collect();
        match pieces {
            Some(pieces) => filter::fits_pieces(&pieces, subject.client_identifier),
            None => !self.allows,
        }
    }

    /// Whether the pattern has the user name.
    pub(super) fn names_user(&self) -> bool {
        self.pattern.pieces.iter().any(|piece| matches!(piece, Piece::Named { .. }))
    }
}

impl Pattern {
    /// Parses a pattern; or the position of an error, and its reason.
    pub fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let last = text.matches('*').count();
        let mut place = 0;
        let mut pieces = Vec::new();
        for (number, piece) in text.split('*').enumerate() {
            let parsed = Piece::parse(piece, number > 0, number < last);
            pieces.push(parsed.map_err(|(at, what)| (place + at, what))?);
            place += piece.len() + 1;
        }
        Ok(Self { text: text.into(), pieces })
    }
}

impl Piece {
    fn parse(
        text: &str,
        is_after_star: bool,
        is_before_star: bool,
    ) -> Result<Self, (usize, &'static str)> {
        let (mut plain, mut first, mut end) = (String::new(), None, 0);
        let mut characters = text.char_indices();
        while let Some((place, character)) = characters.next() {
            if character != '%' {
                plain.push(character);
                continue;
            }
            match characters.next() {
                Some((_, 'u')) => {
                    first.get_or_insert(place);
                    end = place + 2;
                }
                Some((_, '%')) => plain.push('%'),
                _ => return Err((place, "%u or %% is expected")),
            }
        }
        let Some(first) = first else { return Ok(Self::Text(plain.into())) };
        const APART: &str = "a character is expected between %u and *, which no name holds: \
                             without it the user `a` has the identifiers of the user `ab`";
        let mut separators = Vec::new();
        if is_after_star {
            separators.push(text[..first].chars().next_back().ok_or((first, APART))?);
        }
        if is_before_star {
            separators.push(text[end..].chars().next().ok_or((end, APART))?);
        }
        Ok(Self::Named { text: text.into(), separators })
    }

    /// The text with a user name; none if the name does not fit.
    fn resolve<'a>(&'a self, user: Option<&str>) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Named { text, separators } => {
                let user = user.filter(|user| !user.contains(&separators[..]))?;
                let parts: Vec<String> =
                    text.split("%%").map(|part| part.replace("%u", user)).collect();
                Some(Cow::Owned(parts.join("%")))
            }
        }
    }
}

/// The rule in the syntax of the file.
impl fmt::Display for IdentifierRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allows { "allow client " } else { "deny client " })?;
        let text = &*self.pattern.text;
        match text.is_empty() || text.starts_with('"') || text.trim() != text {
            true => write!(f, "\"{text}\""),
            false => f.write_str(text),
        }
    }
}
