//! How a connection ends, and whether something of it is left to do before.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::engine::cause::Cause;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Connection, Hold};
use crate::engine::timers::{Timer, Timers};
use crate::wire::violation::Violation;
use crate::wire::{Disconnect, Packet, PacketType, ReasonCode, Version};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Ending {
    /// The network ended the connection, or its client has left and been answered.
    PeerClosed,
    /// The client sent DISCONNECT.
    Client {
        /// The Reason Code asks for the Will to be published.
        publishes_will: bool,
    },
    /// The server ends it, with this reason for the client and this cause for the log.
    Server(ReasonCode, Cause),
    /// The client broke the protocol, in a packet of this type where it has one.
    Violation(Violation, Option<PacketType>),
    /// A later connection has the same Client Identifier.
    TakenOver {
        /// The later connection has Clean Start.
        ends_session: bool,
        /// Address of the later connection.
        by: Option<SocketAddr>,
    },
    /// The broker stops.
    Shutdown,
    /// The node is emptied: the client connects to another one.
    Drained,
    /// The server ends it without DISCONNECT.
    Silent,
}

impl Ending {
    /// The Reason Code of the DISCONNECT that is sent; none where none is.
    pub(in crate::engine) fn reason(self) -> Option<ReasonCode> {
        match self {
            Self::Server(reason, _) => Some(reason),
            Self::Violation(violation, _) => Some(violation.reason()),
            Self::TakenOver { .. } => Some(ReasonCode::SessionTakenOver),
            Self::Shutdown => Some(ReasonCode::ServerShuttingDown),
            // And not 0x9D: the node may be back soon.
            Self::Drained => Some(ReasonCode::UseAnotherServer),
            Self::PeerClosed | Self::Client { .. } | Self::Silent => None,
        }
    }

    /// The Reason String, for a client that wants problem information.
    fn reason_string(self) -> Option<&'static str> {
        match self {
            Self::Violation(violation, _) => Some(violation.what()),
            _ => None,
        }
    }

    pub(in crate::engine) fn publishes_will(self) -> bool {
        match self {
            Self::Client { publishes_will } => publishes_will,
            Self::Shutdown => false,
            _ => true,
        }
    }
}

impl Connection {
    /// Whether some input is not processed yet, and will be.
    pub(in crate::engine) fn has_input_left(&self) -> bool {
        if self.holds.has(Hold::Left) {
            return false;
        }
        let waits = self.is_held() || self.is_ready;
        waits && !self.input().is_empty()
            || self.holds.has(Hold::Job)
            || self.holds.has(Hold::Decision)
            || self.transport.as_ref().is_some_and(|transport| transport.is_waiting())
    }

    /// Whether answers to the peer are not in the outbox yet.
    pub(in crate::engine) fn has_answers_left(&self) -> bool {
        !self.is_deaf() && (self.is_withheld || self.is_ready || self.answers.is_some())
    }

    /// How much is left, to check whether it gets less.
    pub(in crate::engine) fn left(&self) -> u32 {
        let answers = self.answers.as_ref().map_or(0, |answers| answers.waiting());
        (self.input().len() + self.pending_bytes() + answers) as u32
    }
}

impl Connections {
    /// Sends DISCONNECT with a reason, where the client's version knows it and the client is admitted.
    pub fn send_disconnect(
        &mut self,
        id: ConnectionId,
        ending: Ending,
        server_reference: Option<&str>,
    ) {
        let Some(reason) = ending.reason() else { return };
        let connection = &self[id];
        if connection.version != Version::V5 || connection.session().is_none() {
            return;
        }
        // A server to go to turns "shutting down" into "use another server" [MQTT-4.11].
        let elsewhere = server_reference.map(|server_reference| Disconnect {
            reason: match reason {
                ReasonCode::ServerMoved => reason,
                _ => ReasonCode::UseAnotherServer,
            },
            server_reference: Some(server_reference),
            ..Disconnect::default()
        });
        // [MQTT-3.1.2-29]
        let reason_string =
            ending.reason_string().filter(|_| connection.wants_problem_information());
        let in_words = Disconnect { reason, reason_string, ..Disconnect::default() };
        let bare = Disconnect { reason, ..Disconnect::default() };
        // A client with a small Maximum Packet Size gets less detail, or none [MQTT-3.1.2-24],
        // [MQTT-3.14.2-3]. A Session Expiry Interval is in none of them [MQTT-3.14.2-2].
        let packets = elsewhere.into_iter().chain([in_words, bare]).map(Packet::Disconnect);
        for packet in packets {
            if self.send_fitting(id, &packet) {
                return;
            }
        }
    }

    /// The client of a connection has sent DISCONNECT: whether answers to what came before have to leave
    /// first.
    pub fn leaves_later(&mut self, id: ConnectionId, timers: &mut Timers, now: Now) -> bool {
        let Some(connection) = self.get(id) else { return false };
        if connection.is_deaf() || !connection.is_withheld && connection.answers.is_none() {
            return false;
        }
        self.hold(id, Hold::Left);
        self.check_end_later(id, 0, timers, now);
        true
    }

    /// Something of a connection that may be ending has been done.
    pub fn continue_to_end(&mut self, id: ConnectionId) {
        if self.get(id).is_some_and(|connection| connection.holds.is_ending()) {
            self.mark_ready(id);
        }
    }

    /// Checks after a while whether a connection that is ending has less left than now.
    pub fn check_end_later(&mut self, id: ConnectionId, checks: u8, timers: &mut Timers, now: Now) {
        let Some(connection) = self.get(id) else { return };
        let left = connection.left();
        let deadline = now.after(Duration::from_millis(limits::STUCK_MS));
        timers.arm(deadline, Timer::End { connection: id, left, checks });
    }
}
