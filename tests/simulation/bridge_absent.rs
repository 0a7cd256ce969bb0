//! Replacement of the bridge in a build without them: there is none.

use crate::judge::Judge;
use crate::plan::{BridgeStep, Plan};
use crate::world::World;

pub struct Bridge;

impl Bridge {
    pub fn new(_plan: &Plan) -> Self {
        Self
    }

    pub fn step(&mut self, _step: BridgeStep, _world: &mut World, _judge: &Judge) {}

    pub fn crash(&mut self, _world: &mut World) {}

    pub fn look(&mut self, _world: &mut World, _judge: &Judge) -> Result<(), String> {
        Ok(())
    }

    pub fn calm(&mut self, _world: &mut World) {}

    pub fn settle(&self, _judge: &Judge) -> Result<(), String> {
        Ok(())
    }

    pub fn end(&mut self, _world: &mut World) {}
}
