//! The generator: one thread that drives every client of a run over non-blocking sockets.
//!
//! It has to cost much less per message than any broker, so it reads in large pieces, keeps one
//! buffer for all reads, writes once a turn for each connection, and looks at the clock once a
//! read.

pub mod client;
mod connect;
mod publisher;
mod receive;
mod span;
mod subscriber;

use std::{io, time::Duration};

use mio::{Events, Poll};

use crate::{
    address::LoopbackAddress,
    conductor::Conductor,
    descriptors,
    error::{Error, Result},
    limits::READ_BYTES,
    meter::Meter,
    outcome::Measured,
    pace::Timetable,
    progress::Progress,
    recorder::Recorder,
    scenario::{Scenario, Share, Workload},
    transport::{Connector, Sources, Transport},
    verify::Group,
};
use client::Client;
use publisher::Publisher;
use subscriber::Subscriber;

/// What a run needs beside its workload.
#[derive(Clone, Debug)]
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
    /// Where connections come from.
    pub sources: Sources,
    /// What they speak beneath MQTT.
    pub transport: Transport,
    /// Whether to show how far it is.
    pub progress: bool,
}

impl RunSettings {
    /// The way to the broker.
    pub fn connector(&self) -> Result<Connector> {
        Connector::new(self.address, self.sources, &self.transport)
    }
}

/// A run under way. Clients are in one list, subscribers first: client i of them is subscriber i,
/// and client `subscribers.len() + i` is publisher i.
#[derive(Debug)]
pub struct Load {
    workload: Workload,
    settings: RunSettings,
    connector: Connector,
    /// The clients that are here, of all of the workload's.
    share: Share,
    /// Tells this run's messages from any other's.
    run: u32,
    poll: Poll,
    clients: Vec<Client>,
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
    /// What the subscribers got together, if messages are shared out among them.
    group: Option<Group>,
    /// Publishers that may have something to send, each once.
    ready: Vec<u32>,
    read_buffer: Vec<u8>,
    recorder: Recorder,
    /// Deliveries that came or were given up.
    settled: u64,
    /// Whether publishers may send.
    publishing: bool,
    /// In open loop: all messages of the run, of which message k is the turn of publisher k modulo
    /// their number.
    timetable: Option<Timetable>,
    /// Messages of each publisher of the run, once all are sent.
    everyones_sent: Option<Vec<u64>>,
    /// Shows how far the measured span is.
    progress: Option<Progress>,
}

/// Do this process's share of a run whose clients publish to each other.
pub fn measure(
    workload: Workload,
    run: u32,
    share: Share,
    settings: RunSettings,
    conductor: &mut dyn Conductor,
) -> Result<Measured> {
    Load::connect(workload, run, share, settings)?.measure(conductor)
}

impl Load {
    /// A run with every client connected and subscribed.
    pub fn connect(
        workload: Workload,
        run: u32,
        share: Share,
        settings: RunSettings,
    ) -> Result<Self> {
        let clients = share.of(workload.publishers) + share.of(workload.subscribers);
        descriptors::raise_limit(u64::from(clients))?;
        let is_group = workload.scenario == Scenario::Shared;
        let poll = Poll::new().map_err(|source| Error::io("set up polling", source))?;
        let connector = settings.connector()?;
        let mut load = Self {
            connector,
            workload,
            settings,
            share,
            run,
            poll,
            clients: Vec::with_capacity(clients as usize),
            subscribers: Vec::new(),
            publishers: Vec::new(),
            group: is_group.then(|| Group::new(workload.publishers, workload.subscribers)),
            ready: Vec::new(),
            read_buffer: vec![0; READ_BYTES],
            recorder: Recorder::default(),
            settled: 0,
            publishing: false,
            timetable: None,
            everyones_sent: None,
            progress: None,
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

    /// Clients of this process when all are there.
    fn clients_max(&self) -> usize {
        (self.own_subscribers() + self.share.of(self.workload.publishers)) as usize
    }

    fn own_subscribers(&self) -> u32 {
        self.share.of(self.workload.subscribers)
    }

    /// The publisher that a client is, if it is one.
    fn publisher_of(&self, client: usize) -> Option<u32> {
        client.checked_sub(self.own_subscribers() as usize).map(|index| index as u32)
    }

    fn client_of(&self, publisher: u32) -> usize {
        (self.own_subscribers() + publisher) as usize
    }

    /// How a client is called in messages.
    fn name_of(&self, client: usize) -> String {
        match self.publisher_of(client) {
            Some(index) => format!("publisher {}", self.share.in_run(index)),
            None => format!("subscriber {}", self.share.in_run(client as u32)),
        }
    }
}

#[cfg(test)]
mod tests;
