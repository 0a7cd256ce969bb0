//! Starts an executor on each core's thread, all of them or none, and stops them together.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::access::Notify;
use crate::base::clock::Now;
use crate::base::ids::CoreId;
use crate::base::notifier::{Notifier, Signal};
use crate::config::Uring;
use crate::control::stop::Stop;
use crate::control::webhooks::Tap;
use crate::control::{self, Inbox, turns};
use crate::engine::{Access, Config, Engine, Keys};
use crate::executor::mesh::Mesh;
#[cfg(feature = "store")]
use crate::executor::storage::CoreStore;
use crate::executor::{Core, Executor, Listeners, Parts, placement};
use crate::platform::plan::Placement;
use crate::resources::gauges::Place;
use crate::stats::{Collector, Recorder, collector};
use crate::transport::ListenerPolicies;

/// What all cores are started from.
pub struct Plan<'a> {
    /// Number of cores.
    pub cores: u16,
    /// Whether each core's memory is allocated on its NUMA node.
    pub numa: bool,
    /// Configuration of the engines.
    pub engine: &'a Config,
    /// Number of sockets that a core has to be able to hold.
    pub sockets_max: u32,
    /// The longest that a busy core waits for more input.
    pub latency_budget: Duration,
    /// How io_uring is used.
    pub uring: &'a Uring,
    /// Makes each core its access control, which wakes the core by `Notify`.
    pub access: &'a dyn Fn(Notify) -> Box<dyn Access>,
    /// Secrets that all cores share.
    pub keys: Keys,
    /// The processor of each core; none when the system schedules freely.
    pub placements: &'a [Placement],
    /// The transport of each listener.
    pub policies: &'a ListenerPolicies,
    /// The webhooks that get events.
    pub taps: Arc<[Tap]>,
    /// The store; none when nothing is stored.
    #[cfg(feature = "store")]
    pub store: &'a std::cell::RefCell<Option<crate::storage::log::Store>>,
    /// Whether the process is a node of a cluster.
    #[cfg(feature = "cluster")]
    pub is_node: bool,
    /// Stops all cores.
    pub stop: Stop,
}

/// What the gateway of a cluster gets of the cores.
#[cfg(feature = "cluster")]
pub struct ForGateway {
    /// Its place beside the cores.
    pub place: Place,
    /// Its ends of the ways to the cores.
    pub ports: crate::cluster::ports::GatewayPorts,
    /// The beginning of the cores' clock.
    pub started: Instant,
}

/// Cores that run.
pub struct Running {
    cores: Cores,
    /// For the gateway, if the process is a node of a cluster.
    #[cfg(feature = "cluster")]
    pub for_gateway: Option<ForGateway>,
    /// What collects their statistics, if they record any.
    pub collector: Option<Collector>,
}

enum Cores {
    /// Each on a thread of its own.
    Threads(Vec<JoinHandle<io::Result<()>>>),
    /// A single core, which runs on the thread that waits for it.
    Here(Box<dyn FnOnce() -> io::Result<()>>),
}

/// Builds one core, on the thread that will run it.
struct Builder<E: Executor> {
    place: Place,
    bootstrap: E::Bootstrap,
    mesh: Mesh<E::Socket>,
    listeners: Listeners,
    access: Box<dyn Access>,
    config: Config,
    sockets_max: u32,
    latency_budget: Duration,
    uring: Uring,
    policies: ListenerPolicies,
    taps: Arc<[Tap]>,
    keys: Keys,
    started: Instant,
    stop: Stop,
    inbox: Inbox,
    recorder: Option<Recorder>,
    #[cfg(feature = "cluster")]
    gateway: Option<crate::cluster::ports::CorePort>,
    #[cfg(feature = "store")]
    keeper: Option<CoreStore>,
}

/// Builders of all cores, and the handles to the cores.
struct Builders<E: Executor> {
    each: Vec<Builder<E>>,
    collector: Option<Collector>,
    #[cfg(feature = "cluster")]
    for_gateway: Option<ForGateway>,
    cores: control::Cores,
}

