//! Carries out the engine's actions as calls and tasks of the runtime.

use std::io;
use std::net::TcpStream;
use std::rc::Rc;

use super::lingering::linger;
use super::{Accepting, Runtime, Shared, State, listen, watch, write_on};
use crate::base::ids::{ConnectionId, CoreId};
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::base::send_buffer::SendBuffer;
use crate::control::bridge::Dialed;
use crate::engine::HandedOver;
use crate::executor::mesh::Moving;
use crate::executor::sockets::Sockets;
use crate::executor::{Core, Listener, progress};

/// The state of a core while it is borrowed, and the handle that tasks get.
pub(super) struct Borrowed<'a, R: Runtime> {
    pub shared: &'a Shared<R>,
    pub state: &'a mut State<R>,
}

impl<R: Runtime> Borrowed<'_, R> {
    /// Serves a socket that another core has accepted, or a bridge has opened.
    fn watch_adopted(&mut self, socket: TcpStream, id: ConnectionId) {
        match R::adopt(socket.into()) {
            Ok(stream) => watch(self.shared, self.state, stream, id),
            Err(error) => {
                rated!(warn, log_rate::now(), %error, "cannot register a connection; closing it");
                let core = &mut self.state.core;
                core.engine.handle_closed(core.now, id);
            }
        }
    }
}

impl<R: Runtime> Sockets for Borrowed<'_, R> {
    type Socket = TcpStream;

    fn core(&mut self) -> &mut Core<TcpStream> {
        &mut self.state.core
    }

    fn adopt(&mut self, moving: Moving<TcpStream>) -> io::Result<()> {
        let Moving { socket, handed_over } = moving;
        let core = &mut self.state.core;
        let Ok(id) = core.engine.handle_handed_over(core.now, *handed_over) else { return Ok(()) };
        self.watch_adopted(socket, id);
        Ok(())
    }

    fn adopt_dialed(&mut self, dialed: Dialed) -> io::Result<()> {
        let Dialed { socket, transport, bytes } = dialed;
        let core = &mut self.state.core;
        let dialed = core.engine.handle_dialed(core.now, transport, bytes);
        if let Ok(id) = dialed {
            self.watch_adopted(socket, id);
        }
        Ok(())
    }

    fn listen(&mut self, listener: Listener) -> io::Result<()> {
        let number = listener.number;
        match listen(self.shared, listener) {
            Ok(accepting) => self.state.listeners.push(accepting),
            Err(error) => {
                rated!(error, log_rate::now(), listener = number, %error, "cannot register a listener")
            }
        }
        Ok(())
    }

    fn stop_listening(&mut self, number: u16) -> io::Result<()> {
        self.state.listeners.retain(|Accepting { listener, is_closed }| {
            if listener.number == number {
                is_closed.set(true);
                listener.shut();
            }
            listener.number != number
        });
        Ok(())
    }

    fn send(&mut self, connection: ConnectionId, buffer: SendBuffer) -> io::Result<()> {
        let Some(socket) = self.state.socket(connection) else { return Ok(()) };
        socket.pending = Some(buffer);
        if self.state.write(connection) {
            R::spawn(write_on(Rc::clone(self.shared), connection));
        }
        Ok(())
    }

    fn pause(&mut self, connection: ConnectionId) -> io::Result<()> {
        if let Some(socket) = self.state.socket(connection) {
            socket.is_paused = true;
        }
        Ok(())
    }

    fn resume(&mut self, connection: ConnectionId) -> io::Result<()> {
        if let Some(socket) = self.state.socket(connection) {
            socket.is_paused = false;
            if let Some(reader) = socket.reader.take() {
                reader.wake();
            }
        }
        Ok(())
    }

    fn ask_progress(&mut self, connection: ConnectionId) -> io::Result<()> {
        // There may be room that the kernel has not reported.
        self.state.write(connection);
        if let Some(socket) = self.state.socket(connection) {
            let unacknowledged = progress::unacknowledged(&*R::socket(&socket.stream));
            let core = &mut self.state.core;
            core.engine.handle_progress(core.now, connection, unacknowledged);
        }
        Ok(())
    }

    /// The runtimes do not support kernel TLS, and the configuration does not enable it for them.
    fn offload_tls(&mut self, connection: ConnectionId) -> io::Result<()> {
        self.state.core.engine.handle_offload_refused(self.state.core.now, connection);
        Ok(())
    }

    fn hand_over(
        &mut self,
        connection: ConnectionId,
        to: CoreId,
        handed_over: Box<HandedOver>,
    ) -> io::Result<()> {
        let Some(socket) = self.state.remove(connection) else { return Ok(()) };
        // A duplicate, because the runtime may close its descriptor later.
        match R::socket(&socket.stream).try_clone() {
            Ok(copy) => self.state.core.mesh.move_socket(to, copy.into(), handed_over),
            Err(error) => {
                rated!(warn, log_rate::now(), %error, "cannot move a connection to its home core; closing it");
            }
        }
        Ok(())
    }

    fn close(&mut self, connection: ConnectionId, last: Option<SendBuffer>) -> io::Result<()> {
        linger(self.shared, self.state, connection, last);
        Ok(())
    }
}
