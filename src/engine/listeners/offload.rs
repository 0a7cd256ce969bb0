//! Which connections can move to kernel TLS, and when they are checked.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits::KERNEL_TLS_LOOK_MS;
use crate::base::metrics::Metrics;
use crate::engine::Action;
use crate::engine::connections::Connections;
use crate::engine::listeners::Listeners;
use crate::engine::timers::{Timer, Timers};
use crate::transport::Offload;
use crate::transport::tls::Keys;

/// Connections whose TLS may move to the kernel. One timer checks all of them; no turn looks at the list.
#[derive(Debug, Default)]
pub(super) struct OffloadQueue {
    candidates: VecDeque<ConnectionId>,
    /// The timer is armed.
    is_timed: bool,
    /// The kernel has refused keys that it should have taken: TLS of all later connections stays in the
    /// broker.
    has_failed: bool,
}

impl OffloadQueue {
    fn push(&mut self, id: ConnectionId, timers: &mut Timers, now: Now) {
        self.candidates.push_back(id);
        self.arm(timers, now);
    }

    fn arm(&mut self, timers: &mut Timers, now: Now) {
        if !self.candidates.is_empty() && !std::mem::replace(&mut self.is_timed, true) {
            let deadline = now.after(Duration::from_millis(KERNEL_TLS_LOOK_MS));
            timers.arm(deadline, Timer::KernelTls);
        }
    }

    pub fn fail(&mut self) {
        self.has_failed = true;
        self.candidates.clear();
    }
}

impl Listeners {
    /// A client has been sent CONNACK: its TLS may move to the kernel.
    pub fn consider_offload(
        &mut self,
        connections: &mut Connections,
        metrics: &mut Metrics,
        timers: &mut Timers,
        now: Now,
        id: ConnectionId,
    ) {
        if self.offload.has_failed {
            return;
        }
        let Some(connection) = connections.get_mut(id) else { return };
        match connection.transport.as_ref().and_then(|transport| transport.fits_kernel()) {
            None => {}
            Some(false) => metrics.kernel_tls_left_cipher += 1,
            Some(true) => self.offload.push(id, timers, now),
        }
    }

    /// Checks which connections can move to the kernel now. Called by the timer, before anything that this
    /// turn produces has been sent.
    pub fn check_offload(
        &mut self,
        connections: &mut Connections,
        metrics: &mut Metrics,
        timers: &mut Timers,
        now: Now,
    ) {
        self.offload.is_timed = false;
        for _ in 0..self.offload.candidates.len() {
            let Some(id) = self.offload.candidates.pop_front() else { return };
            let Some(connection) = connections.get_mut(id) else { continue };
            if connection.is_withheld {
                // Its CONNACK waits for the store.
                self.offload.candidates.push_back(id);
                continue;
            }
            let is_busy = connection.is_sending;
            let Some(transport) = &mut connection.transport else { continue };
            match transport.check_kernel(is_busy) {
                Offload::Ready => connections.push_action(Action::OffloadTls { connection: id }),
                Offload::Later => self.offload.candidates.push_back(id),
                Offload::Never => metrics.kernel_tls_left_busy += 1,
            }
        }
        self.offload.arm(timers, now);
    }

    /// See [`Engine::take_keys`].
    pub fn take_keys(
        &mut self,
        connections: &mut Connections,
        timers: &mut Timers,
        now: Now,
        id: ConnectionId,
    ) -> Option<Keys> {
        debug_assert!(connections.get_mut(id).is_none_or(|connection| !connection.is_sending));
        let taken = connections.with_transport(id, |transport, _| transport.take_keys())?;
        connections.mark_dirty(id);
        let Some((keys, certificate)) = taken else {
            self.offload.push(id, timers, now);
            return None;
        };
        if certificate.is_some()
            && let Some(connection) = connections.get_mut(id)
        {
            connection.extra.get_or_insert_default().certificate = certificate;
        }
        Some(keys)
    }
}
