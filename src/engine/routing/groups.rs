//! The groups of shared subscriptions: their members on this core and on others, and whose turn it is.
//!
//! The core on which a message is published chooses a core, by the number of connected members on each, so
//! that messages are spread evenly over members and not over cores. The chosen core chooses the member.

use std::collections::BTreeSet;

use shards::{FilterId, GroupAt, GroupId, Subscription, SubscriptionIndex};

use crate::base::ids::{CoreId, SessionId};
use crate::base::limits;
use crate::engine::mesh::Mesh;
use crate::engine::routing::Router;
use crate::engine::routing::recipients::{Recipient, SharedSubscription};
use crate::engine::work::Work;
use crate::session::state::Session;
use crate::wire::Qos;

/// Members that are asked whether they keep up before a message goes to one that may not: the cost of a
/// message does not grow with the group.
const MEMBERS_ASKED_MAX: usize = 32;

/// How fit a member is to receive one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Not connected.
    Away,
    /// Connected, and behind.
    Busy,
    /// Connected, and keeping up.
    Ready,
}

/// Shared subscriptions whose members on this core changed in this turn: the other cores learn of them
/// at its end.
#[derive(Debug, Default)]
pub(super) struct ChangedGroups(BTreeSet<FilterId>);

impl Router {
    /// The shared subscriptions of which a session has undelivered messages, with their filters. Called
    /// before the session leaves them.
    pub(in crate::engine) fn groups_with_messages(
        &self,
        session: &Session,
        work: &mut Work,
    ) -> Vec<(FilterId, String)> {
        let Some(outbound) = &session.outbound else { return Vec::new() };
        work.spend(outbound.queued() / limits::QUEUE_ENTRIES_PER_STEP);
        let filters: BTreeSet<FilterId> = outbound.shared_filters().collect();
        filters.into_iter().map(|filter| (filter, self.index.text(filter))).collect()
    }

    /// The core whose turn it is: each has as many turns as it has connected members, or, if no member
    /// is connected, members.
    pub(super) fn choose_core(&mut self, subscription: &SharedSubscription, qos: Qos) -> CoreId {
        let own = self.place.core();
        let Some(group) = subscription.group else { return own };
        let here = subscription.here;
        let own_at = GroupAt {
            core: own.0,
            online: here.map_or(0, |here| self.index.present(here).len() as u32),
            members: here.map_or(0, |here| self.index.members(here).len() as u32),
        };
        let elsewhere = self.replica.members(group);
        let all = || elsewhere.iter().chain([&own_at]);
        let online: u64 = all().map(|at| u64::from(at.online)).sum();
        let weight = |at: &GroupAt| {
            u64::from(match (online, qos) {
                (0, Qos::AtMostOnce) => 0,
                (0, _) => at.members,
                _ => at.online,
            })
        };
        let total: u64 = all().map(weight).sum();
        if total == 0 {
            return own;
        }
        let mut turn = self.replica.touch().next_turn(group) % total;
        let all = || self.replica.members(group).iter().chain([&own_at]);
        for at in all() {
            match turn.checked_sub(weight(at)) {
                Some(rest) => turn = rest,
                None => return CoreId(at.core),
            }
        }
        own
    }

    /// Another core with a connected member, or, if `any`, with a member.
    pub(super) fn other_core(&mut self, group: Option<GroupId>, any: bool) -> Option<CoreId> {
        let group = group?;
        let turn = self.replica.touch().next_turn(group);
        let elsewhere = self.replica.members(group);
        let fit = || elsewhere.iter().filter(|at| at.online > 0 || any);
        let turn = turn % (fit().count().max(1) as u64);
        fit().nth(turn as usize).map(|at| CoreId(at.core))
    }

    /// The member on this core that receives the next message: in turn, connected members that keep up
    /// first, then connected members, then, for QoS 1 and 2, members that are away.
    pub(super) fn choose_member(
        &mut self,
        filter: FilterId,
        except: Option<SessionId>,
        qos: Qos,
        rank: impl Fn(SessionId) -> Rank,
    ) -> Option<(Rank, Recipient)> {
        let mut chosen = self.choose_connected(filter, except, rank);
        if chosen.is_none() && qos > Qos::AtMostOnce {
            let away = self.next_other(filter, except, SubscriptionIndex::waiting);
            chosen = away.map(|member| (Rank::Away, member));
        }
        let (rank, member) = chosen?;
        Some((rank, Recipient::merge(&[member])))
    }

