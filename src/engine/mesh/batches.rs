//! Sends batches to the other cores and processes theirs.
//!
//! A core accepts batches of others whatever waits in its own lanes, so that two cores with full lanes to
//! each other cannot block each other. Input of clients into a lane is limited by not reading the clients.

use std::collections::VecDeque;

use crate::base::clock::Now;
use crate::base::ids::{CoreId, Publisher};
use crate::engine::Engine;
#[cfg(feature = "cluster")]
use crate::engine::claims::marks::Source;
use crate::engine::draft::{Draft, Origin};
use crate::engine::durability::Durability;
use crate::engine::mesh::Mesh;
use crate::engine::mesh::UnreadBatch;
use crate::engine::mesh::batch::{Batch, Destination, Forwarded, MeshMessage};
use crate::engine::retained::Stored;
use crate::message::{Content, Message};

impl Engine {
    /// The batch for another core, if there is one. Called at the end of a turn when the lane has space;
    /// until then the batch collects messages.
    pub fn poll_batch(&mut self, to: CoreId) -> Option<Batch> {
        self.router.announce_groups(&mut self.mesh);
        let clock = self.retained.read_clock(self.now);
        let batch = self.mesh.seal(to, clock, self.now)?;
        self.metrics.batches_sent += 1;
        Some(batch)
    }

    /// Whether [`Self::poll_batch`] has something for a core.
    pub fn has_batch(&mut self, to: CoreId) -> bool {
        self.router.announce_groups(&mut self.mesh);
        self.mesh.lanes.to(to).has_batch()
    }

    /// Processes a batch of another core. The batches of a core arrive completely and in order.
    pub fn handle_batch(&mut self, now: Now, from: CoreId, mut batch: Batch) {
        // This turn may have begun before the batch was sent.
        self.set_now(now.max(batch.sent));
        self.metrics.batches_received += 1;
        let mark = self.durability.mark();
        self.retained.hear_clock(from, batch.clock);
        self.take_receipt(from, batch.receipt);
        let must_wait = self.mesh.unread.iter().any(|unread| unread.from == from)
            || self.router.fan_outs().blocks(from);
        let mut messages = std::mem::take(&mut batch.messages);
        let mut left = messages.drain(..);
        while !must_wait
            && !self.work.is_spent()
            && !self.router.fan_outs().blocks(from)
            && let Some(message) = left.next()
        {
            self.work.spend(1);
            self.handle_message(from, &batch, message);
        }
        let left: VecDeque<MeshMessage> = left.collect();
        batch.messages = messages;
        let must_wait = must_wait || self.router.fan_outs().blocks(from);
        match left.is_empty() && !must_wait {
            true => end_batch(from, batch, mark, &mut self.mesh, &mut self.durability),
            false => self.mesh.unread.push_back(UnreadBatch { from, batch, left, mark }),
        }
    }

    /// Whether batches are left to process: the executor passes no further ones meanwhile.
    pub fn has_unread_batches(&self) -> bool {
        self.mesh.has_unread()
    }

    /// Goes on with the first of the batches of which a part is left; false when there is none, or no
    /// time for it.
    pub(in crate::engine) fn continue_batches(&mut self) -> bool {
        if self.work.is_spent() {
            return false;
        }
        let mut lines = self.mesh.unread.iter();
        let first = lines.position(|unread| !self.router.fan_outs().blocks(unread.from));
        let Some(mut unread) = first.and_then(|first| self.mesh.unread.remove(first)) else {
            return false;
        };
        // Half of the budget: waiting connections have the other half.
        self.work.begin_share(2);
        while !self.work.is_spent()
            && !self.router.fan_outs().blocks(unread.from)
            && let Some(message) = unread.left.pop_front()
        {
            self.work.spend(1);
            self.handle_message(unread.from, &unread.batch, message);
        }
        let goes_on = !self.work.is_spent();
        self.work.end_share();
        match unread.left.is_empty() && !self.router.fan_outs().blocks(unread.from) {
            true => end_batch(
                unread.from,
                unread.batch,
                unread.mark,
                &mut self.mesh,
                &mut self.durability,
            ),
            false => self.mesh.unread.push_front(unread),
        }
        goes_on
    }

    fn take_receipt(&mut self, from: CoreId, receipt: u64) {
        self.mesh.lanes.to(from).note_receipt(receipt);
        self.durability.end_forwards(from, &self.mesh, self.router.fan_outs());
        while let Some(awaited) = self.mesh.lanes.to(from).next_awaited() {
            self.note_awaited(awaited);
        }
        while let Some(publisher) = self.mesh.lanes.next_released(from) {
            self.connections.resume_reading(publisher, self.now);
        }
        self.continue_moves();
    }

