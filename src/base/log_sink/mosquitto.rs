//! Lines in the words of Mosquitto's log, which programs for that broker read: Fail2Ban, dashboards, scripts.

use std::io::{self, Write};

use super::record::Record;
use crate::base::log_topics::{self, LogMessage};

/// Writes each line in Mosquitto's form. Names that clients choose come after what the broker knows wherever the form
/// permits that, and are escaped and cut as in every line.
#[derive(Debug)]
pub struct MosquittoLines<W> {
    to: W,
    stamp: Stamp,
}

/// The time at the beginning of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// There is none.
    None,
    /// Seconds since 1970.
    Seconds,
    /// The date and time in UTC, by the conversions of `strftime`.
    Format(String),
}

/// The conversions that [`Stamp::Format`] knows.
pub const CONVERSIONS: &str = "%Y %m %d %H %M %S %F %T %s %z %Z %%";

impl Stamp {
    /// A format; the conversion that is not known otherwise.
    pub fn of_format(format: &str) -> Result<Self, String> {
        let mut rest = format;
        while let Some((_, after)) = rest.split_once('%') {
            let conversion = after.chars().next().unwrap_or(' ');
            if conversion == ' ' || !CONVERSIONS.contains(&format!("%{conversion}")) {
                return Err(format!("%{conversion}"));
            }
            rest = &after[conversion.len_utf8()..];
        }
        Ok(Self::Format(format.to_owned()))
    }

    /// The text before a line; `timestamp` is in the form of RFC 3339.
    fn text(&self, timestamp: &str) -> String {
        let Some(time) = Time::read(timestamp) else { return String::new() };
        match self {
            Self::None => String::new(),
            Self::Seconds => format!("{}: ", time.seconds()),
            Self::Format(format) => format!("{}: ", time.shown(format)),
        }
    }
}

/// A date and time in UTC.
struct Time {
    date: [i64; 3],
    time: [i64; 3],
}

impl Time {
    /// Reads the beginning of a time in the form of RFC 3339.
    fn read(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('T')?;
        let numbers = |text: &str, separator| {
            let mut parts = text.split(separator).map(|part: &str| part.parse().ok());
            Some([parts.next()??, parts.next()??, parts.next()??])
        };
        Some(Self { date: numbers(date, '-')?, time: numbers(time.get(..8)?, ':')? })
    }

    /// Seconds since 1970, by the days of the Gregorian calendar since March of year 0.
    fn seconds(&self) -> i64 {
        let [year, month, day] = self.date;
        let year = if month <= 2 { year - 1 } else { year };
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let days = 365 * year + year / 4 - year / 100 + year / 400 + of_year - 719_468;
        let [hours, minutes, seconds] = self.time;
        days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    }

    fn shown(&self, format: &str) -> String {
        let [year, month, day] = self.date;
        let [hours, minutes, seconds] = self.time;
        let mut text = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            match (letter, if letter == '%' { letters.next() } else { None }) {
                ('%', Some('Y')) => text += &format!("{year:04}"),
                ('%', Some('m')) => text += &format!("{month:02}"),
                ('%', Some('d')) => text += &format!("{day:02}"),
                ('%', Some('H')) => text += &format!("{hours:02}"),
                ('%', Some('M')) => text += &format!("{minutes:02}"),
                ('%', Some('S')) => text += &format!("{seconds:02}"),
                ('%', Some('F')) => text += &format!("{year:04}-{month:02}-{day:02}"),
                ('%', Some('T')) => text += &format!("{hours:02}:{minutes:02}:{seconds:02}"),
                ('%', Some('s')) => text += &self.seconds().to_string(),
                ('%', Some('z')) => text.push_str("+0000"),
                ('%', Some('Z')) => text.push_str("UTC"),
                ('%', Some(other)) => text.push(other),
                (letter, _) => text.push(letter),
            }
        }
        text
    }
}

impl<W: Write> MosquittoLines<W> {
    /// Writes lines with this time to a writer.
    pub fn new(to: W, stamp: Stamp) -> Self {
        Self { to, stamp }
    }
}

