//! The Network Connections of one core: their table, what they have read and have to send, the lists
//! that they are in, and when they end.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `connection` | one connection: its phase, what was agreed at CONNECT, its buffers |
//! | `slots` | the connections by their handles |
//! | `output` | outboxes and their way to the executor |
//! | `reading` | reasons for which a socket is not read |
//! | `turns` | connections that continue in a later turn, because the budget of this one was spent |
//! | `input_buffer`, `waiting_input` | input that cannot be processed yet |
//! | `pending_acks` | acknowledgements that wait for other cores or the store |
//! | `rate_limit`, `time_limits`, `timing` | what a client may send in a second, and how long it may be silent |
//! | `mount` | what is put before the topics of a client |
//! | `ending` | how a connection ends, and whether something is left to do before |

pub mod connection;
pub(in crate::engine) mod ending;
pub mod input_buffer;
mod mount;
mod output;
pub(in crate::engine) mod pending_acks;
pub(in crate::engine) mod rate_limit;
mod reading;
mod slots;
mod time_limits;
mod timing;
mod turns;
mod waiting_input;

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::metrics::Metrics;
use crate::base::send_buffer::SendBuffer;
use crate::config::Limits;
use crate::engine::action::Action;
use crate::engine::cause::Cause;
use crate::engine::connections::connection::Connection;
use crate::engine::connections::output::Output;
use crate::engine::connections::pending_acks::SpareAnswers;
use crate::engine::connections::slots::Slots;
use crate::engine::connections::time_limits::Overdue;
use crate::engine::connections::turns::Turns;
use crate::engine::timers::Timers;
use crate::resources::gauges::{Ledger, Place};
use crate::wire::ReasonCode;
use crate::wire::violation::Violation;

/// The connections of one core, and what the executor is asked to do for them. Knows no session and no
/// topic.
#[derive(Debug)]
pub(in crate::engine) struct Connections {
    slots: Slots,
    /// The generation of the connection or session that was made last.
    generation: u32,
    /// How often generations have begun again, from 1: with it session numbers are unique.
    round: u32,
    /// Actions for the executor besides sending.
    actions: VecDeque<Action>,
    output: Output,
    turns: Turns,
    /// Connections to close at the end of the turn, and the reason to send.
    to_close: Vec<(ConnectionId, ReasonCode, Cause)>,
    overdue: Overdue,
    spare_answers: SpareAnswers,
    /// When the CONNECTs came that are answered in this turn; empty unless statistics are taken.
    connacks: Vec<Now>,
    /// Memory for the topic of a PUBLISH that has a Topic Alias.
    alias_topic: String,
    counts: Counts,
    place: Place,
}

/// Counters of connections since the start.
#[derive(Debug, Default)]
struct Counts {
    /// Packets other than PUBLISH.
    other_packets_sent: u64,
    bytes_sent: u64,
    publishers_paused: u64,
    inputs_deferred: u64,
}

impl Connections {
    /// A table without connections, of the core at `place`.
    pub fn new(place: Place) -> Self {
        Self {
            slots: Slots::default(),
            generation: 0,
            round: 1,
            actions: VecDeque::new(),
            output: Output::default(),
            turns: Turns::default(),
            to_close: Vec::new(),
            overdue: Overdue::default(),
            spare_answers: SpareAnswers::default(),
            connacks: Vec::new(),
            alias_topic: String::new(),
            counts: Counts::default(),
            place,
        }
    }

    /// Adds a connection, which has until its time limit to send CONNECT.
    pub fn add(
        &mut self,
        connection: Connection,
        limits: &Limits,
        timers: &mut Timers,
        now: Now,
    ) -> ConnectionId {
        self.ledger().charge(connection.bytes_charged());
        self.ledger().change_input(0, connection.input_bytes());
        let deadline = connection.last_received.after_s(u64::from(limits.connect_timeout_s));
        let id = self.slots.insert(connection);
        self.place.set_connections(self.slots.len());
        timers.arm_connection(now, id, &mut self.slots[id], deadline);
        id
    }

    /// Takes a connection out, and returns what was about to be sent to it. Its slot is free once the
    /// executor has been asked to close the socket, or [`Self::free`] was called.
    pub fn remove(&mut self, id: ConnectionId) -> (Connection, Option<SendBuffer>) {
        let mut connection = self.slots.remove(id);
        self.place.set_connections(self.slots.len());
        self.ledger().release(connection.bytes_charged());
        self.ledger().release_output(connection.charged.bytes());
        self.ledger().change_input(connection.input_bytes(), 0);
        // A CONNACK that still waits for the store is a promise that was not made.
        let last = connection.outbox.take().filter(|_| !connection.is_withheld);
        (connection, last)
    }

    /// Frees the slot of a connection that was taken out and whose socket the executor does not have.
    pub fn free(&mut self, id: ConnectionId) {
        self.slots.free(id);
    }

