//! The way between the cores of a process and the thread of its gateway: two rings for each core, and who is woken when.

use std::sync::Arc;

use shards::mesh::{Receiver, Sender, SleepFlag, ring};
use tokio::sync::Notify;

use crate::base::ids::CoreId;
use crate::base::notifier::Signal;
use crate::control::Cores;
use crate::engine::Batch;

/// Batches that a ring has room for.
const BATCHES_MAX: usize = 64;

/// Batches that one side takes of a ring in a turn.
const BATCHES_PER_TURN: usize = 16;

/// A batch, with the node that it is for or from, as an engine addresses it.
#[derive(Debug)]
struct Parcel {
    peer: CoreId,
    batch: Batch,
}

/// What both ends of a pair of rings share.
#[derive(Debug, Default)]
struct Waiting {
    /// The core has more for the gateway than there is room.
    core: SleepFlag,
    /// The gateway has more for the core.
    gateway: SleepFlag,
}

/// A core's end.
#[derive(Debug)]
pub struct CorePort {
    to: Sender<Parcel>,
    from: Receiver<Parcel>,
    waiting: Arc<Waiting>,
    bell: Arc<Notify>,
}

/// The gateway's end of one pair.
#[derive(Debug)]
struct Pair {
    to: Sender<Parcel>,
    from: Receiver<Parcel>,
    waiting: Arc<Waiting>,
    /// Something was sent in this turn, or there is room again.
    must_wake: bool,
}

/// The gateway's ends.
#[derive(Debug)]
pub struct GatewayPorts {
    pairs: Vec<Pair>,
    bell: Arc<Notify>,
}

/// Rings between a gateway and so many cores.
pub fn ports(cores: u16) -> (Vec<CorePort>, GatewayPorts) {
    let bell = Arc::new(Notify::new());
    let (mut ends, mut pairs) = (Vec::new(), Vec::new());
    for _ in 0..cores {
        let ((to_gateway, from_core), (to_core, from_gateway)) =
            (ring(BATCHES_MAX), ring(BATCHES_MAX));
        let waiting = Arc::new(Waiting::default());
        ends.push(CorePort {
            to: to_gateway,
            from: from_gateway,
            waiting: Arc::clone(&waiting),
            bell: Arc::clone(&bell),
        });
        pairs.push(Pair { to: to_core, from: from_core, waiting, must_wake: false });
    }
    (ends, GatewayPorts { pairs, bell })
}

impl CorePort {
    /// Passes batches to `take`, with the node that they are from.
    pub fn receive(&mut self, mut take: impl FnMut(CoreId, Batch)) {
        let mut has_taken = false;
        for _ in 0..BATCHES_PER_TURN {
            let Some(Parcel { peer, batch }) = self.from.pop() else { break };
            has_taken = true;
            take(peer, batch);
        }
        if has_taken && self.waiting.gateway.must_wake() {
            self.bell.notify_one();
        }
    }

    /// Whether a batch has come: then the core does not sleep.
    pub fn has_batch(&mut self) -> bool {
        self.from.has_item()
    }

    /// Sends the batches that `next` returns, as long as there is room. The core is signalled when there is again.
    pub fn send(&mut self, mut next: impl FnMut() -> Option<(CoreId, Batch)>) {
        let mut has_sent = false;
        loop {
            if self.to.is_full() {
                self.waiting.core.prepare_to_sleep();
                if self.to.is_full() {
                    break;
                }
                self.waiting.core.wake_up();
            }
            let Some((peer, batch)) = next() else { break };
            let Ok(()) = self.to.push(Parcel { peer, batch }) else {
                unreachable!("there was room, and nobody else sends here");
            };
            has_sent = true;
        }
        if has_sent {
            self.bell.notify_one();
        }
    }
}

impl GatewayPorts {
    /// Number of cores.
    pub fn cores(&self) -> u16 {
        self.pairs.len() as u16
    }

    /// Returns when a core has sent something, or has room again.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Passes batches of all cores to `take`, with the core and the node that they are for. Returns whether there may be
    /// more.
    pub fn receive(&mut self, mut take: impl FnMut(CoreId, CoreId, Batch)) -> bool {
        let mut has_more = false;
        for (core, pair) in self.pairs.iter_mut().enumerate() {
            let mut taken = 0;
            while taken < BATCHES_PER_TURN
                && let Some(Parcel { peer, batch }) = pair.from.pop()
            {
                taken += 1;
                take(CoreId(core as u16), peer, batch);
            }
            has_more |= taken == BATCHES_PER_TURN;
            if taken > 0 && pair.waiting.core.must_wake() {
                pair.must_wake = true;
            }
        }
        has_more
    }

    /// Sends each core the batches that `next` returns for it, as long as there is room; the bell rings when there is again.
    pub fn send(&mut self, mut next: impl FnMut(CoreId) -> Option<(CoreId, Batch)>) {
        for (core, pair) in self.pairs.iter_mut().enumerate() {
            loop {
                if pair.to.is_full() {
                    pair.waiting.gateway.prepare_to_sleep();
                    if pair.to.is_full() {
                        break;
                    }
                    pair.waiting.gateway.wake_up();
                }
                let Some((peer, batch)) = next(CoreId(core as u16)) else { break };
                let Ok(()) = pair.to.push(Parcel { peer, batch }) else {
                    unreachable!("there was room, and nobody else sends here");
                };
                pair.must_wake = true;
            }
        }
    }

    /// Signals the cores that were sent something, or that have room again.
    pub fn wake(&mut self, cores: &Cores) {
        for (core, pair) in self.pairs.iter_mut().enumerate() {
            if std::mem::take(&mut pair.must_wake) {
                cores.signal(core, Signal::Gateway);
            }
        }
    }
}
