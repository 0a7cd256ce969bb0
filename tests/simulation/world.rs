//! The cores, the lanes between them and the network around them, under a seeded scheduler.
//!
//! A turn of a core does what an executor does: batches and sockets from other cores, bytes from
//! clients, timers, actions, and then batches for lanes that have room. Random numbers decide which
//! core runs, how much data arrives, how much a peer accepts, and how far the lanes lag behind.

mod claims;
mod kill;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::ops::Range;

use ringmq::base::clock::Now;
use ringmq::base::ids::{ConnectionId, CoreId, Peer};
use ringmq::base::send_buffer::SendBuffer;
use ringmq::config::Settings;
#[cfg(any(feature = "admin", feature = "bridge"))]
use ringmq::control::EngineCommand;
use ringmq::engine::{Action, AllowAll, Batch, Config, Engine, HandedOver, Keys};
use ringmq::resources::gauges::Place;
use ringmq::storage::commit::{JournalConfig, RecordBatch, StoreState};
use ringmq::storage::image::Image;
#[cfg(feature = "bridge")]
use ringmq::transport::Transport;
use ringmq::wire::{self, Frame};

use crate::nodes::Nodes;
use crate::plan::Plan;
use crate::random::Random;
use crate::wills;

/// The location of a connection, from the broker's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Core(usize, ConnectionId),
    /// In transit between cores.
    Moving,
    Closed,
}

/// A network connection with both endpoints.
pub struct Link {
    pub at: At,
    /// All data that the client sent, and the amount that a core has read.
    pub sent: Vec<u8>,
    pub read: usize,
    /// The amount that had been read after each turn.
    pub reads: VecDeque<(usize, u64)>,
    /// Packets for the client that it has not processed yet, and the start of the next.
    pub inbox: VecDeque<Vec<u8>>,
    partial: Vec<u8>,
    held: Option<SendBuffer>,
    is_paused: bool,
    /// The client has closed the connection: its data is discarded.
    is_cut: bool,
    pub is_blocked: bool,
    /// The client has shut down its sending direction, and how the broker sees that.
    end: Option<End>,
}

/// The end of a client's data.
#[derive(Clone, Copy)]
struct End {
    /// The end is read although the engine wants no input.
    reads_ahead: bool,
    is_told: bool,
}

#[derive(Default)]
struct InTransit {
    batch: Option<Batch>,
    sockets: Vec<(usize, Box<HandedOver>)>,
    /// The turn in which it was sent.
    turn: u64,
}

#[derive(Default)]
pub struct Lane {
    in_transit: VecDeque<InTransit>,
    /// Sockets that wait for room in a lane.
    leaving: Vec<(usize, Box<HandedOver>)>,
    pub is_frozen: bool,
    /// When the last batch that arrived was sent.
    pub arrived: u64,
}

struct Core {
    engine: Engine,
    links: BTreeMap<(u32, u32), usize>,
}

/// The records of the cores, in the order in which they were written. A crash loses unsynced
/// records, except for a random prefix.
#[derive(Default)]
struct Disk {
    batches: Vec<(usize, RecordBatch)>,
    synced: usize,
    /// By core, the last stored batch.
    up_to: Vec<u64>,
    /// Number of checkpoints requested, and the records that each one replaces.
    checkpoint: u64,
    superfluous: Option<usize>,
    /// By core, the checkpoint that it has completed.
    told: Vec<u64>,
}

impl Disk {
    fn new(cores: usize) -> Self {
        Self { up_to: vec![0; cores], told: vec![0; cores], ..Self::default() }
    }

    fn sync(&mut self) {
        for (core, records) in &self.batches[self.synced..] {
            (self.up_to[*core], self.told[*core]) = (records.number, records.checkpoint);
        }
        self.synced = self.batches.len();
        if self.told.iter().all(|&told| told == self.checkpoint)
            && let Some(superfluous) = self.superfluous.take()
        {
            self.batches.drain(..superfluous);
            self.synced -= superfluous;
        }
    }
}

/// The time of day at zero on the cores' clock.
pub const WALL_AT_ZERO_US: u64 = 1 << 50;

