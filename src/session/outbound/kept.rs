//! The same messages before the store, and taken up from there.

use super::{Delivery, Inflight, Outbound, Stage};
use crate::base::limits;
use crate::config::QueuePolicy;
use crate::storage::commit::RecordRef;
use crate::wire::PacketIdentifier;

impl Outbound {
    /// Tells all that is kept of it, in the order of the line: what is in flight, then what waits.
    pub fn tell_anew(&mut self, mut tell: impl FnMut(Telling<'_>)) {
        for Inflight { identifier, stage } in &mut self.inflight {
            match stage {
                Stage::Sent(delivery) | Stage::Unsent(delivery) | Stage::Held(delivery, _) => {
                    if delivery.kept.number != 0 {
                        tell(Telling::Delivery(delivery, *identifier));
                    }
                }
                Stage::Released { kept, .. } if kept.number != 0 => {
                    tell(Telling::Released(*kept, *identifier));
                }
                Stage::Released { .. } | Stage::Done => {}
            }
        }
        let waiting = self.queue.messages.iter_mut().filter(|delivery| delivery.kept.number != 0);
        waiting.for_each(|delivery| tell(Telling::Delivery(delivery, 0)));
    }

    /// Takes up a message that was in flight before the process began, after the others that were:
    /// sent, or, without one, with PUBREL left.
    pub fn restore_inflight(
        &mut self,
        identifier: PacketIdentifier,
        of: Result<Delivery, RecordRef>,
    ) {
        // Those between that are acknowledged leave a place, so that identifiers count up.
        while !self.inflight.is_empty()
            && self.inflight.len() < limits::IDENTIFIER_SPAN_MAX
            && self.last_identifier.checked_add(1).unwrap_or(1) != identifier.get()
        {
            let identifier = self.next_identifier().get();
            self.inflight.push_back(Inflight { identifier, stage: Stage::Done });
        }
        self.last_identifier = identifier.get();
        self.to_resend += 1;
        let stage = match of {
            Ok(delivery) => Stage::Unsent(delivery),
            Err(kept) => Stage::Released { resend: true, kept },
        };
        self.inflight.push_back(Inflight { identifier: identifier.get(), stage });
    }

    /// Takes up a message that waited before the process began.
    pub fn restore_queued(&mut self, delivery: Delivery) {
        self.queue.push_back(delivery);
    }

    /// All has been taken up. Under `keep-latest` queued messages are found by topic again.
    pub fn end_restore(&mut self, policy: QueuePolicy) {
        if policy == QueuePolicy::KeepLatest {
            self.queue.number_anew();
        }
        self.settle();
    }
}

/// What [`crate::session::outbound::Outbound::tell_anew`] tells.
pub enum Telling<'a> {
    /// A message that waits, or is in flight under a Packet Identifier.
    Delivery(&'a mut Delivery, u16),
    /// One of which only PUBREL is left.
    Released(RecordRef, u16),
}
