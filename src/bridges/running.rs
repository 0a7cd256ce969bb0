//! The bridges that there are. A start begins their threads; a reload begins further ones, and changes and ends some.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;

use flume::{Receiver, Sender};

use super::board::Board;
use super::change::{Change, kept};
use super::worker::Worker;
use super::{identity, session};
use crate::base::host_name::host_name;
use crate::config::Settings;
use crate::config::bridge::{Bridge, Echo, Profile};
use crate::control::Cores;
use crate::control::bridge::{BridgeStatus, KeptBridge};
use crate::control::stop::Stop;
use crate::transport::bridge::mapping::{InMap, OutMap};
use crate::transport::bridge::{Terms, notification};

/// Stack of the thread of a bridge: it resolves names, and does little else.
const STACK_BYTES: usize = 256 * 1024;

/// What all bridges have in common.
#[derive(Debug)]
pub(super) struct Place {
    folder: Option<PathBuf>,
    /// The identifier of this broker, made when the first bridge starts.
    broker: OnceLock<String>,
    cores: Cores,
    stop: Stop,
    /// Dropping it ends the threads.
    running: Option<Sender<()>>,
    /// Disconnected then.
    stopped: Receiver<()>,
}

impl Place {
    /// `folder` is that of the store, if there is one.
    pub fn new(folder: Option<PathBuf>, cores: Cores, stop: Stop) -> Self {
        let (running, stopped) = flume::bounded(0);
        Self { folder, broker: OnceLock::new(), cores, stop, running: Some(running), stopped }
    }

    fn terms(&self, bridge: &Bridge, settings: &Settings) -> Terms {
        let broker = self.broker.get_or_init(|| identity::of_broker(self.folder.as_deref()));
        let client_identifier = bridge.client_identifier(&host_name());
        let notifies = bridge.profile == Profile::Mosquitto;
        Terms {
            notification: notifies.then(|| notification::topic(&client_identifier).into()),
            accepts: bridge.accepts(),
            session: session(&bridge.name).into(),
            user: (!bridge.user.is_empty()).then(|| bridge.user.as_str().into()),
            client_identifier: client_identifier.into(),
            keep_alive_s: bridge.keep_alive_s,
            session_expiry_s: bridge.session_expiry_s,
            retained: bridge.retained,
            hops_max: usize::from(bridge.hops_max),
            broker: broker.as_str().into(),
            packet_bytes_max: settings.limits.packet_bytes_max,
            sent_bytes_max: (bridge.packet_bytes_max > 0).then_some(bridge.packet_bytes_max),
            receive_maximum: match bridge.receive_maximum {
                0 => settings.limits.receive_maximum,
                own => own,
            },
            out: OutMap::new(&bridge.outgoing),
            r#in: InMap::new(&bridge.incoming),
            echoes: (bridge.echo == Echo::Auto && bridge.has_overlap()).then(Arc::default),
        }
    }
}

/// A bridge with a thread.
#[derive(Debug)]
struct Entry {
    /// The table that the thread has, or has been sent, with what its profile sets.
    bridge: Bridge,
    board: Arc<Board>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

/// The bridges of a broker.
#[derive(Debug, Default)]
pub(super) struct Running {
    place: Option<Place>,
    /// In the order of the configuration.
    entries: Vec<Entry>,
    /// See [`super::Bridges::is_behind`].
    pub is_behind: bool,
    /// Bridges that are ending.
    ending: Vec<(Bridge, Receiver<()>)>,
}

impl Running {
    /// Before the first bridge starts: says which sessions there are of bridges that are not configured any more.
    pub fn begin(&mut self, place: Place, settings: &Settings) -> Result<(), String> {
        let names: Vec<String> = settings.bridges.iter().map(|of| of.name.clone()).collect();
        let cores = place.cores.clone();
        self.place = Some(place);
        // A single core may run on this thread later, and answers only then.
        let thread = thread::Builder::new().name("bridges".to_owned()).stack_size(STACK_BYTES);
        let report = move || report_kept(&cores, &names);
        thread.spawn(report).map(drop).map_err(|error| error.to_string())
    }

