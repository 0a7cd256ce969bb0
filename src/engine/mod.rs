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
//! | `packets` | what each packet of a client does, from its bytes to its answer; the end of streams and connections |
//! | `connections` | Network Connections: their table, input and output, and time limits |
//! | `routing` | the recipients of a message, its delivery to them, shared subscriptions, backpressure |
//! | `retained` | retained messages, their expiry, and their replay to new subscribers |
//! | `durability` | records for the store, restoring from them, and Wills |
//! | `mesh` | other cores: messages forwarded to them, and connections that move to their home core |
//! | `listeners` | TLS handshakes, and the offload of TLS to the kernel |
//! | `bridge`, `ages` | clients whose far end is another broker, and for how long their messages wait |
//! | `claims` | which node of a cluster has the session of a client, and sessions that move between nodes |
//! | `draft` | a message while it is routed |
//! | `ended_sessions` | sessions that end over several turns |
//! | `admin` | commands of the control plane |
//! | `inspect` | questions and commands of an operator |
//! | `client_log`, `cause` | log lines about clients: who was refused or disconnected, and why |
//! | `watch`, `packet_view`, `packet_log` | packets in the log and in traces |
//! | `sampling` | sampled messages, for telemetry |
//! | `webhooks` | events for webhooks |
//! | `observers` | the owners of these four |
//! | `timers`, `timeouts` | the timers, and what each of them leads to |
//! | `now`, `memory`, `work` | the time, the bound on memory, and the budget of a turn |
//! | `drain` | clients that are sent to other nodes |
//! | `report`, `sys_topics` | counters and gauges, and the topics under which they are published |

mod access;
mod action;
mod admin;
#[cfg(feature = "bridge")]
mod ages;
#[cfg(feature = "bridge")]
mod bridge;
#[cfg(not(feature = "bridge"))]
#[path = "bridge_absent.rs"]
mod bridge;
mod cause;
#[cfg(feature = "cluster")]
mod claims;
#[cfg(not(feature = "cluster"))]
#[path = "claims_absent.rs"]
mod claims;
mod client_log;
mod config;
pub mod connections;
mod draft;
mod drain;
mod drops;
mod durability;
mod ended_sessions;
#[cfg(feature = "admin")]
mod inspect;
#[cfg(not(feature = "admin"))]
#[path = "inspect_absent.rs"]
mod inspect;
mod listeners;
mod memory;
mod mesh;
mod now;
mod observers;
mod packet_log;
mod packet_view;
mod packets;
mod report;
mod retained;
mod routing;
#[cfg(feature = "admin")]
mod sampling;
#[cfg(not(feature = "admin"))]
#[path = "sampling_absent.rs"]
mod sampling;
mod sys_topics;
#[cfg(test)]
mod tests;
mod timeouts;
mod timers;
mod watch;
#[cfg(feature = "webhooks")]
mod webhooks;
#[cfg(not(feature = "webhooks"))]
#[path = "webhooks_absent.rs"]
mod webhooks;
pub mod work;

use shards::Hashing;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::{ConnectionId, CoreId, Peer};
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::engine::connections::connection::{Connection, Hold, Phase};
use crate::engine::connections::ending::Ending;
use crate::resources::gauges::Place;
pub use crate::session::client_identifiers::Keys;
use crate::session::table::SessionTable;

use access::AccessControl;
pub use access::{
    Access, AllowAll, Authentication, ControlTopic, Coverage, Credentials, Decision, Grant,
    IdentifierClaim, Identity, ReadDecisions, ReadRules, Reader, WillOwner,
};
pub use action::{Action, Refused};
#[cfg(feature = "bridge")]
use bridge::BridgeSessions;
pub use cause::{Cause, Rejection};
use claims::Claims;
use client_log::Claimed;
pub use config::Config;
use connections::Connections;
pub use connections::pending_acks::Answers;
pub use connections::rate_limit::Allowance;
use drain::Drain;
use durability::Durability;
pub use durability::restore::Restored;
use listeners::Listeners;
use memory::Memory;
use mesh::Mesh;
pub use mesh::batch::Batch;
/// What the gateway of a cluster shares with the engines whose batches it takes.
#[cfg(feature = "cluster")]
pub(crate) mod for_gateway {
    pub(crate) use super::durability::qos2_dedup::Qos2Exchange;
    pub(crate) use super::mesh::batch::{Destination, Forwarded, MeshMessage};
    pub(crate) use super::mesh::home_of;
    pub(crate) use super::mesh::lanes::Lanes;
    pub(crate) use super::mesh::node_block::Places;
    pub(crate) use super::mesh::session_message::{SessionMessage, SessionStep};
}
pub use mesh::handover::HandedOver;
use observers::Observers;
pub use packets::job::Job;
use retained::RetainedStore;
use routing::Router;
use sys_topics::SysTopics;
use timers::{Timer, Timers};
use work::Work;

