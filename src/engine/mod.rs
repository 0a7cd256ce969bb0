//! One core of the broker, without I/O: events in, actions out.
//!
//! An executor tells what happened (`handle_*`) and does what it is asked (`poll_*`); the engine
//! owns no socket, reads no clock and spawns nothing, so that it runs the same under every
//! executor, in a simulation and in a fuzzer. One turn of an executor is:
//!
//! ```text
//! wait → handle_accepted · handle_received · handle_sent · handle_ended · handle_closed …
//!      → handle_all_read where that is so → handle_timeout
//!      → poll_action until None → poll_timeout says how long to wait at most
//! ```
//!
//! | folder or file | what it does |
//! | --- | --- |
//! | `packets` | what each packet of a client does, from its bytes to its answer |
//! | `connections` | Network Connections: their table, input and output, time limits, and the end of a stream |
//! | `routing` | the recipients of a message, its delivery to them, shared subscriptions, backpressure |
//! | `retained` | retained messages, their expiry, and their replay to new subscribers |
//! | `durability` | records for the store, restoring from them, and Wills |
//! | `mesh` | other cores: messages forwarded to them, and connections that move to their home core |
//! | `listeners` | TLS handshakes, and the offload of TLS to the kernel |
//! | `ended_sessions` | sessions that end over several turns |
//! | `admin` | commands of the control plane |
//! | `timeouts` | what each timer leads to |
//! | `work` | the budget of a turn |

mod access;
mod action;
mod admin;
mod client_identifiers;
mod config;
pub mod connections;
mod durability;
mod ended_sessions;
mod listeners;
mod mesh;
mod packets;
mod retained;
mod routing;
mod sys_topics;
#[cfg(test)]
mod tests;
mod timeouts;
pub mod work;

use std::collections::VecDeque;

use shards::Hashing;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::{ConnectionId, CoreId, Peer};
use crate::base::limits;
use crate::base::metrics::{Metrics, Turn};
use crate::engine::connections::connection::{Connection, Hold, Phase};
use crate::engine::packets::disconnect::Ending;
use crate::resources::gauges::Place;
use crate::session::table::SessionTable;

use access::AccessControl;
pub use access::{Access, AllowAll, Authentication, Credentials, Grant, IdentifierClaim, Identity};
pub use action::{Action, Refused};
pub use client_identifiers::Keys;
use client_identifiers::Names;
pub use config::Config;
use connections::Connections;
pub use connections::pending_acks::Answers;
pub use connections::rate_limit::Allowance;
use durability::Durability;
pub use durability::restore::Restored;
use ended_sessions::Leftover;
use listeners::Listeners;
use mesh::Mesh;
pub use mesh::batch::Batch;
pub use mesh::handover::HandedOver;
pub use packets::job::Job;
use retained::RetainedStore;
use routing::Router;
use sys_topics::SysTopics;
use timeouts::{Timer, Timers};
use work::Work;

/// One core: see the module's documentation.
pub struct Engine {
    place: Place,
    config: Config,
    access: AccessControl,
    commands: admin::Commands,
    now: Now,
    started: Now,
    names: Names,
    connections: Connections,
    metrics: Metrics,
    /// Bytes on the ledgers of the other cores at the beginning of this turn.
    memory_bytes_elsewhere: u64,
    sessions: SessionTable,
    mesh: Mesh,
    durability: Durability,
    listeners: Listeners,
    router: Router,
    retained: RetainedStore,
    timers: Timers,
    /// The budget of this turn.
    work: Work,
    /// Remaining work for sessions that have ended or whose clients are disconnected.
    leftovers: VecDeque<Leftover>,
    /// Topic of the PUBLISH in hand when it came by alias; kept for its memory.
    alias_topic: String,
    sys_topics: SysTopics,
}

impl Engine {
    /// An engine for the core at `place`. `keys` are the same for all cores.
    pub fn new(
        place: Place,
        config: Config,
        access: Box<dyn Access>,
        keys: Keys,
        now: Now,
    ) -> Self {
        let hashing = Hashing::new(keys.tables);
        let mut engine = Self {
            access: AccessControl::new(access),
            commands: Default::default(),
            now,
            started: now,
            names: Names::new(keys, place.core()),
            connections: Connections::new(place.clone()),
            metrics: Metrics::default(),
            memory_bytes_elsewhere: 0,
            sessions: SessionTable::new(hashing.clone(), place.clone()),
            mesh: Mesh::new(&place),
            durability: Durability::new(place.core()),
            listeners: Listeners::new(&config.limits),
            router: Router::new(&place, config.limits.memory_bytes_max, keys.tables, hashing),
            retained: RetainedStore::new(&place, &config, keys.tables),
            timers: Timers::new(now),
            work: Work::default(),
            leftovers: VecDeque::new(),
            alias_topic: String::new(),
            sys_topics: SysTopics::new(now),
            config,
            place,
        };
        if engine.config.mqtt.sys_interval_s > 0 && engine.core() == CoreId(0) {
            engine.timers.arm(now.after_s(0), Timer::SysTopics);
        }
        engine
    }