pub struct World {
    settings: Settings,
    fan_out: Option<usize>,
    checkpoint_bytes: Option<usize>,
    disk: Option<Disk>,
    /// The processes that the cores belong to, and what is between them.
    pub nodes: Nodes,
    cores: Vec<Core>,
    /// By sender and receiver.
    pub lanes: Vec<Vec<Lane>>,
    lane_capacity: usize,
    pub links: Vec<Link>,
    pub now: Now,
    /// Turns of all cores so far.
    pub turn: u64,
    /// A hash of all data sent to clients, in order: equal for two runs of one seed.
    pub trace: u64,
}

impl World {
    pub fn new(plan: &Plan) -> Self {
        let mut settings = Settings::default();
        settings.mqtt.sys_interval_s = 0;
        settings.limits.memory_bytes_max = 1 << 32;
        settings.storage.will_grace_s = wills::GRACE_S;
        settings.limits.connections_max = 1_000;
        settings.limits.session_expiry_max_s = 3_600;
        settings.limits.connect_timeout_s = 65_535;
        if plan.has_small_outboxes {
            settings.limits.outbox_bytes_max = 65_536;
        }
        let mut world = Self {
            settings,
            fan_out: plan.fan_out,
            checkpoint_bytes: plan.checkpoint_bytes,
            disk: plan.is_durable.then(Disk::default),
            nodes: Nodes::new(plan),
            cores: Vec::new(),
            lanes: Vec::new(),
            lane_capacity: plan.lane_capacity,
            links: Vec::new(),
            now: Now(0),
            turn: 0,
            trace: 0,
        };
        world.start(plan.cores);
        world.introduce();
        world
    }

    fn new_engine(&self, place: Place) -> Engine {
        let (config, keys) = (Config::from(&self.settings), Keys::fixed(7));
        let mut engine = Engine::new(place, config, Box::new(AllowAll), keys, self.now);
        if let Some(subscribers) = self.fan_out {
            engine.cut_fan_outs(subscribers);
        }
        if let Some(bytes) = self.checkpoint_bytes {
            engine.cut_checkpoints(bytes);
        }
        engine
    }

    /// Starts a broker with the records on disk.
    fn start(&mut self, cores: u16) {
        let alone = || Place::on_nodes((0..cores).map(|core| core / 2).collect());
        let places = self.nodes.start().unwrap_or_else(alone);
        let count = places.len();
        let mut engines: Vec<Engine> =
            places.into_iter().map(|place| self.new_engine(place)).collect();
        if let Some(disk) = &mut self.disk {
            let mut restored = Vec::new();
            for engine in &mut engines {
                engine
                    .open_journal(JournalConfig { wall_at_zero_us: WALL_AT_ZERO_US, waits: true });
                let mut image = Image::default();
                for (_, records) in &disk.batches {
                    engine.read_records(&mut image, &records.bytes).expect("as it was written");
                }
                restored.push(engine.restore(image));
            }
            for engine in &mut engines {
                restored.iter().for_each(|of| engine.learn_restored(of));
                engine.end_restore();
            }
            let (batches, synced) = (std::mem::take(&mut disk.batches), disk.synced);
            *disk = Disk { batches, synced, ..Disk::new(count) };
        }
        self.cores =
            engines.into_iter().map(|engine| Core { engine, links: BTreeMap::new() }).collect();
        self.lanes = (0..count).map(|_| (0..count).map(|_| Lane::default()).collect()).collect();
    }

    /// The broker crashes, and another one starts with this many cores. A prefix of the unsynced
    /// records survives.
    pub fn crash(&mut self, random: &mut Random, cores: u16) {
        for link in &mut self.links {
            (link.at, link.held, link.is_paused) = (At::Closed, None, false);
        }
        if let Some(disk) = &mut self.disk {
            let kept = disk.synced + random.below(disk.batches.len() - disk.synced + 1);
            disk.batches.truncate(kept);
            disk.synced = kept;
        }
        self.start(cores);
    }

    /// The store requests a checkpoint.
    pub fn begin_checkpoint(&mut self) {
        if let Some(disk) = self.disk.as_mut().filter(|disk| disk.superfluous.is_none()) {
            disk.checkpoint += 1;
            disk.superfluous = Some(disk.batches.len());
        }
    }

    /// A core is notified of the store's progress; at the end of a turn it submits its records.
    fn hear_of_disk(&mut self, core: usize) {
        let Some(disk) = &self.disk else { return };
        let (up_to, checkpoint) = (disk.up_to[core], disk.checkpoint);
        let stored = StoreState { up_to, checkpoint, ..StoreState::default() };
        self.cores[core].engine.handle_stored(self.now, stored);
    }

