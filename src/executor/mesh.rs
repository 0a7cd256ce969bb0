//! A core's end of the mesh: what leaves for other cores at the end of a turn, what came from
//! them, and waking those that sleep. Knows no protocol.

use shards::mesh::Port;

use crate::clock::Tick;
use crate::engine::{Batch, CoreId, Engine, HandedOver};
use crate::limits;
use crate::stats::Stamps;

/// What a core has for another in one turn: one item of a lane. `S` is a socket as executors of
/// this kind pass it on.
#[derive(Debug)]
pub struct Cargo<S> {
    batch: Option<Batch>,
    stamps: Stamps,
    sockets: Vec<Moving<S>>,
}

/// A connection that moves to another core. Nobody watches the socket on its way.
#[derive(Debug)]
pub struct Moving<S> {
    /// The socket.
    pub socket: S,
    /// What the engine over there goes on with.
    pub handed_over: HandedOver,
}

/// A core's end of the mesh.
#[derive(Debug)]
pub struct Mesh<S> {
    port: Port<Cargo<S>>,
    /// Sockets that leave with this turn, by core.
    leaving: Vec<Vec<Moving<S>>>,
    /// Since when something waits for room in a lane, by core.
    held_since: Vec<Option<Tick>>,
    /// Cores to wake at the end of this turn.
    to_wake: Vec<usize>,
}

impl<S> Mesh<S> {
    /// The ends of a mesh between `cores` cores.
    pub fn each(cores: u16) -> Vec<Self> {
        let cores = usize::from(cores);
        let ports = shards::mesh::mesh(cores, limits::LANE_BATCHES_MAX);
        let end = |port| Self {
            port,
            leaving: (0..cores).map(|_| Vec::new()).collect(),
            held_since: vec![None; cores],
            to_wake: Vec::new(),
        };
        ports.into_iter().map(end).collect()
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<S> {
        let own = self.port.core();
        (0..self.port.cores()).filter(move |&core| core != own)
    }

    /// Sends a socket to another core, at the end of the turn.
    pub fn move_socket(&mut self, to: CoreId, socket: S, handed_over: HandedOver) {
        self.leaving[usize::from(to.0)].push(Moving { socket, handed_over });
    }

    /// Gives `take` what other cores said, a bounded part of it, and returns the sockets they sent.
    pub fn receive(&mut self, mut take: impl FnMut(CoreId, Batch, Stamps)) -> Vec<Moving<S>> {
        let mut arrived = Vec::new();
        for from in self.others() {
            for _ in 0..limits::LANE_BATCHES_PER_TURN {
                let Some(received) = self.port.receive(from) else { break };
                if received.must_wake {
                    self.to_wake.push(from);
                }
                if let Some(batch) = received.item.batch {
                    take(CoreId(from as u16), batch, received.item.stamps);
                }
                arrived.extend(received.item.sockets);
            }
        }
        arrived
    }

    /// Sends what the turn that `began` then left for other cores, as far as there is room; the rest
    /// follows. `stamp` is told since when there is something of it.
    pub fn send(&mut self, engine: &mut Engine, began: Tick, stamp: impl Fn(Tick) -> Stamps) {
        for core in self.others() {
            if !self.has_cargo(core, engine) {
                continue;
            }
            if !self.port.has_room(core) {
                self.held_since[core].get_or_insert(began);
                continue;
            }
            let stamps = stamp(self.held_since[core].take().unwrap_or(began));
            let sockets = std::mem::take(&mut self.leaving[core]);
            let cargo = Cargo { batch: engine.poll_batch(CoreId(core as u16)), stamps, sockets };
            match self.port.send(core, cargo) {
                Ok(true) => self.to_wake.push(core),
                Ok(false) => {}
                Err(_) => unreachable!("there was room, and nobody else sends here"),
            }
        }
    }

    fn has_cargo(&self, core: usize, engine: &mut Engine) -> bool {
        !self.leaving[core].is_empty() || engine.has_batch(CoreId(core as u16))
    }

    /// Whether the core may sleep: false when something came, or when there is room now for what
    /// had none.
    pub fn doze(&mut self, engine: &mut Engine) -> bool {
        let stuck: Vec<usize> =
            self.others().filter(|&core| self.has_cargo(core, engine)).collect();
        self.port.doze(stuck.into_iter())
    }

    /// The core is awake again.
    pub fn wake_up(&mut self) {
        self.port.wake_up();
    }

    /// Takes the next core that sleeps while something waits for it, until there is none.
    pub fn next_to_wake(&mut self) -> Option<usize> {
        self.to_wake.pop()
    }
}
