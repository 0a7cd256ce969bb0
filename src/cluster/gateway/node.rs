//! One other node: its lane, and the lanes as this node to the cores of the process.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use shards::heap;
use shards::interest::Class;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::{ConnectionId, CoreId};
use crate::cluster::codec::{Item, Publish, To};
use crate::cluster::gateway::elsewhere::{Elsewhere, Holdings};
use crate::cluster::gateway::identity::{self, EXCHANGE_NAME_BYTES};
use crate::cluster::gateway::interest::{Announced, Interest, Told};
use crate::cluster::gateway::link::Link;
use crate::cluster::gateway::sessions;
use crate::cluster::gateway::{Counters, Joined, NodeId};
use crate::cluster::lane::FrameError;
use crate::engine::Batch;
use crate::engine::for_gateway::{Destination, Forwarded, Lanes, MeshMessage};
use crate::resources::gauges::Place;

/// Filters and shared subscriptions that are announced or withdrawn in a turn.
const FILTERS_PER_TURN: usize = 1_024;

/// Frames whose content the cores are given in a turn.
const FRAMES_PER_TURN: usize = 16;

/// Estimated memory of an entry of a set, without its text.
const ENTRY_BYTES: usize = 24;

/// What of the process a node works on.
pub(super) struct Process<'a> {
    pub(super) place: &'a Place,
    pub(super) interest: &'a mut Interest,
    pub(super) elsewhere: &'a mut Elsewhere,
    pub(super) counters: &'a mut Counters,
}

/// The shared subscriptions of which a node has members.
#[derive(Debug, Default)]
pub(super) struct Groups {
    texts: BTreeSet<Box<str>>,
    bytes: usize,
}

impl Groups {
    /// The node has so many members of a shared subscription.
    pub(super) fn note(&mut self, text: &str, members: u32) {
        let bytes = heap(text.len()) + ENTRY_BYTES;
        if members == 0 {
            self.bytes -= if self.texts.remove(text) { bytes } else { 0 };
        } else if self.texts.insert(text.into()) {
            self.bytes += bytes;
        }
    }
}

#[derive(Debug)]
pub(super) struct Node {
    number: NodeId,
    /// This process's own number.
    own: u16,
    cores: u16,
    /// As this node, to each core.
    to_cores: Lanes,
    link: Option<Link>,
    /// How many lanes to the node there have been.
    links: u64,
    holdings: Holdings,
    groups: Groups,
    /// It has left, and the cores do not know yet that it holds nothing any more.
    is_leaving: bool,
}

impl Node {
    pub(super) fn new(place: &Place, number: NodeId) -> Self {
        let to_cores = Lanes::of_gateway(place);
        Self {
            number,
            own: 0,
            cores: place.cores(),
            to_cores,
            link: None,
            links: 0,
            holdings: Holdings::default(),
            groups: Groups::default(),
            is_leaving: false,
        }
    }

    pub(super) fn number(&self) -> NodeId {
        self.number
    }

