//! One executor on each core's thread: started together or not at all, stopped together.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::clock::Now;
use crate::config::Settings;
use crate::engine::{Access, Engine, Place};
use crate::executor::mesh::Mesh;
use crate::executor::{Core, Executor, Listeners, Parts, Stop, placement, sockets_max};

/// What all cores are started with.
pub struct Plan<'a> {
    /// What the broker was told.
    pub settings: &'a Settings,
    /// Makes each core its access control.
    pub access: &'a dyn Fn() -> Box<dyn Access>,
    /// Feeds names the broker makes up.
    pub seed: u64,
    /// Ends them all.
    pub stop: Stop,
}

/// Cores that serve.
pub struct Running(Vec<JoinHandle<io::Result<()>>>);

/// Starts an executor of kind `E` on each core. When one of them cannot be set up, none runs.
pub fn start<E: Executor>(plan: &Plan<'_>, mut listeners: Vec<Listeners>) -> io::Result<Running> {
    let cores = plan.settings.cores.count();
    let numbers = placement::numbers(&plan.settings.cores);
    let (fronts, wakers): (Vec<_>, Vec<_>) = E::fronts(cores)?.into_iter().unzip();
    let wakers: Arc<[_]> = wakers.into();
    let started = Instant::now();
    let (ready, are_ready) = mpsc::channel();
    let (mut threads, mut gates) = (Vec::new(), Vec::new());
    listeners.resize_with(usize::from(cores), Listeners::new);
    let places = Place::each(cores).into_iter().zip(fronts).zip(Mesh::each(cores)).zip(listeners);
    for (number, (((place, front), mesh), listeners)) in places.enumerate() {
        let (settings, access) = (plan.settings.clone(), (plan.access)());
        let (seed, stop, wakers) = (plan.seed, plan.stop.clone(), Arc::clone(&wakers));
        let (ready, pinned_to) = (ready.clone(), numbers.get(number).copied());
        let (gate, may_go) = mpsc::channel();
        gates.push(gate);
        let run = move || {
            if let Some(pinned_to) = pinned_to {
                placement::pin(number, pinned_to);
            }
            // Everything a core has is made on its own thread, so that the memory is near to it.
            let (sockets_max, uring) = (sockets_max(&settings), settings.uring.clone());
            let engine = Engine::new(place, settings, access, seed, Now(0));
            let core = Core::new(engine, mesh, started, stop.clone(), wakers);
            let executor = E::open(Parts { core, front, listeners, sockets_max, uring });
            let (executor, outcome) = match executor {
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
    let said = (0..cores).map(|_| are_ready.recv().expect("every thread says how it went"));
    let outcome = said.fold(Ok(()), io::Result::and).and_then(|()| plan.stop.attach(wakers));
    if outcome.is_ok() {
        gates.into_iter().for_each(|gate| gate.send(()).expect("the thread waits for it"));
        return Ok(Running(threads));
    }
    // Nobody else has the gates: the threads end, and let go of what they have.
    drop(gates);
    Running(threads).join()?;
    outcome.map(|()| unreachable!("it is an error"))
}

impl Running {
    /// Waits until all have stopped; when one fails, all stop.
    pub fn join(self) -> io::Result<()> {
        let mut outcome = Ok(());
        for thread in self.0 {
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
        self.0.ask();
    }
}
