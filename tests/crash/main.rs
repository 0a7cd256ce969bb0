//! Nothing acknowledged is lost when the broker is killed, whenever that is: clients with persistent
//! sessions publish and subscribe at QoS 1 and 2 and retain messages, the broker is killed at random
//! moments and started again on the same folder, and in the end everything that was acknowledged has
//! come, in order, at QoS 2 once.
//!
//! ```text
//! cargo test --test crash                                         some seconds
//! RINGMQ_CRASH_ROUNDS=5000 cargo test --release --test crash        so many kills
//! RINGMQ_CRASH_SECONDS=3600 cargo test --release --test crash       an hour of them
//! RINGMQ_TEST_FLAGS='--cores 2' …                                 flags for the broker
//! ```
//!
//! `tests/crash/plant` shows that a broker that acknowledges before it has stored is found out.
#![cfg(feature = "store")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringmq::wire::{
    self, Ack, Connect, ConnectProperties, Frame, Packet, PacketIdentifier, Publish,
    PublishProperties, Qos, ReasonCode, Subscribe, SubscribeFilters, SubscribeOptions,
    UserProperties, Version,
};

const PUBLISHERS: usize = 3;
/// How many messages a publisher has under way.
const WINDOW: usize = 24;
/// How long things may take to settle once the broker is left alone.
const PATIENCE: Duration = Duration::from_secs(60);

struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    fn start(data: &Path) -> Self {
        Self::start_with(data, &std::env::var("RINGMQ_TEST_FLAGS").unwrap_or_default())
    }

    fn start_with(data: &Path, flags: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--data"])
            .arg(data)
            .args(flags.split_whitespace())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut seen = String::new();
        let address = loop {
            let start = seen.len();
            assert!(log.read_line(&mut seen).expect("text") > 0, "it did not start:\n{seen}");
            let event: serde_json::Value = serde_json::from_str(&seen[start..]).expect("JSON");
            if event["fields"]["message"] == "listening" {
                break event["fields"]["address"].as_str().expect("one").parse().expect("one");
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ran");
    }

    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        assert!(self.child.wait().expect("it ran").success(), "it stops cleanly");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection, as far as it goes: any error ends it.
struct Link {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// The connection is over.
struct Gone;

impl Link {
    /// Connects with a session that is kept; says whether there was one.
    fn open(address: SocketAddr, name: &str) -> Result<(Self, bool), Gone> {
        let stream = TcpStream::connect(address).map_err(|_| Gone)?;
        stream.set_read_timeout(Some(Duration::from_millis(2))).map_err(|_| Gone)?;
        stream.set_nodelay(true).map_err(|_| Gone)?;
        let mut link = Self { stream, bytes: Vec::new() };
        let properties = ConnectProperties {
            session_expiry_interval: Some(86_400),
            ..ConnectProperties::default()
        };
        link.send(&Packet::Connect(Connect {
            version: Version::V5,
            clean_start: false,
            keep_alive_s: 0,
            client_identifier: name,
            username: None,
            password: None,
            will: None,
            properties,
        }))?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(packet) = link.next()? {
                match wire::decode(&packet, Version::V5).expect("it speaks MQTT") {
                    Packet::Connack(connack) => return Ok((link, connack.session_present)),
                    other => panic!("{other:?} before CONNACK"),
                }
            }
        }
        panic!("no CONNACK within {PATIENCE:?}");
    }

    fn send(&mut self, packet: &Packet<'_>) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        self.stream.write_all(&bytes).map_err(|_| Gone)
    }

    /// The next packet, if one comes within a moment.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Gone> {
        loop {
            if let Ok(Frame::Complete { total, .. }) = wire::frame(&self.bytes, usize::MAX) {
                return Ok(Some(self.bytes.drain(..total).collect()));
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Gone),
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(_) => return Err(Gone),
            }
        }
    }
}

/// Fails when a session that was there is there no more.
fn check_session(name: &str, was_there: &mut bool, is_there: bool) {
    assert!(is_there || !*was_there, "the session of {name} is lost");
    *was_there = true;
}

/// A message that is not acknowledged to the end.
struct Pending {
    identifier: u16,
    qos: u8,
    number: u64,
    is_released: bool,
}

/// Publishes numbers at QoS 1, at QoS 2, and retained.
struct Publisher {
    name: String,
    has_session: bool,
    identifier: u16,
    /// The last number by QoS; those retained are counted as QoS 1 of another topic, 0 here.
    last: [u64; 3],
    /// The last that was acknowledged, so that nothing before it may be missing.
    acknowledged: [u64; 3],
    pending: VecDeque<Pending>,
}

