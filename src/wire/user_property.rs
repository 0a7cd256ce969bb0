//! User Properties, still encoded. Does not interpret them.

use std::fmt;

use super::property::Property;
use super::reader::Reader;

/// The User Properties of a packet, in order.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// Encoded properties; other properties in between are skipped.
    section: &'a [u8],
}

impl<'a> UserProperties<'a> {
    /// No User Property.
    pub const fn none() -> Self {
        UserProperties { section: &[] }
    }

    /// The User Properties in `section`, encoded as by [`UserProperties::push`]. Iteration ends at
    /// the first bytes that are no encoded property.
    pub const fn encoded(section: &'a [u8]) -> Self {
        UserProperties { section }
    }

    /// Appends one encoded User Property to `section`.
    pub fn push(section: &mut Vec<u8>, name: &str, value: &str) {
        Property::UserProperty((name, value)).write(section);
    }

    /// Whether there are no User Properties.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Iterates over the User Properties.
    pub fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter { reader: Reader::new(self.section) }
    }

    /// Appends the encoded User Properties.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for pair in self.iter() {
            Property::UserProperty(pair).write(out);
        }
    }
}

/// Iterator over [`UserProperties`].
#[derive(Clone, Debug)]
pub struct UserPropertiesIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Property::UserProperty(pair) = Property::read_checked(&mut self.reader)? {
                return Some(pair);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_3_3_2_18_order_is_kept_and_names_may_repeat() {
        let mut section = Vec::new();
        UserProperties::push(&mut section, "b", "1");
        Property::PayloadFormatIndicator(true).write(&mut section);
        UserProperties::push(&mut section, "a", "2");
        UserProperties::push(&mut section, "b", "");
        let properties = UserProperties::encoded(&section);
        assert!(properties.iter().eq([("b", "1"), ("a", "2"), ("b", "")]));
        assert_eq!(format!("{properties:?}"), r#"[("b", "1"), ("a", "2"), ("b", "")]"#);
        assert!(!properties.is_empty());
    }

    #[test]
    fn iteration_ends_at_anything_else() {
        assert!(UserProperties::none().is_empty());
        assert!(UserProperties::encoded(&[0xFF, 0x26]).is_empty());
        assert!(UserProperties::encoded(&[0x26, 0, 1, b'a', 0, 9]).is_empty());
    }
}
