//! The mesh between the cores of one process: a bounded lane for each ordered pair, and a sleep flag for
//! each core. Knows neither the items nor how a core sleeps.
//!
//! Everything that a turn sends to another core is one item, so a lane is touched once per turn,
//! and a sleeping core is woken up once. A full lane is no error: the item stays with its core,
//! which is woken up when there is room.

mod ring;
mod sleep_flag;

#[cfg(test)]
mod tests;

pub use ring::{Receiver, Sender, ring};
pub use sleep_flag::SleepFlag;

use crate::sync::Aligned;
use crate::sync::Arc;

/// The endpoint of one core.
#[derive(Debug)]
pub struct Port<T> {
    core: usize,
    /// By core; `None` for the core itself.
    to: Vec<Option<Sender<T>>>,
    from: Vec<Option<Receiver<T>>>,
    sleep_flags: Arc<Vec<Aligned<SleepFlag>>>,
}

/// An item received from a lane.
#[derive(Debug)]
pub struct Received<T> {
    /// The item.
    pub item: T,
    /// The lane was full and its sender sleeps: the caller must wake it up, as there is room now.
    pub must_wake: bool,
}

/// A mesh between `cores` cores whose lanes hold `capacity` items each; returns the endpoints in
/// order of core.
pub fn mesh<T>(cores: usize, capacity: usize) -> Vec<Port<T>> {
    let sleep_flags =
        Arc::new((0..cores).map(|_| Aligned(SleepFlag::default())).collect::<Vec<_>>());
    let mut ports: Vec<Port<T>> = (0..cores)
        .map(|core| Port {
            core,
            to: (0..cores).map(|_| None).collect(),
            from: (0..cores).map(|_| None).collect(),
            sleep_flags: Arc::clone(&sleep_flags),
        })
        .collect();
    for from in 0..cores {
        for to in (0..cores).filter(|&to| to != from) {
            let (sender, receiver) = ring(capacity);
            ports[from].to[to] = Some(sender);
            ports[to].from[from] = Some(receiver);
        }
    }
    ports
}

impl<T> Port<T> {
    /// The core of this endpoint.
    pub fn core(&self) -> usize {
        self.core
    }

    /// Number of cores.
    pub fn cores(&self) -> usize {
        self.to.len()
    }

    /// Sends an item to another core. `Ok(true)` means that the core sleeps and must be woken up.
    /// If the lane is full, the item is returned.
    pub fn send(&mut self, to: usize, item: T) -> Result<bool, T> {
        self.lane_to(to).push(item)?;
        Ok(self.sleep_flags[to].0.must_wake())
    }

    /// Whether the lane to another core has room.
    pub fn has_room(&mut self, to: usize) -> bool {
        !self.lane_to(to).is_full()
    }

    /// Number of items in the lane to another core.
    pub fn depth(&self, to: usize) -> usize {
        self.to[to].as_ref().map_or(0, Sender::len)
    }

    /// Receives the next item from another core.
    pub fn receive(&mut self, from: usize) -> Option<Received<T>> {
        let lane = self.from[from].as_mut().expect("no core has a lane to itself");
        if !lane.has_item() {
            return None;
        }
        let was_full = lane.is_full();
        let item = lane.pop()?;
        Some(Received { item, must_wake: was_full && self.sleep_flags[from].0.must_wake() })
    }

    /// Prepares to sleep. False if the core must stay awake because an item has arrived or a lane
    /// of `wants_room_to` has room. If true, the core sleeps, and calls [`wake_up`](Self::wake_up)
    /// when it is woken up.
    pub fn prepare_to_sleep(&mut self, wants_room_to: impl Iterator<Item = usize>) -> bool {
        self.sleep_flags[self.core].0.prepare_to_sleep();
        let has_come = self.from.iter_mut().flatten().any(Receiver::has_item);
        let mut wants_room_to = wants_room_to;
        if has_come || wants_room_to.any(|to| self.has_room(to)) {
            self.wake_up();
            return false;
        }
        true
    }

    /// Marks the core as awake.
    pub fn wake_up(&self) {
        self.sleep_flags[self.core].0.wake_up();
    }

    fn lane_to(&mut self, to: usize) -> &mut Sender<T> {
        self.to[to].as_mut().expect("no core has a lane to itself")
    }
}
