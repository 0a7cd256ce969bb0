//! Environment variables that set keys: `RINGMQ_LIMITS__SESSIONS_MAX` sets `limits.sessions_max`.

use std::ffi::OsString;

use toml::{Table, Value};

use super::document::Document;
use super::{ConfigError, Settings, deserializer, keys};

/// How all variables of the configuration begin.
const PREFIX: &str = "RINGMQ_";

/// Beginnings of the names of variables that tests and tools of the broker use, after [`PREFIX`].
const OF_TESTS: &[&str] = &[
    "BENCH_",
    "BINARIES",
    "BINARY",
    "CA",
    "CRASH_",
    "FLAGS",
    "INTEROP",
    "MATRIX",
    "REWRITE",
    "SIM_",
    "STORE_DIR",
    "STREAM_",
    "TARGET_",
    "TEST_",
];

/// What variables set.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// Each key with its value, as in a file, and the name of its variable.
    pub set: Vec<(String, Value, String)>,
    /// Errors of all variables.
    pub errors: Vec<ConfigError>,
}

/// The variable of a key.
pub fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

impl Environment {
    /// Reads the variables whose names begin with `RINGMQ_`.
    pub fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let known: Vec<(String, String, Value)> = keys::of(&Settings::default())
            .into_iter()
            .filter(|(key, _)| !keys::LISTS.contains(&key.as_str()))
            .map(|(key, value)| (variable_of(&key), key, value))
            .collect();
        let mut environment = Self::default();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let found = known.iter().find(|(variable, ..)| variable == name);
            let outcome = match (found, value.to_str()) {
                (None, _) if is_foreign(name) => continue,
                (None, _) => Err(unknown(name, &known)),
                (Some((_, key, _)), None) => {
                    Err(ConfigError::at(key, format!("{name}: invalid UTF-8")))
                }
                (Some((_, key, default)), Some(text)) => interpret(key, default, text)
                    .map(|value| (key.clone(), value, name.to_owned()))
                    .map_err(|what| ConfigError::at(key, format!("{name}: {what}"))),
            };
            match outcome {
                Ok(set) => environment.set.push(set),
                Err(error) => environment.errors.push(error),
            }
        }
        environment
    }
}

/// Whether a variable belongs to somebody else: to tests, or to Kubernetes and Docker, which describe a service named
/// `ringmq` to other containers by variables such as `RINGMQ_SERVICE_HOST` and `RINGMQ_PORT_1883_TCP`.
fn is_foreign(name: &str) -> bool {
    let name = &name[PREFIX.len()..];
    let is_of_tests = OF_TESTS.iter().any(|beginning| match beginning.ends_with('_') {
        true => name.starts_with(beginning),
        false => name == *beginning,
    });
    let words: Vec<&str> = name.split('_').collect();
    let is_of_service = words.windows(2).any(|pair| matches!(pair, ["SERVICE", "HOST" | "PORT"]))
        || words.last() == Some(&"PORT")
        || words.windows(3).any(|three| {
            three[0] == "PORT"
                && three[1].parse::<u16>().is_ok()
                && matches!(three[2], "TCP" | "UDP" | "SCTP")
        });
    is_of_tests || is_of_service
}

fn unknown(name: &str, known: &[(String, String, Value)]) -> ConfigError {
    for list in [keys::WEBHOOKS, keys::BRIDGES] {
        if name.starts_with(&variable_of(list)) {
            let what = format!("{name}: no variable sets [[{list}]]; write them to a file");
            return ConfigError::at(list, what);
        }
    }
    if name.starts_with(&variable_of(keys::LISTENERS)) {
        let what = format!(
            "{name}: no variable sets [[listeners]]; write them to a file, or set RINGMQ_LISTEN for \
             addresses of plain MQTT"
        );
        return ConfigError::at(keys::LISTENERS, what);
    }
    let distance = |(variable, ..): &&(String, String, Value)| strsim::levenshtein(variable, name);
    let nearest = known.iter().min_by_key(distance).map_or(PREFIX, |(variable, ..)| variable);
    ConfigError::new(format!(
        "{name}: no key has this environment variable; the nearest one is {nearest}, and \
         deploy/broker.toml documents all keys"
    ))
}

