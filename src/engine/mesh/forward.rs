//! Towards the other cores: batches out and in, announcements of what is subscribed to here, and
//! messages that have subscribers there.
//!
//! Nothing here waits: what comes from another core is always taken, whatever this one has to say
//! itself, so that two cores with full lanes to each other never stand still. What a client
//! can make flow into a lane is bounded by not reading the client.

use std::collections::VecDeque;

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, CoreId, Publisher};
use crate::engine::Engine;
use crate::engine::mesh::batch::{Batch, Forwarded, Parcel, Whom};
use crate::engine::retained::Stored;
use crate::engine::routing::deliver::{Draft, Origin};
use crate::engine::routing::recipients::Recipients;

/// A batch of another core that one turn had no time for.
#[derive(Debug)]
pub(in crate::engine) struct UnreadBatch {
    from: CoreId,
    batch: Batch,
    /// What is left of it.
    left: VecDeque<Parcel>,
    /// Where the store's records stood when it came.
    mark: u64,
}

impl Engine {
    /// What this core has to say to another, if anything: called at the end of a turn, when the
    /// lane has room. While it has none, what is to be said collects here.
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

    /// What another core had to say. Batches of one core come in its order, and all of them.
    pub fn handle_batch(&mut self, now: Now, from: CoreId, mut batch: Batch) {
        // This turn may have begun before it was sent.
        self.set_now(now.max(batch.sent));
        self.metrics.batches_received += 1;
        let mark = self.durability.mark();
        self.retained.hear_clock(from, batch.clock);
        self.take_receipt(from, batch.receipt);
        let must_wait = self.mesh.unread.iter().any(|unread| unread.from == from)
            || self.router.fan_outs().blocks(from);
        let mut parcels = std::mem::take(&mut batch.parcels);
        let mut left = parcels.drain(..);
        while !must_wait
            && !self.work.is_spent()
            && !self.router.fan_outs().blocks(from)
            && let Some(parcel) = left.next()
        {
            self.work.spend(1);
            self.take_parcel(from, &batch, parcel);
        }
        let left: VecDeque<Parcel> = left.collect();
        batch.parcels = parcels;
        let must_wait = must_wait || self.router.fan_outs().blocks(from);
        match left.is_empty() && !must_wait {
            true => self.end_batch(from, batch, mark),
            false => self.mesh.unread.push_back(UnreadBatch { from, batch, left, mark }),
        }
    }

    /// Whether batches are here that this core has not gone through: it takes no more meanwhile.
    pub fn has_unread_batches(&self) -> bool {
        self.mesh.has_unread()
    }

    /// Goes on with the first of the batches of which a part is left; false when there is none, or no
    /// time for it.
    pub(in crate::engine) fn go_on_with_batches(&mut self) -> bool {
        if self.work.is_spent() {
            return false;
        }
        let mut lines = self.mesh.unread.iter();
        let first = lines.position(|unread| !self.router.fan_outs().blocks(unread.from));
        let Some(mut unread) = first.and_then(|first| self.mesh.unread.remove(first)) else {
            return false;
        };
        // Half of what there is: connections that wait have the other half.
        self.work.begin_share(2);
        while !self.work.is_spent()
            && !self.router.fan_outs().blocks(unread.from)
            && let Some(parcel) = unread.left.pop_front()
        {
            self.work.spend(1);
            self.take_parcel(unread.from, &unread.batch, parcel);
        }
        let goes_on = !self.work.is_spent();
        self.work.end_share();
        match unread.left.is_empty() && !self.router.fan_outs().blocks(unread.from) {
            true => self.end_batch(unread.from, unread.batch, unread.mark),
            false => self.mesh.unread.push_front(unread),
        }
        goes_on
    }

    fn end_batch(&mut self, from: CoreId, batch: Batch, mark: u64) {
        // A receipt says that what is to be kept is kept.
        let records = self.durability.batch_since(mark);
        if records.is_some() {
            self.durability.flush_soon();
        }
        self.mesh.note_taken(from, batch, records);
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
    }

