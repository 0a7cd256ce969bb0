//! `conn`: each client connects, receives CONNACK, sends DISCONNECT, and starts over.

use std::collections::VecDeque;

use super::{
    crowd::{Actor, Crowd, Event},
    timetable,
};
use crate::{
    clock,
    codec::{Session, encode_disconnect},
    error::{Error, Result},
    limits::CLOSE_TIMEOUT,
    pace::Pace,
};

/// The clients that connect.
#[derive(Debug)]
pub struct Conn {
    states: Vec<State>,
    free: Vec<usize>,
    /// Clients that sent DISCONNECT, with the time and the number of the connection.
    closing: VecDeque<(u64, usize, u64)>,
    pace: Option<Pace>,
    /// Connections started, which numbers the next one.
    begun: u64,
    connecting: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Connecting { due_ns: u64 },
    Closing { connection: u64 },
}

impl Conn {
    /// This many clients.
    pub fn new(clients: u32) -> Self {
        let clients = clients as usize;
        Self {
            states: vec![State::Free; clients],
            free: (0..clients).collect(),
            closing: VecDeque::new(),
            pace: None,
            begun: 0,
            connecting: 0,
        }
    }

    /// The broker must have the time to close first: a port whose client closes first is
    /// unavailable for a minute (TIME_WAIT).
    fn close_late_ones(&mut self, crowd: &mut Crowd, now_ns: u64) {
        while let Some(&(since_ns, slot, connection)) = self.closing.front() {
            let is_there = self.states[slot] == State::Closing { connection };
            if is_there && now_ns < clock::after(since_ns, CLOSE_TIMEOUT) {
                return;
            }
            self.closing.pop_front();
            if is_there {
                self.free(crowd, slot);
            }
        }
    }

    fn free(&mut self, crowd: &mut Crowd, slot: usize) {
        crowd.close(slot);
        self.states[slot] = State::Free;
        self.free.push(slot);
    }
}

impl Actor for Conn {
    fn prepare(&mut self, _crowd: &mut Crowd) -> Result<()> {
        Ok(())
    }

    fn begin(&mut self, crowd: &Crowd, start_ns: u64) {
        self.pace = timetable(crowd, start_ns);
    }

    fn work(&mut self, crowd: &mut Crowd, now_ns: u64) -> Result<()> {
        self.close_late_ones(crowd, now_ns);
        let due = self.pace.as_ref().map_or(u64::MAX, |pace| pace.due(now_ns));
        let count = self.free.len().min(usize::try_from(due).unwrap_or(usize::MAX));
        for _ in 0..count {
            let slot = self.free.pop().expect("limited by the free slots");
            let due_ns = self.pace.as_mut().map_or(now_ns, |pace| pace.sent(now_ns));
            // A unique name for each, so that no client takes another over.
            let name = format!("bench-{:08x}-{}-c{}", crowd.run, crowd.share.number, self.begun);
            crowd.open(slot, name, Session::Clean)?;
            self.states[slot] = State::Connecting { due_ns };
            self.begun += 1;
            self.connecting += 1;
            crowd.recorder.begun += 1;
        }
        Ok(())
    }

    fn handle(
        &mut self,
        crowd: &mut Crowd,
        slot: usize,
        event: Event<'_>,
        now_ns: u64,
    ) -> Result<()> {
        match (self.states[slot], event) {
            (State::Connecting { due_ns }, Event::Accepted { session_present }) => {
                crowd.recorder.tally.wrong_acknowledgements += u64::from(session_present);
                crowd.recorder.done(now_ns, now_ns.saturating_sub(due_ns));
                self.connecting -= 1;
                let connection = self.begun;
                self.states[slot] = State::Closing { connection };
                self.closing.push_back((now_ns, slot, connection));
                crowd.send(slot, encode_disconnect)
            }
            (State::Closing { .. }, Event::Closed) => {
                self.free(crowd, slot);
                Ok(())
            }
            (state, event) => {
                Err(Error::Broker(format!("unexpected {event:?} for a client in {state:?}")))
            }
        }
    }

    fn next_ns(&self) -> Option<u64> {
        self.pace.as_ref().filter(|_| !self.free.is_empty()).and_then(Pace::next_ns)
    }

    fn under_way(&self) -> u64 {
        self.connecting
    }

    fn finish(&mut self, _crowd: &mut Crowd) -> Result<()> {
        Ok(())
    }
}
