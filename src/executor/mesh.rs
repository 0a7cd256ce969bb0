//! A core's end of the mesh: sends to other cores at the end of a turn, receives from them, and says which of them
//! have to be woken. Knows no protocol.

use shards::mesh::Port;

use crate::base::clock::Tick;
use crate::base::ids::CoreId;
use crate::base::limits;
use crate::engine::{Batch, Engine, HandedOver};
use crate::stats::Stamps;

/// What a core sends to another in one turn: one item of a lane. `S` is a socket as executors of this kind pass it
/// on.
#[derive(Debug)]
pub struct Frame<S> {
    batch: Option<Batch>,
    stamps: Stamps,
    sockets: Vec<Moving<S>>,
}

/// A connection that moves to another core. No core reads the socket meanwhile.
#[derive(Debug)]
pub struct Moving<S> {
    /// The socket.
    pub socket: S,
    /// The state with which the other core's engine continues.
    pub handed_over: Box<HandedOver>,
}

/// A core's end of the mesh.
#[derive(Debug)]
pub struct Mesh<S> {
    port: Port<Frame<S>>,
    /// Sockets that leave at the end of this turn, by core.
    leaving: Vec<Vec<Moving<S>>>,
    /// Since when a frame waits for room in a lane, by core.
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

    /// Sends a socket to another core at the end of the turn.
    pub fn move_socket(&mut self, to: CoreId, socket: S, handed_over: Box<HandedOver>) {
        self.leaving[usize::from(to.0)].push(Moving { socket, handed_over });
    }

    /// Passes batches of other cores to `take`, a bounded number of them, and returns the sockets among them.
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

    /// Sends what the turn that began at `began` has produced for other cores, as far as there is room; the rest
    /// follows later. The argument of `stamp` is the beginning of the first turn of which a batch holds something.
    pub fn send(&mut self, engine: &mut Engine, began: Tick, stamp: impl Fn(Tick) -> Stamps) {
        for core in self.others() {
            if !self.has_frame(core, engine) {
                continue;
            }
            if !self.port.has_room(core) {
                self.held_since[core].get_or_insert(began);
                continue;
            }
            let stamps = stamp(self.held_since[core].take().unwrap_or(began));
            let sockets = std::mem::take(&mut self.leaving[core]);
            let frame = Frame { batch: engine.poll_batch(CoreId(core as u16)), stamps, sockets };
            match self.port.send(core, frame) {
                Ok(true) => self.to_wake.push(core),
                Ok(false) => {}
                Err(_) => unreachable!("there was room, and nobody else sends here"),
            }
        }
    }

    fn has_frame(&self, core: usize, engine: &mut Engine) -> bool {
        !self.leaving[core].is_empty() || engine.has_batch(CoreId(core as u16))
    }

    /// Whether the core may sleep: false when something has arrived, or when there is room now for a frame that
    /// waits.
    pub fn park(&mut self, engine: &mut Engine) -> bool {
        let stuck: Vec<usize> =
            self.others().filter(|&core| self.has_frame(core, engine)).collect();
        self.port.prepare_to_sleep(stuck.into_iter())
    }

    /// The core is awake again.
    pub fn wake_up(&mut self) {
        self.port.wake_up();
    }

    /// The next core that sleeps while something waits for it; none when all have been returned.
    pub fn next_to_wake(&mut self) -> Option<usize> {
        self.to_wake.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Now;
    use crate::base::ids::{ConnectionId, Peer};
    use crate::config::Settings;
    use crate::engine::{AllowAll, Config, Keys};
    use crate::resources::gauges::Place;

    /// A core of two with a client that the broker named.
    fn core(place: Place) -> (Engine, ConnectionId) {
        let mut settings = Settings::default();
        settings.limits.connections_max = 10;
        settings.limits.memory_bytes_max = 1 << 30;
        let (config, keys) = (Config::from(&settings), Keys::fixed(1));
        let mut engine = Engine::new(place, config, Box::new(AllowAll), keys, Now(0));
        let peer = Peer { address: None, listener: 0 };
        let id = engine.handle_accepted(Now(0), peer).expect("there is room");
        engine.handle_received(Now(0), id, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00");
        (engine, id)
    }

    #[test]
    fn a_batch_that_waits_for_room_in_a_lane_is_stamped_with_its_first_turn() {
        let mut ends = Mesh::<()>::each(2);
        let (mut engine, id) = core(Place::each(2).remove(0));
        let stamp = |began| Stamps { began, sealed: Tick(1_000) };
        let turns = limits::LANE_BATCHES_MAX as u64 + 2;
        for turn in 0..turns {
            // Something new to tell the other core in each turn.
            let filter = [b'a' + turn as u8];
            let subscribe = [b"\x82\x06\x00\x01\x00\x01", &filter[..], b"\x00"].concat();
            engine.handle_received(Now(turn), id, &subscribe);
            ends[0].send(&mut engine, Tick(turn), stamp);
        }
        let mut began = Vec::new();
        while began.len() < limits::LANE_BATCHES_MAX {
            ends[1].receive(|_, _, stamps| began.push(stamps.began.0));
        }
        ends[0].send(&mut engine, Tick(turns), stamp);
        ends[1].receive(|_, _, stamps| began.push(stamps.began.0));
        // The last two turns had no room: they went as one batch, which counts since the first.
        assert_eq!(began, (0..turns - 1).collect::<Vec<_>>());
    }
}
