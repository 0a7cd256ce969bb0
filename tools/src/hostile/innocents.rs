//! Innocent clients during an attack: pairs that exchange messages at a constant rate, one that
//! pings, and one that reconnects repeatedly. A single thread drives all of them, so that their
//! times are comparable, and each time is recorded with its start.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token};

use crate::{
    address::LoopbackAddress,
    clock::now_ns,
    codec::{self, Inbound, PublishTemplate, Qos, Session, Version},
    error::{Error, Result},
    pause,
    stamp::Stamp,
};

/// Keep Alive of permanent clients: a stall of one and a half times this disconnects them.
const KEEP_ALIVE_S: u16 = 5;
/// Time limit for a connection to be accepted.
const CONNECT_NS: u64 = 10_000_000_000;
/// Maximum amount of unsent data; a publisher with more pauses.
const OUTBOX_BYTES_MAX: usize = 256 * 1024;
/// Maximum number of pending connections of the reconnecting client.
const NEWCOMERS_MAX: usize = 200;
const PAYLOAD_BYTES: usize = 64;

/// The number of clients, and their intervals.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// Pairs of a publisher and a subscriber.
    pub pairs: usize,
    /// Interval between two messages of a publisher.
    pub message_every: Duration,
    /// Interval between two PINGREQs.
    pub ping_every: Duration,
    /// Interval between two new connections.
    pub connect_every: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            pairs: 10,
            message_every: Duration::from_millis(10),
            ping_every: Duration::from_millis(50),
            connect_every: Duration::from_millis(100),
        }
    }
}

/// A measured operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From publishing to receiving, at QoS 1.
    Message,
    /// From PINGREQ to PINGRESP.
    Ping,
    /// From TCP connect to CONNACK.
    Connect,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The operation.
    pub kind: Kind,
    /// Start of the operation, by [`now_ns`].
    pub began_ns: u64,
    /// Duration, or the time so far if the operation was incomplete at the end.
    pub took_ns: u64,
}

/// All measurements and incidents.
#[derive(Debug, Default)]
pub struct Record {
    /// The measurements, in order of completion.
    pub samples: Vec<Sample>,
    /// Times when connections ended unexpectedly.
    pub disconnects: Vec<u64>,
    /// Start times of connections that were refused or not answered.
    pub refused: Vec<u64>,
    /// Messages that were skipped.
    pub lost: u64,
    /// Messages and pings still pending at the end.
    pub awaited: u64,
    /// The maximum delay of the generator itself.
    pub late_ns: u64,
}

/// The thread, and its state.
#[derive(Debug)]
pub struct Innocents {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<Record>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Start of the oldest pending message or ping; 0 if there is none.
    oldest_ns: AtomicU64,
}

impl Innocents {
    /// Connects all clients and starts them, in a thread with the cores and the priority of this
    /// one.
    pub fn start(address: LoopbackAddress, habits: Intervals) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (tell, hear) = mpsc::channel();
        let seen = Arc::clone(&shared);
        let thread = thread::spawn(move || match Crowd::connect(address, habits) {
            Ok(crowd) => {
                let _ = tell.send(Ok(()));
                crowd.run(&seen)
            }
            Err(source) => {
                let doing = format!("connect innocent clients to {address}");
                let _ = tell.send(Err(Error::io(doing, source)));
                Ok(Record::default())
            }
        });
        let innocents = Self { shared, thread: Some(thread) };
        match hear.recv() {
            Ok(Ok(())) => Ok(innocents),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Broker("the thread of the innocent clients ended".into())),
        }
    }

    /// Age of the oldest pending operation.
    pub fn waiting(&self) -> Duration {
        match self.shared.oldest_ns.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            oldest => Duration::from_nanos(now_ns().saturating_sub(oldest)),
        }
    }

    /// Stops the clients.
    pub fn finish(mut self) -> Result<Record> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("taken only here and in drop");
        match thread.join() {
            Ok(record) => record.map_err(|source| Error::io("drive innocent clients", source)),
            Err(_) => Err(Error::Broker("the thread of the innocent clients ended".into())),
        }
    }
}

