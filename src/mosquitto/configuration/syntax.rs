//! The syntax of Mosquitto's configuration: a line is an option, a space and a value. `#` begins a comment in the
//! first column only.

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of a folder that `include_dir` names at most.
const INCLUDED_MAX: usize = 256;

/// A line with an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file.
    pub file: Arc<Path>,
    /// The number of the line, from 1.
    pub number: u32,
    /// The name of the option.
    pub option: String,
    /// The rest of the line.
    pub value: String,
}

impl Line {
    /// The lines of a text that have options.
    pub fn all(file: &Arc<Path>, text: &str) -> Vec<Self> {
        let line = |(number, line): (u32, &str)| {
            let line = line.trim_end();
            let has_option = !line.starts_with('#') && !line.is_empty();
            has_option.then(|| {
                let line = line.trim_start_matches(' ');
                let (option, value) = line.split_once(' ').unwrap_or((line, ""));
                let (option, value) = (option.to_owned(), value.trim().to_owned());
                Self { file: Arc::clone(file), number, option, value }
            })
        };
        (1..).zip(text.lines()).filter_map(line).collect()
    }

    /// The value, which may have spaces.
    pub fn text(&self) -> Result<&str, String> {
        match self.value.as_str() {
            "" => Err(format!("{} has no value", self.option)),
            value => Ok(value),
        }
    }

    /// The first word of the value; Mosquitto ignores further ones.
    pub fn word(&self) -> Result<&str, String> {
        self.text().map(|text| text.split(' ').next().unwrap_or(text))
    }

    /// All words of the value.
    pub fn words(&self) -> Result<impl Iterator<Item = &str>, String> {
        Ok(self.text()?.split(' ').filter(|word| !word.is_empty()))
    }

    /// A file or folder.
    pub fn path(&self) -> Result<&Path, String> {
        self.text().map(Path::new)
    }

    /// A boolean value.
    pub fn boolean(&self) -> Result<bool, String> {
        match self.word()? {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(format!("{other:?} is neither \"true\" nor \"false\"")),
        }
    }

    /// A number in a range.
    pub fn number(&self, range: RangeInclusive<i64>) -> Result<i64, String> {
        let word = self.word()?;
        let number = word.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            format!("{word:?} is not a number from {} to {}", range.start(), range.end())
        })
    }

    /// The line for reports, without passwords.
    pub fn shown(&self) -> String {
        let is_secret = ["password", "psk", "secret", "token", "kpass", "dsn"]
            .iter()
            .any(|secret| self.option.contains(secret) && !self.option.contains("file"));
        match (self.value.as_str(), is_secret) {
            ("", _) => self.option.clone(),
            (_, true) => format!("{} ***", self.option),
            (value, false) => format!("{} {value}", self.option),
        }
    }
}

/// The files of a folder that Mosquitto reads, in its order.
pub fn included(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let about = |error| format!("the folder {} cannot be read: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(about)? {
        let path = entry.map_err(about)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.len() > ".conf".len() && name.ends_with(".conf") {
            paths.push(path);
        }
    }
    if paths.len() > INCLUDED_MAX {
        let count = paths.len();
        return Err(format!("{count} files *.conf are more than {INCLUDED_MAX}"));
    }
    paths.sort_by(|one, other| compare(&one.to_string_lossy(), &other.to_string_lossy()));
    Ok(paths)
}

/// By letters, of which the capital one is first.
fn compare(one: &str, other: &str) -> Ordering {
    let differing = one.bytes().zip(other.bytes()).find(|(one, other)| one != other);
    match differing {
        None => one.len().cmp(&other.len()),
        Some((one, other)) => {
            let upper = one.to_ascii_uppercase().cmp(&other.to_ascii_uppercase());
            upper.then(one.cmp(&other))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        Line::all(&Path::new("mosquitto.conf").into(), text)
    }

    #[test]
    fn a_comment_begins_in_the_first_column_and_the_first_space_ends_the_option() {
        let all = lines("# a\n\n  listener 1883  ::1 \r\npersistence true # on\n #x y\nuser\n");
        let shown: Vec<_> =
            all.iter().map(|of| (of.number, of.option.as_str(), of.value.as_str())).collect();
        assert_eq!(
            shown,
            [
                (3, "listener", "1883  ::1"),
                (4, "persistence", "true # on"),
                (5, "#x", "y"),
                (6, "user", ""),
            ]
        );
        assert_eq!(all[1].boolean(), Ok(true), "further words are ignored");
        assert_eq!(all[3].word(), Err("user has no value".to_owned()));
    }

    #[test]
    fn values_of_another_type_are_errors_that_quote_them() {
        let line = |text: &str| lines(text).remove(0);
        assert_eq!(line("a 1").boolean(), Ok(true));
        assert!(line("a yes").boolean().is_err_and(|what| what.contains("\"yes\"")));
        assert_eq!(line("a -1").number(-1..=5), Ok(-1));
        for wrong in ["a 6", "a x", "a 1.5", "a"] {
            assert!(line(wrong).number(-1..=5).is_err(), "{wrong}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = |text: &str| lines(text)[0].shown();
        assert_eq!(shown("remote_password secret"), "remote_password ***");
        assert_eq!(shown("bridge_psk 0123"), "bridge_psk ***");
        assert_eq!(shown("password_file /etc/p"), "password_file /etc/p");
        assert_eq!(shown("auth_opt_pg_password x"), "auth_opt_pg_password ***");
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_mosquitto() {
        let names = ["00", "01", "A", "a", "a.conf", "aB", "ab", "B", "b"];
        let names = names.map(|name| format!("inc/{name}.conf"));
        let mut sorted = names.clone();
        sorted.reverse();
        sorted.sort_by(|one, other| compare(one, other));
        assert_eq!(sorted, names);
    }
}
