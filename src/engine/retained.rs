//! Retained messages: kept by topic, streamed to new subscriptions by cursor, never as a flood.

use std::sync::Arc;

use shards::{Cursor, ScanState, ScanStep};

use crate::engine::deliver::Draft;
use crate::engine::targets::{Own, Target};
use crate::engine::{Engine, sys_topics};
use crate::limits;
use crate::message::{Content, Message};
use crate::wire::Qos;

/// The retained store is at its bound.
#[derive(Debug)]
pub(super) struct RetainedFull;

/// Messages taken from the store at a time.
const BATCH: usize = 64;

impl Engine {
    /// Keeps a message for later subscribers, in place of the one before [MQTT-3.3.1-5]; an empty
    /// payload takes it away [MQTT-3.3.1-6], [MQTT-3.3.1-7].
    pub(super) fn retain(&mut self, content: &Content<'_>) -> Result<(), RetainedFull> {
        if content.payload.is_empty() {
            if let Some(old) = self.retained.remove(content.topic) {
                self.uncount_retained(&old.content());
            }
            return Ok(());
        }
        // The broker's own topics are few, and take nothing from the clients' bounds.
        if !is_ours(content) {
            let memory_is_full = self.memory_is_full();
            let metrics = &mut self.links.metrics;
            let (old_messages, old_bytes) = match self.retained.get(content.topic) {
                Some(old) => (1, old.content().bytes() as u64),
                None => (0, 0),
            };
            let messages = metrics.retained_messages - old_messages + 1;
            let bytes = metrics.retained_bytes - old_bytes + content.bytes() as u64;
            let limits = &self.settings.limits;
            if messages > limits.retained_messages_max.into()
                || bytes > limits.retained_bytes_max
                || memory_is_full
            {
                return Err(RetainedFull);
            }
            metrics.retained_messages = messages;
            metrics.retained_bytes = bytes;
        }
        let message = content.to_message(&self.links.ledger);
        self.retained.insert(content.topic, message);
        Ok(())
    }

    fn uncount_retained(&mut self, old: &Content<'_>) {
        if !is_ours(old) {
            self.links.metrics.retained_messages -= 1;
            self.links.metrics.retained_bytes -= old.bytes() as u64;
        }
    }

    /// Sends retained messages that new subscriptions are owed, as far as the client's window and
    /// outbox allow; it is called again when they allow more.
    pub(super) fn pump_feeds(&mut self, slot: u32) {
        let session = self.links.connections[slot as usize].session().expect("open");
        loop {
            let room = self.room_for_retained(slot, session);
            let state = &mut self.sessions[session as usize];
            if room == 0 || state.feeds.is_empty() {
                return;
            }
            let mut batch = Vec::new();
            let feed = &mut state.feeds[0];
            let (target, scan) = (feed.target(session), &mut feed.cursor);
            let filter = self.index.text(feed.subscription);
            let scanned = take_batch(&self.retained, &filter, scan, room, &mut batch);
            let is_done = scanned == ScanState::Done;
            let is_resting = batch.is_empty() && !is_done;
            if is_done {
                state.feeds.remove(0);
            }
            for message in batch {
                self.send_retained(&target, &message);
            }
            if is_resting {
                // Many topics were walked in vain: others have their turn first.
                let id = self.links.id(slot);
                return self.mark_ready(id);
            }
        }
    }

    /// How many retained messages the client can take now.
    fn room_for_retained(&self, slot: u32, session: u32) -> usize {
        let connection = &self.links.connections[slot as usize];
        if connection.pending_bytes() > self.outbox_behind_bytes() {
            return 0;
        }
        let state = &self.sessions[session as usize];
        let Some(outbound) = &state.outbound else { return BATCH.min(connection.window.into()) };
        match state.feeds.first() {
            Some(feed) if feed.qos != Qos::AtMostOnce => outbound.room().min(BATCH),
            _ => BATCH,
        }
    }

    fn send_retained(&mut self, target: &Target, message: &Arc<Message>) {
        if message.is_expired(self.now) {
            self.forget_retained(message);
            return;
        }
        self.template.form = None;
        // [MQTT-3.3.1-8]: sent for a new subscription, hence with the RETAIN flag.
        let mut draft = Draft::of(message, message.content(), true);
        self.deliver(target, &mut draft, None);
    }

    fn forget_retained(&mut self, message: &Arc<Message>) {
        let topic = message.content().topic;
        if self.retained.get(topic).is_some_and(|kept| Arc::ptr_eq(kept, message)) {
            self.retained.remove(topic);
            self.uncount_retained(&message.content());
        }
    }
}

fn is_ours(content: &Content<'_>) -> bool {
    content.topic.starts_with(sys_topics::PREFIX)
}

fn take_batch(
    retained: &shards::RetainedIndex<Arc<Message>>,
    filter: &str,
    cursor: &mut Cursor,
    room: usize,
    batch: &mut Vec<Arc<Message>>,
) -> ScanState {
    let mut bytes = 0;
    retained.scan(filter, cursor, limits::RETAINED_STEPS_MAX, &mut |_topic, message| {
        if batch.len() >= room || bytes > limits::RUN_BYTES_MAX {
            return ScanStep::StopBefore;
        }
        bytes += message.content().bytes();
        batch.push(Arc::clone(message));
        ScanStep::Next
    })
}

impl crate::session::state::RetainedFeed {
    fn target(&self, session: u32) -> Target {
        Target {
            session,
            qos: self.qos,
            retain_as_published: true,
            own: Own::Deliver,
            subscription_identifiers: self.subscription_identifiers.clone(),
        }
    }
}
