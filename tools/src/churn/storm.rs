//! `reconnect-storm`: every client loses its connection at once, without DISCONNECT, and all
//! reconnect at once. At QoS 0 they start new sessions and subscribe again; otherwise their
//! sessions were kept, and each receives a message that was sent while it was disconnected.

use std::collections::VecDeque;

use super::{
    crowd::{Actor, Crowd, Event},
    setup,
};
use crate::{
    codec::{
        Inbound, PublishTemplate, Qos, Session, encode_disconnect, encode_pingreq, encode_subscribe,
    },
    error::{Error, Result},
    limits::CONNECT_TIMEOUT,
    stamp::Stamp,
    verify::Tally,
};

/// Maximum number of unacknowledged messages of the publisher.
const PUBLISHED_AT_A_TIME: usize = 100;

/// The clients of the storm, and in the last slot one that publishes to them.
#[derive(Debug)]
pub struct Storm {
    clients: Vec<Weathering>,
    phase: Phase,
    /// Clients, including the publisher, that have completed the current phase.
    arrived: usize,
    /// Number of storms so far: the sequence number of the messages of the next one.
    storms: u64,
    begun_ns: u64,
    /// Clients that the publisher still has to send to.
    to_publish: VecDeque<usize>,
    /// Packet Identifiers of its unacknowledged messages.
    unacknowledged: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Weathering {
    ready: bool,
    /// Messages received since the storm.
    came: u32,
    /// Whether the message's exchange is complete: the broker has to resume an exchange that the
    /// end of a connection interrupted.
    settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first connection, including subscriptions.
    Settling,
    /// All clients are connected, and no message is in flight.
    Calm,
    /// Messages are published to disconnected clients.
    SendingAway,
    /// All clients are reconnecting.
    Returning,
    /// Messages are published to connected clients.
    SendingThere,
    /// Sessions are being ended.
    Cleaning,
}

fn topic(crowd: &Crowd, slot: usize) -> String {
    format!("bench/{:08x}/{}/{slot}", crowd.run, crowd.share.number)
}

impl Storm {
    /// This many clients.
    pub fn new(clients: u32) -> Self {
        Self {
            clients: vec![Weathering::default(); clients as usize],
            phase: Phase::Settling,
            arrived: 0,
            storms: 0,
            begun_ns: 0,
            to_publish: VecDeque::new(),
            unacknowledged: 0,
        }
    }

    fn session(crowd: &Crowd) -> Session {
        if crowd.workload.qos == Qos::AtMostOnce { Session::Clean } else { Session::Kept }
    }

    /// All clients lose their connections.
    fn begin_storm(&mut self, crowd: &mut Crowd, now_ns: u64) -> Result<()> {
        for slot in 0..self.clients.len() {
            crowd.close(slot);
            self.clients[slot] = Weathering::default();
        }
        match Self::session(crowd) {
            Session::Clean => self.come_back(crowd, now_ns),
            Session::Kept => {
                self.phase = Phase::SendingAway;
                self.to_publish = (0..self.clients.len()).collect();
                self.publish(crowd)
            }
        }
    }

    /// All clients connect at the same time.
    fn come_back(&mut self, crowd: &mut Crowd, now_ns: u64) -> Result<()> {
        self.phase = Phase::Returning;
        self.begun_ns = now_ns;
        self.arrived = 0;
        let session = Self::session(crowd);
        for slot in 0..self.clients.len() {
            let identifier = setup::identifier(crowd, slot);
            crowd.open(slot, identifier, session)?;
            crowd.recorder.begun += 1;
        }
        Ok(())
    }