    fn write_records(&mut self, core: usize, random: &mut Random, all: bool) -> bool {
        let Some(disk) = &mut self.disk else { return false };
        while let Some(records) = self.cores[core].engine.poll_records() {
            disk.batches.push((core, records));
        }
        let syncs = disk.synced < disk.batches.len() && (all || random.percent(15));
        if syncs {
            disk.sync();
        }
        syncs
    }

    /// A thread outside of the cores sends a command to one of them.
    #[cfg(any(feature = "admin", feature = "bridge"))]
    pub fn command(&mut self, core: usize, command: EngineCommand) {
        self.cores[core].engine.handle_command(self.now, command);
    }

    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// The cores of the process that has a core.
    pub fn group(&self, core: usize) -> Range<usize> {
        self.nodes.group(core, self.cores.len())
    }

    /// The core that a client connects to, if its node accepts clients.
    pub fn core_for(&self, client: usize, random: &mut Random) -> Option<usize> {
        let cores = self.nodes.cores_for(client, self.cores.len(), random)?;
        Some(cores.start + random.below(cores.len()))
    }

    /// A client connects, and one of the cores accepts.
    pub fn connect(&mut self, core: usize) -> usize {
        let peer = Peer { address: None, listener: 0 };
        let accepted = self.cores[core].engine.handle_accepted(self.now, peer);
        let id = accepted.expect("there is room for all clients");
        self.add_link(core, id)
    }

    /// A bridge has opened a connection, and one of the cores takes it.
    #[cfg(feature = "bridge")]
    pub fn dial(&mut self, core: usize, transport: Box<Transport>, bytes: Vec<u8>) -> usize {
        let dialed = self.cores[core].engine.handle_dialed(self.now, transport, bytes);
        self.add_link(core, dialed.expect("there is room for the bridge"))
    }

    fn add_link(&mut self, core: usize, id: ConnectionId) -> usize {
        let link = self.links.len();
        self.cores[core].links.insert((id.slot, id.generation), link);
        self.links.push(Link {
            at: At::Core(core, id),
            sent: Vec::new(),
            read: 0,
            reads: VecDeque::new(),
            inbox: VecDeque::new(),
            partial: Vec::new(),
            held: None,
            is_paused: false,
            is_cut: false,
            is_blocked: false,
            end: None,
        });
        link
    }

    /// The network cuts a connection.
    pub fn cut(&mut self, link: usize) {
        self.links[link].is_cut = true;
    }

    /// The client shuts down its sending direction.
    pub fn end(&mut self, link: usize, reads_ahead: bool) {
        self.links[link].end = Some(End { reads_ahead, is_told: false });
    }

    /// The core that has a connection.
    pub fn core_of(&self, link: usize) -> Option<usize> {
        match self.links[link].at {
            At::Core(core, _) => Some(core),
            _ => None,
        }
    }

    /// Runs some turns of some cores.
    pub fn turns(&mut self, random: &mut Random, turns: usize) {
        for _ in 0..turns {
            let core = random.below(self.cores.len() + self.nodes.count());
            self.now = Now(self.now.0 + random.below(200) as u64);
            match core.checked_sub(self.cores.len()) {
                Some(node) => self.turn_of_gateway(node, random, false),
                None => self.a_turn(core, random, false),
            };
        }
    }

    /// A turn of every core in which everything moves that can; false if nothing did.
    pub fn settle_once(&mut self, random: &mut Random) -> bool {
        let (bytes, turn_trace) = (self.bytes_moved(), self.trace);
        let mut moved = false;
        for core in 0..self.cores.len() {
            self.now = Now(self.now.0 + 10);
            moved |= self.a_turn(core, random, true);
        }
        for node in 0..self.nodes.count() {
            moved |= self.turn_of_gateway(node, random, true);
        }
        moved || bytes != self.bytes_moved() || turn_trace != self.trace
    }

    fn bytes_moved(&self) -> usize {
        self.links.iter().map(|link| link.read).sum()
    }

    fn turn_of_gateway(&mut self, node: usize, random: &mut Random, all: bool) -> bool {
        let moved = self.nodes.turn(node, self.now, random, all);
        moved.unwrap_or_else(|error| panic!("{error}"))
    }

