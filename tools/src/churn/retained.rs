//! `retained`: clients subscribe to a set of retained messages, receive all of it, unsubscribe, and
//! start over.

use std::collections::VecDeque;

use super::{
    crowd::{Actor, Crowd, Event},
    setup, timetable,
};
use crate::{
    codec::{
        Inbound, PublishTemplate, Qos, Session, encode_disconnect, encode_pingreq,
        encode_retained_removal, encode_subscribe, encode_unsubscribe,
    },
    error::{Error, Result},
    limits::{CONNECT_TIMEOUT, STALL_TIMEOUT},
    pace::Pace,
    stamp::Stamp,
    verify::Tally,
};

/// Messages of the set published between two acknowledgements of the broker.
const STORED_AT_A_TIME: u32 = 16;

/// The fetching clients, and in the last slot the client that publishes the set.
#[derive(Debug)]
pub struct Retained {
    clients: Vec<Fetching>,
    connected: usize,
    /// Acknowledgements of the messages published last.
    stored: u32,
    pace: Option<Pace>,
    /// When each fetch that waits for a free client was due.
    overdue: VecDeque<u64>,
    free: Vec<usize>,
    /// Before the load: a broker with several cores may still be distributing the set, and a client
    /// that subscribes meanwhile receives part of it as new messages.
    settling: bool,
}

#[derive(Debug, Default)]
struct Fetching {
    phase: Phase,
    due_ns: u64,
    /// The messages of the set received so far.
    seen: Vec<bool>,
    came: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Free,
    /// SUBSCRIBE has been sent: messages may arrive before SUBACK.
    Fetching {
        acknowledged: bool,
    },
    Unsubscribing,
}

fn filter(crowd: &Crowd) -> String {
    format!("bench/{:08x}/{}/+", crowd.run, crowd.share.number)
}

fn topic(crowd: &Crowd, index: u32) -> String {
    format!("bench/{:08x}/{}/{index}", crowd.run, crowd.share.number)
}

impl Retained {
    /// This many fetching clients.
    pub fn new(clients: u32) -> Self {
        let clients = clients as usize;
        Self {
            clients: (0..clients).map(|_| Fetching::default()).collect(),
            connected: 0,
            stored: 0,
            pace: None,
            overdue: VecDeque::new(),
            free: (0..clients).rev().collect(),
            settling: false,
        }
    }

    /// The sequence number of each message is its index, and no fetch completes before all have
    /// arrived.
    fn store(&mut self, crowd: &mut Crowd) -> Result<()> {
        let slot = self.clients.len();
        let workload = crowd.workload;
        let payload_bytes = workload.payload_bytes as usize;
        for index in 0..workload.topics {
            let topic = topic(crowd, index);
            let template =
                PublishTemplate::new(workload.mqtt, &topic, workload.qos, payload_bytes).retained();
            let stamp = Stamp { run: crowd.run as u16, sequence: index.into(), ..Stamp::default() };
            let packet_identifier = (index % STORED_AT_A_TIME) as u16 + 1;
            crowd.send(slot, |out| template.encode(packet_identifier, &stamp, out))?;
            if (index + 1) % STORED_AT_A_TIME == 0 || index + 1 == workload.topics {
                self.await_stored(crowd, workload.qos, index % STORED_AT_A_TIME + 1)?;
            }
        }
        Ok(())
    }

    /// Lets every client fetch the set once, so that it is available on every core.
    fn settle_set(&mut self, crowd: &mut Crowd) -> Result<()> {
        self.settling = true;
        while let Some(slot) = self.free.pop() {
            self.fetch(crowd, slot, 0)?;
        }
        let what = "the whole set of retained messages";
        crowd.turn_until(self, STALL_TIMEOUT, what, |actor| actor.under_way() == 0)?;
        self.settling = false;
        Ok(())
    }

    /// Waits until the broker has acknowledged the last `count` messages, all at this QoS.
    fn await_stored(&mut self, crowd: &mut Crowd, qos: Qos, count: u32) -> Result<()> {
        let mut answers = count;
        if qos == Qos::AtMostOnce {
            crowd.send(self.clients.len(), encode_pingreq)?;
            answers = 1;
        }
        self.stored = 0;
        let what = "the acknowledgement of a retained message";
        crowd.turn_until(self, CONNECT_TIMEOUT, what, |actor| actor.stored == answers)
    }

    fn fetch(&mut self, crowd: &mut Crowd, slot: usize, due_ns: u64) -> Result<()> {
        let client = &mut self.clients[slot];
        client.phase = Phase::Fetching { acknowledged: false };
        client.due_ns = due_ns;
        client.seen = vec![false; crowd.workload.topics as usize];
        client.came = 0;
        crowd.recorder.begun += 1;
        let (mqtt, qos, filters) = (crowd.workload.mqtt, crowd.workload.qos, [filter(crowd)]);
        crowd.send(slot, |out| encode_subscribe(mqtt, 1, &filters, qos, out))
    }

    fn handle_message(
        &mut self,
        crowd: &mut Crowd,
        slot: usize,
        retain: bool,
        qos: Qos,
        payload: &[u8],
        now_ns: u64,
    ) {
        let tally = &mut crowd.recorder.tally;
        let client = &mut self.clients[slot];
        tally.wrong_qos += u64::from(qos != crowd.workload.qos);
        let whole = payload.len() == crowd.workload.payload_bytes as usize;
        let Some(stamp) = Stamp::decode(payload).filter(|_| whole) else {
            tally.corrupted += 1;
            return;
        };
        let seen = client.seen.get_mut(stamp.sequence as usize);
        match (seen, client.phase) {
            _ if stamp.run != crowd.run as u16 => tally.misdelivered += 1,
            (Some(seen), _) if self.settling => {
                client.came += u32::from(!std::mem::replace(seen, true));
            }
            (Some(seen), Phase::Fetching { .. }) if retain => {
                if std::mem::replace(seen, true) {
                    tally.duplicated += 1;
                    return;
                }
                client.came += 1;
                crowd.recorder.done_without_time(now_ns);
            }
            (Some(_), Phase::Unsubscribing) => tally.duplicated += 1,
            _ => tally.misdelivered += 1,
        }
    }

