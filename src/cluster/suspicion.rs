//! Which members do not answer: what this node heard of each on its lanes and in the bucket, and who has to leave.

use super::view::{Incarnation, Lease, Member, NODES_MAX, NodeNumber, View};
use crate::base::clock::Now;

/// Microseconds without a frame after which the lanes of a member are silent.
pub const SILENT_US: u64 = 6_000_000;

/// Microseconds after which a lease that was not renewed has expired.
pub const LEASE_US: u64 = 10_000_000;

/// Own leases that must have come back through the bucket since a member's last one before that counts as expired: if
/// they do not, it is this node that sees nothing.
const OWN_LEASES: u64 = 3;

/// Microseconds for which two members that both renew their leases and do not hear each other are left so, after the one
/// said so that is silent for [`SILENT_US`]: ten seconds of silence in all.
const APART_US: u64 = 4_000_000;

/// Microseconds after which others remove a member that had to leave and did not.
const APART_REMOVE_US: u64 = 20_000_000;

/// Clock samples of a member that are kept. A value that was long on its way to the engine makes a clock look late,
/// never early, so that the highest of them counts.
const CLOCKS: usize = 3;

/// What is known of one member.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    incarnation: Incarnation,
    heard: Option<Now>,
    /// When it was heard last, or when it became a member.
    heard_at: Now,
    lease: Option<Lease>,
    lease_at: Now,
    /// Values of its lease that this node saw arrive, without the first.
    renewals: u64,
    /// Own leases that had come back when its lease came last.
    own_seen: u64,
    clocks: [Option<i64>; CLOCKS],
}

