//! One kind of packet, as fast as one connection accepts it.

use crate::hostile::{
    attack::{Attack, AttackFn, AttackOutcome, Setup, Target, plain},
    packets::{self, Publish, append_acknowledgement},
    peer::{Exchange, Peer},
};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "pingreq-flood",
        about: "endless PINGREQs",
        setup: plain,
        prepare: |target| flood(target, packets::PINGREQ.repeat(30_000)),
        in_short: true,
    },
    Attack {
        name: "tiny-publishes",
        about: "endless QoS 0 publishes of 5 bytes",
        setup: plain,
        prepare: tiny,
        in_short: false,
    },
    Attack {
        name: "new-topics",
        about: "publishes, each to a different topic",
        setup: plain,
        prepare: new_topics,
        in_short: true,
    },
    Attack {
        name: "pubrec-flood",
        about: "PUBREC of unknown messages",
        setup: plain,
        prepare: |target| flood(target, acknowledgements(0x50)),
        in_short: false,
    },
    Attack {
        name: "pubrel-flood",
        about: "PUBREL of unknown messages",
        setup: plain,
        prepare: |target| flood(target, acknowledgements(0x62)),
        in_short: false,
    },
    Attack {
        name: "properties-16MiB",
        about: "publishes of 16 MiB of User Properties to one subscriber",
        setup: plain,
        prepare: long_properties,
        in_short: false,
    },
    Attack {
        name: "payload-16MiB",
        about: "publishes of 16 MiB to ten subscribers",
        setup: plain,
        prepare: long_payloads,
        in_short: false,
    },
    Attack {
        name: "qos-2-flood",
        about: "QoS 2 publishes without PUBREL, beyond the Receive Maximum, repeatedly",
        setup: plain,
        prepare: qos_2,
        in_short: false,
    },
    Attack {
        name: "websocket-bytes",
        about: "PINGREQs over WebSocket, a frame for each byte",
        setup: websocket,
        prepare: websocket_bytes,
        in_short: false,
    },
    Attack {
        name: "stored-flood",
        about: "QoS 1 publishes for a disconnected session, with a store",
        setup: |_| Setup { has_store: true, ..Setup::default() },
        prepare: stored,
        in_short: false,
    },
];

/// Sends these bytes repeatedly, and discards the responses.
fn flood(target: &Target, bytes: Vec<u8>) -> Exchange<AttackFn> {
    let peer = target.join("flooder")?;
    Ok(send_repeatedly(peer, bytes))
}

fn send_repeatedly(mut peer: Peer, bytes: Vec<u8>) -> AttackFn {
    Box::new(move |target| {
        let end = target.end();
        let mut total = 0;
        peer.drain()?;
        loop {
            let sent = peer.send_until(&bytes, end);
            total += sent;
            if sent < bytes.len() {
                break;
            }
        }
        let heard = format!("{:.1} MB sent", total as f64 / 1e6);
        Ok(AttackOutcome::holding(heard, vec![peer]))
    })
}

fn acknowledgements(first_byte: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    (1..=u16::MAX)
        .for_each(|identifier| append_acknowledgement(first_byte, identifier, &mut bytes));
    bytes
}

fn tiny(target: &Target) -> Exchange<AttackFn> {
    let mut one = Vec::new();
    Publish { topic: "t", ..Publish::default() }.append(&mut one);
    flood(target, one.repeat(20_000))
}

fn new_topics(target: &Target) -> Exchange<AttackFn> {
    let mut bytes = Vec::new();
    for number in 0..target.count(200_000, 50_000) {
        let topic = format!("new/{number}");
        Publish { topic: &topic, ..Publish::default() }.append(&mut bytes);
    }
    flood(target, bytes)
}

/// Clients that subscribe to a topic and read all messages.
fn listeners(target: &Target, count: usize, topic: &str) -> Exchange<Vec<Peer>> {
    let mut peers = Vec::new();
    for number in 0..count {
        let mut peer = target.join(&format!("listener-{number}"))?;
        peer.subscribe_all(0, &[topic])?;
        peer.drain()?;
        peers.push(peer);
    }
    Ok(peers)
}

fn long_properties(target: &Target) -> Exchange<AttackFn> {
    let properties = packets::user_properties((16 << 20) - 100);
    let mut bytes = Vec::new();
    Publish { topic: "long", properties: &properties, ..Publish::default() }.append(&mut bytes);
    heavy(target, bytes, 1)
}

fn long_payloads(target: &Target) -> Exchange<AttackFn> {
    let payload = vec![b'.'; (16 << 20) - 100];
    let mut bytes = Vec::new();
    Publish { topic: "long", payload: &payload, ..Publish::default() }.append(&mut bytes);
    heavy(target, bytes, 10)
}

fn heavy(target: &Target, bytes: Vec<u8>, count: usize) -> Exchange<AttackFn> {
    let mut peers = listeners(target, count, "long")?;
    let strike = send_repeatedly(target.join("flooder")?, bytes);
    Ok(Box::new(move |target| {
        let mut ended = strike(target)?;
        ended.held.append(&mut peers);
        Ok(ended)
    }))
}

fn qos_2(target: &Target) -> Exchange<AttackFn> {
    let mut bytes = Vec::new();
    for identifier in 1..=u16::MAX {
        Publish { topic: "q", qos: 2, identifier, ..Publish::default() }.append(&mut bytes);
    }
    let patience = target.patience;
    Ok(Box::new(move |target| {
        let (end, mut rounds, mut word) = (target.end(), 0, None);
        while std::time::Instant::now() < end && rounds < 1_000 {
            let mut peer = Peer::connect(
                target.address,
                patience,
                &packets::Connect { clean: true, ..packets::Connect::clean("twice") },
            )?;
            peer.send_until(&bytes, end);
            word = Some(peer.last_word(
                end.min(std::time::Instant::now() + std::time::Duration::from_millis(200)),
            ));
            rounds += 1;
        }
        let word = word.map_or(String::new(), |word| format!(": {word}"));
        Ok(AttackOutcome::with(format!("{rounds} times{word}")))
    }))
}

fn stored(target: &Target) -> Exchange<AttackFn> {
    let mut away = target.connect(&packets::Connect::kept("away"))?;
    away.subscribe_all(1, &["stored"])?;
    away.send(&packets::DISCONNECT)?;
    let mut bytes = Vec::new();
    for identifier in 1..=60_000 {
        let payload = &[b'.'; 100];
        Publish { topic: "stored", qos: 1, identifier, payload, ..Publish::default() }
            .append(&mut bytes);
    }
    flood(target, bytes)
}

/// A second listener, on another loopback address and the same port.
fn websocket(_: &Target) -> Setup {
    let listener =
        "[[listeners]]\nbind = \"127.0.0.2:{port}\"\ntransport = \"ws\"\nanonymous = true\n";
    Setup { ringmq: listener.into(), lacks_mosquitto: true, ..Setup::default() }
}

fn websocket_bytes(target: &Target) -> Exchange<AttackFn> {
    let port = target.address.socket_address().port();
    let address = format!("127.0.0.2:{port}").parse().expect("a loopback address");
    let mut peer = Peer::open(address, target.patience)?;
    peer.send(
        b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Protocol: mqtt\r\n\r\n",
    )?;
    peer.await_bytes(b"\r\n\r\n")?;
    let framed = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().flat_map(|byte| [0x82, 0x81, 0, 0, 0, 0, *byte]).collect()
    };
    peer.send(&framed(&packets::Connect::clean("framed").encode()))?;
    Ok(send_repeatedly(peer, framed(&packets::PINGREQ.repeat(10_000))))
}