    /// Publishes pending messages, a bounded number at a time.
    fn publish(&mut self, crowd: &mut Crowd) -> Result<()> {
        let workload = crowd.workload;
        let publisher = self.clients.len();
        while self.unacknowledged < PUBLISHED_AT_A_TIME {
            let Some(slot) = self.to_publish.pop_front() else { break };
            let topic = topic(crowd, slot);
            let payload_bytes = workload.payload_bytes as usize;
            let template = PublishTemplate::new(workload.mqtt, &topic, workload.qos, payload_bytes);
            let stamp = Stamp {
                run: crowd.run as u16,
                publisher: slot as u32,
                sequence: self.storms,
                sent_ns: 0,
            };
            // Fewer messages are in flight than there are identifiers.
            let packet_identifier = (slot % 60_000) as u16 + 1;
            crowd.send(publisher, |out| template.encode(packet_identifier, &stamp, out))?;
            if workload.qos == Qos::AtMostOnce {
                crowd.send(publisher, encode_pingreq)?;
            }
            self.unacknowledged += 1;
        }
        Ok(())
    }

    /// The broker acknowledged a message of the publisher.
    fn handle_taken(&mut self, crowd: &mut Crowd, now_ns: u64) -> Result<()> {
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
        self.publish(crowd)?;
        let all_taken = self.unacknowledged == 0 && self.to_publish.is_empty();
        if all_taken && self.phase == Phase::SendingAway {
            return self.come_back(crowd, now_ns);
        }
        self.conclude(crowd)
    }

    /// A client has reconnected, with its subscriptions.
    fn handle_ready(&mut self, crowd: &mut Crowd, slot: usize, now_ns: u64) -> Result<()> {
        self.clients[slot].ready = true;
        self.arrived += 1;
        if self.phase == Phase::Returning {
            crowd.recorder.done(now_ns, now_ns.saturating_sub(self.begun_ns));
        }
        self.conclude(crowd)
    }

    /// Enters the next phase if the current one is complete.
    fn conclude(&mut self, crowd: &mut Crowd) -> Result<()> {
        let all_there = self.arrived == self.clients.len();
        let all_have = || self.clients.iter().all(|client| client.settled);
        match self.phase {
            Phase::Returning if all_there && Self::session(crowd) == Session::Clean => {
                self.phase = Phase::SendingThere;
                self.to_publish = (0..self.clients.len()).collect();
                self.publish(crowd)
            }
            Phase::Returning if all_there && all_have() => self.end_storm(),
            Phase::SendingThere if self.unacknowledged == 0 && all_have() => self.end_storm(),
            _ => Ok(()),
        }
    }

    fn end_storm(&mut self) -> Result<()> {
        self.phase = Phase::Calm;
        self.storms += 1;
        Ok(())
    }

    fn handle_accepted(
        &mut self,
        crowd: &mut Crowd,
        slot: usize,
        session_present: bool,
        now_ns: u64,
    ) -> Result<()> {
        let is_publisher = slot == self.clients.len();
        let (mqtt, qos) = (crowd.workload.mqtt, crowd.workload.qos);
        let expects_session = self.phase == Phase::Returning && qos > Qos::AtMostOnce;
        if session_present != expects_session && self.phase != Phase::Cleaning {
            crowd.recorder.tally.wrong_acknowledgements += 1;
        }
        if self.phase == Phase::Cleaning {
            self.arrived += 1;
            return crowd.send(slot, encode_disconnect);
        }
        if is_publisher {
            self.arrived += 1;
            return Ok(());
        }
        if session_present {
            return self.handle_ready(crowd, slot, now_ns);
        }
        let filters = [topic(crowd, slot)];
        crowd.send(slot, |out| encode_subscribe(mqtt, 1, &filters, qos, out))
    }

    fn handle_message(&mut self, crowd: &mut Crowd, slot: usize, qos: Qos, payload: &[u8]) {
        let tally = &mut crowd.recorder.tally;
        tally.wrong_qos += u64::from(qos != crowd.workload.qos);
        let whole = payload.len() == crowd.workload.payload_bytes as usize;
        match Stamp::decode(payload).filter(|_| whole) {
            None => tally.corrupted += 1,
            Some(stamp) if stamp.run != crowd.run as u16 || stamp.publisher != slot as u32 => {
                tally.misdelivered += 1;
            }
            Some(stamp) if stamp.sequence != self.storms || self.clients[slot].came > 0 => {
                tally.duplicated += 1;
            }
            Some(_) => {
                self.clients[slot].came += 1;
                self.clients[slot].settled = qos < Qos::ExactlyOnce;
            }
        }
    }
}

impl Actor for Storm {
    fn prepare(&mut self, crowd: &mut Crowd) -> Result<()> {
        let count = self.clients.len() + 1;
        let session = Self::session(crowd);
        setup::connect_all(crowd, self, count, session, |actor| actor.arrived)?;
        self.phase = Phase::Calm;
        Ok(())
    }