    /// See [`super::Bridges::apply`].
    pub fn apply(&mut self, settings: &Settings, drops_queues: bool) -> Result<(), String> {
        let Some(place) = &self.place else {
            return Err("the cores do not run yet; reload again".to_owned());
        };
        let mut wrong = Vec::new();
        self.ending.retain(|(_, ended)| !ended.is_disconnected());
        let is_wanted =
            |entry: &Entry| settings.bridges.iter().any(|of| of.name == entry.bridge.name);
        for entry in std::mem::take(&mut self.entries) {
            if is_wanted(&entry) {
                self.entries.push(entry);
            } else {
                let change = Change::End { drops_queue: drops_queues };
                if let Err(what) = entry.send(change) {
                    wrong.push(what);
                    self.entries.push(entry);
                } else {
                    self.ending.push((entry.bridge, entry.ended));
                }
            }
        }
        let mut left = std::mem::take(&mut self.entries);
        for bridge in settings.bridges.iter().map(Bridge::with_profile) {
            let terms = || place.terms(&bridge, settings);
            let at = left.iter().position(|entry| entry.bridge.name == bridge.name);
            let outcome = match at.map(|at| left.remove(at)) {
                None => start(place, &bridge, terms(), &self.ending),
                Some(entry) if entry.bridge == bridge => Ok(entry),
                Some(mut entry) => {
                    let change = Change::To(Box::new(bridge.clone()), Box::new(terms()));
                    match entry.send(change) {
                        Ok(()) => entry.bridge = bridge,
                        Err(what) => wrong.push(what),
                    }
                    Ok(entry)
                }
            };
            match outcome {
                Ok(entry) => self.entries.push(entry),
                Err(what) => wrong.push(what),
            }
        }
        self.entries.append(&mut left);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// See [`super::Bridges::end`].
    pub fn end(&mut self) {
        if let Some(place) = &mut self.place {
            place.running = None;
        }
    }

    /// See [`super::Bridges::status`].
    pub fn status(&self) -> Vec<BridgeStatus> {
        self.entries.iter().map(|entry| entry.board.status()).collect()
    }

    /// What is known of a bridge; none if there is no bridge of this name.
    pub fn board(&self, name: &str) -> Option<&Arc<Board>> {
        self.entries.iter().map(|entry| &entry.board).find(|board| board.name() == name)
    }
}

impl Entry {
    fn send(&self, change: Change) -> Result<(), String> {
        let sent = self.board.orders.change(change);
        let name = &self.bridge.name;
        sent.then_some(()).ok_or_else(|| {
            format!("[[bridges]] name = \"{name}\": the bridge is still busy with earlier changes; reload again")
        })
    }
}

/// Starts the thread of a bridge, which waits for bridges that are ending and would be in its way.
fn start(
    place: &Place,
    bridge: &Bridge,
    terms: Terms,
    ending: &[(Bridge, Receiver<()>)],
) -> Result<Entry, String> {
    let host = host_name();
    let is_in_the_way = |of: &Bridge| {
        of.name == bridge.name || of.client_identifier(&host) == bridge.client_identifier(&host)
    };
    let former = ending.iter().filter(|(of, _)| is_in_the_way(of));
    let board = Arc::new(Board::new(bridge));
    let (running, ended) = flume::bounded(0);
    let worker = Worker {
        terms: Arc::new(terms),
        bridge: bridge.clone(),
        cores: place.cores.clone(),
        board: Arc::clone(&board),
        stop: place.stop.clone(),
        stopped: place.stopped.clone(),
        former: former.map(|(_, ended)| ended.clone()).collect(),
        _running: running,
    };
    let thread =
        thread::Builder::new().name(format!("bridge {}", bridge.name)).stack_size(STACK_BYTES);
    thread.spawn(move || worker.run()).map_err(|error| {
        format!("[[bridges]] name = \"{}\": cannot start its thread: {error}", bridge.name)
    })?;
    Ok(Entry { bridge: bridge.clone(), board, ended })
}

/// Says which sessions there are of bridges that are not configured.
fn report_kept(cores: &Cores, configured: &[String]) {
    for KeptBridge { name, messages, far_subscriptions } in kept(cores) {
        if !configured.iter().any(|of| **of == *name) {
            let session = session(&name);
            tracing::warn!(
                bridge = &*name,
                session,
                messages,
                filters = ?far_subscriptions,
                "this bridge is not configured any more; its session is kept with its queue, and the far broker may \
                 still have these subscriptions: end the session with broker ctl session delete, or configure the \
                 bridge again and end it by a reload"
            );
        }
    }
}
