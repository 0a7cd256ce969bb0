//! Logs a session that has come from another node of the cluster.

use shards::SubscriptionIndex;

use crate::base::clock::Now;
use crate::base::ids::SessionId;
use crate::engine::durability::Durability;
use crate::engine::durability::record_writer::subscribed;
use crate::session::state::Session;
use crate::storage::commit::RecordRef;
use crate::storage::record::Record;

impl Durability {
    /// Logs a session of which nothing is logged yet: all that it has, and that its client is away.
    pub(in crate::engine) fn append_moved(
        &mut self,
        state: &mut Session,
        id: SessionId,
        index: &SubscriptionIndex,
        round: u32,
        now: Now,
    ) {
        if !self.append_connected(state, round) {
            return;
        }
        self.append_owner(state);
        let (Some(journal), Some(session)) = (&mut self.journal, state.number()) else { return };
        for &filter in &state.subscriptions {
            if let Some(subscription) = index.get(filter, id.into()) {
                journal.write(&subscribed(session, &index.text(filter), &subscription));
            }
        }
        for identifier in state.inbound.iter().flat_map(|inbound| inbound.identifiers()) {
            journal.write(&Record::Received { session, packet_identifier: identifier.get() });
        }
        if let Some(outbound) = &mut state.outbound {
            outbound.log_anew(|delivery, packet_identifier| match delivery {
                Some(delivery) => {
                    let shared = delivery.shared.map(|filter| index.text(filter));
                    journal.write_delivery(session, delivery, packet_identifier, shared.as_deref())
                }
                None => {
                    let delivery = journal.number_delivery();
                    journal.write(&Record::Released { session, delivery, packet_identifier });
                    RecordRef::of_before(delivery)
                }
            });
        }
        self.append_away(state, now);
    }
}
