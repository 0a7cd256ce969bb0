//! SUBSCRIBE and UNSUBSCRIBE packets that hold more filters than one turn has time for: the packet is
//! kept, with the filter where it continues. Its client's later packets wait, other clients are served. A packet that
//! waits for a decision of the access control is kept in the same way.
//!
//! Nothing is changed before all filters were checked: a packet that breaks the protocol changes
//! nothing. What is changed then takes effect filter by filter; the answer follows the last one.

use crate::base::ids::{ConnectionId, SessionId, exchange};
use crate::engine::Engine;
use crate::engine::access::Identity;
use crate::engine::client_log::Denied;
use crate::engine::connections::connection::{Connection, Hold};
use crate::engine::connections::pending_acks::{Answer, Promise, unsuback};
use crate::engine::packets::publish::Taken;
use crate::engine::packets::subscribe::{Subscribed, check_filter};
use crate::resources::gauges::{Charge, Ledger};
use crate::wire::violation::Violation;
use crate::wire::{
    self, Packet, PacketIdentifier, PacketType, ReasonCode, SubscribeFilters, UnsubscribeFilters,
    Version,
};

/// Steps to take a filter into the index, or out of it, besides what the access control takes.
const FILTER_STEPS: usize = 10;

/// Work for one client of which a part is done.
#[derive(Debug)]
pub struct Job {
    work: JobWork,
    /// The memory it takes.
    #[expect(dead_code, reason = "it is on the ledger for as long as it lives")]
    charge: Charge,
}

/// Remaining work for a client.
#[derive(Debug)]
enum JobWork {
    /// A SUBSCRIBE or UNSUBSCRIBE packet.
    Filters {
        /// The filters as they came.
        payload: Box<[u8]>,
        /// How far the packet has got.
        progress: Progress,
    },
    /// A PUBLISH that waits for a decision.
    Publish { frame: Box<[u8]> },
    /// The client came back to its session: the rights to so many of its subscriptions are not checked yet.
    Rights(usize),
}

/// How far a job has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum State {
    Done,
    /// The job continues in a later turn.
    Continues,
    /// The job continues when a decision of the access control is there.
    Waits,
}

impl Job {
    fn new(work: JobWork, ledger: &Ledger) -> Self {
        let payload = match &work {
            JobWork::Filters { payload, .. } => payload.len(),
            JobWork::Publish { frame } => frame.len(),
            JobWork::Rights(_) => 0,
        };
        Self { work, charge: Charge::of(ledger, size_of::<Self>() + payload) }
    }
}

/// How far a packet has got.
#[derive(Debug)]
pub struct Progress {
    request: Request,
    packet_identifier: PacketIdentifier,
    /// Bytes of the filters that were checked, and how many those are.
    checked_bytes: usize,
    filters: usize,
    is_checked: bool,
    /// Bytes of the filters that are done.
    done_bytes: usize,
    /// The Reason Codes of those.
    reasons: Vec<u8>,
    /// Where the store's records stood when it began.
    mark: u64,
}

impl Progress {
    fn state(&self, filters: &[u8]) -> State {
        if self.done_bytes == filters.len() { State::Done } else { State::Continues }
    }
}

/// The request of a packet.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) enum Request {
    /// Subscriptions with this identifier, 0 for none.
    Subscribe(u32),
    /// Their end.
    Unsubscribe,
}

impl Request {
    fn packet_type(self) -> PacketType {
        match self {
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Unsubscribe => PacketType::Unsubscribe,
        }
    }
}

impl Engine {
    /// Begins a packet that holds `filters`, as far as the budget of this turn goes.
    pub(in crate::engine) fn begin_job(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        request: Request,
        packet_identifier: PacketIdentifier,
        filters: &[u8],
    ) -> Result<(), Violation> {
        let mut progress = Progress {
            request,
            packet_identifier,
            checked_bytes: 0,
            filters: 0,
            is_checked: false,
            done_bytes: 0,
            reasons: Vec::new(),
            mark: self.durability.mark(),
        };
        let state = self.take_part(id, session, &mut progress, filters)?;
        if state == State::Done {
            self.end_job(id, progress);
            return Ok(());
        }
        self.work.spend_bytes(filters.len());
        self.keep_job(id, JobWork::Filters { payload: filters.into(), progress }, state);
        Ok(())
    }

