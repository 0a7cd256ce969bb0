//! The steps of a run, drawn from a seed in advance, so that a failing run can be replayed with
//! steps omitted.

#[cfg(feature = "cluster")]
mod nodes;

use crate::random::Random;

pub const CLIENTS: usize = 6;

/// The stream of random numbers for the steps of the bridge.
const BRIDGE_STREAM: u64 = u64::MAX - 1;

/// The stream of random numbers for the nodes, and what happens to them.
#[cfg(feature = "cluster")]
const NODES_STREAM: u64 = u64::MAX - 2;

/// Filters of ordinary subscriptions; those of retained topics are last.
const FILTERS: [&str; 9] = ["n/a", "n/b", "n/a/b", "n/+", "n/#", "n/+/b", "r/#", "r/0", "r/+"];
const SHARED: [&str; 3] = ["$share/g/s/#", "$share/g/s/x", "$share/h/s/+"];
const TOPICS: [&str; 3] = ["n/a", "n/b", "n/a/b"];
const SHARED_TOPICS: [&str; 2] = ["s/x", "s/y"];
/// A topic to which all clients publish retained messages; every other topic has a single
/// publisher.
pub const COMMON_RETAINED: &str = "r/m";
const OWN_RETAINED: [&str; CLIENTS] = ["r/0", "r/1", "r/2", "r/3", "r/4", "r/5"];

#[derive(Clone, Debug)]
pub enum Step {
    /// A client opens a new connection, whether it has one or not.
    Connect {
        client: usize,
        clean: bool,
        expiry_s: u32,
        pipelined: Option<&'static str>,
        has_will: bool,
    },
    /// DISCONNECT.
    Leave {
        client: usize,
    },
    /// The client shuts down its sending direction, with or without DISCONNECT, and continues to
    /// read; if `reads_ahead`, the executor detects the end while the engine wants no input.
    End {
        client: usize,
        is_polite: bool,
        reads_ahead: bool,
    },
    /// The network cuts the connection; data in transit is lost.
    Cut {
        client: usize,
    },
    Subscribe {
        client: usize,
        filter: &'static str,
        qos: u8,
    },
    Unsubscribe {
        client: usize,
        filter: &'static str,
    },
    Publish {
        client: usize,
        topic: &'static str,
        qos: u8,
        retain: bool,
        bytes: usize,
        times: usize,
    },
    /// The retained message of a topic is removed.
    Clear {
        client: usize,
        topic: &'static str,
        qos: u8,
    },
    /// The client stops reading, or resumes.
    Block {
        client: usize,
        is_blocked: bool,
    },
    /// The client delays its acknowledgements, or sends them immediately.
    Lazy {
        client: usize,
        is_lazy: bool,
    },
    /// No messages pass from one core to another until everything thaws.
    Freeze {
        from: usize,
        to: usize,
        is_frozen: bool,
    },
    /// An operator begins to list all clients.
    List,
    /// The scheduler runs.
    Turns(usize),
    /// Time passes.
    Wait {
        ms: u64,
    },
    /// The broker crashes, and another one starts with this many cores.
    Crash {
        cores: u16,
    },
    /// The store requests a checkpoint.
    Checkpoint,
    /// Something happens at the far broker of the bridge, or on the way there.
    Bridge(BridgeStep),
    /// Something happens to a node, or between nodes.
    #[cfg_attr(
        not(feature = "cluster"),
        allow(dead_code, reason = "without clusters nothing makes it")
    )]
    Nodes(NodeStep),
    /// Everything thaws, settles and is judged.
    Settle,
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "bridge"),
    allow(dead_code, reason = "without bridges nothing reads them")
)]
pub enum BridgeStep {
    /// The network cuts the connection; data in transit is lost.
    Cut,
    /// The far broker drops what comes, without an answer, until everything settles.
    Swallow,
    /// The far broker delays its answers until everything settles.
    Delay,
    /// The far broker ends the connection, and forgets the session.
    Forget,
    /// The far broker has messages for the bridge.
    Publish { qos: u8, times: usize },
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "cluster"),
    allow(dead_code, reason = "without clusters nothing makes or reads them")
)]
pub enum NodeStep {
    /// Nothing of one node arrives at another one for now.
    Stall { from: usize, to: usize, is_stalled: bool },
    /// What one node sends to another one is lost.
    Cut { from: usize, to: usize, is_cut: bool },
    /// A node loses its connection to the engine, with what is in transit, until it connects again.
    Disconnect { node: usize },
    /// A node is connected to the engine again.
    Connect { node: usize },
    /// The process of a node is stopped, or goes on.
    Stop { node: usize, is_stopped: bool },
    /// The other nodes take a node for dead. It joins again once it knows.
    Evict { node: usize },
    /// The process of a node ends without notice, and another one starts in its place.
    Kill { node: usize },
}

