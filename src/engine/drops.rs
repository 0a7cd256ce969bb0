//! Messages that are lost on the way to a client, counted by cause and by client.

use crate::base::clock::Now;
use crate::base::ids::SessionId;
use crate::base::log_rate::{name, rated};
use crate::base::metrics::Drop as DropCause;
use crate::engine::Engine;
use crate::session::state::Session;

impl Engine {
    /// Counts messages to the client of a session that are dropped.
    #[inline]
    pub(in crate::engine) fn count_drops(
        &mut self,
        session: SessionId,
        cause: DropCause,
        messages: u64,
    ) {
        if messages > 0 {
            self.count_drops_of(session, cause, messages, None);
        }
    }

    /// Counts messages on a topic to the client of a session that are dropped.
    #[cold]
    pub(in crate::engine) fn count_drops_of(
        &mut self,
        session: SessionId,
        cause: DropCause,
        messages: u64,
        topic: Option<&str>,
    ) {
        self.metrics.drops.add(cause, messages);
        count_dropped(&mut self.sessions[session], cause, messages, self.now);
        if self.observers.watch.shows_packets() {
            self.show_drop(Some(session), (cause, messages), topic);
        }
    }
}

/// Counts messages to a client that were dropped; the first is logged.
#[cold]
fn count_dropped(session: &mut Session, cause: DropCause, messages: u64, now: Now) {
    let extra = session.extra.get_or_insert_default();
    if extra.drops.is_none() {
        rated!(
            warn,
            now,
            client = name(session.client_identifier.as_str()),
            ?cause,
            "messages to this client are being dropped; the total follows when it leaves"
        );
    }
    extra.drops.get_or_insert_default().add(cause, messages);
}

/// Logs how many messages to a client that leaves were dropped.
pub(in crate::engine) fn report_drops(session: &Session, now: Now) {
    if let Some(drops) = session.extra.as_ref().and_then(|extra| extra.drops.as_ref()) {
        let (client, causes) = (name(session.client_identifier.as_str()), drops.summary());
        let dropped = drops.total();
        rated!(warn, now, client, dropped, causes, "messages were dropped");
    }
}
