//! Topic Aliases that this server sets on one Network Connection. Lost with the connection [MQTT-3.3.2-7].

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::base::limits;
use crate::resources::gauges::{Charge, Ledger};

/// A topic no longer than this is not worth an alias: the property itself takes three bytes.
const TOPIC_BYTES_MIN: usize = 4;

/// Uses remembered for an alias at most, so that an old favourite can still be replaced.
const USES_MAX: u8 = 3;

/// Aliases this server sets for what it sends.
///
/// While there is room every topic gets an alias on its first use. When all are taken, a hand goes
/// round (the CLOCK replacement algorithm, Corbató 1968, with a short counter): a topic that comes
/// without an alias takes one use from the alias under the hand, and takes its place once that has
/// none left. Topics in steady use keep their alias; a parade of one-time topics sets none.
#[derive(Debug)]
pub struct OutgoingAliases {
    entries: Vec<Entry>,
    by_topic: HashTable<u16>,
    hasher: DefaultHashBuilder,
    maximum: u16,
    hand: u16,
    /// Bytes of the topics.
    topic_bytes: usize,
    charge: Charge,
}

#[derive(Debug)]
struct Entry {
    topic: Box<str>,
    uses: u8,
}

/// How to send a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasUse {
    /// Without an alias.
    None,
    /// With the Topic Name and this alias, which is set by it.
    Set(u16),
    /// With the alias alone.
    Known(u16),
}

impl OutgoingAliases {
    /// At most `maximum` aliases: the client's Topic Alias Maximum, or our own bound if lower.
    pub fn new(maximum: u16, ledger: &Ledger) -> Self {
        assert!(maximum > 0, "a client that takes no alias has no table");
        Self {
            entries: Vec::new(),
            by_topic: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            maximum,
            hand: 0,
            topic_bytes: 0,
            charge: Charge::on(ledger),
        }
    }

    /// Decides how `topic` is sent now, and remembers it as sent.
    pub fn choose(&mut self, topic: &str) -> AliasUse {
        if !(TOPIC_BYTES_MIN..=limits::CACHED_TOPIC_BYTES_MAX).contains(&topic.len()) {
            return AliasUse::None;
        }
        let hash = self.hasher.hash_one(topic);
        let entries = &mut self.entries;
        if let Some(&index) =
            self.by_topic.find(hash, |&index| &*entries[usize::from(index)].topic == topic)
        {
            let entry = &mut entries[usize::from(index)];
            entry.uses = (entry.uses + 1).min(USES_MAX);
            return AliasUse::Known(index + 1);
        }
        let Some(index) = self.vacancy() else { return AliasUse::None };
        let entry = Entry { topic: topic.into(), uses: 1 };
        self.topic_bytes += topic.len();
        if usize::from(index) == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.forget(index);
            self.entries[usize::from(index)] = entry;
        }
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.by_topic.insert_unique(hash, index, |&other| {
            hasher.hash_one(&*entries[usize::from(other)].topic)
        });
        let entry_bytes = size_of::<Entry>() + size_of::<u16>() + 1;
        self.charge.update(self.topic_bytes + self.entries.capacity() * entry_bytes);
        AliasUse::Set(index + 1)
    }

    /// The topic that an alias stands for now.
    pub fn topic(&self, alias: u16) -> Option<&str> {
        let index = usize::from(alias).checked_sub(1)?;
        self.entries.get(index).map(|entry| &*entry.topic)
    }

    fn vacancy(&mut self) -> Option<u16> {
        if self.entries.len() < usize::from(self.maximum) {
            return Some(self.entries.len() as u16);
        }
        let index = self.hand;
        self.hand = (self.hand + 1) % self.maximum;
        let entry = &mut self.entries[usize::from(index)];
        if entry.uses == 0 {
            return Some(index);
        }
        entry.uses -= 1;
        None
    }

    fn forget(&mut self, index: u16) {
        self.topic_bytes -= self.entries[usize::from(index)].topic.len();
        let hash = self.hasher.hash_one(&*self.entries[usize::from(index)].topic);
        if let Ok(found) = self.by_topic.find_entry(hash, |&other| other == index) {
            found.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_set_once_and_then_stands_for_the_topic() {
        let mut aliases = OutgoingAliases::new(2, &Ledger::default());
        assert_eq!(aliases.choose("a/long/topic"), AliasUse::Set(1));
        assert_eq!(aliases.choose("a/long/topic"), AliasUse::Known(1));
        assert_eq!(aliases.choose("another/topic"), AliasUse::Set(2));
        assert_eq!(aliases.choose("abc"), AliasUse::None);
    }

    #[test]
    fn a_topic_in_use_keeps_its_alias_against_a_parade_of_others() {
        let mut aliases = OutgoingAliases::new(1, &Ledger::default());
        aliases.choose("steady");
        for round in 0..100 {
            assert_eq!(aliases.choose("steady"), AliasUse::Known(1));
            assert_eq!(aliases.choose(&format!("once/{round}")), AliasUse::None);
        }
    }

    #[test]
    fn an_abandoned_topic_gives_its_alias_away() {
        let mut aliases = OutgoingAliases::new(1, &Ledger::default());
        for _ in 0..10 {
            aliases.choose("yesterday");
        }
        let sent: Vec<AliasUse> = (0..6).map(|_| aliases.choose("today")).collect();
        assert_eq!(sent[3..], [AliasUse::Set(1), AliasUse::Known(1), AliasUse::Known(1)]);
        assert_ne!(aliases.choose("yesterday"), AliasUse::Known(1));
    }
}
