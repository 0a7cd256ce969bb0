//! Encodes packets of a client.

use super::{Qos, Version};
use crate::{limits::SPAN_S_MAX, stamp::Stamp};

/// Keep Alive: longer than any run, so that no PINGREQ is needed. Some brokers refuse 0.
pub const KEEP_ALIVE_S: u16 = u16::MAX;
const _: () = assert!(KEEP_ALIVE_S as f64 > 2.0 * SPAN_S_MAX);

/// Session Expiry Interval of persistent 5.0 sessions, in seconds.
const SESSION_EXPIRY_INTERVAL_S: u32 = 3_600;

/// Whether a connection resumes a session and leaves one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// No session before and after: Clean Session (Clean Start).
    Clean,
    /// Resumes an existing session, and keeps it.
    Kept,
}

/// CONNECT with only the properties of a persistent session.
pub fn encode_connect(
    version: Version,
    session: Session,
    keep_alive_s: u16,
    client_identifier: &str,
    out: &mut Vec<u8>,
) {
    let level = match version {
        Version::V311 => 4,
        Version::V5 => 5,
    };
    let mut body = Vec::with_capacity(64);
    put_string("MQTT", &mut body);
    body.extend_from_slice(&[level, if session == Session::Clean { 0b10 } else { 0 }]);
    body.extend_from_slice(&keep_alive_s.to_be_bytes());
    if (version, session) == (Version::V5, Session::Kept) {
        body.extend_from_slice(&[5, 0x11]);
        body.extend_from_slice(&SESSION_EXPIRY_INTERVAL_S.to_be_bytes());
    } else {
        put_no_properties(version, &mut body);
    }
    put_string(client_identifier, &mut body);
    put_packet(0x10, &body, out);
}

/// SUBSCRIBE to these Topic Filters.
pub fn encode_subscribe(
    version: Version,
    packet_identifier: u16,
    topic_filters: &[String],
    qos: Qos,
    out: &mut Vec<u8>,
) {
    let mut body = packet_identifier.to_be_bytes().to_vec();
    put_no_properties(version, &mut body);
    for topic_filter in topic_filters {
        put_string(topic_filter, &mut body);
        body.push(qos.bits());
    }
    put_packet(0x82, &body, out);
}

/// UNSUBSCRIBE from one Topic Filter.
pub fn encode_unsubscribe(
    version: Version,
    packet_identifier: u16,
    topic_filter: &str,
    out: &mut Vec<u8>,
) {
    let mut body = packet_identifier.to_be_bytes().to_vec();
    put_no_properties(version, &mut body);
    put_string(topic_filter, &mut body);
    put_packet(0xA2, &body, out);
}

/// PINGREQ: its response shows that all earlier packets were processed.
pub fn encode_pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xC0, 0]);
}

/// A PUBLISH at QoS 0 that removes the retained message of `topic`.
pub fn encode_retained_removal(version: Version, topic: &str, out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(topic.len() + 3);
    put_string(topic, &mut body);
    put_no_properties(version, &mut body);
    put_packet(0x31, &body, out);
}

/// PUBACK with success, which is the same in both versions.
pub fn encode_puback(packet_identifier: u16, out: &mut Vec<u8>) {
    put_acknowledgement(0x40, packet_identifier, out);
}

/// PUBREC with success.
pub fn encode_pubrec(packet_identifier: u16, out: &mut Vec<u8>) {
    put_acknowledgement(0x50, packet_identifier, out);
}

/// PUBREL with success.
pub fn encode_pubrel(packet_identifier: u16, out: &mut Vec<u8>) {
    put_acknowledgement(0x62, packet_identifier, out);
}

/// PUBCOMP with success.
pub fn encode_pubcomp(packet_identifier: u16, out: &mut Vec<u8>) {
    put_acknowledgement(0x70, packet_identifier, out);
}

/// DISCONNECT with success.
pub fn encode_disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xE0, 0]);
}

/// An encoded PUBLISH in which only the Packet Identifier and the stamp change from message to
/// message: a message costs one copy and a few stores.
#[derive(Debug)]
pub struct PublishTemplate {
    packet: Vec<u8>,
    packet_identifier_at: Option<usize>,
    stamp_at: usize,
}

impl PublishTemplate {
    /// A PUBLISH to `topic` with a payload of `payload_bytes` that starts with a stamp.
    pub fn new(version: Version, topic: &str, qos: Qos, payload_bytes: usize) -> Self {
        assert!(payload_bytes >= Stamp::BYTES, "checked on the command line");
        let mut body = Vec::with_capacity(topic.len() + payload_bytes + 8);
        put_string(topic, &mut body);
        let identifier_at = (qos > Qos::AtMostOnce).then_some(body.len());
        if identifier_at.is_some() {
            body.extend_from_slice(&[0, 0]);
        }
        put_no_properties(version, &mut body);
        let stamp_at = body.len();
        body.resize(stamp_at + payload_bytes, Stamp::FILL);

        let mut packet = Vec::with_capacity(body.len() + 5);
        put_packet(0x30 | qos.bits() << 1, &body, &mut packet);
        let header = packet.len() - body.len();
        Self {
            packet,
            packet_identifier_at: identifier_at.map(|at| at + header),
            stamp_at: stamp_at + header,
        }
    }

    /// Sets RETAIN.
    pub fn retained(mut self) -> Self {
        self.packet[0] |= 1;
        self
    }

    /// Appends the PUBLISH with these values. `packet_identifier` is unused at QoS 0.
    pub fn encode(&self, packet_identifier: u16, stamp: &Stamp, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.packet);
        let packet = &mut out[start..];
        if let Some(at) = self.packet_identifier_at {
            packet[at..at + 2].copy_from_slice(&packet_identifier.to_be_bytes());
        }
        packet[self.stamp_at..self.stamp_at + Stamp::BYTES].copy_from_slice(&stamp.encode());
    }
}

fn put_acknowledgement(first_byte: u8, packet_identifier: u16, out: &mut Vec<u8>) {
    let [high, low] = packet_identifier.to_be_bytes();
    out.extend_from_slice(&[first_byte, 2, high, low]);
}

fn put_no_properties(version: Version, out: &mut Vec<u8>) {
    if version == Version::V5 {
        out.push(0);
    }
}

fn put_string(text: &str, out: &mut Vec<u8>) {
    let len = u16::try_from(text.len()).expect("topics and identifiers of the generator are short");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_packet(first_byte: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(first_byte);
    let mut rest = body.len();
    loop {
        let low = (rest & 0x7F) as u8;
        rest >>= 7;
        out.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
}
