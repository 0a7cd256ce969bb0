//! Sockets that bridges have opened: they become direct descriptors, as accepted ones are.
#![expect(unsafe_code, reason = "the kernel reads and writes descriptors in this memory")]

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use io_uring::opcode;

use super::Executor;
use super::operation::Operation;
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::control::bridge::Dialed;

/// `IORING_FILE_INDEX_ALLOC` of io_uring_enter(2), Linux 6.0: the kernel chooses a free place of the table, and writes
/// it where the descriptor was.
const ALLOCATE: i32 = -1;

/// Sockets on their way into a table of direct descriptors.
#[derive(Default)]
pub struct Adoptions(Vec<Option<Adoption>>);

struct Adoption {
    /// The descriptor; then the place in the table. Not moved while the operation is pending.
    descriptor: Box<[RawFd; 1]>,
    /// The ring whose table it is.
    ring: usize,
    dialed: Dialed,
}

impl Executor {
    /// Serves a connection that a bridge has opened.
    pub(super) fn begin_adopting(&mut self, dialed: Dialed) -> io::Result<()> {
        if !self.rings.is_direct() {
            let Dialed { socket, transport, bytes } = dialed;
            let file = socket.into_raw_fd() as u32;
            return self.serve_dialed(file, transport, bytes);
        }
        let adoptions = &mut self.adoptions.0;
        let number = match adoptions.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                adoptions.push(None);
                adoptions.len() - 1
            }
        };
        let (at, ring) = self.rings.accepting();
        let mut descriptor = Box::new([dialed.socket.as_raw_fd()]);
        let entry = opcode::FilesUpdate::new(descriptor.as_mut_ptr(), 1).offset(ALLOCATE).build();
        let entry = entry.user_data(Operation::Adopt(number as u32).user_data());
        // SAFETY: the memory is kept in `adoptions` until the operation has completed, or for ever.
        unsafe { ring.push(&entry) }?;
        self.adoptions.0[number] = Some(Adoption { descriptor, ring: at, dialed });
        Ok(())
    }

    /// The table has the socket, or has no room for it.
    pub(super) fn adopted(&mut self, number: u32, result: i32) -> io::Result<()> {
        let adoption = self.adoptions.0.get_mut(number as usize).and_then(Option::take);
        let Some(Adoption { descriptor, ring, dialed }) = adoption else { return Ok(()) };
        if result != 1 {
            let error = io::Error::from_raw_os_error(-result);
            rated!(warn, log_rate::now(), %error, "cannot register the connection of a bridge; closing it");
            return Ok(());
        }
        let file = self.rings.file(ring, descriptor[0] as u32);
        // The table holds the socket: the descriptor of the process is closed here.
        let Dialed { socket, transport, bytes } = dialed;
        drop(socket);
        self.serve_dialed(file, transport, bytes)
    }

    fn serve_dialed(
        &mut self,
        file: u32,
        transport: Box<crate::transport::Transport>,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        self.hold(file);
        match self.core.engine.handle_dialed(self.core.now, transport, bytes) {
            Ok(id) => self.watch(file, id),
            Err(_) => self.close_file(file),
        }
    }
}
