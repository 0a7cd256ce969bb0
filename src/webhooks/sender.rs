//! The thread of a webhook: collects events into batches, sends them, repeats requests that fail, and gives up.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{park, park_timeout};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use super::body;
use super::destination::{Destination, Outcome};
use crate::base::atomic::AtomicU64;
use crate::base::clock::Now;
use crate::config::Webhook;
use crate::control::webhooks::{Dropped, Event, Queue, Status};

/// Bytes of the events of a request, the last of them not counted.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How long the thread waits for an event that a core is adding.
const ADDING: Duration = Duration::from_millis(1);

/// The clocks of the cores, and the time of day.
#[derive(Debug, Default)]
pub struct Clock(OnceLock<(Instant, SystemTime)>);

impl Clock {
    /// The clocks of the cores start now.
    pub fn start(&self) {
        let _ = self.0.set((Instant::now(), SystemTime::now()));
    }

    /// The start in milliseconds since 1970.
    pub fn started_ms(&self) -> u64 {
        self.0.get().map_or(0, |(_, started)| since_1970_ms(*started))
    }

    /// The time of day of an instant in milliseconds since 1970. Changes of the time of day after the start count.
    pub fn wall_ms(&self, at: Now) -> u64 {
        let age = self.0.get().map_or(Duration::ZERO, |(zero, _)| {
            zero.elapsed().saturating_sub(Duration::from_micros(at.0))
        });
        since_1970_ms(SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

fn since_1970_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    requests: AtomicU64,
    retried: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    stopped: AtomicU64,
}

#[derive(Debug, Default)]
struct Condition {
    is_failing: bool,
    last_error: Option<(u64, String)>,
}

/// A webhook, as its thread and others see it.
#[derive(Debug)]
pub struct Sender {
    name: Box<str>,
    destination: ArcSwap<Destination>,
    queue: Arc<Queue>,
    clock: Arc<Clock>,
    counters: Counters,
    condition: Mutex<Condition>,
    /// Until when events are sent, once the webhook ends.
    ends: OnceLock<Instant>,
}

/// Events of a request, and the memory that they take in the queue.
#[derive(Debug, Default)]
struct Batch {
    events: Vec<Event>,
    bytes: usize,
}

impl Sender {
    /// A webhook that has sent nothing yet.
    pub fn new(
        name: Box<str>,
        destination: Destination,
        queue: Arc<Queue>,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            name,
            destination: ArcSwap::from_pointee(destination),
            queue,
            clock,
            counters: Counters::default(),
            condition: Mutex::default(),
            ends: OnceLock::new(),
        }
    }

    /// The queue from the cores.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Sends to this server from now on; a request that waits to be repeated is repeated at once.
    pub fn set_destination(&self, destination: Destination) {
        self.destination.store(Arc::new(destination));
        self.queue.wake();
    }

    /// Sends what waits, until then, and ends the thread.
    pub fn end(&self, until: Instant) {
        let _ = self.ends.set(until);
        self.queue.wake();
    }

    /// What has been done, and what waits: an event that is counted as sent or dropped is not counted as queued any
    /// more.
    pub fn status(&self, settings: &Webhook) -> Status {
        let (counters, condition) = (&self.counters, self.condition());
        let sent = counters.sent.load(Acquire);
        let dropped = Dropped {
            full: self.queue.dropped(),
            refused: counters.refused.load(Acquire),
            failed: counters.failed.load(Acquire),
            stopped: counters.stopped.load(Acquire),
        };
        let (queued_events, queued_bytes) = self.queue.waiting();
        Status {
            name: settings.name.clone(),
            url: self.destination.load().name().to_owned(),
            events: settings.events.iter().map(|event| event.name()).collect(),
            filters: settings.filters.clone(),
            is_failing: condition.is_failing,
            last_error: condition.last_error.clone(),
            queued_events: queued_events as u64,
            queued_bytes: queued_bytes as u64,
            queue_events_max: u64::from(settings.queue_events),
            sent,
            requests: counters.requests.load(Relaxed),
            retried: counters.retried.load(Relaxed),
            dropped,
        }
    }

    /// Sends events until the webhook ends.
    pub fn run(&self, take: &Receiver<Event>) {
        while let Some(batch) = self.collect(take) {
            let outcomes = self.deliver(&batch);
            self.queue.release(batch.events.len(), batch.bytes);
            outcomes.fetch_add(batch.events.len() as u64, Release);
        }
        let stopped = self.counters.stopped.load(Relaxed);
        if stopped > 0 {
            let webhook = &*self.name;
            tracing::warn!(
                webhook,
                events = stopped,
                "webhook: events were not sent before the end"
            );
        }
    }

    /// The next batch; none once the webhook ends and nothing waits.
    fn collect(&self, take: &Receiver<Event>) -> Option<Batch> {
        let (mut batch, mut until) = (Batch::default(), None);
        loop {
            let (events_max, linger) = {
                let destination = self.destination.load();
                (destination.batch_events, destination.linger)
            };
            let is_full =
                |batch: &Batch| batch.events.len() >= events_max || batch.bytes >= BATCH_BYTES_MAX;
            while !is_full(&batch)
                && let Ok(event) = take.try_recv()
            {
                batch.bytes += event.bytes();
                batch.events.push(event);
            }
            let ends = self.ends.get().is_some();
            if batch.events.is_empty() {
                match self.queue.waiting() {
                    (0, _) if ends => return None,
                    (0, _) => park(),
                    _ => park_timeout(ADDING),
                }
                continue;
            }
            let left = *until.get_or_insert_with(|| Instant::now() + linger);
            let left = left.saturating_duration_since(Instant::now());
            if ends || is_full(&batch) || left.is_zero() {
                return Some(batch);
            }
            park_timeout(left);
        }
    }

    /// Sends a batch, or gives up; returns the counter of its events' outcome.
    fn deliver(&self, batch: &Batch) -> &AtomicU64 {
        let body = body::write(&self.name, &batch.events, &self.clock);
        let (counters, count) = (&self.counters, batch.events.len() as u64);
        let mut retries = 0;
        loop {
            let patience = self.patience();
            if patience.is_zero() {
                return &counters.stopped;
            }
            let destination = self.destination.load_full();
            match destination.post(&body, patience) {
                Outcome::Delivered => {
                    counters.requests.fetch_add(1, Relaxed);
                    self.note_success(&destination);
                    return &counters.sent;
                }
                Outcome::Refused(what) => {
                    self.note_failure(&destination, &what);
                    self.log_dropped(count, &what);
                    return &counters.refused;
                }
                Outcome::Failed(what) => {
                    self.note_failure(&destination, &what);
                    if retries >= destination.retries_max {
                        self.log_dropped(count, &what);
                        return &counters.failed;
                    }
                    let is_same = self.pause(destination.backoff(retries), &destination);
                    retries = if is_same { retries + 1 } else { 0 };
                    counters.retried.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// The time left for requests; long unless the webhook ends.
    fn patience(&self) -> Duration {
        let until = self.ends.get().map(|until| until.saturating_duration_since(Instant::now()));
        until.unwrap_or(Duration::MAX)
    }

    /// Waits before a repetition, at most until the webhook ends, or until a reload names another server; whether none
    /// did.
    fn pause(&self, pause: Duration, destination: &Arc<Destination>) -> bool {
        let until = Instant::now() + pause;
        loop {
            let is_same = Arc::ptr_eq(&self.destination.load(), destination);
            let left = until.saturating_duration_since(Instant::now()).min(self.patience());
            if !is_same || left.is_zero() {
                return is_same;
            }
            park_timeout(left);
        }
    }

    fn note_success(&self, destination: &Destination) {
        let mut condition = self.condition();
        if std::mem::take(&mut condition.is_failing) {
            let (webhook, url) = (&*self.name, destination.name());
            tracing::info!(webhook, url, "webhook: the server accepts events again");
        }
    }

    fn note_failure(&self, destination: &Destination, what: &str) {
        let mut condition = self.condition();
        condition.last_error = Some((since_1970_ms(SystemTime::now()) / 1_000, what.to_owned()));
        if !std::mem::replace(&mut condition.is_failing, true) {
            let (webhook, url) = (&*self.name, destination.name());
            tracing::warn!(webhook, url, "webhook: a request failed: {what}");
        }
    }

    fn log_dropped(&self, events: u64, what: &str) {
        use crate::base::log_rate;
        let webhook = &*self.name;
        log_rate::rated!(
            warn,
            log_rate::now(),
            webhook,
            events,
            "webhook: events are dropped: {what}"
        );
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        // No code that can panic runs with the lock held.
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