    /// Keeps a PUBLISH until a decision of the access control is there.
    #[cold]
    pub(in crate::engine) fn keep_publish(&mut self, id: ConnectionId, frame: &[u8]) {
        if !self.memory.has_room_for_input(frame.len(), frame.len(), true) {
            return self.end_for_input(id);
        }
        self.work.spend_bytes(frame.len());
        self.keep_job(id, JobWork::Publish { frame: frame.into() }, State::Waits);
    }

    /// Takes a PUBLISH once more, after a decision.
    #[cold]
    fn take_again(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        frame: &[u8],
        version: Version,
    ) -> Result<State, Violation> {
        let Packet::Publish(publish) = wire::decode(frame, version)? else {
            unreachable!("only PUBLISH is kept for a decision")
        };
        let taken = match self.connections[id].mount() {
            None => self.take_checked(id, session, &publish)?,
            Some(_) => self.take_mounted(id, session, &publish)?,
        };
        Ok(match taken {
            Taken::Done => State::Done,
            Taken::Waits => State::Waits,
        })
    }

    /// A decision of the access control is there for which a connection waits.
    pub(in crate::engine) fn continue_decided(&mut self, id: ConnectionId) {
        self.connections.mark_ready(id);
    }

    /// The rights of a client that came back to its session, which may have been somebody else's: those
    /// to its subscriptions now, those to what waits for it, where they may have changed, before that is
    /// sent.
    pub(in crate::engine) fn begin_checking_rights(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        changes_hands: bool,
    ) {
        let state = &mut self.sessions[session];
        let are_others =
            state.extra.as_mut().is_some_and(|extra| std::mem::take(&mut extra.is_unjudged))
                || changes_hands
                || self.access.has_changed();
        if are_others && let Some(outbound) = &mut state.outbound {
            outbound.judge_again();
        }
        if are_others && !state.subscriptions.is_empty() {
            self.decide_recipients_again();
        }
        let subscriptions = self.sessions[session].subscriptions.len();
        let left = self.check_subscriptions(session, subscriptions);
        if left > 0 {
            self.keep_job(id, JobWork::Rights(left), State::Continues);
        }
    }

    fn keep_job(&mut self, id: ConnectionId, work: JobWork, state: State) {
        self.metrics.packets_divided += u64::from(state == State::Continues);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let job = Job::new(work, self.memory.ledger());
        connection.extra.get_or_insert_default().job = Some(Box::new(job));
        self.connections.hold(id, Hold::Job);
        if state == State::Continues {
            self.connections.mark_ready(id);
        }
    }

    /// Continues the packet of a connection.
    pub(in crate::engine) fn continue_job(&mut self, id: ConnectionId) -> State {
        let Some(connection) = self.connections.get_mut(id) else { return State::Done };
        let (session, version) = (connection.session(), connection.version);
        let job = connection.extra.as_mut().and_then(|extra| extra.job.take());
        let (Some(session), Some(mut job)) = (session, job) else { return State::Done };
        let packet_type = match &job.work {
            JobWork::Filters { progress, .. } => Some(progress.request.packet_type()),
            JobWork::Publish { .. } => Some(PacketType::Publish),
            JobWork::Rights(_) => None,
        };
        let outcome = match &mut job.work {
            JobWork::Filters { payload, progress } => {
                self.take_part(id, session, progress, payload)
            }
            JobWork::Publish { frame } => self.take_again(id, session, frame, version),
            JobWork::Rights(left) => {
                *left = self.check_subscriptions(session, *left);
                Ok(if *left == 0 { State::Done } else { State::Continues })
            }
        };
        match outcome {
            Ok(state @ (State::Continues | State::Waits)) => {
                let Some(connection) = self.connections.get_mut(id) else { return State::Done };
                connection.extra.get_or_insert_default().job = Some(job);
                return state;
            }
            Ok(State::Done) => {
                if let JobWork::Filters { progress, .. } = job.work {
                    self.end_job(id, progress);
                }
                self.connections.release_job(id, self.now);
                // Messages that are checked against the rights have waited for this.
                if self.connections.contains(id) {
                    self.after_progress(id);
                }
            }
            Err(violation) => self.violate(id, violation, packet_type),
        }
        State::Done
    }

