//! Who is a member: a state machine without I/O. Replies and changes of the bucket and the time go in; requests to the bucket
//! and events come out.
//!
//! What makes it safe: a node acts as a member only while the last view that it has seen holds its number *and* its
//! incarnation, an incarnation is given out once, and each change of the view is made by compare-and-set on the revision from
//! which it was computed. An answer that was lost is never guessed at; the view is read again, in which a node finds itself by
//! the random number of its start.

mod forget;
mod join;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::codec::VERSION_WITH_OFFERS;
use super::suspicion::{LEASE_US, Peers};
use super::view::{
    FORMAT, Incarnation, LaneVersions, Lease, MemberState, NodeNumber, View, ViewError,
};
use crate::base::clock::Now;
use crate::control::cluster::{ClusterStatus, MemberStatus};
use join::Joining;

/// Microseconds between two calls of [`Membership::handle_time`] at most.
pub const TICK_US: u64 = 250_000;

/// Microseconds between two renewals of the own lease.
const RENEW_US: u64 = 3_000_000;

/// Microseconds until a request that failed is made again.
const RETRY_US: u64 = 300_000;

/// Microseconds after which a lease that was stored has to have come back.
const BEHIND_US: u64 = 2_000_000;

/// Microseconds between two ticks that show that this process did not run, and not that others were silent.
const GAP_US: u64 = 2_000_000;

/// Who this node is.
#[derive(Clone, Debug, Default)]
pub struct Me {
    /// The name of the cluster: letters, digits, `-` and `_`.
    pub cluster: String,
    /// The name of the node, unique in the cluster.
    pub name: String,
    /// The number that it has to have; none for the one it had before, or the lowest that is free.
    pub number: Option<NodeNumber>,
    /// The address for clients.
    pub advertise: String,
    /// Versions of lanes.
    pub lanes: LaneVersions,
    /// The number of its store ([`super::identity::store_number`]).
    pub store: u64,
}

/// What the bucket is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The value of the view: [`Answer::View`].
    ReadView,
    /// A new value, if the revision is still this one (0: if there is none yet): [`Answer::Set`].
    SetView {
        /// The revision that is replaced.
        revision: u64,
        /// The view.
        view: Vec<u8>,
    },
    /// A new value of this node's lease: [`Answer::Done`].
    PutLease {
        /// The node.
        node: NodeNumber,
        /// The lease.
        lease: Vec<u8>,
    },
    /// The time at which the engine stores a value: [`Answer::Stored`].
    Clock,
}

/// A request to the bucket, with the number that its answer has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The number.
    pub id: u64,
    /// The request.
    pub ask: Ask,
}

/// An answer of the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The view and its revision; none if there is none.
    View(Option<(u64, Vec<u8>)>),
    /// The new revision; none if the old one was another than expected.
    Set(Option<u64>),
    /// Done.
    Done,
    /// The engine's time at which it stored a value that was sent at `sent_us` by this node's clock; microseconds since
    /// 1970.
    Stored {
        /// This node's clock.
        sent_us: u64,
        /// The engine's.
        stored_us: u64,
    },
    /// No answer in time, or an error: whether anything was changed is not known.
    Failed,
}

/// What happened to this node or the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipEvent {
    /// This node is in the view.
    Joined {
        /// Its number.
        node: NodeNumber,
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// It cannot join, until [`Membership::rejoin`].
    Refused(JoinError),
    /// The view has changed.
    ViewChanged,
    /// A member renewed its lease.
    LeaseSeen(NodeNumber),
    /// The own lease has not been stored for ten seconds.
    Isolated,
    /// It was stored again, and this node is still in the view.
    Healed,
    /// This incarnation is no member any more.
    Evicted,
    /// This node has left as it was asked to.
    Left,
}