/// The value of a variable: of the type that the key has in a file. A list may be separated by commas.
fn interpret(key: &str, default: &Value, text: &str) -> Result<Value, String> {
    let as_text = Value::String(text.to_owned());
    let as_literal = format!("value = {text}");
    let as_literal = Document::parse(&as_literal).ok();
    let as_literal = as_literal.and_then(|mut document| document.table.remove("value"));
    let candidates = match default {
        Value::String(_) => [Some(as_text), as_literal],
        Value::Array(_) if as_literal.as_ref().is_none_or(|value| !value.is_array()) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            let list = parts.map(|part| Value::String(part.to_owned())).collect();
            [Some(Value::Array(list)), None]
        }
        _ => [as_literal, Some(as_text)],
    };
    let mut first_error = None;
    for value in candidates.into_iter().flatten() {
        let mut table = Table::new();
        keys::insert(&mut table, key, value.clone());
        match deserializer::from_table::<Settings>(&table) {
            Ok(_) => return Ok(value),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    Err(first_error.map_or_else(|| "not a value".to_owned(), |error| error.what().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClusterEngine;

    fn read(variables: &[(&str, &str)]) -> Environment {
        Environment::read(variables.iter().map(|&(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn every_key_has_a_variable_whose_value_has_the_type_of_the_key() {
        for (key, default) in keys::of(&Settings::default()) {
            if keys::LISTS.contains(&key.as_str()) {
                continue;
            }
            let (name, text) = (variable_of(&key), default.to_string());
            let text = text.trim_matches('"');
            let environment = read(&[(&name, text)]);
            assert!(environment.errors.is_empty(), "{name}={text}: {:?}", environment.errors);
            assert_eq!(environment.set, [(key, default, name)]);
        }
    }

    #[test]
    fn a_value_of_another_type_is_an_error_that_names_the_variable() {
        for (name, value, says) in [
            ("RINGMQ_LIMITS__RECEIVE_MAXIMUM", "70000", "from 1 to 65535"),
            ("RINGMQ_LIMITS__RECEIVE_MAXIMUM", "many", "i64"),
            ("RINGMQ_LISTEN", "nowhere", "not an address with a port"),
            ("RINGMQ_ACCESS__ANONYMOUS", "maybe", "true, false or \"auto\""),
            ("RINGMQ_MQTT__RETAIN_AVAILABLE", "no", "boolean"),
        ] {
            let environment = read(&[(name, value)]);
            let [error] = &environment.errors[..] else {
                panic!("{name}={value}: {environment:?}")
            };
            let error = error.to_string();
            assert!(error.starts_with(name) && error.contains(says), "{name}={value}: {error}");
        }
        let environment = read(&[
            ("RINGMQ_LISTEN", "0.0.0.0:1883, [::]:1883"),
            ("RINGMQ_ACCESS__ANONYMOUS", "true"),
            ("RINGMQ_CORES", "0,2"),
            ("RINGMQ_PROTECTION__EXEMPT", ""),
        ]);
        assert!(environment.errors.is_empty(), "{:?}", environment.errors);
        let values: Vec<String> =
            environment.set.iter().map(|(_, value, _)| value.to_string()).collect();
        assert_eq!(values, ["[\"0.0.0.0:1883\", \"[::]:1883\"]", "true", "\"0,2\"", "[]"]);
    }

    #[test]
    fn the_servers_of_a_cluster_are_a_list_with_commas_or_as_in_toml() {
        let both = "[\"nats://a:4222\", \"nats://b:4222\"]";
        for text in ["nats://a:4222,nats://b:4222", "nats://a:4222, nats://b:4222", both] {
            let environment = read(&[("RINGMQ_CLUSTER__ENGINE", text)]);
            assert!(environment.errors.is_empty(), "{text}: {:?}", environment.errors);
            let mut table = Table::new();
            for (key, value, _) in environment.set {
                keys::insert(&mut table, &key, value);
            }
            let settings = deserializer::from_table::<Settings>(&table).expect("settings");
            let servers = ["nats://a:4222", "nats://b:4222"].map(str::to_owned).to_vec();
            assert_eq!(settings.cluster.engine, ClusterEngine::Servers(servers), "{text}");
        }
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_names_the_nearest_one_unless_it_describes_a_service() {
        let environment = read(&[("RINGMQ_LIMIT__CONNECTIONS_MAX", "5")]);
        let error = environment.errors[0].to_string();
        assert!(error.contains("RINGMQ_LIMITS__CONNECTIONS_MAX"), "{error}");
        let environment = read(&[("RINGMQ_LISTENERS__0__BIND", "x")]);
        assert!(environment.errors[0].to_string().contains("RINGMQ_LISTEN "), "{environment:?}");
        for of_service in [
            "RINGMQ_SERVICE_HOST",
            "RINGMQ_SERVICE_PORT_MQTT",
            "RINGMQ_PORT",
            "RINGMQ_PORT_1883_TCP",
            "RINGMQ_MQTT_PORT_1883_TCP_ADDR",
            "RINGMQ_TEST_FLAGS",
            "OTHER",
        ] {
            let environment = read(&[(of_service, "tcp://10.0.0.1:1883")]);
            assert!(environment.errors.is_empty() && environment.set.is_empty(), "{of_service}");
        }
    }
}
