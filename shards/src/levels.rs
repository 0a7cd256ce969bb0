//! Interned levels: each text that a level of the trees has is kept once, counted, under an id.
//! Knows no tree.

use crate::hash::Hashing;
use crate::id_table::IdTable;
use crate::slab::{Id, Slab};
use crate::text::Text;

pub(crate) type LevelId = Id<Level>;

/// A text that some node's level has.
#[derive(Debug)]
pub(crate) struct Level {
    text: Text,
    /// Nodes that hold it. Never zero.
    holders: u32,
}

#[derive(Debug)]
pub(crate) struct Levels {
    hashing: Hashing,
    by_text: IdTable,
    levels: Slab<Level>,
    /// Of the texts that are not kept in place.
    text_bytes: usize,
}

impl Levels {
    pub(crate) fn new(hashing: Hashing) -> Self {
        Self { hashing, by_text: IdTable::default(), levels: Slab::default(), text_bytes: 0 }
    }

    /// The id of `text`, if any node holds it.
    pub(crate) fn find(&self, text: &str) -> Option<LevelId> {
        self.find_hashed(self.hashing.text(text), text)
    }

    fn find_hashed(&self, hash: u32, text: &str) -> Option<LevelId> {
        let is = |number| {
            Id::from_number(number).is_some_and(|id: LevelId| self.levels[id].text == *text)
        };
        self.by_text.find(hash, is).and_then(Id::from_number)
    }

    /// The id of `text`, held once more.
    pub(crate) fn hold(&mut self, text: &str) -> LevelId {
        let hash = self.hashing.text(text);
        if let Some(id) = self.find_hashed(hash, text) {
            self.levels[id].holders += 1;
            return id;
        }
        let text = Text::new(text);
        self.text_bytes += text.heap_bytes();
        let id = self.levels.insert(Level { text, holders: 1 });
        self.by_text.insert(hash, id.number());
        id
    }

    /// Give back one holding of `id`; with the last one it is vacated.
    pub(crate) fn release(&mut self, id: LevelId) {
        let level = &mut self.levels[id];
        level.holders -= 1;
        if level.holders == 0 {
            let level = self.levels.remove(id);
            self.text_bytes -= level.text.heap_bytes();
            self.by_text.remove(self.hashing.text(level.text.as_str()), id.number());
        }
    }

    /// Bytes of memory that they take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.by_text.bytes() + self.levels.bytes() + self.text_bytes
    }

    pub(crate) fn text(&self, id: LevelId) -> &str {
        self.levels[id].text.as_str()
    }

    /// The text's bytes, which order as it does.
    pub(crate) fn bytes(&self, id: LevelId) -> &[u8] {
        self.levels[id].text.as_bytes()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.levels.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_kept_once_and_as_long_as_it_is_held() {
        let mut levels = Levels::new(Hashing::new(1));
        let a = levels.hold("a");
        let empty = levels.hold("");
        assert_eq!(levels.hold("a"), a);
        assert_eq!((levels.text(a), levels.text(empty), levels.len()), ("a", "", 2));
        levels.release(a);
        assert_eq!(levels.find("a"), Some(a));
        levels.release(a);
        assert_eq!(levels.find("a"), None);
        assert_eq!(levels.hold("b"), a, "a vacated id is reused");
        levels.release(a);
        levels.release(empty);
        assert!(levels.len() == 0 && levels.by_text.is_empty());
    }
}