    fn begin(&mut self, _crowd: &Crowd, _start_ns: u64) {}

    fn work(&mut self, crowd: &mut Crowd, now_ns: u64) -> Result<()> {
        if self.phase == Phase::Calm { self.begin_storm(crowd, now_ns) } else { Ok(()) }
    }

    fn handle(
        &mut self,
        crowd: &mut Crowd,
        slot: usize,
        event: Event<'_>,
        now_ns: u64,
    ) -> Result<()> {
        match event {
            Event::Accepted { session_present } => {
                self.handle_accepted(crowd, slot, session_present, now_ns)
            }
            Event::Packet(Inbound::Suback { reasons, .. }) => {
                let granted = reasons == [crowd.workload.qos.bits()];
                crowd.recorder.tally.wrong_acknowledgements += u64::from(!granted);
                self.handle_ready(crowd, slot, now_ns)
            }
            Event::Packet(Inbound::Publish { qos, payload, .. }) if slot < self.clients.len() => {
                self.handle_message(crowd, slot, qos, payload);
                self.conclude(crowd)
            }
            Event::Packet(Inbound::Puback(_, reason) | Inbound::Pubcomp(_, reason)) => {
                crowd.recorder.tally.wrong_acknowledgements += u64::from(reason >= 0x80);
                self.handle_taken(crowd, now_ns)
            }
            Event::Packet(Inbound::Pingresp) => self.handle_taken(crowd, now_ns),
            Event::Packet(Inbound::Pubrel(..)) if slot < self.clients.len() => {
                self.clients[slot].settled = true;
                self.conclude(crowd)
            }
            Event::Packet(Inbound::Pubrec(..)) => Ok(()),
            Event::Closed if self.phase == Phase::Cleaning => {
                crowd.close(slot);
                Ok(())
            }
            event => Err(Error::Broker(format!("unexpected {event:?} for client {slot}"))),
        }
    }

    fn next_ns(&self) -> Option<u64> {
        None
    }

    fn is_between(&self) -> bool {
        self.phase == Phase::Calm
    }

    /// Disconnected clients, and missing messages.
    fn under_way(&self) -> u64 {
        if matches!(self.phase, Phase::Calm | Phase::Settling | Phase::Cleaning) {
            return 0;
        }
        let missing = |client: &&Weathering| !client.ready || !client.settled;
        // A storm counts as pending until its end, even between two of its packets.
        self.clients.iter().filter(missing).count().max(1) as u64
    }

    fn settle(&self, tally: &mut Tally) {
        if self.under_way() == 0 {
            return;
        }
        let away = self.clients.iter().filter(|client| !client.ready).count() as u64;
        let without = self.clients.iter().filter(|client| client.came == 0).count() as u64;
        tally.unacknowledged += away + self.unacknowledged as u64;
        // A client that has not reconnected cannot have its message, and is already counted.
        tally.lost += without.saturating_sub(away);
    }

    fn finish(&mut self, crowd: &mut Crowd) -> Result<()> {
        if Self::session(crowd) == Session::Clean {
            return (0..=self.clients.len())
                .try_for_each(|slot| crowd.send(slot, encode_disconnect));
        }
        self.phase = Phase::Cleaning;
        let count = self.clients.len() + 1;
        self.arrived = 0;
        (0..count).for_each(|slot| crowd.close(slot));
        setup::connect_all(crowd, self, count, Session::Clean, |actor| actor.arrived)?;
        crowd.turn_until(self, CONNECT_TIMEOUT, "the end of the sessions", |actor| {
            actor.arrived == count
        })
    }
}
