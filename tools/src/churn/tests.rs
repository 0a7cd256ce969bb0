//! Whole runs of connecting and disconnecting clients, against a stand-in for a broker with one
//! planted fault.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    address::LoopbackAddress,
    codec::{Qos, Version, frame},
    error::Result,
    load::RunSettings,
    outcome::Outcome,
    processes,
    scenario::{LoadMode, Scenario, Workload},
    transport::{Sources, Transport},
    verify::Tally,
};

/// A fault of the stand-in, which happens once unless stated otherwise, and not before each client
/// has subscribed once, when the load starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Refuse every CONNECT.
    RefuseConnections,
    /// One CONNACK has Session Present set for a session that does not exist.
    InventSession,
    /// One SUBACK reports a failure.
    RefuseSubscription,
    /// One SUBACK has another Packet Identifier.
    ConfuseSuback,
    LoseRetained,
    RepeatRetained,
    /// One retained message is delivered with RETAIN 0.
    ForgetRetain,
    /// The last byte of one message is altered.
    AlterRetained,
    /// One message is lost.
    LoseMessage,
    /// One message is sent twice.
    RepeatMessage,
    /// One message is sent to a client that has not subscribed to its topic.
    MisdirectMessage,
}

/// A topic with its length prefix, and its subscribers.
type Subscriber = (Vec<u8>, TcpStream);

/// A minimal broker: QoS 0, topics without wildcards, and retained messages under one filter.
#[derive(Clone, Debug)]
struct StandIn {
    retained: Arc<Mutex<Vec<Vec<u8>>>>,
    /// The last subscriber of each topic.
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
    /// `None` after the fault has happened.
    fault: Arc<Mutex<Fault>>,
    subscriptions: Arc<AtomicU32>,
}

const CLIENTS: u32 = 2;

impl StandIn {
    fn start(fault: Fault) -> LoopbackAddress {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let stand_in = Self {
            retained: Arc::default(),
            subscribers: Arc::default(),
            fault: Arc::new(Mutex::new(fault)),
            subscriptions: Arc::default(),
        };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let stand_in = stand_in.clone();
                thread::spawn(move || stand_in.serve(stream));
            }
        });
        address.parse().expect("127.0.0.1 is loopback")
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = vec![0; 64 * 1024];
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..])?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            let (mut used, mut out) = (0, Vec::new());
            while let Ok(Some((header, total))) = frame(&buffer[used..filled]) {
                let packet = &buffer[used..used + total];
                if packet[0] == 0xE0 {
                    return Ok(());
                }
                self.answer(packet, header, &mut out);
                match packet[0] {
                    0x82 => self.subscribe(&packet[header + 2..], stream.try_clone()?),
                    0x30 => self.publish(packet, header)?,
                    _ => {}
                }
                used += total;
            }
            buffer.copy_within(used..filled, 0);
            filled -= used;
            stream.write_all(&out)?;
        }
    }

    /// Records who receives messages of a topic from now on; `filter` starts with its length.
    fn subscribe(&self, filter: &[u8], stream: TcpStream) {
        let topic = filter[..filter.len() - 1].to_vec();
        let mut subscribers = self.subscribers.lock().expect("no thread panics with the lock");
        subscribers.retain(|(other, _)| *other != topic);
        subscribers.push((topic, stream));
    }

    fn publish(&self, packet: &[u8], header: usize) -> io::Result<()> {
        let mut subscribers = self.subscribers.lock().expect("no thread panics with the lock");
        let meant = |(topic, _): &Subscriber| packet[header..].starts_with(topic);
        let Some(mut at) = subscribers.iter().position(meant) else { return Ok(()) };
        if self.fails(Fault::LoseMessage) {
            return Ok(());
        }
        if self.fails(Fault::RepeatMessage) {
            subscribers[at].1.write_all(packet)?;
        }
        if self.fails(Fault::MisdirectMessage) {
            at = (at + 1) % subscribers.len();
        }
        subscribers[at].1.write_all(packet)
    }

    /// Whether this fault is due, and has not happened yet.
    fn fails(&self, fault: Fault) -> bool {
        let mut planted = self.fault.lock().expect("no thread panics with the lock");
        let subscribes = !matches!(fault, Fault::RefuseConnections | Fault::InventSession);
        let settled = self.subscriptions.load(Ordering::Relaxed) > CLIENTS;
        let due = *planted == fault && (settled || !subscribes);
        if due && fault != Fault::RefuseConnections {
            *planted = Fault::None;
        }
        due
    }

    fn answer(&self, packet: &[u8], header: usize, out: &mut Vec<u8>) {
        let identifier = |at: usize| [packet[at], packet[at + 1]];
        match packet[0] {
            0x10 => {
                let session_present = u8::from(self.fails(Fault::InventSession));
                let reason = if self.fails(Fault::RefuseConnections) { 5 } else { 0 };
                out.extend_from_slice(&[0x20, 2, session_present, reason]);
            }
            0x82 => {
                self.subscriptions.fetch_add(1, Ordering::Relaxed);
                let [high, mut low] = identifier(header);
                low ^= if self.fails(Fault::ConfuseSuback) { 0x80 } else { 0 };
                let reason = if self.fails(Fault::RefuseSubscription) { 0x80 } else { 0 };
                out.extend_from_slice(&[0x90, 3, high, low, reason]);
                self.deliver(out);
            }
            0xA2 => {
                let [high, low] = identifier(header);
                out.extend_from_slice(&[0xB0, 2, high, low]);
            }
            // An empty payload removes a retained message.
            0x31 if packet.ends_with(b".") => {
                self.retained.lock().expect("no thread panics with the lock").push(packet.to_vec());
            }
            0xC0 => out.extend_from_slice(&[0xD0, 0]),
            _ => {}
        }
    }

    fn deliver(&self, out: &mut Vec<u8>) {
        let retained = self.retained.lock().expect("no thread panics with the lock");
        for (number, packet) in retained.iter().enumerate() {
            if number == 5 && self.fails(Fault::LoseRetained) {
                continue;
            }
            out.extend_from_slice(packet);
            if number == 5 && self.fails(Fault::RepeatRetained) {
                out.extend_from_slice(packet);
            }
            if number == 5 && self.fails(Fault::ForgetRetain) {
                let at = out.len() - packet.len();
                out[at] &= !1;
            }
            if number == 5 && self.fails(Fault::AlterRetained) {
                *out.last_mut().expect("a packet has bytes") ^= 1;
            }
        }
    }
}

