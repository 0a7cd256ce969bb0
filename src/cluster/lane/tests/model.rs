//! Two lanes under a carrier that loses, repeats, delays and reorders frames, between nodes that stall and start again,
//! compared with lists of what was pushed. A seed decides everything, and every failure names it.

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::cluster::codec::{Publish, To};

const STEPS: usize = 400;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// An item that was pushed: its name, the size of its payload, and the frame that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pushed {
    name: u64,
    payload: usize,
    frame: u64,
}

/// The sending node, its incarnation, and that of the receiving node.
type Way = (usize, u64, u64);

/// One node, with its lane to the other one.
struct Node {
    lane: Lane,
    incarnation: u64,
    /// How many of the items that the other node pushed have come.
    come: usize,
    /// Frames whose content has come and has no receipt.
    unprocessed: VecDeque<u64>,
    receipt: u64,
    is_stalled: bool,
}

impl Node {
    fn new(incarnation: u64, peer: u64, now: Now, window: usize) -> Self {
        let mut lane = Lane::new(incarnation, peer, now);
        lane.set_window(window);
        Self {
            lane,
            incarnation,
            come: 0,
            unprocessed: VecDeque::new(),
            receipt: 0,
            is_stalled: false,
        }
    }
}

/// What the carrier does to frames, in percent, and how often nodes start again, in percent of steps.
struct Faults {
    loss: u64,
    repetition: u64,
    disorder: u64,
    restarts: u64,
}

