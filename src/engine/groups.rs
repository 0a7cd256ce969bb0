//! Shared subscriptions: one member of the group gets each message, wherever it is.
//!
//! The core that a message is published on picks the core, by how many members are connected on
//! each, so that messages spread evenly over members and not over cores; that core picks the
//! member. Should the last member there have left meanwhile, the message goes on to another core.

use std::collections::BTreeSet;

use shards::{FilterId, GroupAt, GroupId, SubscriberId};

use crate::engine::batch::{Parcel, Whom};
use crate::engine::deliver::{Draft, Origin, Pressure, Standing};
use crate::engine::targets::{Sharing, Target};
use crate::engine::{CoreId, Engine};
use crate::metrics::Drop as DropCause;
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

/// This core's share of a group, kept while there are other cores to tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OwnGroup {
    online: u32,
    /// The others are to be told at the end of the turn.
    is_changed: bool,
}

impl Engine {
    /// Gives a message to one member of a shared subscription; `None` when there is none to take it.
    pub(super) fn share(
        &mut self,
        sharing: &Sharing,
        draft: &mut Draft<'_>,
        origin: &Origin,
        except: Option<u32>,
    ) -> Option<Standing> {
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
        let turn = self.group_turns.entry(group).or_default();
        *turn += 1;
        let elsewhere = self.replica.members(group);
        let fit = || elsewhere.iter().filter(|at| at.online > 0 || any);
        let place = *turn % (fit().count().max(1) as u64);
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
    pub(super) fn share_further(
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
                self.links.metrics.drops.add(DropCause::Offline, 1);
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
            online: here.and_then(|here| self.own_groups.get(&here)).map_or(0, |own| own.online),
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
        let turn = self.group_turns.entry(group).or_default();
        let mut place = *turn % total;
        *turn += 1;
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
        except: Option<u32>,
        qos: Qos,
    ) -> Option<(Rank, Target)> {
        let members = self.index.members(filter);
        let turn = self.shared_turns.get(&filter).copied().unwrap_or(0);
        let mut best = None;
        for step in 0..members.len() {
            let place = (turn + step) % members.len();
            let session = members[place].subscriber.0;
            if Some(session) == except {
                continue;
            }
            let rank = self.rank(session);
            if rank == Rank::Away && (qos == Qos::AtMostOnce || members[place].options.qos() == 0) {
                continue;
            }
            if best.is_none_or(|(best_rank, _)| rank > best_rank) {
                best = Some((rank, place));
            }
            if rank == Rank::Ready {
                break;
            }
        }
        let (rank, place) = best?;
        let target = Target::merge(&members[place..=place]);
        self.shared_turns.insert(filter, place + 1);
        Some((rank, target))
    }

    /// How fit a session is to take one more message.
    fn rank(&self, session: u32) -> Rank {
        let state = &self.sessions[session as usize];
        let Some(id) = state.connection else { return Rank::Away };
        let connection = &self.links.connections[id.slot as usize];
        let is_open = state.outbound.as_ref().is_none_or(|o| o.is_open(Qos::AtLeastOnce));
        match connection.congestion().is_none() && is_open {
            true => Rank::Ready,
            false => Rank::Busy,
        }
    }

    /// The shared subscriptions for which messages wait for a session, with their filters: to be
    /// asked before it leaves them. `of` is one filter alone.
    pub(super) fn shared_lines(
        &self,
        session: u32,
        of: Option<FilterId>,
    ) -> Vec<(FilterId, String)> {
        let Some(outbound) = &self.sessions[session as usize].outbound else { return Vec::new() };
        let filters = outbound.shared_filters().filter(|&filter| of.is_none_or(|of| of == filter));
        let filters: BTreeSet<FilterId> = filters.collect();
        filters.into_iter().map(|filter| (filter, self.index.text(filter))).collect()
    }

    /// Messages drawn for a shared subscription whose member leaves go to other members: all that
    /// waits, and QoS 1 that was not acknowledged. `lines` are the filters concerned; `leaves` is
    /// whether the member is gone, or away with its session kept, rather than unsubscribed.
    pub(super) fn hand_shared_messages_on(
        &mut self,
        session: u32,
        lines: &[(FilterId, String)],
        leaves: bool,
    ) {
        // Only where somebody else is there to take them now; else they wait for this member, or,
        // when its session is over, for whoever is away.
        let sharings: Vec<(FilterId, Sharing)> = lines
            .iter()
            .map(|(filter, text)| (*filter, self.sharing(text)))
            .filter(|(_, sharing)| self.has_other_member(sharing, session, leaves))
            .collect();
        let queued_before = self.queued(session);
        let number = self.sessions[session as usize].number();
        let Some(outbound) = self.sessions[session as usize].outbound.as_mut() else { return };
        let is_one = |filter| sharings.iter().any(|(of, _)| *of == filter);
        let taken = outbound.take_shared(is_one, leaves);
        self.count_queue(session, queued_before);
        self.tell_gone(session);
        for delivery in taken {
            let filter = delivery.shared.expect("taken for its shared subscription");
            let (_, sharing) = sharings.iter().find(|(of, _)| *of == filter).expect("one of them");
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
    }

    /// A shared subscription as it stands now.
    pub(super) fn sharing(&self, text: &str) -> Sharing {
        let (here, group) = (self.index.find(text), self.replica.group(text));
        Sharing { text: text.into(), here, group }
    }

    fn has_other_member(&self, sharing: &Sharing, session: u32, leaves: bool) -> bool {
        let members = sharing.here.map_or(&[][..], |here| self.index.members(here));
        let is_over = leaves && members.iter().all(|m| m.subscriber != SubscriberId(session));
        let is_other_here = members.iter().map(|member| member.subscriber.0).any(|other| {
            other != session && (is_over || self.sessions[other as usize].connection.is_some())
        });
        let elsewhere = sharing.group.map_or(&[][..], |group| self.replica.members(group));
        is_other_here || elsewhere.iter().any(|at| is_over || at.online > 0)
    }

    /// A connected client of this core joined a group.
    pub(super) fn join_group(&mut self, filter: FilterId) {
        if self.lanes.is_empty() {
            return;
        }
        let is_first = !self.own_groups.contains_key(&filter);
        self.change_group(filter, 1);
        if is_first {
            for core in self.place.others() {
                self.lanes.to(core).note_announcement();
            }
        }
    }

    /// A client of this core left a group.
    pub(super) fn leave_group(
        &mut self,
        filter: FilterId,
        text: &str,
        is_connected: bool,
        was_last: bool,
    ) {
        if was_last {
            self.shared_turns.remove(&filter);
        }
        if self.lanes.is_empty() {
            return;
        }
        if !was_last {
            return self.change_group(filter, -i32::from(is_connected));
        }
        self.own_groups.remove(&filter);
        for core in self.place.others() {
            self.tell_group(core, text, OwnGroup::default(), 0);
        }
    }

    /// A client came back, or went away with its session kept: its groups have one member more, or
    /// one less, who is connected.
    pub(super) fn change_groups_of(&mut self, session: u32, online: i32) {
        if self.lanes.is_empty() {
            return;
        }
        let subscriptions = std::mem::take(&mut self.sessions[session as usize].subscriptions);
        for &filter in subscriptions.iter().filter(|filter| filter.is_shared()) {
            self.change_group(filter, online);
        }
        self.sessions[session as usize].subscriptions = subscriptions;
    }

    fn change_group(&mut self, filter: FilterId, online: i32) {
        let own = self.own_groups.entry(filter).or_default();
        own.online = own.online.saturating_add_signed(online);
        if !own.is_changed {
            own.is_changed = true;
            self.changed_groups.push(filter);
        }
    }

    /// Tells all other cores how the groups stand that changed in this turn.
    pub(super) fn tell_groups(&mut self) {
        for filter in std::mem::take(&mut self.changed_groups) {
            // One that is gone has been told.
            let Some(own) = self.own_groups.get_mut(&filter) else { continue };
            if !std::mem::take(&mut own.is_changed) {
                continue;
            }
            let own = *own;
            let (text, members) = (self.index.text(filter), self.index.members(filter).len());
            for core in self.place.others() {
                self.tell_group(core, &text, own, members as u32);
            }
        }
    }

    fn tell_group(&mut self, core: CoreId, text: &str, own: OwnGroup, members: u32) {
        let lane = self.lanes.to(core);
        let filter = lane.open().push_text(text);
        lane.push(Parcel::Group { filter, online: own.online, members });
    }
}
