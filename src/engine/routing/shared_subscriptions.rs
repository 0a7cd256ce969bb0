//! Shared subscriptions: one member of the group gets each message, wherever it is.
//!
//! The core that a message is published on picks the core, by how many members are connected on
//! each, so that messages spread evenly over members and not over cores; that core picks the
//! member. Should the last member there have left meanwhile, the message goes on to another core.

use std::collections::BTreeSet;

use shards::{FilterId, GroupAt, GroupId, Subscription, SubscriptionIndex};

use crate::base::ids::{CoreId, SessionId};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::engine::Engine;
use crate::engine::mesh::batch::Whom;
use crate::engine::routing::deliver::{Draft, Origin, Pressure, Standing};
use crate::engine::routing::recipients::{Sharing, Target};
use crate::session::outbound::Outbound;
use crate::storage::record::SessionNumber;
use crate::wire::Qos;

/// How fit a member is to take one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Not connected.
    Away,
    /// Connected, and behind.
    Busy,
    /// Connected, and keeping up.
    Ready,
}

/// Steps to find the member that gets a message.
const SHARE_STEPS: usize = 2;

/// Members asked whether they keep up before a message goes to one that may not: what a message to
/// a group costs does not grow with the group.
const MEMBERS_ASKED_MAX: usize = 32;

impl Engine {
    /// Gives a message to one member of a shared subscription; `None` when there is none to take it.
    pub(in crate::engine) fn share(
        &mut self,
        sharing: &Sharing,
        draft: &mut Draft<'_>,
        origin: &Origin,
        except: Option<SessionId>,
    ) -> Option<Standing> {
        self.work.spend(SHARE_STEPS);
        if self.has_been_taken_by(sharing, draft.once) {
            return Some(Standing::Offline);
        }
        let qos = draft.content.qos;
        let core = self.choose_core(sharing, qos);
        if core != self.core() {
            self.share_over(core, &sharing.text, draft, origin, 1);
            return Some(Standing::Offline);
        }
        let chosen = sharing.here.and_then(|here| self.choose_member(here, except, qos));
        let any = chosen.is_none() && qos > Qos::AtMostOnce;
        if !matches!(chosen, Some((Rank::Ready, _)))
            && let Some(core) = self.other_core(sharing.group, any)
        {
            self.share_over(core, &sharing.text, draft, origin, 1);
            return Some(Standing::Offline);
        }
        let (_, member) = chosen?;
        Some(self.deliver(&member, draft, sharing.here))
    }

    /// Another core with a member who is connected, or, if `any`, with a member.
    fn other_core(&mut self, group: Option<GroupId>, any: bool) -> Option<CoreId> {
        let group = group?;
        let turn = self.replica.touch().next_turn(group);
        let elsewhere = self.replica.members(group);
        let fit = || elsewhere.iter().filter(|at| at.online > 0 || any);
        let place = turn % (fit().count().max(1) as u64);
        fit().nth(place as usize).map(|at| CoreId(at.core))
    }

    fn share_over(
        &mut self,
        core: CoreId,
        text: &str,
        draft: &mut Draft<'_>,
        origin: &Origin,
        hops: u16,
    ) {
        let passage = self.begin_passage(core, text, draft, origin, hops);
        let whom = |batch: &mut crate::engine::Batch| {
            let filter = batch.push_text(text);
            let passage = passage.and_then(|passage| batch.push_passage(passage));
            Whom::Group { filter, hops, passage }
        };
        self.forward_to(core, draft, origin, whom);
    }

    /// A message that another core gave us for a member of ours. When none is connected here, it
    /// goes to a core where one is; when those here are behind, it tries one other core.
    pub(in crate::engine) fn share_further(
        &mut self,
        text: &str,
        draft: &mut Draft<'_>,
        origin: &Origin,
        hops: u16,
    ) {
        let qos = draft.content.qos;
        let here = self.index.find(text);
        let chosen = here.and_then(|filter| self.choose_member(filter, None, qos));
        let hops_max = match &chosen {
            Some((Rank::Ready, _)) => 0,
            Some((Rank::Busy, _)) => 2,
            // The cores it was at may have been wrong about each other: once more around.
            _ => 2 * self.place.cores() + 2,
        };
        let any = chosen.is_none() && qos > Qos::AtMostOnce;
        if hops < hops_max
            && let Some(core) = self.other_core(self.replica.group(text), any)
        {
            return self.share_over(core, text, draft, origin, hops + 1);
        }
        let Some((_, member)) = chosen else {
            if qos > Qos::AtMostOnce {
                self.metrics.drops.add(DropCause::Offline, 1);
            }
            return;
        };
        let mut pressure = Pressure::default();
        self.template.begin(1);
        pressure.add(self.deliver(&member, draft, here));
        self.slow(origin, &pressure);
    }

