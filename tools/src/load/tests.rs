//! Whole runs against a relay that replaces the broker and has one planted fault.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::*;
use crate::{
    codec::{Qos, Version, frame},
    processes,
    scenario::{LoadMode, Scenario},
    verify::Tally,
};

/// The fault, applied to the tenth message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Lose,
    Duplicate,
    /// The message is sent after its successor.
    Reorder,
    Corrupt,
    /// The message is delivered at QoS 1.
    OtherQos,
    /// The connection is closed.
    Close,
}

/// A broker for QoS 0 that relays every message to every subscriber unchanged. Its cost is a lower
/// bound for any broker; used for faults and to measure the generator.
#[derive(Clone, Debug)]
struct Relay {
    subscribers: Arc<Mutex<Vec<TcpStream>>>,
    fault: Fault,
}

impl Relay {
    fn start(fault: Fault) -> LoopbackAddress {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let relay = Self { subscribers: Arc::default(), fault };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let relay = relay.clone();
                thread::spawn(move || relay.serve(stream));
            }
        });
        address.parse().expect("127.0.0.1 is loopback")
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut buffer = vec![0; 256 * 1024];
        let (mut filled, mut count) = (0, 0);
        loop {
            let read = stream.read(&mut buffer[filled..]).ok().filter(|&read| read > 0)?;
            filled += read;
            let mut out = Vec::with_capacity(filled);
            let mut used = 0;
            while let Ok(Some((_, total))) = frame(&buffer[used..filled]) {
                let packet = &buffer[used..used + total];
                match packet[0] {
                    0x10 => stream.write_all(b"\x20\x02\x00\x00").ok()?,
                    0x82 => {
                        self.subscribers.lock().ok()?.push(stream.try_clone().ok()?);
                        stream.write_all(b"\x90\x03\x00\x01\x00").ok()?;
                    }
                    0x30 => {
                        count += 1;
                        self.relay(count, packet, &mut out);
                    }
                    _ => return None,
                }
                used += total;
            }
            buffer.copy_within(used..filled, 0);
            filled -= used;
            for subscriber in self.subscribers.lock().ok()?.iter_mut() {
                subscriber.write_all(&out).ok()?;
            }
        }
    }

    /// Relays message `count`, with the fault applied.
    fn relay(&self, count: u64, packet: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(packet);
        let start = out.len() - packet.len();
        match (self.fault, count) {
            (Fault::Lose, 10) => out.truncate(start),
            (Fault::Duplicate, 10) => out.extend_from_slice(packet),
            // Both messages arrive in one read, as a window's messages are sent in one write.
            (Fault::Reorder, 10) => out[start - packet.len()..].rotate_left(packet.len()),
            (Fault::Corrupt, 10) => *out.last_mut().expect("a packet has bytes") ^= 1,
            (Fault::OtherQos, 10) => {
                out[start] = 0x32;
                out[start + 1] += 2;
                let topic = usize::from(packet[3]);
                out.splice(start + 4 + topic..start + 4 + topic, [0, 1]);
            }
            (Fault::Close, 10) => {
                let subscribers = self.subscribers.lock().expect("no thread panics with the lock");
                for subscriber in subscribers.iter() {
                    _ = subscriber.shutdown(std::net::Shutdown::Both);
                }
            }
            _ => {}
        }
    }
}

fn workload(scenario: Scenario, publishers: u32, subscribers: u32) -> Workload {
    Workload {
        scenario,
        publishers,
        subscribers,
        mqtt: Version::V311,
        qos: Qos::AtMostOnce,
        topics: 1,
        payload_bytes: 64,
        are_sessions_kept: false,
        load: LoadMode::Closed { window: 20, burst: 1 },
        loss_fails: false,
        is_segment_each: false,
    }
}

fn settings(address: LoopbackAddress, messages_max: u64) -> RunSettings {
    RunSettings {
        address,
        publishers_at: None,
        meter: None,
        warm_up: Duration::ZERO,
        span: Duration::from_secs(10),
        messages_max,
        sources: Sources::new(0, 1),
        transport: Transport::default(),
        progress: false,
    }
}

fn violations(fault: Fault) -> Tally {
    let settings = settings(Relay::start(fault), 1_000);
    let outcome = processes::measure(workload(Scenario::FanOut, 1, 2), 1, settings)
        .expect("the command runs");
    let traffic = outcome.traffic.expect("messages were sent");
    assert_eq!(traffic.published, 1_000);
    assert_eq!(traffic.delivered, 2_000 - outcome.violations.lost);
    outcome.violations
}

#[test]
fn a_correct_broker_has_no_violations() {
    assert_eq!(violations(Fault::None), Tally::default());
}

#[test]
fn a_planted_loss_is_detected() {
    assert_eq!(violations(Fault::Lose), Tally { lost: 2, ..Tally::default() });
}

#[test]
fn a_planted_duplicate_is_detected() {
    assert_eq!(violations(Fault::Duplicate), Tally { duplicated: 2, ..Tally::default() });
}

#[test]
fn a_planted_disorder_is_detected() {
    assert_eq!(violations(Fault::Reorder), Tally { reordered: 2, ..Tally::default() });
}

#[test]
fn an_altered_payload_is_detected() {
    let expected = Tally { corrupted: 2, lost: 2, ..Tally::default() };
    assert_eq!(violations(Fault::Corrupt), expected);
}

#[test]
fn another_qos_is_detected() {
    assert_eq!(violations(Fault::OtherQos), Tally { wrong_qos: 2, ..Tally::default() });
}

#[test]
fn a_closed_connection_ends_the_run() {
    let settings = settings(Relay::start(Fault::Close), 1_000);
    let outcome = processes::measure(workload(Scenario::FanOut, 1, 2), 1, settings);
    assert!(outcome.is_err(), "{outcome:?}");
}

#[test]
fn an_open_loop_sends_at_its_rate() {
    let mut workload = workload(Scenario::FanIn, 5, 1);
    workload.load = LoadMode::Open { per_second: 2_000.0 };
    let mut settings = settings(Relay::start(Fault::None), u64::MAX);
    settings.span = Duration::from_millis(500);
    let outcome = processes::measure(workload, 1, settings).expect("the command runs");
    let traffic = outcome.traffic.expect("messages were sent");
    assert!((900..=1_100).contains(&traffic.published), "{traffic:?}");
    assert!(outcome.violations.is_clean());
}

/// The cost of the generator per delivery with a broker that coalesces ideally. Run it with
/// `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn cost_of_the_generator() {
    for (window, burst) in [(1, 1), (16, 16), (100, 100), (1_000, 1_000)] {
        let mut workload = workload(Scenario::FanOut, 1, 500);
        workload.load = LoadMode::Closed { window, burst };
        let mut settings = settings(Relay::start(Fault::None), u64::MAX);
        settings.span = Duration::from_secs(2);
        let outcome = processes::measure(workload, 1, settings).expect("the command runs");
        println!("{}", crate::report::outcome_text(&outcome));
    }
}
