//! The thread that collects the cores' statistics and prints them: at intervals, on SIGUSR1, and at exit.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;

use crate::base::latencies::Recording;
use crate::base::metrics::Metrics;
use crate::base::output::Output;
use crate::config::{Stats, StatsFormat};
use crate::control::Cores;
use crate::stats::histogram_log::{Entries, write_percentiles};
use crate::stats::report::Part;
use crate::stats::{Collector, HistogramLog, Report, Why, json, table};

/// Asks a reporter for a report since the start.
#[derive(Clone, Debug)]
pub struct Prompt(mpsc::Sender<Request>);

/// A request to the reporter's thread.
#[derive(Debug)]
enum Request {
    Report,
    End,
}

impl Prompt {
    /// Asks; the report is printed soon after.
    pub fn ask(&self) {
        // A reporter that is gone has printed its last.
        let _ = self.0.send(Request::Report);
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
    requests: mpsc::Receiver<Request>,
}

impl Reporter {
    /// Creates the files to write to. The error is about the histogram log.
    pub fn prepare(settings: &Stats) -> io::Result<Prepared> {
        let log = match settings.log.as_os_str().is_empty() {
            true => None,
            false => Some(HistogramLog::create(&settings.log)?),
        };
        let (prompt, requests) = mpsc::channel();
        Ok(Prepared { settings: settings.clone(), log, prompt: Prompt(prompt), requests })
    }

    /// The cores have stopped: prints the last report.
    pub fn end(self) {
        let _ = self.prompt.0.send(Request::End);
        if self.thread.join().is_err() {
            tracing::warn!("the thread that prints statistics failed");
        }
    }
}

impl Prepared {
    /// Asks the reporter, once it runs.
    pub fn prompt(&self) -> Prompt {
        self.prompt.clone()
    }

    /// Starts the thread, which asks these cores.
    pub fn start(self, cores: Cores, collector: Collector) -> io::Result<Reporter> {
        let prompt = self.prompt();
        let to = Output::start_for("stats output", io::stdout())?;
        let run = move || self.run(cores, collector, &to);
        let thread = std::thread::Builder::new().name("statistics".to_owned()).spawn(run)?;
        Ok(Reporter { prompt, thread })
    }

    fn run(self, cores: Cores, collector: Collector, to: &Output) {
        let Self { settings, mut log, requests, .. } = self;
        let path = settings.log.clone();
        let mut serializer = V2DeflateSerializer::new();
        let started = SystemTime::now();
        let entries = log.as_mut().map(|log| log.begin(&mut serializer, started));
        let entries = entries.transpose().unwrap_or_else(without_log);
        let mut totals = Totals::new(cores, collector, entries);
        let interval = Duration::from_secs(u64::from(settings.interval_s));
        let mut next = Instant::now() + interval;
        let mut unprinted = 0;
        loop {
            let request = match settings.interval_s {
                0 => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                _ => requests.recv_timeout(next.saturating_duration_since(Instant::now())),
            };
            let why = match request {
                Ok(Request::Report) => Why::Asked,
                Ok(Request::End) | Err(RecvTimeoutError::Disconnected) => Why::Exit,
                Err(RecvTimeoutError::Timeout) => Why::Interval,
            };
            let report = totals.report(why);
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
    cores: Cores,
    collector: Collector,
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
    fn new(cores: Cores, collector: Collector, log: Option<Entries<'a>>) -> Self {
        let (now, count) = (Instant::now(), collector.cores());
        Self {
            cores,
            collector,
            log,
            started: now,
            interval_began: now,
            counted_before: vec![Metrics::default(); count],
            total: vec![Part::default(); count],
            interval: vec![Part::default(); count],
            collected: now,
        }
    }

    /// Asks the cores, and adds up what they reply.
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
        let mut new = vec![Part::default(); self.collector.cores()];
        let take = |core: usize, recording: &Recording| new[core].recording.add(recording);
        match is_last {
            true => self.collector.collect_last(take),
            false => self.collector.collect(&self.cores, take),
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
            let counted = self.collector.metrics(core).clone();
            let before = std::mem::replace(&mut self.counted_before[core], counted);
            part.metrics = self.counted_before[core].since(&before);
        }
        cores
    }

    fn counted_since_start(&mut self) -> Vec<Part> {
        for (core, part) in self.total.iter_mut().enumerate() {
            part.metrics = self.collector.metrics(core).clone();
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
