//! The replica of this node's log: a stream of the engine. At the start, log and stream get what only the other one has; from
//! then on a task on the thread of the gateway ships what the writer thread of the store writes.

mod plan;
mod shipping;
mod start;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::identity::{random, store_number};
use super::nats::{COPIES, CarrierOptions, LogServer};
use super::ship::End;
use crate::config::Degrade;
use crate::control::cluster::{ClusterBoard, ReplicationState, ReplicationStatus};
use crate::control::stop::Stop;
use crate::storage::log::Store;
use crate::storage::log::replica::{
    Replica, ReplicaFrame, ReplicaProgress, ReplicaState, Replication,
};
use shipping::Shipping;
use start::StartError;

/// Time without progress after which the disk alone counts, where that is configured: a stream that elects a leader stalls
/// for up to seven seconds, but those who configure it prefer not to wait.
const DEGRADE_AFTER: Duration = Duration::from_secs(5);

/// Time without progress after which the store counts as failing.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// Bytes of pages that may wait while the disk alone counts; with more, acknowledgements wait again.
const DEGRADED_BYTES_MAX: usize = 64 << 20;

/// Interval at which a stream is looked at though nothing is shipped: a node without messages finds a seal too.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Interval at which the state is shown.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// Pause between attempts to start, and interval between log lines that say why they fail.
const RETRY: Duration = Duration::from_secs(1);
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Why the broker had to end, once it had to.
pub type Ended = Arc<OnceLock<String>>;

enum Told {
    Frame(ReplicaFrame),
    ForgetBefore(u64),
}

/// The way from the writer thread to the task. What waits in it is bounded as what the journals of the cores may have under
/// way.
struct Sender(mpsc::UnboundedSender<Told>);

impl Replica for Sender {
    fn ship(&self, frame: ReplicaFrame) {
        let _ = self.0.send(Told::Frame(frame));
    }

    fn forget_before(&self, frame: u64) {
        let _ = self.0.send(Told::ForgetBefore(frame));
    }
}

/// The task, before it runs.
pub struct Task {
    shipping: Shipping,
    told: mpsc::UnboundedReceiver<Told>,
    progress: Arc<ReplicaProgress>,
    degrade: Degrade,
    board: ClusterBoard,
    stop: Stop,
    ended: Ended,
    state: ReplicaState,
    degraded: Duration,
    degraded_since: Option<Instant>,
}

/// Brings the log and its stream together, waiting for the engine, and replicates the store from its next start on. None if
/// the broker was asked to stop meanwhile.
///
/// # Errors
///
/// Log and stream do not belong together, or are damaged; the text says what to do.
pub async fn start(
    options: &CarrierOptions,
    store: &mut Store,
    folder: &Path,
    degrade: Degrade,
    (board, stop, ended): (ClusterBoard, Stop, Ended),
) -> Result<Option<Task>, String> {
    let io = |error: std::io::Error| error.to_string();
    let ids = (store_number(Some(folder)).map_err(io)?, random().map_err(io)?);
    let mut server = LogServer::connect(options).await?;
    let mut logged: Option<Instant> = None;
    let shipping = loop {
        let joined = tokio::select! {
            joined = start::join(server, store, ids) => joined,
            () = asked_to_stop(&stop) => return Ok(None),
        };
        let why = match joined {
            Ok(shipping) => break shipping,
            Err((_, StartError::Final(why))) => return Err(why),
            Err((again, StartError::Engine(why))) => {
                server = again;
                why
            }
        };
        if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            logged = Some(Instant::now());
            tracing::warn!(
                why,
                "cluster: waiting for the stream of this node's log; no client is served before"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = asked_to_stop(&stop) => return Ok(None),
        }
    };
    let copies = shipping.stream().copies;
    if copies < COPIES {
        tracing::warn!(
            stream = shipping.stream().name,
            copies,
            "cluster: the engine has fewer than three servers, so the loss of one can be the loss of the stream; name all \
             of them in cluster.engine or cluster.routes, and start this node again"
        );
    }
    let (sender, told) = mpsc::unbounded_channel();
    let progress = Arc::new(ReplicaProgress::default());
    progress.set_up_to(store.last_frame());
    let replica = Arc::new(Sender(sender));
    store.replicate(Replication { replica, progress: Arc::clone(&progress) });
    tracing::info!(
        stream = shipping.stream().name,
        frame = store.last_frame(),
        "cluster: the log of this node is replicated"
    );
    let (state, degraded, degraded_since) = (ReplicaState::Following, Duration::ZERO, None);
    let task = Task {
        shipping,
        told,
        progress,
        degrade,
        board,
        stop,
        ended,
        state,
        degraded,
        degraded_since,
    };
    task.show();
    Ok(Some(task))
}

