//! Long queues and many messages in flight, all affected by one packet or event.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::publish_many;
use crate::hostile::{
    attack::{Attack, AttackFn, AttackOutcome, Setup, Target, plain},
    packets::{self, Connect, Publish, append_acknowledgement},
    peer::{Exchange, Peer},
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
fn pubrels(target: &Target) -> Exchange<AttackFn> {
    let count = target.count(65_535, 20_000) as u16;
    let mut peer = target.connect(&Connect { level: 4, ..Connect::clean("twice") })?;
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
        Ok(AttackOutcome::holding("all sent", vec![peer]))
    }))
}

/// A subscriber with this many messages in flight and queued, which acknowledges none.
fn queue_for(
    target: &Target,
    connect: &Connect<'_>,
    filter: &str,
    topic: &str,
    messages: usize,
) -> Exchange<Peer> {
    let mut subscriber = target.connect(connect)?;
    subscriber.subscribe_all(1, &[filter])?;
    let mut publisher = target.join("publisher")?;
    let message = Publish { topic, payload: b"x", ..Publish::default() };
    publish_many(&mut publisher, &message, messages)?;
    Ok(subscriber)
}

fn member_leaves(target: &Target) -> Exchange<AttackFn> {
    let messages = target.count(100_000, 20_000);
    let kept = Connect::kept("member");
    let member = queue_for(target, &kept, "$share/g/jobs", "jobs", messages)?;
    let mut other = target.join("other")?;
    other.subscribe_all(1, &["$share/g/jobs"])?;
    Ok(Box::new(move |target| {
        other.drain()?;
        drop(member);
        let mut again = target.connect(&Connect { clean: true, ..Connect::kept("member") })?;
        again.settle()?;
        Ok(AttackOutcome::holding("left, and its session ended", vec![again, other]))
    }))
}

fn expired_queue(target: &Target) -> Exchange<AttackFn> {
    let kept = Connect::kept("late");
    let mut subscriber = target.connect(&kept)?;
    subscriber.subscribe_all(1, &["short"])?;
    subscriber.send(&packets::DISCONNECT)?;
    let mut publisher = target.join("publisher")?;
    let message = Publish { topic: "short", payload: b"x", expiry_s: 2, ..Publish::default() };
    publish_many(&mut publisher, &message, target.count(100_000, 20_000))?;
    thread::sleep(Duration::from_millis(2_500));
    Ok(Box::new(move |target| {
        let mut subscriber = target.connect(&Connect::kept("late"))?;
        subscriber.settle()?;
        Ok(AttackOutcome::holding("resumed", vec![subscriber]))
    }))
}

fn queue_ends(target: &Target) -> Exchange<AttackFn> {
    let kept = Connect::kept("ends");
    let messages = target.count(100_000, 20_000);
    drop(queue_for(target, &kept, "ends", "ends", messages)?);
    Ok(Box::new(move |target| {
        let mut again = target.connect(&Connect { clean: true, ..Connect::kept("ends") })?;
        again.settle()?;
        Ok(AttackOutcome::holding("ended", vec![again]))
    }))
}

fn queue_resumed(target: &Target) -> Exchange<AttackFn> {
    let kept = Connect::kept("resumed");
    drop(queue_for(target, &kept, "resumed", "resumed", 100_000)?);
    Ok(Box::new(move |target| {
        let (end, mut rounds) = (target.end(), 0);
        while Instant::now() < end && rounds < 1_000 {
            target.connect(&Connect::kept("resumed"))?;
            rounds += 1;
        }
        Ok(AttackOutcome::with(format!("{rounds} times")))
    }))
}

fn retained_expire(target: &Target) -> Exchange<AttackFn> {
    let mut publisher = target.join("publisher")?;
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
        Ok(AttackOutcome::holding("subscribed to", vec![publisher]))
    }))
}
