//! Innocent clients with a stand-in for a broker that has one fault.

use std::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    time::Instant,
};

use super::*;

/// A fault of the stand-in, once or permanently, after it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// No response for 300 ms.
    Stall,
    /// The client that subscribed first is disconnected.
    SendAway,
    /// One message is acknowledged and not delivered.
    Lose,
    /// No further client is accepted.
    Refuse,
}

#[derive(Debug)]
struct StandIn {
    fault: Mutex<Fault>,
    /// Topics with their length prefix, and their subscribers.
    subscribers: Mutex<Vec<(Vec<u8>, TcpStream)>>,
}

impl StandIn {
    fn start() -> (LoopbackAddress, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let fault = Mutex::new(Fault::None);
        let stand_in = Arc::new(Self { fault, subscribers: Mutex::default() });
        let shared = Arc::clone(&stand_in);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(stream));
            }
        });
        (address.parse().expect("127.0.0.1 is loopback"), stand_in)
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().expect("no thread panics") = fault;
    }

    /// Whether this fault is set; clears it.
    fn takes(&self, fault: Fault) -> bool {
        let mut current = self.fault.lock().expect("no thread panics");
        let is_taken = *current == fault;
        if is_taken {
            *current = Fault::None;
        }
        is_taken
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut inbox, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                read => inbox.extend_from_slice(&buffer[..read]),
            }
            while let Ok(Some((header, total))) = codec::frame(&inbox) {
                let packet: Vec<u8> = inbox.drain(..total).collect();
                self.answer(&mut stream, &packet, header)?;
            }
        }
    }

    fn answer(&self, stream: &mut TcpStream, packet: &[u8], header: usize) -> io::Result<()> {
        if *self.fault.lock().expect("no thread panics") == Fault::Stall {
            thread::sleep(Duration::from_millis(300));
            self.takes(Fault::Stall);
        }
        let body = &packet[header..];
        match packet[0] >> 4 {
            1 => {
                let is_refused = *self.fault.lock().expect("no thread panics") == Fault::Refuse;
                stream.write_all(&[0x20, 2, 0, if is_refused { 3 } else { 0 }])
            }
            8 => {
                let topic = body[2..body.len() - 1].to_vec();
                let subscriber = (topic, stream.try_clone()?);
                self.subscribers.lock().expect("no thread panics").push(subscriber);
                stream.write_all(&[0x90, 3, body[0], body[1], 1])
            }
            3 => self.forward(stream, packet, body),
            12 => stream.write_all(&[0xD0, 0]),
            _ => Ok(()),
        }
    }

    fn forward(&self, stream: &mut TcpStream, packet: &[u8], body: &[u8]) -> io::Result<()> {
        let topic_end = 2 + usize::from(body[1]);
        let mut puback = Vec::new();
        codec::encode_puback(
            u16::from_be_bytes([body[topic_end], body[topic_end + 1]]),
            &mut puback,
        );
        stream.write_all(&puback)?;
        let subscribers = self.subscribers.lock().expect("no thread panics");
        if self.takes(Fault::SendAway) {
            return subscribers[0].1.shutdown(std::net::Shutdown::Both);
        }
        if self.takes(Fault::Lose) {
            return Ok(());
        }
        let found = subscribers.iter().find(|(topic, _)| *topic == body[..topic_end]);
        let Some((_, to)) = found else { return Ok(()) };
        let mut to = to;
        // A disconnected subscriber receives no message, which is not a fault of the publisher.
        let _ = to.write_all(packet);
        Ok(())
    }
}

/// The measurements of two pairs, one pinging and one reconnecting client.
fn noticed(fault: Fault) -> Record {
    let (address, stand_in) = StandIn::start();
    let habits = Intervals { pairs: 2, ..Intervals::default() };
    let innocents = Innocents::start(address, habits).expect("all clients are accepted");
    thread::sleep(Duration::from_millis(200));
    stand_in.set(fault);
    thread::sleep(Duration::from_millis(700));
    let calm = Instant::now() + Duration::from_secs(10);
    while innocents.waiting() > Duration::from_millis(20) && Instant::now() < calm {
        thread::sleep(Duration::from_millis(1));
    }
    innocents.finish().expect("the thread runs")
}

fn longest_ms(record: &Record) -> u64 {
    record.samples.iter().map(|sample| sample.took_ns / 1_000_000).max().expect("messages")
}

#[test]
fn a_correct_broker_causes_no_incident() {
    let record = noticed(Fault::None);
    let count = |kind| record.samples.iter().filter(|sample| sample.kind == kind).count();
    assert!(count(Kind::Message) > 50, "{}", count(Kind::Message));
    assert!(count(Kind::Ping) > 5 && count(Kind::Connect) > 3);
    assert_eq!((record.disconnects.len(), record.refused.len(), record.lost), (0, 0, 0));
}

#[test]
fn a_stall_shows_in_the_latency_of_messages() {
    let record = noticed(Fault::Stall);
    assert!(longest_ms(&record) >= 250, "{}", longest_ms(&record));
    assert_eq!((record.disconnects.len(), record.lost), (0, 0));
}

#[test]
fn a_disconnected_client_is_counted_and_the_others_continue() {
    let record = noticed(Fault::SendAway);
    assert_eq!(record.disconnects.len(), 1);
    let after = record.samples.iter().filter(|sample| sample.began_ns > record.disconnects[0]);
    assert!(after.filter(|sample| sample.kind == Kind::Message).count() > 10);
}

#[test]
fn a_missing_message_is_lost_and_not_late() {
    assert_eq!(noticed(Fault::Lose).lost, 1);
}

#[test]
fn a_refused_connection_is_counted() {
    let record = noticed(Fault::Refuse);
    assert!(!record.refused.is_empty());
    assert!(record.disconnects.is_empty());
}
