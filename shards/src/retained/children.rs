//! The ordered children of a node: none, one, or a million. Does not define the order.

use std::cmp::Ordering;

use crate::slab::heap;

/// Maximum length of a row. An insertion moves half a row on average, and a search reads the end of
/// a row per halving of the rows, so neither should be much longer than the other.
const ROW_MAX: usize = 256;

/// An ordered list. Most nodes have at most one child, which needs no allocation.
#[derive(Debug, Default)]
pub(crate) enum Children<C> {
    #[default]
    None,
    One(C),
    /// Two or more children, or the rest of them after removals.
    Many(Box<Rows<C>>),
}

/// Non-empty rows: an insertion into a million children moves a few hundred.
#[derive(Debug)]
pub(crate) struct Rows<C> {
    rows: Vec<Vec<C>>,
    /// Bytes of memory of the rows, without the list of rows.
    row_bytes: usize,
}

/// The position of an existing or missing child, valid until the list changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    row: usize,
    column: usize,
}

impl<C: Copy> Children<C> {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Bytes of memory allocated outside the value.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::None | Self::One(_) => 0,
            Self::Many(rows) => {
                let list = rows.rows.capacity() * size_of::<Vec<C>>();
                heap(size_of::<Rows<C>>()) + heap(list) + rows.row_bytes
            }
        }
    }

    /// The position of the first child that does not compare as [`Ordering::Less`], and whether it
    /// is equal. `order` compares a child with the searched one.
    pub(crate) fn search(&self, order: impl Fn(C) -> Ordering) -> (Place, bool) {
        match self {
            Self::None => (Place::default(), false),
            Self::One(only) => {
                let order = order(*only);
                (Place { row: 0, column: usize::from(order.is_lt()) }, order.is_eq())
            }
            Self::Many(rows) => rows.search(order),
        }
    }

    /// The child at `place`, and the next position.
    pub(crate) fn get(&self, place: Place) -> Option<(C, Place)> {
        match self {
            Self::None => None,
            Self::One(only) => (place.column == 0).then_some((*only, Place { row: 0, column: 1 })),
            Self::Many(rows) => rows.get(place),
        }
    }

    /// Inserts `child` before `place`, a result of a search.
    pub(crate) fn insert(&mut self, place: Place, child: C) {
        match self {
            Self::None => *self = Self::One(child),
            Self::One(only) => {
                let row = if place.column == 0 { vec![child, *only] } else { vec![*only, child] };
                let row_bytes = row_bytes(&row);
                *self = Self::Many(Box::new(Rows { rows: vec![row], row_bytes }));
            }
            Self::Many(rows) => rows.insert(place, child),
        }
    }

    /// Removes the child at `place`, a result of a search.
    pub(crate) fn remove(&mut self, place: Place) {
        if let Self::Many(rows) = self {
            rows.remove(place);
            if !rows.rows.is_empty() {
                return;
            }
        }
        *self = Self::None;
    }
}

impl<C: Copy> Rows<C> {
    fn search(&self, order: impl Fn(C) -> Ordering) -> (Place, bool) {
        let is_before = |row: &Vec<C>| row.last().is_some_and(|last| order(*last).is_lt());
        // A position past the end of the last row becomes that end.
        let row = self.rows.partition_point(is_before).min(self.rows.len() - 1);
        let column = self.rows[row].partition_point(|child| order(*child).is_lt());
        let equal = self.rows[row].get(column).is_some_and(|child| order(*child).is_eq());
        (Place { row, column }, equal)
    }

    fn get(&self, Place { row, column }: Place) -> Option<(C, Place)> {
        if let Some(child) = self.rows.get(row)?.get(column) {
            return Some((*child, Place { row, column: column + 1 }));
        }
        let child = self.rows.get(row + 1)?.first()?;
        Some((*child, Place { row: row + 1, column: 1 }))
    }

    fn insert(&mut self, Place { row, column }: Place, child: C) {
        let lower = &mut self.rows[row];
        self.row_bytes -= row_bytes(lower);
        if lower.len() < ROW_MAX {
            lower.insert(column, child);
            self.row_bytes += row_bytes(lower);
            return;
        }
        // Ascending insertions fill their rows; others leave them half full.
        let kept = if column == ROW_MAX { ROW_MAX } else { ROW_MAX / 2 };
        let mut upper = lower.split_off(kept);
        if column < kept {
            lower.insert(column, child);
        } else {
            upper.insert(column - kept, child);
        }
        self.row_bytes += row_bytes(lower) + row_bytes(&upper);
        self.rows.insert(row + 1, upper);
    }

    fn remove(&mut self, Place { row, column }: Place) {
        let children = &mut self.rows[row];
        self.row_bytes -= row_bytes(children);
        children.remove(column);
        if children.is_empty() {
            self.rows.remove(row);
            if self.rows.len() < self.rows.capacity() / 4 {
                self.rows.shrink_to(self.rows.len() * 2);
            }
            return;
        }
        if children.len() < children.capacity() / 4 {
            children.shrink_to(children.len() * 2);
        }
        self.row_bytes += row_bytes(children);
    }
}

fn row_bytes<C>(row: &Vec<C>) -> usize {
    heap(row.capacity() * size_of::<C>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn listed(children: &Children<u32>, mut place: Place) -> Vec<u32> {
        let mut listed = Vec::new();
        while let Some((child, next)) = children.get(place) {
            listed.push(child);
            place = next;
        }
        listed
    }

    fn toggle(children: &mut Children<u32>, model: &mut BTreeSet<u32>, number: u32) {
        let (place, found) = children.search(|child| child.cmp(&number));
        assert_eq!(found, model.contains(&number));
        if found {
            children.remove(place);
            model.remove(&number);
        } else {
            children.insert(place, number);
            model.insert(number);
        }
    }

    #[test]
    fn a_list_of_any_length_behaves_like_an_ordered_set() {
        let (mut children, mut model) = (Children::default(), BTreeSet::new());
        let mut state = 1_u32;
        for step in 0..6_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            toggle(&mut children, &mut model, (state >> 8) % 3_000);
            if step % 100 == 0 {
                let from = (state >> 12) % 3_000;
                let (place, _) = children.search(|child| child.cmp(&from));
                assert_eq!(listed(&children, place), Vec::from_iter(model.range(from..).copied()));
            }
        }
        assert!(matches!(&children, Children::Many(rows) if rows.rows.len() > 5));
        for number in model.clone() {
            toggle(&mut children, &mut model, number);
        }
        assert!(children.is_empty());
    }

    #[test]
    fn children_inserted_in_order_fill_their_rows() {
        let mut children = Children::default();
        for number in 0..10 * ROW_MAX as u32 {
            let (place, _) = children.search(|child: u32| child.cmp(&number));
            children.insert(place, number);
        }
        assert!(matches!(&children, Children::Many(rows) if rows.rows.len() == 10));
        assert_eq!(listed(&children, Place::default()).len(), 10 * ROW_MAX);
    }
}
