//! Interned levels: each text of a level in the trees is stored once, with a reference count, under
//! an id. Knows no tree.

use crate::hash::Hashing;
use crate::id_table::IdTable;
use crate::slab::{Id, Slab};
use crate::text::Text;

pub(crate) type LevelId = Id<Level>;

/// The text of a level.
#[derive(Debug)]
pub(crate) struct Level {
    text: Text,
    /// Number of references. Never zero.
    holders: u32,
}

#[derive(Debug)]
pub(crate) struct Levels {
    hashing: Hashing,
    by_text: IdTable,
    levels: Slab<Level>,
    /// Bytes of the texts that are not stored inline.
    text_bytes: usize,
}

impl Levels {
    pub(crate) fn new(hashing: Hashing) -> Self {
        Self { hashing, by_text: IdTable::default(), levels: Slab::default(), text_bytes: 0 }
    }

    /// The id of `text`, if it is interned.
    pub(crate) fn find(&self, text: &str) -> Option<LevelId> {
        self.find_hashed(self.hashing.text(text), text)
    }

    fn find_hashed(&self, hash: u32, text: &str) -> Option<LevelId> {
        let is = |number| {
            Id::from_number(number).is_some_and(|id: LevelId| self.levels[id].text == *text)
        };
        self.by_text.find(hash, is).and_then(Id::from_number)
    }

    /// The id of `text`, with its reference count incremented.
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

    /// Releases one reference to `id`; the last one frees it.
    pub(crate) fn release(&mut self, id: LevelId) {
        let level = &mut self.levels[id];
        level.holders -= 1;
        if level.holders == 0 {
            let level = self.levels.remove(id);
            self.text_bytes -= level.text.heap_bytes();
            self.by_text.remove(self.hashing.text(level.text.as_bytes()), id.number());
        }
    }

    /// Bytes of allocated memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.by_text.bytes() + self.levels.bytes() + self.text_bytes
    }

    pub(crate) fn text(&self, id: LevelId) -> &str {
        self.levels[id].text.as_str()
    }

    /// The text's bytes, which have the same order as the text.
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
    fn a_level_is_stored_once_and_freed_with_its_last_reference() {
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
