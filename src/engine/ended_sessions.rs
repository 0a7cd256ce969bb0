//! Work that remains when a session has ended or its client has disconnected, and that takes several turns:
//! thousands of subscriptions to remove from the index, messages of shared subscriptions that go to other
//! members, a long queue to drop. For all clients the session has ended at once.

use shards::FilterId;
use smallvec::SmallVec;

use crate::base::ids::{SessionId, SessionRef};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::engine::Engine;
use crate::session::outbound::Outbound;
use crate::session::state::Session;
use crate::storage::record::SessionNumber;

/// Steps to remove a subscription from the index.
const SUBSCRIPTION_STEPS: usize = 8;

/// Subscriptions that are removed at once, whatever is left of the budget: most sessions have no more.
const SUBSCRIPTIONS_AT_ONCE: usize = 8;

/// Work that remains for one session.
#[derive(Debug)]
pub(super) enum Leftover {
    /// A session has ended.
    Ended(EndedSession),
    /// A client has disconnected: its messages of these shared subscriptions go to other members until it
    /// comes back.
    Absent { session: SessionRef, lines: Vec<(FilterId, String)> },
}

/// A session that has ended. Its Client Identifier is free, but its place stays taken until the index has
/// none of its subscriptions.
#[derive(Debug)]
pub(super) struct EndedSession {
    index: SessionId,
    /// The number in the store, until the end of the session is logged.
    number: Option<SessionNumber>,
    /// The subscriptions that are still in the index.
    subscriptions: SmallVec<[FilterId; 4]>,
    outbound: Option<Box<Outbound>>,
    /// Shared subscriptions whose waiting messages other members may receive.
    lines: Vec<(FilterId, String)>,
}

impl Engine {
    /// The session ends: a Will still waiting is published [MQTT-3.1.3-9], subscriptions go,
    /// messages drawn for a shared subscription go to other members [MQTT-4.8.2-6].
    pub(super) fn end_session(&mut self, index: SessionId) {
        debug_assert!(self.sessions[index].connection.is_none());
        self.metrics.clients_disconnected -= 1;
        self.publish_will(index);
        let lines = self.router.groups_with_messages(&self.sessions[index], &mut self.work);
        let mut subscriptions = std::mem::take(&mut self.sessions[index].subscriptions);
        // A group draws no member who is gone.
        subscriptions.retain(|filter| {
            if filter.is_shared() {
                self.work.spend(SUBSCRIPTION_STEPS);
                self.leave(*filter, index);
            }
            !filter.is_shared()
        });
        self.sessions.release_identifier(index);
        let state = &mut self.sessions[index];
        let (number, mut outbound) = (state.number(), state.outbound.take());
        if let Some(outbound) = &mut outbound {
            outbound.stop_counting();
        }
        let mut ended = EndedSession { index, number, subscriptions, outbound, lines };
        if ended.lines.is_empty() {
            self.tell_session_over(&mut ended);
        }
        if !self.continue_ending(&mut ended) {
            self.metrics.sessions_divided += 1;
            self.leftovers.push_back(Leftover::Ended(ended));
        }
    }

    /// Logs the end of the session, and counts the messages that are lost with it.
    fn tell_session_over(&mut self, ended: &mut EndedSession) {
        let left = ended.outbound.as_ref().map_or(0, |o| o.queued() + o.inflight());
        self.count_drops(ended.index, DropCause::SessionEnded, left as u64);
        self.durability.append_ended(&mut self.sessions[ended.index]);
        ended.number = None;
        ended.lines.clear();
    }

    /// Continues the end of a session; whether nothing is left of it.
    fn continue_ending(&mut self, ended: &mut EndedSession) -> bool {
        if !ended.lines.is_empty() {
            let Some(mut outbound) = ended.outbound.take() else { unreachable!("lines are of it") };
            let is_more =
                self.redistribute(ended.index, ended.number, &mut outbound, &ended.lines, true);
            ended.outbound = Some(outbound);
            if is_more {
                return false;
            }
            self.tell_session_over(ended);
        }
        while let Some(outbound) = &mut ended.outbound {
            if !outbound.is_longer_than(limits::QUEUE_DROPPED_AT_ONCE) {
                ended.outbound = None;
            } else if self.work.is_spent() {
                return false;
            } else {
                self.work.spend(outbound.shed(limits::QUEUE_DROPPED_AT_ONCE) / 4);
            }
        }
        let mut at_once = SUBSCRIPTIONS_AT_ONCE;
        while let Some(&filter) = ended.subscriptions.last() {
            if at_once == 0 && self.work.is_spent() {
                return false;
            }
            at_once = at_once.saturating_sub(1);
            ended.subscriptions.pop();
            self.work.spend(SUBSCRIPTION_STEPS);
            self.leave(filter, ended.index);
        }
        if !self.router.keep_place(ended.index) {
            self.sessions.remove(ended.index);
        }
        true
    }

    /// A client has disconnected, and its session is kept: other members of its shared subscriptions receive the
    /// messages that it has not taken.
    pub(super) fn redistribute_of_absent(&mut self, index: SessionId) {
        let lines = self.router.groups_with_messages(&self.sessions[index], &mut self.work);
        if !lines.is_empty() && self.redistribute_queue(index, &lines, true) {
            let session = self.sessions.reference(index);
            self.leftovers.push_back(Leftover::Absent { session, lines });
        }
    }

    /// Continues the remaining work of sessions; returns false when there is none, or no budget for it.
    pub(super) fn continue_leftovers(&mut self) -> bool {
        if self.work.is_spent() {
            return false;
        }
        let waiting = self.leftovers.len() + self.connections.waiting();
        let Some(leftover) = self.leftovers.pop_front() else { return false };
        self.work.begin_share(waiting);
        match leftover {
            Leftover::Ended(mut ended) => {
                while !self.continue_ending(&mut ended) {
                    if self.work.is_spent() {
                        self.leftovers.push_back(Leftover::Ended(ended));
                        break;
                    }
                }
            }
            Leftover::Absent { session, lines } => {
                let is_absent = |state: &Session| state.connection.is_none();
                while self.sessions.resolve(session).is_some_and(is_absent)
                    && self.redistribute_queue(session.session, &lines, true)
                {
                    if self.work.is_spent() {
                        self.leftovers.push_back(Leftover::Absent { session, lines });
                        break;
                    }
                }
            }
        }
        self.work.end_share();
        true
    }
}