impl Publisher {
    fn new(number: usize) -> Self {
        Self {
            name: format!("publisher {number}"),
            has_session: false,
            identifier: 0,
            last: [0; 3],
            acknowledged: [0; 3],
            pending: VecDeque::new(),
        }
    }

    fn topic(&self, qos: u8) -> String {
        match qos {
            0 => format!("r/{}", self.name),
            qos => format!("t/{qos}/{}", self.name),
        }
    }

    fn serve(&mut self, address: SocketAddr, is_ending: &AtomicBool) -> Result<(), Gone> {
        let (mut link, is_there) = Link::open(address, &self.name)?;
        check_session(&self.name, &mut self.has_session, is_there);
        // [MQTT-4.4.0-1]: in the order in which they were sent first.
        for at in 0..self.pending.len() {
            self.send(&mut link, at, true)?;
        }
        loop {
            let is_ending = is_ending.load(Ordering::Relaxed);
            if is_ending && self.pending.is_empty() {
                return Ok(());
            }
            if !is_ending && self.pending.len() < WINDOW {
                self.publish(&mut link)?;
                if !self.pending.len().is_multiple_of(4) {
                    continue;
                }
            }
            while let Some(packet) = link.next()? {
                self.handle(&mut link, &packet)?;
            }
        }
    }

    fn publish(&mut self, link: &mut Link) -> Result<(), Gone> {
        self.identifier = self.identifier % 60_000 + 1;
        let qos = (self.identifier % 3) as u8;
        self.last[usize::from(qos)] += 1;
        let number = self.last[usize::from(qos)];
        let (identifier, is_released) = (self.identifier, false);
        self.pending.push_back(Pending { identifier, qos, number, is_released });
        self.send(link, self.pending.len() - 1, false)
    }

    fn send(&self, link: &mut Link, at: usize, dup: bool) -> Result<(), Gone> {
        let pending = &self.pending[at];
        let identifier = PacketIdentifier::new(pending.identifier).expect("from 1");
        if pending.is_released {
            return link.send(&Packet::Pubrel(Ack::new(identifier, ReasonCode::Success)));
        }
        let topic = self.topic(pending.qos);
        link.send(&Packet::Publish(Publish {
            dup,
            qos: if pending.qos == 2 { Qos::ExactlyOnce } else { Qos::AtLeastOnce },
            retain: pending.qos == 0,
            topic: &topic,
            packet_identifier: Some(identifier),
            properties: PublishProperties::default(),
            payload: &pending.number.to_be_bytes(),
        }))
    }

    fn handle(&mut self, link: &mut Link, packet: &[u8]) -> Result<(), Gone> {
        let packet = wire::decode(packet, Version::V5).expect("it speaks MQTT");
        let place = |identifier: PacketIdentifier| {
            self.pending.iter().position(|pending| pending.identifier == identifier.get())
        };
        match packet {
            Packet::Puback(ack) => {
                let place = place(ack.packet_identifier).expect("one that was sent");
                let pending = self.pending.remove(place).expect("it is there");
                self.note_acknowledged(pending.qos, pending.number);
            }
            Packet::Pubrec(ack) => {
                if let Some(place) = place(ack.packet_identifier) {
                    let pending = &mut self.pending[place];
                    pending.is_released = true;
                    let number = pending.number;
                    self.note_acknowledged(2, number);
                }
                let pubrel = Ack::new(ack.packet_identifier, ReasonCode::Success);
                link.send(&Packet::Pubrel(pubrel))?;
            }
            Packet::Pubcomp(ack) => {
                if let Some(place) = place(ack.packet_identifier) {
                    self.pending.remove(place);
                }
            }
            other => panic!("{} got {other:?}", self.name),
        }
        Ok(())
    }

    fn note_acknowledged(&mut self, qos: u8, number: u64) {
        let last = &mut self.acknowledged[usize::from(qos)];
        *last = number.max(*last);
    }
}

/// Subscribes to everything, and notes what comes.
struct Subscriber {
    name: String,
    has_session: bool,
    is_subscribed: bool,
    /// QoS 2 between PUBREC and PUBREL.
    received: BTreeSet<u16>,
    /// By topic, how many in a row have come.
    seen: BTreeMap<String, u64>,
    /// Acknowledges late.
    is_lazy: bool,
}

