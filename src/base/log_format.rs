//! Fields of a log line as text: `name=value`, with a value in quotes where a program that reads the line could
//! take it for more than one.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Writes the message and then the fields of an event.
#[derive(Debug)]
pub struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor { writer, is_first: true, outcome: Ok(()) };
        fields.record(&mut visitor);
        visitor.outcome
    }
}

struct TextVisitor<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    outcome: fmt::Result,
}

impl TextVisitor<'_> {
    fn write(&mut self, field: &Field, value: &str) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        if field.name() == "message" {
            return self.writer.write_str(value);
        }
        match self.writer.has_ansi_escapes() {
            true => write!(self.writer, "\x1b[3m{}\x1b[0m\x1b[2m=\x1b[0m", field.name())?,
            false => write!(self.writer, "{}=", field.name())?,
        }
        write!(self.writer, "{}", Value(value))
    }
}

impl Visit for TextVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.outcome.is_ok() {
            self.outcome = self.write(field, &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if self.outcome.is_ok() {
            self.outcome = self.write(field, value);
        }
    }
}

/// A value of a field: in quotes if it is empty or has spaces, quotes or equals signs.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a>(pub &'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain =
            |character: char| !character.is_whitespace() && !['"', '='].contains(&character);
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for character in self.0.chars() {
            if ['"', '\\'].contains(&character) {
                f.write_char('\\')?;
            }
            f.write_char(character)?;
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_could_be_taken_for_another_field_is_in_quotes() {
        let shown = |text: &str| Value(text).to_string();
        assert_eq!(shown("192.0.2.1:1883"), "192.0.2.1:1883");
        assert_eq!(shown(r"a\u{a}b"), r"a\u{a}b");
        assert_eq!(shown(""), r#""""#);
        assert_eq!(shown("x address=192.0.2.9:1"), r#""x address=192.0.2.9:1""#);
        assert_eq!(shown(r#"x" address=192.0.2.9:1 y=""#), r#""x\" address=192.0.2.9:1 y=\"""#);
        assert_eq!(shown(r"a b\"), r#""a b\\""#);
        assert_eq!(shown("a\u{2003}b"), "\"a\u{2003}b\"");
    }
}
