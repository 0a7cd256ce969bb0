//! Congestion: backpressure from slow consumers to their publishers.
//!
//! A consumer with a large outbox or queue is *behind*. If more than half of the live consumers of a message
//! are behind, its publisher is not read until one of them has caught up; TCP then slows the client. A
//! consumer that takes nothing for [`limits::STUCK_MS`] is *stuck* and not live: publishers do not wait for
//! it until it takes something again. Progress is measured by the bytes that the peer acknowledges to the
//! kernel, which the executor asks for, as the kernel accepts megabytes at a time. One slow consumer among
//! many thus delays no publisher, and a publisher is no faster than most of its consumers. Messages beyond
//! the limits of a queue are dropped by the queue policy.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Publisher, SessionId};
use crate::base::limits;
use crate::base::metrics::Metrics;
use crate::engine::Action;
use crate::engine::connections::Connections;
use crate::engine::connections::connection::{Congestion, Connection};
use crate::engine::mesh::Mesh;
use crate::engine::routing::full_queues::FullQueues;
use crate::engine::timers::{Timer, Timers};
use crate::session::table::SessionTable;

/// Maximum number of publishers that resume at a time: their input refills the consumer's outbox.
const RELEASED_AT_ONCE: usize = 8;

/// Interval between checks whether a congested consumer makes progress.
const CHECK_INTERVAL: Duration = Duration::from_millis(limits::STUCK_LOOK_MS);

/// The state of a recipient's connection after a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Standing {
    /// No connection.
    Offline,
    /// The client keeps up.
    Fine,
    /// The client takes nothing: publishers do not wait for it.
    Stuck,
    /// The client is behind, and makes progress.
    Behind(ConnectionId),
    /// The queue of a bridge that holds its publishers is nearly full, whether the bridge is connected or not.
    Full(SessionId),
}

/// What a publisher waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Awaited {
    /// A consumer that is behind.
    Consumer(ConnectionId),
    /// Room in the queue of a session.
    Room(SessionId),
}

/// The states of all recipients of one message, or of one batch.
#[derive(Debug, Default)]
pub(in crate::engine) struct Pressure {
    live: usize,
    behind: usize,
    last_behind: Option<Awaited>,
}

impl Pressure {
    pub(in crate::engine) fn add(&mut self, standing: Standing) {
        match standing {
            Standing::Offline | Standing::Stuck => {}
            Standing::Fine => self.live += 1,
            Standing::Behind(_) | Standing::Full(_) => self.add_awaited(standing),
        }
    }

    #[cold]
    fn add_awaited(&mut self, standing: Standing) {
        match (standing, self.last_behind) {
            // Whatever the others are.
            (Standing::Full(session), _) => {
                self.last_behind = Some(Awaited::Room(session));
                self.behind = usize::MAX / 4;
            }
            (Standing::Behind(_), Some(Awaited::Room(_))) => self.live += 1,
            (Standing::Behind(consumer), _) => {
                self.live += 1;
                self.behind += 1;
                self.last_behind = Some(Awaited::Consumer(consumer));
            }
            _ => {}
        }
    }

    /// What the publisher has to wait for: a publisher is slowed to the pace of most of its consumers, never to that
    /// of a few, except if that is configured.
    pub(in crate::engine) fn awaited(&self) -> Option<Awaited> {
        self.last_behind.filter(|_| 2 * self.behind > self.live)
    }
}

/// Leaves the publisher of a message unread until a consumer has caught up, if most of its consumers are
/// behind.
#[inline]
pub(super) fn slow_publisher(
    publisher: Option<Publisher>,
    pressure: &Pressure,
    connections: &mut Connections,
    mesh: &mut Mesh,
    full_queues: &mut FullQueues,
) {
    if let Some(publisher) = publisher
        && let Some(awaited) = pressure.awaited()
    {
        pause_publisher(publisher, awaited, connections, mesh, full_queues);
    }
}

/// Pauses a publisher until a consumer has caught up, or a queue has room.
#[cold]
fn pause_publisher(
    publisher: Publisher,
    awaited: Awaited,
    connections: &mut Connections,
    mesh: &mut Mesh,
    full_queues: &mut FullQueues,
) {
    let is_here = publisher.core == mesh.core();
    let id = publisher.connection;
    if is_here {
        // A client is never paused by its own subscriptions: its acknowledgements have to be read.
        if awaited == Awaited::Consumer(id)
            || connections.get(id).is_none_or(|publisher| publisher.read_holds > 0)
        {
            return;
        }
    } else if mesh.has_paused(&publisher) {
        return;
    }
    // The consumer may have disconnected in a fan-out over several turns.
    match awaited {
        Awaited::Room(session) => full_queues.wait(session, publisher),
        Awaited::Consumer(consumer) => {
            let consumer = connections.get_mut(consumer);
            let Some(congestion) = consumer.and_then(|consumer| consumer.congestion_mut()) else {
                return;
            };
            congestion.waiting.push_back(publisher);
        }
    }
    match is_here {
        true => connections.pause_reading(id),
        false => mesh.pause(publisher),
    }
}

