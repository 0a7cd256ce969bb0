//! The lines `topic PATTERN DIRECTION QOS LOCAL-PREFIX REMOTE-PREFIX`.

use toml::Value;

use super::super::syntax::Line;
use super::super::translation::{Written, WrittenRule};
use crate::config::bridge::{InRule, OutRule};

/// An empty word.
const EMPTY: &str = "\"\"";

/// The rules of a line: one for each direction.
pub(super) fn rules(line: &Line, place: usize) -> Result<Vec<WrittenRule>, String> {
    let mut words = line.text()?.split(' ').filter(|word| !word.is_empty());
    let pattern = unquoted(words.next().unwrap_or_default());
    let direction = words.next().unwrap_or("out").to_ascii_lowercase();
    let (goes_out, comes_in) = match direction.as_str() {
        "out" => (true, false),
        "in" => (false, true),
        "both" => (true, true),
        other => return Err(format!("the direction {other:?} is not one of out, in, both")),
    };
    // Mosquitto takes what follows for a comment.
    let mut words = words.take_while(|word| !word.starts_with('#'));
    let qos = match words.next().unwrap_or("0") {
        "0" => 0,
        "1" => 1,
        "2" => 2,
        other => return Err(format!("the QoS {other:?} is not one of 0, 1, 2")),
    };
    let local = words.next().map_or("", unquoted);
    let remote = words.next().map_or("", unquoted);
    if pattern.is_empty() && (local.is_empty() || remote.is_empty()) {
        return Err(
            "the empty pattern stands for one topic, which has a name at both ends; give both"
                .to_owned(),
        );
    }
    let mut rules = Vec::new();
    if goes_out {
        let rule = OutRule {
            filter: format!("{local}{pattern}"),
            qos_max: qos,
            local_prefix: local.to_owned(),
            remote_prefix: remote.to_owned(),
        };
        rule.check()?;
        rules.push(written("out", ("qos_max", qos), &rule.filter, [local, remote], place));
    }
    if comes_in {
        let rule = InRule {
            filter: format!("{remote}{pattern}"),
            qos,
            local_prefix: local.to_owned(),
            remote_prefix: remote.to_owned(),
        };
        rule.check()?;
        rules.push(written("in", ("qos", qos), &rule.filter, [local, remote], place));
    }
    Ok(rules)
}

fn unquoted(word: &str) -> &str {
    if word == EMPTY { "" } else { word }
}

fn written(
    table: &'static str,
    (qos_key, qos): (&str, u8),
    filter: &str,
    [local, remote]: [&str; 2],
    place: usize,
) -> WrittenRule {
    let key = |key: &str, value: Value| Written { key: key.to_owned(), value, by: Some(place) };
    let mut keys = vec![key("filter", filter.into()), key(qos_key, i64::from(qos).into())];
    for (name, prefix) in [("local_prefix", local), ("remote_prefix", remote)] {
        if !prefix.is_empty() {
            keys.push(key(name, prefix.into()));
        }
    }
    WrittenRule { table, keys }
}
