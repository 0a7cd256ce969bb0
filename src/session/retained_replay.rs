//! Retained replay: retained messages that new subscriptions of a session still await.

use std::collections::{HashMap, VecDeque};

use shards::FilterId;

use crate::resources::gauges::{Charge, Ledger};
use crate::session::outbound::Identifiers;
use crate::wire::Qos;

/// The replays of a session, in the order of their subscriptions; few sessions have any.
#[derive(Debug, Default)]
pub struct Replays(Option<Box<Line>>);

/// Replays in line, each by its number in it. A replay that is replaced, or whose subscription ends,
/// leaves an empty place.
#[derive(Debug, Default)]
struct Line {
    line: VecDeque<Option<Replay>>,
    /// Places that were removed at the front of the line.
    gone: u64,
    /// Numbers by subscription, where the line is too long to be searched.
    numbers: Option<HashMap<FilterId, u64>>,
    charge: Charge,
}

impl Replays {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds a replay, which replaces an earlier one of the same subscription.
    pub fn push(&mut self, replay: Replay, ledger: &Ledger) {
        let replays = self.0.get_or_insert_default();
        replays.empty(replay.subscription);
        replays.add(replay);
        replays.tidy();
        replays.charge.set(ledger, replays.heap_bytes());
    }

    /// The replay whose turn it is.
    pub fn first(&self) -> Option<&Replay> {
        self.0.as_ref()?.line.front()?.as_ref()
    }

    /// The replay whose turn it is, to continue it.
    pub fn first_mut(&mut self) -> Option<&mut Replay> {
        self.0.as_mut()?.line.front_mut()?.as_mut()
    }

    /// Ends the replay whose turn it is.
    pub fn end_first(&mut self) {
        if let Some(subscription) = self.first().map(|first| first.subscription) {
            self.end(subscription);
        }
    }

    /// Ends the replay of a subscription.
    pub fn end(&mut self, subscription: FilterId) {
        let Some(replays) = &mut self.0 else { return };
        replays.empty(subscription);
        replays.tidy();
        if replays.line.is_empty() {
            self.0 = None;
        }
    }
}

/// Length of a line up to which it is searched; the replays of a longer one are found by a table.
const SEARCHED_MAX: usize = 16;

/// Empty places that a line may have, besides as many as it has replays.
const EMPTY_MAX: usize = 64;

impl Line {
    fn add(&mut self, replay: Replay) {
        if let Some(numbers) = &mut self.numbers {
            numbers.insert(replay.subscription, self.gone + self.line.len() as u64);
        }
        self.line.push_back(Some(replay));
        let is_loose = match &self.numbers {
            Some(numbers) => self.line.len() > 2 * numbers.len() + EMPTY_MAX,
            None => self.line.len() > SEARCHED_MAX,
        };
        if is_loose {
            self.close_ranks();
        }
    }

    fn empty(&mut self, subscription: FilterId) {
        let is_it = |replay: &Replay| replay.subscription == subscription;
        let place = match &mut self.numbers {
            Some(numbers) => {
                numbers.remove(&subscription).map(|number| (number - self.gone) as usize)
            }
            None => self.line.iter().position(|replay| replay.as_ref().is_some_and(is_it)),
        };
        if let Some(place) = place {
            self.line[place] = None;
        }
    }

    /// Sees to it that the first place in line is not empty.
    fn tidy(&mut self) {
        while self.line.pop_front_if(|replay| replay.is_none()).is_some() {
            self.gone += 1;
        }
    }

    /// Removes all empty places, and numbers the replays where they are many. Each empty place was made
    /// by a replay that was added, so that the cost is small for each of these.
    fn close_ranks(&mut self) {
        self.line.retain(Option::is_some);
        let numbered = self.line.iter().flatten().zip(self.gone..);
        let number = |(replay, number): (&Replay, u64)| (replay.subscription, number);
        let is_long = self.line.len() > SEARCHED_MAX;
        self.numbers = is_long.then(|| numbered.map(number).collect());
    }

    fn heap_bytes(&self) -> usize {
        let numbers = self.numbers.as_ref().map_or(0, HashMap::capacity);
        size_of::<Self>()
            + self.line.capacity() * size_of::<Option<Replay>>()
            + numbers * size_of::<(FilterId, u64)>()
    }
}

/// Retained messages that one new subscription still awaits, read by cursor.
#[derive(Debug)]
pub struct Replay {
    /// The position in the retained messages.
    pub cursor: shards::Cursor,
    /// QoS granted.
    pub qos: Qos,
    /// Its Subscription Identifier.
    pub subscription_identifiers: Identifiers,
    /// The subscription: unsubscribing ends the replay.
    pub subscription: FilterId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(subscription: u32, qos: Qos) -> Replay {
        Replay {
            cursor: shards::Cursor::default(),
            qos,
            subscription_identifiers: Identifiers::None,
            subscription: FilterId(subscription),
        }
    }

    #[test]
    fn a_replay_replaces_the_one_of_its_subscription_and_stands_last() {
        let mut replays = Replays::default();
        for subscription in [1, 2, 3] {
            replays.push(replay(subscription, Qos::AtMostOnce), &Ledger::default());
        }
        replays.push(replay(1, Qos::AtLeastOnce), &Ledger::default());
        replays.end(FilterId(2));
        let mut order = Vec::new();
        while let Some(first) = replays.first() {
            order.push((first.subscription.0, first.qos));
            replays.end_first();
        }
        assert_eq!(order, [(3, Qos::AtMostOnce), (1, Qos::AtLeastOnce)]);
        assert!(replays.is_empty());
    }

    #[test]
    fn replays_that_replace_each_other_take_no_more_places_than_subscriptions() {
        for subscriptions in [2, 16, 17, 100] {
            let (mut replays, ledger) = (Replays::default(), Ledger::default());
            for round in 0..10_000_u32 {
                replays.push(replay(round % subscriptions, Qos::AtMostOnce), &ledger);
            }
            let line = replays.0.as_ref().expect("there are some");
            assert_eq!(line.line.iter().flatten().count(), subscriptions as usize);
            assert!(line.line.len() <= 2 * subscriptions as usize + EMPTY_MAX);
            assert!(ledger.bytes() >= u64::from(subscriptions) * size_of::<Replay>() as u64);
            for subscription in 0..subscriptions {
                replays.end(FilterId(subscription));
            }
            assert!(replays.is_empty());
            assert_eq!(ledger.bytes(), 0);
        }
    }
}
