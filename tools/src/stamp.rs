//! The first bytes of every payload, which let the receiver detect loss, duplicates and disorder
//! and measure latency. Sixteen bytes, as published benchmarks use payloads of that size.
//! Independent of MQTT.

/// Sender, sequence number and time of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The run, so that messages of other runs are not counted.
    pub run: u16,
    /// Index of the publisher, 24 bits.
    pub publisher: u32,
    /// Sequence number, 0 for the publisher's first message; 40 bits.
    pub sequence: u64,
    /// When the message was sent, or scheduled in an open loop: the low 48 bits of the clock's
    /// nanoseconds, which wrap around every three days.
    pub sent_ns: u64,
}

const PUBLISHER_BITS: u32 = 24;
const SEQUENCE_BITS: u32 = 40;
const SENT_BITS: u32 = 48;
const SENT_MASK: u64 = (1 << SENT_BITS) - 1;

const _: () = assert!(16 + PUBLISHER_BITS + SEQUENCE_BITS + SENT_BITS == 8 * Stamp::BYTES as u32);
const _: () = assert!(crate::limits::CLIENTS_MAX < 1 << PUBLISHER_BITS);

impl Stamp {
    /// Its length, which is the minimum payload size.
    pub const BYTES: usize = 16;
    /// The bytes in the rest of the payload.
    pub const FILL: u8 = b'.';

    /// The encoded stamp.
    #[inline]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        debug_assert!(self.publisher < 1 << PUBLISHER_BITS && self.sequence < 1 << SEQUENCE_BITS);
        let mut bits = u128::from(self.sent_ns & SENT_MASK);
        bits = bits << SEQUENCE_BITS | u128::from(self.sequence);
        bits = bits << PUBLISHER_BITS | u128::from(self.publisher);
        (bits << 16 | u128::from(self.run)).to_le_bytes()
    }

    /// The stamp at the start of `payload`; `None` if it is too short or the rest was altered.
    #[inline]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (stamp, rest) = payload.split_first_chunk::<{ Self::BYTES }>()?;
        // A fold without an early exit is vectorized; a search is not.
        let altered = rest.iter().fold(0, |seen, byte| seen | (byte ^ Self::FILL));
        if altered != 0 {
            return None;
        }
        let bits = u128::from_le_bytes(*stamp);
        let field = |at: u32, width: u32| (bits >> at) as u64 & ((1 << width) - 1);
        Some(Self {
            run: bits as u16,
            publisher: field(16, PUBLISHER_BITS) as u32,
            sequence: field(16 + PUBLISHER_BITS, SEQUENCE_BITS),
            sent_ns: field(16 + PUBLISHER_BITS + SEQUENCE_BITS, SENT_BITS),
        })
    }

    /// Nanoseconds from `sent_ns` to `now_ns`; 0 if that is in the future.
    #[inline]
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        let age = now_ns.wrapping_sub(self.sent_ns) & SENT_MASK;
        if age <= SENT_MASK / 2 { age } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_encoding_and_an_altered_payload_is_detected() {
        let stamp = Stamp {
            run: 1 << 15,
            publisher: (1 << 24) - 1,
            sequence: (1 << 40) - 2,
            sent_ns: 1 << 47,
        };
        let mut payload = stamp.encode().to_vec();
        payload.resize(64, Stamp::FILL);
        assert_eq!(Stamp::decode(&payload), Some(stamp));
        payload[63] ^= 1;
        assert_eq!(Stamp::decode(&payload), None);
        assert_eq!(Stamp::decode(&payload[..Stamp::BYTES - 1]), None);
    }

    #[test]
    fn an_age_is_correct_after_a_wrap_around() {
        let sent = |sent_ns: u64| {
            let stamp = Stamp { sent_ns, ..Stamp::default() };
            Stamp::decode(&stamp.encode()).expect("an unaltered payload")
        };
        assert_eq!(sent(5 << 48 | 100).age_ns(5 << 48 | 350), 250);
        assert_eq!(sent((6 << 48) - 100).age_ns((6 << 48) + 50), 150);
        assert_eq!(sent(100).age_ns(99), 0);
    }
}
