//! The subscribers of one filter: one, a few, or a hundred thousand. Knows no filter.

use super::subscription::{SubscriberId, Subscription};
use crate::hash::Hashing;
use crate::id_table::IdTable;
use crate::slab::heap;

/// Up to this length, members are searched linearly and keep the order in which they subscribed. A
/// longer list has a table of positions, so that subscribing and unsubscribing take constant time;
/// a removed member is replaced by the last one.
const SEARCHED_MAX: usize = 64;

/// At least one subscription. Most filters have exactly one, which needs no allocation.
#[derive(Debug)]
pub(crate) enum Members {
    One(Subscription),
    Many(Box<Crowd>),
}

#[derive(Debug, Default)]
pub(crate) struct Crowd {
    list: Vec<Subscription>,
    /// Positions in `list` by subscriber; `None` for a short list.
    places: Option<IdTable>,
}

/// The result of [`Members::remove`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    NoMember,
    /// Removed; other members are left.
    Member(Subscription),
    /// The only member: not removed, as the caller drops the whole list.
    Last(Subscription),
}

impl Members {
    pub(crate) fn as_slice(&self) -> &[Subscription] {
        match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(crowd) => &crowd.list,
        }
    }

    pub(crate) fn get(&self, hashing: &Hashing, subscriber: SubscriberId) -> Option<Subscription> {
        match self {
            Self::One(only) => Some(*only).filter(|only| only.subscriber == subscriber),
            Self::Many(crowd) => crowd.place(hashing, subscriber).map(|place| crowd.list[place]),
        }
    }

    /// Bytes of memory allocated outside the value.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(crowd) => {
                let places = crowd.places.as_ref().map_or(0, IdTable::bytes);
                let list = crowd.list.capacity() * size_of::<Subscription>();
                heap(size_of::<Crowd>()) + heap(list) + places
            }
        }
    }

    /// Position of the subscriber's subscription in the slice.
    pub(crate) fn place(&self, hashing: &Hashing, subscriber: SubscriberId) -> Option<usize> {
        match self {
            Self::One(only) => (only.subscriber == subscriber).then_some(0),
            Self::Many(crowd) => crowd.place(hashing, subscriber),
        }
    }

    /// Swaps two members.
    pub(crate) fn swap(&mut self, hashing: &Hashing, a: usize, b: usize) {
        if let Self::Many(crowd) = self
            && a != b
        {
            crowd.swap(hashing, a, b);
        }
    }

    /// Adds `subscription`, or replaces the same subscriber's subscription.
    pub(crate) fn put(
        &mut self,
        hashing: &Hashing,
        subscription: Subscription,
    ) -> Option<Subscription> {
        match self {
            Self::One(only) if only.subscriber == subscription.subscriber => {
                Some(std::mem::replace(only, subscription))
            }
            Self::One(only) => {
                let list = vec![*only, subscription];
                *self = Self::Many(Box::new(Crowd { list, places: None }));
                None
            }
            Self::Many(crowd) => crowd.put(hashing, subscription),
        }
    }

    pub(crate) fn remove(&mut self, hashing: &Hashing, subscriber: SubscriberId) -> Removed {
        match self {
            Self::One(only) if only.subscriber == subscriber => Removed::Last(*only),
            Self::One(_) => Removed::NoMember,
            Self::Many(crowd) => {
                let Some(removed) = crowd.remove(hashing, subscriber) else {
                    return Removed::NoMember;
                };
                if let [only] = crowd.list[..] {
                    *self = Self::One(only);
                }
                Removed::Member(removed)
            }
        }
    }
}

impl Crowd {
    fn place(&self, hashing: &Hashing, subscriber: SubscriberId) -> Option<usize> {
        let Some(places) = &self.places else {
            return self.list.iter().position(|member| member.subscriber == subscriber);
        };
        let is = |place| self.list[place as usize].subscriber == subscriber;
        places.find(hash(hashing, subscriber), is).map(|place| place as usize)
    }

    fn swap(&mut self, hashing: &Hashing, a: usize, b: usize) {
        self.list.swap(a, b);
        if let Some(places) = &mut self.places {
            let hashes = [a, b].map(|place| hash(hashing, self.list[place].subscriber));
            places.remove(hashes[0], b as u32);
            places.remove(hashes[1], a as u32);
            places.insert(hashes[0], a as u32);
            places.insert(hashes[1], b as u32);
        }
    }

    fn put(&mut self, hashing: &Hashing, subscription: Subscription) -> Option<Subscription> {
        if let Some(place) = self.place(hashing, subscription.subscriber) {
            return Some(std::mem::replace(&mut self.list[place], subscription));
        }
        if let Some(places) = &mut self.places {
            places.insert(hash(hashing, subscription.subscriber), self.list.len() as u32);
        }
        self.list.push(subscription);
        if self.list.len() > SEARCHED_MAX && self.places.is_none() {
            let mut places = IdTable::default();
            for (place, member) in self.list.iter().enumerate() {
                places.insert(hash(hashing, member.subscriber), place as u32);
            }
            self.places = Some(places);
        }
        None
    }

