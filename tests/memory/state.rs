//! Memory that connected clients can make a broker use: retained messages, subscriptions, queues,
//! acknowledgements.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Connect, Encode, Property, Publish, Subscribe, V5};
use crate::{Attacked, Kind, Outcome, check};

/// A connection that has received CONNACK.
fn log_in(attacked: &Attacked, connect: Connect) -> TcpStream {
    let mut stream = TcpStream::connect(attacked.address).expect("the server listens");
    stream.write_all(&connect.bytes()).expect("CONNECT is sent");
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("CONNACK");
    stream.read_exact(&mut vec![0; usize::from(head[1])]).expect("the rest of the packet");
    stream
}

/// Sends packets until all are sent or the broker accepts no more for a while. Discards input
/// meanwhile if `reads`.
fn pour(stream: &mut TcpStream, packets: impl Iterator<Item = Vec<u8>>, reads: bool) {
    let until = Instant::now() + Duration::from_secs(15);
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("an option");
    let reader = reads.then(|| {
        let mut stream = stream.try_clone().expect("a descriptor");
        std::thread::spawn(
            move || while stream.read(&mut [0; 65_536]).is_ok_and(|bytes| bytes > 0) {},
        )
    });
    let mut buffer = Vec::new();
    for packet in packets {
        buffer.extend(packet);
        if buffer.len() > 60_000 {
            if stream.write_all(&buffer).is_err() || Instant::now() > until {
                break;
            }
            buffer.clear();
        }
    }
    let _ = stream.write_all(&buffer);
    if let Some(reader) = reader {
        std::thread::sleep(Duration::from_millis(500));
        let _ = stream.shutdown(std::net::Shutdown::Both);
        reader.join().expect("the thread ends");
    }
}

#[test]
fn unread_responses() {
    check(&Kind {
        name: "4 clients that take no PINGRESP",
        attack: |attacked| {
            let mut outcome = Outcome::default();
            for n in 0..4 {
                let mut stream = log_in(attacked, Connect::v5(&format!("deaf {n}")));
                pour(&mut stream, std::iter::repeat_n(vec![0xC0, 0x00], 4_000_000), false);
                outcome.open.push(stream);
            }
            outcome
        },
        counts: "clients/unread",
        ..Kind::default()
    });
}

#[test]
fn messages_queued_for_disconnected_clients() {
    check(&Kind {
        name: "100 MB queued for one who is away",
        attack: |attacked| {
            let outcome = Outcome::default();
            let away = Connect::v5("away").property(Property::SessionExpiryInterval(3_600));
            let mut away = log_in(attacked, away);
            away.write_all(&Subscribe::new(1, "queue", 1).encode(V5)).expect("SUBSCRIBE is sent");
            away.read_exact(&mut [0; 6]).expect("SUBACK");
            drop(away);
            let mut publisher = log_in(attacked, Connect::v5("publisher"));
            let message = |n: u16| Publish::new("queue", "x".repeat(10_000)).qos(1, n).encode(V5);
            pour(&mut publisher, (1..=10_000).map(message), true);
            outcome
        },
        counts: "publish/messages/dropped/memory-full",
        ..Kind::default()
    });
}

#[test]
fn retained_topics_of_many_levels() {
    check(&Kind {
        name: "20,000 retained topics of 250 levels",
        configuration: "limits.topic_levels_max = 256\n".to_owned(),
        attack: |attacked| {
            let mut stream = log_in(attacked, Connect::v5("retainer"));
            let topic = |n: u32| format!("{n}/{}a", "a/".repeat(248));
            let message = |n| Publish::new(&topic(n), "x").retain().encode(V5);
            pour(&mut stream, (0..20_000).map(message), true);
            Outcome::default()
        },
        ..Kind::default()
    });
}

#[test]
fn filters_of_many_levels() {
    check(&Kind {
        name: "20,000 filters of 250 levels",
        configuration:
            "limits.topic_levels_max = 256\nlimits.subscriptions_per_client_max = 100000\n"
                .to_owned(),
        attack: |attacked| {
            let mut stream = log_in(attacked, Connect::v5("subscriber"));
            let filter = |n: u32| format!("{n}/{}+", "a/".repeat(248));
            let packet = |n| Subscribe::new(1, filter(n), 0).encode(V5);
            pour(&mut stream, (0..20_000).map(packet), true);
            Outcome::default()
        },
        ..Kind::default()
    });
}
