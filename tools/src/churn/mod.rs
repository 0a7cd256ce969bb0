//! Scenarios whose clients do not just stay connected and exchange messages: they connect,
//! subscribe, fetch retained messages, or lose their connections and reconnect.

mod conn;
mod connections;
mod crowd;
mod retained;
mod setup;
mod storm;
mod sub;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::{
    clock,
    coordinator::Coordinator,
    descriptors,
    error::Result,
    limits::{DESCRIPTORS_SPARE, STALL_TIMEOUT},
    load::RunSettings,
    meter::Reading,
    outcome::{BrokerUse, Measured},
    pace::{Pace, Timetable},
    progress::Progress,
    scenario::{LoadMode, Scenario, Share, Workload},
};
use crowd::{Actor, Crowd};

const _: () = assert!(DESCRIPTORS_SPARE > 2, "some scenarios use an additional client");

/// Runs this process's share of a run with connecting and disconnecting clients.
pub fn measure(
    workload: Workload,
    run: u32,
    share: Share,
    settings: RunSettings,
    coordinator: &mut dyn Coordinator,
) -> Result<Measured> {
    let clients = share.of(workload.subscribers);
    descriptors::raise_limit(u64::from(clients))?;
    // One more slot for a client that publishes.
    let slots = clients as usize + 1;
    let crowd = Crowd::new(workload, run, share, settings, slots)?;
    match workload.scenario {
        Scenario::Conn => drive(crowd, conn::Conn::new(clients), coordinator),
        Scenario::Sub => drive(crowd, sub::Sub::new(clients), coordinator),
        Scenario::Retained => drive(crowd, retained::Retained::new(clients), coordinator),
        Scenario::ReconnectStorm => drive(crowd, storm::Storm::new(clients), coordinator),
        Scenario::Connections => connections::measure(crowd, clients, coordinator),
        _ => unreachable!("handled by the load module"),
    }
}

/// When the next of this process's clients is due: its share of the rate, or never if each client
/// continues as soon as it can.
fn timetable(crowd: &Crowd, start_ns: u64) -> Option<Pace> {
    match crowd.workload.load {
        LoadMode::Closed { .. } => None,
        LoadMode::Open { per_second } => {
            let step_ns = 1e9 / per_second;
            let first_ns = start_ns as f64 + f64::from(crowd.share.number) * step_ns;
            let interval_ns = step_ns * f64::from(crowd.share.processes);
            Some(Pace::Timetable(Timetable::new(first_ns, interval_ns)))
        }
    }
}

/// A whole run: prepare, warm up, measure, wait for pending operations, clean up.
fn drive(
    mut crowd: Crowd,
    mut actor: impl Actor,
    coordinator: &mut dyn Coordinator,
) -> Result<Measured> {
    actor.prepare(&mut crowd)?;
    let start_ns = coordinator.await_start()?;
    actor.begin(&crowd, start_ns);
    crowd.working = true;
    let (meter, progress) = (crowd.settings.meter, crowd.settings.progress);
    let span_ns = clock::after(start_ns, crowd.settings.warm_up);
    run_until(&mut crowd, &mut actor, span_ns, None)?;

    let resident = || meter.map(|meter| meter.resident_bytes()).transpose();
    let (begun, done, resident_before) = (crowd.recorder.begun, crowd.recorder.done, resident()?);
    let begin = Reading::now(meter)?;
    crowd.recorder.start(clock::now_ns());
    let end_ns = clock::after(clock::now_ns().max(span_ns), crowd.settings.span);
    let unit = crowd.workload.scenario.unit().1;
    let shown = Progress::new(progress, crowd.settings.span, unit, crowd.recorder.done);
    run_until(&mut crowd, &mut actor, end_ns, Some(shown))?;
    let end = Reading::now(meter)?;
    let (distribution, timeline) = crowd.recorder.stop();
    let (begun, done) = (crowd.recorder.begun - begun, crowd.recorder.done - done);
    let resident_after = resident()?;

    crowd.working = false;
    drain(&mut crowd, &mut actor)?;
    actor.settle(&mut crowd.recorder.tally);
    wait_for_others(&mut crowd, &mut actor, coordinator)?;
    if actor.under_way() == 0 {
        actor.finish(&mut crowd)?;
    }
    Ok(Measured {
        span_s: (end.at - begin.at).as_secs_f64(),
        begun,
        done,
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

fn run_until(
    crowd: &mut Crowd,
    actor: &mut impl Actor,
    end_ns: u64,
    mut progress: Option<Progress>,
) -> Result<()> {
    let mut patience = Patience::new(actor);
    loop {
        let now_ns = clock::now_ns();
        let is_stuck = patience.is_over(actor, now_ns);
        if now_ns >= end_ns && (actor.is_between() || is_stuck) {
            return Ok(());
        }
        if let Some(progress) = &mut progress {
            progress.tick(now_ns, Some(crowd.recorder.done));
        }
        let left = Duration::from_nanos(end_ns.saturating_sub(now_ns));
        let rest = left.clamp(Duration::from_millis(1), Duration::from_millis(10));
        crowd.turn(actor, rest)?;
    }
}

/// How long to wait without progress before pending operations are given up. If the broker's accept
/// queue is full, the kernel retries the connection, possibly for the third time after seven
/// seconds. Tests with planted losses use a shorter time.
const PATIENCE: Duration =
    if cfg!(test) { Duration::from_secs(1) } else { STALL_TIMEOUT.saturating_mul(3) };

/// Interval between progress checks: counting the pending operations may be expensive.
const LOOK: Duration = Duration::from_millis(50);

/// Waits for started operations, as long as some complete.
struct Patience {
    under_way: u64,
    changed_ns: u64,
    look_ns: u64,
}

impl Patience {
    fn new(actor: &impl Actor) -> Self {
        let now_ns = clock::now_ns();
        Self { under_way: actor.under_way(), changed_ns: now_ns, look_ns: now_ns }
    }

    fn is_over(&mut self, actor: &impl Actor, now_ns: u64) -> bool {
        if now_ns >= self.look_ns {
            self.look_ns = clock::after(now_ns, LOOK);
            let under_way = actor.under_way();
            if under_way != self.under_way {
                (self.under_way, self.changed_ns) = (under_way, now_ns);
            }
        }
        now_ns > clock::after(self.changed_ns, PATIENCE)
    }
}

/// Waits for started operations.
fn drain(crowd: &mut Crowd, actor: &mut impl Actor) -> Result<()> {
    let mut patience = Patience::new(actor);
    while actor.under_way() > 0 && !patience.is_over(actor, clock::now_ns()) {
        crowd.turn(actor, Duration::from_millis(10))?;
    }
    Ok(())
}

/// Keeps connections open until the other processes are finished.
fn wait_for_others(
    crowd: &mut Crowd,
    actor: &mut impl Actor,
    coordinator: &mut dyn Coordinator,
) -> Result<()> {
    coordinator.tell_sent(Vec::new())?;
    while coordinator.everyones_sent()?.is_none() {
        crowd.turn(actor, Duration::from_millis(1))?;
    }
    Ok(())
}
