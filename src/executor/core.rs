//! What is the same for a core under every executor: its engine, its end of the mesh, its inbox, and the clock.

use std::time::{Duration, Instant};

use crate::base::clock::{Now, Tick};
use crate::base::latencies::Recording;
use crate::base::metrics::Turn;
use crate::base::notifier::Signal;
use crate::config::Uring;
use crate::control::bridge::Dialed;
use crate::control::listener::Handed;
use crate::control::stop::Stop;
use crate::control::{Command, Inbox, Reply, Statistics};
use crate::engine::Engine;
use crate::executor::mesh::{Mesh, Moving};
use crate::executor::moderation::Moderation;
use crate::executor::{Executor, Listeners};
use crate::platform;
#[cfg(feature = "store")]
use crate::stats::Kind;
use crate::stats::{Recorder, Stamps};

/// After so many turns every socket has been read once: the kernel reports sockets in the order in which their
/// input arrived, about a thousand at a time.
const UNREAD_TURNS_MAX: u32 = 1_024;

/// What an executor is built from.
pub struct Parts<E: Executor> {
    /// Engine, mesh and clock.
    pub core: Core<E::Socket>,
    /// What was made before the thread started.
    pub bootstrap: E::Bootstrap,
    /// The core's listeners.
    pub listeners: Listeners,
    /// Sockets that the core may have to hold: all connections may have their home here.
    pub sockets_max: u32,
    /// Configuration of io_uring.
    pub uring: Uring,
}

/// One core's engine, and its connections to other cores and threads. `S` is a socket as it is passed on.
pub struct Core<S> {
    /// The protocol.
    pub engine: Engine,
    /// The core's end of the mesh.
    pub mesh: Mesh<S>,
    /// The time when the clock was last read: at the beginning of the turn, or later.
    pub now: Now,
    /// That time in nanoseconds.
    read: Tick,
    /// The beginning of the turn that is in progress, and the end of the one before.
    began: Option<Tick>,
    ended: Tick,
    /// Whether to wait for more input.
    moderation: Moderation,
    /// The core waits for more input, or has before this turn.
    is_moderated: bool,
    started: Instant,
    stop: Stop,
    /// Signals and commands from other threads.
    inbox: Inbox,
    /// The way to the gateway of the cluster.
    #[cfg(feature = "cluster")]
    gateway: Option<crate::cluster::ports::CorePort>,
    /// Connections that bridges have opened.
    dialed: Vec<Dialed>,
    /// Changes of the listeners, which the executor makes.
    listening: Vec<(Handed, Reply<()>)>,
    /// A command for statistics, which is answered at the end of the turn.
    asked: Option<(Box<Recording>, Reply<Statistics>)>,
    /// The way to the store; none when nothing is kept.
    #[cfg(feature = "store")]
    store_client: Option<crate::storage::log::StoreClient>,
    /// Batches of records on their way to the disk, since when: while somebody takes the time.
    #[cfg(feature = "store")]
    storing: std::collections::VecDeque<(u64, Tick)>,
    /// Turns in which not all input was read, since the time limit of a connection has passed.
    turns_unread: u32,
    /// What is counted in this turn.
    pub noted: Turn,
    /// Records latencies, if statistics are collected.
    recorder: Option<Recorder>,
}

impl<S> Core<S> {
    /// A core whose engine's clock was zero at `started`.
    pub fn new(
        engine: Engine,
        mesh: Mesh<S>,
        started: Instant,
        stop: Stop,
        inbox: Inbox,
        recorder: Option<Recorder>,
    ) -> Self {
        let (now, read, noted) = (Now(0), Tick(0), Turn::default());
        Self {
            engine,
            mesh,
            now,
            read,
            began: None,
            ended: Tick(0),
            moderation: Moderation::new(Duration::ZERO),
            is_moderated: false,
            started,
            stop,
            inbox,
            #[cfg(feature = "cluster")]
            gateway: None,
            listening: Vec::new(),
            dialed: Vec::new(),
            asked: None,
            #[cfg(feature = "store")]
            store_client: None,
            #[cfg(feature = "store")]
            storing: Default::default(),
            turns_unread: 0,
            noted,
            recorder,
        }
    }

