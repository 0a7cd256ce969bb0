//! Answers that wait for other cores: PUBACK and PUBREC until every core with subscribers has the
//! message, SUBACK until every core knows the filter; and all that promise something until the store
//! has it. They leave in the order of their packets
//! [MQTT-4.6.0-2], [MQTT-4.6.0-3], so that one that waits holds up those behind it.

use std::collections::VecDeque;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::engine::connections::Connections;
use crate::resources::gauges::{Charge, Ledger};
use crate::wire::{Ack, PacketIdentifier, Suback, Unsuback, UserProperties};

/// How many empty lines are kept to use again.
const SPARE_ANSWERS_MAX: usize = 256;

/// How many answers a line that is kept may have room for.
const SPARE_LINE_MAX: usize = 256;

/// An answer to a client.
#[derive(Debug)]
pub(crate) enum Answer {
    Puback(Ack<'static>),
    Pubrec(Ack<'static>),
    Pubrel(Ack<'static>),
    Pubcomp(Ack<'static>),
    Suback { packet_identifier: PacketIdentifier, reasons: Vec<u8> },
    Unsuback { packet_identifier: PacketIdentifier, reasons: Vec<u8> },
}

impl Answer {
    /// Bytes of its Reason Codes, where it has a list of them.
    fn reasons(&self) -> usize {
        match self {
            Self::Suback { reasons, .. } | Self::Unsuback { reasons, .. } => reasons.capacity(),
            _ => 0,
        }
    }
}

/// The conditions of an answer besides receipts of other cores.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Promise {
    /// The batch of records that has to be stored.
    pub batch: Option<u64>,
    /// A QoS 2 message that counts as received, in the store too, once the other cores have stored
    /// it.
    pub receives: Option<PacketIdentifier>,
    /// Subscribers of this core that get the message in later turns.
    pub fans_out: bool,
}

impl Promise {
    /// Nothing but a batch of records.
    pub(in crate::engine) fn stored(batch: u64) -> Self {
        Self { batch: Some(batch), ..Self::default() }
    }
}

/// The answers of one connection that have not left yet.
#[derive(Debug, Default)]
pub struct Answers {
    line: VecDeque<Waiting>,
    /// The number of the first in line.
    first: u64,
    /// PUBRECs in line: QoS 2 messages that count against our Receive Maximum only once their client knows
    /// of them, as until then it is not the client who lets us wait.
    pubrecs: usize,
    /// Whether the connection is not read because so many answers wait.
    holds: bool,
    /// Reason Codes of SUBACKs and UNSUBACKs in line.
    reasons: usize,
    charge: Charge,
}

/// Empty lines of answers, to use again.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "a connection takes one as it is")]
pub(super) struct SpareAnswers(Vec<Box<Answers>>);

#[derive(Debug)]
struct Waiting {
    answer: Answer,
    /// How many receipts and batches of records the answer waits for.
    receipts: u32,
    receives: Option<PacketIdentifier>,
}

impl Answers {
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    fn push(&mut self, waiting: Waiting, ledger: &Ledger) {
        self.pubrecs += usize::from(matches!(waiting.answer, Answer::Pubrec(_)));
        self.reasons += waiting.answer.reasons();
        self.line.push_back(waiting);
        self.settle(ledger);
    }

    #[inline]
    fn settle(&mut self, ledger: &Ledger) {
        self.charge.set(ledger, self.line.capacity() * size_of::<Waiting>() + self.reasons);
    }

    /// Notes a receipt for an answer; after the last one returns the Packet Identifier to log as received.
    pub(in crate::engine) fn note_receipt(&mut self, answer: u64) -> Option<PacketIdentifier> {
        let waiting = answer.checked_sub(self.first).and_then(|n| self.line.get_mut(n as usize));
        // An answer that has left waits for nothing.
        let waiting = waiting?;
        waiting.receipts = waiting.receipts.saturating_sub(1);
        let receives = waiting.receives.take_if(|_| waiting.receipts == 0);
        waiting.receipts += u32::from(receives.is_some());
        receives
    }

    pub(in crate::engine) fn pop_ready(&mut self) -> Option<Answer> {
        let ready = self.line.pop_front_if(|waiting| waiting.receipts == 0)?;
        self.first += 1;
        self.pubrecs -= usize::from(matches!(ready.answer, Answer::Pubrec(_)));
        self.reasons -= ready.answer.reasons();
        Some(ready.answer)
    }
}

impl Connections {
    /// The number of the next answer to a client, and whether no other waits before it.
    pub fn next_answer(&mut self, id: ConnectionId) -> (u64, bool) {
        self.answers_of(id).map_or((0, true), |answers| {
            (answers.first + answers.line.len() as u64, answers.line.is_empty())
        })
    }

    /// Adds an answer that has to wait. A client for which many wait is not read.
    pub fn line_up(
        &mut self,
        id: ConnectionId,
        answer: Answer,
        receipts: u32,
        receives: Option<PacketIdentifier>,
    ) {
        let Self { slots, spare_answers, place, .. } = self;
        let Some(connection) = slots.get_mut(id) else { return };
        let spare = || spare_answers.0.pop().unwrap_or_default();
        let answers = connection.answers.get_or_insert_with(spare);
        answers.push(Waiting { answer, receipts, receives }, place.ledger());
        if answers.line.len() >= limits::ANSWERS_MAX && !answers.holds {
            answers.holds = true;
            self.pause_reading(id);
        }
    }

    /// Answers have left: a client that was not read for their number is read again.
    pub fn note_answers_left(&mut self, id: ConnectionId, now: Now) {
        let Some(answers) = self.answers_of(id) else { return };
        let is_empty = answers.line.is_empty();
        if answers.holds && answers.line.len() <= limits::ANSWERS_MAX / 2 {
            answers.holds = false;
            self.resume_reading(id, now);
        }
        if is_empty {
            self.put_answers_away(id);
            self.continue_to_end(id);
        }
    }

    /// An idle connection keeps no line: no receipt is on its way that names an answer in it.
    fn put_answers_away(&mut self, id: ConnectionId) {
        let Some(mut answers) = self.get_mut(id).and_then(|c| c.answers.take()) else { return };
        answers.first = 0;
        // Memory that is kept for reuse is the core's.
        answers.charge.set(self.place.ledger(), 0);
        let SpareAnswers(spare) = &mut self.spare_answers;
        if spare.len() < SPARE_ANSWERS_MAX && answers.line.capacity() <= SPARE_LINE_MAX {
            spare.push(answers);
        }
    }

    /// QoS 2 messages of a client whose PUBREC waits.
    pub fn pubrecs_of(&mut self, id: ConnectionId) -> usize {
        self.answers_of(id).map_or(0, |answers| answers.pubrecs)
    }

    pub fn answers_of(&mut self, id: ConnectionId) -> Option<&mut Answers> {
        self.get_mut(id)?.answers.as_deref_mut()
    }
}

/// An UNSUBACK with these Reason Codes.
pub(in crate::engine) fn unsuback(
    packet_identifier: PacketIdentifier,
    reasons: &[u8],
) -> Unsuback<'_> {
    let user_properties = UserProperties::none();
    Unsuback { packet_identifier, reasons, reason_string: None, user_properties }
}

/// A SUBACK with these Reason Codes.
pub(in crate::engine) fn suback(packet_identifier: PacketIdentifier, reasons: &[u8]) -> Suback<'_> {
    let user_properties = UserProperties::none();
    Suback { packet_identifier, reasons, reason_string: None, user_properties }
}
