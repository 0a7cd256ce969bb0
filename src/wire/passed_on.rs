//! The properties of a message that a server forwards to subscribers unaltered. Knows no session.

use std::fmt;

use super::UserProperties;
use super::property::Property;
use super::reader::Reader;

/// Payload Format Indicator, Response Topic, Correlation Data, Content Type and User Properties of
/// a message, still encoded, in the order received. Equality compares the values.
#[derive(Clone, Copy, Default)]
pub struct PassedOn<'a> {
    /// From the first forwarded property to the last; other properties may lie in between.
    section: &'a [u8],
    has_others: bool,
}

impl<'a> PassedOn<'a> {
    /// The encoded properties if they are contiguous, which is the usual case.
    pub fn as_slice(&self) -> Option<&'a [u8]> {
        (!self.has_others).then_some(self.section)
    }

    /// Whether no property has to be forwarded.
    pub fn is_empty(&self) -> bool {
        self.section.is_empty()
    }

    /// Appends the encoded properties to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some(section) = self.as_slice() {
            return out.extend_from_slice(section);
        }
        let mut reader = Reader::new(self.section);
        while let Some(property) = Property::read_checked(&mut reader) {
            if is_passed_on(&property) {
                property.write(out);
            }
        }
    }

    /// The decoded values, for comparison and `Debug`.
    fn parts(&self) -> ForwardedProperties<'a> {
        ForwardedProperties::decode(self.section)
    }
}

/// The values of the properties that a server forwards to subscribers unaltered.
#[derive(Debug, Default, PartialEq)]
pub struct ForwardedProperties<'a> {
    /// Payload Format Indicator.
    pub payload_format_indicator: Option<u8>,
    /// Response Topic.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> ForwardedProperties<'a> {
    /// The values in a section of encoded properties.
    pub fn decode(section: &'a [u8]) -> Self {
        let mut parts =
            Self { user_properties: UserProperties::encoded(section), ..Self::default() };
        let mut reader = Reader::new(section);
        while let Some(property) = Property::read_checked(&mut reader) {
            match property {
                Property::PayloadFormatIndicator(is_text) => {
                    parts.payload_format_indicator = Some(is_text.into());
                }
                Property::ResponseTopic(topic) => parts.response_topic = Some(topic),
                Property::CorrelationData(data) => parts.correlation_data = Some(data),
                Property::ContentType(text) => parts.content_type = Some(text),
                _ => {}
            }
        }
        parts
    }

    /// Appends the encoded properties. Texts have no null character, and no value is longer than 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let format = self.payload_format_indicator;
        Property::write_some(
            format.map(|is_text| Property::PayloadFormatIndicator(is_text == 1)),
            out,
        );
        Property::write_some(self.content_type.map(Property::ContentType), out);
        Property::write_some(self.response_topic.map(Property::ResponseTopic), out);
        Property::write_some(self.correlation_data.map(Property::CorrelationData), out);
        self.user_properties.write(out);
    }
}

/// Whether the server has to forward the property unaltered: [MQTT-3.3.2-4], [MQTT-3.3.2-15],
/// [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-20].
fn is_passed_on(property: &Property<'_>) -> bool {
    matches!(
        property,
        Property::PayloadFormatIndicator(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_)
            | Property::ContentType(_)
            | Property::UserProperty(_)
    )
}

/// Finds the forwarded properties while a property section is decoded.
pub(super) struct Gatherer {
    start: usize,
    end: usize,
    has_others: bool,
}

impl Gatherer {
    pub(super) fn new() -> Gatherer {
        Gatherer { start: 0, end: 0, has_others: false }
    }

    /// Records the property at `start..end` of its section.
    pub(super) fn note(&mut self, property: &Property<'_>, start: usize, end: usize) {
        if !is_passed_on(property) {
            return;
        }
        if self.end == 0 {
            self.start = start;
        } else if self.end != start {
            self.has_others = true;
        }
        self.end = end;
    }

    /// The forwarded properties recorded for this section.
    pub(super) fn gathered<'a>(&self, section: &'a [u8]) -> PassedOn<'a> {
        PassedOn { section: &section[self.start..self.end], has_others: self.has_others }
    }
}

impl PartialEq for PassedOn<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl fmt::Debug for PassedOn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gathers a section of these properties, as the decoder of a packet does.
    fn gather<'a>(properties: &[Property<'_>], section: &'a mut Vec<u8>) -> PassedOn<'a> {
        let mut gatherer = Gatherer::new();
        for property in properties {
            let start = section.len();
            property.write(section);
            gatherer.note(property, start, section.len());
        }
        gatherer.gathered(section)
    }

    fn encoded(properties: &[Property<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        properties.iter().for_each(|property| property.write(&mut out));
        out
    }

    const OTHER: Property<'_> = Property::MessageExpiryInterval(7);
    const FORMAT: Property<'_> = Property::PayloadFormatIndicator(true);
    const TOPIC: Property<'_> = Property::ResponseTopic("r");
    const USER: Property<'_> = Property::UserProperty(("k", "v"));

    #[test]
    fn contiguous_properties_are_returned_as_one_slice() {
        let runs: &[(&[Property<'_>], &[Property<'_>])] = &[
            (&[], &[]),
            (&[OTHER], &[]),
            (&[FORMAT, USER, USER], &[FORMAT, USER, USER]),
            (&[OTHER, FORMAT, USER], &[FORMAT, USER]),
            (&[FORMAT, USER, OTHER, OTHER], &[FORMAT, USER]),
            (&[OTHER, TOPIC, Property::TopicAlias(1)], &[TOPIC]),
        ];
        for (all, passed) in runs {
            let mut section = Vec::new();
            let passed_on = gather(all, &mut section);
            assert_eq!(passed_on.as_slice(), Some(&encoded(passed)[..]), "{all:?}");
            assert_eq!(passed_on.is_empty(), passed.is_empty());
        }
    }

    #[test]
    fn scattered_properties_are_written_in_order() {
        let mut section = Vec::new();
        let id = Property::SubscriptionIdentifier(5);
        let delay = Property::WillDelayInterval(5);
        let passed_on = gather(&[USER, OTHER, TOPIC, id, delay, FORMAT, id], &mut section);
        assert_eq!(passed_on.as_slice(), None);
        assert!(!passed_on.is_empty());
        let mut out = Vec::new();
        passed_on.write(&mut out);
        assert_eq!(out, encoded(&[USER, TOPIC, FORMAT]));
    }

    #[test]
    fn equality_compares_values() {
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        let together = gather(&[FORMAT, USER], &mut a);
        let scattered = gather(&[USER, OTHER, FORMAT], &mut b);
        assert_eq!(together, scattered);
        assert_ne!(together, gather(&[FORMAT, USER, USER], &mut c));
        assert_ne!(together, PassedOn::default());
    }
}
