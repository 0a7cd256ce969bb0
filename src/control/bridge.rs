//! Connections to far brokers, on their way from the threads of bridges to cores.

use std::net::TcpStream;

use crate::control::command::Reply;
use crate::transport::Transport;

/// A connection that a bridge has opened.
#[derive(Debug)]
pub struct Dialed {
    /// The socket.
    pub socket: TcpStream,
    /// The layers between the socket and the engine.
    pub transport: Box<Transport>,
    /// Packets of the bridge's session, as if they had been received.
    pub bytes: Vec<u8>,
}

/// A quarter of the Keep Alive of a bridge has passed. The core that has the session replies whether there is a
/// connection.
#[derive(Debug)]
pub struct BridgeTick {
    /// Client Identifier of the session.
    pub session: Box<str>,
    /// The way back.
    pub reply: Reply<bool>,
}

/// What is known of a bridge. Counters are since the start of the broker.
#[derive(Clone, Debug, Default)]
pub struct BridgeStatus {
    /// Name.
    pub name: String,
    /// The configured servers.
    pub servers: Vec<String>,
    /// State.
    pub state: BridgeState,
    /// The server that it is connected to.
    pub server: Option<String>,
    /// Whether that server had kept a session.
    pub session_present: Option<bool>,
    /// Why it is not connected, or what is wrong although it is.
    pub why: Option<String>,
    /// When the state began, in seconds since 1970.
    pub since_s: u64,
    /// Messages sent to the far broker, repetitions included.
    pub sent: u64,
    /// Messages received from the far broker.
    pub received: u64,
    /// Messages that no rule maps.
    pub unmapped: u64,
    /// Messages larger than the far broker accepts.
    pub too_large: u64,
    /// Messages that the far broker has refused.
    pub refused: u64,
    /// Messages that came back by a loop of bridges.
    pub loops: u64,
    /// Connections that a far broker has accepted.
    pub connects: u64,
    /// Sessions that the far broker has lost.
    pub sessions_lost: u64,
}

/// The state of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BridgeState {
    /// Its session is being opened, or the first attempt is under way.
    #[default]
    Starting,
    /// The far broker has accepted the connection.
    Up,
    /// It is not connected.
    Down,
}

impl BridgeState {
    /// Name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}
