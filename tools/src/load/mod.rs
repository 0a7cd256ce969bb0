//! The generator: one thread that drives every client of a run over non-blocking sockets.
//!
//! It has to cost much less per message than any broker, so it reads in large pieces, keeps one
//! buffer for all reads, writes once a turn for each connection, and looks at the clock once a
//! read.

mod client;
mod connect;
mod publisher;
mod receive;
mod span;
mod subscriber;

use std::{
    io,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use mio::{Events, Poll};

use crate::{
    address::LoopbackAddress,
    error::{Error, Result},
    limits::{DESCRIPTORS_SPARE, READ_BYTES},
    meter::Meter,
    scenario::Workload,
    verify::Tally,
};
use client::Client;
use publisher::Publisher;
use subscriber::Subscriber;

pub use span::{Idle, Latency, Outcome, Traffic, measure};

/// What a run needs beside its workload.
#[derive(Clone, Copy, Debug)]
pub struct RunSettings {
    /// The broker.
    pub address: LoopbackAddress,
    /// Its process, if it is to be measured.
    pub meter: Option<Meter>,
    /// Load before the measured span.
    pub warm_up: Duration,
    /// The measured span.
    pub span: Duration,
    /// Messages published at most.
    pub messages_max: u64,
}

/// A run under way. Clients are in one list, subscribers first: client i of them is subscriber i,
/// and client `subscribers.len() + i` is publisher i.
#[derive(Debug)]
pub struct Load {
    workload: Workload,
    settings: RunSettings,
    /// Tells this run's messages from any other's.
    run: u32,
    poll: Poll,
    clients: Vec<Client>,
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
    /// Publishers that may have something to send, each once.
    ready: Vec<u32>,
    read_buffer: Vec<u8>,
    started: Instant,
    counts: Counts,
    /// Whether publishers may send.
    publishing: bool,
}

/// What has happened since the run's start.
#[derive(Debug)]
struct Counts {
    published: u64,
    delivered: u64,
    /// Deliveries that came or were given up.
    settled: u64,
    tally: Tally,
    /// Nanoseconds from publication to delivery, cleared when the measured span begins.
    latency_ns: Histogram<u64>,
    recording: bool,
}

impl Load {
    /// A run with every client connected and subscribed.
    pub fn connect(workload: Workload, settings: RunSettings) -> Result<Self> {
        raise_descriptor_limit(u64::from(workload.clients()) + DESCRIPTORS_SPARE)?;
        let poll = Poll::new().map_err(|source| Error::io("set up polling", source))?;
        let mut load = Self {
            workload,
            settings,
            run: run_number(),
            poll,
            clients: Vec::with_capacity(workload.clients() as usize),
            subscribers: Vec::new(),
            publishers: Vec::new(),
            ready: Vec::new(),
            read_buffer: vec![0; READ_BYTES],
            started: Instant::now(),
            counts: Counts::new(),
            publishing: false,
        };
        load.connect_all()?;
        Ok(load)
    }

    /// Wait up to `timeout` for sockets, handle what they have, then let publishers send.
    fn turn(&mut self, events: &mut Events, timeout: Duration) -> Result<()> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome.map_err(|source| Error::io("wait for sockets", source))?,
        }
        for event in events.iter() {
            let index = event.token().0;
            if event.is_writable() {
                self.handle_writable(index)?;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.handle_readable(index)?;
            }
        }
        self.publish_ready()
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// The publisher that a client is, if it is one.
    fn publisher_of(&self, client: usize) -> Option<u32> {
        client.checked_sub(self.workload.subscribers as usize).map(|index| index as u32)
    }

    fn client_of(&self, publisher: u32) -> usize {
        (self.workload.subscribers + publisher) as usize
    }

    /// How a client is called in messages.
    fn name_of(&self, client: usize) -> String {
        match self.publisher_of(client) {
            Some(index) => format!("publisher {index}"),
            None => format!("subscriber {client}"),
        }
    }
}

impl Counts {
    fn new() -> Self {
        // 1 µs to a minute in three digits: 140 KB.
        let latency_ns = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)
            .expect("the bounds are in order and three digits are allowed");
        let tally = Tally::default();
        Self { published: 0, delivered: 0, settled: 0, tally, latency_ns, recording: false }
    }
}

/// Different for each run of this machine's near past.
fn run_number() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros() as u32);
    micros ^ std::process::id().rotate_left(20)
}

#[cfg(unix)]
fn raise_descriptor_limit(needed: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        return Err(Error::Usage(format!(
            "{needed} descriptors are needed and this process may have {}",
            limit.maximum.unwrap_or(u64::MAX)
        )));
    }
    setrlimit(Resource::Nofile, raised)
        .map_err(|errno| Error::io("raise the descriptor limit", errno.into()))
}

#[cfg(not(unix))]
fn raise_descriptor_limit(_needed: u64) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests;
