//! A core's end of the mesh: what leaves for other cores at the end of a turn, what came from
//! them, and waking those that sleep. Knows no protocol.

use std::sync::Arc;

use mio::Waker;
use mio::net::TcpStream;
use shards::mesh::Port;

use crate::clock::Now;
use crate::engine::{CoreId, Engine, HandedOver};
use crate::limits;

/// What a core has for another in one turn: one item of a lane.
#[derive(Debug, Default)]
pub struct Cargo {
    batch: Option<crate::engine::Batch>,
    sockets: Vec<Moving>,
}

/// A connection that moves to another core. The socket belongs to no poll on its way.
#[derive(Debug)]
pub struct Moving {
    /// The socket.
    pub stream: std::net::TcpStream,
    /// What the engine over there goes on with.
    pub handed_over: HandedOver,
}

/// A core's end of the mesh.
#[derive(Debug)]
pub struct Mesh {
    port: Port<Cargo>,
    /// How each core is woken.
    wakers: Arc<[Waker]>,
    /// Sockets that leave with this turn, by core.
    leaving: Vec<Vec<Moving>>,
    /// Cores woken in this turn.
    wakeups: u64,
}

impl Mesh {
    /// The ends of a mesh between as many cores as there are wakers.
    pub fn each(wakers: &Arc<[Waker]>) -> Vec<Self> {
        let cores = wakers.len();
        let ports = shards::mesh::mesh(cores, limits::LANE_BATCHES_MAX);
        let end = |port| Self {
            port,
            wakers: Arc::clone(wakers),
            leaving: (0..cores).map(|_| Vec::new()).collect(),
            wakeups: 0,
        };
        ports.into_iter().map(end).collect()
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.port.core();
        (0..self.port.cores()).filter(move |&core| core != own)
    }

    /// Sends a socket to another core, at the end of the turn.
    pub fn move_socket(&mut self, to: CoreId, stream: TcpStream, handed_over: HandedOver) {
        let stream = std::net::TcpStream::from(stream);
        self.leaving[usize::from(to.0)].push(Moving { stream, handed_over });
    }

    /// Takes what other cores said, a bounded part of it, and returns the sockets they sent.
    pub fn receive(&mut self, now: Now, engine: &mut Engine) -> Vec<Moving> {
        let mut arrived = Vec::new();
        for from in self.others() {
            for _ in 0..limits::LANE_BATCHES_PER_TURN {
                let Some(received) = self.port.receive(from) else { break };
                if received.must_wake {
                    self.wake(from);
                }
                if let Some(batch) = received.item.batch {
                    engine.handle_batch(now, CoreId(from as u16), batch);
                }
                arrived.extend(received.item.sockets);
            }
        }
        arrived
    }

    /// Sends what the turn left for other cores, as far as there is room; the rest follows.
    pub fn send(&mut self, engine: &mut Engine) {
        for core in self.others() {
            if !self.has_cargo(core, engine) || !self.port.has_room(core) {
                continue;
            }
            let sockets = std::mem::take(&mut self.leaving[core]);
            let cargo = Cargo { batch: engine.poll_batch(CoreId(core as u16)), sockets };
            match self.port.send(core, cargo) {
                Ok(true) => self.wake(core),
                Ok(false) => {}
                Err(_) => unreachable!("there was room, and nobody else sends here"),
            }
        }
    }

    fn has_cargo(&self, core: usize, engine: &mut Engine) -> bool {
        !self.leaving[core].is_empty() || engine.has_batch(CoreId(core as u16))
    }

    fn wake(&mut self, core: usize) {
        self.wakeups += 1;
        // A waker that fails leaves the other core to its next timer.
        if let Err(error) = self.wakers[core].wake() {
            tracing::warn!(%error, core, "cannot wake a core");
        }
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

    /// Cores woken since the last call.
    pub fn take_wakeups(&mut self) -> u64 {
        std::mem::take(&mut self.wakeups)
    }
}