struct Model {
    random: Random,
    faults: Faults,
    now: Now,
    window: usize,
    nodes: [Node; 2],
    /// Frames under way from node 0 and from node 1.
    carriers: [VecDeque<Bytes>; 2],
    pushed: HashMap<Way, Vec<Pushed>>,
    names: u64,
    restarts: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let now = Now(random.below(1_000_000));
        let mut one_of = |values: &[u64]| values[random.below(values.len() as u64) as usize];
        let faults = Faults {
            loss: one_of(&[0, 1, 10, 40]),
            repetition: one_of(&[0, 5, 30]),
            disorder: one_of(&[0, 0, 5, 30]),
            restarts: one_of(&[0, 0, 1, 3]),
        };
        let window = one_of(&[600, 20_000, 400_000, WINDOW_BYTES as u64]) as usize;
        Self {
            random,
            faults,
            now,
            window,
            nodes: [Node::new(1, 1, now, window), Node::new(1, 1, now, window)],
            carriers: Default::default(),
            pushed: HashMap::new(),
            names: 0,
            restarts: 0,
        }
    }

    /// What a node has pushed for the present incarnation of the other one, as far as it knows it.
    fn pushed_by(&mut self, node: usize) -> &mut Vec<Pushed> {
        let Node { incarnation, ref lane, .. } = self.nodes[node];
        self.pushed.entry((node, incarnation, lane.peer_incarnation())).or_default()
    }

    fn push(&mut self, node: usize) {
        let most = 1 + self.random.below(20);
        for _ in 0..most {
            // Announcements are never refused.
            let is_announcement = self.random.percent(20);
            if self.nodes[node].lane.is_loaded() && !is_announcement {
                return;
            }
            let payload = match self.random.below(1_000) {
                _ if is_announcement => 0,
                0 => FRAME_BYTES_MAX + self.random.below(500_000) as usize,
                1..20 => FRAME_BYTES_MAX - 2_000 + self.random.below(2_000) as usize,
                20..200 => self.random.below(5_000) as usize,
                _ => self.random.below(100) as usize,
            };
            self.names += 1;
            let name = self.names;
            let before = self.nodes[node].lane.load_bytes();
            let bytes = vec![name as u8; payload];
            let item = match is_announcement {
                true => Item::Clock(name),
                false => Item::Publish(Publish {
                    topic: "a/b",
                    passed_on: &[],
                    payload: &bytes,
                    qos: 1,
                    retain: true,
                    expires_in_ms: None,
                    publisher: Some((1, 2)),
                    exchange: None,
                    to: To::SubscribersAndStore { stamp: name.into() },
                }),
            };
            let frame = self.nodes[node].lane.push(self.now, &item);
            let frames = 2 + payload / 200_000;
            let load = self.nodes[node].lane.load_bytes() - before;
            assert!(
                load <= payload + 100 + frames * (HEADER_BYTES + FRAME_OVERHEAD_BYTES),
                "{load} for {payload}"
            );
            self.pushed_by(node).push(Pushed { name, payload, frame });
        }
    }

    fn transmit(&mut self, node: usize) {
        if self.random.percent(80) {
            self.nodes[node].lane.flush();
        }
        while let Some(frame) = self.nodes[node].lane.poll_transmit(self.now) {
            assert!(frame.len() <= FRAME_BYTES_MAX);
            let in_flight = self.nodes[node].lane.in_flight_bytes();
            let is_within = number_of(&frame) == 0 || in_flight <= self.window.max(frame.len());
            assert!(is_within, "{in_flight} bytes in flight");
            if self.random.percent(self.faults.loss) {
                continue;
            }
            let copies = if self.random.percent(self.faults.repetition) { 2 } else { 1 };
            for _ in 0..copies {
                let carrier = &mut self.carriers[node];
                let place = match self.random.percent(self.faults.disorder) {
                    true => self.random.below(carrier.len() as u64 + 1) as usize,
                    false => carrier.len(),
                };
                carrier.insert(place, frame.clone());
            }
        }
    }

    /// Gives frames that are under way to a node.
    fn deliver(&mut self, to: usize, most: usize) {
        for _ in 0..most {
            if self.nodes[to].is_stalled {
                return;
            }
            let Some(frame) = self.carriers[1 - to].pop_front() else { return };
            let lane = &mut self.nodes[to].lane;
            let (receipted, earlier) = (lane.receipted(), lane.peer_incarnation());
            match lane.handle_frame(self.now, frame) {
                Ok(Taken { content, restarted }) => {
                    if let Some(left) = restarted {
                        self.check_unreceipted(to, earlier, receipted, left);
                    }
                    if let Some(content) = content {
                        self.check_content(to, &content);
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Each item comes once and in order.
    fn check_content(&mut self, to: usize, content: &Content) {
        let node = &mut self.nodes[to];
        let way = (1 - to, node.lane.peer_incarnation(), node.incarnation);
        for item in content.items() {
            let (name, payload) = read(&item.expect("an item"));
            let expected = self.pushed[&way].get(node.come).expect("it was pushed");
            assert_eq!(
                (name, payload, content.number),
                (expected.name, expected.payload, expected.frame)
            );
            node.come += 1;
        }
        node.unprocessed.push_back(content.number);
    }

    /// What an earlier incarnation had not receipted is handed back, all of it and nothing else.
    fn check_unreceipted(&mut self, node: usize, earlier: u64, receipted: u64, left: Unreceipted) {
        let way = (node, self.nodes[node].incarnation, earlier);
        let pushed = self.pushed.remove(&way).unwrap_or_default();
        let mut expected = pushed.iter().filter(|item| item.frame > receipted);
        for content in left {
            for item in content.items() {
                let (name, payload) = read(&item.expect("an item"));
                let expected = expected.next().expect("it was pushed");
                assert_eq!(
                    (name, payload, content.number),
                    (expected.name, expected.payload, expected.frame)
                );
            }
        }
        assert_eq!(expected.next(), None, "all of it is handed back");
        let node = &mut self.nodes[node];
        node.come = 0;
        node.unprocessed.clear();
        node.receipt = 0;
    }

    fn process(&mut self, node: usize, most: usize) {
        let node = &mut self.nodes[node];
        let count = most.min(node.unprocessed.len());
        if let Some(number) = node.unprocessed.drain(..count).next_back() {
            node.receipt = number;
            node.lane.set_receipt(number);
        }
    }

    fn restart(&mut self, node: usize) {
        self.restarts += 1;
        let incarnation = self.nodes[node].incarnation + 1;
        let peer = self.nodes[1 - node].incarnation;
        self.nodes[node] = Node::new(incarnation, peer, self.now, self.window);
        // The other node learns it from the list of members, or from a frame.
        if self.random.percent(50) {
            let lane = &mut self.nodes[1 - node].lane;
            let (receipted, earlier) = (lane.receipted(), lane.peer_incarnation());
            let left = lane.restart(incarnation, self.now).expect("a later incarnation");
            self.check_unreceipted(1 - node, earlier, receipted, left);
        }
    }

    fn pass(&mut self, us: u64) {
        self.now.0 += us;
        for node in &mut self.nodes {
            if !node.is_stalled && node.lane.poll_timeout().is_some_and(|at| at.is_due(self.now)) {
                node.lane.handle_timeout(self.now);
            }
        }
    }

    fn check_reports(&self) {
        for number in 0..2 {
            let (own, other) = (&self.nodes[number], &self.nodes[1 - number]);
            let agree = own.lane.peer_incarnation() == other.incarnation
                && other.lane.peer_incarnation() == own.incarnation;
            assert!(own.lane.receipted() <= own.lane.taken_by_peer());
            if agree {
                assert!(own.lane.receipted() <= other.receipt, "a receipt that nobody gave");
                assert!(own.lane.taken_by_peer() <= other.lane.receiver.taken());
            }
        }
    }

    fn step(&mut self) {
        let node = self.random.below(2) as usize;
        let is_stalled = self.nodes[node].is_stalled;
        match self.random.below(100) {
            0..25 if !is_stalled => self.push(node),
            25..45 if !is_stalled => self.transmit(node),
            45..65 => {
                let most = self.random.below(20) as usize;
                self.deliver(node, most);
            }
            65..80 if !is_stalled => {
                let most = self.random.below(10) as usize;
                self.process(node, most);
            }
            80..97 => {
                let most = if self.random.percent(10) { 1_000_000 } else { 30_000 };
                let us = self.random.below(most);
                self.pass(us);
            }
            97..99 => self.nodes[node].is_stalled = !is_stalled,
            _ => {}
        }
        if self.random.percent(self.faults.restarts) {
            self.restart(node);
        }
        self.check_reports();
    }

    /// Without further faults everything arrives, and nothing is kept.
    fn heal(&mut self) {
        self.faults = Faults { loss: 0, repetition: 0, disorder: 0, restarts: 0 };
        for _ in 0..2_000 {
            for node in 0..2 {
                self.nodes[node].is_stalled = false;
                self.nodes[node].lane.flush();
                self.transmit(node);
                self.deliver(1 - node, usize::MAX);
                self.process(1 - node, usize::MAX);
            }
            self.pass(10_000);
            self.check_reports();
            if self.is_settled() {
                return;
            }
        }
        panic!("not settled: {:?}", self.nodes.each_ref().map(|node| &node.lane));
    }

    fn is_settled(&mut self) -> bool {
        (0..2).all(|number| {
            let pushed = self.pushed_by(number).len();
            let (own, other) = (&self.nodes[number], &self.nodes[1 - number]);
            own.lane.peer_incarnation() == other.incarnation
                && other.come == pushed
                && own.lane.receipted() == own.lane.last_number()
                && own.lane.load_bytes() == 0
        })
    }
}

/// Name and size of an item.
fn read(item: &Item<'_>) -> (u64, usize) {
    match *item {
        Item::Clock(name) => (name, 0),
        Item::Publish(Publish { payload, to: To::SubscribersAndStore { stamp }, .. }) => {
            assert!(payload.iter().all(|byte| *byte == stamp as u8), "the payload of {stamp}");
            (stamp as u64, payload.len())
        }
        ref other => panic!("{other:?}"),
    }
}

/// Names the seed when a run fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with RINGMQ_LANE_SEED={}", self.0);
        }
    }
}

#[test]
fn every_item_arrives_once_and_in_order_whatever_the_carrier_does() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let runs = number("RINGMQ_LANE_RUNS").unwrap_or(150);
    let seeds = number("RINGMQ_LANE_SEED").map_or(0..runs, |seed| seed..seed + 1);
    let (mut items, mut restarts, mut repeated, mut gaps) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        let _named = Seed(seed);
        let mut model = Model::new(seed);
        for _ in 0..STEPS {
            model.step();
        }
        model.heal();
        items += model.names;
        restarts += model.restarts;
        for node in &model.nodes {
            repeated += node.lane.counters().frames_repeated;
            gaps += node.lane.counters().gaps;
        }
    }
    println!("{items} items, {restarts} restarts, {repeated} frames repeated, {gaps} gaps");
    if seeds.end - seeds.start > 100 {
        assert!(
            items > 10_000 && restarts > 100 && repeated > 1_000 && gaps > 100,
            "the faults happen"
        );
    }
}
