//! UNSUBSCRIBE. Knows no subscription, and of a Topic Filter only that it is not empty.

use std::fmt;

use crate::wire::violation::Violation;

use super::property::{Place, PropertyReader};
use super::reader::Reader;
use super::writer::{put_counted, put_text, put_two};
use super::{PacketIdentifier, PacketType, UserProperties, Version};

/// A request to remove subscriptions.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Packet Identifier, repeated in UNSUBACK.
    pub packet_identifier: PacketIdentifier,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// At least one Topic Filter.
    pub filters: UnsubscribeFilters<'a>,
}

impl<'a> Unsubscribe<'a> {
    /// Decodes everything except the filters, of which there may be many:
    /// [`UnsubscribeFilters::next_checked`] checks each one.
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Unsubscribe<'a>, Violation> {
        let mut reader = Reader::new(body);
        let mut unsubscribe = Unsubscribe {
            packet_identifier: PacketIdentifier::read(&mut reader)?,
            user_properties: UserProperties::none(),
            filters: UnsubscribeFilters::list(&[]),
        };
        if version == Version::V5 {
            let place = Place::Packet(PacketType::Unsubscribe);
            let mut properties = PropertyReader::new(&mut reader, place)?;
            while properties.read()?.is_some() {} // Only User Properties are allowed.
            unsubscribe.user_properties = properties.user_properties();
        }
        unsubscribe.filters = UnsubscribeFilters::payload(reader.rest());
        if reader.is_empty() {
            return Err(Violation::UnsubscribeEmpty); // [MQTT-3.10.3-2]
        }
        Ok(unsubscribe)
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.push(PacketType::Unsubscribe.first_byte());
        put_counted(out, |out| {
            put_two(out, self.packet_identifier.get());
            if version == Version::V5 {
                put_counted(out, |out| self.user_properties.write(out));
            }
            for filter in self.filters {
                put_text(out, filter);
            }
        });
    }
}

/// Topic Filters, in order.
#[derive(Clone, Copy)]
pub struct UnsubscribeFilters<'a>(Source<'a>);

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// A payload, whose filters are checked when they are read.
    Payload(&'a [u8]),
    List(&'a [&'a str]),
}

impl<'a> UnsubscribeFilters<'a> {
    /// A list of filters, for encoding.
    pub fn list(filters: &'a [&'a str]) -> Self {
        UnsubscribeFilters(Source::List(filters))
    }

    /// The payload of an UNSUBSCRIBE packet, or its tail from some filter on.
    pub fn payload(rest: &'a [u8]) -> Self {
        UnsubscribeFilters(Source::Payload(rest))
    }

    /// The unread part of the payload; empty for a list.
    pub fn rest(&self) -> &'a [u8] {
        match self.0 {
            Source::Payload(rest) => rest,
            Source::List(_) => &[],
        }
    }

    /// Decodes and checks the next filter.
    pub fn next_checked(&mut self) -> Option<Result<&'a str, Violation>> {
        let rest = match &mut self.0 {
            Source::Payload([]) => return None,
            Source::Payload(rest) => rest,
            Source::List(list) => {
                let (&first, rest) = list.split_first()?;
                *list = rest;
                return Some(Ok(first));
            }
        };
        let mut reader = Reader::new(rest);
        let filter = reader.text();
        *rest = reader.rest();
        Some(match filter {
            Ok("") => Err(Violation::TopicFilterEmpty),
            read => read,
        })
    }

    /// Returns the violation of the first invalid filter.
    pub(super) fn check(mut self) -> Result<(), Violation> {
        while let Some(filter) = self.next_checked() {
            filter?;
        }
        Ok(())
    }

    /// Iterates over the filters, up to the first invalid one.
    pub fn iter(&self) -> UnsubscribeFiltersIter<'a> {
        UnsubscribeFiltersIter(*self)
    }
}

/// Iterator over [`UnsubscribeFilters`].
#[derive(Clone, Debug)]
pub struct UnsubscribeFiltersIter<'a>(UnsubscribeFilters<'a>);

impl<'a> Iterator for UnsubscribeFiltersIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0.next_checked()?.ok()
    }
}

impl<'a> IntoIterator for UnsubscribeFilters<'a> {
    type Item = &'a str;
    type IntoIter = UnsubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for UnsubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, decode};
    use super::*;

    #[test]
    fn filters_are_read_and_written() {
        let mut user_properties = Vec::new();
        UserProperties::push(&mut user_properties, "k", "v");
        let unsubscribe = |user_properties| {
            Packet::Unsubscribe(Unsubscribe {
                packet_identifier: PacketIdentifier::new(258).unwrap(),
                user_properties,
                filters: UnsubscribeFilters::list(&["a/b", "#"]),
            })
        };
        let cases: &[(Version, Packet<'_>, &[u8])] = &[
            (
                Version::V5,
                unsubscribe(UserProperties::encoded(&user_properties)),
                b"\xA2\x12\x01\x02\x07\x26\0\x01k\0\x01v\0\x03a/b\0\x01#",
            ),
            (
                Version::V311,
                unsubscribe(UserProperties::none()),
                b"\xA2\x0A\x01\x02\0\x03a/b\0\x01#",
            ),
        ];
        for (version, packet, bytes) in cases {
            let mut out = Vec::new();
            packet.encode(*version, &mut out);
            assert_eq!(out, *bytes);
            assert_eq!(decode(bytes, *version).as_ref(), Ok(packet));
        }
    }

    #[test]
    fn invalid_packets_are_rejected() {
        use Version::{V5, V311};
        let cases: &[(&[u8], Version, Violation)] = &[
            (b"\xA0\x05\0\x07\0\x01a", V311, Violation::FixedHeaderFlagsInvalid),
            (b"\xA2\x02\0\x07", V311, Violation::UnsubscribeEmpty),
            (b"\xA2\x03\0\x07\0", V5, Violation::UnsubscribeEmpty),
            (b"\xA2\x05\0\0\0\x01a", V311, Violation::PacketIdentifierZero),
            (b"\xA2\x04\0\x07\0\0", V311, Violation::TopicFilterEmpty),
            (b"\xA2\x06\0\x07\0\x01a\0", V311, Violation::PacketTooShort),
            (b"\xA2\x08\0\x07\x02\x0B\x01\0\x01a", V5, Violation::PropertyNotAllowed),
        ];
        for &(bytes, version, violation) in cases {
            assert_eq!(decode(bytes, version), Err(violation), "{bytes:02X?}");
        }
    }
}
