//! State that clients request: topics, filters, sessions, queues.

use std::{thread, time::Duration};

use super::{BOUND_BYTES, bounded, bounded_with};
use crate::hostile::{
    attack::{Attack, AttackFn, AttackOutcome, Target},
    packets::{self, Connect, Publish},
    peer::{Exchange, Peer, Refusal},
};

pub const KINDS: &[Attack] = &[
    Attack {
        name: "retained-deep",
        about: "100,000 retained messages on topics of 255 levels",
        setup: bounded,
        prepare: retained_deep,
        in_short: true,
    },
    Attack {
        name: "filters-deep",
        about: "100,000 filters of 255 levels with a wildcard, of 10 clients",
        setup: bounded,
        prepare: filters_deep,
        in_short: false,
    },
    Attack {
        name: "topic-cache",
        about: "10,000 shared groups on # of one client, and publishes to 3,000 topics",
        setup: bounded,
        prepare: topic_cache,
        in_short: false,
    },
    Attack {
        name: "topic-cache-long",
        about: "publishes to 20,000 topics of 65,535 bytes",
        setup: bounded,
        prepare: topic_cache_long,
        in_short: false,
    },
    Attack {
        name: "retained-expired",
        about: "the maximum number of retained messages, which expire; then one more",
        setup: |_| bounded_with("retained_messages_max = 10_000"),
        prepare: retained_expired,
        in_short: true,
    },
    Attack {
        name: "many-feeds",
        about: "one SUBSCRIBE of 2.9 million filters, with retained messages",
        setup: bounded,
        prepare: many_feeds,
        in_short: false,
    },
    Attack {
        name: "aliases",
        about: "64 Topic Aliases of 65,535 bytes on each of 100 connections",
        setup: bounded,
        prepare: aliases,
        in_short: true,
    },
    Attack {
        name: "wills",
        about: "5,000 persistent sessions with Wills of 60 KB, delayed by an hour",
        setup: bounded,
        prepare: wills,
        in_short: false,
    },
    Attack {
        name: "sessions",
        about: "persistent sessions with Client Identifiers of 60 KB, as many as the broker accepts",
        setup: bounded,
        prepare: sessions,
        in_short: false,
    },
    Attack {
        name: "queues",
        about: "messages of 1 KiB for 100 disconnected sessions, each on a topic of its own",
        setup: bounded,
        prepare: queues,
        in_short: false,
    },
    Attack {
        name: "small-queues",
        about: "messages of 1 byte for 10 disconnected sessions",
        setup: bounded,
        prepare: small_queues,
        in_short: true,
    },
];

/// Sends as long as the broker accepts data, and returns its last response.
fn send_pieces(
    peer: &mut Peer,
    target: &Target,
    pieces: impl Iterator<Item = Vec<u8>>,
) -> (usize, String) {
    let end = target.end() + target.span;
    let mut sent = 0;
    for piece in pieces {
        let taken = peer.send_until(&piece, end);
        sent += taken;
        if taken < piece.len() {
            break;
        }
    }
    let word = match peer.last_word(std::time::Instant::now() + Duration::from_millis(100)) {
        Refusal::Silence => String::new(),
        word => format!(", {word}"),
    };
    (sent, word)
}

fn retained_deep(target: &Target) -> Exchange<AttackFn> {
    let mut publisher = target.join("publisher")?;
    let stem = "/".repeat(254);
    let topics = target.count(100_000, 30_000);
    Ok(Box::new(move |target| {
        let pieces = (0..topics / 100).map(|piece| {
            let mut bytes = Vec::new();
            for number in piece * 100..(piece + 1) * 100 {
                let topic = format!("{number}{stem}");
                Publish { topic: &topic, retain: true, payload: b"x", ..Publish::default() }
                    .append(&mut bytes);
            }
            bytes
        });
        let (sent, word) = send_pieces(&mut publisher, target, pieces);
        let heard = format!("{} MB sent{word}", sent / 1_000_000);
        Ok(AttackOutcome::holding(heard, vec![publisher]))
    }))
}

