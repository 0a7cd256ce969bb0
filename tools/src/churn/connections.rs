//! `connections`: clients that connect, subscribe to a topic of their own, and stay idle; measures
//! the cost of each in time and memory.

use super::{
    crowd::{Actor, Crowd, Event},
    setup, timetable, wait_for_others,
};
use crate::{
    clock,
    codec::{Inbound, Session, encode_disconnect, encode_subscribe},
    coordinator::Coordinator,
    error::{Error, Result},
    limits::{CONNECTING_MAX, STALL_TIMEOUT},
    meter::Reading,
    outcome::{BrokerUse, Measured},
    pace::Pace,
};
use std::time::Duration;

/// The clients that are held.
#[derive(Debug)]
struct Held {
    /// When each started connection was due.
    due_ns: Vec<u64>,
    clients: usize,
    ready: usize,
    pace: Option<Pace>,
}

/// Connects all clients, and waits for the warm-up time before memory is measured.
pub fn measure(
    mut crowd: Crowd,
    clients: u32,
    coordinator: &mut dyn Coordinator,
) -> Result<Measured> {
    let mut actor = Held { due_ns: Vec::new(), clients: clients as usize, ready: 0, pace: None };
    let meter = crowd.settings.meter;
    let resident = || meter.map(|meter| meter.resident_bytes()).transpose();
    let resident_before = resident()?;
    let start_ns = coordinator.await_start()?;
    let begin = Reading::now(meter)?;
    crowd.recorder.start(clock::now_ns());
    actor.begin(&crowd, start_ns);
    crowd.working = true;
    connect_all(&mut crowd, &mut actor)?;
    let end = Reading::now(meter)?;
    crowd.working = false;
    let (distribution, timeline) = crowd.recorder.stop();
    let held_until_ns = clock::after(clock::now_ns(), crowd.settings.warm_up);
    while clock::now_ns() < held_until_ns {
        crowd.turn(&mut actor, Duration::from_millis(10))?;
    }
    let resident_after = resident()?;
    wait_for_others(&mut crowd, &mut actor, coordinator)?;
    actor.finish(&mut crowd)?;
    Ok(Measured {
        span_s: (end.at - begin.at).as_secs_f64(),
        begun: crowd.recorder.begun,
        done: crowd.recorder.done,
        tally: crowd.recorder.tally,
        distribution,
        timeline,
        generator_s: (end.generator - begin.generator).as_secs_f64(),
        broker: BrokerUse {
            usage: end.broker_since(&begin),
            resident: resident_before.zip(resident_after),
        },
    })
}

fn connect_all(crowd: &mut Crowd, actor: &mut Held) -> Result<()> {
    let mut last = (actor.ready, clock::now_ns());
    while actor.ready < actor.clients {
        crowd.turn(actor, Duration::from_millis(1))?;
        if actor.ready != last.0 {
            last = (actor.ready, clock::now_ns());
        } else if actor.under_way() > 0 && clock::now_ns() > clock::after(last.1, STALL_TIMEOUT) {
            let (ready, clients) = (actor.ready, actor.clients);
            return Err(Error::Broker(format!("only {ready} of {clients} clients became ready")));
        }
    }
    Ok(())
}

impl Actor for Held {
    fn prepare(&mut self, _crowd: &mut Crowd) -> Result<()> {
        Ok(())
    }

    fn begin(&mut self, crowd: &Crowd, start_ns: u64) {
        self.pace = timetable(crowd, start_ns);
    }

    fn work(&mut self, crowd: &mut Crowd, now_ns: u64) -> Result<()> {
        // Even in an open loop, no more at a time than brokers accept; a client that waits for this
        // is late.
        let mut room = CONNECTING_MAX.saturating_sub(self.under_way() as usize);
        room = room.min(self.clients - self.due_ns.len());
        if let Some(pace) = &self.pace {
            room = room.min(usize::try_from(pace.due(now_ns)).unwrap_or(usize::MAX));
        }
        for _ in 0..room {
            let slot = self.due_ns.len();
            self.due_ns.push(self.pace.as_mut().map_or(now_ns, |pace| pace.sent(now_ns)));
            let identifier = setup::identifier(crowd, slot);
            crowd.open(slot, identifier, Session::Clean)?;
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
        let (mqtt, qos) = (crowd.workload.mqtt, crowd.workload.qos);
        match event {
            Event::Accepted { .. } => {
                let filters = [format!("bench/{:08x}/{}/{slot}", crowd.run, crowd.share.number)];
                crowd.send(slot, |out| encode_subscribe(mqtt, 1, &filters, qos, out))
            }
            Event::Packet(Inbound::Suback { reasons, .. }) if reasons == [qos.bits()] => {
                self.ready += 1;
                crowd.recorder.done(now_ns, now_ns.saturating_sub(self.due_ns[slot]));
                Ok(())
            }
            event => Err(Error::Broker(format!("unexpected {event:?} for client {slot}"))),
        }
    }

    fn next_ns(&self) -> Option<u64> {
        let room = self.due_ns.len() < self.clients && self.under_way() < CONNECTING_MAX as u64;
        self.pace.as_ref().filter(|_| room).and_then(Pace::next_ns)
    }

    fn under_way(&self) -> u64 {
        (self.due_ns.len() - self.ready) as u64
    }

    fn finish(&mut self, crowd: &mut Crowd) -> Result<()> {
        (0..self.clients).try_for_each(|slot| crowd.send(slot, encode_disconnect))
    }
}
