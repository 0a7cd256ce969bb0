//! A bridge of the broker, with its far broker, which loses connections, sessions and packets, and a client that sees
//! what comes in.
//!
//! The bridge carries the topics `n/#` out and `b/#` in. The judgement is from outside: a message of QoS 1 that the broker
//! has accepted is at the far broker at least once, one of QoS 2 once as long as the far broker keeps its session, and in
//! the order of its publisher; and the same the other way.

mod driver;
mod far;
mod witness;

use std::collections::BTreeMap;

use self::driver::Driver;
use self::far::Far;
use self::witness::Witness;
use crate::judge::Judge;
use crate::plan::{BridgeStep, Plan};
use crate::world::World;

pub struct Bridge(Option<Ends>);

struct Ends {
    driver: Driver,
    far: Far,
    witness: Witness,
}

impl Bridge {
    pub fn new(plan: &Plan) -> Self {
        Self(plan.has_bridge.then(|| Ends {
            driver: Driver::default(),
            far: Far::default(),
            witness: Witness::default(),
        }))
    }

    pub fn step(&mut self, step: BridgeStep, world: &mut World, judge: &Judge) {
        let Some(Ends { driver, far, .. }) = &mut self.0 else { return };
        match step {
            BridgeStep::Cut => driver.cut(world),
            BridgeStep::Swallow => far.swallows = true,
            BridgeStep::Delay => far.delays = true,
            BridgeStep::Forget => {
                far.forget(judge.messages.len());
                driver.cut(world);
            }
            BridgeStep::Publish { qos, times } => {
                for _ in 0..times {
                    far.publish(world, driver.line(), qos);
                }
            }
        }
    }

    /// The broker has crashed.
    pub fn crash(&mut self, world: &mut World) {
        if let Some(Ends { driver, witness, .. }) = &mut self.0 {
            driver.crash(world);
            witness.cut(world);
        }
    }

    /// Both ends process what they received.
    pub fn look(&mut self, world: &mut World, judge: &Judge) -> Result<(), String> {
        let Some(Ends { driver, far, witness }) = &mut self.0 else { return Ok(()) };
        driver.look(world, judge.messages.len())?;
        if let Some(link) = driver.line() {
            far.look(world, link)?;
        }
        witness.look(world)?;
        witness.expect_from(far);
        Ok(())
    }

    /// Nothing is lost or delayed any more.
    pub fn calm(&mut self, world: &mut World) {
        let Some(Ends { driver, far, .. }) = &mut self.0 else { return };
        if far.calm() {
            driver.cut(world);
        }
    }

    /// Everything is at rest.
    pub fn settle(&self, judge: &Judge) -> Result<(), String> {
        let Some(Ends { driver, far, witness }) = &self.0 else { return Ok(()) };
        let Some(expected_from) = driver.expected_from() else {
            return Err("the bridge does not connect".to_owned());
        };
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        let mut last: BTreeMap<(usize, &str, u8), usize> = BTreeMap::new();
        for &message in &far.received {
            let count = times.entry(message).or_default();
            *count += 1;
            let of = &judge.messages[message];
            // What a client has sent again may have another place.
            if *count > 1 || of.is_resent || of.qos == 0 {
                continue;
            }
            let newest = last.entry((of.publisher, of.topic, of.qos)).or_insert(message);
            if *newest > message {
                return Err(format!("the far broker has message {message} after {newest}"));
            }
            *newest = message;
        }
        for (number, of) in judge.messages.iter().enumerate().skip(expected_from) {
            let count = times.get(&number).copied().unwrap_or_default();
            if of.topic.starts_with("n/") && of.qos > 0 && judge.is_accepted(number) && count == 0 {
                return Err(format!("the far broker lacks message {number} of QoS {}", of.qos));
            }
            if of.qos == 2 && count > 1 && number >= far.exactly_once_from {
                return Err(format!("the far broker has message {number} of QoS 2 {count} times"));
            }
        }
        far.check_settled()?;
        witness.settle(far)
    }

    /// Nothing of the bridge is left.
    pub fn end(&mut self, world: &mut World) {
        if let Some(Ends { driver, witness, .. }) = &mut self.0 {
            driver.end(world);
            witness.cut(world);
        }
        self.0 = None;
    }
}
