//! One run: executes the steps of a plan, and ends with everything at rest.

use std::collections::BTreeMap;

use ringmq::wire::Version;

use crate::bridge::Bridge;
use crate::client::{Client, How};
use crate::judge::{Judge, Split};
use crate::listing::Listings;
use crate::plan::{CLIENTS, COMMON_RETAINED, NodeStep, Plan, Step};
use crate::random::Random;
use crate::wills;
use crate::world::World;

/// Topics of retained messages; the first has many publishers.
const RETAINED: [&str; 7] = [COMMON_RETAINED, "r/0", "r/1", "r/2", "r/3", "r/4", "r/5"];

/// Maximum number of rounds of all cores until the broker must be at rest.
const ROUNDS_MAX: usize = 3_000;

pub struct Run {
    world: World,
    clients: Vec<Client>,
    judge: Judge,
    bridge: Bridge,
    listings: Listings,
    seed: u64,
}

impl Run {
    /// Executes a plan. The traces of two runs of the same seed are equal.
    pub fn through(plan: &Plan, seed: u64, is_told: bool) -> Result<u64, String> {
        let mut run = Self::new(plan, seed);
        for (number, step) in &plan.steps {
            if is_told {
                println!("{number:4} {step:?}");
            }
            let mut random = Random::stream(seed, *number);
            run.step(step, &mut random).map_err(|what| format!("step {number}: {what}"))?;
        }
        run.end().map_err(|what| format!("at the end: {what}"))?;
        Ok(run.world.trace)
    }

    fn new(plan: &Plan, seed: u64) -> Self {
        let version = |is_v5| if is_v5 { Version::V5 } else { Version::V311 };
        let clients = (0..CLIENTS)
            .map(|n| {
                let version = version(plan.versions[n]);
                Client::new(n, format!("client {n}"), version, plan.identifiers, plan.roams)
            })
            .collect();
        let judge = Judge::new(plan.has_small_outboxes);
        let (world, bridge) = (World::new(plan), Bridge::new(plan));
        Self { world, clients, judge, bridge, listings: Listings::default(), seed }
    }

    fn step(&mut self, step: &Step, random: &mut Random) -> Result<(), String> {
        let Self { world, clients, judge, bridge, listings, .. } = self;
        match *step {
            Step::Bridge(step) => bridge.step(step, world, judge),
            Step::List => listings.begin(world, clients),
            Step::Connect { client, clean, expiry_s, pipelined, has_will } => {
                let how = How { is_clean: clean, expiry_s, pipelined, has_will };
                if let Some(core) = world.core_for(client, random) {
                    clients[client].connect(world, judge, core, how);
                }
            }
            Step::Leave { client } => clients[client].leave(world, judge),
            Step::End { client, is_polite, reads_ahead } => {
                clients[client].end(world, judge, is_polite, reads_ahead);
            }
            Step::Cut { client } => clients[client].cut(world, judge),
            Step::Subscribe { client, filter, qos } => {
                clients[client].subscribe(world, judge, filter, qos);
            }
            Step::Unsubscribe { client, filter } => {
                clients[client].unsubscribe(world, judge, filter);
            }
            Step::Publish { client, topic, qos, retain, bytes, times } => {
                for _ in 0..times {
                    clients[client].publish(world, judge, topic, qos, retain, bytes);
                }
            }
            Step::Clear { client, topic, qos } => {
                clients[client].publish(world, judge, topic, qos, true, 0);
            }
            Step::Block { client, is_blocked } => {
                if let Some(link) = clients[client].link {
                    world.links[link].is_blocked = is_blocked;
                }
            }
            Step::Lazy { client, is_lazy } => clients[client].is_lazy = is_lazy,
            // The broker may have restarted with fewer cores.
            Step::Freeze { from, to, .. } if from.max(to) >= world.cores() => {}
            Step::Crash { cores } => {
                judge.note_crash(world.now.0);
                listings.forget();
                clients.iter_mut().for_each(|client| client.cut(world, judge));
                clients.iter_mut().for_each(|client| client.drop_abandoned(world));
                bridge.crash(world);
                world.crash(random, cores);
            }
            // What a node had alone while it was split off is lost with the others.
            Step::Nodes(NodeStep::Kill { .. } | NodeStep::Evict { .. }) if judge.is_split() => {}
            Step::Nodes(step) => {
                world.nodes.step(step, random);
                match step {
                    NodeStep::Kill { node } => {
                        clients.iter_mut().for_each(|of| of.lose_node(world, judge, node));
                        judge.doubt_those_at(node);
                        judge.note_split(Split::Groups);
                        world.kill(node);
                    }
                    NodeStep::Evict { node } => {
                        judge.note_evicted(node);
                        clients.iter_mut().for_each(|of| of.note_evicted(judge, node));
                    }
                    _ => {}
                }
            }
            Step::Checkpoint => world.begin_checkpoint(),
            Step::Freeze { from, to, is_frozen } => world.lanes[from][to].is_frozen = is_frozen,
            Step::Turns(turns) => {
                for _ in 0..turns {
                    self.world.turns(random, 1);
                    self.look(random.percent(70))?;
                }
                return Ok(());
            }
            Step::Wait { ms } => {
                world.now.0 += ms * 1_000;
                world.turns(random, world.cores());
            }
            Step::Settle => return self.settle(random),
        }
        self.look(true)
    }

