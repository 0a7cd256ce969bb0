//! Connections and sessions that start, end, expire and are taken over, many at a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::hostile::{
    attack::{Attack, AttackFn, AttackOutcome, Target, plain},
    packets::{self, Connect},
    peer::{Exchange, Peer, Refusal},
};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "clean-start-10k",
        about: "a session of 10,000 subscriptions ends by Clean Start, repeatedly",
        setup: plain,
        prepare: clean_start,
        in_short: false,
    },
    Attack {
        name: "expire-together",
        about: "4,000 sessions of 10 subscriptions each expire at the same time",
        setup: plain,
        prepare: expire_together,
        in_short: true,
    },
    Attack {
        name: "will-storm",
        about: "500 clients with Wills, to a topic that all subscribe to, lose their connections at once",
        setup: plain,
        prepare: will_storm,
        in_short: false,
    },
    Attack {
        name: "connect-16MiB",
        about: "CONNECTs of 16 MiB of User Properties, on ten connections",
        setup: plain,
        prepare: long_connects,
        in_short: true,
    },
    Attack {
        name: "takeover",
        about: "connections that repeatedly take over one session",
        setup: plain,
        prepare: takeover,
        in_short: false,
    },
    Attack {
        name: "connect-flood",
        about: "connections that are closed right after they were opened",
        setup: plain,
        prepare: connect_flood,
        in_short: false,
    },
];

fn clean_start(target: &Target) -> Exchange<AttackFn> {
    let filters: Vec<String> = (0..10_000).map(|number| format!("s/{number}/+")).collect();
    let connect = Connect { clean: true, ..Connect::kept("again") };
    let mut bytes = connect.encode();
    bytes.extend(packets::subscribe(1, 0, &filters));
    let rounds_max = target.count(100, 20);
    Ok(Box::new(move |target| {
        let (end, mut rounds) = (target.end(), 0);
        while Instant::now() < end && rounds < rounds_max {
            let mut peer = target.open()?;
            peer.send(&bytes)?;
            peer.await_packet(0x90)?;
            rounds += 1;
        }
        Ok(AttackOutcome::with(format!("{rounds} times")))
    }))
}

fn expire_together(target: &Target) -> Exchange<AttackFn> {
    let mut crowd = Vec::new();
    for number in 0..target.count(4_000, 1_000) {
        let client = format!("mortal-{number}");
        let filters: Vec<String> = (0..10).map(|it| format!("m/{number}/{it}")).collect();
        let connect = Connect { expiry_s: 2, ..Connect::kept(&client) };
        let mut peer = target.open()?;
        let mut bytes = connect.encode();
        bytes.extend(packets::subscribe(1, 0, &filters));
        peer.send(&bytes)?;
        peer.await_packet(0x90)?;
        crowd.push(peer);
    }
    Ok(Box::new(move |_| {
        let sessions = crowd.len();
        for peer in &mut crowd {
            peer.send(&packets::DISCONNECT)?;
        }
        drop(crowd);
        thread::sleep(Duration::from_millis(3_500));
        Ok(AttackOutcome::with(format!("{sessions} sessions")))
    }))
}

fn will_storm(target: &Target) -> Exchange<AttackFn> {
    let clients = target.count(500, 100);
    Ok(Box::new(move |target| {
        let (end, mut rounds) = (target.end(), 0);
        while Instant::now() < end && rounds < 5 {
            let mut crowd = Vec::new();
            for number in 0..clients {
                let client = format!("mourned-{number}");
                let will = Some(("wills", b"gone".as_slice()));
                let mut peer = target.connect(&Connect { will, ..Connect::clean(&client) })?;
                peer.subscribe_all(0, &["wills"])?;
                peer.drain()?;
                crowd.push(peer);
            }
            drop(crowd);
            rounds += 1;
        }
        Ok(AttackOutcome::with(format!("{clients} clients, {rounds} times")))
    }))
}

fn long_connects(target: &Target) -> Exchange<AttackFn> {
    let properties = packets::user_properties((16 << 20) - 100);
    let bytes = Connect { properties: &properties, ..Connect::clean("long") }.encode();
    let connections = target.count(10, 3);
    Ok(Box::new(move |target| {
        let mut heard = Vec::new();
        for _ in 0..connections {
            let mut peer = target.open()?;
            let answer = peer.send(&bytes).and_then(|()| peer.await_packet(0x20).map(|_| ()));
            heard.push(match answer {
                Ok(()) => "accepted".into(),
                Err(Refusal::Closed) => peer.last_word(Instant::now()).to_string(),
                Err(refusal) => refusal.to_string(),
            });
        }
        heard.dedup();
        Ok(AttackOutcome::with(heard.join(", ")))
    }))
}

fn takeover(_: &Target) -> Exchange<AttackFn> {
    Ok(Box::new(move |target| {
        let (end, mut rounds) = (target.end(), 0);
        let mut last: Option<Peer> = None;
        while Instant::now() < end && rounds < 10_000 {
            last = Some(target.connect(&Connect::kept("wanted"))?);
            rounds += 1;
        }
        Ok(AttackOutcome::holding(format!("{rounds} times"), last.into_iter().collect()))
    }))
}

fn connect_flood(_: &Target) -> Exchange<AttackFn> {
    Ok(Box::new(move |target| {
        let (end, mut rounds) = (target.end(), 0);
        while Instant::now() < end && rounds < 20_000 {
            target.open()?;
            rounds += 1;
        }
        Ok(AttackOutcome::with(format!("{rounds} connections")))
    }))
}