    fn take_parcel(&mut self, from: CoreId, batch: &Batch, parcel: Parcel) {
        match parcel {
            Parcel::AnnounceExact(filter) => {
                self.router.edit_replica().announce_exact(from.0, filter)
            }
            Parcel::WithdrawExact(filter) => {
                self.router.edit_replica().withdraw_exact(from.0, filter)
            }
            Parcel::AnnounceWildcard(filter) => {
                self.router.edit_replica().announce_wildcard(from.0, &batch.filter(filter));
            }
            Parcel::WithdrawWildcard(filter) => {
                self.router.edit_replica().withdraw_wildcard(from.0, batch.text(filter));
            }
            Parcel::Group { filter, online, members } => {
                let at = shards::GroupAt { core: from.0, online, members };
                self.router.edit_replica().set_group(&batch.filter(filter), at);
            }
            Parcel::Publish(forwarded) => self.take_forwarded(from, batch, &forwarded),
            Parcel::Pause(publisher) => self.connections.pause_reading(publisher),
            Parcel::Resume(publisher) => self.connections.resume_reading(publisher, self.now),
            Parcel::ExchangeOver(exchange) => self.durability.note_exchange_over(exchange),
            Parcel::AskMetrics => {
                let metrics = Box::new(self.report());
                self.mesh.send_metrics(from, metrics);
            }
            Parcel::Metrics(metrics) => self.take_metrics(from, *metrics),
        }
    }

    fn take_forwarded(&mut self, from: CoreId, batch: &Batch, forwarded: &Forwarded) {
        let content = batch.content(&forwarded.body);
        if forwarded.publisher.is_some() {
            self.metrics.forwarded_by_qos[usize::from(u8::from(content.qos))] += 1;
        }
        let publisher = forwarded.publisher.map(|connection| Publisher { core: from, connection });
        let origin = Origin { publisher, session: None, once: None, from: Some(from) };
        let mut draft = match forwarded.body.message() {
            Some(message) => Draft::of(message, content, forwarded.retain),
            None => Draft::new(content, forwarded.retain),
        };
        draft.once = forwarded.once.map(|place| batch.exchange(place));
        self.durability.begin_exchange(draft.once, &mut self.mesh);
        match forwarded.to {
            Whom::SubscribersAndStore(stamp) => {
                // An empty payload takes the one before away, whatever form it came in.
                let is_set = !content.payload.is_empty();
                let message = forwarded.body.message().filter(|_| is_set).cloned();
                debug_assert_eq!(message.is_some(), is_set, "what is kept comes by reference");
                let stored = Stored { stamp, message };
                self.retained.store(content.topic, &stored, self.now, &mut self.timers);
                self.deliver_here(&mut draft, &origin);
            }
            Whom::Subscribers => self.deliver_here(&mut draft, &origin),
            Whom::Group { filter, hops, on_arrival } => {
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

    /// Hands a message to the other cores that have subscribers for it, or, when it is retained,
    /// to all of them, and notes them in `reached`.
    pub(in crate::engine) fn forward(
        &mut self,
        recipients: &Recipients,
        draft: &mut Draft<'_>,
        origin: &Origin,
        stored: Option<&Stored>,
    ) {
        match stored {
            None => {
                for &core in &recipients.cores {
                    self.forward_to(CoreId(core), draft, origin, |_| Whom::Subscribers);
                }
            }
            Some(stored) => {
                for core in self.place.others() {
                    let whom = Whom::SubscribersAndStore(stored.stamp);
                    self.forward_to(core, draft, origin, |_| whom);
                }
            }
        }
    }

    /// Forwards a message to one core.
    pub(in crate::engine) fn forward_to(
        &mut self,
        core: CoreId,
        draft: &mut Draft<'_>,
        origin: &Origin,
        whom: impl FnOnce(&mut Batch) -> Whom,
    ) {
        // Only a client of this core can be slowed from over there.
        let own = origin.publisher.filter(|publisher| publisher.core == self.place.core());
        let publisher = own.map(|publisher| publisher.connection);
        let waits = self.mesh.send_message(core, draft, publisher, self.place.ledger(), whom);
        if waits && let Some(publisher) = publisher {
            self.wait_for_lane(publisher, core);
        }
    }

    /// Leaves a publisher unread until less is under way to a core.
    fn wait_for_lane(&mut self, publisher: ConnectionId, core: CoreId) {
        if self.connections.get_mut(publisher).is_some_and(|connection| connection.holders == 0) {
            self.mesh.queue_publisher(core, publisher);
            self.connections.pause_reading(publisher);
        }
    }

    /// The core on which the session of a Client Identifier lives.
    pub(in crate::engine) fn home(&self, client_identifier: &str) -> CoreId {
        match self.mesh.is_alone() {
            true => self.core(),
            false => self.mesh.home(self.router.replica().fingerprint(client_identifier)),
        }
    }
}
