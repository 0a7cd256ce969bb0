//! Decodes the server's packets, and panics at everything a server must not send, so that every
//! test checks the form of every packet it receives.

use super::packet::{Ack, Auth, Connack, Disconnect, Packet, Property, Publish, Suback, Unsuback};
use super::{V5, Version};

/// The first packet of `bytes` and its length; `None` if it is incomplete.
pub fn packet(bytes: &[u8], version: Version) -> Option<(Packet, usize)> {
    let first = *bytes.first()?;
    let (length, length_bytes) = remaining_length(&bytes[1..])?;
    let total = 1 + length_bytes + length;
    let rest = bytes.get(1 + length_bytes..total)?;
    let mut reader = Reader { bytes: rest };
    let packet = body(first, &mut reader, version);
    assert!(reader.bytes.is_empty(), "bytes after the end of {packet:?}: {:02x?}", reader.bytes);
    Some((packet, total))
}

fn remaining_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        assert!(index < 4, "[MQTT-1.5.5-1] a length of more than four bytes");
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            assert!(index == 0 || byte != 0, "[MQTT-1.5.5-1] a length of non-minimal size");
            return Some((value, index + 1));
        }
    }
    None
}

fn body(first: u8, reader: &mut Reader<'_>, version: Version) -> Packet {
    let kind = first >> 4;
    if kind != 3 {
        let reserved = if kind == 6 { 0x02 } else { 0 };
        assert_eq!(first & 0x0F, reserved, "[MQTT-2.1.3-1] reserved bits of packet type {kind}");
    }
    match kind {
        2 => connack(reader, version),
        3 => publish(first, reader, version),
        4..=7 => ack(kind, reader, version),
        9 => suback(reader, version),
        11 => unsuback(reader, version),
        13 => Packet::Pingresp,
        14 => {
            assert_eq!(version, V5, "[MQTT-3.14.0] a server sends DISCONNECT in 5.0 only");
            let (reason, properties) = reason_and_properties(reader, &[0x11, 0x1F, 0x26, 0x1C]);
            assert!(!properties.iter().any(|p| matches!(p, Property::SessionExpiryInterval(_))));
            Packet::Disconnect(Disconnect { reason, properties })
        }
        15 => {
            assert_eq!(version, V5, "AUTH exists in 5.0 only");
            let (reason, properties) = reason_and_properties(reader, &[0x15, 0x16, 0x1F, 0x26]);
            Packet::Auth(Auth { reason, properties })
        }
        _ => panic!("a server must not send packet type {kind}"),
    }
}

fn connack(reader: &mut Reader<'_>, version: Version) -> Packet {
    let flags = reader.byte();
    assert!(flags <= 1, "[MQTT-3.2.2-1] reserved Connect Acknowledge Flags");
    let reason = reader.byte();
    let allowed = [
        0x11, 0x21, 0x24, 0x25, 0x27, 0x12, 0x22, 0x1F, 0x26, 0x28, 0x29, 0x2A, 0x13, 0x1A, 0x1C,
        0x15, 0x16,
    ];
    let properties = reader.properties(version, &allowed);
    assert!(flags == 0 || reason == 0, "[MQTT-3.2.2-6] Session Present in a refusal");
    Packet::Connack(Connack { session_present: flags == 1, reason, properties })
}

fn publish(first: u8, reader: &mut Reader<'_>, version: Version) -> Packet {
    let qos = first >> 1 & 0x03;
    assert!(qos < 3, "[MQTT-3.3.1-4] QoS 3");
    let dup = first & 0x08 != 0;
    assert!(qos > 0 || !dup, "[MQTT-3.3.1-2] DUP at QoS 0");
    let topic = reader.string();
    assert!(!topic.contains(['+', '#']), "[MQTT-3.3.2-2] a wildcard in Topic Name {topic:?}");
    let packet_identifier = (qos > 0).then(|| reader.packet_identifier());
    let allowed = [0x01, 0x02, 0x23, 0x08, 0x09, 0x26, 0x0B, 0x03];
    let properties = reader.properties(version, &allowed);
    let aliased = properties.iter().any(|p| matches!(p, Property::TopicAlias(_)));
    assert!(aliased || !topic.is_empty(), "[MQTT-4.7.3-1] an empty Topic Name");
    let payload = std::mem::take(&mut reader.bytes).to_vec();
    let retain = first & 0x01 != 0;
    Packet::Publish(Publish { dup, qos, retain, topic, packet_identifier, properties, payload })
}

fn ack(kind: u8, reader: &mut Reader<'_>, version: Version) -> Packet {
    let packet_identifier = reader.packet_identifier();
    let (reason, properties) = match version {
        V5 => reason_and_properties(reader, &[0x1F, 0x26]),
        _ => (0, Vec::new()),
    };
    Packet::Ack(Ack { kind, packet_identifier, reason, properties })
}

fn suback(reader: &mut Reader<'_>, version: Version) -> Packet {
    let packet_identifier = reader.packet_identifier();
    let properties = reader.properties(version, &[0x1F, 0x26]);
    let reasons = std::mem::take(&mut reader.bytes).to_vec();
    for &reason in &reasons {
        let allowed: &[u8] = match version {
            V5 => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
            _ => &[0, 1, 2, 0x80],
        };
        assert!(allowed.contains(&reason), "[MQTT-3.9.3-2] {reason:#04x} in SUBACK");
    }
    Packet::Suback(Suback { packet_identifier, reasons, properties })
}

