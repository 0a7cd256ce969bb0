//! State of the executor's sockets, indexed by direct descriptor.

use crate::base::ids::ConnectionId;
use crate::base::send_buffer::SendBuffer;

/// The state of a socket's life cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In use by the engine.
    Open,
    /// Moving to another core, once its receive operation has ended.
    Leaving,
    /// Closed by the engine; the last bytes are being sent to the peer.
    Lingering,
    /// To be closed as soon as no operation on it is pending.
    Closing,
}

/// A socket.
#[derive(Debug)]
pub struct Socket {
    /// The engine's connection ID; only valid while the socket is open.
    pub id: ConnectionId,
    /// Bytes that the kernel has not taken yet.
    pub pending: Option<SendBuffer>,
    /// The state of the socket.
    pub phase: Phase,
    /// Whether a receive is pending.
    pub is_receiving: bool,
    /// Whether a send is pending.
    pub is_sending: bool,
    /// Whether the pending send completes only on failure.
    pub is_sent_unless_failed: bool,
    /// Whether the engine has paused input.
    pub is_paused: bool,
    /// Whether the peer has ended the stream: nothing is received any more.
    pub is_read_out: bool,
    /// Whether TLS is being moved to the kernel: nothing is received until then.
    pub is_offloading: bool,
}

impl Socket {
    /// An open socket without pending operations.
    pub fn new(id: ConnectionId) -> Self {
        Self {
            id,
            pending: None,
            phase: Phase::Open,
            is_receiving: false,
            is_sending: false,
            is_sent_unless_failed: false,
            is_paused: false,
            is_read_out: false,
            is_offloading: false,
        }
    }

    /// Records that the pending send has completed.
    pub fn has_sent(&mut self) {
        self.is_sending = false;
        self.is_sent_unless_failed = false;
    }
}

const _: () = assert!(size_of::<Option<Socket>>() <= 24);

/// Sockets by direct descriptor, and the descriptors by connection.
#[derive(Debug, Default)]
pub struct Sockets {
    by_file: Vec<Option<Socket>>,
    /// The direct descriptor of each connection, by the engine's slot number.
    files: Vec<u32>,
}

impl Sockets {
    /// Adds a socket.
    pub fn insert(&mut self, file: u32, socket: Socket) {
        let (place, slot) = (file as usize, socket.id.slot as usize);
        if self.by_file.len() <= place {
            self.by_file.resize_with(place + 1, || None);
        }
        if self.files.len() <= slot {
            self.files.resize(slot + 1, u32::MAX);
        }
        assert!(self.by_file[place].is_none(), "the kernel does not reuse an open descriptor");
        self.files[slot] = file;
        self.by_file[place] = Some(socket);
    }

    /// The socket behind a direct descriptor.
    pub fn get(&mut self, file: u32) -> Option<&mut Socket> {
        self.by_file.get_mut(file as usize)?.as_mut()
    }

    /// The direct descriptor of a connection that is still open.
    pub fn file(&mut self, id: ConnectionId) -> Option<u32> {
        let file = *self.files.get(id.slot as usize)?;
        let socket = self.get(file)?;
        (socket.id == id && socket.phase == Phase::Open).then_some(file)
    }

    /// Removes a socket.
    pub fn remove(&mut self, file: u32) -> Option<Socket> {
        self.by_file.get_mut(file as usize)?.take()
    }
}