    pub(super) fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.link.as_ref().is_none_or(Link::is_settled)
    }

    /// Begins a lane to the node, as this one, which has been `told` nothing. It gives the cores what the node sends once all
    /// have said that they know it as a member: they forward to members alone.
    pub(super) fn link(
        &mut self,
        now: Now,
        (own, incarnation): (NodeId, u64),
        joined: Joined,
        told: Told,
    ) {
        self.own = own.0;
        self.links += 1;
        self.link = Some(Link::new(now, incarnation, joined, told, self.cores));
        self.tell_member(true);
    }

    /// Tells the cores, in the lane in which they get what the node says, that it has joined or has left: what it said
    /// before it left does not come after it has joined again.
    fn tell_member(&mut self, is_member: bool) {
        let (link, own) = (self.links, self.own);
        for core in (0..self.cores).map(CoreId) {
            self.to_cores.to(core).push(MeshMessage::Member { is_member, link, own });
        }
    }

    /// Sets the window of the lane, in bytes.
    pub(super) fn set_window(&mut self, bytes: usize) {
        if let Some(link) = &mut self.link {
            link.lane.set_window(bytes);
        }
    }

    /// Ends the lane; false if there is none.
    pub(super) fn unlink(&mut self) -> bool {
        let Some(link) = self.link.take() else { return false };
        self.is_leaving = true;
        // In an order that does not change from run to run.
        let mut paused: Vec<(CoreId, ConnectionId)> = link.paused.into_iter().collect();
        paused.sort_unstable_by_key(|(core, of)| (*core, of.slot, of.generation));
        for (core, connection) in paused {
            self.to_cores.to(core).push(MeshMessage::Resume(connection));
        }
        // Nothing is known any more of what was sent to it: nobody waits for it.
        for core in (0..self.cores).map(CoreId) {
            self.to_cores.to(core).note_stored(u64::MAX);
        }
        self.tell_member(false);
        true
    }

    /// The last frame with anything for the node; none if it is not linked.
    pub(super) fn last_frame(&self) -> Option<(NodeId, u64)> {
        Some((self.number, self.link.as_ref()?.lane.last_number()))
    }

    /// Whether the node has processed a frame, or has left.
    pub(super) fn has_receipted(&self, frame: u64) -> bool {
        self.link.as_ref().is_none_or(|link| link.lane.receipted() >= frame)
    }

    pub(super) fn last_heard(&self) -> Option<Now> {
        Some(self.link.as_ref()?.lane.last_heard())
    }

    /// A filter has a class from now on, instead of what was announced before.
    pub(super) fn tell_class(
        &mut self,
        now: Now,
        filter: &str,
        before: Option<Announced>,
        class: Class,
    ) {
        self.tell(now, &Item::Announce { filter, class: class as u8 });
        if let Some(before) = before {
            self.tell_withdrawal(now, filter, before);
        }
    }

    /// A filter has no longer what was announced; for a node that was not told of it, it never had.
    pub(super) fn tell_withdrawal(&mut self, now: Now, filter: &str, before: Announced) {
        if self.link.as_ref().is_some_and(|link| link.has_told(filter, before)) {
            self.tell(now, &Item::Withdraw { filter, class: before.class as u8 });
        }
    }

    pub(super) fn tell_group(&mut self, now: Now, filter: &str, online: u32, members: u32) {
        self.tell(now, &Item::Group { filter, online, members });
    }

    pub(super) fn tell_exchange_over(&mut self, now: Now, name: &[u8; EXCHANGE_NAME_BYTES]) {
        self.tell(now, &Item::ExchangeOver(name));
    }

    fn tell(&mut self, now: Now, item: &Item<'_>) {
        if let Some(link) = &mut self.link {
            link.lane.push(now, item);
        }
    }

    /// Takes what a core sends to the node; how many application messages there were.
    pub(super) fn take_batch(
        &mut self,
        now: Now,
        from: CoreId,
        mut batch: Batch,
        clock: u64,
    ) -> u64 {
        self.to_cores.to(from).note_receipt(batch.receipt);
        let messages = std::mem::take(&mut batch.messages);
        let mut sent = 0;
        let mut frame = None;
        if let Some(link) = &mut self.link {
            link.end_frames(now, &self.to_cores, clock);
            for message in &messages {
                if let &MeshMessage::MemberKnown { link: known } = message {
                    link.note_known(from, known == self.links);
                    continue;
                }
                if !link.is_known_to(from) {
                    // The core means the node before its last start, and that has left.
                    continue;
                }
                let has_source =
                    matches!(message, MeshMessage::Publish(_) | MeshMessage::Session(_));
                if has_source && link.source != Some(from) {
                    link.source = Some(from);
                    link.lane.push(now, &Item::Source(from.0));
                }
                sent += u64::from(matches!(message, MeshMessage::Publish(_)));
                frame = pass_on(link, now, self.own, from, &batch, message).or(frame);
            }
            if messages.is_empty() && batch.wants_receipt && link.is_known_to(from) {
                // The core wants to know the node's clock.
                frame = Some(link.lane.push(now, &Item::ClockAsk));
            }
        }
        batch.messages = messages;
        self.to_cores.to(from).note_taken(&batch, frame);
        self.to_cores.recycle(batch);
        sent
    }

    pub(super) fn handle_frame(&mut self, now: Now, frame: Bytes) -> Result<Heard, FrameError> {
        let Some(link) = &mut self.link else { return Ok(Heard::Nothing) };
        let taken = link.lane.handle_frame(now, frame)?;
        if taken.restarted.is_some() {
            // The list of members will say so too. Until then nothing is taken, and nothing said that was.
            self.unlink();
            return Ok(Heard::Restart);
        }
        link.waiting.extend(taken.content);
        let receipted = link.lane.receipted();
        for core in (0..self.cores).map(CoreId) {
            self.to_cores.to(core).note_stored(receipted);
        }
        Ok(Heard::Frame)
    }

    /// Does what is due, and gives the cores what the node sent; whether more could be done at once.
    pub(super) fn handle_turn(
        &mut self,
        now: Now,
        process: &mut Process<'_>,
    ) -> Result<bool, crate::cluster::codec::DecodeError> {
        if self.is_leaving {
            self.is_leaving = self.forget(process.elsewhere);
            return Ok(true);
        }
        let Some(link) = &mut self.link else { return Ok(false) };
        link.handle_time(now);
        link.tell_holdings(now, process.interest, FILTERS_PER_TURN);
        if !link.is_introduced() {
            // The cores will say that they know it, and with that comes a turn.
            return Ok(link.is_telling());
        }
        for _ in 0..FRAMES_PER_TURN {
            if (0..self.cores).any(|core| self.to_cores.is_loaded(CoreId(core))) {
                // A receipt will come, and with it a turn.
                return Ok(false);
            }
            let Some(content) = link.waiting.pop_front() else { return Ok(link.is_telling()) };
            let of = Holder {
                node: self.number.0,
                own: self.own,
                holdings: &mut self.holdings,
                groups: &mut self.groups,
                to_cores: &mut self.to_cores,
            };
            link.give(now, &content, of, process)?;
        }
        Ok(true)
    }

    /// Withdraws some of what the node had before it left; false when nothing is left of it.
    fn forget(&mut self, elsewhere: &mut Elsewhere) -> bool {
        let has_filters = elsewhere.forget(self.number.0, &mut self.holdings, FILTERS_PER_TURN);
        for _ in 0..FILTERS_PER_TURN {
            let Some(text) = self.groups.texts.first().cloned() else { break };
            self.groups.note(&text, 0);
            link_group(&mut self.to_cores, self.cores, &text, (0, 0));
        }
        has_filters || !self.groups.texts.is_empty()
    }

    pub(super) fn poll_batch(&mut self, core: CoreId) -> Option<Batch> {
        let clock = self.link.as_ref().map_or(u64::MAX, |link| link.clock);
        self.to_cores.seal(core, clock)
    }

    pub(super) fn poll_frame(&mut self, now: Now) -> Option<Bytes> {
        let lane = &mut self.link.as_mut()?.lane;
        lane.flush();
        lane.poll_transmit(now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.link.as_ref()?.lane.poll_timeout()
    }

    /// The cores see the filters of the node as they are now: those that match by wildcards are to be found again.
    pub(super) fn note_shown(&mut self) {
        if self.holdings.take_has_changed() {
            for core in (0..self.cores).map(CoreId) {
                self.to_cores.to(core).push(MeshMessage::InterestChanged);
            }
            if let Some(link) = &mut self.link {
                link.note_shown(&mut self.to_cores, self.cores);
            }
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let held = self.holdings.bytes() + self.groups.bytes;
        held + self.link.as_ref().map_or(0, Link::heap_bytes)
    }
}

/// What a frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Frame,
    /// The node is not linked.
    Nothing,
    /// The node has started anew: the lane has ended.
    Restart,
}

