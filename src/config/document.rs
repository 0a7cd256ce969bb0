//! A TOML document: its values, and where they are written.

use std::ops::Range;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::deserializer::{self, Step, ValueError};
use super::{ConfigError, Settings, keys};

/// A TOML document.
pub(super) struct Document<'a> {
    text: &'a str,
    tree: DeTable<'a>,
    /// The values.
    pub table: Table,
}

impl<'a> Document<'a> {
    /// Parses a text.
    pub fn parse(text: &'a str) -> Result<Self, ConfigError> {
        let tree = DeTable::parse(text).map_err(|error| {
            ConfigError::in_text(text, error.span().unwrap_or_default(), error.message())
        })?;
        let tree = tree.into_inner();
        let table = table_of(&tree).map_err(|error| locate(text, &tree, &error))?;
        Ok(Self { text, tree, table })
    }

    /// The settings over the defaults. Errors name line, column, key and the accepted values.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        deserializer::from_table(&self.table).map_err(|error| locate(self.text, &self.tree, &error))
    }

    /// Calls `found` with each key and its place in bytes; with the key of a list for each table of the list.
    pub fn each_key(&self, found: &mut dyn FnMut(String, usize)) {
        each_key(&self.tree, "", found);
    }
}

fn each_key(table: &DeTable<'_>, above: &str, found: &mut dyn FnMut(String, usize)) {
    for (name, value) in table {
        let key = keys::join(above, name.get_ref());
        let start = name.span().start;
        match value.get_ref() {
            DeValue::Table(table) => each_key(table, &key, found),
            DeValue::Array(list) if keys::LISTS.contains(&key.as_str()) => {
                list.iter().for_each(|table| found(key.clone(), table.span().start));
            }
            _ => found(key, start),
        }
    }
}

/// The error with its place in the text and its key.
fn locate(text: &str, tree: &DeTable<'_>, error: &ValueError) -> ConfigError {
    let (mut table, mut list) = (Some(tree), None);
    let (mut span, mut key) = (Range::default(), String::new());
    for step in error.steps() {
        let value = match step {
            Step::Key(name) => {
                key = keys::join(&key, name);
                let entry = table.and_then(|table| table.get_key_value(name.as_str()));
                let Some((name, value)) = entry else { break };
                span = if error.is_of_name() { name.span() } else { value.span() };
                value
            }
            Step::Element(number) => {
                let element = list.and_then(|list: &toml::de::DeArray<'_>| list.get(*number));
                let Some(value) = element else { break };
                span = value.span();
                value
            }
        };
        (table, list) = (value.get_ref().as_table(), value.get_ref().as_array());
    }
    ConfigError::in_text(text, span, error.what()).of(Some(key).filter(|key| !key.is_empty()))
}

fn table_of(tree: &DeTable<'_>) -> Result<Table, ValueError> {
    let mut table = Table::new();
    for (name, value) in tree {
        let name = name.get_ref();
        let value =
            value_of(value.get_ref()).map_err(|error| error.within(Step::Key(name.to_string())))?;
        table.insert(name.to_string(), value);
    }
    Ok(table)
}

fn value_of(value: &DeValue<'_>) -> Result<Value, ValueError> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::Integer)
            .map_err(|_| {
                let (least, most) = (i64::MIN, i64::MAX);
                ValueError::new(format!("{number} is not a whole number from {least} to {most}"))
            })?,
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map(Value::Float)
            .map_err(|_| ValueError::new(format!("{number} is not a number")))?,
        DeValue::Boolean(is_true) => Value::Boolean(*is_true),
        DeValue::Datetime(date) => Value::Datetime(*date),
        DeValue::Array(list) => {
            let mut values = Vec::with_capacity(list.len());
            for (number, value) in list.iter().enumerate() {
                let value = value_of(value.get_ref());
                values.push(value.map_err(|error| error.within(Step::Element(number)))?);
            }
            Value::Array(values)
        }
        DeValue::Table(tree) => Value::Table(table_of(tree)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> ConfigError {
        let settings = Document::parse(text).and_then(|document| document.settings());
        settings.expect_err("it is wrong")
    }

    #[test]
    fn an_error_has_the_line_and_the_key_of_the_value_or_the_name_that_is_wrong() {
        for (text, line, key, marked) in [
            ("cores = true\n", 1, "cores", "^^^^"),
            ("\n[limits]\nsessions_max = \"5\"\n", 3, "limits.sessions_max", "^^^"),
            ("[limits]\nsession_max = 5\n", 2, "limits.session_max", "^^^^^^^^^^^"),
            ("log.level = 7\n", 1, "log.level", "^"),
            ("listen = [\n \":1\",\n 1.5,\n]\n", 3, "listen", "^^^"),
            ("[[listeners]]\nbind = \":1\"\n[[listeners]]\nbind = 1\n", 4, "listeners.bind", "^"),
            ("[[listeners]]\n\ntransport = \"tcp\"\n", 1, "listeners", "^^^^^^^^^^^^^"),
            (
                "[limits]\nsessions_max = 99999999999999999999\n",
                2,
                "limits.sessions_max",
                "^^^^^^^^",
            ),
            ("bind_wait_s = 1979-05-27\n", 1, "bind_wait_s", "^^^^^^^^^^"),
        ] {
            let error = error(text);
            assert_eq!((error.line(), error.key()), (Some(line), Some(key)), "{text}: {error}");
            assert!(
                error.to_string().contains(&format!(
                    "| {}",
                    text.lines().nth(line as usize - 1).expect("a line")
                ))
            );
            assert!(error.to_string().contains(&format!(" {marked}")), "{text}: {error}");
        }
        let error = error("[limits\n");
        assert_eq!((error.line(), error.key()), (Some(1), None), "{error}");
    }

    #[test]
    fn a_value_of_another_kind_is_an_error_that_names_both_kinds() {
        for (text, says) in [
            ("cores = true", "invalid type: boolean `true`, expected a number of cores"),
            ("numa = 1", "invalid type: integer `1`, expected a boolean"),
            ("user = []", "invalid type: sequence, expected a string"),
            ("limits = 1", "invalid type: integer `1`, expected struct Limits"),
            ("listeners = {}", "invalid type: map, expected a sequence"),
            ("mode = 1", "invalid type: integer `1`, expected a string"),
            ("mode = \"fast\"", "unknown variant `fast`, expected one of `auto`, `uring`"),
            ("bind_wait_s = 1.5", "invalid type: floating point `1.5`, expected i64"),
            ("bind_wait_s = 1979-05-27", "invalid type: date, expected i64"),
            ("access.anonymous = 1", "invalid type: integer `1`, expected true, false or \"auto\""),
            ("telemetry.traces = true", "expected \"off\", \"asked\" or a share"),
        ] {
            let error = error(text);
            assert!(error.what().contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_table_of_a_document_has_all_its_values() {
        let text = "a = 1\nb = [0x1F, -2, 1.5, inf, true]\nc = 1979-05-27\n[d.e]\nf = \"\\u00e4\"\n[[g]]\n";
        let document = Document::parse(text).expect("valid");
        assert_eq!(document.table, text.parse::<Table>().expect("valid"));
    }
}