impl<W: Write> Write for MosquittoLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let record = Record::read(line);
        let stamp = self.stamp.text(&record.timestamp);
        let mut text = String::new();
        for line in lines(&record) {
            text += &format!("{stamp}{line}\n");
        }
        self.to.write_all(text.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Passes lines on, and leaves each in Mosquitto's form for clients that are subscribed to the log.
#[derive(Debug)]
pub struct TopicLines<W> {
    to: W,
    stamp: Stamp,
}

impl<W: Write> TopicLines<W> {
    /// Passes lines on to a writer; for clients they have this time.
    pub fn new(to: W, stamp: Stamp) -> Self {
        Self { to, stamp }
    }
}

impl<W: Write> Write for TopicLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let record = Record::read(line);
        if let Some(kind) = kind(&record) {
            let stamp = self.stamp.text(&record.timestamp);
            for line in lines(&record) {
                log_topics::add(LogMessage { kind, text: format!("{stamp}{line}") });
            }
        }
        self.to.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The last level of the topic of a line. Lines for debugging have none: each message would cause further ones.
fn kind(record: &Record) -> Option<char> {
    match record.severity {
        0..=3 => Some('E'),
        4 => Some('W'),
        5..=6 => Some('I'),
        _ => None,
    }
}

/// What Mosquitto writes about an event; other events are written with their fields.
fn lines(record: &Record) -> Vec<String> {
    let field = |name: &str| {
        let found = record.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    let address = field("address").unwrap_or("unknown");
    let client = field("client").unwrap_or("<unknown>");
    match record.message.as_str() {
        "connected" => {
            let port = field("listener").and_then(|of| of.rsplit_once(':')).map_or("0", |of| of.1);
            let version = match field("version") {
                Some("3.1") => 1,
                Some("3.1.1") => 2,
                _ => 5,
            };
            let clean = u8::from(field("clean_start") == Some("true"));
            let keep_alive = field("keep_alive_s").unwrap_or("0");
            let user = field("user").map(|user| format!(", u'{user}'")).unwrap_or_default();
            vec![
                format!("New connection from {address} on port {port}."),
                format!(
                    "New client connected from {address} as {client} (p{version}, c{clean}, k{keep_alive}{user})."
                ),
            ]
        }
        "disconnected" => vec![match field("cause").unwrap_or_default() {
            "client-disconnected" => format!("Client {client} disconnected."),
            "connection-closed" | "cannot-send" => {
                format!("Client {client} closed its connection.")
            }
            "keep-alive-timeout" => {
                format!("Client {client} has exceeded timeout, disconnecting.")
            }
            "taken-over" => format!("Client {client} already connected, closing old connection."),
            "protocol-violation" => format!("Client {client} disconnected due to protocol error."),
            cause => format!("Client {client} disconnected: {cause}."),
        }],
        "refused" if is_not_authorised(field("cause").unwrap_or_default()) => {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            vec![
                format!("Sending CONNACK to {} (0, 5)", host.trim_matches(['[', ']'])),
                format!("Client <unknown> [{address}] disconnected, not authorised."),
            ]
        }
        _ => {
            let kind = match record.severity {
                0..=3 => "Error: ",
                4 => "Warning: ",
                _ => "",
            };
            vec![format!("{kind}{}", record.text())]
        }
    }
}

/// Whether a client was refused because of what it claims to be.
fn is_not_authorised(cause: &str) -> bool {
    matches!(
        cause,
        "wrong-password"
            | "unknown-user"
            | "anonymous-not-allowed"
            | "denied-by-server"
            | "banned"
            | "client-identifier-not-allowed"
            | "session-of-another-user"
            | "will-not-allowed"
    ) || cause.starts_with("token-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &str, stamp: Stamp) -> String {
        let mut to = Vec::new();
        MosquittoLines::new(&mut to, stamp).write_all(line.as_bytes()).expect("written");
        String::from_utf8(to).expect("text")
    }

    #[test]
    fn a_client_that_connects_is_logged_as_fail2ban_rules_for_mosquitto_expect() {
        let line = r#"{"timestamp":"2023-11-14T22:13:20.5Z","level":"INFO","message":"connected",
            "address":"192.0.2.1:4711","listener":"0.0.0.0:1883","version":"3.1.1","keep_alive_s":60,
            "clean_start":true,"session_present":false,"client":"pump","user":"alice"}"#;
        assert_eq!(
            written(line, Stamp::Seconds),
            "1700000000: New connection from 192.0.2.1:4711 on port 1883.\n\
             1700000000: New client connected from 192.0.2.1:4711 as pump (p2, c1, k60, u'alice').\n"
        );
    }

    #[test]
    fn a_refused_client_is_logged_with_its_address_and_without_the_names_it_claims() {
        let line = r#"{"timestamp":"2023-11-14T22:13:20Z","level":"INFO","message":"refused",
            "address":"192.0.2.1:4711","cause":"wrong-password","client":"x [192.0.2.9:1] disconnected"}"#;
        assert_eq!(
            written(line, Stamp::None),
            "Sending CONNACK to 192.0.2.1 (0, 5)\nClient <unknown> [192.0.2.1:4711] disconnected, not authorised.\n"
        );
    }

    #[test]
    fn other_lines_have_their_fields_and_warnings_their_word() {
        let line = |level: &str| {
            format!(
                r#"{{"timestamp":"1999-12-31T23:59:59Z","level":"{level}","message":"m","a":"b c"}}"#
            )
        };
        assert_eq!(written(&line("WARN"), Stamp::Seconds), "946684799: Warning: m a=\"b c\"\n");
        assert_eq!(written(&line("ERROR"), Stamp::None), "Error: m a=\"b c\"\n");
        let format = Stamp::of_format("%Y-%m-%dT%H:%M:%S%%").expect("known");
        assert_eq!(written(&line("INFO"), format), "1999-12-31T23:59:59%: m a=\"b c\"\n");
        assert_eq!(Stamp::of_format("%Y %q"), Err("%q".to_owned()));
        assert_eq!(written("panicked\n", Stamp::Seconds), "Error: panicked\n");
    }

    #[test]
    fn lines_for_clients_have_a_kind_unless_they_are_for_debugging() {
        let of = |level: &str| {
            let line = format!(r#"{{"level":"{level}","message":"m"}}"#);
            kind(&Record::read(line.as_bytes()))
        };
        assert_eq!(
            [of("ERROR"), of("WARN"), of("INFO"), of("DEBUG"), of("TRACE")],
            [Some('E'), Some('W'), Some('I'), None, None]
        );
        assert_eq!(kind(&Record::read(b"panicked\n")), Some('E'));
    }

    #[test]
    fn each_way_to_leave_has_the_words_of_mosquitto() {
        let line = |cause: &str| {
            let line = format!(r#"{{"message":"disconnected","cause":"{cause}","client":"c"}}"#);
            written(&line, Stamp::None)
        };
        assert_eq!(line("client-disconnected"), "Client c disconnected.\n");
        assert_eq!(line("connection-closed"), "Client c closed its connection.\n");
        assert_eq!(line("keep-alive-timeout"), "Client c has exceeded timeout, disconnecting.\n");
        assert_eq!(line("taken-over"), "Client c already connected, closing old connection.\n");
        assert_eq!(line("queue-full"), "Client c disconnected: queue-full.\n");
    }
}
