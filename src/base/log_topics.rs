//! Lines of the log on their way to clients that are subscribed to them: the thread of the log leaves them here, and the
//! first core takes them. Lines beyond the room are lost and counted, so that neither waits for the other.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::output::note_lost_line;

/// Bytes of lines that wait.
const BYTES_MAX: usize = 256 * 1024;

/// A line with its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMessage {
    /// The last level of its topic: `E` for errors, `W` for warnings, `I` for information.
    pub kind: char,
    /// The line.
    pub text: String,
}

/// Lines that wait, with their bytes.
#[derive(Debug, Default)]
pub struct Waiting {
    messages: VecDeque<LogMessage>,
    bytes: usize,
}

impl Waiting {
    const EMPTY: Self = Self { messages: VecDeque::new(), bytes: 0 };

    /// Adds a line; false if there is no room for it.
    fn add(&mut self, message: LogMessage) -> bool {
        let has_room = self.bytes + message.text.len() <= BYTES_MAX;
        if has_room {
            self.bytes += message.text.len();
            self.messages.push_back(message);
        }
        has_room
    }

    /// Takes the oldest lines out, at most so many.
    fn take(&mut self, lines_max: usize) -> Vec<LogMessage> {
        let taken: Vec<LogMessage> =
            self.messages.drain(..self.messages.len().min(lines_max)).collect();
        self.bytes -= taken.iter().map(|message| message.text.len()).sum::<usize>();
        taken
    }
}

/// The lines of this process.
static WAITING: Mutex<Waiting> = Mutex::new(Waiting::EMPTY);

fn waiting() -> MutexGuard<'static, Waiting> {
    // Lines are whole after a panic, too.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves a line for the clients. A line without room is lost.
pub fn add(message: LogMessage) {
    if !waiting().add(message) {
        note_lost_line();
    }
}

/// Takes the oldest lines, at most so many.
pub fn take(lines_max: usize) -> Vec<LogMessage> {
    waiting().take(lines_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogMessage {
        LogMessage { kind: 'I', text: text.to_owned() }
    }

    #[test]
    fn lines_are_taken_in_their_order_and_make_room() {
        let mut waiting = Waiting::default();
        let half = "x".repeat(BYTES_MAX / 2);
        assert!(waiting.add(line(&half)) && waiting.add(line(&half)));
        assert!(!waiting.add(line("y")), "there is no room");
        assert_eq!(waiting.take(1), [line(&half)]);
        assert!(waiting.add(line("y")));
        assert_eq!(waiting.take(9), [line(&half), line("y")]);
        assert_eq!((waiting.bytes, waiting.take(9)), (0, vec![]));
    }
}
