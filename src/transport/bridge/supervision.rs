//! Signs of life of the far broker, which the thread of the bridge asks for at fixed intervals.

/// Intervals in a Keep Alive.
pub(super) const INTERVALS: u16 = 4;
/// Intervals without an acknowledgement, although messages wait for one, after which the connection is stalled.
const STALLED_INTERVALS: u16 = 4;

/// Observations of one connection. Time is counted in intervals of a quarter of the Keep Alive.
#[derive(Debug, Default)]
pub(super) struct Supervision {
    /// Intervals since something was sent.
    silent: u16,
    /// PINGREQ was sent and not answered.
    awaits_pingresp: bool,
    /// Messages that wait for the far broker's acknowledgement.
    unacknowledged: u32,
    /// Intervals since it has sent one.
    unanswered: u16,
}

/// What an interval calls for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing.
    Quiet,
    /// PINGREQ.
    Ping,
    /// The end of the connection.
    Dead(&'static str),
}

impl Supervision {
    /// Something was sent.
    pub fn note_sent(&mut self) {
        self.silent = 0;
    }

    /// A message with QoS 1 or 2 was sent.
    pub fn note_awaited(&mut self) {
        self.unacknowledged = self.unacknowledged.saturating_add(1);
    }

    /// The far broker has acknowledged something; `is_last` if the exchange of a message is over.
    pub fn note_acknowledged(&mut self, is_last: bool) {
        self.unanswered = 0;
        self.unacknowledged = self.unacknowledged.saturating_sub(u32::from(is_last));
    }

    /// PINGRESP has come.
    pub fn note_pingresp(&mut self) {
        self.awaits_pingresp = false;
    }

    /// An interval has passed.
    pub fn tick(&mut self) -> Outcome {
        if self.awaits_pingresp {
            return Outcome::Dead("PINGREQ was not answered within a quarter of the Keep Alive");
        }
        self.unanswered = if self.unacknowledged == 0 { 0 } else { self.unanswered + 1 };
        if self.unanswered > STALLED_INTERVALS {
            return Outcome::Dead("messages were not acknowledged for a Keep Alive");
        }
        self.silent += 1;
        if self.silent < INTERVALS - 1 {
            return Outcome::Quiet;
        }
        self.silent = 0;
        self.awaits_pingresp = true;
        Outcome::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_is_pinged_before_its_keep_alive_is_over() {
        let mut of = Supervision::default();
        assert_eq!(
            [of.tick(), of.tick(), of.tick()],
            [Outcome::Quiet, Outcome::Quiet, Outcome::Ping]
        );
        of.note_pingresp();
        assert_eq!(of.tick(), Outcome::Quiet);
    }

    #[test]
    fn a_connection_whose_ping_is_not_answered_is_dead() {
        let mut of = Supervision::default();
        while of.tick() != Outcome::Ping {}
        of.note_sent();
        assert!(matches!(of.tick(), Outcome::Dead(_)));
    }

    #[test]
    fn a_connection_that_acknowledges_nothing_is_dead_although_it_answers_pings() {
        let mut of = Supervision::default();
        of.note_awaited();
        for _ in 0..STALLED_INTERVALS {
            assert!(!matches!(of.tick(), Outcome::Dead(_)));
            of.note_pingresp();
        }
        assert!(matches!(of.tick(), Outcome::Dead(_)));
    }

    #[test]
    fn a_connection_that_acknowledges_is_alive() {
        let mut of = Supervision::default();
        for _ in 0..20 {
            of.note_awaited();
            of.note_acknowledged(true);
            of.note_sent();
            assert_eq!(of.tick(), Outcome::Quiet);
        }
    }
}
