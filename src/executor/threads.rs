//! One executor on each core's thread: started together or not at all, stopped together.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::access::Notify;
use crate::base::clock::Now;
use crate::base::ids::CoreId;
use crate::base::notifier::{Notifier, Signal};
use crate::config::Uring;
use crate::control::stop::Stop;
use crate::control::{self, Inbox, turns};
use crate::engine::{Access, Config, Engine, Keys};
use crate::executor::mesh::Mesh;
#[cfg(feature = "store")]
use crate::executor::storage::Keeper;
use crate::executor::{Core, Executor, Listeners, Parts, placement};
use crate::platform::plan::Seat;
use crate::resources::gauges::Place;
use crate::stats::{Collector, Recorder, collector};
use crate::transport::ListenerPolicies;

/// What all cores are started with.
pub struct Plan<'a> {
    /// Number of cores.
    pub cores: u16,
    /// Whether each core's memory is allocated on its NUMA node.
    pub numa: bool,
    /// Configuration of the engines.
    pub engine: &'a Config,
    /// Number of sockets that a core has to be able to hold.
    pub sockets_max: u32,
    /// How io_uring is used.
    pub uring: &'a Uring,
    /// Makes each core its access control, which wakes the core by `Notify`.
    pub access: &'a dyn Fn(Notify) -> Box<dyn Access>,
    /// Secrets, the same for all cores.
    pub keys: Keys,
    /// Where each core runs; none when the system may choose.
    pub seats: &'a [Seat],
    /// What is spoken at each listener.
    pub policies: &'a ListenerPolicies,
    /// Where what is to be kept is kept; none to keep nothing.
    #[cfg(feature = "store")]
    pub store: &'a std::cell::RefCell<Option<crate::storage::log::Store>>,
    /// Ends them all.
    pub stop: Stop,
}

/// Cores that serve.
pub struct Running {
    cores: Cores,
    /// What collects their statistics, if they record any.
    pub collector: Option<Collector>,
}

enum Cores {
    /// On threads of their own.
    Threads(Vec<JoinHandle<io::Result<()>>>),
    /// One, which runs when it is waited for, on the thread that waits.
    Here(Box<dyn FnOnce() -> io::Result<()>>),
}

/// What one core is made from, on the thread that will run it.
struct Seed<E: Executor> {
    place: Place,
    front: E::Front,
    mesh: Mesh<E::Socket>,
    listeners: Listeners,
    access: Box<dyn Access>,
    config: Config,
    sockets_max: u32,
    uring: Uring,
    policies: ListenerPolicies,
    keys: Keys,
    started: Instant,
    stop: Stop,
    inbox: Inbox,
    recorder: Option<Recorder>,
    #[cfg(feature = "store")]
    keeper: Option<Keeper>,
}

/// Cores that have not been built yet, and the handles to them.
struct Seeds<E: Executor> {
    each: Vec<Seed<E>>,
    collector: Option<Collector>,
    cores: control::Cores,
}

impl<E: Executor> Seed<E> {
    /// For each core. Everything a core has is made on its own thread, so that the memory is near
    /// to it.
    fn each(plan: &Plan<'_>, mut listeners: Vec<Listeners>) -> io::Result<Seeds<E>> {
        let cores = plan.cores;
        let (fronts, wakers): (Vec<_>, Vec<_>) = E::fronts(cores)?.into_iter().unzip();
        let notifiers: Arc<[_]> = wakers.into_iter().map(Notifier::new).collect();
        let started = Instant::now();
        listeners.resize_with(usize::from(cores), Listeners::new);
        #[cfg(feature = "store")]
        let mut keepers = match &mut *plan.store.borrow_mut() {
            Some(store) => Keeper::each(store, &notifiers)?.into_iter(),
            None => Vec::new().into_iter(),
        };
        let places = match plan.seats {
            [] => Place::each(cores),
            seats => Place::on_nodes(seats.iter().map(|seat| seat.node).collect()),
        };
        let (control, inboxes) = control::Cores::new(Arc::clone(&notifiers));
        let ends = Mesh::each(cores).into_iter().zip(inboxes);
        let each = places.into_iter().zip(fronts).zip(ends).zip(listeners);
        let (recorders, collector) = plan.engine.has_statistics().then(|| collector(cores)).unzip();
        let mut recorders = recorders.into_iter().flatten();
        let seed = |(((place, front), (mesh, inbox)), listeners): (((Place, _), _), _)| Self {
            access: (plan.access)(notify(&notifiers, place.core())),
            place,
            front,
            mesh,
            listeners,
            config: plan.engine.clone(),
            sockets_max: plan.sockets_max,
            uring: plan.uring.clone(),
            policies: ListenerPolicies::clone(plan.policies),
            keys: plan.keys,
            started,
            stop: plan.stop.clone(),
            inbox,
            recorder: recorders.next(),
            #[cfg(feature = "store")]
            keeper: keepers.next(),
        };
        Ok(Seeds { each: each.map(seed).collect(), collector, cores: control })
    }