fn unsuback(reader: &mut Reader<'_>, version: Version) -> Packet {
    let packet_identifier = reader.packet_identifier();
    let properties = reader.properties(version, &[0x1F, 0x26]);
    let reasons = match version {
        V5 => std::mem::take(&mut reader.bytes).to_vec(),
        _ => Vec::new(),
    };
    for reason in &reasons {
        let allowed = [0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91].contains(reason);
        assert!(allowed, "[MQTT-3.11.3-2] {reason:#04x} in UNSUBACK");
    }
    Packet::Unsuback(Unsuback { packet_identifier, reasons, properties })
}

/// Both may be omitted at the end of the packet.
fn reason_and_properties(reader: &mut Reader<'_>, allowed: &[u8]) -> (u8, Vec<Property>) {
    if reader.bytes.is_empty() {
        return (0, Vec::new());
    }
    let reason = reader.byte();
    if reader.bytes.is_empty() {
        return (reason, Vec::new());
    }
    (reason, reader.properties(V5, allowed))
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        assert!(self.bytes.len() >= count, "a packet that ends within a field");
        let (taken, left) = self.bytes.split_at(count);
        self.bytes = left;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn four(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn varint(&mut self) -> usize {
        let (value, length) = remaining_length(self.bytes).expect("a whole Variable Byte Integer");
        self.take(length);
        value
    }

    fn binary(&mut self) -> &'a [u8] {
        let length = self.two();
        self.take(length.into())
    }

    fn string(&mut self) -> String {
        let text = std::str::from_utf8(self.binary()).expect("[MQTT-1.5.4-1] well-formed UTF-8");
        assert!(!text.contains('\0'), "[MQTT-1.5.4-2] U+0000 in {text:?}");
        text.to_owned()
    }

    fn packet_identifier(&mut self) -> u16 {
        let id = self.two();
        assert_ne!(id, 0, "[MQTT-2.2.1-4] a Packet Identifier of 0");
        id
    }

    fn properties(&mut self, version: Version, allowed: &[u8]) -> Vec<Property> {
        if version != V5 {
            return Vec::new();
        }
        let length = self.varint();
        let mut section = Reader { bytes: self.take(length) };
        let mut properties = Vec::new();
        let mut seen = Vec::new();
        while !section.bytes.is_empty() {
            let id = section.byte();
            assert!(allowed.contains(&id), "property {id:#04x} is not allowed in this packet");
            let repeatable = matches!(id, 0x26 | 0x0B);
            assert!(repeatable || !seen.contains(&id), "property {id:#04x} twice");
            seen.push(id);
            properties.push(section.property(id));
        }
        properties
    }

    fn property(&mut self, id: u8) -> Property {
        match id {
            0x01 => Property::PayloadFormatIndicator(self.flag()),
            0x02 => Property::MessageExpiryInterval(self.four()),
            0x03 => Property::ContentType(self.string()),
            0x08 => Property::ResponseTopic(self.string()),
            0x09 => Property::CorrelationData(self.binary().to_vec()),
            0x0B => {
                let identifier = self.varint();
                assert_ne!(identifier, 0, "a Subscription Identifier of 0");
                Property::SubscriptionIdentifier(identifier as u32)
            }
            0x11 => Property::SessionExpiryInterval(self.four()),
            0x12 => Property::AssignedClientIdentifier(self.string()),
            0x13 => Property::ServerKeepAlive(self.two()),
            0x15 => Property::AuthenticationMethod(self.string()),
            0x16 => Property::AuthenticationData(self.binary().to_vec()),
            0x1A => Property::ResponseInformation(self.string()),
            0x1C => Property::ServerReference(self.string()),
            0x1F => Property::ReasonString(self.string()),
            0x21 => Property::ReceiveMaximum(self.nonzero_two()),
            0x22 => Property::TopicAliasMaximum(self.two()),
            0x23 => Property::TopicAlias(self.nonzero_two()),
            0x24 => Property::MaximumQos(self.flag()),
            0x25 => Property::RetainAvailable(self.flag()),
            0x26 => Property::UserProperty(self.string(), self.string()),
            0x27 => {
                let bytes = self.four();
                assert_ne!(bytes, 0, "a Maximum Packet Size of 0");
                Property::MaximumPacketSize(bytes)
            }
            0x28 => Property::WildcardSubscriptionAvailable(self.flag()),
            0x29 => Property::SubscriptionIdentifierAvailable(self.flag()),
            0x2A => Property::SharedSubscriptionAvailable(self.flag()),
            _ => panic!("a server must not send property {id:#04x}"),
        }
    }

    fn flag(&mut self) -> u8 {
        let value = self.byte();
        assert!(value <= 1, "a property that is 0 or 1 is {value}");
        value
    }

    fn nonzero_two(&mut self) -> u16 {
        let value = self.two();
        assert_ne!(value, 0, "a property that may not be 0");
        value
    }
}
