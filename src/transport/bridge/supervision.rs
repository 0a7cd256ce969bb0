//! Signs of life of the far broker, which the thread of the bridge asks for at fixed intervals.

use std::time::{Duration, Instant};

/// Intervals in a Keep Alive.
pub(super) const INTERVALS: u16 = 4;
/// Looks without an acknowledgement, although messages wait for one, after which the connection is stalled.
const STALLED_LOOKS: u16 = 4;

/// Observations of one connection. Time is counted in intervals of a quarter of the Keep Alive, and for acknowledgements in
/// looks, a quarter of `stalled_s` apart.
#[derive(Debug, Default)]
pub(super) struct Supervision {
    /// Intervals since something was sent.
    silent: u16,
    /// PINGREQ was sent and not answered.
    awaits_pingresp: bool,
    /// Messages that wait for the far broker's acknowledgement.
    unacknowledged: u32,
    /// Looks since it has sent one.
    unanswered: u16,
    /// What is awaited that tells the round trip, and since when.
    measured: Option<(Measured, Instant)>,
}

/// What a round trip is measured with: one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measured {
    /// The first answer to the message with this Packet Identifier.
    Message(u16),
    /// PINGRESP.
    Ping,
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
    pub fn note_awaited(&mut self, identifier: u16) {
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        if self.measured.is_none() {
            self.measured = Some((Measured::Message(identifier), Instant::now()));
        }
    }

    /// The far broker has acknowledged something; `is_last` if the exchange of a message is over.
    pub fn note_acknowledged(&mut self, is_last: bool) {
        self.unanswered = 0;
        self.unacknowledged = self.unacknowledged.saturating_sub(u32::from(is_last));
    }

    /// PINGRESP has come. Returns the round trip, if it was measured.
    pub fn note_pingresp(&mut self) -> Option<Duration> {
        self.awaits_pingresp = false;
        self.note_answer(Measured::Ping)
    }

    /// PUBACK or PUBREC has come. Returns the round trip, if it was measured with this message.
    pub fn note_answered(&mut self, identifier: u16) -> Option<Duration> {
        self.note_answer(Measured::Message(identifier))
    }

    fn note_answer(&mut self, of: Measured) -> Option<Duration> {
        let (_, since) = self.measured.take_if(|(measured, _)| *measured == of)?;
        Some(since.elapsed())
    }

    /// An interval has passed.
    pub fn tick(&mut self) -> Outcome {
        if self.awaits_pingresp {
            return Outcome::Dead("PINGREQ was not answered within a quarter of the Keep Alive");
        }
        self.silent += 1;
        if self.silent < INTERVALS - 1 {
            return Outcome::Quiet;
        }
        self.silent = 0;
        self.awaits_pingresp = true;
        self.measured.get_or_insert_with(|| (Measured::Ping, Instant::now()));
        Outcome::Ping
    }

    /// It is time to look whether the far broker acknowledges messages.
    pub fn look(&mut self) -> Outcome {
        self.unanswered = if self.unacknowledged == 0 { 0 } else { self.unanswered + 1 };
        match self.unanswered > STALLED_LOOKS {
            true => Outcome::Dead("no message was acknowledged for the time of stalled_s"),
            false => Outcome::Quiet,
        }
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
        of.note_awaited(1);
        for _ in 0..STALLED_LOOKS {
            assert!(!matches!(of.tick(), Outcome::Dead(_)));
            of.note_pingresp();
            assert_eq!(of.look(), Outcome::Quiet);
        }
        assert!(matches!(of.look(), Outcome::Dead(_)));
    }

    #[test]
    fn a_round_trip_is_that_of_a_message_or_of_a_ping_one_at_a_time() {
        let mut of = Supervision::default();
        of.note_awaited(7);
        of.note_awaited(8);
        assert_eq!((of.note_answered(8), of.note_pingresp()), (None, None), "others");
        assert!(of.note_answered(7).is_some());
        assert_eq!(of.note_answered(7), None, "once");
        while of.tick() != Outcome::Ping {}
        of.note_awaited(9);
        assert_eq!(of.note_answered(9), None, "the ping is measured");
        assert!(of.note_pingresp().is_some());
    }

    #[test]
    fn a_connection_that_acknowledges_is_alive() {
        let mut of = Supervision::default();
        for _ in 0..20 {
            of.note_awaited(1);
            of.note_acknowledged(true);
            of.note_sent();
            assert_eq!((of.tick(), of.look()), (Outcome::Quiet, Outcome::Quiet));
        }
    }
}
