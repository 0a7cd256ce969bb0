//! Connections to far brokers, on their way from the threads of bridges to cores.

use std::net::TcpStream;
use std::sync::Arc;

use crate::base::part::Part;
use crate::config::bridge::BridgeQueue;
use crate::control::command::Reply;
use crate::transport::Transport;
#[cfg(feature = "bridge")]
use crate::transport::bridge::Terms;

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

/// What is due on the connection of a bridge. The core that has the session replies whether there is a connection.
#[derive(Debug)]
pub struct BridgeTick {
    /// Client Identifier of the session.
    pub session: Box<str>,
    /// What is due.
    pub due: BridgeDue,
    /// The way back.
    pub reply: Reply<bool>,
}

/// See [`BridgeTick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeDue {
    /// A quarter of the Keep Alive has passed.
    SignOfLife,
    /// A quarter of the time has passed in which the far broker has to acknowledge something.
    Acknowledgements,
    /// What the far broker has refused is subscribed to again.
    Subscriptions,
    /// These bounds of the queue hold, whether there is a connection or not, and what is too old leaves it.
    Queue(BridgeQueue),
}

/// The connection of a bridge ends, with DISCONNECT to the far broker. The core that has the session replies whether
/// there is a connection.
#[derive(Debug)]
pub struct BridgeEnd {
    /// Client Identifier of the session.
    pub session: Box<str>,
    /// The way back.
    pub reply: Reply<bool>,
}

/// How many messages wait in the sessions of bridges. A core replies about those that are at home there.
#[derive(Debug)]
pub struct BridgeQueues {
    /// Client Identifiers of the sessions.
    pub sessions: Arc<[Box<str>]>,
    /// The way back, for a queue at the place of each session that the core has.
    pub reply: Reply<Vec<Option<QueueSize>>>,
}

/// Messages on their way to the far broker of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSize {
    /// Messages that wait.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that were sent, or are about to be, and that the far broker has not acknowledged.
    pub inflight: u64,
    /// For how long the oldest of those that wait has waited, in seconds.
    pub oldest_s: u64,
}

/// A command of an operator to a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeCommand {
    /// Connect, and stay connected.
    Start,
    /// Disconnect, and stay so until [`Self::Start`] or the next start of the broker.
    Stop,
    /// Make a new connection at once.
    Reconnect,
    /// End the session at the far broker, and begin a new one.
    ResetSession,
}

impl BridgeCommand {
    /// Name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reconnect => "reconnect",
            Self::ResetSession => "reset-session",
        }
    }
}

/// The bridge is stopped, and the command is for one that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeIsStopped;

/// A change of a bridge while it runs. The core that has its session replies whether it is done; the others, that it is
/// not.
#[cfg(feature = "bridge")]
#[derive(Debug)]
pub struct BridgeOrder {
    /// Client Identifier of the session.
    pub session: Box<str>,
    /// What to do.
    pub what: LinkOrder,
    /// The way back.
    pub reply: Reply<bool>,
}

/// What the core of a bridge does with its connection or its session.
#[cfg(feature = "bridge")]
#[derive(Clone, Debug)]
pub enum LinkOrder {
    /// Other topics pass from now on, on the connection that there is.
    Change(Arc<Terms>),
    /// The bridge unsubscribes at the far broker and ends its session there; the connection ends once the far broker has
    /// closed it.
    GiveUp,
    /// The far broker has no subscriptions to these filters any more.
    Unsubscribed(Arc<[Box<str>]>),
    /// The session ends, with its subscriptions and its queue.
    EndSession,
}

/// A session of a bridge, which may be configured or not.
#[cfg(feature = "bridge")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptBridge {
    /// Name of the bridge.
    pub name: Box<str>,
    /// Messages that wait, or are under way.
    pub messages: usize,
    /// Topic Filters that may be subscribed to at its far broker.
    pub far_subscriptions: Vec<Box<str>>,
}

/// What is known of one connection of a bridge.
#[derive(Clone, Debug, Default)]
pub struct ConnectionStatus {
    /// The part of all topics that it takes; none if the bridge has one connection.
    pub part: Option<Part>,
    /// Client Identifier of its session here.
    pub session: Box<str>,
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
}

/// What is known of a bridge. Counters are since the start of the broker.
#[derive(Clone, Debug, Default)]
pub struct BridgeStatus {
    /// Name.
    pub name: String,
    /// Its connections, and those that end once their queues are sent.
    pub connections: Vec<ConnectionStatus>,
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
    /// The last such reason, and when it was noted, in seconds since 1970.
    pub last_error: Option<(String, u64)>,
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
    /// Messages that the far broker has refused and that were dropped.
    pub refused: u64,
    /// Messages that the far broker has refused, by reason.
    pub refused_by_reason: Vec<(&'static str, u64)>,
    /// Messages that came back by a loop of bridges.
    pub loops: u64,
    /// Messages that an operator has dropped.
    pub by_operator: u64,
    /// Connections that a far broker has accepted.
    pub connects: u64,
    /// Sessions that the far broker has lost.
    pub sessions_lost: u64,
    /// The last round trip to the far broker in microseconds; none before the first one.
    pub round_trip_us: Option<u64>,
}

impl BridgeStatus {
    /// How many connections the far broker has accepted.
    pub fn connected(&self) -> u64 {
        self.connections.iter().filter(|of| of.state.is_connected()).count() as u64
    }

    /// Whether a connection of the bridge tries to be connected, and is not.
    pub fn is_amiss(&self) -> bool {
        self.state.is_amiss() || self.connections.iter().any(|of| of.state.is_amiss())
    }
}

/// The state of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BridgeState {
    /// Its session is being opened, or the first attempt is under way.
    #[default]
    Starting,
    /// The far broker has accepted the connection.
    Up,
    /// The same, and a subscription is refused.
    Degraded,
    /// It is not connected.
    Down,
    /// It is not connected: TLS has failed, as a certificate has expired or is refused.
    Tls,
    /// It is not connected: the far broker has refused its name, its password or its Client Identifier.
    Refused,
    /// It is not connected: another client uses its Client Identifier at the far broker.
    Conflict,
    /// It is not connected, and tries nothing: an operator has stopped it, or has not started it.
    Stopped,
    /// It is not connected, because few messages wait for it.
    Idle,
}

impl BridgeState {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Starting,
        Self::Up,
        Self::Degraded,
        Self::Down,
        Self::Tls,
        Self::Refused,
        Self::Conflict,
        Self::Stopped,
        Self::Idle,
    ];

    /// Whether the far broker has accepted the connection.
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Up | Self::Degraded)
    }

    /// Name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Tls => "tls",
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Stopped => "stopped",
            Self::Idle => "idle",
        }
    }

    /// Whether the bridge tries to be connected, and is not.
    pub fn is_amiss(self) -> bool {
        !self.is_connected() && !matches!(self, Self::Stopped | Self::Idle)
    }
}