/// What this node heard of the others.
#[derive(Debug)]
pub(super) struct Peers {
    peers: Box<[Peer; NODES_MAX]>,
    own_seen: u64,
    /// The member that has to leave because of members that do not hear each other, and since when.
    parted: Option<(NodeNumber, Now)>,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self { peers: Box::new([Peer::default(); NODES_MAX]), own_seen: 0, parted: None }
    }

    /// Begins to observe members that are new in a view.
    pub(super) fn note_view(&mut self, view: &View, now: Now) {
        for member in &view.members {
            let peer = &mut self.peers[member.node.index()];
            if peer.incarnation == member.incarnation {
                continue;
            }
            let lease = peer.lease.filter(|lease| lease.incarnation == member.incarnation);
            let (lease_at, own_seen) = (now, self.own_seen);
            let incarnation = member.incarnation;
            *peer = Peer { incarnation, lease, lease_at, own_seen, heard_at: now, ..*peer };
            (peer.heard, peer.renewals) = (None, 0);
        }
        self.parted = self.parted.filter(|(node, _)| view.member(*node).is_some());
    }

    /// Notes a frame of a member.
    pub(super) fn note_heard(&mut self, node: NodeNumber, now: Now) {
        let peer = &mut self.peers[node.index()];
        (peer.heard, peer.heard_at) = (Some(now), now);
    }

    /// Notes a lease, which the engine stored at a time in microseconds since 1970. Returns whether it is news.
    pub(super) fn note_lease(
        &mut self,
        node: NodeNumber,
        lease: Lease,
        stored_us: u64,
        now: Now,
    ) -> bool {
        let own_seen = self.own_seen;
        let peer = &mut self.peers[node.index()];
        if peer.lease.is_some_and(|known| known == lease) {
            return false;
        }
        if peer.lease.is_some_and(|known| known.incarnation == lease.incarnation) {
            peer.renewals += 1;
        }
        if peer.incarnation == Incarnation::default() || lease.incarnation == peer.incarnation {
            (peer.lease_at, peer.own_seen) = (now, own_seen);
            peer.lease = Some(lease);
            peer.clocks.rotate_right(1);
            peer.clocks[0] = Some(offset_us(lease.clock_us, stored_us));
            return true;
        }
        // Of a run that this node does not know yet, or that is over.
        if lease.incarnation > peer.incarnation {
            peer.lease = Some(lease);
            peer.clocks = [Some(offset_us(lease.clock_us, stored_us)), None, None];
        }
        false
    }

    /// Notes that an own lease came back through the bucket.
    pub(super) fn note_own_lease(&mut self) {
        self.own_seen += 1;
    }

    /// This node did not run for some time: nobody else is to blame for that.
    pub(super) fn forgive(&mut self, gap_us: u64) {
        for peer in self.peers.iter_mut() {
            peer.heard_at.0 += gap_us;
            peer.lease_at.0 += gap_us;
        }
        self.parted = None;
    }

    /// Whether a member's lease has not been renewed for ten seconds, as far as this node sees the bucket.
    fn has_expired(&self, node: NodeNumber, now: Now) -> bool {
        let peer = &self.peers[node.index()];
        now.since_us(peer.lease_at) >= LEASE_US && self.own_seen >= peer.own_seen + OWN_LEASES
    }

    /// The same for a node that is no member and therefore has no leases to compare with.
    pub(super) fn has_lapsed(&self, node: NodeNumber, now: Now) -> bool {
        now.since_us(self.peers[node.index()].lease_at) >= LEASE_US
    }

    /// Values of a member's lease that this node saw arrive, without the first.
    pub(super) fn renewals(&self, node: NodeNumber) -> u64 {
        self.peers[node.index()].renewals
    }

    /// Other members, as a mask, whose lanes are silent.
    pub(super) fn unheard(&self, view: &View, own: NodeNumber, now: Now) -> u64 {
        let silent = |member: &&Member| {
            member.node != own
                && now.since_us(self.peers[member.node.index()].heard_at) >= SILENT_US
        };
        view.members.iter().filter(silent).fold(0, |mask, member| mask | member.node.bit())
    }

    /// Members to remove from the view: those that neither speak nor renew.
    pub(super) fn dead(&self, view: &View, own: NodeNumber, now: Now) -> u64 {
        let unheard = self.unheard(view, own, now);
        let dead = |member: &&Member| {
            unheard & member.node.bit() != 0 && self.has_expired(member.node, now)
        };
        view.members.iter().filter(dead).fold(0, |mask, member| mask | member.node.bit())
    }

    /// The member that has to leave because it and another one renew their leases and do not hear each other, once that
    /// has lasted: the one that hears, or is heard by, the fewest, and of these the one with the highest number. This node
    /// leaves by itself; another one is removed only when it has not left for long.
    pub(super) fn parted(&mut self, view: &View, own: NodeNumber, now: Now) -> Option<NodeNumber> {
        let found = self.find_parted(view, own, now);
        let since = match (found, self.parted) {
            (Some(node), Some((before, since))) if node == before => since,
            _ => now,
        };
        self.parted = found.map(|node| (node, since));
        let node = found?;
        let patience = if node == own { APART_US } else { APART_REMOVE_US };
        (now.since_us(since) >= patience).then_some(node)
    }

    fn find_parted(&self, view: &View, own: NodeNumber, now: Now) -> Option<NodeNumber> {
        let renews = |node: NodeNumber| node == own || !self.has_expired(node, now);
        let present = view.members.iter().map(|member| member.node).filter(|node| renews(*node));
        let present: Vec<NodeNumber> = present.collect();
        let unheard = |node: NodeNumber| match node == own {
            true => self.unheard(view, own, now),
            false => self.peers[node.index()].lease.map_or(0, |lease| lease.unheard),
        };
        let unheard: Vec<u64> = present.iter().map(|node| unheard(*node)).collect();
        let apart = |one: usize| {
            let from = |other: &usize| {
                other != &one
                    && (unheard[one] & present[*other].bit() != 0
                        || unheard[*other] & present[one].bit() != 0)
            };
            (0..present.len()).filter(from).count()
        };
        let worst = (0..present.len()).map(|one| (apart(one), present[one])).max()?;
        (worst.0 > 0).then_some(worst.1)
    }

    /// How far a member's clock is ahead of the engine's, in microseconds.
    pub(super) fn clock_us(&self, node: NodeNumber) -> Option<i64> {
        self.peers[node.index()].clocks.into_iter().flatten().max()
    }

    /// When a frame of a member came last.
    pub(super) fn heard(&self, node: NodeNumber) -> Option<Now> {
        self.peers[node.index()].heard
    }

    /// The connections of a member, as its last lease says.
    pub(super) fn clients(&self, node: NodeNumber) -> Option<u32> {
        self.peers[node.index()].lease?.clients
    }

    /// When a member's lease came last.
    pub(super) fn lease_at(&self, node: NodeNumber) -> Option<Now> {
        let peer = &self.peers[node.index()];
        peer.lease.map(|_| peer.lease_at)
    }
}

/// How far a clock is ahead of another one.
pub(super) fn offset_us(clock_us: u64, of_us: u64) -> i64 {
    i64::try_from(i128::from(clock_us) - i128::from(of_us)).unwrap_or(i64::MAX)
}
