//! What the executor knows of one socket, by its direct descriptor.

use crate::base::ids::ConnectionId;
use crate::base::send_buffer::SendBuffer;

/// Where a socket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The engine's.
    Open,
    /// It goes to another core, once nothing is received here any more.
    Leaving,
    /// The engine is done with it; the peer is to read the last bytes.
    Lingering,
    /// It is closed as soon as nothing is under way any more.
    Closing,
}

/// A socket.
#[derive(Debug)]
pub struct Socket {
    /// The engine's handle, which means nothing unless the socket is open.
    pub id: ConnectionId,
    /// What the kernel has not taken yet.
    pub pending: Option<SendBuffer>,
    /// Where it stands.
    pub phase: Phase,
    /// A receive is under way.
    pub is_receiving: bool,
    /// A send is under way.
    pub is_sending: bool,
    /// That send completes only if the kernel does not take all of it at once.
    pub is_sent_unless_told: bool,
    /// The engine wants no input from it.
    pub is_paused: bool,
    /// The peer has sent its last byte: nothing is received any more.
    pub is_read_out: bool,
    /// The kernel is about to go on with its TLS: it receives nothing until then.
    pub is_offloading: bool,
}

impl Socket {
    /// One with which nothing is under way.
    pub fn new(id: ConnectionId) -> Self {
        Self {
            id,
            pending: None,
            phase: Phase::Open,
            is_receiving: false,
            is_sending: false,
            is_sent_unless_told: false,
            is_paused: false,
            is_read_out: false,
            is_offloading: false,
        }
    }

    /// The send has completed.
    pub fn has_sent(&mut self) {
        self.is_sending = false;
        self.is_sent_unless_told = false;
    }
}

const _: () = assert!(size_of::<Option<Socket>>() <= 24);

/// Sockets by direct descriptor, and which one is whose.
#[derive(Debug, Default)]
pub struct Sockets {
    by_file: Vec<Option<Socket>>,
    /// The direct descriptor of the connection in each of the engine's slots.
    files: Vec<u32>,
}

impl Sockets {
    /// Takes one in.
    pub fn insert(&mut self, file: u32, socket: Socket) {
        let (place, slot) = (file as usize, socket.id.slot as usize);
        if self.by_file.len() <= place {
            self.by_file.resize_with(place + 1, || None);
        }
        if self.files.len() <= slot {
            self.files.resize(slot + 1, u32::MAX);
        }
        assert!(self.by_file[place].is_none(), "the kernel gives a descriptor away once");
        self.files[slot] = file;
        self.by_file[place] = Some(socket);
    }

    /// The socket behind a direct descriptor.
    pub fn get(&mut self, file: u32) -> Option<&mut Socket> {
        self.by_file.get_mut(file as usize)?.as_mut()
    }

    /// The direct descriptor of a connection, if the engine still has it.
    pub fn file(&mut self, id: ConnectionId) -> Option<u32> {
        let file = *self.files.get(id.slot as usize)?;
        let socket = self.get(file)?;
        (socket.id == id && socket.phase == Phase::Open).then_some(file)
    }

    /// Forgets one.
    pub fn remove(&mut self, file: u32) -> Option<Socket> {
        self.by_file.get_mut(file as usize)?.take()
    }
}
