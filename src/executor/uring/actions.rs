//! Carries out the engine's actions as io_uring operations.

use std::io;

use super::Executor;
use super::send::Way;
use crate::base::ids::{ConnectionId, CoreId};
use crate::base::send_buffer::SendBuffer;
use crate::control::bridge::Dialed;
use crate::engine::HandedOver;
use crate::executor::mesh::Moving;
use crate::executor::sockets::Sockets;
use crate::executor::{Core, Listener};

impl Sockets for Executor {
    type Socket = u32;

    fn core(&mut self) -> &mut Core<u32> {
        &mut self.core
    }

    fn adopt(&mut self, moving: Moving<u32>) -> io::Result<()> {
        let Moving { socket: file, handed_over } = moving;
        self.hold(file);
        match self.core.engine.handle_handed_over(self.core.now, *handed_over) {
            Ok(id) => self.watch(file, id),
            Err(_) => self.close_file(file),
        }
    }

    fn adopt_dialed(&mut self, dialed: Dialed) -> io::Result<()> {
        self.begin_adopting(dialed)
    }

    fn listen(&mut self, listener: Listener) -> io::Result<()> {
        for number in self.accepts.add(listener) {
            self.accepts.submit(&mut self.rings, number)?;
        }
        Ok(())
    }

    fn stop_listening(&mut self, number: u16) -> io::Result<()> {
        self.accepts.stop(&mut self.rings, Some(number))
    }

    fn send(&mut self, connection: ConnectionId, buffer: SendBuffer) -> io::Result<()> {
        let Some(file) = self.sockets.file(connection) else { return Ok(()) };
        let way = match buffer.len() >= self.zero_copy_bytes_min {
            _ if self.kernel_tls.has(file) => Way::Reported,
            true => Way::ZeroCopy,
            false => Way::Now,
        };
        if let Some(socket) = self.sockets.get(file) {
            if self.kernel_tls.spend(file, buffer.len()) {
                self.core.engine.handle_spent(self.core.now, socket.id);
            }
            socket.pending = Some(buffer);
        }
        self.submit(file, way)
    }

    fn pause(&mut self, connection: ConnectionId) -> io::Result<()> {
        let Some(file) = self.sockets.file(connection) else { return Ok(()) };
        if let Some(socket) = self.sockets.get(file) {
            socket.is_paused = true;
        }
        self.stop_receiving(file)
    }

    fn resume(&mut self, connection: ConnectionId) -> io::Result<()> {
        let Some(file) = self.sockets.file(connection) else { return Ok(()) };
        if let Some(socket) = self.sockets.get(file) {
            socket.is_paused = false;
        }
        self.start_receiving(file)
    }

    fn ask_progress(&mut self, connection: ConnectionId) -> io::Result<()> {
        match self.sockets.file(connection) {
            Some(file) => self.request_progress(file),
            None => Ok(()),
        }
    }

    fn offload_tls(&mut self, connection: ConnectionId) -> io::Result<()> {
        match self.sockets.file(connection) {
            Some(file) => self.begin_offload(file),
            None => Ok(()),
        }
    }

    fn hand_over(
        &mut self,
        connection: ConnectionId,
        to: CoreId,
        handed_over: Box<HandedOver>,
    ) -> io::Result<()> {
        match self.sockets.file(connection) {
            Some(file) => self.leave(file, to, handed_over),
            None => Ok(()),
        }
    }

    fn close(&mut self, connection: ConnectionId, last: Option<SendBuffer>) -> io::Result<()> {
        match self.sockets.file(connection) {
            Some(file) => self.linger(file, last),
            None => Ok(()),
        }
    }
}