    /// The core whose turn it is: each has as many turns as it has members connected, or, when
    /// nobody is, members at all.
    fn choose_core(&mut self, sharing: &Sharing, qos: Qos) -> CoreId {
        let own = self.core();
        let Some(group) = sharing.group else { return own };
        let here = sharing.here;
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
        let mut place = self.replica.touch().next_turn(group) % total;
        let all = || self.replica.members(group).iter().chain([&own_at]);
        for at in all() {
            match place.checked_sub(weight(at)) {
                Some(rest) => place = rest,
                None => return CoreId(at.core),
            }
        }
        own
    }

    /// The member of a shared subscription that gets the next message: in turn, connected ones that
    /// keep up first, then connected ones, then, for QoS 1 and 2, those that are away.
    fn choose_member(
        &mut self,
        filter: FilterId,
        except: Option<SessionId>,
        qos: Qos,
    ) -> Option<(Rank, Target)> {
        let mut chosen = self.choose_connected(filter, except);
        if chosen.is_none() && qos > Qos::AtMostOnce {
            let away = self.next_other(filter, except, SubscriptionIndex::waiting);
            chosen = away.map(|member| (Rank::Away, member));
        }
        let (rank, member) = chosen?;
        Some((rank, Target::merge(&[member])))
    }

    fn choose_connected(
        &mut self,
        filter: FilterId,
        except: Option<SessionId>,
    ) -> Option<(Rank, Subscription)> {
        let first = self.index.touch().turns_mut(filter)?.ready;
        let members = self.index.present(filter);
        let asked = members.len().min(MEMBERS_ASKED_MAX) as u32;
        for turn in (0..asked).map(|step| first.wrapping_add(step)) {
            let member = members[turn as usize % members.len()];
            if Some(member.subscriber.into()) != except
                && self.rank(member.subscriber.into()) == Rank::Ready
            {
                self.index.touch().turns_mut(filter)?.ready = turn.wrapping_add(1);
                return Some((Rank::Ready, member));
            }
        }
        // The next message asks others, and those that do not keep up have a round of their own.
        self.index.touch().turns_mut(filter)?.ready = first.wrapping_add(asked);
        let member = self.next_other(filter, except, SubscriptionIndex::present)?;
        Some((self.rank(member.subscriber.into()), member))
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

    /// How fit a session is to take one more message.
    fn rank(&self, session: SessionId) -> Rank {
        let state = &self.sessions[session];
        let Some(id) = state.connection else { return Rank::Away };
        let connection = &self.links.connections[id.slot as usize];
        let is_open = state.outbound.as_ref().is_none_or(|o| o.is_open(Qos::AtLeastOnce));
        match connection.congestion().is_none() && is_open {
            true => Rank::Ready,
            false => Rank::Busy,
        }
    }

    /// The shared subscriptions for which messages wait for a session, with their filters: to be
    /// asked before it leaves them.
    pub(in crate::engine) fn shared_lines(
        &mut self,
        session: SessionId,
    ) -> Vec<(FilterId, String)> {
        let Some(outbound) = &self.sessions[session].outbound else { return Vec::new() };
        self.work.spend(outbound.queued() / limits::QUEUE_ENTRIES_PER_STEP);
        let filters: BTreeSet<FilterId> = outbound.shared_filters().collect();
        filters.into_iter().map(|filter| (filter, self.index.text(filter))).collect()
    }

    /// Messages drawn for shared subscriptions that a member leaves go to other members: what waits, a
    /// part at a time, and QoS 1 that was not acknowledged. `lines` are the filters concerned; `leaves`
    /// is whether the member is gone, or away with its session kept, rather than unsubscribed. True
    /// when more is left to be handed on.
    pub(in crate::engine) fn hand_shared_messages_on(
        &mut self,
        session: SessionId,
        lines: &[(FilterId, String)],
        leaves: bool,
    ) -> bool {
        let queued_before = self.queued(session);
        let number = self.sessions[session].number();
        let Some(mut outbound) = self.sessions[session].outbound.take() else {
            return false;
        };
        let is_more = self.hand_on(session, number, &mut outbound, lines, leaves);
        self.sessions[session].outbound = Some(outbound);
        self.count_queue(session, queued_before);
        is_more
    }

    /// The same, of messages that have been taken from their session already.
    pub(in crate::engine) fn hand_on(
        &mut self,
        session: SessionId,
        number: Option<SessionNumber>,
        outbound: &mut Outbound,
        lines: &[(FilterId, String)],
        leaves: bool,
    ) -> bool {
        // Only where somebody else is there to take them now; else they wait for this member, or,
        // when its session is over, for whoever is away.
        let sharings: Vec<(FilterId, Sharing)> = lines
            .iter()
            .map(|(filter, text)| (*filter, self.sharing(text)))
            .filter(|(_, sharing)| self.has_other_member(sharing, session, leaves))
            .collect();
        if sharings.is_empty() {
            return false;
        }
        // In order, as the lines are.
        let find = |filter| sharings.binary_search_by_key(&filter, |(of, _)| *of);
        let is_one = |filter| find(filter).is_ok();
        let (taken, is_more) = outbound.take_shared(is_one, leaves, limits::HANDED_ON_AT_ONCE);
        self.work.spend(taken.len() + outbound.queued() / limits::QUEUE_ENTRIES_PER_STEP);
        self.tell_gone_of(number, outbound);
        for delivery in taken {
            let filter = delivery.shared.expect("taken for its shared subscription");
            let (_, sharing) = &sharings[find(filter).expect("one of them")];
            let (message, kept) = (delivery.message.clone(), delivery.kept.number);
            if message.is_expired(self.now) {
                self.count_drops(session, DropCause::Expired, 1);
                continue;
            }
            self.template.begin(1);
            let mut draft = Draft::of(&message, message.content(), delivery.retain);
            draft.before.extend(number.filter(|_| kept != 0).map(|session| (session, kept)));
            if self.share(sharing, &mut draft, &Origin::default(), Some(session)).is_none() {
                self.count_drops(session, DropCause::Offline, 1);
            }
        }
        is_more
    }

    /// A shared subscription as it stands now.
    pub(in crate::engine) fn sharing(&self, text: &str) -> Sharing {
        let (here, group) = (self.index.find(text), self.replica.group(text));
        Sharing { text: text.into(), here, group }
    }

    fn has_other_member(&self, sharing: &Sharing, session: SessionId, leaves: bool) -> bool {
        let subscriber = session.into();
        let is_member = sharing.here.is_some_and(|here| self.index.get(here, subscriber).is_some());
        let is_over = leaves && !is_member;
        let is_other_here = sharing.here.is_some_and(|here| match is_over {
            true => !self.index.members(here).is_empty(),
            false => {
                let own = usize::from(self.index.is_present(here, subscriber));
                self.index.present(here).len() > own
            }
        });
        let elsewhere = sharing.group.map_or(&[][..], |group| self.replica.members(group));
        is_other_here || elsewhere.iter().any(|at| is_over || at.online > 0)
    }

    /// A connected client of this core joined a group. Its SUBACK waits until all cores count it, so
    /// that its turn comes with the next message, whoever publishes it.
    pub(in crate::engine) fn join_group(&mut self, filter: FilterId, session: SessionId) {
        self.index.edit().set_present(filter, session.into(), true);
        self.note_changed_group(filter);
        self.mesh.note_announcement();
    }

    /// A client of this core left a group.
    pub(in crate::engine) fn leave_group(&mut self, filter: FilterId, text: &str, was_last: bool) {
        if !was_last {
            return self.note_changed_group(filter);
        }
        self.changed_groups.remove(&filter);
        self.mesh.announce_group(text, 0, 0);
    }

    /// A client came back, or went away with its session kept: its groups have one member more, or
    /// one less, who is connected.
    pub(in crate::engine) fn change_groups_of(&mut self, session: SessionId, is_connected: bool) {
        let subscriptions = std::mem::take(&mut self.sessions[session].subscriptions);
        for &filter in subscriptions.iter().filter(|filter| filter.is_shared()) {
            self.index.edit().set_present(filter, session.into(), is_connected);
            self.note_changed_group(filter);
        }
        self.sessions[session].subscriptions = subscriptions;
    }

    fn note_changed_group(&mut self, filter: FilterId) {
        if !self.mesh.is_alone() {
            self.changed_groups.insert(filter);
        }
    }

    /// Tells all other cores how the groups stand that changed in this turn.
    pub(in crate::engine) fn tell_groups(&mut self) {
        if self.changed_groups.is_empty() {
            return;
        }
        for filter in std::mem::take(&mut self.changed_groups) {
            let text = self.index.text(filter);
            let members = self.index.members(filter).len() as u32;
            let online = self.index.present(filter).len() as u32;
            self.mesh.announce_group(&text, online, members);
        }
    }
}
