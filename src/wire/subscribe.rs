//! SUBSCRIBE. Knows no subscription, and of a Topic Filter only that it is not empty.

use std::fmt;

use crate::wire::violation::Violation;

use super::property::{Place, Property, PropertyReader};
use super::reader::Reader;
use super::writer::{put_counted, put_text, put_two};
use super::{PacketIdentifier, PacketType, Qos, UserProperties, Version};

/// A request for subscriptions.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// Packet Identifier, repeated in SUBACK.
    pub packet_identifier: PacketIdentifier,
    /// Subscription Identifier, repeated in each PUBLISH packet; never 0.
    pub subscription_identifier: Option<u32>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// At least one Topic Filter.
    pub filters: SubscribeFilters<'a>,
}

impl<'a> Subscribe<'a> {
    /// Decodes everything except the filters, of which there may be many:
    /// [`SubscribeFilters::next_checked`] checks each one.
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Subscribe<'a>, Violation> {
        let mut reader = Reader::new(body);
        let mut subscribe = Subscribe {
            packet_identifier: PacketIdentifier::read(&mut reader)?,
            subscription_identifier: None,
            user_properties: UserProperties::none(),
            filters: SubscribeFilters::list(&[]),
        };
        if version == Version::V5 {
            let place = Place::Packet(PacketType::Subscribe);
            subscribe.read_properties(PropertyReader::new(&mut reader, place)?)?;
        }
        subscribe.filters = SubscribeFilters::payload(reader.rest(), version);
        if reader.is_empty() {
            return Err(Violation::SubscribeEmpty); // [MQTT-3.8.3-2]
        }
        Ok(subscribe)
    }

    fn read_properties(&mut self, mut properties: PropertyReader<'a>) -> Result<(), Violation> {
        while let Some(property) = properties.read()? {
            match property {
                Property::SubscriptionIdentifier(identifier) => {
                    self.subscription_identifier = Some(identifier);
                }
                Property::UserProperty(_) => {}
                _ => return Err(Violation::PropertyNotAllowed),
            }
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.push(PacketType::Subscribe.first_byte());
        put_counted(out, |out| {
            put_two(out, self.packet_identifier.get());
            if version == Version::V5 {
                put_counted(out, |out| {
                    let identifier = self.subscription_identifier;
                    Property::write_some(identifier.map(Property::SubscriptionIdentifier), out);
                    self.user_properties.write(out);
                });
            }
            for (filter, options) in self.filters {
                put_text(out, filter);
                let only_qos = SubscribeOptions { qos: options.qos, ..Default::default() };
                let options = if version == Version::V5 { options } else { only_qos };
                out.push(options.to_byte());
            }
        });
    }
}

/// The bits of the options that have to be 0. In 3.1 they are unused and not checked.
const fn reserved_options(version: Version) -> u8 {
    match version {
        Version::V5 => 0b1100_0000,
        Version::V311 => 0b1111_1100,
        Version::V31 => 0,
    }
}

/// Decodes one filter with its options, and checks what needs no knowledge of other subscriptions.
fn read_filter<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<(&'a str, SubscribeOptions), Violation> {
    let filter = reader.text()?;
    let options = reader.byte()?;
    if options & reserved_options(version) != 0 {
        return Err(Violation::SubscribeOptionsReserved); // [MQTT-3.8.3-5]
    }
    let options_mask = if version == Version::V5 { 0b0011_1111 } else { 0b11 };
    let options = SubscribeOptions::from_byte(options & options_mask)?;
    check_filter(filter, options)?;
    Ok((filter, options))
}

fn check_filter(filter: &str, options: SubscribeOptions) -> Result<(), Violation> {
    if filter.is_empty() {
        return Err(Violation::TopicFilterEmpty);
    }
    if options.no_local && filter.starts_with("$share/") {
        return Err(Violation::NoLocalOnSharedSubscription);
    }
    Ok(())
}

/// Subscription Options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Maximum QoS of delivered messages.
    pub qos: Qos,
    /// No Local: the client's own messages are not sent to it.
    pub no_local: bool,
    /// Retain As Published: RETAIN is forwarded as the publisher set it.
    pub retain_as_published: bool,
    /// Retain Handling. 0: send retained messages at each SUBSCRIBE; 1: only if the subscription is
    /// new; 2: never.
    pub retain_handling: u8,
}

