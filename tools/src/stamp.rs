//! What the first bytes of every payload say, so that the receiver can tell loss, duplicates and
//! disorder and how long the way took. Knows nothing of MQTT.

/// Who sent a message, as which of its messages, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The run, so that nothing left over from another one counts.
    pub run: u32,
    /// Index of the publisher.
    pub publisher: u32,
    /// 0 for the publisher's first message, one more for each.
    pub sequence: u64,
    /// Nanoseconds from the run's start to when the message was sent, or was due in open loop.
    pub sent_ns: u64,
}

impl Stamp {
    /// Its length, the smallest payload.
    pub const BYTES: usize = 24;
    /// What the rest of the payload consists of.
    pub const FILL: u8 = b'.';

    /// As bytes.
    #[inline]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&self.run.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.publisher.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sent_ns.to_le_bytes());
        bytes
    }

    /// The stamp that `payload` opens with; None if it is too short or the rest was altered.
    #[inline]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (stamp, rest) = payload.split_first_chunk::<{ Self::BYTES }>()?;
        // A fold without an early exit is vectorised; a search is not.
        let altered = rest.iter().fold(0, |seen, byte| seen | (byte ^ Self::FILL));
        if altered != 0 {
            return None;
        }
        let [a, b, c, d, e, f, g, h, sequence_and_sent @ ..] = *stamp;
        let (sequence, sent_ns) = sequence_and_sent.split_at(8);
        Some(Self {
            run: u32::from_le_bytes([a, b, c, d]),
            publisher: u32::from_le_bytes([e, f, g, h]),
            sequence: u64::from_le_bytes(sequence.try_into().expect("eight bytes")),
            sent_ns: u64::from_le_bytes(sent_ns.try_into().expect("eight bytes")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_and_an_altered_payload_does_not() {
        let stamp = Stamp { run: 1 << 31, publisher: 7, sequence: u64::MAX - 1, sent_ns: 1 << 40 };
        let mut payload = stamp.encode().to_vec();
        payload.resize(64, Stamp::FILL);
        assert_eq!(Stamp::decode(&payload), Some(stamp));
        payload[63] ^= 1;
        assert_eq!(Stamp::decode(&payload), None);
        assert_eq!(Stamp::decode(&payload[..Stamp::BYTES - 1]), None);
    }
}
