//! The lane to a node that is a member, and what has come from it.

use std::collections::{HashSet, VecDeque};

use shards::interest::Class;
use shards::{CoreMatches, TopicFilter};

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, CoreId};
use crate::base::limits;
use crate::cluster::codec::session::SessionStep;
use crate::cluster::codec::{DecodeError, Fault, Item, Publish, To};
use crate::cluster::gateway::Joined;
use crate::cluster::gateway::identity;
use crate::cluster::gateway::interest::{Announced, Entry, Interest, Told};
use crate::cluster::gateway::node::{self, Holder, Process};
use crate::cluster::gateway::sessions;
use crate::cluster::lane::{Content, Lane};
use crate::engine::for_gateway::{
    Destination, Forwarded, Lanes, MeshMessage, Places, Qos2Exchange,
};
use crate::message::{self, Message};
use crate::resources::gauges::Place;
use crate::wire::Qos;

/// A frame whose content some cores have not processed and stored yet.
#[derive(Debug)]
struct Unstored {
    frame: u64,
    barriers: Vec<(CoreId, u64)>,
    /// The cores do not see the filters in it yet.
    is_hidden: bool,
    /// The node wants to know the clock afterwards.
    asks_clock: bool,
}

/// A lane to a member.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) lane: Lane,
    /// Contents that have come and that the cores have not got.
    pub(super) waiting: VecDeque<Content>,
    unstored: VecDeque<Unstored>,
    /// By core, whether it knows the node as a member, and not only an earlier start of it.
    known_to: Vec<bool>,
    /// Publishers of this process that the node has paused.
    pub(super) paused: HashSet<(CoreId, ConnectionId)>,
    /// The core of this process that published what was pushed last.
    pub(super) source: Option<CoreId>,
    /// The core of the node that published what comes next, and by core of this process, whether it has been told another.
    next_source: u16,
    told_sources: Vec<u16>,
    /// A clock that all later stamps of the node exceed.
    pub(super) clock: u64,
    /// How far the node knows what the cores hold; none when it knows all.
    told: Option<Told>,
    /// Whether the node has announced all that it had when the lane began.
    is_announced: bool,
    matches: CoreMatches,
}

impl Link {
    pub(super) fn new(
        now: Now,
        own_incarnation: u64,
        joined: Joined,
        told: Told,
        cores: u16,
    ) -> Self {
        let mut lane = Lane::new(own_incarnation, joined.incarnation, now);
        lane.set_version(joined.version);
        Self {
            lane,
            waiting: VecDeque::new(),
            unstored: VecDeque::new(),
            known_to: vec![false; usize::from(cores)],
            paused: HashSet::new(),
            source: None,
            next_source: 0,
            told_sources: Vec::new(),
            clock: 0,
            told: Some(told),
            is_announced: false,
            matches: CoreMatches::default(),
        }
    }

    /// Whether both nodes know what the other holds.
    pub(super) fn is_settled(&self) -> bool {
        self.is_announced && self.told.is_none()
    }

    /// Whether the node is being told what the cores hold, and there is room for more.
    pub(super) fn is_telling(&self) -> bool {
        self.told.is_some() && !self.lane.is_loaded()
    }

    pub(super) fn handle_time(&mut self, now: Now) {
        if self.lane.poll_timeout().is_some_and(|at| at.is_due(now)) {
            self.lane.handle_timeout(now);
        }
    }

    /// Tells the node some of what the cores hold.
    pub(super) fn tell_holdings(&mut self, now: Now, interest: &Interest, count: usize) {
        if !self.is_telling() {
            return;
        }
        let (lane, Some(told)) = (&mut self.lane, &mut self.told) else { return };
        let is_more = interest.tell_next(told, count, |entry| {
            let item = match entry {
                Entry::Filter(filter, class) => Item::Announce { filter, class: class as u8 },
                Entry::Group { text, online, members } => {
                    Item::Group { filter: text, online, members }
                }
            };
            lane.push(now, &item);
        });
        if !is_more {
            lane.push(now, &Item::HelloDone);
            self.told = None;
        }
    }

    /// Whether the node has been told of a filter as it was announced.
    pub(super) fn has_told(&self, filter: &str, announced: Announced) -> bool {
        self.told.as_ref().is_none_or(|told| told.has(filter, announced))
    }

    /// A core knows the node as a member, as this lane or as an earlier one.
    pub(super) fn note_known(&mut self, core: CoreId, is_this: bool) {
        self.known_to[usize::from(core.0)] |= is_this;
    }

    /// Whether a core knows the node as a member.
    pub(super) fn is_known_to(&self, core: CoreId) -> bool {
        self.known_to[usize::from(core.0)]
    }

    /// Whether all cores know the node as a member.
    pub(super) fn is_introduced(&self) -> bool {
        self.known_to.iter().all(|&is_known| is_known)
    }

