//! `broker ctl trace`: a line for each event, for people or as the interface sends it.

use serde_json::Value;

use super::output::Output;
use super::{Error, Outcome};

/// Prints a trace as it comes.
#[derive(Debug)]
pub struct Trace {
    output: Output,
    /// The beginning of a line.
    begun: Vec<u8>,
    missed: u64,
    has_ended: bool,
}

impl Trace {
    /// Nothing has come.
    pub fn new(output: Output) -> Self {
        Self { output, begun: Vec::new(), missed: 0, has_ended: false }
    }

    /// A part has come: prints the lines that it completes.
    pub fn add(&mut self, part: &[u8]) -> Result<(), Error> {
        self.begun.extend_from_slice(part);
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let rest = self.begun.split_off(end + 1);
        let lines = std::mem::replace(&mut self.begun, rest);
        let mut shown = String::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).map_err(|error| {
                Error::Failed(format!("a line of the trace is not JSON: {error}"))
            })?;
            match event["event"].as_str() {
                Some("missed") => self.missed += event["events"].as_u64().unwrap_or(0),
                Some("end") => self.has_ended = true,
                _ => {}
            }
            shown += &text(&event);
            shown.push('\n');
        }
        match self.output.is_json {
            true => self.output.print_foreign(&lines),
            false => self.output.print_foreign(shown.as_bytes()),
        }
    }

    /// No more comes. A trace with gaps is done in part.
    pub fn end(self) -> Result<Outcome, Error> {
        if !self.has_ended {
            let what = "the trace was cut: the output was too slow, or the broker has ended";
            return Err(Error::Failed(what.to_owned()));
        }
        Ok(if self.missed > 0 { Outcome::InPart } else { Outcome::Done })
    }
}

/// An event for people.
fn text(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| event[name].as_u64();
    let head = format!("{} core {}", time(event["at"].as_f64()), number("core").unwrap_or(0));
    let client = match text("client_id") {
        name if name.is_empty() => text("address"),
        name => name,
    };
    match event["event"].as_str() {
        Some("packet") => {
            let arrow = if event["direction"] == "sent" { "<-" } else { "->" };
            format!("{head} {client} {arrow} {}{}", text("packet"), details(event))
        }
        Some("drop") => {
            let (messages, cause) = (number("messages").unwrap_or(0), text("cause"));
            let topic = event["topic"].as_str().map(|topic| format!(" {topic:?}"));
            let topic = topic.unwrap_or_default();
            format!("{head} {client} xx dropped{topic} messages={messages} cause={cause}")
        }
        Some("missed") => {
            let events = number("events").unwrap_or(0);
            format!("… {events} events of core {} were missed", number("core").unwrap_or(0))
        }
        Some("end") => {
            format!("end ({}): {} events", text("why"), number("events").unwrap_or(0))
        }
        _ => event.to_string(),
    }
}

/// What a packet has besides its type.
fn details(event: &Value) -> String {
    let mut text = String::new();
    if let Some(topic) = event["topic"].as_str() {
        text += &format!(" {topic:?}");
    }
    for filter in event["filters"].as_array().into_iter().flatten() {
        text += &format!(" {filter}");
    }
    for (name, title) in [("qos", "qos"), ("packet_id", "id")] {
        if let Some(value) = event[name].as_u64() {
            text += &format!(" {title}={value}");
        }
    }
    for flag in ["retain", "dup"] {
        if event[flag] == true {
            text += &format!(" {flag}");
        }
    }
    if let Some(bytes) = event["bytes"].as_u64() {
        text += &format!(" bytes={bytes}");
    }
    if let (Some(code), Some(reason)) = (event["reason_code"].as_u64(), event["reason"].as_str()) {
        text += &format!(" reason=0x{code:02X} ({reason})");
    }
    let codes = event["reason_codes"].as_array().into_iter().flatten().filter_map(Value::as_u64);
    for code in codes {
        text += &format!(" 0x{code:02X}");
    }
    for name in ["text", "base64"] {
        if let Some(payload) = event[name].as_str() {
            text += &format!(" {name}={payload:?}");
        }
    }
    text
}

/// The time of day in UTC.
fn time(at: Option<f64>) -> String {
    let us = (at.unwrap_or(0.0) * 1e6).round() as u64;
    let s = us / 1_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}.{:06}Z", s / 3_600, s / 60 % 60, s % 60, us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line_with_what_it_has() {
        let packet = json!({
            "event": "packet", "at": 1_700_000_000.000_25, "core": 1, "direction": "sent", "client_id": "c",
            "packet": "PUBLISH", "topic": "a/b", "qos": 1, "packet_id": 7, "retain": true, "dup": false,
            "bytes": 20, "payload_bytes": 5, "text": "hello",
        });
        let expected = "22:13:20.000250Z core 1 c <- PUBLISH \"a/b\" qos=1 id=7 retain bytes=20 text=\"hello\"";
        assert_eq!(text(&packet), expected);
        let suback = json!({
            "event": "packet", "at": 0.0, "core": 0, "direction": "received", "address": "10.0.0.1:5",
            "packet": "SUBACK", "packet_id": 1, "bytes": 5, "reason_codes": [1, 135],
        });
        let expected = "00:00:00.000000Z core 0 10.0.0.1:5 -> SUBACK id=1 bytes=5 0x01 0x87";
        assert_eq!(text(&suback), expected);
        let ack =
            json!({"event": "packet", "packet": "PUBACK", "reason_code": 16, "reason": "x y"});
        assert!(text(&ack).ends_with("PUBACK reason=0x10 (x y)"), "{}", text(&ack));
        let drop = json!({"event": "drop", "core": 0, "client_id": "c", "cause": "queue-full",
            "messages": 2, "topic": "t"});
        assert!(text(&drop).ends_with("c xx dropped \"t\" messages=2 cause=queue-full"));
    }
}