    /// The connection, unless it has ended.
    #[inline]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id)
    }

    /// The connection, unless it has ended, to change it.
    #[inline]
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id)
    }

    /// Whether the connection has not ended.
    #[inline]
    pub fn contains(&self, id: ConnectionId) -> bool {
        self.slots.get(id).is_some()
    }

    /// The handles of all connections.
    pub fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.slots.ids()
    }

    /// Connections of all cores.
    pub fn everywhere(&self) -> usize {
        self.slots.len() + self.place.connections_elsewhere()
    }

    /// Changes a connection in what it holds of memory, input included; the ledger follows.
    pub fn edit<R>(
        &mut self,
        id: ConnectionId,
        change: impl FnOnce(&mut Connection) -> R,
    ) -> Option<R> {
        let connection = self.slots.get_mut(id)?;
        let (held, input) = (connection.bytes_charged(), connection.input_bytes());
        let outcome = change(connection);
        let ledger = self.place.ledger();
        ledger.change(held, connection.bytes_charged());
        ledger.change_input(input, connection.input_bytes());
        Some(outcome)
    }

    /// Changes the input that a connection holds; the ledger follows.
    fn edit_input<R>(
        &mut self,
        id: ConnectionId,
        change: impl FnOnce(&mut Connection) -> R,
    ) -> Option<R> {
        let connection = self.slots.get_mut(id)?;
        let before = connection.input_bytes();
        let outcome = change(connection);
        self.place.ledger().change_input(before, connection.input_bytes());
        Some(outcome)
    }

    /// Why a new connection is refused, if it is: there are too many, or too many within a second.
    pub fn refusal(&self, now: Now, limits: &Limits) -> Option<ReasonCode> {
        if self.everywhere() >= limits.connections_max as usize {
            return Some(ReasonCode::QuotaExceeded);
        }
        let is_slow_enough = self.place.accept(now, limits.connections_per_second_max);
        (!is_slow_enough).then_some(ReasonCode::ConnectionRateExceeded)
    }

    /// A number for a new connection or session, which no other of this core has.
    pub fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == slots::ENDED {
            self.round += 1;
            self.generation += 1;
        }
        self.generation
    }

    /// How often generations have begun again: the first half of the numbers of new sessions.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The number of the latest generation, with the round: a later one is higher.
    #[cfg(feature = "admin")]
    pub fn latest_generation(&self) -> u64 {
        u64::from(self.round) << 32 | u64::from(self.generation)
    }

    /// Continues after the highest session number of an earlier process.
    pub fn resume_generations(&mut self, session_max: u64) {
        self.round = self.round.max((session_max >> 32) as u32);
        self.generation = self.generation.max(session_max as u32);
    }

    /// Asks the executor for something.
    pub fn push_action(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// The next action for the executor besides sending.
    pub fn next_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front()?;
        if let Action::Close { connection, .. } = &action {
            self.slots.free(*connection);
        }
        Some(action)
    }

    /// Whether there is an action, or a connection that may have something to send.
    pub fn has_something_to_do(&self) -> bool {
        !self.actions.is_empty() || self.output.has_dirty()
    }

    /// Closes a connection at the end of the turn, with this reason.
    pub fn close_later(&mut self, id: ConnectionId, reason: ReasonCode, cause: Cause) {
        self.to_close.push((id, reason, cause));
    }

    /// The next connection to close.
    pub fn next_to_close(&mut self) -> Option<(ConnectionId, ReasonCode, Cause)> {
        self.to_close.pop()
    }

    /// Whether no connection waits for its turn or its end.
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty() && self.to_close.is_empty() && !self.has_overdue()
    }

    /// Notes, for the statistics, when the CONNECT came that is answered in this turn.
    pub fn note_connack(&mut self, id: ConnectionId, now: Now) {
        if let Some(connection) = self.slots.get(id) {
            self.connacks.push(connection.connect_received(now));
        }
    }

    /// When the CONNECTs came that were answered since the last call.
    pub fn take_connacks(&mut self) -> impl Iterator<Item = Now> + '_ {
        self.connacks.drain(..)
    }

    /// The topic of a PUBLISH with a Topic Alias. A `topic` that is not empty is noted for the alias;
    /// while memory `is_full`, only if it is not longer than the one before. [`Self::recycle_topic`] brings
    /// the memory back.
    pub fn resolve_alias(
        &mut self,
        id: ConnectionId,
        alias: u16,
        topic: &str,
        is_full: bool,
    ) -> Result<String, Violation> {
        let aliases = &self.slots[id].extra.get_or_insert_default().incoming_aliases;
        if !topic.is_empty() {
            if is_full && topic.len() > aliases.topic(alias).map_or(0, str::len) {
                return Err(Violation::TopicAliasesTooLarge);
            }
            self.edit(id, |connection| {
                connection.extra.get_or_insert_default().incoming_aliases.set(alias, topic);
            });
        }
        let aliases = &self.slots[id].extra.get_or_insert_default().incoming_aliases;
        let known = aliases.topic(alias).ok_or(Violation::TopicAliasUnknown)?;
        let mut resolved = std::mem::take(&mut self.alias_topic);
        resolved.clear();
        resolved.push_str(known);
        Ok(resolved)
    }

    /// Brings back the memory of [`Self::resolve_alias`].
    #[inline]
    pub fn recycle_topic(&mut self, topic: String) {
        self.alias_topic = topic;
    }

    /// Copies the counters and gauges of connections.
    pub fn report(&self, metrics: &mut Metrics) {
        metrics.packets_sent = metrics.publishes_sent + self.counts.other_packets_sent;
        metrics.bytes_sent = self.counts.bytes_sent;
        metrics.publishers_paused = self.counts.publishers_paused;
        metrics.inputs_deferred = self.counts.inputs_deferred;
        metrics.connections_open = self.slots.len() as u64;
    }

    #[inline]
    fn ledger(&self) -> &Ledger {
        self.place.ledger()
    }
}

impl Index<ConnectionId> for Connections {
    type Output = Connection;

    #[inline]
    fn index(&self, id: ConnectionId) -> &Connection {
        &self.slots[id]
    }
}

impl IndexMut<ConnectionId> for Connections {
    #[inline]
    fn index_mut(&mut self, id: ConnectionId) -> &mut Connection {
        &mut self.slots[id]
    }
}
