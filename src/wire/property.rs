//! The properties of 5.0 (table 2-4): identifier, type, allowed packets, and constraints on the
//! value. Knows no other field of a packet.

use crate::wire::violation::Violation;

use super::reader::{Reader, has_wildcard};
use super::writer::*;
use super::{PacketType, UserProperties};

/// The location of properties: a packet, or the Will in the payload of CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Packet(PacketType),
    Will,
}

impl Place {
    /// The bit of this place in a set. Packet types leave bit 0 free for the Will.
    const fn bit(self) -> u16 {
        match self {
            Place::Packet(packet) => packet.bit(),
            Place::Will => 1,
        }
    }
}

macro_rules! place_bit {
    (Will) => {
        Place::Will.bit()
    };
    ($packet:ident) => {
        Place::Packet(PacketType::$packet).bit()
    };
}

/// The Rust type of each data type. Data types are named like the method of `Reader` that decodes
/// them.
macro_rules! value_type {
    (bit) => { bool };
    (two) => { u16 };
    (four) => { u32 };
    (variable) => { u32 };
    (text) => { &'a str };
    (data) => { &'a [u8] };
    (pair) => { (&'a str, &'a str) };
}

macro_rules! put {
    (bit) => {
        put_bit
    };
    (two) => {
        put_two
    };
    (four) => {
        put_four
    };
    (variable) => {
        put_variable
    };
    (text) => {
        put_text
    };
    (data) => {
        put_data
    };
    (pair) => {
        put_pair
    };
}

/// Generates the `Property` enum and its codec from table 2-4.
macro_rules! properties {
    ($($identifier:literal $name:ident $kind:ident [$($place:ident)+];)*) => {
        /// One property with its value.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[allow(clippy::enum_variant_names)] // the specification names it User Property.
        pub(super) enum Property<'a> {
            $($name(value_type!($kind)),)*
        }

        /// The places where each property is allowed, by its identifier.
        const PLACES: [u16; 0x2B] = {
            let mut places = [0; 0x2B];
            $(places[$identifier] = 0 $(| place_bit!($place))+;)*
            places
        };

        impl<'a> Property<'a> {
            fn read_value(identifier: u8, reader: &mut Reader<'a>) -> Result<Self, Violation> {
                match identifier {
                    $($identifier => Ok(Property::$name(reader.$kind()?)),)*
                    _ => Err(Violation::PropertyUnknown),
                }
            }

            /// Appends the identifier and the value.
            pub(super) fn write(&self, out: &mut Vec<u8>) {
                match *self {
                    $(Property::$name(value) => {
                        out.push($identifier);
                        put!($kind)(out, value);
                    })*
                }
            }
        }

        #[cfg(test)]
        const TABLE: &[(u8, &str, &str)] =
            &[$(($identifier, stringify!($name), stringify!($kind)),)*];
    };
}

properties! {
    0x01 PayloadFormatIndicator bit [Publish Will];
    0x02 MessageExpiryInterval four [Publish Will];
    0x03 ContentType text [Publish Will];
    0x08 ResponseTopic text [Publish Will];
    0x09 CorrelationData data [Publish Will];
    0x0B SubscriptionIdentifier variable [Publish Subscribe];
    0x11 SessionExpiryInterval four [Connect Connack Disconnect];
    0x12 AssignedClientIdentifier text [Connack];
    0x13 ServerKeepAlive two [Connack];
    0x15 AuthenticationMethod text [Connect Connack Auth];
    0x16 AuthenticationData data [Connect Connack Auth];
    0x17 RequestProblemInformation bit [Connect];
    0x18 WillDelayInterval four [Will];
    0x19 RequestResponseInformation bit [Connect];
    0x1A ResponseInformation text [Connack];
    0x1C ServerReference text [Connack Disconnect];
    0x1F ReasonString text
        [Connack Puback Pubrec Pubrel Pubcomp Suback Unsuback Disconnect Auth];
    0x21 ReceiveMaximum two [Connect Connack];
    0x22 TopicAliasMaximum two [Connect Connack];
    0x23 TopicAlias two [Publish];
    0x24 MaximumQos bit [Connack];
    0x25 RetainAvailable bit [Connack];
    0x26 UserProperty pair
        [Connect Connack Publish Will Puback Pubrec Pubrel Pubcomp Subscribe Suback Unsubscribe
         Unsuback Disconnect Auth];
    0x27 MaximumPacketSize four [Connect Connack];
    0x28 WildcardSubscriptionAvailable bit [Connack];
    0x29 SubscriptionIdentifiersAvailable bit [Connack];
    0x2A SharedSubscriptionAvailable bit [Connack];
}

/// Identifiers that are needed without a value.
pub(super) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
pub(super) const TOPIC_ALIAS: u8 = 0x23;
const USER_PROPERTY: u8 = 0x26;

impl<'a> Property<'a> {
    /// Decodes the next property of a section that was checked before. `None` at the end of the
    /// section and at bytes that are no property.
    pub(super) fn read_checked(reader: &mut Reader<'a>) -> Option<Property<'a>> {
        let identifier = reader.byte().ok()?;
        Property::read_value(identifier, reader).ok()
    }

    /// Appends the property, if there is one.
    pub(super) fn write_some(property: Option<Property<'a>>, out: &mut Vec<u8>) {
        if let Some(property) = property {
            property.write(out);
        }
    }

    /// Checks the constraints on a value that hold in every packet.
    fn check(&self) -> Result<(), Violation> {
        match *self {
            Property::ReceiveMaximum(0) => Err(Violation::ReceiveMaximumZero),
            Property::MaximumPacketSize(0) => Err(Violation::MaximumPacketSizeZero),
            Property::TopicAlias(0) => Err(Violation::TopicAliasZero),
            Property::SubscriptionIdentifier(0) => Err(Violation::SubscriptionIdentifierZero),
            Property::ResponseTopic("") => Err(Violation::ResponseTopicEmpty),
            Property::ResponseTopic(topic) if has_wildcard(topic) => {
                Err(Violation::ResponseTopicHasWildcard)
            }
            _ => Ok(()),
        }
    }
}

/// Decodes a property section and checks each property.
pub(super) struct PropertyReader<'a> {
    section: &'a [u8],
    reader: Reader<'a>,
    place: Place,
    /// A bit for each identifier found so far.
    seen: u64,
}

impl<'a> PropertyReader<'a> {
    /// Reads a Property Length and takes that many bytes from the front of `packet`.
    #[inline]
    pub(super) fn new(packet: &mut Reader<'a>, place: Place) -> Result<Self, Violation> {
        let length = packet.variable()?;
        let section = packet.take(length as usize)?;
        Ok(PropertyReader { section, reader: Reader::new(section), place, seen: 0 })
    }

    /// The whole section, independent of the read position.
    pub(super) fn section(&self) -> &'a [u8] {
        self.section
    }

    /// All User Properties of the section; valid once the section has been read to its end.
    pub(super) fn user_properties(&self) -> UserProperties<'a> {
        if self.seen & 1 << USER_PROPERTY == 0 {
            return UserProperties::none();
        }
        UserProperties::encoded(self.section)
    }

    /// Offset of the next property in the section.
    pub(super) fn position(&self) -> usize {
        self.section.len() - self.reader.len()
    }

    /// Decodes the next property; `None` at the end of the section.
    pub(super) fn read(&mut self) -> Result<Option<Property<'a>>, Violation> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        // The specification calls it a Variable Byte Integer, but no identifier needs two bytes.
        let identifier = self.reader.byte()?;
        match PLACES.get(usize::from(identifier)) {
            None | Some(0) => return Err(Violation::PropertyUnknown),
            Some(places) if places & self.place.bit() == 0 => {
                return Err(Violation::PropertyNotAllowed);
            }
            Some(_) => {}
        }
        self.note(identifier)?;
        let property = Property::read_value(identifier, &mut self.reader)?;
        property.check()?;
        Ok(Some(property))
    }

    fn note(&mut self, identifier: u8) -> Result<(), Violation> {
        let bit = 1 << identifier;
        // Each matching subscription may add a Subscription Identifier. (section 3.3.2.3.8)
        let may_repeat = identifier == USER_PROPERTY
            || identifier == SUBSCRIPTION_IDENTIFIER
                && self.place == Place::Packet(PacketType::Publish);
        if self.seen & bit != 0 && !may_repeat {
            return Err(Violation::PropertyRepeated);
        }
        self.seen |= bit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES_ALL: [Place; 14] = [
        Place::Will,
        Place::Packet(PacketType::Connect),
        Place::Packet(PacketType::Connack),
        Place::Packet(PacketType::Publish),
        Place::Packet(PacketType::Puback),
        Place::Packet(PacketType::Pubrec),
        Place::Packet(PacketType::Pubrel),
        Place::Packet(PacketType::Pubcomp),
        Place::Packet(PacketType::Subscribe),
        Place::Packet(PacketType::Suback),
        Place::Packet(PacketType::Unsubscribe),
        Place::Packet(PacketType::Unsuback),
        Place::Packet(PacketType::Disconnect),
        Place::Packet(PacketType::Auth),
    ];

    /// A valid value of this type.
    fn value(kind: &str) -> &'static [u8] {
        match kind {
            "bit" => &[1],
            "two" => &[0, 1],
            "four" => &[0, 0, 0, 1],
            "variable" => &[1],
            "text" | "data" => &[0, 1, b'x'],
            "pair" => &[0, 1, b'k', 0, 1, b'v'],
            _ => panic!("{kind}"),
        }
    }

    fn section(properties: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_counted(&mut out, |out| out.extend_from_slice(properties));
        out
    }

    /// Decodes the whole section and counts its properties.
    fn count(section: &[u8], place: Place) -> Result<usize, Violation> {
        let mut properties = PropertyReader::new(&mut Reader::new(section), place)?;
        let mut count = 0;
        while properties.read()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn the_table_is_complete() {
        assert_eq!(TABLE.len(), 27);
        assert!(TABLE.is_sorted_by_key(|row| row.0));
    }

    #[test]
    fn each_property_is_read_written_and_rejected_by_the_table() {
        for &(identifier, name, kind) in TABLE {
            let encoded = [&[identifier], value(kind)].concat();
            let mut out = Vec::new();
            Property::read_checked(&mut Reader::new(&encoded)).expect(name).write(&mut out);
            assert_eq!(out, encoded, "{name}");
            for place in PLACES_ALL {
                let is_allowed = PLACES[usize::from(identifier)] & place.bit() != 0;
                let expected = if is_allowed { Ok(1) } else { Err(Violation::PropertyNotAllowed) };
                assert_eq!(count(&section(&encoded), place), expected, "{name} in {place:?}");
            }
        }
    }

    #[test]
    fn only_user_properties_and_a_publishs_subscription_identifiers_repeat() {
        for &(identifier, name, kind) in TABLE {
            let encoded = section(&[&[identifier], value(kind)].concat().repeat(3));
            for place in PLACES_ALL {
                let publish = Place::Packet(PacketType::Publish);
                let is_allowed = PLACES[usize::from(identifier)] & place.bit() != 0;
                let may_repeat =
                    name == "UserProperty" || name == "SubscriptionIdentifier" && place == publish;
                let expected = match (is_allowed, may_repeat) {
                    (false, _) => Err(Violation::PropertyNotAllowed),
                    (true, false) => Err(Violation::PropertyRepeated),
                    (true, true) => Ok(3),
                };
                assert_eq!(count(&encoded, place), expected, "{name} in {place:?}");
            }
        }
    }

    #[test]
    fn a_bit_is_0_or_1() {
        for &(identifier, name, _) in TABLE.iter().filter(|row| row.2 == "bit") {
            for (value, is_fine) in [(0, true), (1, true), (2, false), (0x80, false), (255, false)]
            {
                let encoded = [identifier, value];
                let is_read = Property::read_checked(&mut Reader::new(&encoded)).is_some();
                assert_eq!(is_read, is_fine, "{name} {value}");
            }
        }
    }

    #[test]
    fn identifiers_beyond_the_table_are_unknown() {
        for identifier in 0..=255 {
            if TABLE.iter().all(|row| row.0 != identifier) {
                let encoded = section(&[identifier, 0, 0, 0, 0]);
                assert_eq!(count(&encoded, Place::Will), Err(Violation::PropertyUnknown));
            }
        }
    }
}
