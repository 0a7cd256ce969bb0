//! Subscriptions of all clients or of one, and the queue and the messages in flight of a client.

use shards::Subscription;

use crate::base::clock::Now;
use crate::base::ids::{SessionId, SessionRef};
use crate::base::limits;
use crate::control::Reply;
use crate::control::answer::{
    InflightPage, Page, QueuePage, QueuedMessage, SubscriptionEntry, Texts,
};
use crate::control::question::{ListingPlace, PageRequest};
use crate::engine::Engine;
use crate::engine::inspect::{Progress, SessionWalk, Slice, Slices, Walked, page_bytes};
use crate::session::outbound::{Delivery, InflightStage};
use crate::session::table::SessionTable;

/// A message as it is shown, with the beginning of its payload.
pub(super) fn queued_message(
    delivery: &Delivery,
    payload_bytes_max: usize,
    now: Now,
    texts: &mut Texts,
) -> QueuedMessage {
    let content = delivery.message.content();
    let shown = content.payload.len().min(payload_bytes_max);
    QueuedMessage {
        topic: texts.copy(content.topic),
        qos: delivery.qos.into(),
        retain: delivery.retain,
        payload_bytes: content.payload.len() as u64,
        payload: (payload_bytes_max > 0).then(|| content.payload[..shown].to_vec()),
        expires_in_s: content.expires.map(|expires| expires.seconds_left(now)),
    }
}

/// A page of subscriptions.
#[derive(Debug)]
pub(super) struct Listing {
    limit: usize,
    walk: SessionWalk,
    /// The client whose subscriptions are listed, if they are those of one client.
    only: Option<SessionRef>,
    /// The session at which the walk is.
    session: Option<SessionRef>,
    /// The place of the session within which the page begins.
    begins_within: u32,
    entries: Vec<SubscriptionEntry>,
    texts: Texts,
    bytes: usize,
    next: Option<ListingPlace>,
    sessions: u64,
    reply: Option<Reply<Option<Page<SubscriptionEntry>>>>,
}

impl Listing {
    /// None if the session of the client is not here.
    pub(super) fn new(
        client_identifier: Option<Box<str>>,
        page: PageRequest,
        sessions: &SessionTable,
    ) -> Option<Self> {
        let only = match client_identifier {
            Some(client) => Some(sessions.reference(sessions.find(&client)?)),
            None => None,
        };
        let limit = page.limit.clamp(1, limits::PAGE_ENTRIES_MAX);
        Some(Self {
            limit,
            walk: SessionWalk::new(page.from),
            only,
            session: only,
            begins_within: page.from.place,
            entries: Vec::with_capacity(limit),
            texts: Texts::default(),
            bytes: 0,
            next: Some(page.from),
            sessions: 0,
            reply: None,
        })
    }

    pub(super) fn answering(mut self, reply: Reply<Option<Page<SubscriptionEntry>>>) -> Self {
        self.reply = Some(reply);
        self
    }

    fn is_full(&self) -> bool {
        self.entries.len() == self.limit || self.bytes >= limits::PAGE_BYTES_MAX
    }

    /// Where the page ends, if it ends here: at the session that the walk is at, or behind it.
    fn place(&self, engine: &Engine) -> Option<ListingPlace> {
        match self.session {
            Some(session) => {
                let place = session.session.place() as u32;
                Some(ListingPlace { place, ..self.walk.at })
            }
            None => self.walk.place(engine),
        }
    }

    /// Adds subscriptions of the session that the walk is at; returns false when none is left.
    fn add_some(&mut self, engine: &Engine, slice: &mut Slice) -> bool {
        let Some(session) = self.session else { return false };
        let Some(state) = engine.sessions.resolve(session) else { return false };
        while let Some(&filter) = state.subscriptions.get(self.walk.at.within as usize) {
            if self.is_full() || slice.is_spent() {
                return true;
            }
            self.walk.at.within += 1;
            slice.look();
            let index = engine.router.index();
            if let Some(subscription) = index.get(filter, session.session.into()) {
                let (text, texts) = (index.text(filter), &mut self.texts);
                let entry = engine.subscription_entry(session.session, &text, &subscription, texts);
                self.bytes += entry.bytes();
                slice.add(entry.bytes());
                self.entries.push(entry);
            }
        }
        false
    }
}

impl Slices for Listing {
    fn is_awaited(&self) -> Option<bool> {
        Some(self.reply.as_ref().is_some_and(Reply::is_awaited))
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + page_bytes(&self.entries, self.bytes)
    }

    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress {
        self.sessions = engine.sessions.everywhere() as u64;
        loop {
            if self.add_some(engine, slice) {
                self.next = self.place(engine);
                return if self.is_full() { Progress::Done } else { Progress::More };
            }
            if self.session.take().is_some() {
                self.walk.at.within = 0;
            }
            if self.only.is_some() {
                self.next = None;
                return Progress::Done;
            }
            if self.is_full() {
                self.next = self.place(engine);
                return Progress::Done;
            }
            match self.walk.next(engine, slice) {
                Walked::Session(session) => {
                    if session.place() as u32 != self.begins_within {
                        self.walk.at.within = 0;
                    }
                    self.session = Some(engine.sessions.reference(session));
                }
                Walked::Later => {
                    self.next = Some(self.walk.at);
                    return Progress::More;
                }
                Walked::End => {
                    self.next = None;
                    return Progress::Done;
                }
            }
        }
    }

