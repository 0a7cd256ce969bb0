//! The thread of the gateway: it carries batches between the cores and the gateway, and frames between the gateway and the
//! engine, and keeps the gateway's members as the view has them.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::runtime::Runtime;

use crate::base::clock::Now;
use crate::cluster::gateway::{Gateway, Joined, NodeId};
use crate::cluster::nats::{Carrier, CarrierEvent};
use crate::cluster::ports::GatewayPorts;
use crate::cluster::replica;
use crate::cluster::setup;
use crate::cluster::spawn::Engine;
use crate::cluster::topics::Topics;
use crate::cluster::view::{LaneVersions, View};
use crate::cluster::watchdog::{Order, Watchdog};
use crate::config::Cluster;
use crate::control::cluster::{ClusterBoard, ClusterTraffic};
use crate::control::stop::Stop;
use crate::control::{Command, Cores, EngineCommand, replies};
use crate::resources::gauges::Place;
use crate::storage::log::Store;

/// Events of the carrier that are handled in a turn.
const EVENTS_PER_TURN: usize = 256;

/// Longest time without a turn: a stop is noticed by then.
const TURN_MAX: Duration = Duration::from_millis(500);

/// Microseconds after which what has crossed is shown again.
const SHOWN_EVERY_US: u64 = 500_000;

/// Time for which a broker that stops waits until the others know that it has left.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// What the thread works with.
pub struct Parts {
    /// The gateway's place beside the cores.
    pub place: Place,
    /// The rings to the cores.
    pub ports: GatewayPorts,
    /// The cores.
    pub cores: Cores,
    /// The beginning of the cores' clock.
    pub started: Instant,
    /// Asks the broker to stop.
    pub stop: Stop,
    /// Where the cluster is described for operators.
    pub board: ClusterBoard,
    /// The interval of `$SYS` topics; zero for never.
    pub sys_interval: Duration,
    /// The key of the cores' tables, which clients do not know: the gateway finds the home core of a client as they do.
    pub seed: u64,
}

/// The highest version of lanes that this process speaks, for tests that update nodes from one version to the next.
const TEST_LANES: &str = "RINGMQ_TEST_LANES";

/// The versions of lanes that this program speaks.
pub fn lane_versions() -> LaneVersions {
    use crate::cluster::codec::{VERSION, VERSION_OLDEST};
    static HIGHEST: OnceLock<u8> = OnceLock::new();
    let highest = *HIGHEST.get_or_init(|| {
        let asked = std::env::var(TEST_LANES).ok().and_then(|text| text.parse().ok());
        asked.unwrap_or(VERSION).clamp(VERSION_OLDEST, VERSION)
    });
    LaneVersions { lowest: VERSION_OLDEST.into(), highest: highest.into() }
}

/// The way to the engine, before the thread runs.
pub struct Started {
    runtime: Runtime,
    engine: Option<Engine>,
    carrier: Carrier,
    replica: Option<replica::Task>,
}

fn runtime() -> Result<Runtime, String> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| error.to_string())
}

/// Starts the engine server, if the broker is to run one, and begins to connect. `data` is the folder of the store.
///
/// # Errors
///
/// The engine server cannot be run, or a file cannot be used; the text says what to do.
pub fn connect(
    settings: &Cluster,
    data: Option<&Path>,
    board: ClusterBoard,
) -> Result<Started, String> {
    let runtime = runtime()?;
    let started = setup::start(settings, data, lane_versions(), board);
    let (engine, carrier) = runtime.block_on(started)?;
    Ok(Started { runtime, engine, carrier, replica: None })
}

/// The same, and brings the log of the store and its stream together, waiting for the engine. None if the broker was asked to
/// stop meanwhile.
///
/// # Errors
///
/// As for [`connect`]; or log and stream do not belong together, or are damaged.
pub fn connect_replicated(
    settings: &Cluster,
    store: &mut Store,
    board: ClusterBoard,
    stop: &Stop,
    ended: &replica::Ended,
) -> Result<Option<Started>, String> {
    let runtime = runtime()?;
    runtime
        .block_on(async {
            let folder = store.folder().to_owned();
            let (engine, options) =
                setup::start_engine(settings, Some(&folder), lane_versions()).await?;
            let shared = (board.clone(), stop.clone(), Arc::clone(ended));
            let begun = replica::start(&options, store, &folder, settings.degrade, shared).await;
            let carrier = match &begun {
                Ok(Some(_)) => Some(Carrier::start(options, board).await),
                Ok(None) | Err(_) => None,
            };
            match (begun, carrier) {
                (Ok(replica), Some(Ok(carrier))) => Ok(Some((engine, carrier, replica))),
                (begun, carrier) => {
                    if let Some(engine) = engine {
                        engine.stop().await;
                    }
                    begun.and(carrier.transpose()).map(|_| None)
                }
            }
        })
        .map(|started| {
            started.map(|(engine, carrier, replica)| Started { runtime, engine, carrier, replica })
        })
}

