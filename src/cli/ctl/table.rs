//! Answers for people: tables that fit the terminal, and lists of names and values. Names that clients chose are
//! shown without the control characters in them.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns to which a column that is too wide shrinks at least.
const COLUMN_MIN: usize = 8;
/// Between two columns.
const GAP: &str = "  ";

/// How a list is shown.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// The field of the answer that is the list.
    pub field: &'static str,
    /// Fields of an entry that are columns, as far as there are any; empty for all.
    pub columns: &'static [&'static str],
}

impl List {
    /// The entries of the list in an answer.
    pub fn entries(self, answer: &Value) -> Option<&Vec<Value>> {
        answer.get(self.field)?.as_array()
    }
}

/// The list of an answer as a table; none if the answer has no such list.
pub fn of_list(answer: &Value, list: List, width: Option<usize>) -> Option<String> {
    list.entries(answer).map(|entries| of_entries(entries, list, width))
}

/// Entries of a list as a table.
pub fn of_entries(entries: &[Value], list: List, width: Option<usize>) -> String {
    let entries: Vec<Map<String, Value>> =
        entries.iter().filter_map(Value::as_object).map(|entry| flat(entry, list)).collect();
    let has = |name: &str| entries.iter().any(|entry| entry.contains_key(name));
    let mut columns: Vec<&str> = list.columns.iter().copied().filter(|name| has(name)).collect();
    if columns.is_empty() {
        let names = entries.iter().flat_map(|entry| entry.keys());
        names.for_each(|name| {
            if !columns.contains(&&**name) {
                columns.push(name);
            }
        });
    }
    let row = |entry: &Map<String, Value>| -> Vec<String> {
        columns.iter().map(|name| shown(name, entry.get(*name).unwrap_or(&Value::Null))).collect()
    };
    let head = columns.iter().map(|name| title(name).to_uppercase()).collect();
    of_rows(head, entries.iter().map(row).collect(), width)
}

/// An entry with the fields of the objects in it as its own. An object that has the name of a column, and a field of
/// that name, is replaced by its fields too: a client in a list of the highest values.
fn flat(entry: &Map<String, Value>, list: List) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in entry {
        match value {
            Value::Object(within)
                if !list.columns.contains(&&**name) || within.contains_key(name) =>
            {
                fields.extend(within.clone());
            }
            value => drop(fields.insert(name.clone(), value.clone())),
        }
    }
    fields
}

/// A table with a head. Columns of numbers are aligned to the right.
pub fn of_rows(head: Vec<String>, rows: Vec<Vec<String>>, width: Option<usize>) -> String {
    let is_number =
        |text: &String| text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit());
    let numbers: Vec<bool> =
        (0..head.len()).map(|at| rows.iter().all(|row| is_number(&row[at]))).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let widest = |at: usize| lines.iter().map(|line| line[at].width()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..numbers.len()).map(widest).collect();
    if let Some(width) = width {
        shrink(&mut widths, width);
    }
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (at, cell) in line.iter().enumerate() {
            let cell = cut(cell, widths[at]);
            let room = " ".repeat(widths[at].saturating_sub(cell.width()));
            let (before, after) = if numbers[at] { (&*room, "") } else { ("", &*room) };
            row += &format!("{}{before}{cell}{after}", if at == 0 { "" } else { GAP });
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

/// The fields of an answer, one a line, with those of objects within indented.
pub fn of_fields(answer: &Value) -> String {
    let mut text = String::new();
    match answer {
        Value::Object(fields) => add_fields(&mut text, fields, ""),
        other => text = shown("", other) + "\n",
    }
    text
}

fn add_fields(text: &mut String, fields: &Map<String, Value>, indent: &str) {
    let widest = fields.keys().map(|name| title(name).width()).max().unwrap_or(0);
    for (name, value) in fields {
        let title = title(name);
        match value {
            Value::Object(within) if !within.is_empty() => {
                *text += &format!("{indent}{title}\n");
                add_fields(text, within, &format!("{indent}  "));
            }
            Value::Array(entries) if entries.first().is_some_and(Value::is_object) => {
                *text += &format!("{indent}{title}\n");
                let list = List { field: "", columns: &[] };
                for line in of_entries(entries, list, None).lines() {
                    *text += &format!("{indent}  {line}\n");
                }
            }
            value => {
                let room = " ".repeat(widest - title.width());
                *text += format!("{indent}{title}{room}  {}", shown(name, value)).trim_end();
                text.push('\n');
            }
        }
    }
}

/// A name of a field as people read it.
fn title(name: &str) -> String {
    let name = name.strip_suffix("_bytes").unwrap_or(name);
    name.strip_suffix("_s").unwrap_or(name).replace('_', " ")
}

/// A value as people read it.
fn shown(name: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match number.as_u64() {
            Some(bytes) if name.contains("bytes") => bytes_for_people(bytes),
            Some(seconds) if name == "uptime_s" => duration(seconds),
            Some(seconds) if ["started_s", "since_s", "until_s"].contains(&name) => date(seconds),
            _ => number.to_string(),
        },
        Value::String(text) => printable(text),
        Value::Array(values) => {
            values.iter().map(|value| shown(name, value)).collect::<Vec<_>>().join(", ")
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                format!("{}={}", printable(name), shown(name, value))
            };
            fields.iter().map(field).collect::<Vec<_>>().join(" ")
        }
    }
}

