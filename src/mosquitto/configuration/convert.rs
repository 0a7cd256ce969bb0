//! A configuration file of this broker from a translated one, with the lines that its keys come from.

use std::fmt::Write as _;

use super::options::Class;
use super::{Translation, translation::Written};
use crate::config::keys;

/// The text of `broker.toml`.
pub fn to_toml(translation: &Translation) -> String {
    let mut text =
        String::from("# Made from a configuration of Mosquitto by `broker mosquitto convert`.\n");
    let ignored: Vec<_> =
        translation.lines.iter().filter(|line| line.class == Class::Ignored).collect();
    if !ignored.is_empty() {
        text.push_str("#\n# Lines without effect:\n");
        for line in ignored {
            let _ = writeln!(text, "# {}: {}: {}", line.place(), line.line, line.what);
        }
    }
    let (plain, nested): (Vec<&Written>, Vec<_>) =
        translation.keys.iter().partition(|of| !of.key.contains('.'));
    text.push('\n');
    plain.iter().for_each(|of| write(&mut text, translation, "", of));
    table(&mut text, translation, "", &nested);
    for listener in &translation.listeners {
        let (plain, nested): (Vec<&Written>, Vec<_>) =
            listener.iter().partition(|of| !of.key.contains('.'));
        let _ = writeln!(text, "\n[[{}]]", keys::LISTENERS);
        plain.iter().for_each(|of| write(&mut text, translation, "", of));
        table(&mut text, translation, "listeners.", &nested);
    }
    for bridge in &translation.bridges {
        let (plain, nested): (Vec<&Written>, Vec<_>) =
            bridge.keys.iter().partition(|of| !of.key.contains('.'));
        let _ = writeln!(text, "\n[[{}]]", keys::BRIDGES);
        plain.iter().for_each(|of| write(&mut text, translation, "", of));
        table(&mut text, translation, "bridges.", &nested);
        for rule in &bridge.rules {
            let _ = writeln!(text, "\n[[{}.{}]]", keys::BRIDGES, rule.table);
            comment(&mut text, translation, rule.keys.first().and_then(|of| of.by));
            for of in &rule.keys {
                let _ = writeln!(text, "{} = {}", of.key, of.value);
            }
        }
    }
    text
}

/// Writes keys such as `limits.inflight_max` in tables. The keys of a table are next to each other.
fn table(text: &mut String, translation: &Translation, above: &str, keys: &[&Written]) {
    let mut sorted = keys.to_vec();
    sorted.sort_by_key(|of| of.key.rsplit_once('.').map(|(table, _)| table.to_owned()));
    let mut current = None;
    for of in sorted {
        let (name, _) = of.key.rsplit_once('.').expect("only nested keys are given");
        if current != Some(name) {
            let _ = writeln!(text, "\n[{above}{name}]");
            current = Some(name);
        }
        write(text, translation, name, of);
    }
}

/// Writes a key below the line that it comes from.
fn write(text: &mut String, translation: &Translation, table: &str, of: &Written) {
    let name = of.key.strip_prefix(table).unwrap_or(&of.key).trim_start_matches('.');
    comment(text, translation, of.by);
    let _ = writeln!(text, "{name} = {}", of.value);
}

/// Writes the line that a key comes from.
fn comment(text: &mut String, translation: &Translation, by: Option<usize>) {
    let _ = match by.map(|by| &translation.lines[by]) {
        Some(line) => writeln!(text, "# {}: {}", line.place(), line.line),
        None => writeln!(text, "# {}", translation.default_name()),
    };
}
