//! Connections and sessions that start, end, expire and are taken over, many at a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::hostile::{
    field::{Attack, Ended, Field, Strike, plain},
    packets::{self, Connect},
    peer::{Heard, Peer, Refusal},
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

fn clean_start(field: &Field) -> Heard<Strike> {
    let filters: Vec<String> = (0..10_000).map(|number| format!("s/{number}/+")).collect();
    let connect = Connect { clean: true, ..Connect::kept("again") };
    let mut bytes = connect.encode();
    bytes.extend(packets::subscribe(1, 0, &filters));
    let rounds_max = field.count(100, 20);
    Ok(Box::new(move |field| {
        let (end, mut rounds) = (field.end(), 0);
        while Instant::now() < end && rounds < rounds_max {
            let mut peer = field.open()?;
            peer.send(&bytes)?;
            peer.await_packet(0x90)?;
            rounds += 1;
        }
        Ok(Ended::with(format!("{rounds} times")))
    }))
}

fn expire_together(field: &Field) -> Heard<Strike> {
    let mut crowd = Vec::new();
    for number in 0..field.count(4_000, 1_000) {
        let client = format!("mortal-{number}");
        let filters: Vec<String> = (0..10).map(|it| format!("m/{number}/{it}")).collect();
        let connect = Connect { expiry_s: 2, ..Connect::kept(&client) };
        let mut peer = field.open()?;
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
        Ok(Ended::with(format!("{sessions} sessions")))
    }))
}

fn will_storm(field: &Field) -> Heard<Strike> {
    let clients = field.count(500, 100);
    Ok(Box::new(move |field| {
        let (end, mut rounds) = (field.end(), 0);
        while Instant::now() < end && rounds < 5 {
            let mut crowd = Vec::new();
            for number in 0..clients {
                let client = format!("mourned-{number}");
                let will = Some(("wills", b"gone".as_slice()));
                let mut peer = field.connect(&Connect { will, ..Connect::clean(&client) })?;
                peer.subscribe_all(0, &["wills"])?;
                peer.drain()?;
                crowd.push(peer);
            }
            drop(crowd);
            rounds += 1;
        }
        Ok(Ended::with(format!("{clients} clients, {rounds} times")))
    }))
}

fn long_connects(field: &Field) -> Heard<Strike> {
    let properties = packets::user_properties((16 << 20) - 100);
    let bytes = Connect { properties: &properties, ..Connect::clean("long") }.encode();
    let connections = field.count(10, 3);
    Ok(Box::new(move |field| {
        let mut heard = Vec::new();
        for _ in 0..connections {
            let mut peer = field.open()?;
            let answer = peer.send(&bytes).and_then(|()| peer.await_packet(0x20).map(|_| ()));
            heard.push(match answer {
                Ok(()) => "accepted".into(),
                Err(Refusal::Closed) => peer.last_word(Instant::now()).to_string(),
                Err(refusal) => refusal.to_string(),
            });
        }
        heard.dedup();
        Ok(Ended::with(heard.join(", ")))
    }))
}

fn takeover(_: &Field) -> Heard<Strike> {
    Ok(Box::new(move |field| {
        let (end, mut rounds) = (field.end(), 0);
        let mut last: Option<Peer> = None;
        while Instant::now() < end && rounds < 10_000 {
            last = Some(field.connect(&Connect::kept("wanted"))?);
            rounds += 1;
        }
        Ok(Ended::holding(format!("{rounds} times"), last.into_iter().collect()))
    }))
}

fn connect_flood(_: &Field) -> Heard<Strike> {
    Ok(Box::new(move |field| {
        let (end, mut rounds) = (field.end(), 0);
        while Instant::now() < end && rounds < 20_000 {
            field.open()?;
            rounds += 1;
        }
        Ok(Ended::with(format!("{rounds} connections")))
    }))
}
