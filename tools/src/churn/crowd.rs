//! Clients that connect and disconnect: sockets in slots, bytes split into packets. The scenario
//! interprets the packets.

use std::{io, time::Duration};

use mio::{Events, Poll, Token};

use crate::{
    clock,
    codec::{
        self, Inbound, KEEP_ALIVE_S, Qos, Session, encode_connect, encode_puback, encode_pubcomp,
        encode_pubrec, encode_pubrel,
    },
    error::{Error, Result},
    limits::READ_BYTES,
    load::{
        RunSettings,
        client::{Client, Phase, ReadOutcome},
    },
    pause,
    recorder::Recorder,
    scenario::{Share, Workload},
    transport::Connector,
    verify::Tally,
};

/// An event of a client.
#[derive(Debug)]
pub enum Event<'a> {
    /// CONNACK accepted the connection; states whether the broker resumed a session.
    Accepted {
        /// Session Present.
        session_present: bool,
    },
    /// Another packet was received. PUBACK, PUBREC, PUBREL and acknowledgements of received
    /// messages have already been sent.
    Packet(Inbound<'a>),
    /// The broker closed the connection.
    Closed,
}

/// The scenario of a crowd.
pub trait Actor {
    /// Prepares the load.
    fn prepare(&mut self, crowd: &mut Crowd) -> Result<()>;
    /// The load starts at this time.
    fn begin(&mut self, crowd: &Crowd, start_ns: u64);
    /// Starts what is due.
    fn work(&mut self, crowd: &mut Crowd, now_ns: u64) -> Result<()>;
    /// An event of the client in `slot`.
    fn handle(
        &mut self,
        crowd: &mut Crowd,
        slot: usize,
        event: Event<'_>,
        now_ns: u64,
    ) -> Result<()>;
    /// When the next action is due, if it depends only on time and there is room for it.
    fn next_ns(&self) -> Option<u64>;
    /// Whether the span may start or end now: if an operation has several parts, only between two
    /// operations.
    fn is_between(&self) -> bool {
        true
    }
    /// Number of started and incomplete operations.
    fn under_way(&self) -> u64;
    /// Counts operations that will never complete as missing.
    fn settle(&self, tally: &mut Tally) {
        tally.unacknowledged += self.under_way();
    }
    /// Cleans up.
    fn finish(&mut self, crowd: &mut Crowd) -> Result<()>;
}

/// All clients of a run.
#[derive(Debug)]
pub struct Crowd {
    /// The workload.
    pub workload: Workload,
    /// The share of this process.
    pub share: Share,
    /// Distinguishes this run from others.
    pub run: u32,
    /// Settings besides the workload.
    pub settings: RunSettings,
    /// Counts.
    pub recorder: Recorder,
    /// Whether to start further operations.
    pub working: bool,
    connector: Connector,
    poll: Poll,
    events: Option<Events>,
    slots: Vec<Option<Slot>>,
    read_buffer: Vec<u8>,
}

#[derive(Debug)]
struct Slot {
    client: Client,
    session: Session,
    identifier: String,
}

impl Crowd {
    /// This many empty slots.
    pub fn new(
        workload: Workload,
        run: u32,
        share: Share,
        settings: RunSettings,
        slots: usize,
    ) -> Result<Self> {
        Ok(Self {
            workload,
            share,
            run,
            connector: settings.connector()?,
            settings,
            recorder: Recorder::default(),
            working: false,
            poll: Poll::new().map_err(|source| Error::io("set up polling", source))?,
            events: Some(Events::with_capacity(1_024)),
            slots: (0..slots).map(|_| None).collect(),
            read_buffer: vec![0; READ_BYTES],
        })
    }

    /// Starts to connect a client in `slot`, which must be empty.
    pub fn open(&mut self, slot: usize, identifier: String, session: Session) -> Result<()> {
        assert!(self.slots[slot].is_none(), "a slot has one client at a time");
        let number = self.share.in_run(slot as u32);
        let stream = self.connector.connect(number, self.poll.registry(), Token(slot));
        let address = self.settings.address;
        let stream = stream.map_err(|source| Error::io(format!("connect to {address}"), source))?;
        self.slots[slot] = Some(Slot { client: Client::new(stream), session, identifier });
        Ok(())
    }

    /// Closes the connection in `slot` without DISCONNECT.
    pub fn close(&mut self, slot: usize) {
        self.slots[slot] = None;
    }

    /// Encodes packets for the client in `slot`, and writes them.
    pub fn send(&mut self, slot: usize, encode: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let client = &mut self.slots[slot].as_mut().expect("a connected client").client;
        encode(&mut client.outgoing);
        client.flush().map_err(|source| Error::io(format!("write as client {slot}"), source))
    }

