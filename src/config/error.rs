//! Errors of the configuration, with their place.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// An invalid configuration: the place, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<PathBuf>,
    line: Option<u32>,
    key: Option<String>,
    what: String,
    /// The line of the file with the error marked, if it may be shown.
    excerpt: Option<String>,
}

impl ConfigError {
    /// An error without a place.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { file: None, line: None, key: None, what: what.into(), excerpt: None }
    }

    /// An error of a key.
    pub(super) fn at(key: &str, what: impl Into<String>) -> Self {
        Self { key: Some(key.to_owned()), ..Self::new(what) }
    }

    /// An error of an operation on a file that the configuration names.
    pub fn of_key(key: Option<&str>, what: impl Into<String>) -> Self {
        Self { key: key.map(str::to_owned), ..Self::new(what) }
    }

    /// An error of these bytes of a text. The line is quoted unless it may contain a password, which must not reach the
    /// log.
    pub(super) fn in_text(text: &str, span: Range<usize>, what: &str) -> Self {
        let start = span.start;
        let number = line_at(text, start);
        let line = text.lines().nth(number as usize - 1).unwrap_or_default();
        let has_password = line.split_once("://").is_some_and(|(_, after)| after.contains('@'));
        let table = text.get(..start).unwrap_or(text).lines().rev();
        let table = table.map(str::trim_start).find(|line| line.starts_with('['));
        let has_headers =
            line.contains("headers") || table.is_some_and(|it| it.contains("headers"));
        let is_key = |name| line.trim_start().starts_with(name);
        let is_secret = has_password || has_headers || is_key("token") || is_key("password");
        let excerpt = match is_secret {
            true => format!(
                "TOML parse error at line {number}: {what} (the line is not shown because it may have a password or a token)"
            ),
            false => excerpt(text, span, what),
        };
        Self { line: Some(number), excerpt: Some(excerpt), ..Self::new(what) }
    }

    /// The same error with its place in a file.
    pub fn in_file(mut self, file: &Path, line: Option<u32>) -> Self {
        self.file = Some(file.to_owned());
        self.line = self.line.or(line);
        self
    }

    /// The same error with its key.
    pub(super) fn of(mut self, key: Option<String>) -> Self {
        self.key = self.key.or(key);
        self
    }

    /// The file, if the error is in one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The line in the file, from 1.
    pub fn line(&self) -> Option<u32> {
        self.line
    }

    /// The key, such as `limits.sessions_max`.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The reason.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line, &self.excerpt) {
            (Some(file), _, Some(excerpt)) => write!(f, "{}: {excerpt}", file.display()),
            (Some(file), Some(line), None) => write!(f, "{}:{line}: {}", file.display(), self.what),
            (Some(file), None, None) => write!(f, "{}: {}", file.display(), self.what),
            (None, _, Some(excerpt)) => f.write_str(excerpt),
            (None, _, None) => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The line of a byte of a text, from 1.
pub(super) fn line_at(text: &str, byte: usize) -> u32 {
    let before = text.get(..byte).unwrap_or(text);
    1 + before.matches('\n').count() as u32
}

/// An error with its line, in which the bytes are marked.
fn excerpt(text: &str, span: Range<usize>, what: &str) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let (number, column) = (line_at(text, span.start), before[line_start..].chars().count());
    let rest = line.chars().count().saturating_sub(column);
    let marked = span.len().clamp(1, rest.max(1));
    let gutter = " ".repeat(number.to_string().len() + 1);
    format!(
        "TOML parse error at line {number}, column {}\n{gutter}|\n{number} | {line}\n{gutter}| {}{}\n{what}",
        column + 1,
        " ".repeat(column),
        "^".repeat(marked),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_marks_its_bytes_in_the_line() {
        let text = "a = 1\n[ä]\nkéy = \"x\"\n";
        let start = text.find("\"x\"").expect("the value");
        let error = ConfigError::in_text(text, start..start + 3, "not a number");
        assert_eq!(
            error.to_string(),
            "TOML parse error at line 3, column 7\n  |\n3 | kéy = \"x\"\n  |       ^^^\nnot a number"
        );
        for span in [text.len()..text.len(), 0..0, 3..text.len(), 500..501] {
            assert!(ConfigError::in_text(text, span, "it").to_string().ends_with("^\nit"));
        }
        assert!(ConfigError::in_text("", 0..0, "it").to_string().contains("line 1, column 1"));
    }
}
