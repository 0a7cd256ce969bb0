//! The state of a connection's time limits, in one byte.

/// The state of a connection's time limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing(u8);

impl Timing {
    /// A timer looks whether a packet that has begun is overdue, or it is on the list of those.
    const PACKET_TIMED: u8 = 1;
    /// The time for CONNECT is up by the clock.
    const OVERDUE: u8 = 2;
    /// Something came after that.
    const HEARD: u8 = 4;
    /// The time for CONNECT was granted once more.
    const EXCUSED: u8 = 8;

    /// See [`Self::set_packet_timed`].
    pub fn is_packet_timed(self) -> bool {
        self.0 & Self::PACKET_TIMED > 0
    }

    /// A timer looks whether a packet that has begun is overdue, or none does.
    pub fn set_packet_timed(&mut self, is_timed: bool) {
        self.0 = self.0 & !Self::PACKET_TIMED | if is_timed { Self::PACKET_TIMED } else { 0 };
    }

    /// The time for CONNECT is up by the clock.
    pub fn note_overdue(&mut self) {
        self.0 |= Self::OVERDUE;
    }

    /// Bytes came before CONNECT was whole.
    pub fn note_heard(&mut self) {
        self.0 |= (self.0 & Self::OVERDUE) << 1;
    }

    /// Gives it the time for CONNECT once more if something came that had lain in its socket, or if it
    /// waited for us; whether that was so.
    pub fn excuse(&mut self, awaits_us: bool) -> bool {
        let is_first = self.0 & Self::EXCUSED == 0;
        let is_excused = is_first && (awaits_us || self.0 & Self::HEARD > 0);
        if is_excused {
            self.0 |= Self::EXCUSED;
        }
        is_excused
    }
}
