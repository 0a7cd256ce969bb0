//! TLS that goes on in the kernel (`crate::transport::tls::Keys`): which connections, and when.
//!
//! ```text
//! let in ─► looked at by a timer ───► Action::Settle ─► the executor stops reading, readies the socket
//!              ▲      │ too often                        │ it cannot            │ take_keys
//!              │      ▼                                  ▼                      ▼
//!              │   stays here                        stays here      none ◄─────┴─────► keys
//!              └───────────────────────────────────────────────────────┘         handle_sealed
//! ```
//!
//! The keys can be given away only between two records of either direction, with nothing under way. From
//! `Action::Settle` on nothing is sent to the connection, so that what is looked at stays so.

use std::io;
use std::time::Duration;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits::KERNEL_TLS_LOOK_MS;
use crate::base::log_rate::rated;
use crate::engine::packets::disconnect::Ending;
use crate::engine::{Action, Engine, Timer};
use crate::transport::Settling;
use crate::transport::record::{ALERT, APPLICATION_DATA, CLOSE_NOTIFY, HANDSHAKE, KEY_UPDATE};
use crate::transport::tls::Keys;
use crate::wire::ReasonCode;

impl Engine {
    /// A client has been let in: its TLS may go on in the kernel.
    pub(in crate::engine) fn want_settled(&mut self, id: ConnectionId) {
        if self.kernel_has_failed {
            return;
        }
        let Some(connection) = self.links.get(id) else { return };
        match connection.transport.as_ref().and_then(|transport| transport.fits_kernel()) {
            None => {}
            Some(false) => self.links.metrics.kernel_tls_left_cipher += 1,
            Some(true) => {
                self.settling.push_back(id);
                self.look_later();
            }
        }
    }

    /// Looks at all of them a little later, unless that is to happen already: no turn looks for them.
    fn look_later(&mut self) {
        if !self.settling.is_empty() && !std::mem::replace(&mut self.is_settling_timed, true) {
            let deadline = self.now.after(Duration::from_millis(KERNEL_TLS_LOOK_MS));
            self.timers.arm(deadline, Timer::Settling);
        }
    }

    /// Looks who is ready; nothing that this turn brings has been sent yet.
    pub(in crate::engine) fn look_who_settles(&mut self) {
        self.is_settling_timed = false;
        for _ in 0..self.settling.len() {
            let Some(id) = self.settling.pop_front() else { return };
            let Some(connection) = self.links.get(id) else { continue };
            if connection.is_gated {
                // Its CONNACK waits for the store.
                self.settling.push_back(id);
                continue;
            }
            let is_busy = connection.is_sending;
            let Some(transport) = &mut connection.transport else { continue };
            match transport.look_at_kernel(is_busy) {
                Settling::Ready => {
                    self.links.actions.push_back(Action::Settle { connection: id });
                }
                Settling::Later => self.settling.push_back(id),
                Settling::Never => self.links.metrics.kernel_tls_left_busy += 1,
            }
        }
        self.look_later();
    }

    /// The executor reads nothing from the connection, and its socket is ready: the keys, or none if
    /// that did not come between two records; it asks again later. With keys it goes on with
    /// [`Self::handle_sealed`].
    pub fn take_keys(&mut self, now: Now, id: ConnectionId) -> Option<Keys> {
        self.set_now(now);
        let connection = self.links.get(id)?;
        debug_assert!(!connection.is_sending, "nothing has been sent since it was ready");
        let mut transport = connection.transport.take()?;
        let before = transport.state_bytes();
        let taken = transport.take_keys();
        let freed = before - transport.state_bytes();
        if !transport.is_spent() {
            connection.transport = Some(transport);
        }
        self.links.ledger.release(freed);
        self.links.mark_dirty(id.slot);
        let Some((keys, certificate)) = taken else {
            self.settling.push_back(id);
            self.look_later();
            return None;
        };
        if certificate.is_some()
            && let Some(connection) = self.links.get(id)
        {
            connection.extra.get_or_insert_default().certificate = certificate;
        }
        Some(keys)
    }

    /// The kernel cannot go on with a connection: its TLS stays here.
    pub fn handle_unsettled(&mut self, now: Now, id: ConnectionId) {
        self.set_now(now);
        let Some(connection) = self.links.get(id) else { return };
        let Some(transport) = &mut connection.transport else { return };
        transport.stay();
        self.links.metrics.kernel_tls_left_refused += 1;
        self.links.mark_dirty(id.slot);
    }

    /// What the kernel said to the keys. Where it took them, what is sent and received from now on is
    /// in the clear; else the executor closes the connection, as nobody can go on with it.
    pub fn handle_sealed(&mut self, outcome: &io::Result<()>) {
        match outcome {
            Ok(()) => self.links.metrics.kernel_tls_taken += 1,
            Err(error) => {
                self.links.metrics.kernel_tls_failed += 1;
                self.kernel_has_failed = true;
                self.settling.clear();
                rated!(
                    warn,
                    self.now,
                    %error,
                    core = self.core().0,
                    "the kernel did not take a connection's keys; it ends, and TLS of later ones \
                     stays in the broker"
                );
            }
        }
    }

    /// A record that most likely is no application data came to a connection whose TLS is the kernel's.
    /// Whether the connection goes on; if not, what follows may be of no use to the kernel.
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
        self.links.get(id).is_some_and(|connection| !connection.holds.is_ending())
    }

    fn handle_other_record(&mut self, now: Now, id: ConnectionId, content_type: u8, bytes: &[u8]) {
        self.set_now(now);
        let Some(connection) = self.links.get(id) else { return };
        let (address, listener) = (connection.address, connection.listener);
        match (content_type, bytes) {
            // Nothing at all is the end of the connection, which says as much.
            (ALERT, [] | [_, CLOSE_NOTIFY]) => {}
            (HANDSHAKE, [KEY_UPDATE, ..]) => {
                self.links.metrics.kernel_tls_key_updates += 1;
                rated!(
                    info,
                    self.now,
                    ?address,
                    listener,
                    "a client has changed its TLS keys, which the kernel cannot follow; its \
                     connection ends"
                );
            }
            (ALERT, [_, alert, ..]) => return self.fail(id, "TLS", &format!("alert {alert}")),
            _ => return self.fail(id, "TLS", &format!("a record of content type {content_type}")),
        }
        self.end_of_input(id);
    }

    /// The keys of a connection whose TLS is the kernel's have sealed as much as they may.
    pub fn handle_spent(&mut self, now: Now, id: ConnectionId) {
        self.set_now(now);
        let Some(connection) = self.links.get(id) else { return };
        let (address, listener) = (connection.address, connection.listener);
        self.links.metrics.kernel_tls_spent += 1;
        rated!(
            info,
            self.now,
            ?address,
            listener,
            "the TLS keys of a connection have sealed as much as they may; it ends, to come back \
             with new ones"
        );
        self.end_connection(id.slot, Ending::Server(ReasonCode::MaximumConnectTime));
    }
}