impl SubscribeOptions {
    fn from_byte(byte: u8) -> Result<SubscribeOptions, Violation> {
        let qos = Qos::try_from(byte & 0b11).map_err(|_| Violation::SubscribeQosInvalid)?;
        let retain_handling = byte >> 4 & 0b11;
        if retain_handling == 3 {
            return Err(Violation::RetainHandlingInvalid);
        }
        Ok(SubscribeOptions {
            qos,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }

    fn to_byte(self) -> u8 {
        debug_assert!(self.retain_handling <= 2);
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | self.retain_handling << 4
    }
}

/// Topic Filters with their options, in order.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a>(Source<'a>);

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// A payload, whose filters are checked when they are read.
    Payload {
        rest: &'a [u8],
        version: Version,
    },
    List(&'a [(&'a str, SubscribeOptions)]),
}

impl<'a> SubscribeFilters<'a> {
    /// A list of filters, for encoding.
    pub fn list(filters: &'a [(&'a str, SubscribeOptions)]) -> Self {
        SubscribeFilters(Source::List(filters))
    }

    /// The payload of a SUBSCRIBE packet, or its tail from some filter on.
    pub fn payload(rest: &'a [u8], version: Version) -> Self {
        SubscribeFilters(Source::Payload { rest, version })
    }

    /// The unread part of the payload; empty for a list.
    pub fn rest(&self) -> &'a [u8] {
        match self.0 {
            Source::Payload { rest, .. } => rest,
            Source::List(_) => &[],
        }
    }

    /// Decodes and checks the next filter.
    pub fn next_checked(&mut self) -> Option<Result<(&'a str, SubscribeOptions), Violation>> {
        let (rest, version) = match &mut self.0 {
            Source::Payload { rest: [], .. } => return None,
            Source::Payload { rest, version } => (rest, *version),
            Source::List(list) => {
                let (&first, rest) = list.split_first()?;
                *list = rest;
                return Some(Ok(first));
            }
        };
        let mut reader = Reader::new(rest);
        let read = read_filter(&mut reader, version);
        *rest = reader.rest();
        Some(read)
    }

    /// Returns the violation of the first invalid filter.
    pub(super) fn check(mut self) -> Result<(), Violation> {
        while let Some(filter) = self.next_checked() {
            filter?;
        }
        Ok(())
    }

    /// Iterates over the filters, up to the first invalid one.
    pub fn iter(&self) -> SubscribeFiltersIter<'a> {
        SubscribeFiltersIter(*self)
    }
}

/// Iterator over [`SubscribeFilters`].
#[derive(Clone, Debug)]
pub struct SubscribeFiltersIter<'a>(SubscribeFilters<'a>);

impl<'a> Iterator for SubscribeFiltersIter<'a> {
    type Item = (&'a str, SubscribeOptions);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_checked()?.ok()
    }
}

impl<'a> IntoIterator for SubscribeFilters<'a> {
    type Item = (&'a str, SubscribeOptions);
    type IntoIter = SubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, decode};
    use super::*;

    const SEVEN: PacketIdentifier = PacketIdentifier::new(7).unwrap();