/// Why a node cannot join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// What the bucket has cannot be used.
    View(ViewError),
    /// Another broker that runs has this name or this number.
    Taken(String),
    /// All 64 numbers are in use.
    Full,
    /// The clock of this machine is wrong, or another member's.
    Clock {
        /// The member with which it was compared.
        member: String,
        /// How far this clock is ahead, in milliseconds.
        ahead_ms: i64,
    },
    /// A member speaks no version of lanes that this broker speaks.
    Versions(String),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::View(error) => error.fmt(f),
            Self::Taken(what) => f.write_str(what),
            Self::Full => {
                f.write_str("the cluster has 64 nodes, which is the most: remove one first")
            }
            Self::Clock { member, ahead_ms } => write!(
                f,
                "this machine's clock differs from that of member {member} by {ahead_ms} ms: clocks of a cluster may \
                 differ by 2 s at most; set up NTP on both"
            ),
            Self::Versions(member) => write!(
                f,
                "member {member} speaks no version of lanes that this broker speaks: update the older one to a release \
                 between the two first"
            ),
        }
    }
}

impl std::error::Error for JoinError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Joining,
    In { node: NodeNumber, incarnation: Incarnation },
    Out,
}

/// What a request was about.
#[derive(Clone, Debug)]
enum Pending {
    View,
    Set(View),
    Clock,
}

/// The membership of this node.
#[derive(Debug)]
pub struct Membership {
    me: Me,
    phase: Phase,
    joining: Joining,
    /// The state that this node wants in the view.
    wanted: MemberState,
    wants_to_leave: bool,
    /// Names of nodes that are gone for good.
    forgotten: Vec<String>,
    /// Connections of this node, for its leases.
    clients: u32,
    view: Option<(u64, Arc<View>)>,
    needs_read: bool,
    pending: Option<(u64, Pending)>,
    pending_lease: Option<u64>,
    retry_at: Now,
    renew_at: Now,
    renewed_at: Now,
    /// The clock in the own lease that is on its way, was stored last, and came back through the bucket last.
    leases: [u64; 3],
    is_isolated: bool,
    /// The lease was stored after an isolation; the view is read before that counts as its end.
    is_healing: bool,
    peers: Peers,
    events: VecDeque<MembershipEvent>,
    last_id: u64,
    ticked_at: Now,
}

impl Membership {
    /// A node that wants to join; `start` is a random number.
    pub fn new(me: Me, start: u64, now: Now) -> Self {
        Self {
            me,
            phase: Phase::Joining,
            joining: Joining::new(start),
            wanted: MemberState::Joining,
            wants_to_leave: false,
            clients: 0,
            forgotten: Vec::new(),
            view: None,
            needs_read: true,
            pending: None,
            pending_lease: None,
            retry_at: now,
            renew_at: now,
            renewed_at: now,
            leases: [0; 3],
            is_isolated: false,
            is_healing: false,
            peers: Peers::new(),
            events: VecDeque::new(),
            last_id: 0,
            ticked_at: now,
        }
    }

