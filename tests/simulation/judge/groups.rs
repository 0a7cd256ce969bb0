//! Messages of shared subscriptions.

use std::collections::BTreeSet;

use super::{Judge, Subscriber, matches};

impl Judge {
    /// One copy per group: at most one if no member left meanwhile, and at least one if a member
    /// stayed.
    pub(super) fn judge_groups(&self, number: usize) -> Result<(), String> {
        let of = &self.messages[number];
        if of.is_resent && of.qos < 2 {
            return Ok(());
        }
        let left = self.left_groups.iter().filter(|(filter, _)| matches(filter, of.topic));
        let left_qos = left.map(|(_, &qos)| qos).min();
        let held = || {
            let held = self.subscribers.iter().flat_map(|s| &s.subscriptions);
            held.filter(|h| h.filter.starts_with("$share/") && matches(h.filter, of.topic))
        };
        let groups: BTreeSet<&str> = held().map(|held| held.filter).collect();
        let asked = self.subscribers.iter().flat_map(|s| &s.asked);
        let asked = asked.filter(|(f, _)| f.starts_with("$share/") && matches(f, of.topic));
        let lowest_qos = asked.clone().map(|(_, &qos)| qos).chain(left_qos).min();
        let perhaps: BTreeSet<&str> =
            groups.iter().copied().chain(asked.clone().map(|(&filter, _)| filter)).collect();
        // Groups whose members all are sure to have subscribed before, and lose no messages; a
        // member that has not received its SUBACK may be one of them.
        let is_sure = |group: &&&str| {
            held().filter(|h| h.filter == **group).all(|h| h.qos > 0 && h.since < of.sent_at)
                && asked.clone().all(|(filter, &qos)| *filter != **group || qos > 0)
        };
        let sure = groups.iter().filter(is_sure).count();
        let copies: usize = (0..self.subscribers.len())
            .filter_map(|client| self.received.get(&(number, client)))
            .map(Vec::len)
            .sum();
        // A core that does not know a new member yet queues the message for a disconnected member
        // it knows.
        let somebody_is_away = |group: &str| {
            self.subscribers.iter().any(|s| s.connected_at.is_none() && s.asked.contains_key(group))
        };
        let has_stayed = |s: &Subscriber, group: &str| {
            let until = if somebody_is_away(group) { self.settled_at } else { of.sent_at };
            s.connected_at.is_some_and(|since| since < until)
                && s.subscriptions.iter().any(|h| h.filter == group && h.since < until)
        };
        let served = groups.iter().filter(|&group| {
            !self.unsubscribed_groups.contains(group)
                && self.subscribers.iter().any(|s| has_stayed(s, group))
        });
        if of.qos == 1 && lowest_qos > Some(0) && copies < served.clone().count() {
            let served: Vec<_> = served.collect();
            return Err(format!(
                "message {number} was delivered {copies} times to {served:?}, which stayed"
            ));
        }
        // A disconnected member resumed its session: messages that were queued had a recipient.
        let have_come_back = |group: &&str| {
            let is_member = |s: &&Subscriber| s.asked.contains_key(*group);
            !self.ended_groups.contains(*group)
                && self.subscribers.iter().filter(is_member).all(|s| {
                    s.connected_at.is_some()
                        && s.subscriptions
                            .iter()
                            .any(|h| h.filter == *group && h.since < of.sent_at)
                })
        };
        let owed = groups.iter().filter(|group| have_come_back(group)).count();
        if lowest_qos > Some(0) && of.qos > 0 && copies < owed {
            return Err(format!(
                "message {number} was delivered {copies} times to {groups:?}, which reconnected"
            ));
        }
        let is_once = of.qos == 2 && lowest_qos == Some(2);
        let has_ended = self.ended_groups.iter().any(|filter| matches(filter, of.topic));
        if is_once && !has_ended && copies > perhaps.len() {
            return Err(format!(
                "message {number} was delivered {copies} times to {perhaps:?} at QoS 2"
            ));
        }
        if left_qos.is_some() {
            return Ok(());
        }
        // A client that disconnected before SUBACK may be a member nevertheless.
        let is_member_away = self.subscribers.iter().any(|s| {
            s.connected_at.is_none() && s.asked.keys().any(|filter| groups.contains(filter))
        });
        if copies > perhaps.len() {
            return Err(format!("message {number} was delivered {copies} times to {groups:?}"));
        }
        if of.qos > 0 && copies < sure && !is_member_away {
            return Err(format!(
                "message {number} was delivered {copies} times to {groups:?}, all connected"
            ));
        }
        Ok(())
    }
}