fn filters_deep(target: &Target) -> Exchange<AttackFn> {
    let mut peers = Vec::new();
    for number in 0..10 {
        peers.push(target.join(&format!("deep-{number}"))?);
    }
    let stem = "/+".to_string() + &"/a".repeat(253);
    let each = target.count(10_000, 2_000);
    Ok(Box::new(move |_| {
        let (mut granted, mut word) = (0, String::new());
        for (client, peer) in peers.iter_mut().enumerate() {
            for first in (0..each).step_by(100) {
                let filters: Vec<String> =
                    (first..first + 100).map(|number| format!("{client}-{number}{stem}")).collect();
                match peer.subscribe_all(0, &filters) {
                    Ok(some) => granted += some,
                    Err(refusal) => word = format!(", {refusal}"),
                }
            }
        }
        let heard = format!("{granted} of {} granted{word}", peers.len() * each);
        Ok(AttackOutcome::holding(heard, peers))
    }))
}

fn topic_cache(target: &Target) -> Exchange<AttackFn> {
    let filters: Vec<String> = (0..10_000).map(|group| format!("$share/{group}/#")).collect();
    let mut member = target.join("member")?;
    let mut publisher = target.join("publisher")?;
    Ok(Box::new(move |target| {
        let granted = member.subscribe_all(0, &filters)?;
        member.drain()?;
        let pieces = (0..3_000).map(|number| {
            let mut bytes = Vec::new();
            let topic = format!("topic/{number}");
            Publish { topic: &topic, payload: b"x", ..Publish::default() }.append(&mut bytes);
            bytes
        });
        let (_, word) = send_pieces(&mut publisher, target, pieces);
        let heard = format!("{granted} of 10000 granted{word}");
        Ok(AttackOutcome::holding(heard, vec![member, publisher]))
    }))
}

fn topic_cache_long(target: &Target) -> Exchange<AttackFn> {
    let mut publisher = target.join("publisher")?;
    let stem = "x".repeat(65_000);
    Ok(Box::new(move |target| {
        let pieces = (0..20_000).map(|number| {
            let mut bytes = Vec::new();
            let topic = format!("{number}/{stem}");
            Publish { topic: &topic, payload: b"x", ..Publish::default() }.append(&mut bytes);
            bytes
        });
        let (sent, word) = send_pieces(&mut publisher, target, pieces);
        Ok(AttackOutcome::holding(format!("{} MB sent{word}", sent / 1_000_000), vec![publisher]))
    }))
}

fn retained_expired(target: &Target) -> Exchange<AttackFn> {
    let mut publisher = target.join("publisher")?;
    let mut other = target.join("other")?;
    Ok(Box::new(move |_| {
        for first in (0..10_000).step_by(1_000) {
            let mut bytes = Vec::new();
            for number in first..first + 1_000 {
                let topic = format!("gone/{number}");
                let gone =
                    Publish { topic: &topic, retain: true, expiry_s: 1, ..Publish::default() };
                Publish { payload: b"x", ..gone }.append(&mut bytes);
            }
            publisher.send(&bytes)?;
        }
        publisher.settle()?;
        thread::sleep(Duration::from_millis(2_500));
        let mut bytes = Vec::new();
        let kept =
            Publish { topic: "kept", qos: 1, retain: true, identifier: 1, ..Publish::default() };
        Publish { payload: b"x", ..kept }.append(&mut bytes);
        other.send(&bytes)?;
        let puback = other.await_packet(0x40)?;
        let reason = puback.body.get(2).copied().unwrap_or(0);
        let heard = format!("another client's: PUBACK {reason:#04x}");
        let mut ended = AttackOutcome::holding(heard, vec![publisher, other]);
        ended.fault =
            (reason >= 0x80).then(|| "expired messages still count towards the limit".into());
        Ok(ended)
    }))
}

fn many_feeds(target: &Target) -> Exchange<AttackFn> {
    let mut peer = target.join("subscriber")?;
    let mut retained = Vec::new();
    Publish { topic: "kept/1", retain: true, payload: b"x", ..Publish::default() }
        .append(&mut retained);
    peer.send(&retained)?;
    peer.settle()?;
    let names = packets::short_names(8_000);
    let names: Vec<&str> = names.iter().map(String::as_str).cycle().take(2_900_000).collect();
    let packet = packets::subscribe(1, 0, &names);
    Ok(Box::new(move |_| {
        peer.send(&packet)?;
        let heard = match peer.await_packet(0x90) {
            Ok(suback) => format!("{} granted", crate::hostile::peer::granted_in(&suback)),
            Err(refusal) => refusal.to_string(),
        };
        Ok(AttackOutcome::holding(heard, vec![peer]))
    }))
}