    /// Clients process what they received.
    fn look(&mut self, all: bool) -> Result<(), String> {
        let Self { world, clients, judge, bridge, .. } = self;
        clients.iter().for_each(|client| client.note_expiry(world, judge));
        for client in clients {
            client.note_read(world, judge);
            if all {
                client.look(world, judge)?;
            }
        }
        if all {
            bridge.look(world, judge)?;
        }
        self.listings.look(&mut self.world, &self.clients)
    }

    /// Everything thaws, comes to rest, and is judged.
    fn settle(&mut self, random: &mut Random) -> Result<(), String> {
        self.world.nodes.heal();
        for lane in self.world.lanes.iter_mut().flatten() {
            lane.is_frozen = false;
        }
        for link in &mut self.world.links {
            link.is_blocked = false;
        }
        self.clients.iter_mut().for_each(|client| client.is_lazy = false);
        self.bridge.calm(&mut self.world);
        if self.clients.iter().any(Client::has_abandoned) {
            self.rest(random)?;
            for client in &mut self.clients {
                client.check_alone(&self.world, &self.judge)?;
                client.drop_abandoned(&mut self.world);
            }
        }
        self.rest(random)?;
        for client in &self.clients {
            if let Some(what) = client.unsettled() {
                return Err(what);
            }
        }
        if !self.judge.was_split() {
            self.world.check_claims()?;
        }
        self.listings.check_ended()?;
        let Self { world, clients, judge, bridge, .. } = self;
        judge.settle(world.now.0)?;
        clients.iter_mut().for_each(|client| client.start_over(world, judge));
        bridge.settle(judge)
    }

