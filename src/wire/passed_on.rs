//! The properties of a message that a server hands to subscribers as they came. Knows no session.

use std::fmt;

/// Payload Format Indicator, Response Topic, Correlation Data, Content Type and User Properties of
/// a message, still encoded, in the order they came in. Two are equal when they say the same.
#[derive(Clone, Copy, Default)]
pub struct PassedOn<'a> {
    /// A whole property section, checked.
    section: &'a [u8],
    /// How many properties of `section` are not passed on.
    held_back: u32,
    /// How many are.
    passed: u32,
}

impl<'a> PassedOn<'a> {
    /// The encoded properties where they lie together, which is the usual case.
    pub fn as_slice(&self) -> Option<&'a [u8]> {
        unimplemented!()
    }

    /// Whether there is nothing to pass on.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// Appends the encoded properties to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let _ = out;
        unimplemented!()
    }
}

impl PartialEq for PassedOn<'_> {
    fn eq(&self, other: &Self) -> bool {
        let _ = other;
        unimplemented!()
    }
}

impl fmt::Debug for PassedOn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassedOn").finish_non_exhaustive()
    }
}