    fn remove(&mut self, hashing: &Hashing, subscriber: SubscriberId) -> Option<Subscription> {
        let place = self.place(hashing, subscriber)?;
        let removed = match &mut self.places {
            None => self.list.remove(place),
            Some(places) => {
                places.remove(hash(hashing, subscriber), place as u32);
                let removed = self.list.swap_remove(place);
                if let Some(moved) = self.list.get(place) {
                    let from = self.list.len() as u32;
                    places.replace(hash(hashing, moved.subscriber), from, place as u32);
                }
                removed
            }
        };
        // A half and a quarter of the bounds provide hysteresis: subscribing and unsubscribing at a
        // bound must not build and drop a table each time.
        if self.list.len() < SEARCHED_MAX / 2 {
            self.places = None;
        }
        if self.list.len() < self.list.capacity() / 4 {
            self.list.shrink_to(self.list.len() * 2);
        }
        Some(removed)
    }
}

fn hash(hashing: &Hashing, subscriber: SubscriberId) -> u32 {
    hashing.number(u64::from(subscriber.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::SubscriptionOptions;
    use std::collections::BTreeMap;

    fn subscription(subscriber: u32, identifier: u32) -> Subscription {
        let options = SubscriptionOptions::new(0, false, false);
        Subscription { subscriber: SubscriberId(subscriber), options, identifier }
    }

    fn subscribers(members: &Members) -> Vec<u32> {
        members.as_slice().iter().map(|member| member.subscriber.0).collect()
    }

    #[test]
    fn a_single_member_needs_no_allocation() {
        let hashing = Hashing::new(0);
        let mut members = Members::One(subscription(1, 0));
        assert_eq!(size_of::<Members>(), 16);
        assert_eq!(members.put(&hashing, subscription(2, 0)), None);
        assert_eq!(members.remove(&hashing, SubscriberId(3)), Removed::NoMember);
        let removed = members.remove(&hashing, SubscriberId(1));
        assert_eq!(removed, Removed::Member(subscription(1, 0)));
        assert!(matches!(members, Members::One(only) if only == subscription(2, 0)));
        let last = members.remove(&hashing, SubscriberId(2));
        assert_eq!(last, Removed::Last(subscription(2, 0)));
    }

    #[test]
    fn a_short_list_keeps_its_order() {
        let hashing = Hashing::new(0);
        let mut members = Members::One(subscription(0, 0));
        (1..10).for_each(|n| assert_eq!(members.put(&hashing, subscription(n, 0)), None));
        members.remove(&hashing, SubscriberId(4));
        assert_eq!(members.put(&hashing, subscription(2, 7)), Some(subscription(2, 0)));
        assert_eq!(subscribers(&members), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
        assert_eq!(members.get(&hashing, SubscriberId(2)), Some(subscription(2, 7)));
    }

    #[test]
    fn members_behave_like_a_map_at_every_size() {
        let hashing = Hashing::new(5);
        let mut model = BTreeMap::from([(0, 0)]);
        let mut members = Members::One(subscription(0, 0));
        let mut state = 1_u32;
        for step in 0..60_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Three phases: grow past every bound, remain, shrink to a few.
            let grow = [3, 2, 1][step / 20_000] > state >> 8 & 3;
            let subscriber = 1 + (state >> 12) % 300;
            let before = model.get(&subscriber).map(|i| subscription(subscriber, *i));
            assert_eq!(members.get(&hashing, SubscriberId(subscriber)), before);
            if grow {
                let new = subscription(subscriber, state >> 4);
                assert_eq!(members.put(&hashing, new), before);
                model.insert(subscriber, state >> 4);
            } else {
                let removed = before.map_or(Removed::NoMember, Removed::Member);
                assert_eq!(members.remove(&hashing, SubscriberId(subscriber)), removed);
                model.remove(&subscriber);
            }
            assert_eq!(members.as_slice().len(), model.len());
        }
    }

    #[test]
    fn changes_of_a_long_list_take_constant_time() {
        let hashing = Hashing::new(5);
        let mut members = Members::One(subscription(0, 0));
        (1..100_000).for_each(|n| assert_eq!(members.put(&hashing, subscription(n, 0)), None));
        for n in 0..99_999 {
            let Members::Many(crowd) = &members else { panic!("{n} are left") };
            let len = crowd.list.len();
            assert!(crowd.places.is_some() || len <= SEARCHED_MAX);
            assert!(crowd.places.is_none() || len >= SEARCHED_MAX / 2);
            let removed = members.remove(&hashing, SubscriberId(n));
            assert_eq!(removed, Removed::Member(subscription(n, 0)));
        }
        assert!(matches!(members, Members::One(_)));
    }
}
