//! The journal of systemd by its native protocol: a datagram of fields for each line.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::record::Record;

/// The socket of the journal.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Sends each line to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    to: PathBuf,
}

impl Journal {
    /// Sends to the journal of this machine. A journal that does not run loses lines until it does.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, to: SOCKET.into() })
    }
}

impl Write for Journal {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.socket.send_to(&fields(&Record::read(line)), &self.to)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The fields of a line: the text as `MESSAGE`, and each field of the event by its name.
fn fields(record: &Record) -> Vec<u8> {
    let mut datagram = Vec::new();
    push(&mut datagram, "MESSAGE", &record.text());
    push(&mut datagram, "PRIORITY", &record.severity.to_string());
    push(&mut datagram, "SYSLOG_IDENTIFIER", "ringmq");
    for (name, value) in &record.fields {
        let letter = |character: char| match character.is_ascii_alphanumeric() {
            true => character.to_ascii_uppercase(),
            false => '_',
        };
        let name: String = "RINGMQ_".chars().chain(name.chars().map(letter)).collect();
        push(&mut datagram, &name, value);
    }
    datagram
}

/// Appends a field. A value of several lines is preceded by its length.
fn push(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_fields_and_a_value_cannot_become_another_field() {
        let line = br#"{"level":"INFO","message":"refused","cause":"wrong-password","client":"a\nPRIORITY=0"}"#;
        let mut expected = b"MESSAGE\n".to_vec();
        let text = "refused cause=wrong-password client=\"a\nPRIORITY=0\"";
        expected.extend_from_slice(&(text.len() as u64).to_le_bytes());
        expected.extend_from_slice(text.as_bytes());
        expected.extend_from_slice(b"\nPRIORITY=6\nSYSLOG_IDENTIFIER=ringmq\n");
        expected
            .extend_from_slice(b"RINGMQ_CAUSE=wrong-password\nRINGMQ_CLIENT\n\x0c\0\0\0\0\0\0\0");
        expected.extend_from_slice(b"a\nPRIORITY=0\n");
        assert_eq!(fields(&Record::read(line)), expected);
    }

    #[test]
    fn lines_reach_a_journal_that_comes_back_and_fail_while_it_is_away() {
        let folder = std::env::temp_dir().join(format!("ringmq-journal-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let to = folder.join("socket");
        let _ = std::fs::remove_file(&to);
        let mut journal =
            Journal { socket: UnixDatagram::unbound().expect("a socket"), to: to.clone() };
        assert!(journal.write(br#"{"message":"one"}"#).is_err());
        for round in 0..2 {
            let daemon = UnixDatagram::bind(&to).expect("bound");
            journal.write_all(br#"{"message":"two"}"#).expect("sent");
            let mut bytes = [0; 100];
            let count = daemon.recv(&mut bytes).expect("received");
            assert!(bytes[..count].starts_with(b"MESSAGE=two\n"), "round {round}");
            std::fs::remove_file(&to).expect("removed");
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