    fn grow(self) -> io::Result<E> {
        let mut engine = Engine::new(self.place, self.config, self.access, self.keys, Now(0));
        engine.set_listeners(self.policies);
        let (mesh, recorder) = (self.mesh, self.recorder);
        let core = Core::new(engine, mesh, self.started, self.stop, self.inbox, recorder);
        #[cfg(feature = "store")]
        let core = match self.keeper {
            Some(keeper) => keeper.restore(core)?,
            None => core,
        };
        let (front, listeners, sockets_max, uring) =
            (self.front, self.listeners, self.sockets_max, self.uring);
        E::open(Parts { core, front, listeners, sockets_max, uring })
    }
}

/// Notifies one core of authentication answers and of changed access rules.
fn notify(notifiers: &Arc<[Notifier]>, core: CoreId) -> Notify {
    let notifiers = Arc::clone(notifiers);
    Arc::new(move || notifiers[usize::from(core.0)].notify(Signal::Access))
}

/// Starts an executor of kind `E` on each core. When one of them cannot be set up, none runs.
pub fn start<E: Executor>(plan: &Plan<'_>, listeners: Vec<Listeners>) -> io::Result<Running> {
    let Seeds { each, collector, cores } = Seed::<E>::each(plan, listeners)?;
    let (ready, are_ready) = mpsc::channel();
    let (mut threads, mut gates) = (Vec::new(), Vec::new());
    for (number, seed) in each.into_iter().enumerate() {
        let (ready, seat) = (ready.clone(), plan.seats.get(number).copied());
        let numa = plan.numa;
        let (gate, may_go) = mpsc::channel();
        gates.push(gate);
        let run = move || {
            if let Some(seat) = seat {
                placement::sit_down(number, seat, numa);
            }
            let stop = seed.stop.clone();
            let (executor, outcome) = match seed.grow() {
                Ok(executor) => (Some(executor), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let _ = ready.send(outcome);
            // The gate goes without a word when another core could not be set up.
            let (Some(executor), Ok(())) = (executor, may_go.recv()) else { return Ok(()) };
            let _stops_all = StopAtEnd(stop);
            executor.run()
        };
        threads.push(std::thread::Builder::new().name(format!("core {number}")).spawn(run)?);
    }
    let said = gates.iter().map(|_| are_ready.recv().expect("every thread says how it went"));
    let outcome = said.fold(Ok(()), io::Result::and).and_then(|()| plan.stop.attach(cores));
    let running = Running { cores: Cores::Threads(threads), collector };
    if let Err(error) = outcome {
        // Nobody else has the gates: the threads end, and let go of what they have.
        drop(gates);
        running.join()?;
        return Err(error);
    }
    if gates.len() > 1 {
        turns::watch(plan.stop.clone());
    }
    gates.into_iter().for_each(|gate| gate.send(()).expect("the thread waits for it"));
    Ok(running)
}

/// Sets up an executor of kind `E` for one core, to run on the calling thread.
pub fn start_here<E: Executor>(plan: &Plan<'_>, listeners: Vec<Listeners>) -> io::Result<Running> {
    if let Some(seat) = plan.seats.first() {
        placement::sit_down(0, *seat, plan.numa);
    }
    let Seeds { mut each, collector, cores } = Seed::<E>::each(plan, listeners)?;
    assert_eq!(each.len(), 1, "the configuration says so");
    let executor = each.remove(0).grow()?;
    plan.stop.attach(cores)?;
    Ok(Running { cores: Cores::Here(Box::new(|| executor.run())), collector })
}

impl Running {
    /// Waits until all have stopped; when one fails, all stop.
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

/// A core that ends, for whatever reason, ends the others.
struct StopAtEnd(Stop);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.request();
    }
}