impl Drop for Innocents {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client and its role.
#[derive(Debug)]
struct Client {
    stream: mio::net::TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    role: Role,
    is_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The publisher of this pair.
    Publisher(usize),
    /// The subscriber of this pair.
    Subscriber(usize),
    Pinger,
    /// Started at this time.
    Newcomer(u64),
}

/// The pending messages of a pair.
#[derive(Debug)]
struct Pair {
    template: PublishTemplate,
    next_ns: u64,
    sequence: u64,
    /// Number and start of each message in transit.
    awaited: VecDeque<(u64, u64)>,
}

struct Crowd {
    address: LoopbackAddress,
    habits: Intervals,
    poll: Poll,
    /// Two clients per pair, the one that pings, and new connections after them.
    clients: Vec<Option<Client>>,
    pairs: Vec<Pair>,
    next_ping_ns: u64,
    pinged: VecDeque<u64>,
    next_connect_ns: u64,
    newcomers: u64,
    record: Record,
}

const fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl Crowd {
    /// Connects the permanent clients, one after the other.
    fn connect(address: LoopbackAddress, habits: Intervals) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut crowd = Self {
            address,
            habits,
            poll,
            clients: Vec::new(),
            pairs: Vec::new(),
            next_ping_ns: 0,
            pinged: VecDeque::new(),
            next_connect_ns: 0,
            newcomers: 0,
            record: Record::default(),
        };
        for pair in 0..habits.pairs {
            let topic = format!("innocent/{pair}");
            crowd.add(Role::Subscriber(pair), Some(&topic))?;
            crowd.add(Role::Publisher(pair), None)?;
            let template =
                PublishTemplate::new(Version::V311, &topic, Qos::AtLeastOnce, PAYLOAD_BYTES);
            crowd.pairs.push(Pair { template, next_ns: 0, sequence: 0, awaited: VecDeque::new() });
        }
        crowd.add(Role::Pinger, None)?;
        // All start now, spread over the interval between messages.
        let now = now_ns();
        for (number, pair) in crowd.pairs.iter_mut().enumerate() {
            pair.next_ns = now + ns(habits.message_every) * number as u64 / habits.pairs as u64;
        }
        (crowd.next_ping_ns, crowd.next_connect_ns) = (now, now);
        Ok(crowd)
    }

    /// Connects a client and subscribes, before it is driven with the others.
    fn add(&mut self, role: Role, topic: Option<&str>) -> io::Result<()> {
        let patience = Duration::from_secs(10);
        let mut stream =
            std::net::TcpStream::connect_timeout(&self.address.socket_address(), patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        let mut out = Vec::new();
        let number = self.clients.len();
        let name = format!("innocent-{number}");
        codec::encode_connect(Version::V311, Session::Clean, KEEP_ALIVE_S, &name, &mut out);
        let mut expected = 4;
        if let Some(topic) = topic {
            let filters = [topic.to_string()];
            codec::encode_subscribe(Version::V311, 1, &filters, Qos::AtLeastOnce, &mut out);
            expected += 5;
        }
        stream.write_all(&out)?;
        let mut answer = [0; 9];
        stream.read_exact(&mut answer[..expected])?;
        if answer[..4] != [0x20, 2, 0, 0] || (expected > 4 && answer[8] != 1) {
            let what = format!("{name} was not accepted: {:02x?}", &answer[..expected]);
            return Err(io::Error::other(what));
        }
        stream.set_nonblocking(true)?;
        self.register(mio::net::TcpStream::from_std(stream), role)?;
        Ok(())
    }

    fn register(&mut self, mut stream: mio::net::TcpStream, role: Role) -> io::Result<usize> {
        let free = self.clients.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.clients.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(slot), interest)?;
        let client = Client { stream, inbox: Vec::new(), outbox: Vec::new(), role, is_open: true };
        match self.clients.get_mut(slot) {
            Some(place) => *place = Some(client),
            None => self.clients.push(Some(client)),
        }
        Ok(slot)
    }

    fn run(mut self, shared: &Shared) -> io::Result<Record> {
        let mut events = Events::with_capacity(256);
        while !shared.stop.load(Ordering::Relaxed) {
            let now = now_ns();
            let due = self.due_ns();
            if due <= now {
                self.record.late_ns = self.record.late_ns.max(now - due);
                self.act(now)?;
            }
            shared.oldest_ns.store(self.oldest_ns(), Ordering::Relaxed);
            let wait = self.due_ns().saturating_sub(now_ns()).min(50_000_000);
            pause::wait(self.poll.registry(), Duration::from_nanos(wait))?;
            self.poll.poll(&mut events, Some(Duration::ZERO))?;
            for event in &events {
                self.handle(event.token().0);
            }
        }
        Ok(self.end())
    }