async fn asked_to_stop(stop: &Stop) {
    while !stop.is_requested() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Task {
    /// Ships until the store has closed, or until it must not any more.
    pub async fn run(mut self) {
        let mut shows = interval(SHOW_EVERY);
        shows.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checked = Instant::now();
        loop {
            tokio::select! {
                told = self.told.recv() => match told {
                    Some(told) => self.take(told),
                    None => return,
                },
                () = self.shipping.wait() => {}
                _ = shows.tick() => self.show(),
            }
            while let Ok(told) = self.told.try_recv() {
                self.take(told);
            }
            if checked.elapsed() >= CHECK_EVERY {
                checked = Instant::now();
                self.shipping.shipper.check();
            }
            self.shipping.turn().await;
            if let Some(end) = self.shipping.shipper.end_reason() {
                return self.end(end);
            }
            self.progress.set_up_to(self.shipping.shipper.released());
            self.judge();
        }
    }

    fn take(&mut self, told: Told) {
        let now = self.shipping.now();
        match told {
            Told::Frame(ReplicaFrame { number, begins_segment, bytes }) => {
                self.shipping.shipper.push(now, number, &bytes, begins_segment);
            }
            Told::ForgetBefore(frame) => self.shipping.shipper.forget_before(frame),
        }
    }

    /// The process ends; nothing is acknowledged any more.
    fn end(mut self, end: End) {
        tracing::error!(
            stream = self.shipping.stream().name,
            why = %end,
            "cluster: this node must not acknowledge any more; all clients are disconnected, and the broker ends"
        );
        self.progress.set_state(ReplicaState::Stalled);
        self.state = ReplicaState::Stalled;
        self.show();
        let _ = self.ended.set(end.to_string());
        self.stop.request();
    }

    /// Decides whether the stream has stalled, and publishes that.
    fn judge(&mut self) {
        let shipper = &self.shipping.shipper;
        let stalled = shipper.stalled_for(self.shipping.now());
        let may_degrade =
            self.degrade == Degrade::Disk && shipper.bytes_waiting() <= DEGRADED_BYTES_MAX;
        let is_degraded = self.state == ReplicaState::DiskAlone && shipper.frames_waiting() > 0;
        let state = if may_degrade && (is_degraded || stalled >= DEGRADE_AFTER) {
            ReplicaState::DiskAlone
        } else if stalled >= STALLED_AFTER {
            ReplicaState::Stalled
        } else {
            ReplicaState::Following
        };
        if state == self.state {
            return;
        }
        let stream = &self.shipping.stream().name;
        match state {
            ReplicaState::Following => {
                tracing::info!(
                    stream,
                    "cluster: the stream of this node's log confirms pages again"
                );
            }
            ReplicaState::Stalled => tracing::error!(
                stream,
                "cluster: the stream of this node's log confirms nothing; messages for stored sessions are not \
                 acknowledged until it does. Look whether the engine has a quorum, and room for the stream"
            ),
            ReplicaState::DiskAlone => tracing::error!(
                stream,
                "cluster: the stream of this node's log confirms nothing; what is acknowledged from here on is on this node's \
                 disk alone"
            ),
        }
        let now = Instant::now();
        match (state == ReplicaState::DiskAlone, self.degraded_since.take()) {
            (true, _) => self.degraded_since = Some(now),
            (false, Some(since)) => self.degraded += now - since,
            (false, None) => {}
        }
        self.state = state;
        self.progress.set_state(state);
        self.show();
    }

    fn show(&self) {
        let shipper = &self.shipping.shipper;
        let counters = shipper.counters();
        let degraded = self.degraded_since.map_or(Duration::ZERO, |since| since.elapsed());
        let state = match self.state {
            _ if shipper.end_reason().is_some() => ReplicationState::Ended,
            ReplicaState::Following => ReplicationState::Following,
            ReplicaState::Stalled => ReplicationState::Stalled,
            ReplicaState::DiskAlone => ReplicationState::Degraded,
        };
        self.board.set_replication(ReplicationStatus {
            stream: self.shipping.stream().name.clone(),
            state,
            pages: counters.pages,
            bytes: counters.bytes,
            under_way: shipper.under_way() as u64,
            lag_frames: shipper.frames_waiting(),
            lag_bytes: shipper.bytes_waiting() as u64,
            failures: counters.failures,
            degraded_ms: (self.degraded + degraded).as_millis() as u64,
        });
    }
}
