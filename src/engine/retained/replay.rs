//! Retained messages for new subscriptions, read by cursor: a few at a time, as the client's window and
//! outbox allow.

use shards::{Cursor, FilterId, ScanState, ScanStep};

use crate::base::ids::{ConnectionId, SessionId};
use crate::base::limits;
use crate::engine::Engine;
use crate::engine::connections::connection::Connection;
use crate::engine::draft::Draft;
use crate::engine::retained::RetainedStore;
use crate::engine::routing::recipients::{NoLocal, Recipient};
use crate::message::Message;
use crate::session::retained_replay::Replay;
use crate::session::state::Session;
use crate::wire::Qos;

/// Messages read from the store at a time.
const MESSAGES_MAX: usize = 64;

/// Steps to send a message that is most likely not in the processor's caches.
const MESSAGE_STEPS: usize = 2;

/// How much a client can take.
struct Room {
    messages: usize,
    bytes: usize,
    /// Its outbox is empty: one message fits, however large.
    is_idle: bool,
}

/// Messages read from the store for one client.
#[derive(Default)]
struct Portion {
    messages: Vec<Message>,
    bytes: usize,
    /// Another message was found, for which there was no room.
    is_full: bool,
}

impl Portion {
    fn read(
        &mut self,
        retained: &RetainedStore,
        filter: &str,
        cursor: &mut Cursor,
        room: &Room,
    ) -> ScanState {
        retained.scan(filter, cursor, &mut |message| {
            let bytes = message.content().bytes();
            let is_first = self.messages.is_empty() && room.is_idle;
            self.is_full = self.messages.len() >= room.messages
                || (self.bytes + bytes > room.bytes && !is_first);
            if self.is_full {
                return ScanStep::StopBefore;
            }
            self.bytes += bytes;
            self.messages.push(message.clone());
            ScanStep::Next
        })
    }
}

/// Room for retained messages. No retained message may be queued, as a live message that is newer could
/// overtake it. `behind_bytes` is the size of an outbox from which its client is behind.
fn room_for_retained(connection: &Connection, state: &Session, behind_bytes: usize) -> Room {
    let pending = connection.pending_bytes();
    let messages = match (&state.outbound, state.replays.first()) {
        _ if pending > behind_bytes => 0,
        (None, _) => MESSAGES_MAX.min(connection.window.into()),
        (Some(outbound), Some(replay)) if replay.qos != Qos::AtMostOnce => {
            outbound.room().min(MESSAGES_MAX)
        }
        _ => MESSAGES_MAX,
    };
    Room { messages, bytes: behind_bytes.saturating_sub(pending), is_idle: pending == 0 }
}

impl Engine {
    /// Sends retained messages that new subscriptions still await, as far as the client's window and
    /// outbox allow. The caller calls again when they allow more.
    pub(in crate::engine) fn replay_retained(&mut self, id: ConnectionId) {
        let session = self.connections[id].session().expect("open");
        let behind_bytes = self.config.outbox_behind_bytes();
        loop {
            if self.work.is_spent() {
                return self.connections.mark_ready(id);
            }
            let state = &mut self.sessions[session];
            let room = room_for_retained(&self.connections[id], state, behind_bytes);
            let Some(replay) = state.replays.first_mut().filter(|_| room.messages > 0) else {
                return;
            };
            let mut portion = Portion::default();
            let (recipient, cursor) = (recipient_of(replay, session), &mut replay.cursor);
            let subscription = replay.subscription;
            let filter = self.router.index().text(subscription);
            self.work.spend(match shards::has_wildcard(&filter) {
                true => limits::RETAINED_STEPS_MAX.min(self.retained.len()) / 8 + 2,
                false => 2 + filter.len() / 64,
            });
            let is_done = portion.read(&self.retained, &filter, cursor, &room) == ScanState::Done;
            let is_resting = portion.messages.is_empty() && !is_done;
            if is_done {
                state.replays.end_first();
            }
            self.work.spend(portion.messages.len() * MESSAGE_STEPS);
            if self.router.is_filtered() {
                self.leave_out(recipient.session, subscription, &mut portion.messages);
            }
            for message in portion.messages {
                self.send_retained(&recipient, &message);
            }
            if is_resting {
                if !portion.is_full {
                    // Many topics were visited without a match: other connections come first.
                    self.connections.mark_ready(id);
                }
                return;
            }
        }
    }

    /// Leaves out messages of topics that the session does not take, and those that a subscription does not receive
    /// because the access rules filter it.
    #[cold]
    fn leave_out(
        &mut self,
        session: SessionId,
        subscription: FilterId,
        messages: &mut Vec<Message>,
    ) {
        messages.retain(|message| self.sessions[session].takes(message.content().topic));
        let found = self.router.index().get(subscription, session.into());
        if found.is_some_and(|subscription| subscription.options.is_filtered()) {
            let Self { router, sessions, work, .. } = self;
            messages.retain(|message| {
                router.may_read(message.content().topic, session, sessions, work)
            });
        }
    }

    fn send_retained(&mut self, recipient: &Recipient, message: &Message) {
        if message.is_expired(self.now) {
            return; // about to be removed
        }
        // [MQTT-3.3.1-8]: sent for a new subscription, hence with the RETAIN flag.
        let mut draft = Draft::of(message, message.content(), true);
        self.deliver(recipient, &mut draft, None);
    }
}

fn recipient_of(replay: &Replay, session: SessionId) -> Recipient {
    Recipient {
        session,
        qos: replay.qos,
        retain_as_published: true,
        no_local: NoLocal::Unset,
        subscription_identifiers: replay.subscription_identifiers.clone(),
    }
}
