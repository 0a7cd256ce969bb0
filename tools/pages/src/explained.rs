//! The keys of the configuration, with defaults and explanations from `deploy/broker.toml`, which tests hold against the
//! settings. For manual pages, and for the references in `docs`.

use toml::{Table, Value};

/// The file with every key, its default and an explanation.
const FILE: &str = include_str!("../../../deploy/broker.toml");

/// A part of an explanation.
#[derive(Debug, PartialEq, Eq)]
pub enum Text {
    /// Running text.
    Paragraph(String),
    /// An entry of a list.
    Item(String),
}

/// Keys that are explained together.
#[derive(Debug)]
pub struct Group {
    /// The explanation.
    pub texts: Vec<Text>,
    /// Full names of the keys, with their defaults as in a file.
    pub keys: Vec<(String, String)>,
}

/// A table of keys.
#[derive(Debug)]
pub struct Section {
    /// The line that begins the table in a file; empty for keys outside of tables.
    pub title: String,
    /// Its keys.
    pub groups: Vec<Group>,
    /// For a list of tables: an explanation, and one table with all keys, as lines of a file.
    pub example: Option<(Vec<Text>, Vec<String>)>,
}

/// All tables, in the order of the file; lists of tables follow.
pub fn configuration() -> Vec<Section> {
    let values: Table = FILE.parse().expect("tests read the file");
    let mut sections = vec![section(String::new())];
    let mut lists = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in FILE.lines().chain([""]) {
        let above = sections.last_mut().expect("never empty");
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.strip_prefix(' ').unwrap_or(text));
        } else if line.starts_with('[') {
            sections.push(section(line.to_owned()));
        } else if let Some((name, _)) = line.split_once(" = ") {
            let table = above.title.trim_matches(['[', ']']);
            let key = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
            let default = value(&values, &key).to_string();
            if !comment.is_empty() || above.groups.is_empty() {
                above.groups.push(Group { texts: texts(&comment), keys: Vec::new() });
                comment.clear();
            }
            above.groups.last_mut().expect("there is one").keys.push((key, default));
        } else {
            lists.extend(list(&comment));
            comment.clear();
        }
    }
    sections.extend(lists);
    sections
}

fn section(title: String) -> Section {
    Section { title, groups: Vec::new(), example: None }
}

/// The list of tables that is explained in a comment.
fn list(comment: &[&str]) -> Option<Section> {
    let begin = comment.iter().position(|line| line.starts_with("[["))?;
    let (above, lines) = comment.split_at(begin);
    let lines = lines.iter().map(|&line| line.to_owned()).collect();
    let example = Some((texts(above), lines));
    Some(Section { example, ..section(comment[begin].to_owned()) })
}

/// The value of a key.
fn value<'a>(table: &'a Table, key: &str) -> &'a Value {
    match key.split_once('.') {
        Some((name, rest)) => value(table[name].as_table().expect("a table"), rest),
        None => &table[key],
    }
}

/// Paragraphs and lists: an indented line is an entry, a further indented one continues it.
fn texts(lines: &[&str]) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    for line in lines {
        let indentation = line.len() - line.trim_start().len();
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        match (texts.last_mut(), indentation) {
            (Some(Text::Paragraph(text)), 0) | (Some(Text::Item(text)), 3..) => {
                text.push(' ');
                text.push_str(&words);
            }
            (_, 0) => texts.push(Text::Paragraph(words)),
            _ => texts.push(Text::Item(words)),
        }
    }
    texts
}
