//! Replacement of the nodes in a build without clusters: the broker is a single process.

use std::ops::Range;

use ringmq::base::clock::Now;
use ringmq::engine::Engine;
use ringmq::resources::gauges::Place;

use crate::plan::{NodeStep, Plan};
use crate::random::Random;
use crate::world::Lane;

pub struct Nodes;

impl Nodes {
    pub fn new(_plan: &Plan) -> Self {
        Self
    }

    pub fn count(&self) -> usize {
        0
    }

    pub fn node_of(&self, _core: usize) -> usize {
        0
    }

    pub fn start(&mut self) -> Option<Vec<Place>> {
        None
    }

    pub fn start_node(&mut self, _node: usize) -> Vec<Place> {
        Vec::new()
    }

    pub fn group(&self, _core: usize, all: usize) -> Range<usize> {
        0..all
    }

    pub fn cores_for(
        &self,
        _client: usize,
        all: usize,
        _random: &mut Random,
    ) -> Option<Range<usize>> {
        Some(0..all)
    }

    pub fn is_stopped(&self, _core: usize) -> bool {
        false
    }

    pub fn are_ready(&self) -> bool {
        true
    }

    pub fn step(&mut self, _step: NodeStep, _random: &mut Random) {}

    pub fn heal(&mut self) {}

    pub fn deliver(
        &mut self,
        _core: (usize, &mut Engine),
        _now: Now,
        _count: impl FnOnce(usize) -> usize,
        _lanes: &mut [Vec<Lane>],
    ) -> bool {
        false
    }

    pub fn collect(&mut self, _core: usize, _engine: &mut Engine, _turn: u64) -> bool {
        false
    }

    pub fn turn(
        &mut self,
        _node: usize,
        _now: Now,
        _random: &mut Random,
        _all: bool,
    ) -> Result<bool, String> {
        Ok(false)
    }
}
