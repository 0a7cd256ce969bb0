//! A log line as its parts, read from the JSON that the log's formatter has written.

use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::base::log_format;

/// A log line in parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// In the form of RFC 3339; empty if the line has none.
    pub timestamp: String,
    /// The severity of syslog, 0 to 7.
    pub severity: u8,
    /// The message alone.
    pub message: String,
    /// All other fields, in their order.
    pub fields: Vec<(String, String)>,
}

/// The severity of lines that are no events: the report of a panic.
const SEVERITY_CRITICAL: u8 = 2;

impl Record {
    /// Reads a line. Text that is no event, such as the report of a panic, becomes the message.
    pub fn read(line: &[u8]) -> Self {
        serde_json::from_slice::<Object>(line).map_or_else(
            |_| {
                let message = String::from_utf8_lossy(line).trim_end().to_owned();
                Self { severity: SEVERITY_CRITICAL, message, ..Self::default() }
            },
            Self::from,
        )
    }

    /// Message and fields in one line, as the text format has them.
    pub fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.fields {
            let _ = write!(text, " {name}={}", log_format::Value(value));
        }
        text
    }
}

impl From<Object> for Record {
    fn from(Object(members): Object) -> Self {
        let mut record = Self { severity: 6, ..Self::default() };
        for (name, value) in members {
            let value = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            match name.as_str() {
                "timestamp" => record.timestamp = value,
                "level" => record.severity = severity(&value),
                "message" => record.message = value,
                _ => record.fields.push((name, value)),
            }
        }
        record
    }
}

fn severity(level: &str) -> u8 {
    match level {
        "ERROR" => 3,
        "WARN" => 4,
        "INFO" => 6,
        _ => 7,
    }
}

/// The members of a JSON object in the order in which they are written.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_keeps_the_order_of_its_fields_and_a_panic_is_a_message() {
        let line = br#"{"timestamp":"2026-01-02T03:04:05.678901Z","level":"WARN","message":"refused","z":1,"a":"b c"}
"#;
        let record = Record::read(line);
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(record.fields, [field("z", "1"), field("a", "b c")]);
        assert_eq!(
            (record.severity, record.timestamp.as_str()),
            (4, "2026-01-02T03:04:05.678901Z")
        );
        assert_eq!(record.text(), r#"refused z=1 a="b c""#);
        let panic = Record::read(b"thread 'core 0' panicked\nat line 1\n");
        assert_eq!(
            (panic.severity, panic.message.as_str()),
            (2, "thread 'core 0' panicked\nat line 1")
        );
    }
}
