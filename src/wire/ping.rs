//! PINGREQ and PINGRESP, which consist of a fixed header. Knows no Keep Alive.

use crate::wire::violation::Violation;

use super::PacketType;
use super::reader::Reader;

/// Checks that nothing follows the fixed header.
pub(super) fn decode(body: &[u8]) -> Result<(), Violation> {
    Reader::new(body).finish()
}

pub(super) fn encode(packet_type: PacketType, out: &mut Vec<u8>) {
    out.extend_from_slice(&[packet_type.first_byte(), 0]);
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, Version, decode};
    use super::*;

    #[test]
    fn pings_are_two_bytes_in_every_version() {
        for version in [Version::V31, Version::V311, Version::V5] {
            for (packet, bytes) in
                [(Packet::Pingreq, [0xC0, 0x00]), (Packet::Pingresp, [0xD0, 0x00])]
            {
                let mut out = Vec::new();
                packet.encode(version, &mut out);
                assert_eq!(out, bytes);
                assert_eq!(decode(&bytes, version), Ok(packet));
            }
            assert_eq!(decode(&[0xC0, 0x01, 0x00], version), Err(Violation::TrailingBytes));
        }
    }
}