    fn choose_connected(
        &mut self,
        filter: FilterId,
        except: Option<SessionId>,
        rank: impl Fn(SessionId) -> Rank,
    ) -> Option<(Rank, Subscription)> {
        let first = self.index.touch().turns_mut(filter)?.ready;
        let members = self.index.present(filter);
        let asked = members.len().min(MEMBERS_ASKED_MAX) as u32;
        for turn in (0..asked).map(|step| first.wrapping_add(step)) {
            let member = members[turn as usize % members.len()];
            if Some(member.subscriber.into()) != except
                && rank(member.subscriber.into()) == Rank::Ready
            {
                self.index.touch().turns_mut(filter)?.ready = turn.wrapping_add(1);
                return Some((Rank::Ready, member));
            }
        }
        // The next message asks other members; members that do not keep up take turns of their own.
        self.index.touch().turns_mut(filter)?.ready = first.wrapping_add(asked);
        let member = self.next_other(filter, except, SubscriptionIndex::present)?;
        Some((rank(member.subscriber.into()), member))
    }

    /// The next of some of a group's members, whether it keeps up or not.
    fn next_other(
        &mut self,
        filter: FilterId,
        except: Option<SessionId>,
        of: fn(&SubscriptionIndex, FilterId) -> &[Subscription],
    ) -> Option<Subscription> {
        let first = self.index.touch().turns_mut(filter)?.other;
        let members = of(&self.index, filter);
        let mut turns = (0..members.len().min(2) as u32).map(|step| first.wrapping_add(step));
        let (turn, member) = turns.find_map(|turn| {
            let member = members[turn as usize % members.len()];
            (Some(member.subscriber.into()) != except).then_some((turn, member))
        })?;
        self.index.touch().turns_mut(filter)?.other = turn.wrapping_add(1);
        Some(member)
    }

    /// A shared subscription with its members on this core and on others.
    pub(in crate::engine) fn shared_subscription(&self, text: &str) -> SharedSubscription {
        let (here, group) = (self.index.find(text), self.replica.group(text));
        SharedSubscription { text: text.into(), here, group }
    }

    /// Whether a group has a member other than `session` that can receive its messages: a connected one,
    /// or, if the session `leaves` for good, any.
    pub(super) fn has_other_member(
        &self,
        subscription: &SharedSubscription,
        session: SessionId,
        leaves: bool,
    ) -> bool {
        let subscriber = session.into();
        let is_member =
            subscription.here.is_some_and(|here| self.index.get(here, subscriber).is_some());
        let is_over = leaves && !is_member;
        let is_other_here = subscription.here.is_some_and(|here| match is_over {
            true => !self.index.members(here).is_empty(),
            false => {
                let own = usize::from(self.index.is_present(here, subscriber));
                self.index.present(here).len() > own
            }
        });
        let elsewhere = subscription.group.map_or(&[][..], |group| self.replica.members(group));
        is_other_here || elsewhere.iter().any(|at| is_over || at.online > 0)
    }

    /// A connected client of this core joined a group. Its SUBACK waits until all cores count it, so that
    /// its turn comes with the next message, on whatever core that is published.
    pub(in crate::engine) fn join_group(
        &mut self,
        filter: FilterId,
        session: SessionId,
        mesh: &mut Mesh,
    ) {
        self.set_present(filter, session, true);
        mesh.note_announcement();
    }

    /// A client of this core left a group.
    pub(super) fn leave_group(
        &mut self,
        filter: FilterId,
        text: &str,
        was_last: bool,
        mesh: &mut Mesh,
    ) {
        if !was_last {
            return self.note_changed_group(filter);
        }
        self.changed_groups.0.remove(&filter);
        mesh.announce_group(text, 0, 0);
    }

    /// A client has connected, or has disconnected with its session kept: the groups among its
    /// `subscriptions` have one connected member more, or less.
    pub(in crate::engine) fn set_connected(
        &mut self,
        session: SessionId,
        subscriptions: &[FilterId],
        is_connected: bool,
    ) {
        for &filter in subscriptions.iter().filter(|filter| filter.is_shared()) {
            self.set_present(filter, session, is_connected);
        }
    }

    fn set_present(&mut self, filter: FilterId, session: SessionId, is_connected: bool) {
        self.index.edit().set_present(filter, session.into(), is_connected);
        self.note_changed_group(filter);
    }

    fn note_changed_group(&mut self, filter: FilterId) {
        if self.place.addresses() > 1 {
            self.changed_groups.0.insert(filter);
        }
    }

    /// Announces to all other cores the members of the groups that changed in this turn.
    #[inline]
    pub(in crate::engine) fn announce_groups(&mut self, mesh: &mut Mesh) {
        while let Some(filter) = self.changed_groups.0.pop_first() {
            let text = self.index.text(filter);
            let members = self.index.members(filter).len() as u32;
            let connected = self.index.present(filter).len() as u32;
            mesh.announce_group(&text, connected, members);
        }
    }
}