    fn a_turn(&mut self, core: usize, random: &mut Random, all: bool) -> bool {
        if self.nodes.is_stopped(core) {
            return false;
        }
        self.turn += 1;
        self.hear_of_disk(core);
        if self.cores[core].engine.has_commands() {
            self.cores[core].engine.poll_commands(self.now);
        }
        let mut moved = self.receive_from_lanes(core, random, all);
        moved |= self.receive_from_nodes(core, random, all);
        self.read(core, random, all);
        let has_read_all = self.has_read_all(core);
        let engine = &mut self.cores[core].engine;
        if has_read_all {
            engine.handle_all_read(self.now);
        }
        if engine.poll_timeout().is_some_and(|deadline| deadline.is_due(self.now)) {
            engine.handle_timeout(self.now);
        }
        moved |= self.act(core);
        self.write(core, random, all);
        moved |= self.act(core);
        moved |= self.send_into_lanes(core);
        moved |= self.nodes.collect(core, &mut self.cores[core].engine, self.turn);
        moved |= self.write_records(core, random, all);
        // Work that continues in the next turn may have no visible effect for many turns.
        let due = self.cores[core].engine.poll_timeout();
        moved | due.is_some_and(|deadline| deadline.is_due(self.now))
    }

    fn receive_from_lanes(&mut self, core: usize, random: &mut Random, all: bool) -> bool {
        let (mut moved, group) = (false, self.group(core));
        for from in group.clone() {
            let lane = &self.lanes[from][core];
            if lane.is_frozen {
                continue;
            }
            let most = lane.in_transit.len();
            let count = if all { most } else { random.below(most + 1) };
            for _ in 0..count {
                let in_transit = self.lanes[from][core].in_transit.pop_front().expect("counted");
                self.lanes[from][core].arrived = in_transit.turn;
                if let Some(batch) = in_transit.batch {
                    let from = CoreId((from - group.start) as u16);
                    self.cores[core].engine.handle_batch(self.now, from, batch);
                }
                for (link, handed_over) in in_transit.sockets {
                    self.take_home(core, link, *handed_over);
                }
                moved = true;
            }
        }
        moved
    }

    fn receive_from_nodes(&mut self, core: usize, random: &mut Random, all: bool) -> bool {
        let Self { nodes, cores, lanes, now, .. } = self;
        let count = |most: usize| if all { most } else { random.below(most + 1) };
        nodes.deliver((core, &mut cores[core].engine), *now, count, lanes)
    }

    fn take_home(&mut self, core: usize, link: usize, handed_over: HandedOver) {
        let engine = &mut self.cores[core].engine;
        let taken = engine.handle_handed_over(self.now, handed_over);
        let id = taken.expect("what was accepted is not refused at home");
        self.cores[core].links.insert((id.slot, id.generation), link);
        self.links[link].at = At::Core(core, id);
    }

    fn read(&mut self, core: usize, random: &mut Random, all: bool) {
        let links: Vec<usize> = self.cores[core].links.values().copied().collect();
        for number in links {
            let link = &mut self.links[number];
            let At::Core(_, id) = link.at else { continue };
            if link.is_cut {
                (link.at, link.held) = (At::Closed, None);
                self.cores[core].links.remove(&(id.slot, id.generation));
                self.cores[core].engine.handle_closed(self.now, id);
                continue;
            }
            let left = link.sent.len() - link.read;
            let reads_ahead = link.end.is_some_and(|end| end.reads_ahead);
            if link.is_paused && !reads_ahead || !(all || random.percent(60)) {
                continue;
            }
            if left == 0 {
                if let Some(end) = link.end.as_mut().filter(|end| !end.is_told) {
                    end.is_told = true;
                    self.cores[core].engine.handle_ended(self.now, id);
                }
                continue;
            }
            let most = if random.percent(20) { 3 } else { left };
            let bytes = if all { left } else { 1 + random.below(most.min(left)) };
            let from = link.read;
            link.read += bytes;
            link.reads.push_back((link.read, self.turn));
            let bytes = &self.links[number].sent[from..from + bytes];
            self.cores[core].engine.handle_received(self.now, id, bytes);
        }
    }

    /// Whether no unread data is left for clients that read.
    fn has_read_all(&self, core: usize) -> bool {
        let links = self.cores[core].links.values().map(|&number| &self.links[number]);
        links.into_iter().all(|link| link.is_paused || link.read == link.sent.len())
    }

