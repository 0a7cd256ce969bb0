//! Claims and moves of sessions on their way between a core and the home core of the client on another node.

use crate::cluster::codec::session::{self, SessionItem};
use crate::cluster::codec::{Item, VERSION_WITH_OFFERS};
use crate::engine::Batch;
use crate::engine::for_gateway::{SessionMessage, SessionStep};

/// What a core says, as other nodes are told in this version of lanes; none if it cannot be said.
pub(super) fn item<'a>(
    batch: &'a Batch,
    message: &'a SessionMessage,
    version: u8,
) -> Option<Item<'a>> {
    let has_offers = version >= VERSION_WITH_OFFERS;
    let step = match &message.step {
        &SessionStep::Claim { asks, ends, refuses, is_offered, user } => {
            let user = user.map(|user| batch.text(user));
            let is_offered = is_offered && has_offers;
            session::SessionStep::Claim { asks, ends, refuses, is_offered, user }
        }
        SessionStep::Withdraw => session::SessionStep::Withdraw,
        &SessionStep::Answer { has_session, is_absent, claimed } => {
            let is_absent = is_absent && has_offers;
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
        SessionStep::Offer { .. } | SessionStep::Decline if !has_offers => return None,
        &SessionStep::Offer { user } => {
            session::SessionStep::Offer { user: user.map(|user| batch.text(user)) }
        }
        SessionStep::Decline => session::SessionStep::Decline,
    };
    let client = batch.text(message.client);
    Some(Item::Session(SessionItem { client, stamp: message.stamp, step }))
}

/// What another node says, for a core.
pub(super) fn message(batch: &mut Batch, item: &SessionItem<'_>) -> SessionMessage {
    let client = batch.push_text(item.client);
    let step = match item.step {
        session::SessionStep::Claim { asks, ends, refuses, is_offered, user } => {
            let user = user.map(|user| batch.push_text(user));
            SessionStep::Claim { asks, ends, refuses, is_offered, user }
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
        session::SessionStep::Offer { user } => {
            SessionStep::Offer { user: user.map(|user| batch.push_text(user)) }
        }
        session::SessionStep::Decline => SessionStep::Decline,
    };
    SessionMessage { client, stamp: item.stamp, step }
}