impl Subscriber {
    fn new(number: usize) -> Self {
        Self {
            name: format!("subscriber {number}"),
            has_session: false,
            is_subscribed: false,
            received: BTreeSet::new(),
            seen: BTreeMap::new(),
            is_lazy: number == 1,
        }
    }

    fn serve(&mut self, address: SocketAddr, is_done: impl Fn(&Self) -> bool) -> Result<(), Gone> {
        let (mut link, is_there) = Link::open(address, &self.name)?;
        check_session(&self.name, &mut self.has_session, is_there);
        if !self.is_subscribed {
            let options = SubscribeOptions {
                qos: Qos::ExactlyOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: 2,
            };
            let filters = [("t/#", options)];
            link.send(&Packet::Subscribe(Subscribe {
                packet_identifier: PacketIdentifier::new(1).expect("one"),
                subscription_identifier: None,
                user_properties: UserProperties::none(),
                filters: SubscribeFilters::list(&filters),
            }))?;
        }
        let mut owed = Vec::new();
        while !is_done(self) {
            let packet = link.next()?;
            if let Some(packet) = &packet {
                self.handle(packet, &mut owed);
            }
            if !self.is_lazy || owed.len() > 7 || packet.is_none() {
                for ack in owed.drain(..) {
                    link.stream.write_all(&ack).map_err(|_| Gone)?;
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, packet: &[u8], owed: &mut Vec<Vec<u8>>) {
        let mut owe = |packet: Packet<'_>| {
            let mut bytes = Vec::new();
            packet.encode(Version::V5, &mut bytes);
            owed.push(bytes);
        };
        let ack = |identifier| Ack::new(identifier, ReasonCode::Success);
        match wire::decode(packet, Version::V5).expect("it speaks MQTT") {
            Packet::Suback(_) => self.is_subscribed = true,
            Packet::Publish(publish) => {
                let identifier = publish.packet_identifier.expect("QoS 1 or 2");
                let is_new = match publish.qos {
                    Qos::ExactlyOnce => {
                        owe(Packet::Pubrec(ack(identifier)));
                        self.received.insert(identifier.get())
                    }
                    _ => {
                        owe(Packet::Puback(ack(identifier)));
                        true
                    }
                };
                if is_new {
                    self.note(publish.topic, publish.payload, publish.qos);
                }
            }
            Packet::Pubrel(released) => {
                self.received.remove(&released.packet_identifier.get());
                owe(Packet::Pubcomp(ack(released.packet_identifier)));
            }
            other => panic!("{} got {other:?}", self.name),
        }
    }

    fn note(&mut self, topic: &str, payload: &[u8], qos: Qos) {
        let number = u64::from_be_bytes(payload.try_into().expect("a number"));
        let name = &self.name;
        // What was published before it had subscribed it need not get.
        let seen = self.seen.entry(topic.to_owned()).or_insert(number - 1);
        if number == *seen + 1 {
            *seen = number;
        } else if number > *seen {
            panic!("{name} got {topic} {number} after {seen}: those between are lost");
        } else if qos == Qos::ExactlyOnce {
            panic!("{name} got {topic} {number} again");
        }
    }
}

/// SplitMix64.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let base = std::env::var_os("RINGMQ_TEST_DATA").map_or_else(std::env::temp_dir, Into::into);
        let path = base.join(format!("ringmq-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let kept = std::env::var_os("RINGMQ_CRASH_KEEP").is_some() && std::thread::panicking();
        if !kept {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// All clients for a while, and then a kill.
fn round(
    broker: &mut Broker,
    publishers: &mut [Publisher],
    subscribers: &mut [Subscriber],
    time: Duration,
    is_odd: bool,
) {
    let (address, never) = (broker.address, AtomicBool::new(false));
    let is_killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for publisher in publishers {
            scope.spawn(|| drop(publisher.serve(address, &never)));
        }
        for (number, subscriber) in subscribers.iter_mut().enumerate() {
            // One of them is away in every other round, once it has subscribed.
            if number > 0 && is_odd && subscriber.is_subscribed {
                continue;
            }
            scope.spawn(|| drop(subscriber.serve(address, |_| is_killed.load(Ordering::Relaxed))));
        }
        std::thread::sleep(time);
        broker.kill();
        is_killed.store(true, Ordering::Relaxed);
    });
}

/// Nobody is killed any more: everything acknowledged comes.
fn settle(address: SocketAddr, publishers: &mut [Publisher], subscribers: &mut [Subscriber]) {
    let ends = AtomicBool::new(true);
    for publisher in publishers.iter_mut() {
        assert!(publisher.serve(address, &ends).is_ok(), "it is not killed");
    }
    let topic =
        |publisher: &Publisher, qos: u8| (publisher.topic(qos), publisher.last[usize::from(qos)]);
    let all: Vec<(String, u64)> = publishers
        .iter()
        .flat_map(|publisher| [topic(publisher, 1), topic(publisher, 2)])
        .collect();
    for subscriber in subscribers {
        let until = Instant::now() + PATIENCE;
        let has_all = |of: &Subscriber| {
            all.iter().all(|(topic, last)| of.seen.get(topic).copied().unwrap_or(0) >= *last)
        };
        let served = subscriber.serve(address, |of| has_all(of) || Instant::now() > until);
        assert!(served.is_ok(), "it is not killed");
        for (topic, last) in &all {
            let seen = subscriber.seen.get(topic).copied().unwrap_or(0);
            assert!(seen >= *last, "{} got {topic} up to {seen} of {last}", subscriber.name);
        }
    }
    let retained = retained(address, publishers.len());
    for publisher in publishers {
        let kept = retained.get(&publisher.topic(0)).copied().unwrap_or(0);
        let acknowledged = publisher.acknowledged[0];
        assert!(kept >= acknowledged, "{}: {kept} is retained, not {acknowledged}", publisher.name);
    }
}

/// What is retained, as a newcomer sees it.
fn retained(address: SocketAddr, count: usize) -> BTreeMap<String, u64> {
    let name = format!("newcomer {}", std::process::id());
    let Ok((mut link, _)) = Link::open(address, &name) else { panic!("it is not killed") };
    let options = SubscribeOptions {
        qos: Qos::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let filters = [("r/#", options)];
    let subscribe = Packet::Subscribe(Subscribe {
        packet_identifier: PacketIdentifier::new(1).expect("one"),
        subscription_identifier: None,
        user_properties: UserProperties::none(),
        filters: SubscribeFilters::list(&filters),
    });
    assert!(link.send(&subscribe).is_ok());
    let (mut kept, until) = (BTreeMap::new(), Instant::now() + Duration::from_secs(10));
    while kept.len() < count && Instant::now() < until {
        let Ok(packet) = link.next() else { panic!("it is not killed") };
        let Some(packet) = packet else { continue };
        if let Packet::Publish(publish) = wire::decode(&packet, Version::V5).expect("MQTT") {
            let number = u64::from_be_bytes(publish.payload.try_into().expect("a number"));
            kept.insert(publish.topic.to_owned(), number);
        }
    }
    kept
}

#[test]
fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("RINGMQ_CRASH_ROUNDS").unwrap_or(u64::MAX);
    let default_s = if rounds < u64::MAX { u64::MAX } else { 20 };
    let seconds = number("RINGMQ_CRASH_SECONDS").unwrap_or(default_s);
    let mut random = number("RINGMQ_CRASH_SEED").unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.expect("after 1970").as_nanos() as u64
    });
    println!("RINGMQ_CRASH_SEED={random}");
    let folder = Folder::new("crash");
    let mut publishers: Vec<Publisher> = (0..PUBLISHERS).map(Publisher::new).collect();
    let mut subscribers: Vec<Subscriber> = (0..2).map(Subscriber::new).collect();
    let (begin, mut done) = (Instant::now(), 0);
    while done < rounds && begin.elapsed().as_secs() < seconds {
        // What is kept is kept whatever it is served with.
        let cores = format!("--cores {}", 1 + next_random(&mut random) % 3);
        let flags = std::env::var("RINGMQ_TEST_FLAGS").unwrap_or(cores);
        let mut broker = Broker::start_with(&folder.0, &flags);
        let time = Duration::from_micros(next_random(&mut random) % 120_000);
        round(&mut broker, &mut publishers, &mut subscribers, time, done % 2 == 1);
        done += 1;
        if done % 50 == 0 {
            let broker = Broker::start(&folder.0);
            settle(broker.address, &mut publishers, &mut subscribers);
            if done % 100 == 0 {
                broker.stop();
            }
        }
    }
    let broker = Broker::start(&folder.0);
    settle(broker.address, &mut publishers, &mut subscribers);
    let messages: u64 = publishers.iter().flat_map(|publisher| publisher.last).sum();
    assert!(messages > 0, "somebody published");
    println!("{done} kills in {:.0} s, {messages} messages", begin.elapsed().as_secs_f64());
}
