//! Memory that unauthenticated clients can make a broker use during authentication.

use super::{BOUND_BYTES, SENT_BYTES_MAX, bounded_with, unfinished::send_all};
use crate::hostile::{
    attack::{Attack, AttackFn, AttackOutcome, Setup, Target},
    packets::{self, Connect},
    peer::{Exchange, Peer, Pump, Refusal},
};

pub const KINDS: &[Attack] = &[
    Attack {
        name: "behind-connect",
        about: "data of 200 clients behind a CONNECT whose password is being verified",
        setup: passwords,
        prepare: behind_connect,
        in_short: true,
    },
    Attack {
        name: "passwords",
        about: "50 wrong passwords at once, three times",
        setup: passwords,
        prepare: wrong_passwords,
        in_short: true,
    },
    Attack {
        name: "long-passwords",
        about: "1,000 CONNECTs at once with a Client Identifier, name and password of 60 KB each",
        setup: passwords,
        prepare: long_passwords,
        in_short: false,
    },
    Attack {
        name: "long-names-in-log",
        about: "CONNECTs with another user's Client Identifier of 65,000 bytes",
        setup: passwords,
        prepare: long_names,
        in_short: true,
    },
];

/// A user with the password `secret`, hashed with the default parameters.
const USERS: &str = "owner:$argon2id$v=19$m=19456,t=2,p=1$OdbnQEEPCkzmn4rOft2uZg$\
                     kw3nOgR/TR0jCUHx90ynYtMkUghDNXoWdkO28Z4lbOQ\n";

fn passwords(_: &Target) -> Setup {
    let bounded = bounded_with("");
    Setup {
        ringmq: format!(
            "[access]\nanonymous = true\npassword_file = \"{{dir}}/users\"\n{}",
            bounded.ringmq
        ),
        lacks_mosquitto: true,
        files: vec![("users", USERS.into())],
        ..bounded
    }
}

fn behind_connect(_: &Target) -> Exchange<AttackFn> {
    let login = Some(("owner", "wrong"));
    let first = Connect { login, ..Connect::clean("behind") }.encode();
    let again = packets::PINGREQ.repeat(64 * 1024);
    Ok(Box::new(move |target| {
        let mut peers: Vec<Peer> = (0..200).map_while(|_| target.open().ok()).collect();
        let pump = Pump {
            first: &first,
            again: &again,
            each_max: BOUND_BYTES as usize,
            total_max: SENT_BYTES_MAX,
            end: target.end() + target.span,
        };
        let sent = pump.run(&mut peers);
        Ok(AttackOutcome::holding(format!("{} MB sent", sent / 1_000_000), peers))
    }))
}

fn wrong_passwords(_: &Target) -> Exchange<AttackFn> {
    Ok(Box::new(move |target| {
        let (mut refused, mut other) = (0, String::new());
        for _ in 0..3 {
            let mut peers = Vec::new();
            for number in 0..50 {
                let client = format!("guess-{number}");
                let login = Some(("owner", "wrong"));
                let mut peer = target.open()?;
                peer.send(&Connect { login, ..Connect::clean(&client) }.encode())?;
                peers.push(peer);
            }
            for peer in &mut peers {
                match peer.await_packet(0x20) {
                    Err(Refusal::Connack(0x86 | 0x87)) => refused += 1,
                    Ok(_) => other = ", one accepted".into(),
                    Err(refusal) => other = format!(", {refusal}"),
                }
            }
        }
        Ok(AttackOutcome::with(format!("{refused} of 150 refused{other}")))
    }))
}

fn long_passwords(_: &Target) -> Exchange<AttackFn> {
    let long = "p".repeat(60_000);
    let login = Some((long.as_str(), long.as_str()));
    let bytes = Connect { login, ..Connect::clean(&long) }.encode();
    Ok(Box::new(move |target| {
        let peers: Vec<Peer> =
            (0..target.count(1_000, 200)).map_while(|_| target.open().ok()).collect();
        send_all(target, peers, bytes)
    }))
}

fn long_names(target: &Target) -> Exchange<AttackFn> {
    let name = "n".repeat(65_000);
    let login = Some(("owner", "secret"));
    let owner = target.connect(&Connect { login, ..Connect::kept(&name) })?;
    Ok(Box::new(move |target| {
        let (end, mut refused) = (target.end(), 0);
        while std::time::Instant::now() < end {
            match target.connect(&Connect::clean(&name)) {
                Err(Refusal::Connack(_) | Refusal::Closed) => refused += 1,
                Ok(_) => return Ok(AttackOutcome::with("accepted")),
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(AttackOutcome::holding(format!("{refused} refused"), vec![owner]))
    }))
}