    /// Sends the records of this core to this store from now on.
    #[cfg(feature = "store")]
    pub fn set_store(&mut self, store_client: crate::storage::log::StoreClient) {
        self.store_client = Some(store_client);
    }

    /// While it is busy, the core waits for so long for more input; zero for never.
    pub fn set_latency_budget(&mut self, budget: Duration) {
        self.moderation = Moderation::new(budget);
    }

    /// Exchanges batches with the gateway of the cluster from now on.
    #[cfg(feature = "cluster")]
    pub fn set_gateway(&mut self, port: Option<crate::cluster::ports::CorePort>) {
        self.gateway = port;
    }

    /// Takes batches of other nodes.
    fn receive_from_gateway(&mut self) {
        #[cfg(feature = "cluster")]
        if let Some(gateway) = &mut self.gateway {
            gateway.receive(|from, batch| self.engine.handle_batch(self.now, from, batch));
        }
    }

    /// Sends batches to other nodes, as far as there is room.
    fn send_to_gateway(&mut self) {
        #[cfg(feature = "cluster")]
        if let Some(gateway) = &mut self.gateway {
            gateway.send(|| self.engine.poll_node_batch());
        }
    }

    /// Whether a batch of another node has come.
    fn has_from_gateway(&mut self) -> bool {
        #[cfg(feature = "cluster")]
        if let Some(gateway) = &mut self.gateway {
            return gateway.has_batch();
        }
        false
    }

    /// Notes what the store has made durable, and whether its state has changed.
    fn check_store(&mut self) {
        #[cfg(feature = "store")]
        if let Some(stored) = self.store_client.as_mut().and_then(|client| client.changed_state()) {
            self.engine.handle_stored(self.now, stored);
            let up_to = stored.up_to;
            while let Some((_, since)) = self.storing.pop_front_if(|&mut (batch, _)| batch <= up_to)
                && let Some(recorder) = &mut self.recorder
            {
                recorder.record(Kind::StorageCommit, self.read.since_ns(since));
            }
        }
    }

    /// Hands over what is to be stored.
    fn hand_over_records(&mut self) {
        #[cfg(feature = "store")]
        if let Some(store_client) = &self.store_client {
            while let Some(records) = self.engine.poll_records() {
                if self.recorder.is_some() {
                    self.storing.push_back((records.number, tick(self.started)));
                }
                store_client.hand_over(records);
            }
        }
    }