    /// The view; none before it was read.
    pub fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref().map(|(_, view)| view)
    }

    /// This node's number and incarnation, while it is a member.
    pub fn own(&self) -> Option<(NodeNumber, Incarnation)> {
        match self.phase {
            Phase::In { node, incarnation } => Some((node, incarnation)),
            Phase::Joining | Phase::Out => None,
        }
    }

    /// Whether the engine has had no quorum for ten seconds, as far as this node reaches it.
    pub fn is_isolated(&self) -> bool {
        self.is_isolated
    }

    /// Other members, as a mask, that this node has not heard on their lanes for six seconds.
    pub fn unheard(&self, now: Now) -> u64 {
        match (self.phase, &self.view) {
            (Phase::In { node, .. }, Some((_, view))) => self.peers.unheard(view, node, now),
            _ => 0,
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<MembershipEvent> {
        self.events.pop_front()
    }

    /// The next request to the bucket; `clock_us` is this machine's time in microseconds since 1970. There are never more
    /// than two at a time, and each has one answer.
    pub fn poll_request(&mut self, now: Now, clock_us: u64) -> Option<Request> {
        if let Some(lease) = self.poll_lease(now, clock_us) {
            return Some(lease);
        }
        if self.pending.is_some() || now < self.retry_at {
            return None;
        }
        if self.needs_read {
            self.needs_read = false;
            return Some(self.request(Pending::View, Ask::ReadView));
        }
        let changed = match self.phase {
            Phase::Out => None,
            Phase::Joining => match self.joining_step(now, clock_us) {
                join::Step::Wait => None,
                join::Step::Clock => return Some(self.request(Pending::Clock, Ask::Clock)),
                join::Step::Set(view) => Some(view),
                join::Step::Refuse(error) => {
                    self.phase = Phase::Out;
                    self.events.push_back(MembershipEvent::Refused(error));
                    None
                }
            },
            Phase::In { node, .. } => self.changes(node, now),
        }?;
        let revision = self.view.as_ref().map_or(0, |(revision, _)| *revision);
        let ask = Ask::SetView { revision, view: changed.write() };
        Some(self.request(Pending::Set(changed), ask))
    }

    fn request(&mut self, pending: Pending, ask: Ask) -> Request {
        self.last_id += 1;
        self.pending = Some((self.last_id, pending));
        Request { id: self.last_id, ask }
    }

    fn poll_lease(&mut self, now: Now, clock_us: u64) -> Option<Request> {
        let Phase::In { node, incarnation } = self.phase else { return None };
        if self.pending_lease.is_some() || now < self.renew_at {
            return None;
        }
        self.last_id += 1;
        self.pending_lease = Some(self.last_id);
        self.leases[0] = clock_us;
        let unheard = self.unheard(now);
        let clients = Some(self.clients);
        let lease = Lease { format: FORMAT, incarnation, clock_us, unheard, clients }.write();
        Some(Request { id: self.last_id, ask: Ask::PutLease { node, lease } })
    }

    /// What a member wants changed in the view: its own state, or members that are gone.
    fn changes(&mut self, own: NodeNumber, now: Now) -> Option<View> {
        let (_, view) = self.view.as_ref()?;
        let parted = self.peers.parted(view, own, now);
        let dead = match self.is_isolated {
            true => 0,
            false => self.peers.dead(view, own, now),
        };
        let leaves = self.wants_to_leave || parted == Some(own);
        let is_as_wanted = view.member(own).is_none_or(|member| member.state == self.wanted);
        let is_settled = !leaves && is_as_wanted && dead == 0 && parted.is_none();
        if is_settled && self.forgotten.is_empty() {
            return None;
        }
        let mut changed = View::clone(view);
        if !self.remove_forgotten(&mut changed) && is_settled {
            return None;
        }
        for member in changed.members.iter_mut().filter(|member| member.node == own) {
            member.state = self.wanted;
        }
        if leaves {
            changed.remove(own);
        } else {
            let gone = dead | parted.map_or(0, NodeNumber::bit);
            changed.members.retain(|member| gone & member.node.bit() == 0);
        }
        Some(changed)
    }

    /// The answer to a request.
    pub fn handle_answer(&mut self, id: u64, answer: Answer, now: Now) {
        if self.pending_lease == Some(id) {
            self.pending_lease = None;
            return self.handle_renewed(answer == Answer::Done, now);
        }
        if self.pending.as_ref().is_none_or(|(asked, _)| *asked != id) {
            return;
        }
        let Some((_, pending)) = self.pending.take() else { return };
        match (pending, answer) {
            (Pending::View, Answer::View(value)) => self.handle_read(value, now),
            (Pending::Set(view), Answer::Set(Some(revision))) => self.take(revision, view, now),
            // Another node was faster.
            (Pending::Set(_), Answer::Set(None)) => self.needs_read = true,
            (Pending::Clock, Answer::Stored { sent_us, stored_us }) => {
                self.joining.note_clock(sent_us, stored_us, now);
            }
            (pending, _) => {
                self.needs_read |= !matches!(pending, Pending::Clock);
                self.retry_at = Now(now.0 + RETRY_US);
            }
        }
    }

    fn handle_renewed(&mut self, is_done: bool, now: Now) {
        if !is_done {
            self.renew_at = Now(now.0 + RETRY_US);
            return;
        }
        self.renew_at = Now(now.0 + RENEW_US);
        self.renewed_at = now;
        self.leases[1] = self.leases[0];
        if self.is_isolated {
            self.is_healing = true;
            self.needs_read = true;
        }
    }

    fn handle_read(&mut self, value: Option<(u64, Vec<u8>)>, now: Now) {
        match value {
            Some((revision, view)) => self.handle_view(revision, &view, now),
            None => {
                // No view yet, or the bucket was lost.
                self.view = None;
                self.joining.note_read();
                self.note_out();
            }
        }
        if std::mem::take(&mut self.is_healing) && matches!(self.phase, Phase::In { .. }) {
            self.is_isolated = false;
            self.events.push_back(MembershipEvent::Healed);
        }
    }

    /// A value of the view, read or told by the bucket.
    pub fn handle_view(&mut self, revision: u64, view: &[u8], now: Now) {
        self.joining.note_read();
        if self.view.as_ref().is_some_and(|(known, _)| *known >= revision) {
            return;
        }
        match View::read(view) {
            Ok(view) => self.take(revision, view, now),
            Err(error) => {
                self.note_out();
                if self.phase == Phase::Joining {
                    self.phase = Phase::Out;
                    self.events.push_back(MembershipEvent::Refused(JoinError::View(error)));
                }
            }
        }
    }

    fn take(&mut self, revision: u64, view: View, now: Now) {
        if self.view.as_ref().is_some_and(|(known, _)| *known >= revision) {
            return;
        }
        self.peers.note_view(&view, now);
        let view = Arc::new(view);
        self.view = Some((revision, Arc::clone(&view)));
        match self.phase {
            Phase::In { node, incarnation } if !view.has(node, incarnation) => self.note_out(),
            Phase::In { .. } => self.events.push_back(MembershipEvent::ViewChanged),
            Phase::Joining => {
                let start = self.joining.start();
                if let Some(own) = view.members.iter().find(|member| member.start == start) {
                    let (node, incarnation) = (own.node, own.incarnation);
                    self.phase = Phase::In { node, incarnation };
                    (self.renew_at, self.renewed_at) = (now, now);
                    self.events.push_back(MembershipEvent::Joined { node, incarnation });
                    self.events.push_back(MembershipEvent::ViewChanged);
                }
            }
            Phase::Out => {}
        }
    }

    /// This node is a member no more.
    fn note_out(&mut self) {
        if !matches!(self.phase, Phase::In { .. }) {
            return;
        }
        self.phase = Phase::Out;
        (self.is_isolated, self.is_healing) = (false, false);
        self.pending_lease = None;
        let event = match std::mem::take(&mut self.wants_to_leave) {
            true => MembershipEvent::Left,
            false => MembershipEvent::Evicted,
        };
        self.events.push_back(event);
    }

    /// A lease that the bucket told, and the time at which the engine stored it, in microseconds since 1970.
    pub fn handle_lease(&mut self, node: NodeNumber, lease: &[u8], stored_us: u64, now: Now) {
        let Ok(lease) = Lease::read(lease) else { return };
        if let Phase::In { node: own, incarnation } = self.phase
            && own == node
        {
            if lease.incarnation == incarnation {
                self.leases[2] = lease.clock_us;
                self.peers.note_own_lease();
                self.peers.note_lease(node, lease, stored_us, now);
            }
        } else if self.peers.note_lease(node, lease, stored_us, now) {
            self.events.push_back(MembershipEvent::LeaseSeen(node));
        }
    }

    /// Whether the bucket does not tell any more what changes in it: an own lease was stored two seconds ago and has not come
    /// back. The changes have to be asked for anew.
    pub fn is_behind(&self, now: Now) -> bool {
        let is_in = matches!(self.phase, Phase::In { .. });
        is_in && self.leases[1] != self.leases[2] && now.since_us(self.renewed_at) >= BEHIND_US
    }

    /// A frame of a member's present incarnation came.
    pub fn note_heard(&mut self, node: NodeNumber, now: Now) {
        self.peers.note_heard(node, now);
    }

    /// Time has passed: to be called every [`TICK_US`], and first of all after a pause.
    pub fn handle_time(&mut self, now: Now) {
        let gap_us = now.since_us(self.ticked_at);
        self.ticked_at = now;
        if gap_us >= GAP_US {
            self.peers.forgive(gap_us);
        }
        let is_in = matches!(self.phase, Phase::In { .. });
        if is_in && !self.is_isolated && now.since_us(self.renewed_at) >= LEASE_US {
            self.is_isolated = true;
            self.events.push_back(MembershipEvent::Isolated);
        }
    }

    /// The state that this node has to have in the view.
    pub fn set_state(&mut self, state: MemberState) {
        self.wanted = state;
    }

    /// The number of connections of this node, which its leases tell the others.
    pub fn set_clients(&mut self, clients: u32) {
        self.clients = clients;
    }

    /// Takes this node out of the view: [`MembershipEvent::Left`].
    pub fn leave(&mut self) {
        match self.phase {
            Phase::In { .. } => self.wants_to_leave = true,
            // An answer may still come that says it is in.
            Phase::Joining => {
                self.phase = Phase::Out;
                self.events.push_back(MembershipEvent::Left);
            }
            Phase::Out => {}
        }
    }

    /// Joins with the next incarnation, after this node was evicted or refused, or left; `start` is a new random number.
    pub fn rejoin(&mut self, start: u64, now: Now) {
        if self.phase != Phase::Out {
            return;
        }
        self.phase = Phase::Joining;
        self.joining = Joining::new(start);
        self.wanted = MemberState::Joining;
        self.wants_to_leave = false;
        self.pending = None;
        self.needs_read = true;
        self.retry_at = now;
    }

    /// What this node knows, for operators.
    pub fn status(&self, now: Now) -> ClusterStatus {
        let Some((revision, view)) = &self.view else {
            return ClusterStatus { cluster: self.me.cluster.clone(), ..ClusterStatus::default() };
        };
        let own = self.own();
        let clock_us = own.and_then(|(node, _)| self.peers.clock_us(node));
        let since_ms = |then: Now| now.since_us(then) / 1_000;
        let of = |member: &super::view::Member| MemberStatus {
            node: member.node.get(),
            name: member.name.clone(),
            incarnation: member.incarnation.0,
            advertise: member.advertise.clone(),
            state: member.state.name(),
            is_own: own.is_some_and(|(node, _)| node == member.node),
            heard_ms: self.peers.heard(member.node).map(since_ms),
            lease_ms: self.peers.lease_at(member.node).map(since_ms),
            clients: match own.is_some_and(|(node, _)| node == member.node) {
                true => Some(self.clients),
                false => self.peers.clients(member.node),
            },
            takes_sessions: {
                let common = self.me.lanes.common(member.lanes);
                common.is_some_and(|version| version >= VERSION_WITH_OFFERS.into())
            },
            clock_ahead_ms: self
                .peers
                .clock_us(member.node)
                .zip(clock_us)
                .map(|(theirs, ours)| (theirs - ours) / 1_000),
        };
        ClusterStatus {
            cluster: self.me.cluster.clone(),
            is_isolated: self.is_isolated,
            revision: *revision,
            members: view.members.iter().map(of).collect(),
            ..ClusterStatus::default()
        }
    }
}