/// One core: see the module's documentation.
pub struct Engine {
    config: Config,
    access: AccessControl,
    observers: Observers,
    now: Now,
    connections: Connections,
    metrics: Metrics,
    memory: Memory,
    sessions: SessionTable,
    mesh: Mesh,
    durability: Durability,
    listeners: Listeners,
    router: Router,
    retained: RetainedStore,
    timers: Timers,
    /// The budget of this turn.
    work: Work,
    sys_topics: SysTopics,
    claims: Claims,
    drain: Drain,
    #[cfg(feature = "bridge")]
    bridges: BridgeSessions,
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
            access: AccessControl::new(access, place.ledger()),
            observers: Observers::new(&config, hashing.clone()),
            now,
            connections: Connections::new(place.clone()),
            metrics: Metrics::default(),
            memory: Memory::new(place.clone(), &config.limits),
            sessions: SessionTable::new(hashing.clone(), keys, place.clone()),
            mesh: Mesh::new(&place),
            durability: Durability::new(place.core()),
            listeners: Listeners::new(&config.limits),
            router: Router::new(&place, config.limits.memory_bytes_max, keys.tables, hashing),
            retained: RetainedStore::new(&place, &config, keys.tables),
            timers: Timers::new(now),
            work: Work::default(),
            sys_topics: SysTopics::new(now),
            claims: Claims::new(&place),
            drain: Drain::default(),
            #[cfg(feature = "bridge")]
            bridges: BridgeSessions::default(),
            config,
        };
        engine.router.set_read_rules(engine.access.read_rules());
        engine.schedule_sys_topics();
        engine.schedule_log_topics();
        engine
    }

    /// The core it runs.
    pub fn core(&self) -> CoreId {
        self.mesh.core()
    }

    /// Arrival times of the CONNECTs that are answered in this turn. With statistics enabled, the
    /// executor calls this every turn.
    pub fn take_connacks(&mut self) -> impl Iterator<Item = Now> + '_ {
        self.connections.take_connacks()
    }

    /// A connection was accepted. When it is refused, the executor closes the socket.
    pub fn handle_accepted(&mut self, now: Now, peer: Peer) -> Result<ConnectionId, Refused> {
        self.set_now(now);
        let connections_max = self.config.limits.connections_max as usize;
        let refusal = self.connections.refusal(self.now, &self.config.limits);
        if refusal.is_some() {
            self.metrics.connections_refused += 1;
            if self.connections.everywhere() >= connections_max + limits::REFUSED_CONNECTIONS_MAX {
                return Err(self.turn_away_peer(&peer, Cause::ServerFull));
            }
        }
        let generation = self.connections.next_generation();
        let mut connection = Connection::new(generation, peer.address, peer.listener, now);
        connection.refusal = refusal;
        let memory_is_overdrawn = self.memory.is_overdrawn();
        if let Err(cause) = self.listeners.admit(&peer, &mut connection, memory_is_overdrawn) {
            self.metrics.connections_refused += 1;
            return Err(self.turn_away_peer(&peer, cause));
        }
        // Whom a proxy speaks for counts for the proxy's address in nothing.
        let awaits_address = connection.transport.as_ref().is_some_and(|t| t.awaits_address());
        connection.phase = Phase::Connecting { elsewhere: false, awaits_address };
        if !awaits_address && let Err(cause) = self.access.may_stay(now, &peer) {
            self.listeners.release(peer.listener);
            return Err(self.turn_away_peer(&peer, cause));
        }
        self.metrics.connections_accepted += 1;
        let limits = &self.config.limits;
        Ok(self.connections.add(connection, limits, &mut self.timers, self.now))
    }

    /// Logs why a connection is closed before anything is read from it.
    fn turn_away_peer(&mut self, peer: &Peer, cause: Cause) -> Refused {
        self.observers.log.refused(self.now, &self.listeners, peer, Claimed::default(), cause);
        Refused
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
        loop {
            if let Some(action) = self.connections.next_action() {
                return Some(action);
            }
            self.flush_fan_out_batch();
            if !self.work.is_spent()
                && let Some((id, reason, cause)) = self.connections.next_to_close()
            {
                self.work.spend(1);
                if self.connections.contains(id) {
                    self.end_connection(id, Ending::Server(reason, cause));
                }
                continue;
            }
            if let Some((id, home)) = self.mesh.next_departure() {
                if let Some(action) = self.hand_over(id, home) {
                    return Some(action);
                }
                continue;
            }
            if self.observers.watch.shows_packets() {
                self.complete_spans();
                self.show_output();
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
                || self.mesh.has_joins()
                || self.claims.has_joins(&self.mesh)
                || self.durability.has_stored()
                || !self.sessions.leftovers().is_empty();
            if has_work
                && (self.continue_fan_outs()
                    || self.continue_batches()
                    || self.continue_stored()
                    || self.continue_leftovers()
                    || self.continue_joins()
                    || self.continue_telling_claims())
            {
                continue;
            }
            if has_work && self.connections.has_something_to_do() {
                // Output of this part of the work is sent in this turn.
                continue;
            }
            if self.work.is_spent() {
                break;
            }
            let waiting = self.connections.waiting();
            let Some(id) = self.connections.next_ready() else { break };
            self.work.begin_share(waiting);
            self.continue_reading(id);
            self.work.end_share();
        }
        self.end_turn();
        None
    }

    fn end_turn(&mut self) {
        self.listeners.end_turn();
        self.work.end_turn();
        if self.observers.watch.shows_packets() {
            self.end_turn_of_watching();
        }
        if self.observers.questions.is_busy() {
            self.end_turn_of_questions();
        }
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub fn poll_timeout(&mut self) -> Option<Deadline> {
        let is_idle = self.connections.is_idle()
            && !self.has_put_off()
            && !self.access.is_rechecking()
            && !self.observers.questions.wants_turn()
            && !self.timers.has_fired()
            && self.sessions.leftovers().is_empty()
            && self.router.fan_outs().is_empty()
            && !self.mesh.has_unread()
            && !self.mesh.has_joins()
            && !self.claims.has_joins(&self.mesh)
            && !self.durability.has_stored()
            && !self.retained.has_more_to_remove();
        match is_idle && !self.has_records() {
            true => self.timers.next(),
            false => Some(Deadline::at_us(self.now.0)),
        }
    }
}