    /// Whether a stop has been requested.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_requested()
    }

    /// Reads the clock.
    pub fn read_clock(&mut self) {
        self.read = tick(self.started);
        self.now = self.read.now();
    }

    /// How long to wait for more input before the next turn, if the core should; it does not park then, so that other
    /// cores need not wake it. Timers fire in time.
    #[inline]
    pub fn moderated_wait(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        let wait = self.moderation.wait()?;
        let wait = timeout.map_or(wait, |timeout| wait.min(timeout));
        self.is_moderated = !wait.is_zero();
        self.is_moderated.then_some(wait)
    }

    /// Work outside of a turn, for which the clock has just been read, counts towards the next turn, which is timed
    /// from there.
    pub fn begin_early(&mut self) {
        self.began.get_or_insert(self.read);
        self.inbox.begin_turn();
    }

    /// Reads the clock at the beginning of a turn.
    pub fn begin_turn(&mut self) {
        self.read_clock();
        self.begin_early();
    }

    /// Takes what other threads have signalled, and executes their commands.
    fn take_signals(&mut self) {
        let signals = self.inbox.take_signals();
        if signals.has(Signal::Storage) {
            self.check_store();
        }
        if signals.has(Signal::Access) {
            self.engine.handle_answers(self.now);
        }
        if signals.has(Signal::Commands) {
            while let Some(command) = self.inbox.next_command() {
                self.execute(command);
            }
        }
        if self.engine.has_commands() {
            self.engine.poll_commands(self.now);
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Probe(reply) => reply.send(()),
            Command::Statistics { empty, reply } => self.asked = Some((empty, reply)),
            Command::Listen { change, reply } => self.listening.push((change, reply)),
            Command::Adopt(dialed) => self.dialed.push(*dialed),
            Command::Engine(command) => self.engine.handle_command(self.now, command),
        }
    }

    /// The next change of the listeners, which is answered once it is made.
    #[inline]
    pub fn next_listener_change(&mut self) -> Option<(Handed, Reply<()>)> {
        self.listening.pop()
    }

    /// The next connection that a bridge has opened.
    #[inline]
    pub fn next_dialed(&mut self) -> Option<Dialed> {
        self.dialed.pop()
    }

    /// Takes what other threads and other cores have sent; returns the sockets that arrive from other cores.
    pub fn receive(&mut self) -> Vec<Moving<S>> {
        self.take_signals();
        if self.engine.has_unread_batches() {
            return Vec::new();
        }
        self.receive_from_gateway();
        let Self { mesh, engine, recorder, started, now, .. } = self;
        mesh.receive(|from, batch, stamps| match recorder {
            None => engine.handle_batch(*now, from, batch),
            Some(recorder) => {
                let (handled, (_, before)) = (tick(*started), engine.publishes_taken());
                engine.handle_batch(*now, from, batch);
                recorder.note_batch(stamps, handled, before, engine.publishes_taken().1);
            }
        })
    }

    /// Sockets have been read. `is_all`: all input that they held when this turn asked the kernel. Time limits are
    /// applied at the latest after `UNREAD_TURNS_MAX` turns, even if more input always arrives.
    pub fn note_read(&mut self, is_all: bool) {
        if !self.engine.has_overdue() {
            self.turns_unread = 0;
            return;
        }
        self.turns_unread += 1;
        if is_all || self.turns_unread > UNREAD_TURNS_MAX {
            self.engine.handle_all_read(self.now);
            self.turns_unread = 0;
        }
    }

    /// Fires the timers that are due.
    pub fn fire_timers(&mut self) {
        if self.engine.poll_timeout().is_some_and(|deadline| deadline.is_due(self.now)) {
            self.engine.handle_timeout(self.now);
        }
    }

    /// Sends what the turn has produced for other cores, and wakes with `wake` those that sleep.
    pub fn end_turn(&mut self, mut wake: impl FnMut(usize)) {
        self.hand_over_records();
        let began = self.began.take().unwrap_or(self.read);
        let (is_timed, started) = (self.recorder.is_some(), self.started);
        self.mesh.send(&mut self.engine, began, |began| match is_timed {
            true => Stamps { began, sealed: tick(started) },
            false => Stamps::default(),
        });
        self.send_to_gateway();
        while let Some(core) = self.mesh.next_to_wake() {
            self.noted.wakeups += 1;
            wake(core);
        }
        self.inbox.end_turn();
        let ended = tick(self.started);
        self.noted.busy_us = ended.since_ns(began) / 1_000;
        let has_waited = std::mem::take(&mut self.is_moderated);
        if has_waited {
            self.noted.moderated_us = began.since_ns(self.ended) / 1_000;
        }
        self.ended = ended;
        let packets = self.engine.packets_handled();
        self.moderation.note_turn(ended, has_waited, packets, platform::thread_cpu);
        self.engine.note_turn(std::mem::take(&mut self.noted));
        if let Some(recorder) = &mut self.recorder {
            let (published, _) = self.engine.publishes_taken();
            recorder.note_turn(began, ended, published, self.engine.take_connacks());
        }
        if let Some((empty, reply)) = self.asked.take() {
            let recording = match &mut self.recorder {
                Some(recorder) => recorder.take(empty),
                None => empty,
            };
            reply.send(Statistics { recording, metrics: self.engine.metrics().clone() });
        }
    }

    /// The core has stopped: sends the last statistics, hands the remaining records to the store, and answers
    /// the commands that wait. The store ends once every core has dropped its handle. Called by every executor,
    /// because a runtime may never drop the core itself.
    pub fn finish(&mut self) {
        self.inbox.close();
        if let Some(recorder) = self.recorder.take() {
            recorder.finish(self.engine.metrics().clone());
        }
        #[cfg(feature = "store")]
        if let Some(store_client) = self.store_client.take()
            && let Some(records) = self.engine.drain_records()
        {
            store_client.hand_over(records);
        }
    }

    /// Like [`Self::end_turn`], waking the other cores through the control plane.
    pub fn end_turn_with_wakers(&mut self) {
        let cores = self.inbox.cores().clone();
        self.end_turn(|core| cores.wake(core));
    }

    /// Wakes another core through the control plane.
    pub fn wake_by_waker(&self, core: usize) {
        self.inbox.cores().wake(core);
    }

    /// Time until the engine's next timer, from the beginning of this turn.
    pub fn timer(&mut self) -> Option<Duration> {
        self.engine.poll_timeout().map(|deadline| deadline.time_left(self.now))
    }

    /// Whether the core may sleep now: nothing has arrived meanwhile. Followed by [`Self::wake_up`] if so.
    pub fn park(&mut self) -> bool {
        !self.inbox.has_signals() && !self.has_from_gateway() && self.mesh.park(&mut self.engine)
    }

    /// The core is awake again.
    pub fn wake_up(&mut self) {
        self.mesh.wake_up();
        self.moderation.note_sleep();
    }
}