/// A text without characters that control a terminal.
pub fn printable(text: &str) -> String {
    let is_harmful =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if is_harmful(c) { '\u{fffd}' } else { c }).collect()
}

fn bytes_for_people(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// A time in seconds since 1970, in UTC.
fn date(seconds: u64) -> String {
    let time =
        i64::try_from(seconds).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let text = time.and_then(|time| time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| seconds.to_string())
}

fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60 % 60, seconds / 3_600 % 24, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Takes width from the widest columns until all fit.
fn shrink(widths: &mut [usize], width: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > COLUMN_MIN) else {
            return;
        };
        *widest -= 1;
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let taken = c.width().unwrap_or(0);
        let fits = taken <= left;
        left = left.saturating_sub(taken);
        fits
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CLIENTS: List = List { field: "clients", columns: &["client", "queued", "lost"] };

    #[test]
    fn a_table_has_the_columns_that_there_are_and_aligns_numbers() {
        let answer = json!({"clients": [
            {"client": "a", "queued": 12, "extra": 1},
            {"client": "sensor", "queued": 7},
        ]});
        let text = of_list(&answer, CLIENTS, None).expect("a list");
        assert_eq!(text, "CLIENT  QUEUED\na           12\nsensor       7\n");
        assert_eq!(of_list(&json!({}), CLIENTS, None), None);
        let all = of_list(&answer, List { columns: &[], ..CLIENTS }, None).expect("a list");
        assert!(all.starts_with("CLIENT  EXTRA  QUEUED\n"), "{all}");
        let top = json!({"clients": [{"value": 9, "client": {"client": "a", "queued": 9}}]});
        let text = of_list(&top, CLIENTS, None).expect("a list");
        assert_eq!(text, "CLIENT  QUEUED\na            9\n");
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let long = "x".repeat(200);
        let answer = json!({"clients": [{"client": long, "queued": 1_234_567}]});
        for width in [40, 80, 120] {
            let text = of_list(&answer, CLIENTS, Some(width)).expect("a list");
            assert!(text.lines().all(|line| line.width() <= width), "{text}");
            assert!(text.contains("1234567") && text.contains('…'), "{text}");
        }
        assert!(of_list(&answer, CLIENTS, None).expect("a list").contains(&long));
    }

    #[test]
    fn names_of_clients_cannot_control_the_terminal() {
        let answer = json!({"clients": [{"client": "a\u{1b}[2Jb\u{9b}\u{202e}\nc"}]});
        let text = of_list(&answer, CLIENTS, None).expect("a list");
        assert_eq!(text, "CLIENT\na\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}c\n");
        let fields = of_fields(&json!({"name": "x\u{7}", "within": {"y": "\u{1b}"}}));
        assert!(!fields.contains(['\u{7}', '\u{1b}']), "{fields}");
    }

    #[test]
    fn fields_are_shown_in_units_for_people() {
        let text = of_fields(&json!({
            "memory_bytes": 1_572_864, "uptime_s": 90_061, "stopping": false, "missing": [1, 2],
        }));
        let since = serde_json::json!({ "since_s": 1_700_000_000, "until_s": u64::MAX });
        assert_eq!(shown("since_s", &since["since_s"]), "2023-11-14T22:13:20Z");
        assert_eq!(shown("until_s", &since["until_s"]), u64::MAX.to_string());
        assert_eq!(text, "memory    1.5 MiB\nmissing   1, 2\nstopping  no\nuptime    1 d 1 h\n");
    }
}
