//! Offload of TLS to the kernel (`crate::transport::tls::Keys`): which connections, and when.
//!
//! ```text
//! CONNACK ─► checked by a timer ────► Action::OffloadTls ─► the executor stops reading, prepares the socket
//!              ▲      │ busy too often                   │ not possible         │ take_keys
//!              │      ▼                                  ▼                      ▼
//!              │   TLS in the broker            TLS in the broker    none ◄─────┴─────► keys
//!              └──────────────────────────────────────────────────────┘          handle_offloaded
//! ```
//!
//! Keys can be moved to the kernel only between two records of either direction, with nothing under way. From
//! `Action::OffloadTls` on nothing is sent to the connection, so that this stays true until the kernel has the
//! keys.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits::KERNEL_TLS_LOOK_MS;
use crate::base::log_rate::rated;
use crate::base::metrics::Metrics;
use crate::engine::connections::Connections;
use crate::engine::listeners::Listeners;
use crate::engine::packets::disconnect::Ending;
use crate::engine::timeouts::{Timer, Timers};
use crate::engine::{Action, Engine};
use crate::transport::Offload;
use crate::transport::record::{ALERT, APPLICATION_DATA, CLOSE_NOTIFY, HANDSHAKE, KEY_UPDATE};
use crate::transport::tls::Keys;
use crate::wire::ReasonCode;

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

    fn fail(&mut self) {
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
            if connection.is_gated {
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
    fn take_keys(
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

impl Engine {
    /// The TLS keys of a connection after [`Action::OffloadTls`]: the executor reads nothing from it and has
    /// prepared its socket. None where the connection is not between two records; `Action::OffloadTls` follows
    /// again later. The executor reports what the kernel made of the keys with [`Self::handle_offloaded`].
    pub fn take_keys(&mut self, now: Now, id: ConnectionId) -> Option<Keys> {
        self.set_now(now);
        self.listeners.take_keys(&mut self.connections, &mut self.timers, self.now, id)
    }

    /// The kernel cannot take over a connection: its TLS stays in the broker.
    pub fn handle_offload_refused(&mut self, now: Now, id: ConnectionId) {
        self.set_now(now);
        if self.connections.with_transport(id, |transport, _| transport.stay()).is_some() {
            self.metrics.kernel_tls_left_refused += 1;
            self.connections.mark_dirty(id);
        }
    }

    /// Outcome of installing the keys in the kernel. On success, the executor sends and receives plain text from here
    /// on; otherwise it closes the connection, which neither side can continue.
    pub fn handle_offloaded(&mut self, outcome: &io::Result<()>) {
        match outcome {
            Ok(()) => self.metrics.kernel_tls_taken += 1,
            Err(error) => {
                self.metrics.kernel_tls_failed += 1;
                self.listeners.offload.fail();
                rated!(
                    warn,
                    self.now,
                    %error,
                    core = self.core().0,
                    "kernel TLS failed for a connection, which is closed; TLS of later connections \
                     stays in the broker"
                );
            }
        }
    }

    /// A record arrived, most likely not application data, on a connection whose TLS is in the kernel.
    /// Returns whether the connection stays open; if not, the kernel may be unable to read further.
    pub fn handle_record(
        &mut self,
        now: Now,
        id: ConnectionId,
        content_type: u8,
        bytes: &[u8],
    ) -> bool {
        match content_type {
            APPLICATION_DATA => self.handle_received(now, id, bytes),
            _ => self.handle_other_record(now, id, content_type, bytes),
        }
        self.connections.get_mut(id).is_some_and(|connection| !connection.holds.is_ending())
    }

    fn handle_other_record(&mut self, now: Now, id: ConnectionId, content_type: u8, bytes: &[u8]) {
        self.set_now(now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (address, listener) = (connection.address, connection.listener);
        match (content_type, bytes) {
            // An empty alert stands for the end of the connection.
            (ALERT, [] | [_, CLOSE_NOTIFY]) => {}
            (HANDSHAKE, [KEY_UPDATE, ..]) => {
                self.metrics.kernel_tls_key_updates += 1;
                rated!(
                    info,
                    self.now,
                    ?address,
                    listener,
                    "a client updated its TLS keys, which kernel TLS does not support; the \
                     connection is closed"
                );
            }
            (ALERT, [_, alert, ..]) => return self.fail(id, "TLS", &format!("alert {alert}")),
            _ => return self.fail(id, "TLS", &format!("a record of content type {content_type}")),
        }
        self.end_of_input(id);
    }

    /// The keys of a connection whose TLS is in the kernel have encrypted as much as they may.
    pub fn handle_spent(&mut self, now: Now, id: ConnectionId) {
        self.set_now(now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (address, listener) = (connection.address, connection.listener);
        self.metrics.kernel_tls_spent += 1;
        rated!(
            info,
            self.now,
            ?address,
            listener,
            "the TLS keys of a connection have reached their limit; it is closed, so that the client \
             reconnects with new keys"
        );
        self.end_connection(id, Ending::Server(ReasonCode::MaximumConnectTime));
    }
}
