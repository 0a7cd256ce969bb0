//! Clients: listings, those with the highest values, and everything about one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::ids::{SessionId, SessionRef};
use crate::base::limits;
use crate::base::metrics::DROPS;
use crate::control::Reply;
use crate::control::answer::{
    ClientDetail, ClientSummary, ConnectionDetail, InflightByStage, Page, Texts, TopClients,
    WillDetail, version_name,
};
use crate::control::question::{ClientFilter, ListingPlace, PageRequest, TopBy};
use crate::engine::Engine;
use crate::engine::connections::connection::{Connection, Hold};
use crate::engine::inspect::sessions::queued_message;
use crate::engine::inspect::{Progress, SessionWalk, Slice, Slices, Walked, page_bytes};
use crate::session::outbound::InflightStage;
use crate::session::state::Session;

/// A page of clients.
#[derive(Debug)]
pub(super) struct Listing {
    filter: Box<ClientFilter>,
    limit: usize,
    walk: SessionWalk,
    entries: Vec<ClientSummary>,
    texts: Texts,
    bytes: usize,
    next: Option<ListingPlace>,
    sessions: u64,
    reply: Reply<Page<ClientSummary>>,
}

impl Listing {
    pub(super) fn new(
        filter: Box<ClientFilter>,
        page: PageRequest,
        reply: Reply<Page<ClientSummary>>,
    ) -> Self {
        let limit = page.limit.clamp(1, limits::PAGE_ENTRIES_MAX);
        Self {
            filter,
            limit,
            walk: SessionWalk::new(page.from),
            entries: Vec::with_capacity(limit),
            texts: Texts::default(),
            bytes: 0,
            next: Some(page.from),
            sessions: 0,
            reply,
        }
    }
}