impl<E: Executor> Builder<E> {
    /// A builder for each core. A core's state is allocated on its own thread, from memory near its processor.
    fn each(plan: &Plan<'_>, mut listeners: Vec<Listeners>) -> io::Result<Builders<E>> {
        let cores = plan.cores;
        let (bootstraps, wakers): (Vec<_>, Vec<_>) = E::bootstraps(cores)?.into_iter().unzip();
        let notifiers: Arc<[_]> = wakers.into_iter().map(Notifier::new).collect();
        let started = Instant::now();
        listeners.resize_with(usize::from(cores), Listeners::new);
        #[cfg(feature = "store")]
        let mut keepers = match &mut *plan.store.borrow_mut() {
            Some(store) => CoreStore::each(store, &notifiers)?.into_iter(),
            None => Vec::new().into_iter(),
        };
        let nodes = match plan.placements {
            [] => vec![0; usize::from(cores)],
            placements => placements.iter().map(|placement| placement.node).collect(),
        };
        #[cfg(feature = "cluster")]
        let (places, gateways, for_gateway) = match plan.is_node {
            true => in_cluster(nodes, started, plan.keys.tables),
            false => (Place::on_nodes(nodes), Vec::new(), None),
        };
        #[cfg(feature = "cluster")]
        let mut gateways = gateways.into_iter();
        #[cfg(not(feature = "cluster"))]
        let places = Place::on_nodes(nodes);
        let (control, inboxes) = control::Cores::new(Arc::clone(&notifiers));
        let ends = Mesh::each(cores).into_iter().zip(inboxes);
        let each = places.into_iter().zip(bootstraps).zip(ends).zip(listeners);
        let (recorders, collector) = plan.engine.has_statistics().then(|| collector(cores)).unzip();
        let mut recorders = recorders.into_iter().flatten();
        let builder =
            |(((place, bootstrap), (mesh, inbox)), listeners): (((Place, _), _), _)| Self {
                access: (plan.access)(notify(&notifiers, place.core())),
                place,
                bootstrap,
                mesh,
                listeners,
                config: plan.engine.clone(),
                sockets_max: plan.sockets_max,
                latency_budget: plan.latency_budget,
                uring: plan.uring.clone(),
                policies: ListenerPolicies::clone(plan.policies),
                taps: Arc::clone(&plan.taps),
                keys: plan.keys,
                started,
                stop: plan.stop.clone(),
                inbox,
                recorder: recorders.next(),
                #[cfg(feature = "cluster")]
                gateway: gateways.next(),
                #[cfg(feature = "store")]
                keeper: keepers.next(),
            };
        let each = each.map(builder).collect();
        Ok(Builders {
            each,
            collector,
            #[cfg(feature = "cluster")]
            for_gateway,
            cores: control,
        })
    }

    fn build(self) -> io::Result<E> {
        let mut engine = Engine::new(self.place, self.config, self.access, self.keys, Now(0));
        engine.set_listeners(self.policies);
        engine.set_webhooks(&self.taps);
        let (mesh, recorder) = (self.mesh, self.recorder);
        let mut core = Core::new(engine, mesh, self.started, self.stop, self.inbox, recorder);
        core.set_latency_budget(self.latency_budget);
        #[cfg(feature = "cluster")]
        core.set_gateway(self.gateway);
        #[cfg(feature = "store")]
        let core = match self.keeper {
            Some(keeper) => keeper.restore(core)?,
            None => core,
        };
        let (bootstrap, listeners, sockets_max, uring) =
            (self.bootstrap, self.listeners, self.sockets_max, self.uring);
        E::open(Parts { core, bootstrap, listeners, sockets_max, uring })
    }
}

