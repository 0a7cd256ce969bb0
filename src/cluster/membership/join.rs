//! How a node joins: which number it takes, whom it waits for, and why it does not.

use super::{JoinError, Me, Membership};
use crate::base::clock::Now;
use crate::cluster::suspicion::offset_us;
use crate::cluster::view::{Incarnation, Member, MemberState, NODES_MAX, NodeNumber, View};

/// Microseconds by which two clocks may differ.
const CLOCK_US: i64 = 2_000_000;

/// Comparisons of the clocks that must fail before a join is refused: more than three leases of each member, as the engine may
/// have changed its leader, and with it the clock that all are compared with.
const CLOCK_TRIES: u32 = 5;

/// Microseconds between two comparisons.
const CLOCK_RETRY_US: u64 = 3_000_000;

/// The next step of a join.
pub(super) enum Step {
    Wait,
    Clock,
    Set(View),
    Refuse(JoinError),
}

/// A join under way.
#[derive(Debug)]
pub(super) struct Joining {
    start: u64,
    /// Whether the bucket has been read since the join began.
    has_read: bool,
    /// How far the own clock is ahead of the engine's.
    clock: Option<i64>,
    clock_at: Now,
    clock_tries: u32,
    /// A member in the way, its incarnation, and how many of its leases had come when the wait began.
    waits_for: Option<(NodeNumber, Incarnation, u64)>,
}

impl Joining {
    pub(super) fn new(start: u64) -> Self {
        Self {
            start,
            has_read: false,
            clock: None,
            clock_at: Now::default(),
            clock_tries: 0,
            waits_for: None,
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn note_read(&mut self) {
        self.has_read = true;
    }

    pub(super) fn note_clock(&mut self, sent_us: u64, stored_us: u64, now: Now) {
        (self.clock, self.clock_at) = (Some(offset_us(sent_us, stored_us)), now);
    }
}

impl Membership {
    pub(super) fn joining_step(&mut self, now: Now, clock_us: u64) -> Step {
        if !self.joining.has_read {
            return Step::Wait;
        }
        let empty = || View::new(&self.me.cluster, clock_us / 1_000_000);
        let view = self.view.as_ref().map_or_else(empty, |(_, view)| View::clone(view));
        let others = || view.members.iter().filter(|member| member.name != self.me.name);
        if let Some(other) = others().find(|member| self.me.lanes.common(member.lanes).is_none()) {
            return Step::Refuse(JoinError::Versions(other.name.clone()));
        }
        let number = match choose(&self.me, &view) {
            Ok(number) => number,
            Err(error) => return Step::Refuse(error),
        };
        let is_in_the_way = |member: &&Member| {
            (member.node == number || member.name == self.me.name)
                && (member.store != self.me.store || member.name != self.me.name)
        };
        if let Some(other) = view.members.iter().find(is_in_the_way) {
            let (node, incarnation) = (other.node, other.incarnation);
            let renewals = self.peers.renewals(node);
            if self.joining.renewed_meanwhile(node, incarnation, renewals) {
                return Step::Refuse(is_taken(other));
            }
            if !self.peers.has_lapsed(node, now) {
                return Step::Wait;
            }
        }
        // A member's lease shows its clock.
        let is_unknown = |member: &Member| {
            self.peers.clock_us(member.node).is_none() && !self.peers.has_lapsed(member.node, now)
        };
        if others().any(is_unknown) {
            return Step::Wait;
        }
        let Some(clock) = self.joining.clock else { return Step::Clock };
        let differs = |member: &&Member| {
            self.peers.clock_us(member.node).is_some_and(|of| (clock - of).abs() > CLOCK_US)
        };
        if let Some(other) = others().find(differs) {
            let of = self.peers.clock_us(other.node).unwrap_or_default();
            return self.joining.wait_for_clock(other, (clock - of) / 1_000, now);
        }
        let mut joined = view;
        joined.add(Member {
            node: number,
            incarnation: Incarnation::default(),
            name: self.me.name.clone(),
            advertise: self.me.advertise.clone(),
            lanes: self.me.lanes,
            state: MemberState::Joining,
            store: self.me.store,
            start: self.joining.start,
        });
        Step::Set(joined)
    }
}

impl Joining {
    /// A member has the name or the number, and may be dead: whether its lease was renewed twice since this node waits for
    /// it. The first may be one that was on its way.
    fn renewed_meanwhile(&mut self, node: NodeNumber, of: Incarnation, renewals: u64) -> bool {
        let begun = match self.waits_for {
            Some((waits, run, begun)) if (waits, run) == (node, of) => begun,
            _ => renewals,
        };
        self.waits_for = Some((node, of, begun));
        renewals > begun + 1
    }

    fn wait_for_clock(&mut self, other: &Member, ahead_ms: i64, now: Now) -> Step {
        if self.clock_tries >= CLOCK_TRIES {
            return Step::Refuse(JoinError::Clock { member: other.name.clone(), ahead_ms });
        }
        if now.since_us(self.clock_at) < CLOCK_RETRY_US {
            return Step::Wait;
        }
        self.clock_tries += 1;
        Step::Clock
    }
}

fn is_taken(by: &Member) -> JoinError {
    JoinError::Taken(format!(
        "node {} of the cluster, named {:?}, runs on another store: give each node a name and a number of its own \
         (cluster.node)",
        by.node, by.name
    ))
}

/// The number of a node that joins: the configured one; else the one that it has or had, or the lowest that nobody had; or,
/// when all were used, the lowest that nobody has.
fn choose(me: &Me, view: &View) -> Result<NodeNumber, JoinError> {
    if let Some(number) = me.number {
        return Ok(number);
    }
    if let Some(own) = view.members.iter().find(|member| member.name == me.name) {
        return Ok(own.node);
    }
    let is_free = |number: &NodeNumber| view.member(*number).is_none();
    if let Some(before) = view.number_of(&me.name).filter(is_free) {
        return Ok(before);
    }
    let free = || (0..NODES_MAX as u8).filter_map(NodeNumber::new).filter(is_free);
    let is_new = |number: &NodeNumber| view.past.iter().all(|past| past.node != *number);
    free().find(is_new).or_else(|| free().next()).ok_or(JoinError::Full)
}
