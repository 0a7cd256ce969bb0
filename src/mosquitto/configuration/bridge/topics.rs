//! The lines `topic PATTERN DIRECTION QOS LOCAL-PREFIX REMOTE-PREFIX`.

use toml::Value;

use super::super::syntax::Line;
use super::super::translation::{Written, WrittenRule};
use crate::config::bridge::{InRule, OutRule};

/// An empty word.
const EMPTY: &str = "\"\"";

/// How filters of shared subscriptions begin.
const SHARED: &str = "$share/";

/// What a line `topic` asks for.
pub(super) struct Topic {
    /// A rule for each of its directions.
    pub rules: Vec<WrittenRule>,
    /// Of a line for messages from the other broker, the name of the shared subscription there, "" if it is none.
    pub share: Option<String>,
}

/// What a line asks for.
pub(super) fn take(line: &Line, place: usize) -> Result<Topic, String> {
    let mut words = line.words()?;
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
        "0" | EMPTY => 0,
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
    let (share, pattern, remote) = without_share(pattern, remote)?;
    if goes_out && !share.is_empty() {
        return Err("a shared subscription is one at the other broker; its direction is in, and what goes out has a line \
                    of its own"
            .to_owned());
    }
    let mut rules = Vec::new();
    if goes_out {
        let rule = OutRule {
            filter: format!("{local}{pattern}"),
            qos_max: qos,
            local_prefix: local.to_owned(),
            remote_prefix: remote.to_owned(),
            to: String::new(),
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
            to: String::new(),
        };
        rule.check()?;
        rules.push(written("in", ("qos", qos), &rule.filter, [local, remote], place));
    }
    Ok(Topic { rules, share: comes_in.then(|| share.to_owned()) })
}

/// The name of a shared subscription, "" without one; the pattern and the prefix at the other broker without it. Mosquitto
/// puts the prefix before the pattern, so that either of them may begin with `$share/NAME/`.
fn without_share<'a>(
    pattern: &'a str,
    remote: &'a str,
) -> Result<(&'a str, &'a str, &'a str), String> {
    let is_name = |name: &str| !name.is_empty() && !name.contains(['+', '#']);
    let split = |text: &'a str| {
        match text.strip_prefix(SHARED) {
        None => Ok(("", text)),
        Some(rest) => rest.split_once('/').filter(|(name, _)| is_name(name)).ok_or(
            "a shared subscription is $share/NAME/FILTER; give it a name without + and #, and a filter".to_owned(),
        ),
    }
    };
    if remote.is_empty() {
        let (share, pattern) = split(pattern)?;
        return Ok((share, pattern, remote));
    }
    let (share, remote) = split(remote)?;
    Ok((share, pattern, remote))
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