/// A node that has sent something, with what it holds.
pub(super) struct Holder<'a> {
    pub(super) node: u16,
    /// This process's own number.
    pub(super) own: u16,
    pub(super) holdings: &'a mut Holdings,
    pub(super) groups: &'a mut Groups,
    pub(super) to_cores: &'a mut Lanes,
}

/// Tells the cores how many members of a shared subscription the node has.
pub(super) fn link_group(
    to_cores: &mut Lanes,
    cores: u16,
    text: &str,
    (online, members): (u32, u32),
) {
    for core in (0..cores).map(CoreId) {
        let lane = to_cores.to(core);
        let filter = lane.open().push_text(text);
        lane.push(MeshMessage::Group { filter, online, members });
    }
}

/// Passes something of a core on to the node; the frame in which it is.
fn pass_on(
    link: &mut Link,
    now: Now,
    own: u16,
    from: CoreId,
    batch: &Batch,
    message: &MeshMessage,
) -> Option<u64> {
    let item = match message {
        MeshMessage::Publish(forwarded) => {
            return Some(publish(link, now, own, from, batch, forwarded));
        }
        MeshMessage::Pause(remote) => {
            let (core, connection) = identity::core_and_connection(*remote);
            Item::Pause { core: core.0, connection: identity::connection_number(connection) }
        }
        MeshMessage::Resume(remote) => {
            let (core, connection) = identity::core_and_connection(*remote);
            Item::Resume { core: core.0, connection: identity::connection_number(connection) }
        }
        MeshMessage::Session(session) => sessions::item(batch, session, link.lane.version())?,
        other => {
            debug_assert!(false, "not for a node: {other:?}");
            return None;
        }
    };
    Some(link.lane.push(now, &item))
}