    fn rest(&mut self, random: &mut Random) -> Result<(), String> {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            let moved = self.world.settle_once(random);
            self.look(true)?;
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet > 2 {
                // One second, for consumers that count as stuck, and for paused publishers.
                self.world.now.0 += 1_100_000;
            }
            // Frames that were lost between nodes are sent again after at most two seconds.
            if quiet > if self.world.nodes.count() > 0 { 8 } else { 5 } {
                return Ok(());
            }
        }
        Err("the broker does not come to rest".to_owned())
    }

    fn end(&mut self) -> Result<(), String> {
        let random = &mut Random::stream(self.seed, u64::MAX);
        if self.world.nodes.count() > 0 {
            // All nodes accept clients then.
            self.settle(random)?;
        }
        // Disconnected clients reconnect for their pending messages.
        let Self { world, clients, judge, .. } = self;
        for client in clients.iter_mut().filter(|c| c.link.is_none() && c.is_persistent()) {
            let how = How { is_clean: false, expiry_s: 3_600, pipelined: None, has_will: false };
            let core = world.core_for(client.number, random).ok_or("a node accepts no clients")?;
            client.connect(world, judge, core, how);
        }
        self.settle(random)?;
        self.settle(random)?;
        self.compare_retained(random)?;
        self.compare_wills(random)?;
        self.clear_all(random)
    }

    /// Every core sends a new subscriber the same retained messages, and the correct ones.
    fn compare_retained(&mut self, random: &mut Random) -> Result<(), String> {
        let mut shown = Vec::new();
        for core in 0..self.world.cores() {
            shown.push(self.retained(core, "r/#", random)?);
        }
        for topic in RETAINED {
            let differs = |other: &&BTreeMap<_, _>| other.get(topic) != shown[0].get(topic);
            if let Some(other) = shown.iter().find(differs)
                && !self.judge.may_differ(topic)
            {
                return Err(format!(
                    "cores have different retained messages: {other:?}, {:?}",
                    shown[0]
                ));
            }
        }
        for (topic, of_core) in
            RETAINED[1..].iter().flat_map(|&t| shown.iter().map(move |s| (t, s)))
        {
            let number = of_core.get(topic).map(|&number| number as usize);
            if !self.judge.may_be_retained(topic, number) {
                return Err(format!("{topic} has retained message {number:?}, not the last"));
            }
        }
        Ok(())
    }

    /// The retained Wills are those published last.
    fn compare_wills(&mut self, random: &mut Random) -> Result<(), String> {
        for core in 0..self.world.cores() {
            let shown = self.retained(core, "w/#", random)?;
            for (client, &topic) in wills::TOPICS.iter().enumerate() {
                self.judge.wills.check(client, shown.get(topic).copied())?;
            }
        }
        Ok(())
    }

    /// The retained messages of a core under a filter: their numbers by topic.
    fn retained(
        &mut self,
        core: usize,
        filter: &str,
        random: &mut Random,
    ) -> Result<BTreeMap<String, u64>, String> {
        let kept = self.world.watch(core, filter, &mut || random.next())?;
        let number = |payload: &[u8]| payload.first_chunk().map_or(0, |n| u64::from_be_bytes(*n));
        Ok(kept.into_iter().map(|(topic, payload)| (topic, number(&payload))).collect())
    }

    /// After everything has been removed, no memory is left in use.
    fn clear_all(&mut self, random: &mut Random) -> Result<(), String> {
        // Their Wills first, which have to be removed too.
        self.cut_all(random)?;
        self.bridge.end(&mut self.world);
        let Self { world, clients, judge, .. } = self;
        let how = How { is_clean: true, expiry_s: 0, pipelined: None, has_will: false };
        clients[0].connect(world, judge, 0, how);
        self.rest(random)?;
        for topic in RETAINED.into_iter().chain(wills::TOPICS) {
            if !self.clients[0].has_room() {
                self.rest(random)?;
            }
            let Self { world, clients, judge, .. } = self;
            clients[0].publish(world, judge, topic, 1, true, 0);
        }
        self.rest(random)?;
        self.cut_all(random)?;
        self.world.now.0 += 4_000_000_000;
        self.rest(random)?;
        self.rest(random)?;
        match self.world.memory_bytes() {
            0 => Ok(()),
            bytes => Err(format!("{bytes} bytes are still in use")),
        }
    }

    fn cut_all(&mut self, random: &mut Random) -> Result<(), String> {
        let Self { world, clients, judge, .. } = self;
        clients.iter_mut().for_each(|client| client.cut(world, judge));
        clients.iter_mut().for_each(|client| client.drop_abandoned(world));
        self.rest(random)
    }
}