/// Resumes publishers that waited for a consumer.
pub(in crate::engine) fn resume_waiting(
    waiting: VecDeque<Publisher>,
    connections: &mut Connections,
    mesh: &mut Mesh,
    now: Now,
) {
    for publisher in waiting {
        match publisher.core == mesh.core() {
            true => connections.resume_reading(publisher.connection, now),
            false => mesh.resume(&publisher),
        }
    }
}

/// The state of a connected consumer. A consumer that is behind is watched from then on. `behind_bytes` is the
/// size of an outbox from which its consumer is behind.
#[inline]
pub(super) fn standing(
    id: ConnectionId,
    behind_bytes: usize,
    sessions: &SessionTable,
    connections: &mut Connections,
    timers: &mut Timers,
    now: Now,
) -> Standing {
    let connection = &mut connections[id];
    if connection.congestion().is_some_and(|congestion| congestion.is_stuck) {
        return Standing::Stuck;
    }
    if !is_behind(connection, behind_bytes, sessions) {
        return Standing::Fine;
    }
    if connection.has_far_broker() {
        return Standing::Stuck; // publishers never wait for a bridge
    }
    let extra = connection.extra.get_or_insert_default();
    if extra.congestion.is_none() {
        let next_look = now.after(CHECK_INTERVAL);
        extra.congestion = Some(Congestion::new(now, next_look));
        timers.arm(next_look, Timer::Congestion(id));
    }
    Standing::Behind(id)
}

fn is_behind(connection: &Connection, behind_bytes: usize, sessions: &SessionTable) -> bool {
    if connection.pending_bytes() > behind_bytes {
        return true;
    }
    let Some(session) = connection.session() else { return false };
    let Some(outbound) = &sessions[session].outbound else { return false };
    // Messages that were queued while the client was away slow no publisher.
    outbound.queued_live() > limits::CONGESTED_MESSAGES
        || outbound.queued_live_bytes() > limits::CONGESTED_QUEUE_BYTES
}

/// Resumes publishers that wait for a consumer, if it has caught up: if its outbox has at most
/// `caught_up_bytes`, and its queue is short.
pub(super) fn resume_publishers(
    id: ConnectionId,
    caught_up_bytes: usize,
    sessions: &SessionTable,
    connections: &mut Connections,
    mesh: &mut Mesh,
    now: Now,
) {
    let connection = &mut connections[id];
    let outbound = connection.session().and_then(|session| sessions[session].outbound.as_ref());
    let has_caught_up = connection.pending_bytes() <= caught_up_bytes
        && outbound.is_none_or(|outbound| {
            outbound.queued_live() <= limits::CONGESTED_MESSAGES / 2
                && outbound.queued_live_bytes() <= limits::CONGESTED_QUEUE_BYTES / 2
        });
    if !has_caught_up {
        return;
    }
    let Some(congestion) = connection.congestion_mut() else { return };
    let count = congestion.waiting.len().min(RELEASED_AT_ONCE);
    let released: VecDeque<Publisher> = congestion.waiting.drain(..count).collect();
    if congestion.waiting.is_empty() {
        connection.take_congestion();
    }
    resume_waiting(released, connections, mesh, now);
    if connections[id].congestion().is_some() {
        // The other publishers follow once these have had their turn.
        connections.mark_ready(id);
    }
}

/// Asks the executor whether a consumer that is behind took anything since the last check.
pub(in crate::engine) fn check_congestion(
    id: ConnectionId,
    connections: &mut Connections,
    timers: &mut Timers,
    now: Now,
) {
    let Some(congestion) = connections.get_mut(id).and_then(|of| of.congestion_mut()) else {
        return;
    };
    if !congestion.next_look.is_due(now) {
        return; // a timer of an earlier congestion
    }
    congestion.next_look = now.after(CHECK_INTERVAL);
    timers.arm(congestion.next_look, Timer::Congestion(id));
    connections.push_action(Action::AskProgress { connection: id });
}

/// Handles the answer to [`check_congestion`]: returns whether the consumer made progress. Publishers no
/// longer wait for a consumer that is stuck.
pub(super) fn note_progress(
    id: ConnectionId,
    unacknowledged: Option<usize>,
    connections: &mut Connections,
    mesh: &mut Mesh,
    metrics: &mut Metrics,
    now: Now,
) -> bool {
    let Some(congestion) = connections.get_mut(id).and_then(|of| of.congestion_mut()) else {
        return false;
    };
    let progresses = congestion.note_progress(now, unacknowledged);
    let stuck_after = match unacknowledged {
        Some(_) => Duration::from_millis(limits::STUCK_MS),
        None => CHECK_INTERVAL,
    };
    if congestion.is_stuck || !congestion.progressed.after(stuck_after).is_due(now) {
        return progresses;
    }
    congestion.is_stuck = true;
    let waiting = std::mem::take(&mut congestion.waiting);
    metrics.consumers_stuck += 1;
    resume_waiting(waiting, connections, mesh, now);
    progresses
}