    fn handle_message(&mut self, from: CoreId, batch: &Batch, message: MeshMessage) {
        match message {
            MeshMessage::AnnounceExact(filter) => {
                self.router.edit_replica().announce_exact(from.0, filter)
            }
            MeshMessage::WithdrawExact(filter) => {
                self.router.edit_replica().withdraw_exact(from.0, filter)
            }
            MeshMessage::AnnounceFilter(filter) => {
                self.router.edit_replica().announce_wildcard(from.0, &batch.filter(filter));
            }
            MeshMessage::WithdrawFilter(filter) => {
                self.router.edit_replica().withdraw_wildcard(from.0, batch.text(filter));
            }
            MeshMessage::Group { filter, online, members } => {
                let at = shards::GroupAt { core: from.0, online, members };
                self.router.edit_replica().set_group(&batch.filter(filter), at);
            }
            MeshMessage::Publish(forwarded) => {
                #[cfg(feature = "cluster")]
                let before = self.claims.set_source(Source::behind(&self.mesh, from));
                self.take_forwarded(from, batch, &forwarded);
                #[cfg(feature = "cluster")]
                self.claims.set_source(before);
            }
            MeshMessage::Pause(publisher) => self.connections.pause_reading(publisher),
            MeshMessage::Resume(publisher) => self.connections.resume_reading(publisher, self.now),
            MeshMessage::ExchangeOver(exchange) => self.durability.note_exchange_over(exchange),
            #[cfg(feature = "cluster")]
            MeshMessage::Member { is_member, link, own } => {
                self.note_member(from, is_member, link);
                self.note_node_of_claims(from, is_member, own);
            }
            #[cfg(feature = "cluster")]
            MeshMessage::Source(core) => self.mesh.note_source(from, core),
            #[cfg(feature = "cluster")]
            MeshMessage::InterestChanged => self.router.match_again(),
            #[cfg(feature = "cluster")]
            MeshMessage::Held { .. } | MeshMessage::MemberKnown { .. } => {
                debug_assert!(false, "for the gateway alone");
            }
            #[cfg(feature = "cluster")]
            MeshMessage::Session(message) => self.take_session_message(from, batch, message),
            MeshMessage::AskMetrics => {
                let metrics = Box::new(self.report());
                self.mesh.send_metrics(from, metrics);
            }
            MeshMessage::Metrics(metrics) => self.take_metrics(from, *metrics),
        }
    }

    fn take_forwarded(&mut self, from: CoreId, batch: &Batch, forwarded: &Forwarded) {
        let content = batch.content(&forwarded.body);
        if forwarded.publisher.is_some() {
            self.metrics.forwarded_by_qos[usize::from(u8::from(content.qos))] += 1;
        }
        let publisher = forwarded.publisher.map(|connection| Publisher { core: from, connection });
        let origin = Origin { publisher, session: None, exchange: None, from: Some(from) };
        let mut draft = match forwarded.body.message() {
            Some(message) => Draft::of(message, content, forwarded.retain),
            None => Draft::new(content, forwarded.retain),
        };
        draft.exchange = forwarded.exchange.map(|place| batch.exchange(place));
        self.durability.begin_exchange(draft.exchange, &mut self.mesh);
        match forwarded.to {
            Destination::SubscribersAndStore(stamp) => {
                self.take_retained(from, &content, forwarded.body.message(), stamp);
                self.deliver_here(&mut draft, &origin);
            }
            #[cfg(feature = "cluster")]
            Destination::Store(stamp) => {
                self.take_retained(from, &content, forwarded.body.message(), stamp);
            }
            Destination::Subscribers => self.deliver_here(&mut draft, &origin),
            Destination::Group { filter, hops, on_arrival } => {
                if let Some(place) = on_arrival {
                    draft.before.clone_from(&batch.on_arrival(place).0);
                }
                self.deliver_forwarded_to_group(batch.text(filter), &mut draft, &origin, hops);
                if let Some(place) = on_arrival {
                    self.durability.append_arrived(batch.on_arrival(place));
                }
            }
        }
    }

    /// Retains a message that was published on another core or node.
    fn take_retained(
        &mut self,
        from: CoreId,
        content: &Content<'_>,
        message: Option<&Message>,
        stamp: u64,
    ) {
        // An empty payload takes the one before away, whatever form it came in.
        let is_set = !content.payload.is_empty();
        let message = message.filter(|_| is_set).cloned();
        debug_assert_eq!(message.is_some(), is_set, "what is kept comes by reference");
        self.log_retained_of_node(from, content, stamp);
        let stored = Stored { stamp, message };
        self.retained.store(content.topic, &stored, self.now, &mut self.timers);
    }
}

/// A batch of another core is processed to its end.
fn end_batch(from: CoreId, batch: Batch, mark: u64, mesh: &mut Mesh, durability: &mut Durability) {
    // A receipt confirms that the records of the batch are stored.
    let records = durability.batch_since(mark);
    if records.is_some() {
        durability.flush_soon();
    }
    mesh.note_taken(from, batch, records);
}