    /// Lets the actor start what is due, waits up to `timeout` for sockets, and handles their
    /// events.
    pub fn turn(&mut self, actor: &mut impl Actor, timeout: Duration) -> Result<()> {
        let mut timeout = timeout;
        if self.working {
            actor.work(self, clock::now_ns())?;
            if let Some(next_ns) = actor.next_ns() {
                let rest = Duration::from_nanos(next_ns.saturating_sub(clock::now_ns()));
                pause::wait(self.poll.registry(), rest.min(timeout))
                    .map_err(|source| Error::io("wait for sockets", source))?;
                timeout = Duration::ZERO;
            }
        }
        let mut events = self.events.take().expect("turns are not nested");
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::io("wait for sockets", source)),
            Ok(()) => {
                for event in events.iter() {
                    self.handle_socket(actor, event.token().0, event.is_writable())?;
                }
            }
        }
        self.events = Some(events);
        Ok(())
    }

    /// Runs turns until `enough` returns true; fails after `limit`.
    pub fn turn_until<A: Actor>(
        &mut self,
        actor: &mut A,
        limit: Duration,
        what: &str,
        enough: impl Fn(&A) -> bool,
    ) -> Result<()> {
        let end_ns = clock::after(clock::now_ns(), limit);
        while !enough(actor) {
            self.turn(actor, Duration::from_millis(10))?;
            if clock::now_ns() > end_ns {
                return Err(Error::Broker(format!("timeout after {limit:?}: {what}")));
            }
        }
        Ok(())
    }

    fn handle_socket(&mut self, actor: &mut impl Actor, slot: usize, writable: bool) -> Result<()> {
        let Some(Slot { client, session, identifier }) = &mut self.slots[slot] else {
            return Ok(());
        };
        let failed = |source| Error::io(format!("connect as {identifier}"), source);
        if client.phase == Phase::Connecting {
            if !writable || !client.stream.is_connected().map_err(failed)? {
                return Ok(());
            }
            client.phase = Phase::AwaitConnack;
            let mqtt = self.workload.mqtt;
            encode_connect(mqtt, *session, KEEP_ALIVE_S, identifier, &mut client.outgoing);
        }
        let outcome = client.flush();
        // A closed connection is detected when reading.
        match outcome {
            Err(error) if is_closed(&error) => {}
            Err(source) => return Err(Error::io(format!("write as {identifier}"), source)),
            Ok(()) => {}
        }
        // The buffer is moved out temporarily, so that packets can borrow it.
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let outcome = self.read(actor, slot, &mut buffer);
        self.read_buffer = buffer;
        outcome
    }

    fn read(&mut self, actor: &mut impl Actor, slot: usize, buffer: &mut Vec<u8>) -> Result<()> {
        // The actor may close the client at any packet.
        while let Some(Slot { client, identifier, .. }) = &mut self.slots[slot] {
            let (filled, more) = match client.read(buffer) {
                Ok(ReadOutcome::More(filled)) => (filled, true),
                Ok(ReadOutcome::Last(filled)) => (filled, false),
                Ok(ReadOutcome::Closed) => {
                    return actor.handle(self, slot, Event::Closed, clock::now_ns());
                }
                Err(error) if is_closed(&error) => {
                    return actor.handle(self, slot, Event::Closed, clock::now_ns());
                }
                Err(source) => {
                    return Err(Error::io(format!("read as {identifier}"), source));
                }
            };
            let used = self.handle_bytes(actor, slot, &buffer[..filled])?;
            let Some(Slot { client, .. }) = &mut self.slots[slot] else { return Ok(()) };
            client.partial.clear();
            client.partial.extend_from_slice(&buffer[used..filled]);
            if !more {
                return self.send(slot, |_| ());
            }
        }
        Ok(())
    }

    /// Handles the whole packets at the start of `bytes`; returns their length.
    fn handle_bytes(&mut self, actor: &mut impl Actor, slot: usize, bytes: &[u8]) -> Result<usize> {
        let now_ns = clock::now_ns();
        let version = self.workload.mqtt;
        let mut used = 0;
        while let Some(Slot { client, identifier, .. }) = &mut self.slots[slot] {
            let rest = &bytes[used..];
            let packet = match codec::frame(rest) {
                Ok(Some((header, total))) => {
                    used += total;
                    codec::decode(version, rest[0], &rest[header..total])
                }
                Ok(None) => break,
                Err(malformed) => Err(malformed),
            };
            let packet = packet
                .map_err(|malformed| Error::Broker(format!("{identifier} was sent {malformed}")))?;
            let event = match packet {
                Inbound::Connack { reason: 0, session_present, .. }
                    if client.phase == Phase::AwaitConnack =>
                {
                    client.phase = Phase::Ready;
                    Event::Accepted { session_present }
                }
                Inbound::Connack { reason, .. } => {
                    return Err(Error::Broker(format!(
                        "{identifier} got CONNACK with reason {reason:#04x}"
                    )));
                }
                Inbound::Disconnect(reason) => {
                    return Err(Error::Broker(format!(
                        "{identifier} was disconnected: {reason:#04x}"
                    )));
                }
                packet => {
                    answer(&packet, &mut client.outgoing);
                    Event::Packet(packet)
                }
            };
            actor.handle(self, slot, event, now_ns)?;
        }
        Ok(used)
    }
}

/// The response that the protocol requires to a packet, regardless of the scenario.
fn answer(packet: &Inbound<'_>, outgoing: &mut Vec<u8>) {
    match *packet {
        Inbound::Publish { qos: Qos::AtLeastOnce, packet_identifier, .. } => {
            encode_puback(packet_identifier, outgoing);
        }
        Inbound::Publish { qos: Qos::ExactlyOnce, packet_identifier, .. } => {
            encode_pubrec(packet_identifier, outgoing);
        }
        Inbound::Pubrec(packet_identifier, _) => encode_pubrel(packet_identifier, outgoing),
        Inbound::Pubrel(packet_identifier, _) => encode_pubcomp(packet_identifier, outgoing),
        _ => {}
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