/// Starts the thread.
///
/// # Errors
///
/// The thread cannot be made.
pub fn start(parts: Parts, started: Started) -> Result<JoinHandle<()>, String> {
    let Started { runtime, engine, carrier, replica } = started;
    let run = move || {
        runtime.block_on(async {
            if let Some(replica) = replica {
                tokio::spawn(replica.run());
            }
            Runner::new(parts, carrier).run().await;
            if let Some(engine) = engine {
                engine.stop().await;
            }
        });
    };
    let thread = std::thread::Builder::new().name("cluster".to_owned()).spawn(run);
    thread.map_err(|error| error.to_string())
}

struct Runner {
    place: Place,
    gateway: Gateway,
    watchdog: Watchdog,
    carrier: Carrier,
    ports: GatewayPorts,
    cores: Cores,
    started: Instant,
    stop: Stop,
    board: ClusterBoard,
    topics: Topics,
    /// When the state was shown last.
    shown: Now,
    /// This node's number and incarnation, while it is a member.
    own: Option<(NodeId, u64)>,
    /// By node, the incarnation that is linked.
    linked: Vec<Option<u64>>,
    is_ready: bool,
    /// It is emptied, and the others know.
    is_leaving: bool,
}

impl Runner {
    fn new(parts: Parts, carrier: Carrier) -> Self {
        let Parts { place, ports, cores, started, stop, board, seed, sys_interval, .. } = parts;
        Self {
            gateway: Gateway::new(place.clone(), seed),
            place,
            watchdog: Watchdog::default(),
            carrier,
            ports,
            cores,
            started,
            stop,
            board,
            topics: Topics::new(sys_interval),
            shown: Now(0),
            own: None,
            linked: vec![None; usize::from(shards::NODES_MAX)],
            is_ready: false,
            is_leaving: false,
        }
    }

    fn now(&self) -> Now {
        Now(self.started.elapsed().as_micros() as u64)
    }