    /// The core it runs.
    pub fn core(&self) -> CoreId {
        self.place.core()
    }

    /// Counters and gauges as they stand.
    pub fn metrics(&mut self) -> &Metrics {
        self.connections.report(&mut self.metrics);
        self.metrics.memory_bytes = self.place.ledger().bytes();
        self.metrics.input_bytes = self.place.ledger().input_bytes();
        self.metrics.log_lines_left_out = crate::base::log_rate::suppressed_lines();
        self.metrics.log_lines_lost = crate::base::output::log_lines_lost();
        self.metrics.work_steps = self.work.total();
        self.metrics.work_steps_turn_max = self.work.turn_max();
        self.router.count_into(&mut self.metrics);
        self.retained.count_into(&mut self.metrics);
        self.metrics.lanes_bytes = self.mesh.bytes_under_way();
        self.metrics.wills_left = self.durability.left_wills() as u64;
        self.metrics.note_access(self.access.counts());
        self.metrics.messages_queued = self.place.ledger().messages_queued();
        debug_assert_eq!(
            self.metrics.messages_queued,
            self.sessions
                .iter()
                .map(|(session, _)| self.sessions.queued(session) as u64)
                .sum::<u64>()
        );
        &self.metrics
    }

    /// The counters, with how busy the core was since the last report.
    fn report(&mut self) -> Metrics {
        self.sys_topics.note_busy(self.now, &mut self.metrics);
        self.metrics().clone()
    }

    /// The executor has gone through a turn of its loop.
    pub fn note_turn(&mut self, turn: Turn) {
        self.metrics.note_turn(turn);
    }

