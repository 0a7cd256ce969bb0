//! The subscriptions of a bridge at the far broker: what it was asked for, and what it has refused.

use super::link::Terms;
use super::report::Event;
use super::session;
use crate::wire::Version;

/// The subscriptions of one connection. Filters are numbers in the order of [`super::mapping::InMap::remote_filters`].
#[derive(Debug, Default)]
pub(super) struct FarSubscriptions {
    /// The filters of the SUBSCRIBE that is not answered.
    asked: Vec<usize>,
    /// Refused filters, with their Reason Codes.
    refused: Vec<(usize, u8)>,
}

impl FarSubscriptions {
    /// Appends SUBSCRIBE for all filters, if there are any.
    pub fn ask(&mut self, terms: &Terms, version: Version, out: &mut Vec<u8>) {
        self.asked = (0..terms.r#in.remote_filters().count()).collect();
        session::subscribe_far(terms, &self.asked, version, out);
    }

    /// Appends SUBSCRIBE for the refused filters, if there are any and no answer is due.
    pub fn ask_again(&mut self, terms: &Terms, version: Version, out: &mut Vec<u8>) {
        if self.asked.is_empty() {
            self.asked = self.refused.iter().map(|&(filter, _)| filter).collect();
            session::subscribe_far(terms, &self.asked, version, out);
        }
    }

    /// The far broker has answered SUBSCRIBE. Returns what there is to tell about filters that are refused, or were.
    pub fn take_suback(&mut self, terms: &Terms, reasons: &[u8]) -> Option<Event> {
        let before = std::mem::take(&mut self.refused);
        // A filter without an answer is refused: the packet breaks the protocol [MQTT-3.9.3-1].
        let reasons = reasons.iter().copied().chain(std::iter::repeat(0x80));
        let answered = std::mem::take(&mut self.asked);
        let is_refused = |&(_, code): &(usize, u8)| code >= 0x80;
        self.refused = answered.into_iter().zip(reasons).filter(is_refused).collect();
        if self.refused.is_empty() && before.is_empty() {
            return None;
        }
        let filters: Vec<_> = terms.r#in.remote_filters().collect();
        let refused = self.refused.iter();
        let refused = refused.map(|&(filter, code)| (filters[filter].0.to_owned(), code)).collect();
        Some(Event::Subscribed { refused })
    }
}
