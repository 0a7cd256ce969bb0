//! Work that remains when a session has ended or its client has disconnected, and that takes several turns:
//! thousands of subscriptions to remove from the index, messages of shared subscriptions that go to other
//! members, a long queue to drop. For all clients the session has ended at once.

use shards::FilterId;

use crate::base::ids::SessionId;
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::engine::Engine;
use crate::session::ended::{EndedSession, Leftover};
use crate::session::state::Session;

/// Steps to remove a subscription from the index.
const SUBSCRIPTION_STEPS: usize = 8;

/// Subscriptions that are removed at once, whatever is left of the budget: most sessions have no more.
const SUBSCRIPTIONS_AT_ONCE: usize = 8;

impl Engine {
    /// The session ends: a Will still waiting is published [MQTT-3.1.3-9], subscriptions go,
    /// messages drawn for a shared subscription go to other members [MQTT-4.8.2-6].
    pub(super) fn end_session(&mut self, id: SessionId) {
        self.publish_will(id);
        let groups = self.router.groups_with_messages(&self.sessions[id], &mut self.work);
        self.withdraw_claim(id);
        self.dismantle_session(id, groups, false);
    }

    /// The session is at another node, with its messages.
    #[cfg(feature = "cluster")]
    pub(super) fn end_moved_session(&mut self, id: SessionId) {
        self.sessions[id].will = None;
        self.dismantle_session(id, Vec::new(), true);
    }

    /// Takes a session apart. Its messages go to other members of these groups, or are lost, unless it has moved.
    fn dismantle_session(
        &mut self,
        id: SessionId,
        groups: Vec<(FilterId, String)>,
        has_moved: bool,
    ) {
        debug_assert!(self.sessions[id].connection.is_none());
        self.metrics.clients_disconnected -= 1;
        let mut subscriptions = std::mem::take(&mut self.sessions[id].subscriptions);
        // A group draws no member who is gone.
        subscriptions.retain(|filter| {
            if filter.is_shared() {
                self.work.spend(SUBSCRIPTION_STEPS);
                self.leave(*filter, id);
            }
            !filter.is_shared()
        });
        self.sessions.release_identifier(id);
        let state = &mut self.sessions[id];
        let (number, mut outbound) = (state.number(), state.outbound.take());
        if let Some(outbound) = &mut outbound {
            outbound.stop_counting();
        }
        let mut ended = EndedSession { id, number, subscriptions, outbound, groups };
        if has_moved {
            self.durability.append_ended(&mut self.sessions[id]);
            ended.number = None;
        } else if ended.groups.is_empty() {
            self.tell_session_over(&mut ended);
        }
        if !self.continue_ending(&mut ended) {
            self.metrics.sessions_divided += 1;
            self.sessions.leftovers_mut().push_back(Leftover::Ended(ended));
        }
    }

    /// Logs the end of the session, and counts the messages that are lost with it.
    fn tell_session_over(&mut self, ended: &mut EndedSession) {
        let left = ended.outbound.as_ref().map_or(0, |o| o.queued() + o.inflight());
        self.count_drops(ended.id, DropCause::SessionEnded, left as u64);
        self.durability.append_ended(&mut self.sessions[ended.id]);
        ended.number = None;
        ended.groups.clear();
    }

    /// Continues the end of a session; whether nothing is left of it.
    fn continue_ending(&mut self, ended: &mut EndedSession) -> bool {
        if !ended.groups.is_empty() {
            let Some(mut outbound) = ended.outbound.take() else {
                unreachable!("the messages of its groups are in it")
            };
            let is_more =
                self.redistribute(ended.id, ended.number, &mut outbound, &ended.groups, true);
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
            self.leave(filter, ended.id);
        }
        if !self.router.keep_place(ended.id) {
            self.sessions.remove(ended.id);
        }
        true
    }

    /// A client has disconnected, and its session is kept: other members of its shared subscriptions receive the
    /// messages that it has not taken.
    pub(super) fn redistribute_of_absent(&mut self, id: SessionId) {
        let groups = self.router.groups_with_messages(&self.sessions[id], &mut self.work);
        if !groups.is_empty() && self.redistribute_queue(id, &groups, true) {
            let session = self.sessions.reference(id);
            self.sessions.leftovers_mut().push_back(Leftover::Absent { session, groups });
        }
    }

    /// A bridge is not connected: drops what waits for it, if its queue is for the time of a connection only.
    pub(super) fn empty_queue_of_absent(&mut self, id: SessionId) {
        let state = &self.sessions[id];
        let stays = state.own_bounds().is_none_or(|own| own.offline) || state.connection.is_some();
        let Some(outbound) = state.outbound.as_ref().filter(|_| !stays) else { return };
        let end = outbound.queue_end();
        if self.drop_of_absent(id, end) {
            let session = self.sessions.reference(id);
            self.sessions.leftovers_mut().push_back(Leftover::Offline { session, end });
        }
    }

    /// Drops some messages that wait for a bridge without a connection; whether there are more.
    fn drop_of_absent(&mut self, id: SessionId, end: u64) -> bool {
        let places = limits::QUEUE_DROPPED_AT_ONCE;
        self.work.spend(places / 4);
        self.drop_queued(id, end, places, DropCause::Offline).1
    }

    /// Drops messages that wait and have lower numbers than `end`, from `places_max` places at most. Returns how many, and
    /// whether there are more.
    pub(super) fn drop_queued(
        &mut self,
        id: SessionId,
        end: u64,
        places_max: usize,
        cause: DropCause,
    ) -> (u64, bool) {
        let Some(outbound) = &mut self.sessions[id].outbound else { return (0, false) };
        let (dropped, is_more) = outbound.drop_queued(end, places_max);
        self.count_drops(id, cause, dropped);
        self.durability.append_done(&mut self.sessions, id);
        (dropped, is_more)
    }

    /// Continues the remaining work of sessions; returns false when there is none, or no budget for it.
    pub(super) fn continue_leftovers(&mut self) -> bool {
        if self.work.is_spent() {
            return false;
        }
        let waiting = self.sessions.leftovers().len() + self.connections.waiting();
        let Some(leftover) = self.sessions.leftovers_mut().pop_front() else { return false };
        self.work.begin_share(waiting);
        if let Some(left) = self.continue_leftover(leftover) {
            self.sessions.leftovers_mut().push_back(left);
        }
        self.work.end_share();
        true
    }

    /// Works on what remains of a session until nothing is left or the budget is spent; what is left.
    fn continue_leftover(&mut self, mut leftover: Leftover) -> Option<Leftover> {
        while self.work_on_leftover(&mut leftover) {
            if self.work.is_spent() {
                return Some(leftover);
            }
        }
        None
    }

    /// Does a part of what remains of a session; whether there is more.
    fn work_on_leftover(&mut self, leftover: &mut Leftover) -> bool {
        let is_absent = |state: &Session| state.connection.is_none();
        match leftover {
            Leftover::Ended(ended) => !self.continue_ending(ended),
            Leftover::Absent { session, groups } => {
                self.sessions.resolve(*session).is_some_and(is_absent)
                    && self.redistribute_queue(session.session, groups, true)
            }
            Leftover::Offline { session, end } => {
                self.sessions.resolve(*session).is_some_and(is_absent)
                    && self.drop_of_absent(session.session, *end)
            }
        }
    }
}
