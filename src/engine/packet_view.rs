//! What the log and traces show of a packet, and the packets in the output of a connection.

use crate::base::send_buffer::{Piece, SendBuffer};
use crate::wire::{
    self, Frame, Packet, PacketIdentifier, PacketType, Qos, ReasonCode, UserProperties, Version,
};

/// How many bytes of a packet are looked at, at most: enough for a topic, properties and the beginning of a payload.
const SEEN_BYTES_MAX: usize = 256 * 1024;

/// Filters and Reason Codes that are shown at most.
const LISTED_MAX: usize = 16;

/// What is shown of a packet. Its payload is for traces alone, a password for nobody.
#[derive(Default)]
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "only traces read all of it"))]
pub(in crate::engine) struct PacketView<'a> {
    /// Packet Identifier.
    pub packet_identifier: Option<PacketIdentifier>,
    /// Topic Name; empty if a Topic Alias replaces it.
    pub topic: Option<&'a str>,
    /// Topic Alias.
    pub topic_alias: Option<u16>,
    /// The first filters of SUBSCRIBE and UNSUBSCRIBE.
    pub filters: Vec<&'a str>,
    /// The Client Identifier of CONNECT.
    pub client: Option<&'a str>,
    /// The User Name of CONNECT.
    pub user: Option<&'a str>,
    /// QoS of PUBLISH, or of the first filter.
    pub qos: Option<u8>,
    /// RETAIN flag.
    pub retain: Option<bool>,
    /// DUP flag, of QoS 1 and 2.
    pub dup: Option<bool>,
    /// Reason Code.
    pub reason: Option<ReasonCode>,
    /// The first Reason Codes of SUBACK and UNSUBACK.
    pub reasons: &'a [u8],
    /// The payload of PUBLISH, or its beginning.
    pub payload: Option<&'a [u8]>,
    /// User Properties of PUBLISH.
    pub user_properties: Option<UserProperties<'a>>,
}

impl<'a> PacketView<'a> {
    /// Shows a packet, of which at least the first bytes are there; nothing of one that is invalid.
    pub fn of_bytes(bytes: &'a [u8], version: Version) -> Self {
        let header = match wire::frame(bytes, usize::MAX) {
            Ok(Frame::Complete { header, .. }) => header,
            Ok(Frame::Incomplete { need: 1.. }) => {
                2 + bytes[1..].iter().take_while(|byte| **byte >= 0x80).count()
            }
            _ => return Self::default(),
        };
        if wire::packet_type(bytes) == Some(PacketType::Publish) {
            // The payload of a packet that is not there as a whole ends earlier.
            let publish = wire::decode_publish(bytes, header, version);
            return publish.map(|publish| Self::of(&Packet::Publish(publish))).unwrap_or_default();
        }
        wire::decode(bytes, version).map(|packet| Self::of(&packet)).unwrap_or_default()
    }

    /// Shows a packet.
    pub fn of(packet: &Packet<'a>) -> Self {
        let of = |identifier| Self { packet_identifier: Some(identifier), ..Self::default() };
        let because = |reason| Self { reason: Some(reason), ..Self::default() };
        let first = |reasons: &'a [u8]| &reasons[..reasons.len().min(LISTED_MAX)];
        match packet {
            Packet::Connect(connect) => Self {
                client: Some(connect.client_identifier),
                user: connect.username,
                ..Self::default()
            },
            Packet::Connack(connack) => because(connack.reason),
            Packet::Publish(publish) => Self {
                packet_identifier: publish.packet_identifier,
                topic: Some(publish.topic),
                topic_alias: publish.properties.topic_alias,
                qos: Some(publish.qos.into()),
                retain: Some(publish.retain),
                dup: Some(publish.dup).filter(|_| publish.qos != Qos::AtMostOnce),
                payload: Some(publish.payload),
                user_properties: Some(publish.properties.user_properties),
                ..Self::default()
            },
            Packet::Puback(ack)
            | Packet::Pubrec(ack)
            | Packet::Pubrel(ack)
            | Packet::Pubcomp(ack) => {
                Self { reason: Some(ack.reason), ..of(ack.packet_identifier) }
            }
            Packet::Subscribe(subscribe) => {
                let mut all = subscribe.filters;
                let next = || all.next_checked().and_then(Result::ok);
                let first: Vec<_> = std::iter::from_fn(next).take(LISTED_MAX).collect();
                let qos = first.first().map(|(_, of)| u8::from(of.qos));
                let filters = first.into_iter().map(|(filter, _)| filter).collect();
                Self { filters, qos, ..of(subscribe.packet_identifier) }
            }
            Packet::Unsubscribe(unsubscribe) => {
                let mut all = unsubscribe.filters;
                let next = || all.next_checked().and_then(Result::ok);
                let filters = std::iter::from_fn(next).take(LISTED_MAX).collect();
                Self { filters, ..of(unsubscribe.packet_identifier) }
            }
            Packet::Suback(suback) => {
                Self { reasons: first(suback.reasons), ..of(suback.packet_identifier) }
            }
            Packet::Unsuback(unsuback) => {
                Self { reasons: first(unsuback.reasons), ..of(unsuback.packet_identifier) }
            }
            Packet::Disconnect(disconnect) => because(disconnect.reason),
            Packet::Auth(auth) => because(auth.reason),
            Packet::Pingreq | Packet::Pingresp => Self::default(),
        }
    }
}