fn aliases(target: &Target) -> Exchange<AttackFn> {
    let mut peers = Vec::new();
    for number in 0..100 {
        peers.push(target.join(&format!("alias-{number}"))?);
    }
    let topic = "a".repeat(65_535);
    let mut bytes = Vec::new();
    for alias in 1..=64 {
        // Topic Alias (0x23) is not a User Property, but is encoded in the same place.
        let properties = [0x23, 0, alias];
        Publish { topic: &topic, properties: &properties, ..Publish::default() }.append(&mut bytes);
    }
    Ok(Box::new(move |target| super::unfinished::send_all(target, peers, bytes)))
}

fn wills(_: &Target) -> Exchange<AttackFn> {
    let payload = vec![b'.'; 60_000];
    Ok(Box::new(move |target| {
        let (mut kept, mut word, end) = (0, String::new(), target.end() + target.span);
        while kept < 5_000 && std::time::Instant::now() < end {
            let client = format!("mourned-{kept}");
            let will = Some(("wills", payload.as_slice()));
            match target.connect(&Connect { will, will_delay_s: 3_600, ..Connect::kept(&client) }) {
                Ok(_) => kept += 1,
                Err(refusal) => {
                    word = format!(", {refusal}");
                    break;
                }
            }
        }
        Ok(AttackOutcome::with(format!("{kept} kept{word}")))
    }))
}

fn sessions(_: &Target) -> Exchange<AttackFn> {
    let stem = "s".repeat(60_000);
    Ok(Box::new(move |target| {
        let (mut kept, mut word, end) = (0, String::new(), target.end() + target.span);
        while kept < 5_000 && std::time::Instant::now() < end {
            let client = format!("{kept}-{stem}");
            match target.connect(&Connect::kept(&client)) {
                Ok(_) => kept += 1,
                Err(refusal) => {
                    word = format!(", {refusal}");
                    break;
                }
            }
        }
        Ok(AttackOutcome::with(format!("{kept} kept{word}")))
    }))
}

/// This many disconnected sessions with one subscription each.
fn away(target: &Target, sessions: usize, filter: impl Fn(usize) -> String) -> Exchange<()> {
    for number in 0..sessions {
        let mut peer = target.connect(&Connect::kept(&format!("away-{number}")))?;
        peer.subscribe_all(1, &[filter(number)])?;
        peer.send(&packets::DISCONNECT)?;
    }
    Ok(())
}

fn queues(target: &Target) -> Exchange<AttackFn> {
    away(target, 100, |number| format!("queue/{number}"))?;
    let mut publisher = target.join("publisher")?;
    let payload = vec![b'.'; 1_024];
    let total = 4 * BOUND_BYTES as usize / (1_024 * 100);
    Ok(Box::new(move |target| {
        publisher.drain()?;
        let pieces = (0..total).map(|_| {
            let mut bytes = Vec::new();
            for number in 0..100 {
                let topic = format!("queue/{number}");
                let identifier = number + 1;
                Publish {
                    topic: &topic,
                    qos: 1,
                    identifier,
                    payload: &payload,
                    ..Publish::default()
                }
                .append(&mut bytes);
            }
            bytes
        });
        let (sent, word) = send_pieces(&mut publisher, target, pieces);
        Ok(AttackOutcome::holding(format!("{} MB sent{word}", sent / 1_000_000), vec![publisher]))
    }))
}

fn small_queues(target: &Target) -> Exchange<AttackFn> {
    away(target, 10, |_| "small".into())?;
    let mut publisher = target.join("publisher")?;
    Ok(Box::new(move |target| {
        publisher.drain()?;
        let pieces = (0..1_000).map(|_| {
            let mut bytes = Vec::new();
            for identifier in 1..=1_000 {
                Publish { topic: "small", qos: 1, identifier, payload: b"x", ..Publish::default() }
                    .append(&mut bytes);
            }
            bytes
        });
        let (sent, word) = send_pieces(&mut publisher, target, pieces);
        Ok(AttackOutcome::holding(format!("{} MB sent{word}", sent / 1_000_000), vec![publisher]))
    }))
}