fn tick(started: Instant) -> Tick {
    Tick(started.elapsed().as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::notifier::Notifier;
    use crate::base::waker::Waker;
    use crate::config::Settings;
    use crate::control::{Cores, replies};
    use crate::engine::{AllowAll, Config, Keys};
    use crate::resources::gauges::Place;

    fn core() -> (Core<()>, Cores, mio::Poll) {
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let (cores, mut inboxes) = Cores::new([Notifier::new(Waker::Poll(waker))].into());
        let (config, access) = (Config::from(&Settings::default()), Box::new(AllowAll));
        let engine = Engine::new(Place::alone(), config, access, Keys::fixed(1), Now(0));
        let mesh = Mesh::each(1).remove(0);
        let stop = Stop::new();
        (Core::new(engine, mesh, Instant::now(), stop, inboxes.remove(0), None), cores, poll)
    }

    #[test]
    fn a_core_does_not_sleep_on_a_signal_whose_wake_up_was_consumed_with_an_earlier_one() {
        let (mut core, cores, _poll) = core();
        assert!(!core.park(), "the first turn looks at everything");
        core.receive();
        assert!(core.park());
        core.wake_up();
        // In the middle of a turn, after signals were taken: the executor may consume the wake-up now.
        let (to, replies) = replies();
        cores.send(0, Command::Probe(to.core(0))).expect("there is room");
        assert!(!core.park());
        core.receive();
        assert_eq!(replies.try_next(), Some((0, Ok(()))));
        assert!(core.park());
    }

    #[test]
    fn a_core_without_statistics_replies_with_its_counters_at_the_end_of_the_turn() {
        let (mut core, cores, _poll) = core();
        let (to, replies) = replies();
        let statistics = Command::Statistics { empty: Box::default(), reply: to.core(0) };
        cores.send(0, statistics).expect("there is room");
        core.begin_turn();
        core.receive();
        assert!(replies.try_next().is_none());
        core.end_turn_with_wakers();
        let (_, statistics) = replies.try_next().expect("the turn has ended");
        assert_eq!(statistics.expect("it was accepted").metrics.turns, 1);
        core.finish();
        assert!(cores.send(0, Command::Probe(to_probe())).is_err(), "the core has stopped");
    }

    fn to_probe() -> Reply<()> {
        replies().0.core(0)
    }
}
