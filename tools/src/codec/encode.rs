//! Packets from a client to the broker, as bytes.

use super::{Qos, Version};
use crate::{limits::SPAN_S_MAX, stamp::Stamp};

/// Keep Alive: longer than any run, so that no PINGREQ is needed. Not 0, which some brokers refuse.
pub const KEEP_ALIVE_S: u16 = u16::MAX;
const _: () = assert!(KEEP_ALIVE_S as f64 > 2.0 * SPAN_S_MAX);

/// CONNECT with Clean Session (Clean Start) and no properties.
pub fn encode_connect(
    version: Version,
    keep_alive_s: u16,
    client_identifier: &str,
    out: &mut Vec<u8>,
) {
    connect(version, keep_alive_s, client_identifier, true, out);
}

/// CONNECT without Clean Session (Clean Start), for a session of ten minutes where the version has
/// a time for it.
pub fn encode_connect_kept(
    version: Version,
    keep_alive_s: u16,
    client_identifier: &str,
    out: &mut Vec<u8>,
) {
    connect(version, keep_alive_s, client_identifier, false, out);
}

fn connect(
    version: Version,
    keep_alive_s: u16,
    client_identifier: &str,
    is_clean: bool,
    out: &mut Vec<u8>,
) {
    let level = match version {
        Version::V311 => 4,
        Version::V5 => 5,
    };
    let mut body = Vec::with_capacity(64);
    put_string("MQTT", &mut body);
    body.extend_from_slice(&[level, u8::from(is_clean) << 1]);
    body.extend_from_slice(&keep_alive_s.to_be_bytes());
    match version {
        Version::V5 if !is_clean => body.extend_from_slice(&[5, 0x11, 0, 0, 2, 0x58]),
        _ => put_no_properties(version, &mut body),
    }
    put_string(client_identifier, &mut body);
    put_packet(0x10, &body, out);
}

/// SUBSCRIBE to one Topic Filter, with Packet Identifier 1.
pub fn encode_subscribe(version: Version, topic_filter: &str, qos: Qos, out: &mut Vec<u8>) {
    let mut body = vec![0, 1];
    put_no_properties(version, &mut body);
    put_string(topic_filter, &mut body);
    body.push(qos.bits());
    put_packet(0x82, &body, out);
}

/// PUBACK that says success, which both versions write alike.
pub fn encode_puback(packet_identifier: u16, out: &mut Vec<u8>) {
    put_acknowledgement(0x40, packet_identifier, out);
}

/// PUBREC that says success.
pub fn encode_pubrec(packet_identifier: u16, out: &mut Vec<u8>) {
    put_acknowledgement(0x50, packet_identifier, out);
}

/// PUBREL that says success.
pub fn encode_pubrel(packet_identifier: u16, out: &mut Vec<u8>) {
    put_acknowledgement(0x62, packet_identifier, out);
}

/// PUBCOMP that says success.
pub fn encode_pubcomp(packet_identifier: u16, out: &mut Vec<u8>) {
    put_acknowledgement(0x70, packet_identifier, out);
}

/// DISCONNECT, normal.
pub fn encode_disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xE0, 0]);
}

/// A whole PUBLISH of which only the Packet Identifier and the stamp change from message to
/// message: a message costs one copy and a few stores.
#[derive(Debug)]
pub struct PublishTemplate {
    packet: Vec<u8>,
    packet_identifier_at: Option<usize>,
    stamp_at: usize,
}

impl PublishTemplate {
    /// A PUBLISH to `topic` whose payload is `payload_bytes` long and opens with a stamp.
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

    /// Append the PUBLISH with these in place. `packet_identifier` is not used with QoS 0.
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