    /// Checks filters, then does what is asked, until all are done, the budget is spent, or one of them waits for a
    /// decision.
    fn take_part(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        progress: &mut Progress,
        filters: &[u8],
    ) -> Result<State, Violation> {
        if !progress.is_checked {
            if !self.check_part(id, progress, filters)? {
                return Ok(State::Continues);
            }
            progress.is_checked = true;
            if let Some(connection) = self.connections.get(id) {
                check_answer_fits(connection, progress.filters)?;
            }
        }
        Ok(match progress.request {
            Request::Subscribe(identifier) => {
                self.subscribe_part(id, session, identifier, progress, filters)
            }
            Request::Unsubscribe => self.unsubscribe_part(id, session, progress, filters),
        })
    }

    fn check_part(
        &mut self,
        id: ConnectionId,
        progress: &mut Progress,
        filters: &[u8],
    ) -> Result<bool, Violation> {
        let version = self.connections[id].version;
        let rest = &filters[progress.checked_bytes..];
        let mut to_subscribe = SubscribeFilters::payload(rest, version);
        let mut to_unsubscribe = UnsubscribeFilters::payload(rest);
        loop {
            let next = match progress.request {
                Request::Subscribe(_) => to_subscribe.next_checked().map(|next| {
                    next.and_then(|(text, options)| check_filter(text, options.no_local))
                }),
                Request::Unsubscribe => to_unsubscribe
                    .next_checked()
                    .map(|next| next.and_then(|text| check_filter(text, false))),
            };
            let left = match progress.request {
                Request::Subscribe(_) => to_subscribe.rest().len(),
                Request::Unsubscribe => to_unsubscribe.rest().len(),
            };
            let bytes = filters.len() - left - progress.checked_bytes;
            progress.checked_bytes += bytes;
            let Some(checked) = next else { return Ok(true) };
            checked?;
            progress.filters += 1;
            self.work.spend(usize::from(progress.filters.is_multiple_of(4)) + bytes / 64);
            if self.work.is_spent() && progress.checked_bytes < filters.len() {
                return Ok(false);
            }
        }
    }

    fn subscribe_part(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        identifier: u32,
        progress: &mut Progress,
        filters: &[u8],
    ) -> State {
        let version = self.connections[id].version;
        let filters_max = self.config.limits.subscribe_filters_max as usize;
        let mut left = SubscribeFilters::payload(&filters[progress.done_bytes..], version);
        loop {
            progress.done_bytes = filters.len() - left.rest().len();
            let Some(Ok((text, options))) = left.next_checked() else { return State::Done };
            let text = &*self.full_filter(id, text);
            let outcome = match progress.reasons.len() < filters_max {
                true => {
                    let others = usize::from(self.mesh.cores());
                    self.work.spend(FILTER_STEPS + others + text.len() / 64);
                    self.subscribe_to(id, session, text, &options, identifier)
                }
                false => Err(ReasonCode::QuotaExceeded),
            };
            let outcome = match outcome {
                Ok(Subscribed::Waits) => return State::Waits,
                Ok(Subscribed::Granted(qos)) => Ok(qos),
                Err(reason) => Err(reason),
            };
            self.work.spend(usize::from(progress.reasons.len().is_multiple_of(4)));
            self.metrics.subscriptions_refused += u64::from(outcome.is_err());
            match outcome {
                Ok(qos) => self.report_subscribed(session, text, qos),
                Err(ReasonCode::NotAuthorized) => {
                    self.log_denied(id, session, Denied::Subscribe(text));
                }
                Err(_) => {}
            }
            progress.reasons.push(match outcome {
                Ok(granted) => granted as u8,
                Err(_) if version != Version::V5 => 0x80,
                Err(reason) => reason as u8,
            });
            if self.work.is_spent() {
                progress.done_bytes = filters.len() - left.rest().len();
                return progress.state(filters);
            }
        }
    }