fn publish(
    link: &mut Link,
    now: Now,
    own: u16,
    from: CoreId,
    batch: &Batch,
    forwarded: &Forwarded,
) -> u64 {
    let content = batch.content(&forwarded.body);
    let exchange = forwarded.exchange.map(|place| {
        let exchange = batch.exchange(place);
        identity::exchange_name(exchange.exchange, exchange.dup, own)
    });
    let is_expiring = |deadline: Deadline| deadline.time_left(now).as_millis() as u64;
    let (to, is_retained) = match forwarded.to {
        Destination::Subscribers => (To::Subscribers, false),
        Destination::SubscribersAndStore(stamp) => {
            (To::SubscribersAndStore { stamp: stamp.into() }, false)
        }
        Destination::Store(stamp) => (To::SubscribersAndStore { stamp: stamp.into() }, true),
        Destination::Group { filter, hops, .. } => {
            (To::Group { filter: batch.text(filter), hops }, false)
        }
    };
    let message = Publish {
        topic: content.topic,
        passed_on: content.passed_on,
        payload: content.payload,
        qos: content.qos.into(),
        retain: forwarded.retain,
        expires_in_ms: content.expires.map(is_expiring),
        publisher: forwarded
            .publisher
            .filter(|&connection| identity::remote_connection(from, connection).is_some())
            .map(|connection| (from.0, identity::connection_number(connection))),
        exchange: exchange.as_ref().map(|name| &name[..]),
        to,
    };
    let item = if is_retained { Item::Retained(message) } else { Item::Publish(message) };
    link.lane.push(now, &item)
}

/// The time at which a message expires that had this time left when it was pushed, `age_us` ago.
pub(super) fn deadline(now: Now, ms: u64, age_us: u64) -> Deadline {
    let left = Duration::from_millis(ms).saturating_sub(Duration::from_micros(age_us));
    now.after(left)
}

/// A publisher of the node, as an engine names it.
pub(super) fn publisher(of: Option<(u16, u64)>) -> Option<ConnectionId> {
    let (core, connection) = of?;
    identity::remote_connection(CoreId(core), identity::connection(connection))
}
