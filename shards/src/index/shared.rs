//! Shared filters. Those that differ only in their ShareName are linked in a chain, so that a
//! matching Topic Name finds all of them. Does not choose a member of a group.

use std::ops::{Index, IndexMut};

use super::filter::Place;
use super::group::Group;
use crate::id_table::IdTable;
use crate::slab::{Id, Slab};
use crate::text::Text;
use crate::topic::SHARE_PREFIX;

/// A filter with a ShareName.
#[derive(Debug)]
pub(crate) struct SharedFilter {
    pub(crate) name: Text,
    pub(crate) place: Place,
    pub(crate) group: Group,
    /// Hash of the full text.
    hash: u32,
    previous: Option<Id<SharedFilter>>,
    next: Option<Id<SharedFilter>>,
}

#[derive(Debug, Default)]
pub(crate) struct SharedFilters {
    filters: Slab<SharedFilter>,
    /// All shared filters by full text.
    by_text: IdTable,
    /// For each filter without a wildcard, the first of its chain, by the text without the
    /// ShareName. The chains of other filters start at their trie node.
    exact: IdTable,
    /// Bytes of names and texts that are not stored inline.
    text_bytes: usize,
}

impl SharedFilters {
    pub(crate) fn get(&self, id: Id<SharedFilter>) -> Option<&SharedFilter> {
        self.filters.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: Id<SharedFilter>) -> Option<&mut SharedFilter> {
        self.filters.get_mut(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.filters.len()
    }

    /// Bytes of allocated memory, without the members.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.filters.bytes() + self.by_text.bytes() + self.exact.bytes() + self.text_bytes
    }

    /// The shared filter whose full text is `text`. `is_node` tells whether the path of a node
    /// spells a text.
    pub(crate) fn find(
        &self,
        hash: u32,
        text: &str,
        is_node: impl Fn(&Place, &str) -> bool,
    ) -> Option<Id<SharedFilter>> {
        let (name, filter) = text.strip_prefix(SHARE_PREFIX)?.split_once('/')?;
        let is = |number| {
            let found = Id::from_number(number).map(|id: Id<SharedFilter>| &self.filters[id]);
            found.is_some_and(|found| found.name == *name && is_node(&found.place, filter))
        };
        self.by_text.find(hash, is).and_then(Id::from_number)
    }

    /// The first shared filter whose filter equals `topic`.
    pub(crate) fn first_exact(&self, hash: u32, topic: &str) -> Option<Id<SharedFilter>> {
        if self.exact.is_empty() {
            return None;
        }
        let is = |number| {
            let first = Id::from_number(number).map(|id: Id<SharedFilter>| &self.filters[id]);
            matches!(first, Some(SharedFilter { place: Place::Exact(text), .. }) if *text == *topic)
        };
        self.exact.find(hash, is).and_then(Id::from_number)
    }

    /// The chain starting at `first`.
    pub(crate) fn chain(
        &self,
        first: Option<Id<SharedFilter>>,
    ) -> impl Iterator<Item = Id<SharedFilter>> {
        std::iter::successors(first, |id| self.filters[*id].next)
    }

    /// Adds a filter with the hash of its full text, before `first`, the start of its chain.
    pub(crate) fn insert(
        &mut self,
        hash: u32,
        (name, place, group): (&str, Place, Group),
        first: Option<Id<SharedFilter>>,
    ) -> Id<SharedFilter> {
        let name = Text::new(name);
        self.text_bytes += name.heap_bytes() + place.heap_bytes();
        let filter = SharedFilter { name, place, group, hash, previous: None, next: first };
        let id = self.filters.insert(filter);
        if let Some(first) = first {
            self.filters[first].previous = Some(id);
        }
        self.by_text.insert(hash, id.number());
        id
    }

    /// Removes `id`. If it was the start of its chain, the owner of that start must replace it by
    /// [`Removal::first`].
    pub(crate) fn remove(&mut self, id: Id<SharedFilter>) -> Removal {
        let filter = self.filters.remove(id);
        self.text_bytes -= filter.name.heap_bytes() + filter.place.heap_bytes();
        self.by_text.remove(filter.hash, id.number());
        if let Some(next) = filter.next {
            self.filters[next].previous = filter.previous;
        }
        if let Some(previous) = filter.previous {
            self.filters[previous].next = filter.next;
        }
        Removal { was_first: filter.previous.is_none(), first: filter.next, place: filter.place }
    }

    #[cfg(test)]
    pub(crate) fn is_vacated(&self) -> bool {
        self.len() == 0 && self.by_text.is_empty() && self.exact.is_empty()
    }

    /// Sets the start of the chain for a filter without a wildcard, whose text has this hash.
    pub(crate) fn start_exact(
        &mut self,
        hash: u32,
        from: Option<Id<SharedFilter>>,
        to: Option<Id<SharedFilter>>,
    ) {
        match (from, to) {
            (None, None) => {}
            (None, Some(to)) => self.exact.insert(hash, to.number()),
            (Some(from), None) => self.exact.remove(hash, from.number()),
            (Some(from), Some(to)) => self.exact.replace(hash, from.number(), to.number()),
        }
    }
}

impl Index<Id<SharedFilter>> for SharedFilters {
    type Output = SharedFilter;

    fn index(&self, id: Id<SharedFilter>) -> &SharedFilter {
        &self.filters[id]
    }
}

impl IndexMut<Id<SharedFilter>> for SharedFilters {
    fn index_mut(&mut self, id: Id<SharedFilter>) -> &mut SharedFilter {
        &mut self.filters[id]
    }
}

/// The work that the removal of a shared filter leaves to the caller.
pub(crate) struct Removal {
    pub(crate) was_first: bool,
    pub(crate) first: Option<Id<SharedFilter>>,
    pub(crate) place: Place,
}