    fn unsubscribe_part(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        progress: &mut Progress,
        filters: &[u8],
    ) -> State {
        let mut left = UnsubscribeFilters::payload(&filters[progress.done_bytes..]);
        let mut groups_left = Vec::new();
        while let Some(Ok(text)) = left.next_checked() {
            let text = &*self.full_filter(id, text);
            self.work.spend(FILTER_STEPS + text.len() / 64);
            let client_identifier = &self.sessions[session].client_identifier;
            let who = Identity { exchange: exchange(id), client_identifier };
            let reason = match self.access.may_unsubscribe(&who, text, &mut self.work) {
                false => ReasonCode::NotAuthorized,
                true if self.unsubscribe_from(session, text, &mut groups_left) => {
                    ReasonCode::Success
                }
                true => ReasonCode::NoSubscriptionExisted,
            };
            progress.reasons.push(reason as u8);
            if self.work.is_spent() {
                break;
            }
        }
        self.redistribute_of_unsubscribed(session, groups_left);
        progress.done_bytes = filters.len() - left.rest().len();
        progress.state(filters)
    }

    /// A SUBACK or UNSUBACK with a Reason Code for each filter [MQTT-3.8.4-6], [MQTT-3.10.4-5],
    /// [MQTT-3.11.3-1]; retained messages follow a SUBACK.
    fn end_job(&mut self, id: ConnectionId, progress: Progress) {
        let Progress { request, packet_identifier, reasons, mark, .. } = progress;
        let promise = Promise { batch: self.durability.batch_since(mark), ..Promise::default() };
        match request {
            // From SUBACK on, what is published on any core reaches this client: every core knows the
            // filters by then.
            Request::Subscribe(_) => {
                let suback = Answer::Suback { packet_identifier, reasons };
                self.answer(id, suback, promise, |mesh, core, awaited| {
                    mesh.await_announcements(core, awaited)
                });
            }
            Request::Unsubscribe if promise.batch.is_some() => {
                let unsuback = Answer::Unsuback { packet_identifier, reasons };
                self.answer(id, unsuback, promise, |_, _, _| false);
            }
            Request::Unsubscribe => {
                let unsuback = unsuback(packet_identifier, &reasons);
                let version = self.connections[id].version;
                self.connections.send(id, |out| Packet::Unsuback(unsuback).encode(version, out));
            }
        }
    }
}

/// Checks the size of a SUBACK or UNSUBACK, which has a Reason Code for each filter and cannot be cut short,
/// nor be larger than the client takes [MQTT-3.1.2-24].
fn check_answer_fits(connection: &Connection, filters: usize) -> Result<(), Violation> {
    let bytes_max = connection.client_packet_bytes_max();
    match bytes_max < u32::MAX && answer_bytes(filters) > bytes_max as usize {
        true => Err(Violation::AnswerTooLarge),
        false => Ok(()),
    }
}

/// Bytes of a SUBACK or UNSUBACK of MQTT 5: fixed header, Packet Identifier, no properties, and a Reason
/// Code for each filter.
fn answer_bytes(filters: usize) -> usize {
    let remaining = 2 + 1 + filters;
    let length_bytes = 1 + (1..4).take_while(|&bytes| remaining >> (7 * bytes) > 0).count();
    1 + length_bytes + remaining
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::connections::pending_acks::suback;

    #[test]
    fn the_length_of_an_answer_is_what_is_encoded() {
        let packet_identifier = PacketIdentifier::new(1).expect("not zero");
        for filters in [1, 124, 125, 16_380, 16_381, 2_097_148, 2_097_149] {
            let reasons = vec![0; filters];
            let mut bytes = Vec::new();
            Packet::Suback(suback(packet_identifier, &reasons)).encode(Version::V5, &mut bytes);
            assert_eq!(answer_bytes(filters), bytes.len());
        }
    }
}
