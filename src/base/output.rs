//! Lines for standard error and standard output, written by a thread of their own. A full disk, or
//! a reader that is gone or stalled, loses lines, which are counted, but never blocks or fails the
//! caller. Does not interpret the lines.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError, Sender};
use tracing_subscriber::fmt::MakeWriter;

use crate::base::atomic::AtomicU64;

/// Maximum number of queued bytes; a line that does not fit is lost.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// How long the end of the process waits for a stalled reader.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Interval between attempts to write to a full non-blocking descriptor.
const RETRY: Duration = Duration::from_millis(10);

/// Minimum interval between warnings about lost lines.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// Lost lines of the log.
static LOG_LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// Number of log lines lost since the start.
pub fn log_lines_lost() -> u64 {
    LOG_LINES_LOST.load(Relaxed)
}

/// Counts a line of the log that is lost elsewhere.
pub(super) fn note_lost_line() {
    LOG_LINES_LOST.fetch_add(1, Relaxed);
}

/// A queue of lines; clones share it. The lines of one `write` are written completely or lost, and
/// the call never fails.
#[derive(Clone, Debug)]
pub struct Output {
    lines: Sender<Task>,
    state: Arc<State>,
}

#[derive(Debug)]
enum Task {
    Write(Box<[u8]>),
    /// Everything queued before has been written or lost.
    Arrived(Sender<()>),
}

#[derive(Debug)]
struct State {
    queued_bytes: AtomicUsize,
    /// Completed tasks; changes while the reader accepts data.
    done: AtomicUsize,
    lost: AtomicU64,
    /// Lost lines are counted as lines of the log.
    is_log: bool,
    /// The end of the process has timed out once and does not wait again.
    is_given_up: AtomicBool,
}

impl State {
    fn lose(&self) {
        self.lost.fetch_add(1, Relaxed);
        if self.is_log {
            note_lost_line();
        }
    }
}

impl Output {
    /// Starts the writer of the log. Lost lines are counted, and reported in the log as soon as it
    /// can be written again.
    pub fn for_log(to: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start("log", Box::new(to), true)
    }

    /// Starts a writer for other lines than the log's.
    pub fn start_for(name: &str, to: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start(name, Box::new(to), false)
    }

    fn start(name: &str, to: Box<dyn Write + Send>, is_log: bool) -> io::Result<Self> {
        let (lines, tasks) = flume::unbounded();
        let state = Arc::new(State {
            queued_bytes: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            is_log,
            is_given_up: AtomicBool::new(false),
        });
        let writer = LineWriter { to, state: Arc::clone(&state), is_cut: false };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || writer.run(&tasks))?;
        Ok(Self { lines, state })
    }

    /// Queues lines.
    pub fn say(&self, lines: &[u8]) {
        // Relaxed: the sum bounds memory and orders nothing.
        let fits = |queued: usize| {
            let sum = queued.saturating_add(lines.len());
            (sum <= QUEUE_BYTES_MAX).then_some(sum)
        };
        if self.state.queued_bytes.fetch_update(Relaxed, Relaxed, fits).is_err()
            || self.lines.send(Task::Write(lines.into())).is_err()
        {
            self.state.lose();
        }
    }

    /// Number of lines lost.
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Relaxed)
    }

    /// Waits until everything is written, as long as the reader makes progress.
    pub fn finish(&self) {
        if self.state.is_given_up.load(Relaxed) {
            return;
        }
        let (arrived, has_arrived) = flume::bounded(1);
        if self.lines.send(Task::Arrived(arrived)).is_err() {
            return;
        }
        loop {
            let before = self.state.done.load(Relaxed);
            match has_arrived.recv_timeout(END_PATIENCE) {
                Err(RecvTimeoutError::Timeout) if self.state.done.load(Relaxed) != before => {}
                Err(RecvTimeoutError::Timeout) => {
                    return self.state.is_given_up.store(true, Relaxed);
                }
                _ => return,
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.say(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The writer thread.
struct LineWriter {
    to: Box<dyn Write + Send>,
    state: Arc<State>,
    /// The last line was written only in part.
    is_cut: bool,
}

impl LineWriter {
    fn run(mut self, tasks: &Receiver<Task>) {
        let (mut lost, mut said) = (0, None::<Instant>);
        for task in tasks {
            match task {
                Task::Write(lines) => {
                    let outcome = self.write(&lines);
                    self.state.queued_bytes.fetch_sub(lines.len(), Relaxed);
                    match outcome {
                        Err(_) => self.state.lose(),
                        Ok(()) if !self.state.is_log => {}
                        Ok(()) => {
                            let now_lost = self.state.lost.load(Relaxed);
                            if now_lost > lost && said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
                                tracing::warn!(lost = now_lost - lost, "log lines lost");
                                (lost, said) = (now_lost, Some(Instant::now()));
                            }
                        }
                    }
                }
                // The receiver may have given up waiting; the process ends anyway.
                Task::Arrived(arrived) => drop(arrived.try_send(())),
            }
            self.state.done.fetch_add(1, Relaxed);
        }
    }

    /// Writes all lines, on a new line if the previous one is incomplete.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_cut {
            self.write_all(b"\n").map_err(|(error, _)| error)?;
            self.is_cut = false;
        }
        self.write_all(lines).map_err(|(error, written)| {
            self.is_cut = written > 0;
            error
        })?;
        self.to.flush()
    }

    /// Returns an error together with the number of bytes written before it.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), (io::Error, usize)> {
        let all = bytes.len();
        while !bytes.is_empty() {
            match self.to.write(bytes) {
                Ok(0) => return Err((io::ErrorKind::WriteZero.into(), all - bytes.len())),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process that shares the descriptor made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(RETRY);
                }
                Err(error) => return Err((error, all - bytes.len())),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Accepts as many bytes as the test allows, and records them.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn room(&self, bytes: usize) {
            self.0.lock().expect("whole").0 = bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("whole").1.clone()).expect("text")
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, text) = &mut *self.0.lock().expect("whole");
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= count;
            text.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_does_not_fit_on_disk_is_counted_and_the_next_one_starts_a_new_line() {
        let disk = Disk::default();
        let output = Output::start_for("test", disk.clone()).expect("a thread");
        output.say(b"one\n");
        output.finish();
        assert_eq!(output.lost(), 1);
        disk.room(6);
        output.say(b"two\n");
        output.say(b"three\n");
        output.finish();
        disk.room(100);
        output.say(b"four\n");
        output.finish();
        assert_eq!((output.lost(), disk.text()), (2, "two\nth\nfour\n".to_owned()));
    }

    /// Never accepts anything.
    struct Stalled;

    impl Write for Stalled {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            loop {
                std::thread::park();
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_loses_lines_beyond_the_bound_and_delays_the_end_by_a_second() {
        let output = Output::start_for("test", Stalled).expect("a thread");
        let line = [b'x'; 1024];
        (0..1_100).for_each(|_| output.say(&line));
        assert_eq!(output.lost(), 1_100 - 1_024);
        let begin = Instant::now();
        output.finish();
        output.finish();
        assert!(begin.elapsed() < END_PATIENCE * 2);
    }
}