    fn subscribe<'a>(filters: &'a [(&'a str, SubscribeOptions)]) -> Subscribe<'a> {
        Subscribe {
            packet_identifier: SEVEN,
            subscription_identifier: None,
            user_properties: UserProperties::none(),
            filters: SubscribeFilters::list(filters),
        }
    }

    fn encode(subscribe: &Subscribe<'_>, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        Packet::Subscribe(subscribe.clone()).encode(version, &mut out);
        out
    }

    const ALL_OPTIONS: SubscribeOptions = SubscribeOptions {
        qos: Qos::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: 2,
    };
    const QOS_1: SubscribeOptions = SubscribeOptions {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };

    #[test]
    fn filters_and_options_are_read_and_written() {
        let filters = [("a/b", QOS_1), ("c/d", ALL_OPTIONS)];
        let packet =
            Subscribe { subscription_identifier: Some(268_435_455), ..subscribe(&filters) };
        let bytes = b"\x82\x14\0\x07\x05\x0B\xFF\xFF\xFF\x7F\0\x03a/b\x01\0\x03c/d\x2E";
        assert_eq!(encode(&packet, Version::V5), bytes);
        assert_eq!(decode(bytes, Version::V5), Ok(Packet::Subscribe(packet)));
    }

    #[test]
    fn before_5_only_the_qos_is_written() {
        let filters = [("a", QOS_1), ("$share/g/c", ALL_OPTIONS)];
        let bytes = b"\x82\x13\0\x07\0\x01a\x01\0\x0A$share/g/c\x02";
        assert_eq!(encode(&subscribe(&filters), Version::V311), bytes);
        for version in [Version::V31, Version::V311] {
            let only_qos = SubscribeOptions { qos: Qos::ExactlyOnce, ..Default::default() };
            let filters = [("a", QOS_1), ("$share/g/c", only_qos)];
            assert_eq!(decode(bytes, version), Ok(Packet::Subscribe(subscribe(&filters))));
        }
    }

    #[test]
    fn in_3_1_flags_and_unused_bits_are_ignored() {
        let filters = [("a", QOS_1)];
        let expected = Ok(Packet::Subscribe(subscribe(&filters)));
        // DUP is set when the packet is sent again; the upper bits of the options are unused.
        assert_eq!(decode(b"\x8A\x06\0\x07\0\x01a\xFD", Version::V31), expected);
    }

    #[test]
    fn invalid_packets_are_rejected() {
        use Version::{V5, V31, V311};
        let cases: &[(&[u8], Version, Violation)] = &[
            (b"\x80\x06\0\x07\0\x01a\0", V311, Violation::FixedHeaderFlagsInvalid),
            (b"\x8A\x06\0\x07\0\x01a\0", V311, Violation::FixedHeaderFlagsInvalid),
            (b"\x82\x02\0\x07", V311, Violation::SubscribeEmpty),
            (b"\x82\x03\0\x07\0", V5, Violation::SubscribeEmpty),
            (b"\x82\x06\0\0\0\x01a\0", V311, Violation::PacketIdentifierZero),
            (b"\x82\x05\0\x07\0\x01a", V311, Violation::PacketTooShort),
            (b"\x82\x05\0\x07\0\0\0", V311, Violation::TopicFilterEmpty),
            (b"\x82\x06\0\x07\0\x01\0\0", V311, Violation::StringHasNull),
            (b"\x82\x06\0\x07\0\x01\xFF\0", V311, Violation::StringNotUtf8),
            (b"\x82\x06\0\x07\0\x01a\x04", V311, Violation::SubscribeOptionsReserved),
            (b"\x82\x06\0\x07\0\x01a\x03", V311, Violation::SubscribeQosInvalid),
            (b"\x82\x06\0\x07\0\x01a\x03", V31, Violation::SubscribeQosInvalid),
            (b"\x82\x07\0\x07\0\0\x01a\x40", V5, Violation::SubscribeOptionsReserved),
            (b"\x82\x07\0\x07\0\0\x01a\x80", V5, Violation::SubscribeOptionsReserved),
            (b"\x82\x07\0\x07\0\0\x01a\x03", V5, Violation::SubscribeQosInvalid),
            (b"\x82\x07\0\x07\0\0\x01a\x30", V5, Violation::RetainHandlingInvalid),
            (b"\x82\x10\0\x07\0\0\x0A$share/g/c\x04", V5, Violation::NoLocalOnSharedSubscription),
            (b"\x82\x09\0\x07\x02\x0B\0\0\x01a\0", V5, Violation::SubscriptionIdentifierZero),
            (b"\x82\x0B\0\x07\x04\x0B\x01\x0B\x01\0\x01a\0", V5, Violation::PropertyRepeated),
            (b"\x82\x09\0\x07\x02\x01\x01\0\x01a\0", V5, Violation::PropertyNotAllowed),
        ];
        for &(bytes, version, violation) in cases {
            assert_eq!(decode(bytes, version), Err(violation), "{bytes:02X?}");
        }
    }
}