impl Slices for Listing {
    fn is_awaited(&self) -> Option<bool> {
        Some(self.reply.is_awaited())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + page_bytes(&self.entries, self.bytes)
    }

    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress {
        self.sessions = engine.sessions.everywhere() as u64;
        loop {
            if self.entries.len() == self.limit || self.bytes >= limits::PAGE_BYTES_MAX {
                self.next = self.walk.place(engine);
                return Progress::Done;
            }
            match self.walk.next(engine, slice) {
                Walked::Session(session) => {
                    if engine.is_selected(session, &self.filter) {
                        let summary = engine.client_summary(session, &mut self.texts);
                        self.bytes += summary.bytes();
                        slice.add(summary.bytes());
                        self.entries.push(summary);
                    }
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
        reply.send(Page { entries, next, sessions });
    }
}

/// A value and whose it is, ordered by the value.
type Ranked = (u64, Reverse<usize>, u32);

/// The clients with the highest values.
#[derive(Debug)]
pub(super) struct Top {
    by: TopBy,
    count: usize,
    walk: SessionWalk,
    /// The best so far: the lowest of them is at the top of the heap.
    best: BinaryHeap<Reverse<Ranked>>,
    looked_at: u64,
    /// Those that are still to be described, the lowest first, once the walk is over.
    ranked: Option<Vec<Reverse<Ranked>>>,
    clients: Vec<(u64, ClientSummary)>,
    texts: Texts,
    bytes: usize,
    reply: Reply<TopClients>,
}

impl Top {
    pub(super) fn new(by: TopBy, count: usize, reply: Reply<TopClients>) -> Self {
        Self {
            by,
            count: count.clamp(1, limits::PAGE_ENTRIES_MAX),
            walk: SessionWalk::new(ListingPlace::default()),
            best: BinaryHeap::new(),
            looked_at: 0,
            ranked: None,
            clients: Vec::new(),
            texts: Texts::default(),
            bytes: 0,
            reply,
        }
    }

    fn note(&mut self, value: u64, session: SessionRef) {
        if value == 0 {
            return;
        }
        let ranked = Reverse((value, Reverse(session.session.place()), session.generation));
        if self.best.len() < self.count {
            self.best.push(ranked);
        } else if let Some(mut lowest) = self.best.peek_mut()
            && ranked.0 > lowest.0
        {
            *lowest = ranked;
        }
    }
}

impl Slices for Top {
    fn is_awaited(&self) -> Option<bool> {
        Some(self.reply.is_awaited())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.best.len() * size_of::<Ranked>()
            + page_bytes(&self.clients, self.bytes)
    }

    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress {
        while self.ranked.is_none() {
            match self.walk.next(engine, slice) {
                Walked::Session(session) => {
                    self.looked_at += 1;
                    let value = engine.value_of(session, self.by);
                    self.note(value, engine.sessions.reference(session));
                }
                Walked::Later => return Progress::More,
                // The order of `Reverse` has the highest value first.
                Walked::End => {
                    let mut ranked = std::mem::take(&mut self.best).into_sorted_vec();
                    ranked.reverse();
                    self.clients.reserve_exact(ranked.len());
                    self.ranked = Some(ranked);
                }
            }
        }
        let Some(ranked) = &mut self.ranked else { return Progress::Done };
        while let Some(Reverse((value, Reverse(place), generation))) = ranked.pop() {
            let session = SessionRef { session: SessionId::new(place), generation };
            slice.look();
            if engine.sessions.resolve(session).is_some() && self.bytes < limits::PAGE_BYTES_MAX {
                let summary = engine.client_summary(session.session, &mut self.texts);
                slice.add(summary.bytes());
                self.bytes += summary.bytes();
                self.clients.push((value, summary));
            }
            if slice.is_spent() {
                return Progress::More;
            }
        }
        Progress::Done
    }

    fn answer(self: Box<Self>, is_complete: bool) {
        let Self { clients, looked_at, reply, .. } = *self;
        reply.send(TopClients { clients, looked_at, is_complete });
    }
}

/// Messages in the queue of a session, in flight, and dropped.
fn counts(state: &Session) -> (u64, u64, u64) {
    let outbound = state.outbound.as_ref();
    let (queued, inflight) = outbound.map_or((0, 0), |o| (o.queued() as u64, o.inflight() as u64));
    let drops = state.extra.as_ref().and_then(|extra| extra.drops.as_ref());
    (queued, inflight, drops.map_or(0, |drops| drops.total()))
}

impl Engine {
    fn connection_of(&self, state: &Session) -> Option<&Connection> {
        self.connections.get(state.connection?)
    }

    fn value_of(&self, session: SessionId, by: TopBy) -> u64 {
        let state = &self.sessions[session];
        let (queued, inflight, dropped) = counts(state);
        let of_connection =
            |value: fn(&Connection) -> u64| self.connection_of(state).map_or(0, value);
        match by {
            TopBy::Queued => queued,
            TopBy::Inflight => inflight,
            TopBy::Dropped => dropped,
            TopBy::Outbox => of_connection(|connection| connection.pending_bytes() as u64),
            TopBy::BytesIn => of_connection(|connection| connection.traffic.received),
            TopBy::BytesOut => of_connection(|connection| connection.traffic.sent),
        }
    }

    fn is_selected(&self, session: SessionId, filter: &ClientFilter) -> bool {
        let state = &self.sessions[session];
        let connection = self.connection_of(state);
        let prefix = filter.id_prefix.as_deref().unwrap_or_default();
        let user = filter.user.as_deref();
        let network = filter.network.is_none_or(|network| {
            let address = connection.and_then(|connection| connection.address());
            address.is_some_and(|address| network.contains(&address.ip().to_canonical()))
        });
        let is_selected = filter.is_connected.is_none_or(|wanted| wanted == connection.is_some())
            && state.client_identifier.as_str().starts_with(prefix)
            && (user.is_none() || state.owner() == user)
            && network
            && (filter.listener.is_none() || connection.map(|c| c.listener) == filter.listener)
            && (filter.version.is_none() || connection.map(|c| c.version) == filter.version);
        let (queued, _, dropped) = match is_selected {
            true => counts(state),
            false => return false,
        };
        queued >= filter.queued_min && dropped >= filter.dropped_min
    }

    fn client_summary(&self, session: SessionId, texts: &mut Texts) -> ClientSummary {
        let state = &self.sessions[session];
        let connection = self.connection_of(state);
        let (queued, inflight, dropped) = counts(state);
        ClientSummary {
            client_id: texts.copy(state.client_identifier.as_str()),
            user: state.owner().map(|user| texts.copy(user)),
            state: if connection.is_some() { "connected" } else { "disconnected" },
            core: self.mesh.core().0,
            version: connection.map(|connection| version_name(connection.version)),
            address: connection.and_then(|connection| connection.address()),
            listener: connection.map(|connection| connection.listener),
            subscriptions: state.subscriptions.len() as u64,
            queued,
            inflight,
            dropped,
            outbox_bytes: connection.map_or(0, |connection| connection.pending_bytes() as u64),
            bytes_in: connection.map_or(0, |connection| connection.traffic.received),
            bytes_out: connection.map_or(0, |connection| connection.traffic.sent),
        }
    }

    /// Everything about one client.
    pub(super) fn client_detail(&mut self, client_identifier: &str) -> Option<ClientDetail> {
        let session = self.sessions.find(client_identifier)?;
        let state = &self.sessions[session];
        let outbound = state.outbound.as_ref();
        let mut by_stage = InflightByStage::default();
        if let Some(outbound) = outbound {
            for listed in outbound.list_inflight() {
                match listed.stage {
                    InflightStage::Unsent => by_stage.unsent += 1,
                    InflightStage::Sent => by_stage.sent += 1,
                    InflightStage::Held => by_stage.held += 1,
                    InflightStage::Released => by_stage.released += 1,
                }
            }
        }
        let oldest = outbound.and_then(|outbound| outbound.list_queued(0).next());
        let drops = state.extra.as_ref().and_then(|extra| extra.drops.as_deref());
        let mut texts = Texts::default();
        let detail = ClientDetail {
            summary: self.client_summary(session, &mut texts),
            connection: self.connection_of(state).map(|of| self.connection_detail(of)),
            session_expiry_interval_s: Some(state.expiry_interval_s).filter(|&s| s < u32::MAX),
            expires_in_s: state.expires.map(|deadline| deadline.seconds_left(self.now)),
            inflight_by_stage: by_stage,
            received_unreleased: state.inbound.as_ref().map_or(0, |i| i.used()) as u64,
            queue_bytes: outbound.map_or(0, |outbound| outbound.queued_bytes()),
            queue_oldest: oldest
                .map(|(_, delivery)| queued_message(delivery, 0, self.now, &mut texts)),
            has_retained_waiting: !state.replays.is_empty(),
            dropped_by_cause: drops.map_or_else(Default::default, |drops| {
                let counts = DROPS.iter().map(|&(cause, name)| (name, drops.of(cause)));
                counts.filter(|&(_, count)| count > 0).collect()
            }),
            will: state.will.as_ref().map(|will| WillDetail {
                topic: will.topic.to_string(),
                qos: will.qos.into(),
                retain: will.retain,
                payload_bytes: will.payload.len() as u64,
                delay_interval_s: will.delay_interval_s,
                due_in_s: will.due.map(|due| due.seconds_left(self.now)),
            }),
            is_stored: state.number().is_some(),
        };
        let places = outbound.map_or(0, |outbound| outbound.inflight_places());
        self.work.spend(places / limits::QUEUE_ENTRIES_PER_STEP);
        Some(detail)
    }

    fn connection_detail(&self, connection: &Connection) -> ConnectionDetail {
        let congestion = connection.congestion();
        ConnectionDetail {
            tls: self.listeners.has_tls(connection.listener),
            keep_alive_s: connection.keep_alive_s,
            last_packet_ms: self.now.since_us(connection.last_received) / 1_000,
            window: connection.window,
            maximum_packet_size: Some(connection.client_packet_bytes_max())
                .filter(|&max| max < u32::MAX),
            input_bytes: connection.input_bytes() as u64,
            paused_by: reasons_not_read(connection),
            is_behind: congestion.is_some(),
            is_stuck: congestion.is_some_and(|congestion| congestion.is_stuck),
            publishers_waiting: congestion.map_or(0, |congestion| congestion.waiting.len()) as u64,
        }
    }
}

/// Why the socket of a connection is not read.
fn reasons_not_read(connection: &Connection) -> Vec<&'static str> {
    const HOLDS: [(Hold, &str); 7] = [
        (Hold::Backlog, "its unprocessed input"),
        (Hold::Decision, "a decision of the access control"),
        (Hold::Answers, "answers that the client does not read"),
        (Hold::Job, "a packet that takes several turns, or waits for a decision"),
        (Hold::Closed, "the end of the connection"),
        (Hold::Ended, "the end of its stream"),
        (Hold::Left, "its DISCONNECT"),
    ];
    let waits = "slow consumers, another core, the store, or a limit of rate or memory";
    let counted = (connection.read_holds > 0).then_some(waits);
    let holds = HOLDS.iter().filter(|(hold, _)| connection.holds.has(*hold));
    counted.into_iter().chain(holds.map(|&(_, reason)| reason)).collect()
}
