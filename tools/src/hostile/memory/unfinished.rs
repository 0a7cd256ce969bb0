//! Incomplete packets, handshakes and requests.

use super::{SENT_BYTES_MAX, bounded, bounded_with};
use crate::{
    certificate,
    hostile::{
        attack::{Attack, AttackFn, AttackOutcome, Setup, Target},
        packets::{self, Connect, Publish},
        peer::{Exchange, Peer, Pump, Refusal},
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
pub(super) fn send_all(
    target: &Target,
    mut peers: Vec<Peer>,
    bytes: Vec<u8>,
) -> Exchange<AttackOutcome> {
    let pump = Pump {
        first: &bytes,
        again: &[],
        each_max: bytes.len(),
        total_max: SENT_BYTES_MAX,
        end: target.end(),
    };
    let sent = pump.run(&mut peers);
    let words = last_words(&mut peers);
    let heard = format!("{} MB sent{words}", sent / 1_000_000);
    Ok(AttackOutcome::holding(heard, peers))
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
fn strangers(target: &Target, count: usize) -> Vec<Peer> {
    (0..count).map_while(|_| target.open().ok()).collect()
}

fn half_connects(_: &Target) -> Exchange<AttackFn> {
    let properties = packets::user_properties((16 << 20) - 100);
    let mut bytes = Connect { properties: &properties, ..Connect::clean("half") }.encode();
    bytes.pop();
    Ok(Box::new(move |target| send_all(target, strangers(target, 100), bytes)))
}

fn half_publishes(target: &Target) -> Exchange<AttackFn> {
    let mut peers = Vec::new();
    for number in 0..150 {
        peers.push(target.join(&format!("half-{number}"))?);
    }
    let payload = vec![b'.'; (16 << 20) - 100];
    let mut bytes = Vec::new();
    Publish { topic: "half", payload: &payload, ..Publish::default() }.append(&mut bytes);
    bytes.pop();
    Ok(Box::new(move |target| send_all(target, peers, bytes)))
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
fn beside(target: &Target) -> Target {
    let port = target.address.socket_address().port();
    let address = format!("127.0.0.2:{port}").parse().expect("a loopback address");
    Target { address, ..*target }
}

fn tls(_: &Target) -> Setup {
    let [certificate, key] = certificate::fresh().unwrap_or_default();
    second_listener(
        "transport = \"tls\"\n[listeners.tls]\ncertificate = \"{dir}/server.pem\"\n\
         key = \"{dir}/server-key.pem\"",
        vec![("server.pem", certificate), ("server-key.pem", key)],
    )
}

fn half_hellos(_: &Target) -> Exchange<AttackFn> {
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
    Ok(Box::new(move |target| {
        let strangers = strangers(&beside(target), target.count(3_000, 200));
        send_all(target, strangers, bytes)
    }))
}

fn websocket(_: &Target) -> Setup {
    second_listener("transport = \"ws\"", Vec::new())
}

fn half_upgrades(_: &Target) -> Exchange<AttackFn> {
    let mut bytes = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n".to_vec();
    for number in 0..2_000 {
        bytes.extend_from_slice(format!("X-Target-{number}: {}\r\n", "x".repeat(40)).as_bytes());
    }
    Ok(Box::new(move |target| {
        let strangers = strangers(&beside(target), target.count(2_000, 200));
        send_all(target, strangers, bytes)
    }))
}

fn idle_sockets(_: &Target) -> Exchange<AttackFn> {
    Ok(Box::new(move |target| {
        let strangers = strangers(target, target.count(3_000, 500));
        let heard = format!("{} open", strangers.len());
        Ok(AttackOutcome::holding(heard, strangers))
    }))
}
