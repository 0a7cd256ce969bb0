//! Long queues and many messages in flight, all affected by one packet or event.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::publish_many;
use crate::hostile::{
    field::{Attack, Ended, Field, Setup, Strike, plain},
    packets::{self, Connect, Publish, append_acknowledgement},
    peer::{Heard, Peer},
};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "pubrel-65535",
        about: "65,535 PUBREL of an MQTT 3.1.1 client, from the middle to both ends",
        setup: plain,
        prepare: pubrels,
        in_short: true,
    },
    Attack {
        name: "pubrel-stored",
        about: "65,535 PUBREL of an MQTT 3.1.1 client, with a store",
        setup: |_| Setup { has_store: true, ..Setup::default() },
        prepare: pubrels,
        in_short: false,
    },
    Attack {
        name: "member-leaves",
        about: "a member of a group with 100,000 queued messages leaves",
        setup: plain,
        prepare: member_leaves,
        in_short: true,
    },
    Attack {
        name: "expired-queue",
        about: "resuming a session whose 100,000 queued messages have expired",
        setup: plain,
        prepare: expired_queue,
        in_short: false,
    },
    Attack {
        name: "queue-ends",
        about: "a session with 100,000 queued messages ends by Clean Start",
        setup: plain,
        prepare: queue_ends,
        in_short: true,
    },
    Attack {
        name: "queue-resumed",
        about: "a session with 100,000 queued messages is resumed repeatedly",
        setup: plain,
        prepare: queue_resumed,
        in_short: false,
    },
    Attack {
        name: "retained-expire",
        about: "20,000 retained messages expire at the same time",
        setup: plain,
        prepare: retained_expire,
        in_short: false,
    },
];

/// QoS 2 messages whose PUBRELs arrive together, in an order unfavourable for a list.
fn pubrels(field: &Field) -> Heard<Strike> {
    let count = field.count(65_535, 20_000) as u16;
    let mut peer = field.connect(&Connect { level: 4, ..Connect::clean("twice") })?;
    for first in (1..=count).step_by(5_000) {
        let last = first.saturating_add(4_999).min(count);
        let mut bytes = Vec::new();
        for identifier in first..=last {
            Publish { topic: "q", qos: 2, identifier, payload: b"x", ..Publish::default() }
                .append_as(4, &mut bytes);
        }
        peer.send(&bytes)?;
        for _ in first..=last {
            peer.await_packet(0x50)?;
        }
    }
    let mut bytes = Vec::new();
    // Not from either end: each is in the middle of the remaining ones.
    let middle = count / 2;
    let order = (0..=middle).flat_map(|step| [middle - step, middle + 1 + step]);
    order
        .filter(|&identifier| (1..=count).contains(&identifier))
        .for_each(|identifier| append_acknowledgement(0x62, identifier, &mut bytes));
    Ok(Box::new(move |_| {
        let reader = peer.drain()?;
        peer.send(&bytes)?;
        peer.send(&packets::PINGREQ)?;
        thread::sleep(Duration::from_millis(500));
        drop(reader);
        Ok(Ended::holding("all sent", vec![peer]))
    }))
}

/// A subscriber with this many messages in flight and queued, which acknowledges none.
fn queue_for(
    field: &Field,
    connect: &Connect<'_>,
    filter: &str,
    topic: &str,
    messages: usize,
) -> Heard<Peer> {
    let mut subscriber = field.connect(connect)?;
    subscriber.subscribe_all(1, &[filter])?;
    let mut publisher = field.join("publisher")?;
    let message = Publish { topic, payload: b"x", ..Publish::default() };
    publish_many(&mut publisher, &message, messages)?;
    Ok(subscriber)
}

fn member_leaves(field: &Field) -> Heard<Strike> {
    let messages = field.count(100_000, 20_000);
    let kept = Connect::kept("member");
    let member = queue_for(field, &kept, "$share/g/jobs", "jobs", messages)?;
    let mut other = field.join("other")?;
    other.subscribe_all(1, &["$share/g/jobs"])?;
    Ok(Box::new(move |field| {
        other.drain()?;
        drop(member);
        let mut again = field.connect(&Connect { clean: true, ..Connect::kept("member") })?;
        again.settle()?;
        Ok(Ended::holding("left, and its session ended", vec![again, other]))
    }))
}

fn expired_queue(field: &Field) -> Heard<Strike> {
    let kept = Connect::kept("late");
    let mut subscriber = field.connect(&kept)?;
    subscriber.subscribe_all(1, &["short"])?;
    subscriber.send(&packets::DISCONNECT)?;
    let mut publisher = field.join("publisher")?;
    let message = Publish { topic: "short", payload: b"x", expiry_s: 2, ..Publish::default() };
    publish_many(&mut publisher, &message, field.count(100_000, 20_000))?;
    thread::sleep(Duration::from_millis(2_500));
    Ok(Box::new(move |field| {
        let mut subscriber = field.connect(&Connect::kept("late"))?;
        subscriber.settle()?;
        Ok(Ended::holding("resumed", vec![subscriber]))
    }))
}

fn queue_ends(field: &Field) -> Heard<Strike> {
    let kept = Connect::kept("ends");
    let messages = field.count(100_000, 20_000);
    drop(queue_for(field, &kept, "ends", "ends", messages)?);
    Ok(Box::new(move |field| {
        let mut again = field.connect(&Connect { clean: true, ..Connect::kept("ends") })?;
        again.settle()?;
        Ok(Ended::holding("ended", vec![again]))
    }))
}

fn queue_resumed(field: &Field) -> Heard<Strike> {
    let kept = Connect::kept("resumed");
    drop(queue_for(field, &kept, "resumed", "resumed", 100_000)?);
    Ok(Box::new(move |field| {
        let (end, mut rounds) = (field.end(), 0);
        while Instant::now() < end && rounds < 1_000 {
            field.connect(&Connect::kept("resumed"))?;
            rounds += 1;
        }
        Ok(Ended::with(format!("{rounds} times")))
    }))
}

fn retained_expire(field: &Field) -> Heard<Strike> {
    let mut publisher = field.join("publisher")?;
    Ok(Box::new(move |_| {
        for first in (0..20_000).step_by(1_000) {
            let mut bytes = Vec::new();
            for number in first..first + 1_000 {
                let topic = format!("gone/{number}");
                Publish {
                    topic: &topic,
                    retain: true,
                    expiry_s: 2,
                    payload: b"x",
                    ..Publish::default()
                }
                .append(&mut bytes);
            }
            publisher.send(&bytes)?;
        }
        publisher.settle()?;
        thread::sleep(Duration::from_millis(3_000));
        publisher.subscribe_all(0, &["gone/#"])?;
        Ok(Ended::holding("subscribed to", vec![publisher]))
    }))
}
