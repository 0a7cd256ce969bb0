//! The children of a node in order: none, one, or a million. Knows not what orders them.

use std::cmp::Ordering;

/// The longest row. Inserting moves half a row on average, and a search reads a row's end for each
/// halving of the rows, so neither should be much longer than the other.
const ROW_MAX: usize = 256;

/// An ordered list. A short one is a vector; a long one is cut into rows, so that inserting into a
/// million moves a few hundred.
#[derive(Debug)]
pub(crate) enum Children<C> {
    Row(Vec<C>),
    /// Two or more rows, none empty.
    Rows(Vec<Vec<C>>),
}

/// Where a child is, or would be, until the list changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    row: usize,
    column: usize,
}

impl<C> Default for Children<C> {
    fn default() -> Self {
        Self::Row(Vec::new())
    }
}

impl<C: Copy> Children<C> {
    fn rows(&self) -> &[Vec<C>] {
        match self {
            Self::Row(row) => std::slice::from_ref(row),
            Self::Rows(rows) => rows,
        }
    }

    fn row_mut(&mut self, row: usize) -> &mut Vec<C> {
        match self {
            Self::Row(only) => only,
            Self::Rows(rows) => &mut rows[row],
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows()[0].is_empty()
    }

    /// The place of the first child that is not [`Ordering::Less`] than what is searched for, and
    /// whether it is equal. `order` tells how a child compares with it.
    pub(crate) fn search(&self, order: impl Fn(C) -> Ordering) -> (Place, bool) {
        let rows = self.rows();
        let is_before = |row: &Vec<C>| row.last().is_some_and(|last| order(*last).is_lt());
        // Past the last row's end is the end of the last row.
        let row = rows.partition_point(is_before).min(rows.len() - 1);
        let column = rows[row].partition_point(|child| order(*child).is_lt());
        let equal = rows[row].get(column).is_some_and(|child| order(*child).is_eq());
        (Place { row, column }, equal)
    }

    /// The child at `place`, and the place after it.
    pub(crate) fn get(&self, place: Place) -> Option<(C, Place)> {
        let rows = self.rows();
        let Place { row, column } = place;
        if let Some(child) = rows.get(row)?.get(column) {
            return Some((*child, Place { row, column: column + 1 }));
        }
        let child = rows.get(row + 1)?.first()?;
        Some((*child, Place { row: row + 1, column: 1 }))
    }

    /// Put `child` before the one at `place`, which a search gave.
    pub(crate) fn insert(&mut self, place: Place, child: C) {
        let Place { row, column } = place;
        let into = self.row_mut(row);
        if into.len() < ROW_MAX {
            if into.is_empty() {
                // Most nodes with children have one.
                into.reserve_exact(1);
            }
            into.insert(column, child);
            return;
        }
        // Children that come in order fill their rows; others leave them half full.
        let half = if column == ROW_MAX { ROW_MAX } else { ROW_MAX / 2 };
        let mut upper = into.split_off(half);
        if column < half || half < ROW_MAX && column == half {
            into.insert(column, child);
        } else {
            upper.insert(column - half, child);
        }
        match self {
            Self::Row(lower) => *self = Self::Rows(vec![std::mem::take(lower), upper]),
            Self::Rows(rows) => rows.insert(row + 1, upper),
        }
    }

    /// Take out the child at `place`, which a search found.
    pub(crate) fn remove(&mut self, place: Place) {
        let row = self.row_mut(place.row);
        row.remove(place.column);
        if row.len() < row.capacity() / 4 {
            row.shrink_to(row.len() * 2);
        }
        let emptied = row.is_empty();
        if let Self::Rows(rows) = self {
            if emptied {
                rows.remove(place.row);
            }
            if let [only] = &mut rows[..] {
                *self = Self::Row(std::mem::take(only));
            }
        }
    }
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
    fn a_list_of_any_length_is_ordered_and_searched_like_a_set() {
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
        assert!(matches!(&children, Children::Rows(rows) if rows.len() > 5));
        for number in model.clone() {
            toggle(&mut children, &mut model, number);
        }
        assert!(children.is_empty() && matches!(&children, Children::Row(row) if row.is_empty()));
    }

    #[test]
    fn children_in_order_fill_their_rows() {
        let mut children = Children::default();
        for number in 0..10 * ROW_MAX as u32 {
            let (place, _) = children.search(|child: u32| child.cmp(&number));
            children.insert(place, number);
        }
        assert!(matches!(&children, Children::Rows(rows) if rows.len() == 10));
        assert_eq!(listed(&children, Place::default()).len(), 10 * ROW_MAX);
    }
}