/// The places of cores whose process is a node of a cluster, their ways to the gateway, and what the gateway gets.
#[cfg(feature = "cluster")]
fn in_cluster(
    nodes: Vec<u16>,
    started: Instant,
    seed: u64,
) -> (Vec<Place>, Vec<crate::cluster::ports::CorePort>, Option<ForGateway>) {
    let since_1970 = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let began_us = since_1970.saturating_sub(started.elapsed()).as_micros() as u64;
    let (ends, ports) = crate::cluster::ports::ports(nodes.len() as u16);
    let (places, place) = Place::in_cluster(nodes, began_us, seed);
    (places, ends, Some(ForGateway { place, ports, started }))
}

/// Notifies one core of authentication answers and of changed access rules.
fn notify(notifiers: &Arc<[Notifier]>, core: CoreId) -> Notify {
    let notifiers = Arc::clone(notifiers);
    Arc::new(move || notifiers[usize::from(core.0)].notify(Signal::Access))
}

/// Starts an executor of kind `E` on each core. When one of them cannot be built, none runs.
pub fn start<E: Executor>(plan: &Plan<'_>, listeners: Vec<Listeners>) -> io::Result<Running> {
    let Builders {
        each,
        collector,
        #[cfg(feature = "cluster")]
        for_gateway,
        cores,
    } = Builder::<E>::each(plan, listeners)?;
    let (ready, are_ready) = flume::unbounded();
    let (mut threads, mut gates) = (Vec::new(), Vec::new());
    for (number, builder) in each.into_iter().enumerate() {
        let (ready, placement) = (ready.clone(), plan.placements.get(number).copied());
        let numa = plan.numa;
        let (gate, may_go) = flume::unbounded();
        gates.push(gate);
        let run = move || {
            if let Some(placement) = placement {
                placement::pin(number, placement, numa);
            }
            let stop = builder.stop.clone();
            let (executor, outcome) = match builder.build() {
                Ok(executor) => (Some(executor), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let _ = ready.send(outcome);
            // The gate is dropped when another core cannot be built.
            let (Some(executor), Ok(())) = (executor, may_go.recv()) else { return Ok(()) };
            let _stops_all = StopAtEnd(stop);
            executor.run()
        };
        threads.push(std::thread::Builder::new().name(format!("core {number}")).spawn(run)?);
    }
    let outcomes = gates.iter().map(|_| are_ready.recv().expect("every thread sends its outcome"));
    let outcome = outcomes.fold(Ok(()), io::Result::and).and_then(|()| plan.stop.attach(cores));
    let running = Running {
        cores: Cores::Threads(threads),
        #[cfg(feature = "cluster")]
        for_gateway,
        collector,
    };
    if let Err(error) = outcome {
        // The threads wait at their gates, and end when these are dropped.
        drop(gates);
        running.join()?;
        return Err(error);
    }
    if gates.len() > 1 {
        turns::watch(plan.stop.clone());
    }
    gates.into_iter().for_each(|gate| gate.send(()).expect("the thread waits at its gate"));
    Ok(running)
}

/// Builds an executor of kind `E` for a single core, which runs on the calling thread.
pub fn start_here<E: Executor>(plan: &Plan<'_>, listeners: Vec<Listeners>) -> io::Result<Running> {
    if let Some(placement) = plan.placements.first() {
        placement::pin(0, *placement, plan.numa);
    }
    let Builders {
        mut each,
        collector,
        #[cfg(feature = "cluster")]
        for_gateway,
        cores,
    } = Builder::<E>::each(plan, listeners)?;
    assert_eq!(each.len(), 1, "the configuration says so");
    let executor = each.remove(0).build()?;
    plan.stop.attach(cores)?;
    Ok(Running {
        cores: Cores::Here(Box::new(|| executor.run())),
        #[cfg(feature = "cluster")]
        for_gateway,
        collector,
    })
}

impl Running {
    /// Waits until all cores have stopped. When one fails, all stop.
    pub fn join(self) -> io::Result<()> {
        let threads = match self.cores {
            Cores::Threads(threads) => threads,
            Cores::Here(run) => return run(),
        };
        let mut outcome = Ok(());
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(ended);
        }
        outcome
    }
}

/// Stops all cores when one ends, for whatever reason.
struct StopAtEnd(Stop);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.request();
    }
}
