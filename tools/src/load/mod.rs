//! The generator: one thread that drives all clients of a run over non-blocking sockets.
//!
//! The generator must cost much less per message than any broker: it reads in large pieces, uses
//! one buffer for all reads, writes once per turn and connection, and reads the clock once per
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
    coordinator::Coordinator,
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

/// The parameters of a run in addition to its workload.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// The broker's address.
    pub address: LoopbackAddress,
    /// Where publishers connect, if elsewhere.
    pub publishers_at: Option<LoopbackAddress>,
    /// The broker's process, if it is to be measured.
    pub meter: Option<Meter>,
    /// Duration of the load before the measured span.
    pub warm_up: Duration,
    /// Duration of the measured span.
    pub span: Duration,
    /// Maximum number of messages published.
    pub messages_max: u64,
    /// Source addresses.
    pub sources: Sources,
    /// The transport below MQTT.
    pub transport: Transport,
    /// Whether to show progress.
    pub progress: bool,
}

impl RunSettings {
    /// Opens connections to the broker.
    pub fn connector(&self) -> Result<Connector> {
        Connector::new(self.address, self.sources, &self.transport)
    }
}

/// A run. Clients are in one list, subscribers first: client i of them is subscriber i, and client
/// `subscribers.len() + i` is publisher i.
#[derive(Debug)]
pub struct Load {
    workload: Workload,
    settings: RunSettings,
    connector: Connector,
    /// The clients of this process.
    share: Share,
    /// Distinguishes this run's messages from those of others.
    run: u32,
    poll: Poll,
    clients: Vec<Client>,
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
    /// Messages received by all subscribers together, for a group.
    group: Option<Group>,
    /// Publishers that may have something to send, each once.
    ready: Vec<u32>,
    read_buffer: Vec<u8>,
    recorder: Recorder,
    /// Deliveries that arrived or were given up.
    settled: u64,
    /// Whether publishers may send.
    publishing: bool,
    /// In an open loop: all messages of the run, of which message k is sent by publisher k modulo
    /// their number.
    timetable: Option<Timetable>,
    /// Messages of each publisher of the run, once all are sent.
    everyones_sent: Option<Vec<u64>>,
    /// Shows the progress of the measured span.
    progress: Option<Progress>,
}

/// Runs this process's share of a run whose clients publish to each other.
pub fn measure(
    workload: Workload,
    run: u32,
    share: Share,
    settings: RunSettings,
    coordinator: &mut dyn Coordinator,
) -> Result<Measured> {
    Load::connect(workload, run, share, settings)?.measure(coordinator)
}

impl Load {
    /// A run with all clients connected and subscribed.
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

    /// Waits up to `timeout` for sockets, handles their events, then lets publishers send.
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

    /// Number of clients of this process.
    fn clients_max(&self) -> usize {
        (self.own_subscribers() + self.share.of(self.workload.publishers)) as usize
    }

    fn own_subscribers(&self) -> u32 {
        self.share.of(self.workload.subscribers)
    }

    /// The publisher index of a client, if it is one.
    fn publisher_of(&self, client: usize) -> Option<u32> {
        client.checked_sub(self.own_subscribers() as usize).map(|index| index as u32)
    }

    fn client_of(&self, publisher: u32) -> usize {
        (self.own_subscribers() + publisher) as usize
    }

    /// The name of a client in error messages.
    fn name_of(&self, client: usize) -> String {
        match self.publisher_of(client) {
            Some(index) => format!("publisher {}", self.share.in_run(index)),
            None => format!("subscriber {}", self.share.in_run(client as u32)),
        }
    }
}

#[cfg(test)]
mod tests;