fn measure(scenario: Scenario, fault: Fault) -> Result<Outcome> {
    let workload = Workload {
        scenario,
        publishers: 0,
        subscribers: CLIENTS,
        topics: 10,
        mqtt: Version::V311,
        qos: Qos::AtMostOnce,
        payload_bytes: 64,
        are_sessions_kept: false,
        load: LoadMode::Closed { window: 10, burst: 1 },
        loss_fails: false,
        is_segment_each: false,
    };
    let settings = RunSettings {
        address: StandIn::start(fault),
        publishers_at: None,
        meter: None,
        warm_up: Duration::ZERO,
        span: Duration::from_millis(50),
        messages_max: u64::MAX,
        sources: Sources::new(0, CLIENTS),
        transport: Transport::default(),
        progress: false,
    };
    processes::measure(workload, 1, settings)
}

fn violations(scenario: Scenario, fault: Fault) -> Tally {
    measure(scenario, fault).expect("the command runs").violations
}

#[test]
fn a_correct_broker_has_no_violations() {
    let scenarios = [Scenario::Conn, Scenario::Sub, Scenario::Retained, Scenario::ReconnectStorm];
    for scenario in scenarios {
        let outcome = measure(scenario, Fault::None).expect("the command runs");
        assert_eq!(outcome.violations, Tally::default(), "{scenario:?}");
        let traffic = outcome.traffic.expect("something was done");
        assert!(traffic.delivered > 0 && traffic.latency_us.max > 0.0, "{scenario:?}");
    }
    let outcome = measure(Scenario::Connections, Fault::None).expect("the command runs");
    assert_eq!(outcome.idle.expect("idle figures").connections, 2);
}

#[test]
fn a_refused_connection_ends_the_run() {
    for scenario in [Scenario::Conn, Scenario::Sub, Scenario::Retained, Scenario::Connections] {
        let outcome = measure(scenario, Fault::RefuseConnections);
        assert!(outcome.is_err(), "{scenario:?}: {outcome:?}");
    }
}

#[test]
fn a_wrong_session_present_is_detected() {
    let expected = Tally { wrong_acknowledgements: 1, ..Tally::default() };
    assert_eq!(violations(Scenario::Conn, Fault::InventSession), expected);
}

#[test]
fn a_refused_subscription_is_detected() {
    let expected = Tally { wrong_acknowledgements: 1, ..Tally::default() };
    assert_eq!(violations(Scenario::Sub, Fault::RefuseSubscription), expected);
}

#[test]
fn an_unexpected_suback_and_a_missing_one_are_detected() {
    let expected = Tally { wrong_acknowledgements: 1, unacknowledged: 1, ..Tally::default() };
    assert_eq!(violations(Scenario::Sub, Fault::ConfuseSuback), expected);
}

#[test]
fn a_missing_retained_message_is_detected() {
    let expected = Tally { lost: 1, ..Tally::default() };
    assert_eq!(violations(Scenario::Retained, Fault::LoseRetained), expected);
}

#[test]
fn a_duplicate_retained_message_is_detected() {
    let expected = Tally { duplicated: 1, ..Tally::default() };
    assert_eq!(violations(Scenario::Retained, Fault::RepeatRetained), expected);
}

#[test]
fn a_retained_message_with_retain_0_is_detected() {
    let expected = Tally { misdelivered: 1, lost: 1, ..Tally::default() };
    assert_eq!(violations(Scenario::Retained, Fault::ForgetRetain), expected);
}

#[test]
fn an_altered_retained_message_is_detected() {
    let expected = Tally { corrupted: 1, lost: 1, ..Tally::default() };
    assert_eq!(violations(Scenario::Retained, Fault::AlterRetained), expected);
}

#[test]
fn a_missing_message_after_a_storm_is_detected() {
    let expected = Tally { lost: 1, ..Tally::default() };
    assert_eq!(violations(Scenario::ReconnectStorm, Fault::LoseMessage), expected);
}

#[test]
fn a_duplicate_message_after_a_storm_is_detected() {
    let expected = Tally { duplicated: 1, ..Tally::default() };
    assert_eq!(violations(Scenario::ReconnectStorm, Fault::RepeatMessage), expected);
}

#[test]
fn a_misdirected_message_after_a_storm_is_detected() {
    let expected = Tally { misdelivered: 1, lost: 1, ..Tally::default() };
    assert_eq!(violations(Scenario::ReconnectStorm, Fault::MisdirectMessage), expected);
}
