//! The keys of the configuration by name, as in `limits.sessions_max`: their values, and which of them a reload
//! changes.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{ConfigError, Settings, serializer};

/// The key of the list of listeners.
pub const LISTENERS: &str = "listeners";

/// The key of the list of webhooks.
pub const WEBHOOKS: &str = "webhooks";

/// The key of the list of bridges.
pub const BRIDGES: &str = "bridges";

/// Keys of lists of tables, which several files may extend and no environment variable sets.
pub(super) const LISTS: [&str; 3] = [LISTENERS, WEBHOOKS, BRIDGES];

/// Keys, and tables of keys, that a reload changes.
const LIVE: &[&str] = &[
    "include",
    "listen",
    LISTENERS,
    "free_bind",
    "log",
    "stats",
    "limits",
    "mqtt",
    "access",
    "protection",
    "admin.access",
    "telemetry",
    WEBHOOKS,
    BRIDGES,
];

/// Keys, and tables of keys, that a restart changes: all others, listed so that nobody forgets a key.
#[cfg(test)]
const NEEDS_RESTART: &[&str] = &[
    "bind_wait_s",
    "pid_file",
    "user",
    "cores",
    "numa",
    "mode",
    "executor",
    "latency_budget_us",
    "uring",
    "storage",
    "admin.listen",
    "admin.dashboard",
    "admin.metrics",
    "admin.connections_max",
    "admin.hosts",
    "admin.insecure",
    "admin.socket_group",
    "admin.tls",
    "cluster",
];

/// Whether a reload changes a key.
pub fn is_live(key: &str) -> bool {
    is_among(LIVE, key)
}

/// Whether a key, or a table around it, is in a list.
pub fn is_among(list: &[&str], key: &str) -> bool {
    list.iter().any(|of| {
        key.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// The key of a listener by its number.
pub(super) fn of_listener(number: usize) -> String {
    of_table(LISTENERS, number)
}

/// The key of a table of a list by its number.
pub fn of_table(list: &str, number: usize) -> String {
    format!("{list}[{number}]")
}

/// The name of a key in a table.
pub(super) fn join(above: &str, name: &str) -> String {
    match above.is_empty() {
        true => name.to_owned(),
        false => format!("{above}.{name}"),
    }
}

/// Sets a key of a table.
pub fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((name, rest)) => {
            let within = table.entry(name.to_owned()).or_insert_with(|| Table::new().into());
            if let Value::Table(within) = within {
                insert(within, rest, value);
            }
        }
    }
}

/// All keys with their values as in a file, in the order of the keys.
pub fn of(settings: &Settings) -> Vec<(String, Value)> {
    let table = serializer::to_table(settings).expect("settings are written as they are read");
    let mut all = Vec::new();
    add("", Value::Table(table), &mut all);
    all
}

fn add(key: &str, value: Value, all: &mut Vec<(String, Value)>) {
    match value {
        Value::Table(table) => {
            table.into_iter().for_each(|(name, value)| add(&join(key, &name), value, all));
        }
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_table) => {
            for (number, value) in list.into_iter().enumerate() {
                add(&format!("{key}[{number}]"), value, all);
            }
        }
        value => all.push((key.to_owned(), value)),
    }
}

/// The settings `running`, with the values of `wanted` for the keys that are live.
pub(super) fn take_over(
    running: &Settings,
    wanted: &Settings,
    is_live: &impl Fn(&str) -> bool,
) -> Result<Settings, ConfigError> {
    let table =
        |settings| serializer::to_table(settings).expect("settings are written as they are read");
    let mut merged = table(running);
    take_keys("", &mut merged, table(wanted), is_live);
    Settings::from_table(&merged).map(|(settings, _)| settings)
}