pub struct Plan {
    /// Number of cores of each node.
    pub cores: u16,
    /// Number of nodes; 0 for a single process without a gateway.
    pub nodes: u16,
    /// Clients connect to any node, and not always to the same one.
    pub roams: bool,
    pub lane_capacity: usize,
    /// Small outboxes, so that consumers are often congested; QoS 0 messages may then be dropped.
    pub has_small_outboxes: bool,
    pub versions: [bool; CLIENTS],
    /// Number of Packet Identifiers per client.
    pub identifiers: u16,
    /// Sessions are stored on disk, and the broker crashes.
    pub is_durable: bool,
    /// Maximum number of recipients served per turn, if limited.
    pub fan_out: Option<usize>,
    /// The size of a batch from which a part of a checkpoint ends, if it is not the usual one.
    pub checkpoint_bytes: Option<usize>,
    /// The steps with their numbers, which stay the same when others are omitted.
    pub steps: Vec<(u64, Step)>,
    /// The broker has a bridge.
    #[cfg_attr(
        not(feature = "bridge"),
        allow(dead_code, reason = "without bridges nothing reads it")
    )]
    pub has_bridge: bool,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let cores = random.pick(&[2, 2, 3, 4, 4, 1]);
        let lane_capacity = 1 + random.below(3);
        let has_small_outboxes = random.percent(30);
        let versions = [(); CLIENTS].map(|()| random.percent(60));
        let identifiers = random.pick(&[12, 30_000]);
        let is_durable = random.percent(50);
        // Of its own, so that the other steps of a seed are those without it.
        let mut of_bridge = Random::stream(seed, BRIDGE_STREAM);
        let has_bridge = of_bridge.percent(40);
        let mut steps: Vec<Step> = Vec::new();
        for client in 0..CLIENTS {
            steps.push(connect(&mut random, client));
        }
        for _ in 0..random.below(120) + 20 {
            steps.push(step(&mut random, usize::from(cores)));
            if is_durable && random.percent(5) {
                steps.push(Step::Crash { cores: random.pick(&[1, 2, 3, cores]) });
                for client in 0..CLIENTS {
                    if random.percent(70) {
                        steps.push(come_back(&mut random, client));
                    }
                }
            }
            if is_durable && random.percent(5) {
                steps.push(Step::Checkpoint);
            }
            if random.percent(10) {
                steps.push(Step::List);
            }
            if has_bridge && of_bridge.percent(25) {
                steps.push(Step::Bridge(bridge_step(&mut of_bridge)));
            }
            if random.percent(60) {
                steps.push(Step::Turns(random.below(12)));
            }
        }
        let steps = (1..).zip(steps).collect();
        let fan_out = random.pick(&[None, None, Some(1), Some(2)]);
        let checkpoint_bytes = random.pick(&[None, Some(1), Some(200)]);
        let plan = Self {
            cores,
            nodes: 0,
            roams: false,
            lane_capacity,
            has_small_outboxes,
            versions,
            identifiers,
            is_durable,
            fan_out,
            checkpoint_bytes,
            steps,
            has_bridge,
        };
        #[cfg(feature = "cluster")]
        let plan = plan.with_nodes(&mut Random::stream(seed, NODES_STREAM));
        plan
    }

    /// The broker, in words.
    pub fn setup(&self) -> String {
        let nodes = match (self.nodes, self.roams) {
            (0, _) => String::new(),
            (nodes, false) => format!("{nodes} nodes of "),
            (nodes, true) => format!("clients that roam, {nodes} nodes of "),
        };
        format!("{nodes}{} cores, lanes of {}", self.cores, self.lane_capacity)
    }
}

