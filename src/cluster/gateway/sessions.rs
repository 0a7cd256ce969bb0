//! Claims and moves of sessions on their way between a core and the home core of the client on another node.

use crate::cluster::codec::Item;
use crate::cluster::codec::session::{self, SessionItem};
use crate::engine::Batch;
use crate::engine::for_gateway::{SessionMessage, SessionStep};

/// What a core says, as other nodes are told.
pub(super) fn item<'a>(batch: &'a Batch, message: &'a SessionMessage) -> Item<'a> {
    let step = match &message.step {
        &SessionStep::Claim { asks, ends, refuses, user } => {
            let user = user.map(|user| batch.text(user));
            session::SessionStep::Claim { asks, ends, refuses, user }
        }
        SessionStep::Withdraw => session::SessionStep::Withdraw,
        &SessionStep::Answer { has_session, is_absent, claimed } => {
            session::SessionStep::Answer { has_session, is_absent, claimed }
        }
        &SessionStep::Filters { is_last, ref records } => {
            session::SessionStep::Filters { is_last, records }
        }
        &SessionStep::Ask { wants, nodes } => session::SessionStep::Ask { wants, nodes },
        &SessionStep::State { is_last, ref records } => {
            session::SessionStep::State { is_last, records }
        }
        &SessionStep::Flush { to } => session::SessionStep::Flush { to },
        &SessionStep::Flushed { cores } => session::SessionStep::Flushed { cores },
        &SessionStep::Mark { cores } => session::SessionStep::Mark { cores },
    };
    Item::Session(SessionItem { client: batch.text(message.client), stamp: message.stamp, step })
}

/// What another node says, for a core.
pub(super) fn message(batch: &mut Batch, item: &SessionItem<'_>) -> SessionMessage {
    let client = batch.push_text(item.client);
    let step = match item.step {
        session::SessionStep::Claim { asks, ends, refuses, user } => {
            let user = user.map(|user| batch.push_text(user));
            SessionStep::Claim { asks, ends, refuses, user }
        }
        session::SessionStep::Withdraw => SessionStep::Withdraw,
        session::SessionStep::Answer { has_session, is_absent, claimed } => {
            SessionStep::Answer { has_session, is_absent, claimed }
        }
        session::SessionStep::Filters { is_last, records } => {
            let records = batch.push_records(records.to_vec());
            SessionStep::Filters { is_last, records }
        }
        session::SessionStep::Ask { wants, nodes } => SessionStep::Ask { wants, nodes },
        session::SessionStep::State { is_last, records } => {
            let records = batch.push_records(records.to_vec());
            SessionStep::State { is_last, records }
        }
        session::SessionStep::Flush { to } => SessionStep::Flush { to },
        session::SessionStep::Flushed { cores } => SessionStep::Flushed { cores },
        session::SessionStep::Mark { cores } => SessionStep::Mark { cores },
    };
    SessionMessage { client, stamp: item.stamp, step }
}