    /// The cores see all filters of the node so far, and are told so in the batches of this turn.
    pub(super) fn note_shown(&mut self, to_cores: &mut Lanes, cores: u16) {
        for frame in self.unstored.iter_mut().filter(|frame| frame.is_hidden) {
            frame.is_hidden = false;
            frame.barriers = (0..cores)
                .map(CoreId)
                .map(|core| (core, to_cores.to(core).ask_receipt()))
                .collect();
        }
    }

    /// Receipts frames that all cores concerned have processed and stored. `clock`: all later stamps of the cores exceed it.
    pub(super) fn end_frames(&mut self, now: Now, to_cores: &Lanes, clock: u64) {
        while let Some(ended) = self
            .unstored
            .pop_front_if(|frame| !frame.is_hidden && to_cores.are_receipted(&frame.barriers))
        {
            if ended.asks_clock {
                self.lane.push(now, &Item::Clock(clock));
            }
            self.lane.set_receipt(ended.frame);
        }
    }

    /// Gives the cores what a frame of the node contains.
    pub(super) fn give(
        &mut self,
        now: Now,
        content: &Content,
        of: Holder<'_>,
        process: &mut Process<'_>,
    ) -> Result<(), DecodeError> {
        let Holder { node, own, holdings, groups, to_cores } = of;
        let Process { place, interest, elsewhere, counters } = process;
        let place = *place;
        self.told_sources.resize(place.cores().into(), 0);
        let (next_source, told_sources) =
            (self.next_source, std::mem::take(&mut self.told_sources));
        let age_us = content.age_us;
        let mut given =
            Given { touched: 0, to_cores, place, now, age_us, own, next_source, told_sources };
        let mut asks_clock = false;
        for item in content.items() {
            match item? {
                Item::Publish(publish) => {
                    counters.messages_taken += 1;
                    self.give_publish(&publish, interest, &mut given)?;
                }
                Item::Retained(publish) => {
                    let To::SubscribersAndStore { stamp } = publish.to else { continue };
                    let to = Destination::Store(stamp as u64);
                    given.publish_to_all(&publish, to)?;
                }
                Item::Announce { filter, class } => {
                    check(filter)?;
                    elsewhere.announce(node, holdings, filter, class_of(class)?);
                }
                Item::Withdraw { filter, class } => {
                    elsewhere.withdraw(node, holdings, filter, class_of(class)?);
                }
                Item::Group { filter, online, members } => {
                    check(filter)?;
                    groups.note(filter, members);
                    node::link_group(given.to_cores, place.cores(), filter, (online, members));
                    given.touch_all();
                }
                Item::Pause { core, connection } => {
                    let (core, connection) = (CoreId(core), identity::connection(connection));
                    if core.0 < place.cores() && self.paused.insert((core, connection)) {
                        given.push(core, MeshMessage::Pause(connection));
                    }
                }
                Item::Resume { core, connection } => {
                    let (core, connection) = (CoreId(core), identity::connection(connection));
                    if self.paused.remove(&(core, connection)) {
                        given.push(core, MeshMessage::Resume(connection));
                    }
                }
                Item::ExchangeOver(name) => {
                    if let Some(Qos2Exchange { exchange, .. }) = identity::exchange(name, own) {
                        for core in (0..place.cores()).map(CoreId) {
                            given.push(core, MeshMessage::ExchangeOver(exchange));
                        }
                    }
                }
                Item::Clock(clock) => self.clock = clock,
                Item::ClockAsk => {
                    asks_clock = true;
                    given.touch_all();
                }
                Item::HelloDone => self.is_announced = true,
                Item::Source(core) => given.next_source = core,
                Item::Session(item) => {
                    let home = interest.home(item.client);
                    let cores = match item.step {
                        SessionStep::Flush { .. } => 0..place.cores(),
                        _ => home.0..home.0 + 1,
                    };
                    for core in cores.map(CoreId) {
                        given.tell_source(core);
                        let message = sessions::message(given.to_cores.to(core).open(), &item);
                        given.push(core, MeshMessage::Session(message));
                    }
                }
            }
        }
        let barriers = given.barriers(asks_clock);
        (self.next_source, self.told_sources) = (given.next_source, given.told_sources);
        let is_hidden = holdings.has_changed();
        self.unstored.push_back(Unstored {
            frame: content.number,
            barriers,
            is_hidden,
            asks_clock,
        });
        self.end_frames(now, to_cores, 0);
        Ok(())
    }

