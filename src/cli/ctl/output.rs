//! Standard output of `broker ctl`: a terminal gets no character that controls it, programs get answers as they are.

use std::io::{IsTerminal, Write};

use super::{Error, table};

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Whether answers are printed as JSON.
    pub is_json: bool,
    is_terminal: bool,
}

impl Output {
    /// Standard output, with answers as JSON or for people.
    pub fn new(is_json: bool) -> Self {
        Self { is_json, is_terminal: std::io::stdout().is_terminal() }
    }

    /// Whether somebody looks at a terminal.
    pub fn is_terminal(self) -> bool {
        self.is_terminal
    }

    /// Columns of the terminal, if there is one.
    pub fn width(self) -> Option<usize> {
        let size = terminal_size::terminal_size().filter(|_| self.is_terminal);
        size.map(|(width, _)| usize::from(width.0))
    }

    /// Prints a text of this program.
    pub fn print(self, text: &str) -> Result<(), Error> {
        let mut stdout = std::io::stdout().lock();
        let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        printed.map_err(|error| Error::Failed(format!("cannot write to standard output: {error}")))
    }

    /// Prints what comes from the broker.
    pub fn print_foreign(self, content: &[u8]) -> Result<(), Error> {
        if self.is_terminal {
            let text = String::from_utf8_lossy(content);
            let lines = text.lines().map(|line| table::printable(line) + "\n");
            return self.print(&lines.collect::<String>());
        }
        let mut stdout = std::io::stdout().lock();
        let printed = stdout.write_all(content).and_then(|()| stdout.flush());
        printed.map_err(|error| Error::Failed(format!("cannot write to standard output: {error}")))
    }
}