    /// The earliest time at which a client has something to do.
    fn due_ns(&self) -> u64 {
        let pairs = self.pairs.iter().map(|pair| pair.next_ns);
        pairs.chain([self.next_ping_ns, self.next_connect_ns]).min().unwrap_or(u64::MAX)
    }

    fn oldest_ns(&self) -> u64 {
        let fronts = self.pairs.iter().filter_map(|pair| pair.awaited.front());
        let fronts = fronts.map(|&(_, began_ns)| began_ns);
        fronts.chain(self.pinged.front().copied()).min().unwrap_or(0)
    }

    /// Performs all due operations.
    fn act(&mut self, now: u64) -> io::Result<()> {
        for pair in 0..self.pairs.len() {
            if self.pairs[pair].next_ns <= now {
                self.pairs[pair].next_ns =
                    (self.pairs[pair].next_ns + ns(self.habits.message_every)).max(now);
                self.publish(pair);
            }
        }
        if self.next_ping_ns <= now {
            self.next_ping_ns = (self.next_ping_ns + ns(self.habits.ping_every)).max(now);
            self.ping();
        }
        if self.next_connect_ns <= now {
            self.next_connect_ns = (self.next_connect_ns + ns(self.habits.connect_every)).max(now);
            self.give_up_connections(now);
            self.begin_connection()?;
        }
        Ok(())
    }

    fn publish(&mut self, pair: usize) {
        let (subscriber, publisher) = (2 * pair, 2 * pair + 1);
        if !self.is_open(subscriber) {
            return;
        }
        let state = &mut self.pairs[pair];
        let Some(client) = self.clients[publisher].as_mut().filter(|client| client.is_open) else {
            return;
        };
        if client.outbox.len() > OUTBOX_BYTES_MAX {
            return;
        }
        let sent_ns = now_ns();
        let identifier = (state.sequence % 60_000) as u16 + 1;
        let stamp = Stamp { run: 0, publisher: pair as u32, sequence: state.sequence, sent_ns };
        state.template.encode(identifier, &stamp, &mut client.outbox);
        state.awaited.push_back((state.sequence, sent_ns));
        state.sequence += 1;
        self.flush(publisher);
    }

    fn ping(&mut self) {
        let pinger = 2 * self.pairs.len();
        let Some(client) = self.clients[pinger].as_mut().filter(|client| client.is_open) else {
            return;
        };
        codec::encode_pingreq(&mut client.outbox);
        self.pinged.push_back(now_ns());
        self.flush(pinger);
    }

    fn begin_connection(&mut self) -> io::Result<()> {
        if self.clients.len() > 2 * self.pairs.len() + NEWCOMERS_MAX {
            return Ok(());
        }
        let began_ns = now_ns();
        let Ok(stream) = mio::net::TcpStream::connect(self.address.socket_address()) else {
            self.record.refused.push(began_ns);
            return Ok(());
        };
        let slot = self.register(stream, Role::Newcomer(began_ns))?;
        self.newcomers += 1;
        let name = format!("newcomer-{}", self.newcomers);
        if let Some(client) = &mut self.clients[slot] {
            let out = &mut client.outbox;
            codec::encode_connect(Version::V311, Session::Clean, KEEP_ALIVE_S, &name, out);
        }
        Ok(())
    }

    fn give_up_connections(&mut self, now: u64) {
        for slot in 2 * self.pairs.len() + 1..self.clients.len() {
            let is_late = self.clients[slot].as_ref().is_some_and(
                |client| matches!(client.role, Role::Newcomer(began) if now - began > CONNECT_NS),
            );
            if is_late {
                self.lose(slot);
            }
        }
    }

    fn is_open(&self, slot: usize) -> bool {
        self.clients[slot].as_ref().is_some_and(|client| client.is_open)
    }