    /// Executes the engine's actions; false if there are none.
    fn act(&mut self, core: usize) -> bool {
        let mut acted = false;
        while let Some(action) = self.cores[core].engine.poll_action() {
            acted = true;
            let (Action::Send { connection, .. }
            | Action::Pause { connection }
            | Action::Resume { connection }
            | Action::AskProgress { connection }
            | Action::OffloadTls { connection }
            | Action::HandOver { connection, .. }
            | Action::Close { connection, .. }) = &action;
            let key = (connection.slot, connection.generation);
            // The engine no longer knows a connection that has been closed.
            let Some(&link) = self.cores[core].links.get(&key) else { continue };
            match action {
                Action::Send { buffer, .. } => {
                    let before = self.links[link].held.replace(buffer);
                    assert!(before.is_none(), "one buffer at a time");
                }
                Action::Pause { .. } => self.links[link].is_paused = true,
                Action::Resume { .. } => self.links[link].is_paused = false,
                Action::AskProgress { connection } => {
                    let now = self.now;
                    self.cores[core].engine.handle_progress(now, connection, None);
                }
                Action::OffloadTls { .. } => unreachable!("connections are plaintext"),
                Action::HandOver { to, handed_over, .. } => {
                    self.cores[core].links.remove(&key);
                    self.links[link].at = At::Moving;
                    let to = self.group(core).start + usize::from(to.0);
                    self.lanes[core][to].leaving.push((link, handed_over));
                }
                Action::Close { last, .. } => {
                    self.cores[core].links.remove(&key);
                    let held = self.links[link].held.take();
                    for buffer in held.into_iter().chain(last) {
                        self.arrive(link, &buffer, usize::MAX);
                    }
                    self.links[link].at = At::Closed;
                }
            }
        }
        acted
    }

    /// Peers receive bytes.
    fn write(&mut self, core: usize, random: &mut Random, all: bool) {
        let links: Vec<usize> = self.cores[core].links.values().copied().collect();
        for number in links {
            let link = &mut self.links[number];
            let At::Core(_, id) = link.at else { continue };
            if link.is_blocked || link.held.is_none() {
                continue;
            }
            let mut buffer = link.held.take().expect("just seen");
            let most = if all || random.percent(70) { usize::MAX } else { random.below(300) };
            let bytes = self.arrive(number, &buffer, most);
            buffer.advance(bytes);
            let engine = &mut self.cores[core].engine;
            if buffer.is_empty() {
                engine.handle_sent(self.now, id, bytes, Some(buffer));
            } else {
                engine.handle_sent(self.now, id, bytes, None);
                self.links[number].held = Some(buffer);
            }
        }
    }

    /// Bytes reach a client; returns their number.
    fn arrive(&mut self, link: usize, buffer: &SendBuffer, most: usize) -> usize {
        let mut slices = [IoSlice::new(&[]); 1_024];
        let count = buffer.io_slices(&mut slices);
        let offered: Vec<u8> =
            slices[..count].iter().flat_map(|slice| slice.iter()).copied().take(most).collect();
        for &byte in &offered {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
        }
        let link = &mut self.links[link];
        link.partial.extend_from_slice(&offered);
        let mut used = 0;
        while let Ok(Frame::Complete { total, .. }) = wire::frame(&link.partial[used..], usize::MAX)
        {
            link.inbox.push_back(link.partial[used..used + total].to_vec());
            used += total;
        }
        link.partial.drain(..used);
        offered.len()
    }

    fn send_into_lanes(&mut self, core: usize) -> bool {
        let mut sent = false;
        let group = self.group(core);
        for to in group.clone().filter(|&to| to != core) {
            let lane = &mut self.lanes[core][to];
            if lane.in_transit.len() >= self.lane_capacity {
                continue;
            }
            let batch = self.cores[core].engine.poll_batch(CoreId((to - group.start) as u16));
            if batch.is_some() || !lane.leaving.is_empty() {
                let sockets = std::mem::take(&mut lane.leaving);
                lane.in_transit.push_back(InTransit { batch, sockets, turn: self.turn });
                sent = true;
            }
        }
        sent
    }

    /// Memory of all cores.
    pub fn memory_bytes(&mut self) -> u64 {
        self.cores.iter_mut().map(|core| core.engine.metrics().memory_bytes).sum()
    }
}
