//! Incomplete packets, handshakes and requests.

use super::{SENT_BYTES_MAX, bounded, bounded_with};
use crate::{
    certificate,
    hostile::{
        field::{Attack, Ended, Field, Setup, Strike},
        packets::{self, Connect, Publish},
        peer::{Heard, Peer, Pump, Refusal},
    },
};

pub const KINDS: &[Attack] = &[
    Attack {
        name: "half-connects",
        about: "100 CONNECTs of 16 MiB without their last byte, unauthenticated",
        setup: bounded,
        prepare: half_connects,
        in_short: true,
    },
    Attack {
        name: "half-publishes",
        about: "150 PUBLISHes of 16 MiB without their last byte",
        setup: bounded,
        prepare: half_publishes,
        in_short: true,
    },
    Attack {
        name: "half-hellos",
        about: "3,000 TLS handshakes with an incomplete ClientHello of 64 KiB, unauthenticated",
        setup: tls,
        prepare: half_hellos,
        in_short: false,
    },
    Attack {
        name: "half-upgrades",
        about: "2,000 incomplete WebSocket requests, unauthenticated",
        setup: websocket,
        prepare: half_upgrades,
        in_short: false,
    },
    Attack {
        name: "idle-sockets",
        about: "3,000 connections without data, unauthenticated",
        setup: bounded,
        prepare: idle_sockets,
        in_short: false,
    },
];

/// Every connection sends this, and stays open.
pub(super) fn send_all(field: &Field, mut peers: Vec<Peer>, bytes: Vec<u8>) -> Heard<Ended> {
    let pump = Pump {
        first: &bytes,
        again: &[],
        each_max: bytes.len(),
        total_max: SENT_BYTES_MAX,
        end: field.end(),
    };
    let sent = pump.run(&mut peers);
    let words = last_words(&mut peers);
    let heard = format!("{} MB sent{words}", sent / 1_000_000);
    Ok(Ended::holding(heard, peers))
}

/// The last response of each connection, and how many received it.
pub(super) fn last_words(peers: &mut [Peer]) -> String {
    let mut words: Vec<(Refusal, usize)> = Vec::new();
    for peer in peers {
        let soon = std::time::Instant::now() + std::time::Duration::from_millis(1);
        let word = peer.last_word(soon);
        match words.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => words.push((word, 1)),
        }
    }
    words.retain(|(word, _)| *word != Refusal::Silence);
    words.iter().map(|(word, count)| format!(", {count} × {word}")).collect()
}

/// This many connections without data, or fewer if the broker accepts no more.
fn strangers(field: &Field, count: usize) -> Vec<Peer> {
    (0..count).map_while(|_| field.open().ok()).collect()
}

fn half_connects(_: &Field) -> Heard<Strike> {
    let properties = packets::user_properties((16 << 20) - 100);
    let mut bytes = Connect { properties: &properties, ..Connect::clean("half") }.encode();
    bytes.pop();
    Ok(Box::new(move |field| send_all(field, strangers(field, 100), bytes)))
}

fn half_publishes(field: &Field) -> Heard<Strike> {
    let mut peers = Vec::new();
    for number in 0..150 {
        peers.push(field.join(&format!("half-{number}"))?);
    }
    let payload = vec![b'.'; (16 << 20) - 100];
    let mut bytes = Vec::new();
    Publish { topic: "half", payload: &payload, ..Publish::default() }.append(&mut bytes);
    bytes.pop();
    Ok(Box::new(move |field| send_all(field, peers, bytes)))
}

/// A second listener, on another loopback address and the same port.
fn second_listener(lines: &str, files: Vec<(&'static str, String)>) -> Setup {
    let bounded = bounded_with("");
    Setup {
        ringmq: format!(
            "[[listeners]]\nbind = \"127.0.0.2:{{port}}\"\nanonymous = true\n{lines}\n{}",
            bounded.ringmq
        ),
        lacks_mosquitto: true,
        files,
        ..bounded
    }
}

/// The same broker on the second listener.
fn beside(field: &Field) -> Field {
    let port = field.address.socket_address().port();
    let address = format!("127.0.0.2:{port}").parse().expect("a loopback address");
    Field { address, ..*field }
}

fn tls(_: &Field) -> Setup {
    let [certificate, key] = certificate::fresh().unwrap_or_default();
    second_listener(
        "transport = \"tls\"\n[listeners.tls]\ncertificate = \"{dir}/server.pem\"\n\
         key = \"{dir}/server-key.pem\"",
        vec![("server.pem", certificate), ("server-key.pem", key)],
    )
}

fn half_hellos(_: &Field) -> Heard<Strike> {
    // rustls accepts handshake messages of at most 65,535 bytes; records carry 16 KiB.
    const HELLO_BYTES: usize = 65_000;
    let mut hello = vec![1, 0, (HELLO_BYTES >> 8) as u8, HELLO_BYTES as u8, 3, 3];
    hello.resize(HELLO_BYTES, 0);
    let mut bytes = Vec::new();
    for record in hello.chunks(16_000) {
        bytes.extend_from_slice(&[22, 3, 1]);
        bytes.extend_from_slice(&(record.len() as u16).to_be_bytes());
        bytes.extend_from_slice(record);
    }
    Ok(Box::new(move |field| {
        let strangers = strangers(&beside(field), field.count(3_000, 200));
        send_all(field, strangers, bytes)
    }))
}

fn websocket(_: &Field) -> Setup {
    second_listener("transport = \"ws\"", Vec::new())
}

fn half_upgrades(_: &Field) -> Heard<Strike> {
    let mut bytes = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n".to_vec();
    for number in 0..2_000 {
        bytes.extend_from_slice(format!("X-Field-{number}: {}\r\n", "x".repeat(40)).as_bytes());
    }
    Ok(Box::new(move |field| {
        let strangers = strangers(&beside(field), field.count(2_000, 200));
        send_all(field, strangers, bytes)
    }))
}

fn idle_sockets(_: &Field) -> Heard<Strike> {
    Ok(Box::new(move |field| {
        let strangers = strangers(field, field.count(3_000, 500));
        let heard = format!("{} open", strangers.len());
        Ok(Ended::holding(heard, strangers))
    }))
}
