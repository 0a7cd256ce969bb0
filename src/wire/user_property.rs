//! User Properties, still encoded. Knows no meaning of theirs.

use std::fmt;

/// The User Properties of a packet, in order.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// Encoded properties, perhaps with others among them, which are stepped over.
    section: &'a [u8],
}

impl<'a> UserProperties<'a> {
    /// No User Property.
    pub const fn none() -> Self {
        UserProperties { section: &[] }
    }

    /// These, encoded one after the other as [`UserProperties::push`] does it.
    pub const fn encoded(section: &'a [u8]) -> Self {
        UserProperties { section }
    }

    /// Appends one encoded User Property to `section`.
    pub fn push(section: &mut Vec<u8>, name: &str, value: &str) {
        let _ = (section, name, value);
        unimplemented!()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Each in turn.
    pub fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter { section: self.section }
    }
}

/// Iterates [`UserProperties`].
#[derive(Clone)]
pub struct UserPropertiesIter<'a> {
    section: &'a [u8],
}

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let _ = self.section;
        unimplemented!()
    }
}

impl<'a> IntoIterator for UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
