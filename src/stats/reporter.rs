//! The thread that asks the cores and prints what they say: at intervals, when somebody asks, and
//! at the end.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;

use crate::base::metrics::Metrics;
use crate::base::output::Output;
use crate::config::{Stats, StatsFormat};
use crate::stats::histogram_log::{Entries, write_percentiles};
use crate::stats::report::Part;
use crate::stats::{Desk, HistogramLog, Report, Why, json, table};

/// Asks a reporter for a report of all since the start.
#[derive(Clone, Debug)]
pub struct Prompt(mpsc::Sender<Told>);

/// What the reporter's thread is told.
#[derive(Debug)]
enum Told {
    Report,
    End,
}

impl Prompt {
    /// Asks; the report is printed soon after.
    pub fn ask(&self) {
        // A reporter that is gone has printed its last.
        let _ = self.0.send(Told::Report);
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
    told: mpsc::Receiver<Told>,
}

impl Reporter {
    /// Creates the files it will write to. The error is about the log's.
    pub fn prepare(settings: &Stats) -> io::Result<Prepared> {
        let log = match settings.log.as_os_str().is_empty() {
            true => None,
            false => Some(HistogramLog::create(&settings.log)?),
        };
        let (prompt, told) = mpsc::channel();
        Ok(Prepared { settings: settings.clone(), log, prompt: Prompt(prompt), told })
    }

    /// The cores have stopped: prints the last report.
    pub fn end(self) {
        let _ = self.prompt.0.send(Told::End);
        if self.thread.join().is_err() {
            tracing::warn!("the thread that prints statistics failed");
        }
    }
}

impl Prepared {
    /// To ask it by, once it runs.
    pub fn prompt(&self) -> Prompt {
        self.prompt.clone()
    }

    /// Lets it run, and ask the cores at this desk.
    pub fn start(self, desk: Desk) -> io::Result<Reporter> {
        let prompt = self.prompt();
        let to = Output::start_for("stats output", io::stdout())?;
        let run = move || self.run(desk, &to);
        let thread = std::thread::Builder::new().name("statistics".to_owned()).spawn(run)?;
        Ok(Reporter { prompt, thread })
    }

    fn run(self, desk: Desk, to: &Output) {
        let Self { settings, mut log, told, .. } = self;
        let path = settings.log.clone();
        let mut serializer = V2DeflateSerializer::new();
        let started = SystemTime::now();
        let entries = log.as_mut().map(|log| log.begin(&mut serializer, started));
        let mut journal = Journal::new(desk, entries.transpose().unwrap_or_else(given_up));
        let interval = Duration::from_secs(u64::from(settings.interval_s));
        let mut next = Instant::now() + interval;
        let mut unprinted = 0;
        loop {
            let told = match settings.interval_s {
                0 => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
                _ => told.recv_timeout(next.saturating_duration_since(Instant::now())),
            };
            let why = match told {
                Ok(Told::Report) => Why::Asked,
                Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => Why::Exit,
                Err(RecvTimeoutError::Timeout) => Why::Interval,
            };
            let report = journal.report(why);
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

/// The next time that lies ahead: a machine that slept is not given what it missed.
fn later(mut next: Instant, interval: Duration) -> Instant {
    next += interval;
    let now = Instant::now();
    if next < now { now + interval } else { next }
}

/// The log could not be written: the broker serves on without it.
fn given_up<T>(error: io::Error) -> Option<T> {
    tracing::warn!(%error, "cannot write the histogram log; going on without");
    None
}

/// All that is remembered between reports.
struct Journal<'a> {
    desk: Desk,
    log: Option<Entries<'a>>,
    started: Instant,
    /// The beginning of this interval, and what the counters stood at then.
    interval_began: Instant,
    counted_before: Vec<Metrics>,
    /// By core, since the start.
    total: Vec<Part>,
    /// By core, in this interval.
    interval: Vec<Part>,
    /// When the cores were asked last.
    collected: Instant,
}

impl<'a> Journal<'a> {
    fn new(desk: Desk, log: Option<Entries<'a>>) -> Self {
        let (now, cores) = (Instant::now(), desk.cores());
        Self {
            desk,
            log,
            started: now,
            interval_began: now,
            counted_before: vec![Metrics::default(); cores],
            total: vec![Part::default(); cores],
            interval: vec![Part::default(); cores],
            collected: now,
        }
    }

    /// Asks the cores, and says what there is to say.
    fn report(&mut self, why: Why) -> Report {
        self.collect(why == Why::Exit);
        let now = Instant::now();
        let uptime = now - self.started;
        let (span, cores) = match why {
            Why::Interval => (now - self.interval_began, self.end_interval(now)),
            Why::Asked | Why::Exit => (uptime, self.counted_since_start()),
        };
        Report::new(why, SystemTime::now(), (uptime, span), cores)
    }

    fn collect(&mut self, is_last: bool) {
        let cores = self.desk.cores();
        let mut new = vec![Part::default(); cores];
        let take = |core: usize, recording: &super::Recording| new[core].recording.add(recording);
        match is_last {
            true => self.desk.collect_last(take),
            false => self.desk.collect(take),
        }
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
                self.log = given_up(error);
            }
        }
    }

    /// What happened in the interval that ends, and begins the next.
    fn end_interval(&mut self, now: Instant) -> Vec<Part> {
        self.interval_began = now;
        let mut cores = std::mem::take(&mut self.interval);
        self.interval = vec![Part::default(); cores.len()];
        for (core, part) in cores.iter_mut().enumerate() {
            let counted = self.desk.metrics(core).clone();
            let before = std::mem::replace(&mut self.counted_before[core], counted);
            part.metrics = self.counted_before[core].since(&before);
        }
        cores
    }

    fn counted_since_start(&mut self) -> Vec<Part> {
        for (core, part) in self.total.iter_mut().enumerate() {
            part.metrics = self.desk.metrics(core).clone();
        }
        self.total.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_follow_each_other_and_one_that_was_slept_through_is_not_made_up_for() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(later(now, second), now + second);
        let long_ago = now.checked_sub(Duration::from_secs(3)).expect("the machine is up longer");
        assert!(later(long_ago, second) > now);
    }
}