    fn answer(self: Box<Self>, _is_complete: bool) {
        let Self { entries, next, sessions, reply, .. } = *self;
        if let Some(reply) = reply {
            reply.send(Some(Page { entries, next, sessions }));
        }
    }
}

/// A page of the queue of a client.
#[derive(Debug)]
pub(super) struct QueueListing {
    session: SessionRef,
    from: u64,
    limit: usize,
    payload_bytes_max: usize,
    page: QueuePage,
    texts: Texts,
    bytes: usize,
    reply: Reply<Option<QueuePage>>,
}

impl QueueListing {
    pub(super) fn new(
        session: SessionRef,
        from: u64,
        limit: usize,
        payload_bytes_max: usize,
        reply: Reply<Option<QueuePage>>,
    ) -> Self {
        let limit = limit.clamp(1, limits::PAGE_ENTRIES_MAX);
        let messages = Vec::with_capacity(limit);
        Self {
            session,
            from,
            limit,
            payload_bytes_max: payload_bytes_max.min(limits::ANSWER_BYTES_PER_TURN),
            page: QueuePage { messages, next: None, queued: 0, queue_bytes: 0 },
            texts: Texts::default(),
            bytes: 0,
            reply,
        }
    }
}

impl Slices for QueueListing {
    fn is_awaited(&self) -> Option<bool> {
        Some(self.reply.is_awaited())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + page_bytes(&self.page.messages, self.bytes)
    }

    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress {
        self.page.next = None;
        let Some(state) = engine.sessions.resolve(self.session) else { return Progress::Done };
        let Some(outbound) = &state.outbound else { return Progress::Done };
        self.page.queued = outbound.queued() as u64;
        self.page.queue_bytes = outbound.queued_bytes();
        for (number, delivery) in outbound.list_queued(self.from) {
            self.page.next = Some(number);
            if self.page.messages.len() == self.limit || self.bytes >= limits::PAGE_BYTES_MAX {
                return Progress::Done;
            }
            if slice.is_spent() {
                return Progress::More;
            }
            slice.look();
            let (shown, texts) = (self.payload_bytes_max, &mut self.texts);
            let message = queued_message(delivery, shown, engine.now, texts);
            self.bytes += message.bytes();
            slice.add(message.bytes());
            self.page.messages.push((number, message));
            (self.from, self.page.next) = (number + 1, None);
        }
        Progress::Done
    }

    fn answer(self: Box<Self>, _is_complete: bool) {
        let Self { page, reply, .. } = *self;
        reply.send(Some(page));
    }
}

impl Engine {
    /// Whether a session receives messages of a topic by a subscription that matches it.
    pub(super) fn receives(
        &mut self,
        session: SessionId,
        subscription: &Subscription,
        topic: &str,
    ) -> bool {
        let Self { router, sessions, work, .. } = self;
        !subscription.options.is_filtered() || router.may_read(topic, session, sessions, work)
    }

    pub(super) fn subscription_entry(
        &self,
        session: SessionId,
        filter: &str,
        subscription: &Subscription,
        texts: &mut Texts,
    ) -> SubscriptionEntry {
        let state = &self.sessions[session];
        SubscriptionEntry {
            client_id: texts.copy(state.client_identifier.as_str()),
            filter: texts.copy(filter),
            qos: subscription.options.qos(),
            no_local: subscription.options.no_local(),
            retain_as_published: subscription.options.retain_as_published(),
            identifier: Some(subscription.identifier).filter(|&identifier| identifier != 0),
            is_connected: state.connection.is_some(),
        }
    }

    /// The messages in flight to a client, the oldest ones.
    pub(super) fn inflight_page(
        &mut self,
        client_identifier: &str,
        limit: usize,
    ) -> Option<InflightPage> {
        let state = &self.sessions[self.sessions.find(client_identifier)?];
        let Some(outbound) = &state.outbound else {
            return Some(InflightPage { messages: Vec::new(), inflight: 0 });
        };
        let stage = |stage| match stage {
            InflightStage::Unsent => "unsent",
            InflightStage::Sent => "sent",
            InflightStage::Held => "held",
            InflightStage::Released => "released",
        };
        let (now, mut bytes, mut texts) = (self.now, 0, Texts::default());
        let shown = outbound.list_inflight().take(limit.clamp(1, limits::INFLIGHT_SHOWN_MAX));
        let messages = shown.map_while(|listed| {
            let shown = |delivery| queued_message(delivery, 0, now, &mut texts);
            let message = listed.delivery.map(shown);
            let has_room = bytes < limits::ANSWER_BYTES_PER_TURN;
            bytes += message.as_ref().map_or(0, QueuedMessage::bytes);
            has_room.then_some((listed.identifier, stage(listed.stage), message))
        });
        let messages: Vec<_> = messages.collect();
        let inflight = outbound.inflight() as u64;
        self.work.spend(outbound.inflight_places() / limits::QUEUE_ENTRIES_PER_STEP);
        self.work.spend(messages.len());
        Some(InflightPage { messages, inflight })
    }
}