fn take_keys(above: &str, table: &mut Table, mut wanted: Table, is_live: &impl Fn(&str) -> bool) {
    let names: BTreeSet<String> = table.keys().chain(wanted.keys()).cloned().collect();
    for name in names {
        let key = join(above, &name);
        match (table.get_mut(&name), wanted.remove(&name)) {
            (Some(Value::Table(within)), Some(Value::Table(wanted))) => {
                take_keys(&key, within, wanted, is_live);
            }
            (_, Some(value)) if is_live(&key) => drop(table.insert(name, value)),
            (_, None) if is_live(&key) => drop(table.remove(&name)),
            _ => {}
        }
    }
}

/// A value that may be shown: secrets, and user name and password of a URL, are replaced by `***`.
pub fn without_secrets(key: &str, value: Value) -> Value {
    const SECRET: [&str; 3] = ["password", "secret", "token"];
    let name = key.rsplit('.').next().unwrap_or(key);
    let is_header = key.starts_with(WEBHOOKS) && key.contains("].headers.");
    match value {
        Value::String(text) if text.is_empty() => Value::String(text),
        Value::String(_) if is_header || SECRET.iter().any(|secret| name.ends_with(secret)) => {
            "***".into()
        }
        Value::String(text) => without_user(text).into(),
        Value::Array(list) => {
            list.into_iter().map(|value| without_secrets(key, value)).collect::<Vec<_>>().into()
        }
        value => value,
    }
}

/// A URL without its user name and password; other texts are left alone.
fn without_user(text: String) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_key_changes_either_by_a_reload_or_by_a_restart() {
        let documented: Table =
            include_str!("../../deploy/broker.toml").parse().expect("it parses");
        let mut all = Vec::new();
        add("", Value::Table(documented), &mut all);
        assert!(all.len() > 90, "{all:?}");
        for (key, _) in &all {
            assert!(
                is_among(LIVE, key) != is_among(NEEDS_RESTART, key),
                "{key} has to be in exactly one of the lists LIVE and NEEDS_RESTART"
            );
        }
        for listed in LIVE.iter().chain(NEEDS_RESTART) {
            let is_used = all.iter().any(|(key, _)| is_among(&[listed], key));
            assert!(is_used || LISTS.contains(listed), "{listed} is no key");
        }
        let table = all.iter().map(|(key, _)| key.as_str());
        let fields = of(&Settings::default());
        let fields = fields.iter().map(|(key, _)| key.as_str()).filter(|key| !LISTS.contains(key));
        assert_eq!(table.collect::<Vec<_>>(), fields.collect::<Vec<_>>());
    }

    #[test]
    fn settings_are_written_as_they_are_read() {
        let text = include_str!("../../docs/configuration.md");
        let examples = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let own = "cores = \"3-3\"\n[storage]\ndata = \"/x\"\n[access]\nanonymous = false";
        let has_all = cfg!(all(unix, feature = "tls", feature = "websocket"));
        let cases: Vec<&str> = examples.filter(|_| has_all).chain([own]).collect();
        assert!(cases.iter().any(|text| !has_all || text.contains("[[listeners]]")), "{cases:?}");
        for text in cases {
            let settings = Settings::from_toml(text).expect(text);
            let table = Table::try_from(&settings).expect("a table");
            let again = Settings::from_toml(&table.to_string()).expect("it is read");
            assert_eq!(again, settings, "{table}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = |key: &str, text: &str| match without_secrets(key, text.into()) {
            Value::String(text) => text,
            other => panic!("{other}"),
        };
        assert_eq!(shown("access.http.url", "https://u:p@h:1/@x"), "https://***@h:1/@x");
        assert_eq!(shown("access.http.url", "https://h/u@x"), "https://h/u@x");
        assert_eq!(shown("x.client_secret", "s"), "***");
        assert_eq!(shown("webhooks[0].token", "s"), "***");
        assert_eq!(shown("webhooks[0].headers.X-Key", "s"), "***");
        assert_eq!(shown("x.client_secret", ""), "");
        assert_eq!(shown("access.password_file", "/etc/p"), "/etc/p");
    }
}