    /// Unsubscribes after the whole set has arrived.
    fn conclude(&mut self, crowd: &mut Crowd, slot: usize, now_ns: u64) -> Result<()> {
        let client = &mut self.clients[slot];
        let complete = client.came == crowd.workload.topics;
        if !complete || client.phase != (Phase::Fetching { acknowledged: true }) {
            return Ok(());
        }
        crowd.recorder.took(now_ns.saturating_sub(client.due_ns));
        client.phase = Phase::Unsubscribing;
        let (mqtt, filter) = (crowd.workload.mqtt, filter(crowd));
        crowd.send(slot, |out| encode_unsubscribe(mqtt, 2, &filter, out))
    }
}

impl Actor for Retained {
    fn prepare(&mut self, crowd: &mut Crowd) -> Result<()> {
        let count = self.clients.len() + 1;
        setup::connect_all(crowd, self, count, Session::Clean, |actor| actor.connected)?;
        self.store(crowd)?;
        self.settle_set(crowd)
    }

    fn begin(&mut self, crowd: &Crowd, start_ns: u64) {
        self.pace = timetable(crowd, start_ns);
    }

    fn work(&mut self, crowd: &mut Crowd, now_ns: u64) -> Result<()> {
        if let Some(pace) = &mut self.pace {
            for _ in 0..pace.due(now_ns) {
                self.overdue.push_back(pace.sent(now_ns));
            }
        }
        while let Some(&slot) = self.free.last() {
            let due_ns = match &self.pace {
                None => Some(now_ns),
                Some(_) => self.overdue.pop_front(),
            };
            let Some(due_ns) = due_ns else { break };
            self.free.pop();
            self.fetch(crowd, slot, due_ns)?;
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
        match event {
            Event::Accepted { .. } => self.connected += 1,
            Event::Packet(Inbound::Pingresp) => self.stored += 1,
            Event::Packet(Inbound::Puback(_, reason) | Inbound::Pubcomp(_, reason)) => {
                crowd.recorder.tally.wrong_acknowledgements += u64::from(reason >= 0x80);
                self.stored += 1;
            }
            Event::Packet(Inbound::Suback { reasons, .. }) if slot < self.clients.len() => {
                let granted = reasons == [crowd.workload.qos.bits()];
                crowd.recorder.tally.wrong_acknowledgements += u64::from(!granted);
                self.clients[slot].phase = Phase::Fetching { acknowledged: true };
                self.conclude(crowd, slot, now_ns)?;
            }
            Event::Packet(Inbound::Unsuback(_)) if slot < self.clients.len() => {
                self.clients[slot].phase = Phase::Free;
                self.free.push(slot);
            }
            Event::Packet(Inbound::Publish { qos, retain, payload, .. })
                if slot < self.clients.len() =>
            {
                self.handle_message(crowd, slot, retain, qos, payload, now_ns);
                self.conclude(crowd, slot, now_ns)?;
            }
            Event::Packet(Inbound::Pubrec(..) | Inbound::Pubrel(..)) => {}
            event => {
                return Err(Error::Broker(format!("unexpected {event:?} for client {slot}")));
            }
        }
        Ok(())
    }

    fn next_ns(&self) -> Option<u64> {
        self.pace.as_ref().and_then(Pace::next_ns)
    }

    /// Missing messages of the sets being fetched, and requests without a response.
    fn under_way(&self) -> u64 {
        let of = |client: &Fetching| match client.phase {
            Phase::Free => 0,
            Phase::Fetching { .. } => (client.seen.len() - client.came as usize).max(1) as u64,
            Phase::Unsubscribing => 1,
        };
        self.clients.iter().map(of).sum()
    }

    fn settle(&self, tally: &mut Tally) {
        for client in &self.clients {
            if matches!(client.phase, Phase::Fetching { .. }) {
                tally.lost += client.seen.len() as u64 - u64::from(client.came);
            }
            let unanswered = matches!(
                client.phase,
                Phase::Fetching { acknowledged: false } | Phase::Unsubscribing
            );
            tally.unacknowledged += u64::from(unanswered);
        }
    }

    fn finish(&mut self, crowd: &mut Crowd) -> Result<()> {
        let slot = self.clients.len();
        for index in 0..crowd.workload.topics {
            let (mqtt, topic) = (crowd.workload.mqtt, topic(crowd, index));
            crowd.send(slot, |out| encode_retained_removal(mqtt, &topic, out))?;
            if (index + 1) % STORED_AT_A_TIME == 0 {
                self.await_stored(crowd, Qos::AtMostOnce, 1)?;
            }
        }
        self.await_stored(crowd, Qos::AtMostOnce, 1)?;
        (0..=slot).try_for_each(|slot| crowd.send(slot, encode_disconnect))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_pending_until_its_last_message_and_the_unsuback() {
        let mut actor = Retained::new(1);
        assert_eq!(actor.under_way(), 0);
        actor.clients[0].seen = vec![false; 3];
        actor.clients[0].phase = Phase::Fetching { acknowledged: true };
        assert_eq!(actor.under_way(), 3);
        actor.clients[0].came = 3;
        actor.clients[0].phase = Phase::Unsubscribing;
        assert_eq!(actor.under_way(), 1);
    }
}
