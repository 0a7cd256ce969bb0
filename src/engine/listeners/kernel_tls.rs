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

use std::io;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::log_rate::rated;
use crate::engine::Engine;
use crate::engine::cause::Cause;
use crate::engine::connections::ending::Ending;
use crate::transport::record::{ALERT, APPLICATION_DATA, CLOSE_NOTIFY, HANDSHAKE, KEY_UPDATE};
use crate::transport::tls::Keys;
use crate::transport::{Fault, Layer};
use crate::wire::ReasonCode;

impl Engine {
    /// The TLS keys of a connection after `Action::OffloadTls`: the executor reads nothing from it and has
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
                    core = self.mesh.core().0,
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
        let what = match (content_type, bytes) {
            // An empty alert stands for the end of the connection.
            (ALERT, [] | [_, CLOSE_NOTIFY]) => return self.end_of_input(id),
            (HANDSHAKE, [KEY_UPDATE, ..]) => {
                self.metrics.kernel_tls_key_updates += 1;
                let what =
                    "the client updated its keys, which kernel TLS does not support".to_owned();
                return self.end_for_fault(id, Fault { layer: Layer::Tls, what });
            }
            (ALERT, [_, alert, ..]) => format!("alert {alert}"),
            _ => format!("a record of content type {content_type}"),
        };
        self.fail(id, Fault { layer: Layer::Tls, what });
    }

    /// The keys of a connection whose TLS is in the kernel have encrypted as much as they may.
    pub fn handle_spent(&mut self, now: Now, id: ConnectionId) {
        self.set_now(now);
        if !self.connections.contains(id) {
            return;
        }
        self.metrics.kernel_tls_spent += 1;
        // The client reconnects with new keys.
        let (reason, cause) = (ReasonCode::MaximumConnectTime, Cause::TlsKeysSpent);
        self.end_connection(id, Ending::Server(reason, cause));
    }
}
