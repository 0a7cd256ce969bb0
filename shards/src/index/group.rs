//! The members of a shared subscription, partitioned so that a member that can take a message is
//! found without visiting those that cannot. Knows no session: the caller reports who is present.

use super::members::{Members, Removed};
use super::subscription::{SubscriberId, Subscription};
use crate::hash::Hashing;

/// Members in three parts, in this order: present ones; absent ones with a granted QoS of 1 or 2;
/// other absent ones, for which no message is queued.
#[derive(Debug)]
pub(crate) struct Group {
    members: Members,
    /// End of the first part.
    present: u32,
    /// End of the second part.
    waiting: u32,
    pub(crate) turns: Turns,
}

/// Round-robin positions in a group: counters, to be taken modulo the length of a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns {
    /// Position among the present members that are asked whether they keep up.
    pub ready: u32,
    /// Position among the members that get a message although they do not keep up or are absent.
    pub other: u32,
}

/// The parts, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Present,
    Waiting,
    Rest,
}

impl Group {
    /// A group with a single member, which is absent.
    pub(crate) fn new(only: Subscription) -> Self {
        let waiting = u32::from(absent_part(&only) == Part::Waiting);
        Self { members: Members::One(only), present: 0, waiting, turns: Turns::default() }
    }

    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    pub(crate) fn present(&self) -> &[Subscription] {
        &self.members.as_slice()[..self.present as usize]
    }

    pub(crate) fn waiting(&self) -> &[Subscription] {
        &self.members.as_slice()[self.present as usize..self.waiting as usize]
    }

    /// Adds `subscription` as absent, or replaces the same subscriber's subscription.
    pub(crate) fn put(
        &mut self,
        hashing: &Hashing,
        subscription: Subscription,
    ) -> Option<Subscription> {
        let replaced = self.members.put(hashing, subscription);
        // A new member is the last one.
        let place = match replaced {
            None => self.members.as_slice().len() - 1,
            Some(_) => self.members.place(hashing, subscription.subscriber).expect("just put"),
        };
        if self.part_of(place) != Part::Present {
            self.move_to(hashing, place, absent_part(&subscription));
        }
        replaced
    }

    pub(crate) fn remove(&mut self, hashing: &Hashing, subscriber: SubscriberId) -> Removed {
        let Some(place) = self.members.place(hashing, subscriber) else {
            return Removed::NoMember;
        };
        // The last member of the last part is removed: no other member moves.
        let place = self.move_to(hashing, place, Part::Rest);
        self.members.swap(hashing, place, self.members.as_slice().len() - 1);
        self.members.remove(hashing, subscriber)
    }

    /// Records whether `subscriber` is present; false if it is no member.
    pub(crate) fn set_present(
        &mut self,
        hashing: &Hashing,
        subscriber: SubscriberId,
        is_present: bool,
    ) -> bool {
        let Some(place) = self.members.place(hashing, subscriber) else { return false };
        let part = match is_present {
            true => Part::Present,
            false => absent_part(&self.members.as_slice()[place]),
        };
        self.move_to(hashing, place, part);
        true
    }

    pub(crate) fn is_present(&self, hashing: &Hashing, subscriber: SubscriberId) -> bool {
        let place = self.members.place(hashing, subscriber);
        place.is_some_and(|place| self.part_of(place) == Part::Present)
    }

    fn part_of(&self, place: usize) -> Part {
        match place as u32 {
            place if place < self.present => Part::Present,
            place if place < self.waiting => Part::Waiting,
            _ => Part::Rest,
        }
    }

    /// Moves the member at `place` into another part, across one border at a time, and returns its
    /// new place.
    fn move_to(&mut self, hashing: &Hashing, mut place: usize, to: Part) -> usize {
        while self.part_of(place) < to {
            let border = match self.part_of(place) {
                Part::Present => &mut self.present,
                _ => &mut self.waiting,
            };
            *border -= 1;
            let last = *border as usize;
            self.members.swap(hashing, place, last);
            place = last;
        }
        while self.part_of(place) > to {
            let border = match self.part_of(place) {
                Part::Rest => &mut self.waiting,
                _ => &mut self.present,
            };
            let first = *border as usize;
            *border += 1;
            self.members.swap(hashing, place, first);
            place = first;
        }
        place
    }
}

/// The part of an absent member: no message is queued for a granted QoS of 0.
fn absent_part(subscription: &Subscription) -> Part {
    if subscription.options.qos() > 0 { Part::Waiting } else { Part::Rest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::SubscriptionOptions;
    use std::collections::BTreeMap;

    fn subscription(subscriber: u32, qos: u8) -> Subscription {
        let options = SubscriptionOptions::new(qos, false, false);
        Subscription { subscriber: SubscriberId(subscriber), options, identifier: 0 }
    }

    fn sorted(members: &[Subscription]) -> Vec<u32> {
        let mut sorted: Vec<u32> = members.iter().map(|member| member.subscriber.0).collect();
        sorted.sort_unstable();
        sorted
    }

    /// Compares the members by subscriber, with QoS and presence.
    fn assert_like(group: &Group, model: &BTreeMap<u32, (u8, bool)>) {
        let of = |is: fn(&(u8, bool)) -> bool| {
            let found = model.iter().filter(|(_, member)| is(member));
            found.map(|(subscriber, _)| *subscriber).collect::<Vec<_>>()
        };
        assert_eq!(sorted(group.present()), of(|&(_, is_present)| is_present));
        assert_eq!(sorted(group.waiting()), of(|&(qos, is_present)| !is_present && qos > 0));
        assert_eq!(sorted(group.members.as_slice()), of(|_| true));
    }

    #[test]
    fn members_stay_in_the_part_they_belong_to() {
        let hashing = Hashing::new(5);
        let mut group = Group::new(subscription(0, 1));
        let mut model = BTreeMap::from([(0, (1, false))]);
        let mut state = 1_u32;
        for step in 0..40_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (subscriber, qos) = (1 + (state >> 12) % 200, (state >> 4) as u8 % 3);
            let id = SubscriberId(subscriber);
            let before = model.get(&subscriber).copied();
            match state >> 8 & 7 {
                0..3 => {
                    let replaced = group.put(&hashing, subscription(subscriber, qos));
                    assert_eq!(replaced, before.map(|(qos, _)| subscription(subscriber, qos)));
                    let is_present = before.is_some_and(|(_, is_present)| is_present);
                    model.insert(subscriber, (qos, is_present));
                }
                3..6 => {
                    let is_present = qos > 0;
                    let is_member = group.set_present(&hashing, id, is_present);
                    assert_eq!(is_member, before.is_some());
                    model.entry(subscriber).and_modify(|member| member.1 = is_present);
                }
                _ => {
                    let removed = group.remove(&hashing, id) != Removed::NoMember;
                    assert_eq!(removed, model.remove(&subscriber).is_some());
                }
            }
            let is_present = model.get(&subscriber).is_some_and(|member| member.1);
            assert_eq!(group.is_present(&hashing, id), is_present);
            if step % 16 == 0 {
                assert_like(&group, &model);
            }
        }
        assert!(group.members.as_slice().len() > 100);
    }

    #[test]
    fn the_last_member_is_removed_with_its_group() {
        let hashing = Hashing::new(5);
        let mut group = Group::new(subscription(7, 0));
        assert!(group.set_present(&hashing, SubscriberId(7), true));
        assert_eq!(group.remove(&hashing, SubscriberId(7)), Removed::Last(subscription(7, 0)));
    }
}
