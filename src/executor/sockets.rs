//! What is the same for the sockets of every executor: the order of a turn, and which method executes which action
//! of the engine. A new ability of sockets is a new method of [`Sockets`], and is dispatched here alone.

use std::io;
use std::time::Duration;

use crate::base::ids::{ConnectionId, CoreId};
use crate::base::send_buffer::SendBuffer;
use crate::control::bridge::Dialed;
use crate::control::listener::ListenerChange;
use crate::engine::{Action, HandedOver};
use crate::executor::mesh::Moving;
use crate::executor::{Core, Listener};

/// The sockets of one core. A method does nothing for a connection that is gone; an error ends the core.
pub(super) trait Sockets {
    /// A socket as it is passed on to another core.
    type Socket: Send;

    /// The core whose sockets these are.
    fn core(&mut self) -> &mut Core<Self::Socket>;

    /// Adopts a connection that another core has accepted.
    fn adopt(&mut self, moving: Moving<Self::Socket>) -> io::Result<()>;

    /// Adopts a connection that a bridge has opened.
    fn adopt_dialed(&mut self, dialed: Dialed) -> io::Result<()>;

    /// Accepts connections on another socket.
    fn listen(&mut self, listener: Listener) -> io::Result<()>;

    /// Accepts no more connections of the listener with this number.
    fn stop_listening(&mut self, number: u16) -> io::Result<()>;

    /// See [`Action::Send`].
    fn send(&mut self, connection: ConnectionId, buffer: SendBuffer) -> io::Result<()>;

    /// See [`Action::Pause`].
    fn pause(&mut self, connection: ConnectionId) -> io::Result<()>;

    /// See [`Action::Resume`].
    fn resume(&mut self, connection: ConnectionId) -> io::Result<()>;

    /// See [`Action::AskProgress`].
    fn ask_progress(&mut self, connection: ConnectionId) -> io::Result<()>;

    /// See [`Action::OffloadTls`].
    fn offload_tls(&mut self, connection: ConnectionId) -> io::Result<()>;

    /// See [`Action::HandOver`].
    fn hand_over(
        &mut self,
        connection: ConnectionId,
        to: CoreId,
        handed_over: Box<HandedOver>,
    ) -> io::Result<()>;

    /// See [`Action::Close`].
    fn close(&mut self, connection: ConnectionId, last: Option<SendBuffer>) -> io::Result<()>;

    /// Whether the core may sleep until `timeout` has passed. Followed by [`Core::wake_up`] if so.
    fn may_sleep(&mut self, timeout: Option<Duration>) -> bool {
        timeout != Some(Duration::ZERO) && self.core().park()
    }

    /// Takes what other threads and cores have sent. Called once a turn, after the clock has been read.
    fn receive(&mut self) -> io::Result<()> {
        for moving in self.core().receive() {
            self.adopt(moving)?;
        }
        while let Some(dialed) = self.core().next_dialed() {
            self.adopt_dialed(dialed)?;
        }
        while let Some((change, reply)) = self.core().next_listener_change() {
            let Some(ListenerChange { open, close }) = change.take() else { continue };
            close.into_iter().try_for_each(|number| self.stop_listening(number))?;
            open.into_iter().try_for_each(|listener| self.listen(listener))?;
            reply.send(());
        }
        Ok(())
    }

    /// Fires timers, and executes all actions of the engine. Called once a turn, after everything has been read.
    fn act(&mut self) -> io::Result<()> {
        self.core().fire_timers();
        self.drain_actions()
    }

    /// Ends all connections, because the broker stops.
    fn shut_down(&mut self) -> io::Result<()> {
        let core = self.core();
        core.engine.handle_shutdown(core.now);
        self.drain_actions()
    }

    /// Executes actions until the engine has none left.
    fn drain_actions(&mut self) -> io::Result<()> {
        while let Some(action) = self.core().engine.poll_action() {
            match action {
                Action::Send { connection, buffer } => self.send(connection, buffer)?,
                Action::Pause { connection } => self.pause(connection)?,
                Action::Resume { connection } => self.resume(connection)?,
                Action::AskProgress { connection } => self.ask_progress(connection)?,
                Action::OffloadTls { connection } => self.offload_tls(connection)?,
                Action::HandOver { connection, to, handed_over } => {
                    self.hand_over(connection, to, handed_over)?;
                }
                Action::Close { connection, last } => self.close(connection, last)?,
            }
        }
        Ok(())
    }
}
