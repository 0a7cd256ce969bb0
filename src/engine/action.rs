//! Actions that the engine requests from its executor.

use crate::base::ids::{ConnectionId, CoreId};
use crate::base::send_buffer::SendBuffer;
use crate::engine::HandedOver;

/// An action for the executor. Actions of one connection are ordered, those of different ones are not.
#[derive(Debug)]
pub enum Action {
    /// Write the buffer, and give it back with `handle_sent` once it is written. A connection has at
    /// most one buffer out at a time.
    Send {
        /// Where to.
        connection: ConnectionId,
        /// What.
        buffer: SendBuffer,
    },
    /// Read nothing from this socket.
    Pause {
        /// Which.
        connection: ConnectionId,
    },
    /// Read again.
    Resume {
        /// Which.
        connection: ConnectionId,
    },
    /// Find out how many bytes the kernel has that the peer has not acknowledged, and call
    /// `handle_progress`. Asked once a second at most of a consumer that is behind.
    AskProgress {
        /// Which.
        connection: ConnectionId,
    },
    /// Move the connection's TLS to the kernel: stop reading, prepare the socket, and call `take_keys`, or
    /// `handle_offload_refused` if the kernel does not support it. No send is in progress.
    OffloadTls {
        /// Which.
        connection: ConnectionId,
    },
    /// Give the socket to another core, with this, and forget it here. That core calls
    /// `handle_handed_over`.
    HandOver {
        /// Which.
        connection: ConnectionId,
        /// The core.
        to: CoreId,
        /// State of the connection for the other core.
        handed_over: Box<HandedOver>,
    },
    /// Write what is out and then `last`, as far as the peer takes it within a bounded time, and
    /// close. The handle means nothing to the engine any more.
    Close {
        /// Which.
        connection: ConnectionId,
        /// The last words: a CONNACK that refuses, or a DISCONNECT.
        last: Option<SendBuffer>,
    },
}

/// A connection is not accepted: the executor closes the socket without a word. Those just above a
/// limit are accepted and get the reason in CONNACK; this is for those far above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;