    /// Arrival times of the CONNECTs that are answered in this turn. With statistics enabled, the
    /// executor calls this every turn.
    pub fn take_connacks(&mut self) -> impl Iterator<Item = Now> + '_ {
        self.connections.take_connacks()
    }

    /// PUBLISH packets received from clients, and messages of other cores' clients taken from there,
    /// each by QoS, since the start.
    pub fn publishes_taken(&self) -> ([u64; 3], [u64; 3]) {
        (self.metrics.received_by_qos, self.metrics.forwarded_by_qos)
    }

    /// A connection was accepted. When it is refused, the executor closes the socket.
    pub fn handle_accepted(&mut self, now: Now, peer: Peer) -> Result<ConnectionId, Refused> {
        self.set_now(now);
        let connections_max = self.config.limits.connections_max as usize;
        let refusal = self.connections.refusal(self.now, &self.config.limits);
        if refusal.is_some() {
            self.metrics.connections_refused += 1;
            if self.connections.everywhere() >= connections_max + limits::REFUSED_CONNECTIONS_MAX {
                return Err(Refused);
            }
        }
        let generation = self.connections.next_generation();
        let mut connection = Connection::new(generation, peer.address, peer.listener, now);
        connection.refusal = refusal;
        let memory_is_overdrawn = self.memory_is_overdrawn();
        if let Err(refused) = self.listeners.admit(&peer, &mut connection, memory_is_overdrawn) {
            self.metrics.connections_refused += 1;
            return Err(refused);
        }
        // Whom a proxy speaks for counts for the proxy's address in nothing.
        let awaits_address = connection.transport.as_ref().is_some_and(|t| t.awaits_address());
        connection.phase = Phase::Connecting { elsewhere: false, awaits_address };
        if !awaits_address && !self.access.may_stay(now, &peer) {
            self.listeners.release(peer.listener);
            return Err(Refused);
        }
        self.metrics.connections_accepted += 1;
        let limits = &self.config.limits;
        Ok(self.connections.add(connection, limits, &mut self.timers, self.now))
    }

    /// Advances the time, never back: in a turn that began early, a batch may have advanced it further.
    #[inline]
    fn set_now(&mut self, now: Now) {
        if self.now < now {
            self.begin_at(now);
        }
    }

    fn begin_at(&mut self, now: Now) {
        self.now = now;
        self.memory_bytes_elsewhere = self.place.memory_bytes_elsewhere();
        self.make_room_for_others();
    }

    /// The executor wrote `bytes` of a buffer, and brings it home once it is `drained`.
    pub fn handle_sent(
        &mut self,
        now: Now,
        connection: ConnectionId,
        bytes: usize,
        drained: Option<crate::base::send_buffer::SendBuffer>,
    ) {
        self.set_now(now);
        let is_drained = drained.is_some();
        self.connections.sent(connection, bytes, drained);
        if is_drained {
            self.mesh.depart_sent(connection);
        }
        let Some(of) = self.connections.get(connection).filter(|of| of.session().is_some()) else {
            return;
        };
        if of.holds.has(Hold::Answers) {
            let outbox_bytes_max = self.config.limits.outbox_bytes_max as usize;
            self.connections.note_answers_taken(connection, bytes, outbox_bytes_max, self.now);
        }
        self.after_progress(connection);
    }

    /// Stops the broker: sends DISCONNECT [MQTT-3.14] and closes all connections. Wills are left to
    /// the next start: their clients did not fail.
    pub fn handle_shutdown(&mut self, now: Now) {
        self.set_now(now);
        self.flush_fan_out_batch();
        self.finish_fan_outs();
        let ids: Vec<ConnectionId> = self.connections.ids().collect();
        for id in ids {
            if self.connections.contains(id) {
                self.end_connection(id, Ending::Shutdown);
            }
        }
    }

    /// The next action; `None` ends the turn.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.work.begin_deferred() {
            // Each connection that has more to do gets one go a turn: those that come up meanwhile have
            // theirs in the next, for which `poll_timeout` does not let the executor wait.
            self.connections.begin_turns();
        }
        let action = self.next_action();
        if action.is_none() {
            self.listeners.end_turn();
            self.work.end_turn();
        }
        action
    }

    fn next_action(&mut self) -> Option<Action> {
        loop {
            if let Some(action) = self.connections.next_action() {
                return Some(action);
            }
            self.flush_fan_out_batch();
            if !self.work.is_spent()
                && let Some((id, reason)) = self.connections.next_to_close()
            {
                self.work.spend(1);
                if self.connections.contains(id) {
                    self.end_connection(id, Ending::Server(reason));
                }
                continue;
            }
            if let Some((id, home)) = self.mesh.next_departure() {
                if let Some(action) = self.hand_over(id, home) {
                    return Some(action);
                }
                continue;
            }
            if let Some(send) = self.connections.next_send() {
                return Some(send);
            }
            if let Some(id) = self.connections.next_broken() {
                self.end_broken(id);
                continue;
            }
            if self.continue_handshake() {
                continue;
            }
            let has_work = !self.router.fan_outs().is_empty()
                || self.mesh.has_unread()
                || !self.leftovers.is_empty();
            if has_work
                && (self.continue_fan_outs()
                    || self.continue_batches()
                    || self.continue_leftovers())
            {
                continue;
            }
            if has_work && self.connections.has_something_to_do() {
                // Output of this part of the work is sent in this turn.
                continue;
            }
            if self.work.is_spent() {
                return None;
            }
            let waiting = self.connections.waiting();
            let id = self.connections.next_ready()?;
            self.work.begin_share(waiting);
            self.continue_reading(id);
            self.work.end_share();
        }
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub fn poll_timeout(&mut self) -> Option<Deadline> {
        let is_idle = self.connections.is_idle()
            && !self.has_put_off()
            && !self.access.is_rechecking()
            && !self.timers.has_fired()
            && self.leftovers.is_empty()
            && self.router.fan_outs().is_empty()
            && !self.mesh.has_unread()
            && !self.retained.has_more_to_remove();
        match is_idle && !self.has_records() {
            true => self.timers.next(),
            false => Some(Deadline::at_us(self.now.0)),
        }
    }

    /// Evicts cached matches when other data needs the memory.
    fn make_room_for_others(&mut self) {
        let memory_bytes_max = self.config.limits.memory_bytes_max;
        let free = memory_bytes_max / limits::TOPIC_CACHE_FREE_SHARE;
        let held = self.place.ledger().bytes() + self.memory_bytes_elsewhere;
        self.router.give_way(held + free >= memory_bytes_max);
    }

    fn memory_is_full(&self) -> bool {
        self.place.ledger().bytes() >= self.memory_bytes_max_here()
    }

    /// The memory bound of this core, given what the other cores hold: memory is full at the bound.
    #[inline]
    fn memory_bytes_max_here(&self) -> u64 {
        self.config.limits.memory_bytes_max.saturating_sub(self.memory_bytes_elsewhere)
    }
}
