//! SUBSCRIBE and UNSUBSCRIBE packets with many filters.

use super::{publish_many, retain};
use crate::hostile::{
    attack::{Attack, AttackFn, AttackOutcome, Setup, Target, plain},
    packets::{self, Publish},
    peer::{Exchange, granted_in},
};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "subscribe-110k",
        about: "one SUBSCRIBE of 110,000 short filters, with retained messages",
        setup: plain,
        prepare: |target| subscribe(target, 110_000, true),
        in_short: true,
    },
    Attack {
        name: "subscribe-2.5MB",
        about: "one SUBSCRIBE of 450,000 short filters, with retained messages",
        setup: plain,
        prepare: |target| subscribe(target, 450_000, true),
        in_short: false,
    },
    Attack {
        name: "subscribe-16MiB",
        about: "one SUBSCRIBE of the maximum packet size, with retained messages",
        setup: plain,
        prepare: |target| subscribe(target, 2_900_000, true),
        in_short: false,
    },
    Attack {
        name: "subscribe-2-cores",
        about: "one SUBSCRIBE of 110,000 short filters, to a broker of two threads",
        setup: |_| Setup { cores: Some(2), ..Setup::default() },
        prepare: |target| subscribe(target, 110_000, true),
        in_short: false,
    },
    Attack {
        name: "subscribe-acl",
        about: "one SUBSCRIBE of 16 MiB, with 100 access rules per filter",
        setup: hundred_rules,
        prepare: |target| subscribe(target, 2_900_000, false),
        in_short: false,
    },
    Attack {
        name: "unsubscribe-queued",
        about: "one UNSUBSCRIBE of 10,000 filters, while 100,000 messages are queued",
        setup: plain,
        prepare: unsubscribe_queued,
        in_short: true,
    },
    Attack {
        name: "toggle",
        about: "SUBSCRIBE and UNSUBSCRIBE of # in turn, with 20,000 topics in use",
        setup: plain,
        prepare: toggle,
        in_short: true,
    },
    Attack {
        name: "toggle-10k",
        about: "SUBSCRIBE and UNSUBSCRIBE of 10,000 filters in turn",
        setup: plain,
        prepare: toggle_many,
        in_short: false,
    },
    Attack {
        name: "retained-again",
        about: "repeated SUBSCRIBE to #, with 50,000 retained messages",
        setup: plain,
        prepare: retained_again,
        in_short: true,
    },
];

/// Access rules of which only the last one matches.
fn hundred_rules(_: &Target) -> Setup {
    let denied: String =
        (0..99).map(|rule| format!("    deny all secret-{rule}/+/x/#\n")).collect();
    Setup {
        ringmq: "[access]\nacl_file = \"{dir}/acl.txt\"\n".into(),
        mosquitto: "acl_file {dir}/mosquitto-acl.txt\n".into(),
        files: vec![
            ("acl.txt", format!("for everyone\n{denied}    allow all #\n")),
            (
                "mosquitto-acl.txt",
                (0..99)
                    .map(|rule| format!("topic deny secret-{rule}/+/x/#\n"))
                    .chain(["topic readwrite #\n".into()])
                    .collect(),
            ),
        ],
        ..Setup::default()
    }
}

/// Filters of one or two letters, so that a packet contains as many as possible.
fn subscribe(target: &Target, filters: usize, has_retained: bool) -> Exchange<AttackFn> {
    let mut peer = target.join("subscriber")?;
    if has_retained {
        retain(&mut peer, (0..1_000).map(|topic| format!("retained/{topic}")))?;
    }
    let names = packets::short_names(8_000);
    let filters = target.count(filters, filters.min(110_000));
    let names: Vec<&str> = names.iter().map(String::as_str).cycle().take(filters).collect();
    let packet = packets::subscribe(1, 0, &names);
    Ok(Box::new(move |_| {
        peer.send(&packet)?;
        let suback = peer.await_packet(0x90)?;
        let heard = format!("{} of {filters} granted", granted_in(&suback));
        Ok(AttackOutcome::holding(heard, vec![peer]))
    }))
}

fn unsubscribe_queued(target: &Target) -> Exchange<AttackFn> {
    let filters: Vec<String> = (0..10_000).map(|number| format!("u/{number}")).collect();
    let mut peer = target.join("unsubscriber")?;
    peer.subscribe_all(1, &filters)?;
    let queued = target.count(100_000, 20_000);
    let mut publisher = target.join("publisher")?;
    let message = Publish { topic: "u/0", payload: b"x", ..Publish::default() };
    // The subscriber does not acknowledge, so that the messages stay queued.
    publish_many(&mut publisher, &message, queued)?;
    let packet = packets::unsubscribe(2, &filters);
    Ok(Box::new(move |_| {
        peer.send(&packet)?;
        peer.await_packet(0xB0)?;
        Ok(AttackOutcome::holding("all unsubscribed", vec![peer]))
    }))
}

/// Publishes to this many topics.
fn use_topics(target: &Target, topics: usize) -> Exchange<()> {
    let mut publisher = target.join("publisher")?;
    let mut bytes = Vec::new();
    for number in 0..topics {
        let topic = format!("topic/{number}");
        Publish { topic: &topic, payload: b"x", ..Publish::default() }.append(&mut bytes);
    }
    publisher.send(&bytes)?;
    publisher.settle()
}

fn toggle(target: &Target) -> Exchange<AttackFn> {
    use_topics(target, target.count(20_000, 5_000))?;
    let mut peer = target.join("toggler")?;
    let mut both = packets::subscribe(1, 0, &["#"]);
    both.extend(packets::unsubscribe(2, &["#"]));
    let pairs = 100;
    let bytes = both.repeat(pairs);
    Ok(Box::new(move |target| {
        let (end, mut rounds) = (target.end(), 0);
        peer.drain()?;
        while peer.send_until(&bytes, end) == bytes.len() {
            rounds += 1;
        }
        Ok(AttackOutcome::holding(format!("{} times", rounds * pairs), vec![peer]))
    }))
}

fn toggle_many(target: &Target) -> Exchange<AttackFn> {
    use_topics(target, target.count(20_000, 5_000))?;
    let filters: Vec<String> = (0..10_000).map(|number| format!("+/{number}")).collect();
    let mut peer = target.join("toggler")?;
    let subscribe = packets::subscribe(1, 0, &filters);
    let unsubscribe = packets::unsubscribe(2, &filters);
    Ok(Box::new(move |target| {
        let (end, mut rounds) = (target.end(), 0);
        while std::time::Instant::now() < end && rounds < 100 {
            peer.send(&subscribe)?;
            peer.await_packet(0x90)?;
            peer.send(&unsubscribe)?;
            peer.await_packet(0xB0)?;
            rounds += 1;
        }
        Ok(AttackOutcome::holding(format!("{rounds} times"), vec![peer]))
    }))
}

fn retained_again(target: &Target) -> Exchange<AttackFn> {
    let mut peer = target.join("collector")?;
    let messages = target.count(50_000, 10_000);
    retain(&mut peer, (0..messages).map(|number| format!("r/{}/{number}", number % 100)))?;
    let packet = packets::subscribe(1, 0, &["#"]).repeat(100);
    Ok(Box::new(move |target| {
        let (end, mut rounds) = (target.end(), 0);
        peer.drain()?;
        while peer.send_until(&packet, end) == packet.len() {
            rounds += 1;
        }
        Ok(AttackOutcome::holding(format!("{rounds} × 100 times"), vec![peer]))
    }))
}
