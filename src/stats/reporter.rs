//! The thread that collects the cores' statistics and prints them: at intervals, on SIGUSR1, and at exit.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use flume::RecvTimeoutError;
use hdrhistogram::serialization::V2DeflateSerializer;

use crate::base::metrics::Metrics;
use crate::base::output::Output;
use crate::config::{Stats, StatsFormat};
use crate::stats::histogram_log::{Entries, write_percentiles};
use crate::stats::report::Part;
use crate::stats::{HistogramLog, Report, SharedStatistics, Why, json, table};

/// Asks the reporter, if there is one, for a report since the start. Clones ask the same one.
#[derive(Clone, Debug, Default)]
pub struct Prompt(Arc<Mutex<Option<flume::Sender<Request>>>>);

/// A request to the reporter's thread.
#[derive(Debug)]
enum Request {
    Report,
    Change {
        interval_s: u32,
        format: StatsFormat,
    },
    /// Print the last report; whether the cores have stopped.
    End {
        has_stopped: bool,
    },
}

impl Prompt {
    /// Asks; the report is printed soon after.
    pub fn ask(&self) {
        self.send(Request::Report);
    }

    fn send(&self, request: Request) {
        // A reporter that is gone has printed its last.
        let _ = self.sender().as_ref().map(|to| to.send(request));
    }

    fn sender(&self) -> MutexGuard<'_, Option<flume::Sender<Request>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reporter, from its start on.
#[derive(Debug)]
pub struct Reporter {
    prompt: Prompt,
    thread: JoinHandle<()>,
}

/// A reporter whose thread does not run yet.
#[derive(Debug)]
pub struct Prepared {
    settings: Stats,
    log: Option<HistogramLog>,
    prompt: Prompt,
    requests: flume::Receiver<Request>,
}

impl Reporter {
    /// Creates the files to write to. From then on `prompt` asks this reporter. The error is about the histogram log.
    pub fn prepare(settings: &Stats, prompt: &Prompt) -> io::Result<Prepared> {
        let log = match settings.log.as_os_str().is_empty() {
            true => None,
            false => Some(HistogramLog::create(&settings.log)?),
        };
        let (to, requests) = flume::unbounded();
        *prompt.sender() = Some(to);
        Ok(Prepared { settings: settings.clone(), log, prompt: prompt.clone(), requests })
    }

    /// Prints at other intervals, or in another format, from now on.
    pub fn change(&self, settings: &Stats) {
        let Stats { interval_s, format, .. } = *settings;
        self.prompt.send(Request::Change { interval_s, format });
    }

    /// Prints the last report; `has_stopped`: the cores have stopped.
    pub fn end(self, has_stopped: bool) {
        self.prompt.send(Request::End { has_stopped });
        *self.prompt.sender() = None;
        if self.thread.join().is_err() {
            tracing::warn!("the thread that prints statistics failed");
        }
    }
}

impl Prepared {
    /// Starts the thread, which prints what is collected here.
    pub fn start(self, shared: SharedStatistics) -> io::Result<Reporter> {
        let prompt = self.prompt.clone();
        let to = Output::start_for("stats output", io::stdout())?;
        let run = move || self.run(shared, &to);
        let thread = std::thread::Builder::new().name("statistics".to_owned()).spawn(run)?;
        Ok(Reporter { prompt, thread })
    }

