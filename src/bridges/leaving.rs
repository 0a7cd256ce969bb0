//! The end of a connection by a command: with DISCONNECT, or by closing the socket.

use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError};

use crate::control::bridge::BridgeEnd;
use crate::control::{Command, Cores, EngineCommand};
use crate::transport::bridge::Event;

/// How long a connection may take to end with DISCONNECT, and then by the end of its socket.
const PATIENCE: Duration = Duration::from_secs(5);
/// After this time the engine is asked again: it knows a connection only once its session is open.
const AGAIN: Duration = Duration::from_millis(100);

/// Ends a connection, and waits until it has ended. `is_open` if the far broker has accepted it; `socket` is the one of
/// the connection.
pub(super) fn leave(
    cores: &Cores,
    session: &str,
    events: &Receiver<Event>,
    socket: Option<&TcpStream>,
    is_open: bool,
) {
    if is_open {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let replies = cores.ask_all(|reply| {
                Command::Engine(EngineCommand::BridgeEnd(BridgeEnd {
                    session: session.into(),
                    reply,
                }))
            });
            drop(replies);
            if has_ended(events, Instant::now() + AGAIN) {
                return;
            }
        }
    }
    close(socket);
    has_ended(events, Instant::now() + PATIENCE);
}

/// Ends the socket of a connection, which may have ended meanwhile.
pub(super) fn close(socket: Option<&TcpStream>) {
    let _ = socket.map(|socket| socket.shutdown(Shutdown::Both));
}

/// Whether a connection ends before `deadline`.
fn has_ended(events: &Receiver<Event>, deadline: Instant) -> bool {
    loop {
        match events.recv_deadline(deadline) {
            Ok(Event::Ended { .. }) | Err(RecvTimeoutError::Disconnected) => return true,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}