    fn give_publish(
        &mut self,
        publish: &Publish<'_>,
        interest: &mut Interest,
        given: &mut Given<'_>,
    ) -> Result<(), DecodeError> {
        match publish.to {
            To::Subscribers => {
                interest.matches(publish.topic, &mut self.matches);
                let mut copies = Copies::default();
                for &core in &self.matches.cores {
                    given.publish(CoreId(core), publish, &mut copies, |_| {
                        Destination::Subscribers
                    })?;
                }
            }
            To::SubscribersAndStore { stamp } => {
                given.publish_to_all(publish, Destination::SubscribersAndStore(stamp as u64))?;
            }
            To::Group { filter, hops } => {
                check(filter)?;
                // The members may have left meanwhile: a core knows where others are.
                let core = interest.next_in_group(filter).unwrap_or(CoreId(0));
                given.publish(core, publish, &mut Copies::default(), |batch| {
                    let filter = batch.push_text(filter);
                    Destination::Group { filter, hops, on_arrival: None }
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let waiting: usize = self.waiting.iter().map(Content::len).sum();
        self.lane.heap_bytes() + waiting
    }
}

/// The copies of a message for cores: one in a block for each NUMA node, or one by reference.
#[derive(Default)]
struct Copies {
    places: Places,
    message: Option<Message>,
}

/// The lanes to the cores while they are given the content of a frame.
struct Given<'a> {
    /// Cores that got something, a bit for each of the first 63; the last bit for all others.
    touched: u64,
    to_cores: &'a mut Lanes,
    place: &'a Place,
    now: Now,
    age_us: u64,
    own: u16,
    /// See [`Link::next_source`].
    next_source: u16,
    told_sources: Vec<u16>,
}

impl Given<'_> {
    fn push(&mut self, core: CoreId, message: MeshMessage) {
        self.touched |= 1 << core.0.min(63);
        self.to_cores.to(core).push(message);
    }

    /// Tells a core where what comes next was published, if that has changed.
    fn tell_source(&mut self, core: CoreId) {
        let told = &mut self.told_sources[usize::from(core.0)];
        if std::mem::replace(told, self.next_source) != self.next_source {
            self.push(core, MeshMessage::Source(self.next_source));
        }
    }

    fn touch_all(&mut self) {
        self.touched = u64::MAX;
    }

    /// The batches whose receipts say that the cores have everything.
    fn barriers(&mut self, asks_clock: bool) -> Vec<(CoreId, u64)> {
        let touched = self.touched;
        let cores = (0..self.place.cores()).filter(|core| touched & 1 << core.min(&63) != 0);
        let barrier = |core| {
            let lane = self.to_cores.to(CoreId(core));
            if asks_clock {
                lane.ask_time();
            }
            (CoreId(core), lane.ask_receipt())
        };
        cores.map(barrier).collect()
    }

    fn publish_to_all(
        &mut self,
        publish: &Publish<'_>,
        to: Destination,
    ) -> Result<(), DecodeError> {
        let mut copies = Copies::default();
        // What is kept goes by reference.
        if !publish.payload.is_empty() {
            copies.message = Some(self.content(publish)?.to_message(self.place.ledger()));
        }
        for core in (0..self.place.cores()).map(CoreId) {
            self.publish(core, publish, &mut copies, |_| to)?;
        }
        Ok(())
    }

    fn content<'a>(&self, publish: &Publish<'a>) -> Result<message::Content<'a>, DecodeError> {
        let qos = Qos::try_from(publish.qos).map_err(|_| fault("QoS"))?;
        let expires = publish.expires_in_ms.map(|ms| node::deadline(self.now, ms, self.age_us));
        let &Publish { topic, payload, passed_on, .. } = publish;
        Ok(message::Content { topic, payload, passed_on, expires, qos })
    }

    /// Gives a core an application message.
    fn publish(
        &mut self,
        core: CoreId,
        publish: &Publish<'_>,
        copies: &mut Copies,
        whom: impl FnOnce(&mut crate::engine::Batch) -> Destination,
    ) -> Result<(), DecodeError> {
        self.tell_source(core);
        let content = self.content(publish)?;
        let to = whom(self.to_cores.to(core).open());
        if content.payload.len() + content.passed_on.len() >= limits::SHARED_BYTES_MIN
            && copies.message.is_none()
        {
            copies.message = Some(content.to_message(self.place.ledger()));
        }
        let body = match &copies.message {
            Some(message) => self.to_cores.to(core).open().push_message(message),
            None => self.to_cores.push_content(core, &content, &mut copies.places),
        };
        let exchange = publish.exchange.and_then(|name| identity::exchange(name, self.own));
        let exchange =
            exchange.and_then(|exchange| self.to_cores.to(core).open().push_exchange(exchange));
        let publisher = node::publisher(publish.publisher);
        let forwarded = Forwarded { body, retain: publish.retain, publisher, exchange, to };
        self.push(core, MeshMessage::Publish(forwarded));
        Ok(())
    }
}

/// The cores rely on filters that can be parsed.
fn check(filter: &str) -> Result<(), DecodeError> {
    match TopicFilter::parse(filter, usize::MAX) {
        Ok(_) => Ok(()),
        Err(_) => Err(fault("filter")),
    }
}

fn class_of(class: u8) -> Result<Class, DecodeError> {
    Class::try_from(class).map_err(|_| fault("class"))
}

fn fault(field: &'static str) -> DecodeError {
    DecodeError { at: 0, fault: Fault::Value(field) }
}