    /// A socket is readable or writable.
    fn handle(&mut self, slot: usize) {
        self.flush(slot);
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
            if !client.is_open {
                return;
            }
            match client.stream.read(&mut buffer) {
                Ok(0) => return self.lose(slot),
                Ok(read) => client.inbox.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(_) => return self.lose(slot),
            }
        }
        self.take_packets(slot);
        self.flush(slot);
    }

    fn take_packets(&mut self, slot: usize) {
        let Some(client) = self.clients[slot].as_mut() else { return };
        let inbox = std::mem::take(&mut client.inbox);
        let mut used = 0;
        loop {
            match codec::frame(&inbox[used..]) {
                Ok(None) => break,
                Ok(Some((header, total))) => {
                    let packet = &inbox[used..used + total];
                    let inbound = codec::decode(Version::V311, packet[0], &packet[header..]);
                    used += total;
                    match inbound {
                        Ok(inbound) => self.take(slot, &inbound),
                        Err(_) => return self.lose(slot),
                    }
                }
                Err(_) => return self.lose(slot),
            }
        }
        if let Some(client) = self.clients[slot].as_mut() {
            client.inbox = inbox[used..].to_vec();
        }
    }

    fn take(&mut self, slot: usize, inbound: &Inbound<'_>) {
        let Some(client) = self.clients[slot].as_mut() else { return };
        let now = now_ns();
        match (client.role, inbound) {
            (Role::Subscriber(pair), Inbound::Publish { packet_identifier, payload, .. }) => {
                codec::encode_puback(*packet_identifier, &mut client.outbox);
                let Some(stamp) = Stamp::decode(payload) else { return };
                self.receive(pair, stamp.sequence, now);
            }
            (Role::Pinger, Inbound::Pingresp) => {
                if let Some(began_ns) = self.pinged.pop_front() {
                    let took_ns = now.saturating_sub(began_ns);
                    self.record.samples.push(Sample { kind: Kind::Ping, began_ns, took_ns });
                }
            }
            (Role::Newcomer(began_ns), Inbound::Connack { reason, .. }) => {
                let took_ns = now.saturating_sub(began_ns);
                match reason {
                    0 => {
                        let sample = Sample { kind: Kind::Connect, began_ns, took_ns };
                        self.record.samples.push(sample);
                    }
                    _ => self.record.refused.push(began_ns),
                }
                codec::encode_disconnect(&mut client.outbox);
                self.flush(slot);
                self.clients[slot] = None;
            }
            _ => {}
        }
    }

    /// Messages of one publisher arrive in order: skipped ones are lost.
    fn receive(&mut self, pair: usize, sequence: u64, now: u64) {
        let awaited = &mut self.pairs[pair].awaited;
        while let Some(&(next, began_ns)) = awaited.front().filter(|(next, _)| *next <= sequence) {
            awaited.pop_front();
            if next < sequence {
                self.record.lost += 1;
                continue;
            }
            let took_ns = now.saturating_sub(began_ns);
            self.record.samples.push(Sample { kind: Kind::Message, began_ns, took_ns });
        }
    }

    fn flush(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
        while client.is_open && !client.outbox.is_empty() {
            match client.stream.write(&client.outbox) {
                Ok(written) => drop(client.outbox.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Not connected yet.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(_) => return self.lose(slot),
            }
        }
    }

    /// A connection ended, or is given up. Permanent clients are not replaced, and their pending
    /// operations are abandoned.
    fn lose(&mut self, slot: usize) {
        let Some(client) = self.clients[slot].as_mut() else { return };
        if !client.is_open {
            return;
        }
        client.is_open = false;
        let pair = match client.role {
            Role::Newcomer(began_ns) => {
                self.record.refused.push(began_ns);
                self.clients[slot] = None;
                return;
            }
            Role::Publisher(pair) | Role::Subscriber(pair) => Some(pair),
            Role::Pinger => None,
        };
        self.record.disconnects.push(now_ns());
        match pair {
            Some(pair) => self.abandon(pair),
            None => self.pinged.drain(..).for_each(drop),
        }
    }

    /// Pending messages of this pair count with the time they have waited.
    fn abandon(&mut self, pair: usize) {
        let now = now_ns();
        for (_, began_ns) in std::mem::take(&mut self.pairs[pair].awaited) {
            let took_ns = now.saturating_sub(began_ns);
            self.record.samples.push(Sample { kind: Kind::Message, began_ns, took_ns });
        }
    }

    /// Pending operations count with their time so far.
    fn end(mut self) -> Record {
        let messages: usize = self.pairs.iter().map(|pair| pair.awaited.len()).sum();
        self.record.awaited = (messages + self.pinged.len()) as u64;
        for pair in 0..self.pairs.len() {
            self.abandon(pair);
        }
        let now = now_ns();
        for began_ns in std::mem::take(&mut self.pinged) {
            let took_ns = now.saturating_sub(began_ns);
            self.record.samples.push(Sample { kind: Kind::Ping, began_ns, took_ns });
        }
        self.record
    }
}

#[cfg(test)]
mod tests;
