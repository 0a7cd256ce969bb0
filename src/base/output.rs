//! Lines for standard error and standard output, written by a thread of their own: a disk that is full, a
//! reader that is gone or one that stands still costs lines, which are counted, and never makes whoever
//! wrote them wait or fail. Knows nothing of what the lines say.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::base::atomic::AtomicU64;

/// Bytes that wait to be written at most; a line that finds no room is lost.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// How long the end of the process waits for a reader that takes nothing.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// How often a descriptor that does not block is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// How often it is said that lines were lost.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// Lines of the log that were lost.
static LOG_LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// Lines of the log that could not be written since the start.
pub fn log_lines_lost() -> u64 {
    LOG_LINES_LOST.load(Relaxed)
}

/// Where lines go; clones are the same. Each `write` is a line, or several, that is written whole or not
/// at all, and never fails.
#[derive(Clone, Debug)]
pub struct Output {
    lines: Sender<Task>,
    state: Arc<State>,
}

#[derive(Debug)]
enum Task {
    Write(Box<[u8]>),
    /// Everything before it has been written or is lost.
    Arrived(SyncSender<()>),
}

#[derive(Debug)]
struct State {
    queued_bytes: AtomicUsize,
    /// Tasks done; changes while the reader takes anything.
    done: AtomicUsize,
    lost: AtomicU64,
    /// Lost lines count as the log's.
    is_log: bool,
    /// It has said that the end of the process shall not wait again.
    is_given_up: AtomicBool,
}

impl State {
    fn lose(&self) {
        self.lost.fetch_add(1, Relaxed);
        if self.is_log {
            LOG_LINES_LOST.fetch_add(1, Relaxed);
        }
    }
}

impl Output {
    /// Begins to write lines of the log. Lines that were lost are counted, and said in the log once it can
    /// be written again.
    pub fn for_log(to: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start("log", to, true)
    }

    /// Begins to write lines that are not the log's.
    pub fn start_for(name: &str, to: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start(name, to, false)
    }

    fn start(name: &str, to: impl Write + Send + 'static, is_log: bool) -> io::Result<Self> {
        let (lines, tasks) = channel();
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
        // Relaxed: it is a sum that bounds memory, and orders nothing.
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

    /// How many lines could not be written.
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Relaxed)
    }

    /// Waits until everything is written, as long as the reader takes any of it.
    pub fn finish(&self) {
        if self.state.is_given_up.load(Relaxed) {
            return;
        }
        let (arrived, has_arrived) = sync_channel(1);
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

/// The thread's part.
struct LineWriter<W> {
    to: W,
    state: Arc<State>,
    /// The last line was written in part: its end is missing.
    is_cut: bool,
}

impl<W: Write> LineWriter<W> {
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
                                tracing::warn!(
                                    lost = now_lost - lost,
                                    "log lines could not be written"
                                );
                                (lost, said) = (now_lost, Some(Instant::now()));
                            }
                        }
                    }
                }
                // Nobody waits any more: the process is ending all the same.
                Task::Arrived(arrived) => drop(arrived.try_send(())),
            }
            self.state.done.fetch_add(1, Relaxed);
        }
    }

    /// Writes all, and begins a line of its own after one that was cut.
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

    /// The error comes with how many bytes were written before it.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), (io::Error, usize)> {
        let all = bytes.len();
        while !bytes.is_empty() {
            match self.to.write(bytes) {
                Ok(0) => return Err((io::ErrorKind::WriteZero.into(), all - bytes.len())),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another program that has the same descriptor made it so.
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

    /// Takes what the test lets it, and remembers it.
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
    fn a_line_that_finds_no_room_on_disk_is_counted_and_the_next_one_begins_a_line() {
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

    /// Never takes anything.
    struct StandsStill;

    impl Write for StandsStill {
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
    fn a_reader_that_stands_still_costs_lines_beyond_the_bound_and_a_second_at_the_end() {
        let output = Output::start_for("test", StandsStill).expect("a thread");
        let line = [b'x'; 1024];
        (0..1_100).for_each(|_| output.say(&line));
        assert_eq!(output.lost(), 1_100 - 1_024);
        let begin = Instant::now();
        output.finish();
        output.finish();
        assert!(begin.elapsed() < END_PATIENCE * 2);
    }
}
