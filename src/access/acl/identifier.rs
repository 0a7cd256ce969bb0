//! Rules about Client Identifiers: who may use which, in patterns in which `*` stands for any
//! characters and `%u` for the name of whoever asks.

use std::borrow::Cow;
use std::fmt;

use super::{Subject, filter};

/// One line that allows or denies Client Identifiers.
#[derive(Debug)]
pub struct IdentifierRule {
    /// Where it stands.
    pub line: u32,
    /// Whether it allows.
    pub allows: bool,
    pub(super) pattern: Pattern,
}

/// A pattern of Client Identifiers.
#[derive(Debug)]
pub(super) struct Pattern {
    text: Box<str>,
    /// What stands between its stars.
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// Text with `%u` in it, and the characters that a name must not hold: with them it could not be
    /// told where the name ends, and one user would have identifiers of another.
    Named {
        text: Box<str>,
        separators: Vec<char>,
    },
}

/// What the rules say of somebody's Client Identifier.
#[derive(Clone, Copy, Debug)]
pub struct IdentifierVerdict<'r> {
    /// Whether it may be used.
    pub is_allowed: bool,
    /// Whether it is that user's: the rule names the user, by `%u` or in its section.
    pub is_own: bool,
    /// The rule that decided, and the line of its section; none when none fits.
    pub by: Option<(&'r IdentifierRule, u32)>,
}

impl IdentifierRule {
    /// Whether it decides about this subject's Client Identifier. Where the name cannot stand in the
    /// pattern, a rule that denies does and one that allows does not.
    pub(super) fn fits(&self, subject: &Subject<'_>) -> bool {
        let pieces: Option<Vec<Cow<'_, str>>> =
            self.pattern.pieces.iter().map(|piece| piece.resolve(subject.user)).collect();
        match pieces {
            Some(pieces) => filter::fits_pieces(&pieces, subject.client_identifier),
            None => !self.allows,
        }
    }

    /// Whether it names the user who asks.
    pub(super) fn names_user(&self) -> bool {
        self.pattern.pieces.iter().any(|piece| matches!(piece, Piece::Named { .. }))
    }
}

impl Pattern {
    /// From a text; or what is wrong with it, and at which byte.
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

    /// With the name in it; none where that cannot stand there.
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

/// As it could stand in the file.
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
