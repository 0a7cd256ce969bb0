//! MQTT packets as WebSocket frames, one per packet. MQTT permits any boundaries [MQTT-6.0.0-2], but some clients
//! process only the first packet of a frame before they wait for the next frame.

use super::websocket::{opcode, write_head};
use crate::base::send_buffer::{Piece, SendBuffer};

/// Shortest shared payload that stays shared; shorter ones are cheaper to copy.
const SHARED_BYTES_MIN: usize = 2 * 1024;

/// Longest fixed header of an MQTT packet.
const HEADER_BYTES_MAX: usize = 5;

/// Whether `mqtt` has at most one packet.
pub(super) fn is_one_packet(mqtt: &SendBuffer) -> bool {
    let mut pieces = mqtt.pieces().map(bytes_of).filter(|bytes| !bytes.is_empty());
    let Some(first) = pieces.next() else { return true };
    let total = length(first).or_else(|| {
        let mut header = Header::default();
        std::iter::once(first).chain(pieces).flatten().find_map(|&byte| header.take(byte))
    });
    total.is_none_or(|total| total == mqtt.len())
}

/// Appends the packets in `mqtt` to `out`, each in a frame of its own.
pub(super) fn frame_each(mqtt: &SendBuffer, out: &mut SendBuffer) {
    let mut header = Header::default();
    // Bytes left of the packet being copied.
    let mut left = 0;
    for piece in mqtt.pieces() {
        let mut bytes = bytes_of(piece);
        while !bytes.is_empty() {
            if left == 0 && header.have == 0 {
                bytes = frame_whole(piece, bytes, out);
                if bytes.is_empty() {
                    break;
                }
            }
            if left == 0 {
                let Some(total) = header.take(bytes[0]) else {
                    bytes = &bytes[1..];
                    continue;
                };
                let header = std::mem::take(&mut header);
                left = total - header.have;
                out.append(|out| {
                    write_head(opcode::BINARY, total, out);
                    out.extend_from_slice(&header.seen[..header.have]);
                });
                bytes = &bytes[1..];
                continue;
            }
            let (part, rest) = bytes.split_at(left.min(bytes.len()));
            match piece {
                Piece::Shared(shared) if part.len() >= SHARED_BYTES_MIN => {
                    out.append_shared(shared.slice_ref(part));
                }
                _ => out.append(|out| out.extend_from_slice(part)),
            }
            left -= part.len();
            bytes = rest;
        }
    }
    debug_assert!(left == 0 && header.have == 0, "an outbox holds whole packets");
}

/// The usual case: copies the packets that are whole in what is left of a piece, unless they are better
/// shared. Returns what follows them.
fn frame_whole<'a>(piece: Piece<'_>, mut bytes: &'a [u8], out: &mut SendBuffer) -> &'a [u8] {
    let is_shared = matches!(piece, Piece::Shared(_));
    out.append(|out| {
        while let Some(total) = length(bytes)
            && total <= bytes.len()
            && !(is_shared && total > SHARED_BYTES_MIN)
        {
            let (packet, rest) = bytes.split_at(total);
            write_head(opcode::BINARY, total, out);
            out.extend_from_slice(packet);
            bytes = rest;
        }
    });
    bytes
}

/// Length of the packet at the start of `bytes`, header included; none if the header is incomplete.
fn length(bytes: &[u8]) -> Option<usize> {
    let mut remaining = 0;
    for (place, &byte) in bytes.iter().skip(1).take(HEADER_BYTES_MAX - 1).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(2 + place + remaining);
        }
    }
    None
}

fn bytes_of(piece: Piece<'_>) -> &[u8] {
    match piece {
        Piece::Copied(bytes) => bytes,
        Piece::Shared(bytes) => bytes,
    }
}

/// A fixed header that may be incomplete.
#[derive(Clone, Copy, Default)]
struct Header {
    seen: [u8; HEADER_BYTES_MAX],
    have: usize,
}

impl Header {
    /// Adds a byte. After the last one, returns the length of the packet, header included.
    fn take(&mut self, byte: u8) -> Option<usize> {
        self.seen[self.have] = byte;
        self.have += 1;
        length(&self.seen[..self.have])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn packet(bytes: usize) -> Vec<u8> {
        let (mut packet, mut length) = (vec![0x30], bytes);
        while length > 0x7F {
            packet.push(length as u8 | 0x80);
            length >>= 7;
        }
        packet.push(length as u8);
        packet.extend((0..bytes).map(|at| at as u8));
        packet
    }

    fn drained(mut buffer: SendBuffer) -> Vec<u8> {
        let mut out = Vec::new();
        buffer.take(usize::MAX, &mut out);
        out
    }

    proptest! {
        #[test]
        fn each_packet_is_a_frame_however_its_bytes_are_held(
            sizes in proptest::collection::vec(
                prop_oneof![0usize..200, 120usize..140, 2_000usize..20_000], 0..8),
            cuts in proptest::collection::vec((1usize..3_000, any::<bool>()), 1..20),
        ) {
            let packets: Vec<Vec<u8>> = sizes.into_iter().map(packet).collect();
            let all = packets.concat();
            let (mut mqtt, mut rest) = (SendBuffer::default(), &all[..]);
            for (cut, is_shared) in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                match is_shared {
                    true => mqtt.append_shared(Bytes::copy_from_slice(piece)),
                    false => mqtt.append(|out| out.extend_from_slice(piece)),
                }
            }
            prop_assert_eq!(is_one_packet(&mqtt), packets.len() < 2);
            let mut framed = SendBuffer::default();
            frame_each(&mqtt, &mut framed);
            let mut expected = Vec::new();
            for packet in &packets {
                write_head(opcode::BINARY, packet.len(), &mut expected);
                expected.extend_from_slice(packet);
            }
            prop_assert_eq!(drained(framed), expected);
        }
    }

    #[test]
    fn a_large_payload_that_many_share_stays_shared() {
        let packet = packet(100_000);
        let mut mqtt = SendBuffer::default();
        mqtt.append(|out| out.extend_from_slice(&[0xD0, 0]));
        let shared = Bytes::from([&packet[..], &packet[..]].concat());
        mqtt.append_shared(shared.clone());
        let mut framed = SendBuffer::default();
        frame_each(&mqtt, &mut framed);
        let of_shared = framed.pieces().filter(|piece| match piece {
            Piece::Shared(bytes) => shared.as_ptr_range().contains(&bytes.as_ptr()),
            Piece::Copied(_) => false,
        });
        assert_eq!(of_shared.count(), 2);
    }
}