fn bridge_step(random: &mut Random) -> BridgeStep {
    match random.below(100) {
        0..30 => BridgeStep::Cut,
        30..40 => BridgeStep::Swallow,
        40..55 => BridgeStep::Delay,
        55..60 => BridgeStep::Forget,
        _ => {
            let (qos, times) = (random.pick(&[0, 1, 2, 2]), 1 + random.below(4));
            BridgeStep::Publish { qos, times }
        }
    }
}

fn connect(random: &mut Random, client: usize) -> Step {
    Step::Connect {
        client,
        clean: random.percent(30),
        expiry_s: random.pick(&[0, 0, 5, 3_600, 3_600]),
        pipelined: random.percent(25).then(|| random.pick(&FILTERS)),
        has_will: random.percent(50),
    }
}

fn come_back(random: &mut Random, client: usize) -> Step {
    let pipelined = random.percent(10).then(|| random.pick(&FILTERS));
    let has_will = random.percent(50);
    Step::Connect { client, clean: false, expiry_s: 3_600, pipelined, has_will }
}

fn step(random: &mut Random, cores: usize) -> Step {
    let client = random.below(CLIENTS);
    let qos = random.pick(&[0, 1, 1, 2]);
    match random.below(100) {
        0..8 => connect(random, client),
        8..10 => Step::Leave { client },
        10 => {
            let (is_polite, reads_ahead) = (random.percent(60), random.percent(50));
            Step::End { client, is_polite, reads_ahead }
        }
        11..15 => Step::Cut { client },
        15..27 => Step::Subscribe { client, filter: random.pick(&FILTERS), qos },
        27..33 => Step::Subscribe { client, filter: random.pick(&SHARED), qos },
        33..36 => Step::Unsubscribe { client, filter: random.pick(&FILTERS) },
        36..38 => Step::Unsubscribe { client, filter: random.pick(&SHARED) },
        38..56 => publish(random, client, &TOPICS, qos, false),
        56..64 => publish(random, client, &SHARED_TOPICS, qos, false),
        64..72 => publish(random, client, &[OWN_RETAINED[client], COMMON_RETAINED], qos, true),
        72..74 => {
            let topic = random.pick(&[OWN_RETAINED[client], COMMON_RETAINED]);
            Step::Clear { client, topic, qos }
        }
        74..80 => Step::Block { client, is_blocked: random.percent(50) },
        80..84 => Step::Lazy { client, is_lazy: random.percent(50) },
        84..90 => Step::Freeze {
            from: random.below(cores),
            to: random.below(cores),
            is_frozen: random.percent(60),
        },
        90..92 => {
            let (is_polite, reads_ahead) = (random.percent(60), random.percent(50));
            Step::End { client, is_polite, reads_ahead }
        }
        92..97 => Step::Wait { ms: random.pick(&[1, 20, 1_100, 3_000, 7_000]) },
        _ => Step::Settle,
    }
}

fn publish(
    random: &mut Random,
    client: usize,
    topics: &[&'static str],
    qos: u8,
    retain: bool,
) -> Step {
    let bytes = random.pick(&[8, 20, 100, 700, 3_000, 20_000]);
    let times = if bytes < 1_000 { 1 + random.below(8) } else { 1 + random.below(6) };
    Step::Publish { client, topic: random.pick(topics), qos, retain, bytes, times }
}
