//! A syslog daemon on this machine: a datagram in the form of RFC 5424 for each line.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::record::Record;

/// The structured data's name. 32473 is the number that RFC 5612 reserves for examples, as the project has none.
const DATA_ID: &str = "ringmq@32473";

/// Sends each line to a syslog daemon.
#[derive(Debug)]
pub struct Syslog {
    socket: UnixDatagram,
    to: PathBuf,
    /// The numerical code of the facility: RFC 5424, 6.2.1.
    facility: u8,
}

impl Syslog {
    /// The socket on which daemons usually listen.
    pub const SOCKET: &str = "/dev/log";

    /// Sends to the daemon behind this socket, as the facility with this code. A daemon that does not run loses lines
    /// until it does.
    pub fn open(to: &Path, facility: u8) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, to: to.to_owned(), facility })
    }
}

impl Write for Syslog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.socket.send_to(message(self.facility, &Record::read(line)).as_bytes(), &self.to)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message of RFC 5424. The daemon fills in the host.
fn message(facility: u8, record: &Record) -> String {
    let priority = facility * 8 + record.severity;
    let timestamp = Some(record.timestamp.as_str()).filter(|text| !text.is_empty());
    let timestamp = timestamp.unwrap_or("-");
    let mut message = format!("<{priority}>1 {timestamp} - ringmq {} - ", std::process::id());
    if record.fields.is_empty() {
        message.push('-');
    } else {
        message.push('[');
        message.push_str(DATA_ID);
        for (name, value) in &record.fields {
            let _ = write!(message, " {name}=\"");
            for character in value.chars() {
                if ['"', '\\', ']'].contains(&character) {
                    message.push('\\');
                }
                message.push(character);
            }
            message.push('"');
        }
        message.push(']');
    }
    let _ = write!(message, " {}", record.text());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_message_with_structured_data_that_a_value_cannot_end() {
        let line = br#"{"timestamp":"2026-01-02T03:04:05.678901Z","level":"INFO","message":"refused","client":"a] \"b\\"}"#;
        let pid = std::process::id();
        assert_eq!(
            message(3, &Record::read(line)),
            format!(
                r#"<30>1 2026-01-02T03:04:05.678901Z - ringmq {pid} - [ringmq@32473 client="a\] \"b\\"] refused client="a] \"b\\""#
            )
        );
        let bare = br#"{"timestamp":"2026-01-02T03:04:05Z","level":"ERROR","message":"stopped"}"#;
        let expected = format!("<27>1 2026-01-02T03:04:05Z - ringmq {pid} - - stopped");
        assert_eq!(message(3, &Record::read(bare)), expected);
        let of_local7 = format!("<187>1 2026-01-02T03:04:05Z - ringmq {pid} - - stopped");
        assert_eq!(message(23, &Record::read(bare)), of_local7);
    }
}