    async fn run(mut self) {
        let bell = self.ports.bell();
        while !self.stop.is_requested() {
            for _ in 0..EVENTS_PER_TURN {
                let Some(event) = self.carrier.next_event().now_or_never() else { break };
                self.handle(event);
            }
            if self.turn() {
                // Other tasks of the carrier have their turn.
                tokio::task::yield_now().await;
                continue;
            }
            let pause = self.pause();
            tokio::select! {
                event = self.carrier.next_event() => self.handle(event),
                () = bell.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.leave().await;
    }

    /// Time until something is due.
    fn pause(&self) -> Duration {
        let now = self.now();
        let due = [self.gateway.poll_timeout(), self.watchdog.poll_timeout()];
        let left = due.into_iter().flatten().map(|deadline| deadline.time_left(now)).min();
        left.map_or(TURN_MAX, |left| left.min(TURN_MAX))
    }

    /// Everything that can be done without waiting; whether more could be done at once.
    fn turn(&mut self) -> bool {
        let now = self.now();
        let Self { gateway, ports, carrier, .. } = self;
        let has_more = ports.receive(|from, to, batch| gateway.handle_batch(now, from, to, batch));
        let goes_on = gateway.handle_turn(now);
        ports.send(|core| gateway.poll_batch(core));
        ports.wake(&self.cores);
        while let Some((node, frame)) = gateway.poll_frame() {
            if let Some(node) = node.number() {
                // What is not sent is sent again.
                carrier.send(node, frame);
            }
        }
        while let Some(order) = self.watchdog.poll(now) {
            match order {
                Order::Echo(number) => self.carrier.send_echo(number),
                Order::Reconnect => {
                    tracing::warn!(
                        "cluster: the engine server does not answer; connecting to another one"
                    );
                    self.carrier.force_reconnect();
                }
            }
        }
        if !self.is_ready
            && self.own.is_some()
            && self.has_all_members()
            && self.gateway.is_settled()
        {
            (self.is_ready, self.is_leaving) = (true, false);
            self.carrier.set_ready();
        }
        if let Some((name, reply)) = self.board.take_forgotten() {
            // Whoever has asked may be gone.
            let _ = reply.send(self.carrier.forget(&name));
        }
        let is_leaving = self.board.is_emptied();
        if self.is_ready && std::mem::replace(&mut self.is_leaving, is_leaving) != is_leaving {
            match is_leaving {
                true => self.carrier.set_leaving(),
                false => self.carrier.set_ready(),
            }
        }
        self.show(now);
        has_more || goes_on
    }

    /// Shows the state to operators, on the board and below `$SYS`.
    fn show(&mut self, now: Now) {
        if now.since_us(self.shown) < SHOWN_EVERY_US {
            return;
        }
        self.shown = now;
        let counters = self.gateway.counters();
        let traffic = ClusterTraffic {
            sent: counters.messages_sent,
            received: counters.messages_taken,
            errors: counters.errors,
            filters: self.gateway.filters() as u64,
        };
        self.board.set_traffic(traffic);
        let clients = self.place.connections_elsewhere();
        self.carrier.set_clients(u32::try_from(clients).unwrap_or(u32::MAX));
        let Self { topics, board, cores, .. } = self;
        topics.publish(now, board, |topic, payload| {
            let (to, _) = replies();
            let (topic, payload) = (topic.into(), payload.into_bytes().into());
            let command = EngineCommand::PublishState { topic, payload, reply: to.core(0) };
            // Refused by a core that stops.
            let _ = cores.send(0, Command::Engine(command));
        });
    }

    fn has_all_members(&self) -> bool {
        let Some(view) = self.carrier.view() else { return false };
        view.members.iter().all(|member| {
            let node = member.node.index();
            self.own.is_some_and(|(own, _)| usize::from(own.0) == node)
                || self.linked[node].is_some()
        })
    }

    fn handle(&mut self, event: CarrierEvent) {
        let now = self.now();
        match event {
            CarrierEvent::Connected { server } => {
                tracing::info!(%server, "cluster: connected to the engine");
                self.watchdog.connected(now);
            }
            CarrierEvent::Disconnected => {
                tracing::warn!("cluster: connection to the engine lost; connecting again");
                self.watchdog.disconnected();
            }
            CarrierEvent::Joined { node, incarnation, .. } => {
                tracing::info!(node = node.get(), incarnation = incarnation.0, "cluster: joined");
                let own = NodeId(node.get().into());
                self.own = Some((own, incarnation.0));
                self.gateway.begin(own, incarnation.0);
            }
            CarrierEvent::Refused(error) => {
                tracing::error!(%error, "cluster: cannot join");
            }
            CarrierEvent::FrameReceived { from, frame } => {
                let node = NodeId(from.get().into());
                match self.gateway.handle_frame(now, node, frame) {
                    Ok(true) => self.carrier.note_heard(from),
                    Ok(false) => {}
                    Err(error) if error.is_final() => {
                        tracing::error!(node = node.0, %error, "cluster: cannot understand another node: left it");
                        self.unlink(node);
                    }
                    Err(error) => {
                        tracing::debug!(node = node.0, %error, "cluster: a frame was damaged")
                    }
                }
            }
            CarrierEvent::ViewChanged(view) => self.follow(&view),
            CarrierEvent::LeaseSeen { .. } => {}
            CarrierEvent::EchoHeard(number) => self.watchdog.handle_echo(now, number),
            CarrierEvent::Isolated => {
                tracing::warn!(
                    "cluster: the engine has no quorum; what other nodes must have waits"
                );
            }
            CarrierEvent::Healed => tracing::info!("cluster: the engine has a quorum again"),
            CarrierEvent::Evicted => {
                tracing::warn!("cluster: the other nodes have taken this one out; joining again");
                self.unlink_all();
                self.carrier.rejoin();
            }
            CarrierEvent::Left => self.unlink_all(),
        }
    }

    /// Links the members of the view, and no others.
    fn follow(&mut self, view: &View) {
        let Some((own, _)) = self.own else { return };
        let mut members = vec![None; self.linked.len()];
        for member in view.members.iter().filter(|member| member.node.index() != usize::from(own.0))
        {
            members[member.node.index()] = Some(member);
        }
        let now = self.now();
        for (node, member) in members.into_iter().enumerate() {
            let id = NodeId(node as u16);
            if self.linked[node]
                .is_some_and(|linked| member.is_none_or(|of| of.incarnation.0 != linked))
            {
                self.unlink(id);
            }
            let Some(member) = member.filter(|_| self.linked[node].is_none()) else { continue };
            let Some(version) = lane_versions().common(member.lanes) else {
                tracing::error!(
                    node,
                    name = member.name,
                    "cluster: no version of lanes in common with this node; upgrade the older one"
                );
                continue;
            };
            tracing::info!(
                node,
                name = member.name,
                incarnation = member.incarnation.0,
                "cluster: a node has joined"
            );
            self.linked[node] = Some(member.incarnation.0);
            let (incarnation, version) = (member.incarnation.0, version as u8);
            self.gateway.add_node(now, Joined { node: id, incarnation, version });
        }
    }

    fn unlink(&mut self, node: NodeId) {
        if self.linked[usize::from(node.0)].take().is_some() {
            tracing::warn!(node = node.0, "cluster: a node has left");
            self.gateway.remove_node(self.now(), node);
        }
    }

    fn unlink_all(&mut self) {
        (0..shards::NODES_MAX).for_each(|node| self.unlink(NodeId(node)));
        (self.own, self.is_ready) = (None, false);
    }

    /// Leaves the view, so that the others do not wait for this node.
    async fn leave(mut self) {
        if self.own.is_none() {
            return;
        }
        self.carrier.leave();
        let left = async {
            while !matches!(
                self.carrier.next_event().await,
                CarrierEvent::Left | CarrierEvent::Evicted
            ) {}
        };
        if tokio::time::timeout(LEAVE_MAX, left).await.is_err() {
            tracing::warn!(
                "cluster: could not say that this node leaves; the others will notice by its silence"
            );
        }
    }
}
