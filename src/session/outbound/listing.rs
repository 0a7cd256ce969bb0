//! The messages on their way to a client, as they are shown to an operator.

use super::{Delivery, Outbound, Stage};

/// The stage of a message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflightStage {
    /// Sent on an earlier connection, to be sent again.
    Unsent,
    /// Sent, awaiting PUBACK or PUBREC.
    Sent,
    /// Waiting for the store before it is sent.
    Held,
    /// Released, awaiting PUBCOMP.
    Released,
}

/// A message in flight.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Packet Identifier.
    pub identifier: u16,
    /// The stage.
    pub stage: InflightStage,
    /// The message; none once it is released.
    pub delivery: Option<&'a Delivery>,
}

impl Outbound {
    /// The messages in flight, in the order in which they were sent.
    pub fn list_inflight(&self) -> impl Iterator<Item = Listed<'_>> {
        self.inflight.iter().filter_map(|one| {
            let (stage, delivery) = match &one.stage {
                Stage::Unsent(delivery) => (InflightStage::Unsent, Some(delivery)),
                Stage::Sent(delivery) => (InflightStage::Sent, Some(delivery)),
                Stage::Held(delivery, _) => (InflightStage::Held, Some(delivery)),
                Stage::Released { .. } => (InflightStage::Released, None),
                Stage::Done => return None,
            };
            Some(Listed { identifier: one.identifier, stage, delivery })
        })
    }

    /// Places of messages in flight, some of which may be acknowledged already: how many
    /// [`Self::list_inflight`] looks at.
    pub fn inflight_places(&self) -> usize {
        self.inflight.len()
    }

    /// Bytes of the messages that wait.
    pub fn queued_bytes(&self) -> u64 {
        self.queue.count.bytes()
    }

    /// The messages that wait, from a number on, each with its number. Numbers count the messages that were
    /// ever queued, so that a message keeps its number while others leave.
    pub fn list_queued(&self, from: u64) -> impl Iterator<Item = (u64, &Delivery)> {
        let first = self.queue.left;
        let skipped = from.saturating_sub(first).min(self.queue.messages.len() as u64);
        let places = self.queue.messages.range(skipped as usize..);
        (first + skipped..).zip(places).filter(|(_, delivery)| !delivery.message.is_hollow())
    }
}