    fn run(self, shared: SharedStatistics, to: &Output) {
        let Self { mut settings, mut log, requests, .. } = self;
        let path = settings.log.clone();
        let mut serializer = V2DeflateSerializer::new();
        let started = SystemTime::now();
        let entries = log.as_mut().map(|log| log.begin(&mut serializer, started));
        let entries = entries.transpose().unwrap_or_else(without_log);
        let mut totals = Totals::new(shared, entries);
        let mut interval = Duration::from_secs(u64::from(settings.interval_s));
        let mut next = Instant::now() + interval;
        let mut unprinted = 0;
        loop {
            let request = match settings.interval_s {
                0 => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                _ => requests.recv_timeout(next.saturating_duration_since(Instant::now())),
            };
            let (why, is_last) = match request {
                Ok(Request::Change { interval_s, format }) => {
                    (settings.interval_s, settings.format) = (interval_s, format);
                    interval = Duration::from_secs(u64::from(interval_s));
                    next = Instant::now() + interval;
                    continue;
                }
                Ok(Request::Report) => (Why::Asked, false),
                Ok(Request::End { has_stopped }) => (Why::Exit, has_stopped),
                Err(RecvTimeoutError::Disconnected) => (Why::Exit, true),
                Err(RecvTimeoutError::Timeout) => (Why::Interval, false),
            };
            let report = totals.report(why, is_last);
            let text = match settings.format {
                StatsFormat::Table => table::text(&report),
                StatsFormat::Json => json::line(&report),
            };
            to.say(text.as_bytes());
            if why == Why::Exit {
                to.finish();
            }
            let lost = std::mem::replace(&mut unprinted, to.lost());
            if unprinted > lost {
                tracing::warn!(reports = unprinted - lost, "cannot print statistics");
            }
            if why != Why::Interval
                && !path.as_os_str().is_empty()
                && let Err(error) = write_percentiles(&path, &report.all)
            {
                tracing::warn!(%error, path = %path.display(), "cannot write .hgrm files");
            }
            match why {
                Why::Exit => return,
                Why::Interval => next = later(next, interval),
                Why::Asked => {}
            }
        }
    }
}

/// The next time that lies ahead: intervals that passed while the machine was suspended are skipped.
fn later(mut next: Instant, interval: Duration) -> Instant {
    next += interval;
    let now = Instant::now();
    if next < now { now + interval } else { next }
}

/// The log cannot be written: the broker continues without it.
fn without_log<T>(error: io::Error) -> Option<T> {
    tracing::warn!(%error, "cannot write the histogram log; continuing without");
    None
}

/// What is kept between reports.
struct Totals<'a> {
    shared: SharedStatistics,
    /// By core, the counters of the last collection.
    counted: Vec<Metrics>,
    log: Option<Entries<'a>>,
    started: Instant,
    /// The beginning of this interval, and the counters at that time.
    interval_began: Instant,
    counted_before: Vec<Metrics>,
    /// By core, since the start.
    total: Vec<Part>,
    /// By core, in this interval.
    interval: Vec<Part>,
    /// When the cores were last asked.
    collected: Instant,
}

impl<'a> Totals<'a> {
    fn new(shared: SharedStatistics, log: Option<Entries<'a>>) -> Self {
        let (now, count) = (Instant::now(), shared.cores());
        Self {
            shared,
            counted: vec![Metrics::default(); count],
            log,
            started: now,
            interval_began: now,
            counted_before: vec![Metrics::default(); count],
            total: vec![Part::default(); count],
            interval: vec![Part::default(); count],
            collected: now,
        }
    }

    /// Asks the cores, unless they have stopped, and adds up what they reply.
    fn report(&mut self, why: Why, has_stopped: bool) -> Report {
        self.collect(has_stopped);
        let now = Instant::now();
        let uptime = now - self.started;
        let (span, cores) = match why {
            Why::Interval => (now - self.interval_began, self.end_interval(now)),
            Why::Asked | Why::Exit => (uptime, self.counted_since_start()),
        };
        Report::new(why, SystemTime::now(), (uptime, span), cores)
    }

    fn collect(&mut self, is_last: bool) {
        let (recordings, counted) = self.shared.take_for_reporter(is_last);
        self.counted = counted;
        let part = |recording| Part { recording, metrics: Metrics::default() };
        let new: Vec<Part> = recordings.into_iter().map(part).collect();
        for (core, new) in new.iter().enumerate() {
            self.total[core].recording.add(&new.recording);
            self.interval[core].recording.add(&new.recording);
        }
        let now = Instant::now();
        let span = (self.collected - self.started, now - self.collected);
        self.collected = now;
        if let Some(log) = &mut self.log {
            let all = Report::new(Why::Interval, SystemTime::now(), span, new);
            if let Err(error) = log.add(span, &all.cores, &all.all) {
                self.log = without_log(error);
            }
        }
    }

    /// What happened in the interval that ends, and begins the next.
    fn end_interval(&mut self, now: Instant) -> Vec<Part> {
        self.interval_began = now;
        let mut cores = std::mem::take(&mut self.interval);
        self.interval = vec![Part::default(); cores.len()];
        for (core, part) in cores.iter_mut().enumerate() {
            let counted = self.counted[core].clone();
            let before = std::mem::replace(&mut self.counted_before[core], counted);
            part.metrics = self.counted_before[core].since(&before);
        }
        cores
    }

    fn counted_since_start(&mut self) -> Vec<Part> {
        for (core, part) in self.total.iter_mut().enumerate() {
            part.metrics = self.counted[core].clone();
        }
        self.total.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_follow_each_other_and_those_of_a_suspended_machine_are_skipped() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(later(now, second), now + second);
        let long_ago = now.checked_sub(Duration::from_secs(3)).expect("the machine is up longer");
        assert!(later(long_ago, second) > now);
    }
}