/// Calls `show` with each packet of an output: the packet, or its first bytes if it is large, and its size.
pub(in crate::engine) fn each_packet(output: &SendBuffer, mut show: impl FnMut(&[u8], usize)) {
    // The beginning of a packet whose rest follows, and how many bytes of the one before are left.
    let (mut begun, mut left) = (Vec::new(), 0);
    for piece in output.pieces() {
        let mut bytes: &[u8] = match &piece {
            Piece::Copied(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        };
        while !bytes.is_empty() {
            if left > 0 {
                let skipped = bytes.len().min(left);
                (bytes, left) = (&bytes[skipped..], left - skipped);
                continue;
            }
            if begun.is_empty()
                && let Ok(Frame::Complete { total, .. }) = wire::frame(bytes, usize::MAX)
            {
                show(&bytes[..total.min(SEEN_BYTES_MAX)], total);
                bytes = &bytes[total..];
                continue;
            }
            // A header is at most five bytes long.
            let total = match wire::frame(&begun, usize::MAX) {
                Ok(Frame::Complete { total, .. }) => total,
                Ok(Frame::Incomplete { need }) => need,
                Err(_) => return,
            };
            let wanted = if total == 0 { begun.len() + 1 } else { total.min(SEEN_BYTES_MAX) };
            let taken = bytes.len().min(wanted - begun.len());
            begun.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            let total = match wire::frame(&begun, usize::MAX) {
                Ok(Frame::Complete { total, .. }) => total,
                Ok(Frame::Incomplete { need }) => need,
                Err(_) => return,
            };
            if total > 0 && begun.len() == total.min(SEEN_BYTES_MAX) {
                show(&begun, total);
                left = total - begun.len();
                begun.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Publish, PublishProperties};
    use bytes::Bytes;

    fn publish(topic: &'static str, payload: &'static [u8]) -> Packet<'static> {
        Packet::Publish(Publish {
            qos: Qos::AtLeastOnce,
            retain: true,
            topic,
            packet_identifier: PacketIdentifier::new(7),
            properties: PublishProperties::default(),
            payload,
            dup: false,
        })
    }

    #[test]
    fn the_packets_of_an_output_are_found_wherever_its_pieces_end() {
        let large = vec![b'x'; 3 * SEEN_BYTES_MAX];
        let mut bytes = Vec::new();
        publish("first", b"1").encode(Version::V5, &mut bytes);
        let mut header = vec![0x30];
        let mut rest = 2 + 5 + 1 + large.len();
        while rest > 0 {
            header.push((rest & 0x7F) as u8 | if rest > 0x7F { 0x80 } else { 0 });
            rest >>= 7;
        }
        header.extend_from_slice(b"\0\x05large\0");
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&large);
        Packet::Pingresp.encode(Version::V5, &mut bytes);
        let size = bytes.len();
        for split in (0..40).chain([size - 3, size - 2, size - 1, size]) {
            let mut output = SendBuffer::default();
            output.append(|out| out.extend_from_slice(&bytes[..split]));
            output.append_shared(Bytes::copy_from_slice(&bytes[split..]));
            let mut found = Vec::new();
            each_packet(&output, |packet, total| {
                let view = PacketView::of_bytes(packet, Version::V5);
                found.push((view.topic.map(str::to_owned), total, packet.len() <= SEEN_BYTES_MAX));
            });
            let large = header.len() + large.len();
            let first = size - large - 2;
            let named = |name: &str, bytes| (Some(name.to_owned()), bytes, true);
            assert_eq!(found, [named("first", first), named("large", large), (None, 2, true)]);
        }
    }

    #[test]
    fn a_packet_is_shown_with_its_names_and_never_with_its_password() {
        let view = PacketView::of(&publish("t", b"payload"));
        assert_eq!((view.topic, view.qos, view.retain), (Some("t"), Some(1), Some(true)));
        let connect = b"\x10\x17\0\x04MQTT\x04\xC2\0\0\0\x01c\0\x01u\0\x05s3cr3";
        let view = PacketView::of_bytes(connect, Version::V5);
        assert_eq!((view.client, view.user), (Some("c"), Some("u")));
        let subscribe = b"\x82\x0b\0\x01\0\0\x01a\x01\0\x01b\x02";
        let view = PacketView::of_bytes(subscribe, Version::V5);
        assert_eq!((view.filters, view.qos), (vec!["a", "b"], Some(1)));
    }
}
