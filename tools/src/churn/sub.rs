//! `sub`: connected clients subscribe to filters of their own, one after another, and remove the
//! oldest ones once they have many.

use std::collections::VecDeque;

use super::{
    crowd::{Actor, Crowd, Event},
    setup, timetable,
};
use crate::{
    codec::{Inbound, Session, encode_disconnect, encode_subscribe, encode_unsubscribe},
    error::{Error, Result},
    pace::Pace,
    scenario::LoadMode,
};

/// Number of subscriptions that a client keeps.
const HELD: u64 = 100;

/// The subscribing clients.
#[derive(Debug)]
pub struct Sub {
    clients: Vec<Subscribing>,
    connected: usize,
    pace: Option<Pace>,
    /// The next client in an open loop.
    turn: usize,
    /// Requests without a response.
    under_way: u64,
}

#[derive(Debug, Default)]
struct Subscribing {
    /// Subscriptions started: the number of the next one.
    begun: u64,
    pending: VecDeque<Pending>,
}

#[derive(Clone, Copy, Debug)]
enum Pending {
    Subscribe { packet_identifier: u16, due_ns: u64 },
    Unsubscribe { packet_identifier: u16 },
}

/// The Packet Identifiers of a client's SUBSCRIBE and UNSUBSCRIBE for subscription `number`:
/// distinct, and never 0.
fn packet_identifiers(number: u64) -> (u16, u16) {
    let half = (number % 32_000) as u16 * 2;
    (half + 1, half + 2)
}

fn topic_filter(crowd: &Crowd, slot: usize, number: u64) -> String {
    format!("bench/{:08x}/{}/{slot}/{number}", crowd.run, crowd.share.number)
}

impl Sub {
    /// This many clients.
    pub fn new(clients: u32) -> Self {
        let clients = (0..clients).map(|_| Subscribing::default()).collect();
        Self { clients, connected: 0, pace: None, turn: 0, under_way: 0 }
    }

    fn subscribe(&mut self, crowd: &mut Crowd, slot: usize, due_ns: u64) -> Result<()> {
        let client = &mut self.clients[slot];
        let number = client.begun;
        client.begun += 1;
        let (mqtt, qos) = (crowd.workload.mqtt, crowd.workload.qos);
        let (packet_identifier, _) = packet_identifiers(number);
        let filters = [topic_filter(crowd, slot, number)];
        client.pending.push_back(Pending::Subscribe { packet_identifier, due_ns });
        crowd.send(slot, |out| encode_subscribe(mqtt, packet_identifier, &filters, qos, out))?;
        crowd.recorder.begun += 1;
        self.under_way += 1;
        if let Some(oldest) = number.checked_sub(HELD) {
            self.unsubscribe(crowd, slot, oldest)?;
        }
        Ok(())
    }

    fn unsubscribe(&mut self, crowd: &mut Crowd, slot: usize, number: u64) -> Result<()> {
        let (_, packet_identifier) = packet_identifiers(number);
        let filter = topic_filter(crowd, slot, number);
        let mqtt = crowd.workload.mqtt;
        self.clients[slot].pending.push_back(Pending::Unsubscribe { packet_identifier });
        self.under_way += 1;
        crowd.send(slot, |out| encode_unsubscribe(mqtt, packet_identifier, &filter, out))
    }

    /// Maximum number of pending subscriptions of a client.
    fn window(crowd: &Crowd) -> usize {
        match crowd.workload.load {
            LoadMode::Closed { window, .. } => window as usize,
            LoadMode::Open { .. } => usize::MAX,
        }
    }

    /// Responses may arrive in any order; nearly always the first request is answered.
    fn take(&mut self, slot: usize, wanted: impl Fn(&Pending) -> bool) -> Option<Pending> {
        let pending = &mut self.clients[slot].pending;
        let at = pending.iter().position(wanted)?;
        self.under_way -= 1;
        pending.remove(at)
    }
}

impl Actor for Sub {
    fn prepare(&mut self, crowd: &mut Crowd) -> Result<()> {
        let count = self.clients.len();
        setup::connect_all(crowd, self, count, Session::Clean, |actor| actor.connected)
    }

    fn begin(&mut self, crowd: &Crowd, start_ns: u64) {
        self.pace = timetable(crowd, start_ns);
    }

    fn work(&mut self, crowd: &mut Crowd, now_ns: u64) -> Result<()> {
        if let Some(mut pace) = self.pace.take() {
            for _ in 0..pace.due(now_ns) {
                let slot = self.turn;
                self.turn = (self.turn + 1) % self.clients.len();
                self.subscribe(crowd, slot, pace.sent(now_ns))?;
            }
            self.pace = Some(pace);
            return Ok(());
        }
        let window = Self::window(crowd);
        for slot in 0..self.clients.len() {
            while self.clients[slot].pending.len() < window {
                self.subscribe(crowd, slot, now_ns)?;
            }
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
        let qos = crowd.workload.qos.bits();
        let answered = match event {
            Event::Accepted { .. } => {
                self.connected += 1;
                return Ok(());
            }
            Event::Packet(Inbound::Suback { packet_identifier: id, reasons }) => {
                let wanted = |pending: &Pending| matches!(pending, Pending::Subscribe { packet_identifier, .. } if *packet_identifier == id);
                self.take(slot, wanted).filter(|_| reasons == [qos])
            }
            Event::Packet(Inbound::Unsuback(id)) => {
                let wanted = |pending: &Pending| matches!(pending, Pending::Unsubscribe { packet_identifier } if *packet_identifier == id);
                self.take(slot, wanted)
            }
            event => {
                return Err(Error::Broker(format!("unexpected {event:?} for client {slot}")));
            }
        };
        match answered {
            None => crowd.recorder.tally.wrong_acknowledgements += 1,
            Some(Pending::Subscribe { due_ns, .. }) => {
                crowd.recorder.done(now_ns, now_ns.saturating_sub(due_ns));
            }
            Some(Pending::Unsubscribe { .. }) => {}
        }
        Ok(())
    }

    fn next_ns(&self) -> Option<u64> {
        self.pace.as_ref().and_then(Pace::next_ns)
    }

    fn under_way(&self) -> u64 {
        self.under_way
    }

    fn finish(&mut self, crowd: &mut Crowd) -> Result<()> {
        for slot in 0..self.clients.len() {
            crowd.send(slot, encode_disconnect)?;
        }
        Ok(())
    }
}
