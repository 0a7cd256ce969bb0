//! Which Wills must have been published, and which must not. The Will of each connection is a
//! retained message on its client's topic with a number, so that the last one shows in the end.

use std::collections::BTreeMap;

use crate::plan::CLIENTS;

/// Seconds in which clients may reconnect after a crash.
pub const GRACE_S: u32 = 2;

pub const TOPICS: [&str; CLIENTS] = ["w/0", "w/1", "w/2", "w/3", "w/4", "w/5"];

/// A connection with a Will that is open, as far as the client knows.
#[derive(Clone, Copy)]
struct Open {
    connection: u64,
    /// CONNACK was received.
    is_accepted: bool,
}

/// A connection that was open when the broker crashed, or had just ended.
#[derive(Clone, Copy)]
struct Left {
    connection: u64,
    /// The connection was open, and its Will not published.
    was_open: bool,
    crashed_us: u64,
    /// The time by which all cores had had turns since the crash.
    settled_us: Option<u64>,
}

impl Left {
    /// Whether a client that reconnects now is in time, whenever the broker started the period.
    fn may_come_back(&self, now_us: u64) -> bool {
        now_us < self.crashed_us + u64::from(GRACE_S) * 1_000_000
    }
}

#[derive(Default)]
struct OfClient {
    /// Wills that may have been published, and whether their connections are sure to have been
    /// accepted: others may have been open at any time, also after later ones.
    possible: BTreeMap<u64, bool>,
    /// The last Will that is sure to have been published.
    sure: Option<u64>,
    open: Option<Open>,
    /// The last connection that ended since everything settled, other than by DISCONNECT.
    ended: Option<u64>,
    /// The last one that ended by DISCONNECT, without a later event.
    polite: Option<u64>,
    left: Option<Left>,
    /// A connection that was reopened, without CONNACK so far.
    returning: Option<Left>,
    /// A connection in an unknown state has ended since everything settled.
    is_muddled: bool,
}

#[derive(Default)]
pub struct Wills {
    clients: [OfClient; CLIENTS],
    connections: u64,
}

impl Wills {
    /// A client sends CONNECT. Returns the number of its Will, if any.
    pub fn connect(&mut self, client: usize, has_will: bool) -> Option<u64> {
        self.connections += 1;
        let of = &mut self.clients[client];
        (of.polite, of.returning) = (None, of.left.take());
        of.open = has_will.then_some(Open { connection: self.connections, is_accepted: false });
        let open = of.open?;
        of.possible.insert(open.connection, false);
        Some(open.connection)
    }

    /// CONNACK was received.
    pub fn accept(&mut self, client: usize, now_us: u64) {
        let of = &mut self.clients[client];
        if let Some(open) = &mut of.open {
            open.is_accepted = true;
            of.possible.insert(open.connection, true);
        }
        if let Some(left) = of.returning.take()
            && left.was_open
            && left.may_come_back(now_us)
        {
            of.possible.remove(&left.connection);
        }
    }

    /// A connection ended for its client, which may have sent DISCONNECT.
    pub fn end(&mut self, client: usize, was_connected: bool, is_polite: bool) {
        let of = &mut self.clients[client];
        of.is_muddled |= !was_connected;
        of.returning = None;
        match of.open.take() {
            Some(open) if open.is_accepted && is_polite => of.polite = Some(open.connection),
            Some(open) if open.is_accepted => of.ended = Some(open.connection),
            _ => {}
        }
    }

    /// The broker crashes, which ends all connections.
    pub fn crash(&mut self, now_us: u64) {
        for of in &mut self.clients {
            let open = of.open.take();
            let accepted = open.filter(|open| open.is_accepted).map(|open| open.connection);
            let was_open = accepted.is_some() && !of.is_muddled;
            let left = accepted.or(of.ended.take()).map(|connection| Left {
                connection,
                was_open,
                crashed_us: now_us,
                settled_us: None,
            });
            // The period of clients disconnected before starts over, if it had not passed.
            let again = of.left.map(|left| Left {
                was_open: left.was_open && left.may_come_back(now_us),
                crashed_us: now_us,
                settled_us: None,
                ..left
            });
            of.left = left.or(again);
            (of.polite, of.returning, of.is_muddled) = (None, None, true);
        }
    }

    /// Everything has settled.
    pub fn settle(&mut self, now_us: u64) {
        for of in &mut self.clients {
            of.sure = of.sure.max(of.ended.take());
            if let Some(polite) = of.polite.take()
                && !of.is_muddled
            {
                of.possible.remove(&polite);
            }
            if let Some(left) = &mut of.left {
                let settled_us = *left.settled_us.get_or_insert(now_us);
                if now_us > settled_us + u64::from(GRACE_S + 1) * 1_000_000 {
                    of.sure = of.sure.max(Some(left.connection));
                    of.left = None;
                }
            }
            of.is_muddled = false;
        }
    }

    /// Whether a client's topic may have the Will with this number, or none, in the end.
    pub fn check(&self, client: usize, shown: Option<u64>) -> Result<(), String> {
        let of = &self.clients[client];
        let Some(number) = shown else {
            return of.sure.map_or(Ok(()), |sure| {
                Err(format!("the Will {sure} of client {client} was not published"))
            });
        };
        match of.possible.get(&number) {
            None => Err(format!("the Will {number} of client {client} was published")),
            Some(true) if of.sure.is_some_and(|sure| sure > number) => {
                Err(format!("client {client} has Will {number}, not {:?}", of.sure))
            }
            Some(_) => Ok(()),
        }
    }
}
