//! Logs a session again, in as many parts as it takes. Between two parts its state changes, and the changes are logged
//! as always: what has been logged since the session's first part is not logged twice.

use shards::{SubscriberId, SubscriptionIndex};

use crate::engine::durability::checkpoint_part::CheckpointPart;
use crate::engine::durability::journal::Journal;
use crate::engine::durability::record_writer::subscribed;
use crate::engine::durability::wills;
use crate::session::outbound::{Logged, LoggedUpTo};
use crate::session::state::Session;
use crate::storage::commit::RecordMark;
use crate::storage::record::{Record, SessionNumber};

/// How far a session has been logged.
#[derive(Debug)]
pub(super) struct SessionRewrite {
    session: SessionNumber,
    /// Where its first part begins in the journal.
    mark: RecordMark,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Subscriptions, from the last on: the place of one that ends is taken by a later one.
    Subscriptions(usize),
    /// QoS 2 messages from the client, with the last Packet Identifier that was logged.
    Received(u16),
    /// Messages for the client.
    Deliveries(LoggedUpTo),
}

/// What records of a session refer to.
pub(super) struct Context<'a> {
    pub index: &'a SubscriptionIndex,
    pub subscriber: SubscriberId,
    /// The number of the checkpoint.
    pub checkpoint: u64,
}

impl SessionRewrite {
    /// Begins with a session that the store knows.
    pub(super) fn begin(journal: &mut Journal, state: &Session, session: SessionNumber) -> Self {
        let client_identifier = state.client_identifier.as_str();
        let mark = journal.begin_rewrite(session, client_identifier, state.expiry_interval_s);
        if let Some(owner) = state.owner() {
            journal.write(&Record::Owned { session, owner });
        }
        // At most as many as a bridge has rules, and those that it had before.
        for filter in state.far_subscriptions() {
            journal.write(&Record::FarSubscribed { session, filter });
        }
        Self { session, mark, stage: Stage::Subscriptions(usize::MAX) }
    }

    /// Whether this is the session that was begun, and not a later one in its place.
    pub(super) fn is_of(&self, state: &Session) -> bool {
        state.number() == Some(self.session)
    }

    /// Logs the next part; whether that was all.
    pub(super) fn log(
        &mut self,
        journal: &mut Journal,
        state: &mut Session,
        context: &Context<'_>,
        part: &mut CheckpointPart,
    ) -> bool {
        if !self.log_subscriptions(journal, state, context, part)
            || !self.log_received(journal, state, context.checkpoint, part)
            || !self.log_deliveries(journal, state, context.index, part)
        {
            return false;
        }
        if state.connection.is_none() {
            let (session, expiry_interval_s) = (self.session, state.expiry_interval_s);
            let expires = state.expires.map(|at| journal.wall_us(at));
            let since_us = expires
                .map_or(u64::MAX, |at| at.saturating_sub(u64::from(expiry_interval_s) * 1_000_000));
            journal.write(&Record::Away { session, expiry_interval_s, since_us });
            wills::log_delayed(journal, session, state);
        }
        journal.end_rewrite();
        true
    }

    fn log_subscriptions(
        &mut self,
        journal: &mut Journal,
        state: &Session,
        context: &Context<'_>,
        part: &mut CheckpointPart,
    ) -> bool {
        let Stage::Subscriptions(left) = &mut self.stage else { return true };
        *left = (*left).min(state.subscriptions.len());
        while *left > 0 {
            if part.is_full(journal) {
                return false;
            }
            part.look_at(1);
            *left -= 1;
            let filter = state.subscriptions[*left];
            if let Some(subscription) = context.index.get(filter, context.subscriber) {
                let text = context.index.text(filter);
                journal.write(&subscribed(self.session, &text, &subscription));
            }
        }
        self.stage = Stage::Received(0);
        true
    }

    fn log_received(
        &mut self,
        journal: &mut Journal,
        state: &mut Session,
        checkpoint: u64,
        part: &mut CheckpointPart,
    ) -> bool {
        let Stage::Received(last) = &mut self.stage else { return true };
        if let Some(inbound) = &mut state.inbound {
            for (packet_identifier, is_received) in inbound.log_to_checkpoint(checkpoint, *last) {
                if part.is_full(journal) {
                    return false;
                }
                part.look_at(1);
                *last = packet_identifier;
                if is_received {
                    journal.write(&Record::Received { session: self.session, packet_identifier });
                }
            }
        }
        self.stage = Stage::Deliveries(LoggedUpTo::default());
        true
    }

    fn log_deliveries(
        &mut self,
        journal: &mut Journal,
        state: &mut Session,
        index: &SubscriptionIndex,
        part: &mut CheckpointPart,
    ) -> bool {
        let Stage::Deliveries(up_to) = &mut self.stage else { return true };
        let Some(outbound) = &mut state.outbound else { return true };
        if part.is_full(journal) {
            return false;
        }
        let (session, mark, open) = (self.session, self.mark, journal.number() as u32);
        outbound.log_to_checkpoint(up_to, |logged| {
            part.look_at(1);
            match logged {
                Logged::Delivery(delivery, packet_identifier)
                    if !delivery.record.is_since(mark, open) =>
                {
                    let shared = delivery.shared.map(|filter| index.text(filter));
                    delivery.record = journal.write_delivery(
                        session,
                        delivery,
                        packet_identifier,
                        shared.as_deref(),
                    );
                }
                Logged::Released(record, packet_identifier) => {
                    let delivery = record.number;
                    journal.write(&Record::Released { session, delivery, packet_identifier });
                }
                Logged::Delivery(..) | Logged::Nothing => {}
            }
            !part.is_full(journal)
        })
    }
}
