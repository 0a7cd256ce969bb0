//! The bridges that there are. A start begins their threads; a reload begins further ones, and changes and ends some.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use flume::{Receiver, Sender};

use super::entry::{Entry, Waits};
use super::whole::Whole;
use super::{identity, session};
use crate::base::host_name::host_name;
use crate::base::part::Part;
use crate::config::bridge::{Bridge, Echo, Profile};
use crate::config::{Limits, Settings};
use crate::control::Cores;
use crate::control::bridge::{BridgeStatus, KeptBridge};
use crate::control::stop::Stop;
use crate::transport::bridge::mapping::{InMap, OutMap};
use crate::transport::bridge::{Echoes, Terms, notification};

/// Stack of the thread of a bridge: it resolves names, and does little else.
pub(super) const STACK_BYTES: usize = 256 * 1024;

/// What all bridges have in common.
#[derive(Debug)]
pub(super) struct Place {
    folder: Option<PathBuf>,
    /// The identifier of this broker, made when the first bridge starts.
    broker: OnceLock<String>,
    pub cores: Cores,
    pub stop: Stop,
    /// Dropping it ends the threads.
    running: Option<Sender<()>>,
    /// Disconnected then.
    pub stopped: Receiver<()>,
}

impl Place {
    /// `folder` is that of the store, if there is one.
    pub fn new(folder: Option<PathBuf>, cores: Cores, stop: Stop) -> Self {
        let (running, stopped) = flume::bounded(0);
        Self { folder, broker: OnceLock::new(), cores, stop, running: Some(running), stopped }
    }

    /// The terms of connections of a bridge, by their tables.
    fn terms_of<'p>(
        &'p self,
        bridge: &Bridge,
        limits: &'p Limits,
    ) -> impl Fn(&Bridge) -> Terms + use<'p> {
        // What one connection has sent comes back by another one.
        let has_echoes = bridge.echo == Echo::Auto && bridge.has_overlap();
        let echoes: Option<Arc<Echoes>> = has_echoes.then(Arc::default);
        let group = bridge.has_plain_subscriptions().then(|| Box::from(bridge.name.as_str()));
        move |table| Terms {
            echoes: echoes.clone(),
            group: group.clone(),
            ..self.terms(table, limits)
        }
    }

    /// Without what connections of a bridge have in common.
    fn terms(&self, bridge: &Bridge, limits: &Limits) -> Terms {
        let broker = self.broker.get_or_init(|| identity::of_broker(self.folder.as_deref()));
        let client_identifier = bridge.client_identifier(&host_name());
        let notifies = bridge.profile == Profile::Mosquitto;
        Terms {
            notification: notifies.then(|| match bridge.notification_topic.as_str() {
                "" => notification::topic(&client_identifier).into(),
                own => own.into(),
            }),
            accepts: bridge.accepts(),
            session: session(&bridge.name).into(),
            user: some(&bridge.user),
            known_as: some(&bridge.local_client_identifier),
            topic_alias_maximum: bridge.topic_alias_maximum,
            unsubscribes_out: bridge.unsubscribe_out,
            client_identifier: client_identifier.into(),
            keep_alive_s: bridge.keep_alive_s,
            session_expiry_s: bridge.session_expiry_s,
            retained: bridge.retained,
            hops_max: usize::from(bridge.hops_max),
            broker: broker.as_str().into(),
            packet_bytes_max: limits.packet_bytes_max,
            sent_bytes_max: (bridge.packet_bytes_max > 0).then_some(bridge.packet_bytes_max),
            receive_maximum: match bridge.receive_maximum {
                0 => limits.receive_maximum,
                own => own,
            },
            out: OutMap::new(&bridge.outgoing),
            r#in: InMap::shared(&bridge.share, &bridge.incoming),
            echoes: None,
            group: None,
        }
    }
}

/// By bridge, what opens when it is known which sessions the store has.
pub(super) type Doors = BTreeMap<String, Sender<()>>;

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
    /// Of the start: bridges connect once their doors are open.
    doors: BTreeMap<String, Receiver<()>>,
    /// The bounds of the last settings.
    limits: Limits,
}

impl Running {
    /// Before the first bridge of these names starts.
    pub fn begin<'a>(&mut self, place: Place, names: impl Iterator<Item = &'a str>) -> Doors {
        self.place = Some(place);
        let mut doors = Doors::new();
        for name in names {
            let (door, is_open) = flume::bounded(0);
            doors.insert(name.to_owned(), door);
            self.doors.insert(name.to_owned(), is_open);
        }
        doors
    }

    /// The cores have these sessions of bridges: those that no connection has send their queues and end, and those of
    /// bridges that are not configured are reported.
    pub fn take_up(&mut self, kept: Vec<KeptBridge>, mut doors: Doors) {
        let Some(place) = &self.place else { return };
        for of in kept {
            let (name, part) = match of.name.split_once('/') {
                None => (&*of.name, None),
                Some((name, part)) => match Part::parse(part) {
                    Some(part) => (name, Some(part)),
                    None => continue,
                },
            };
            let Some(entry) = self.entries.iter_mut().find(|entry| entry.bridge.name == name)
            else {
                report(&of);
                continue;
            };
            if entry.has(part) {
                continue;
            }
            let terms = place.terms_of(&entry.bridge, &self.limits);
            let (bridge, messages) = (&*of.name, of.messages);
            match entry.take_up(place, part, doors.get(name).cloned(), terms) {
                Ok(()) => tracing::info!(
                    bridge,
                    messages,
                    "the bridge had another number of connections: the queue of this one is sent first"
                ),
                Err(why) => {
                    tracing::error!(bridge, messages, why, "the queue is kept, and not sent")
                }
            }
        }
        doors.clear();
    }

    /// See [`super::Bridges::apply`].
    pub fn apply(&mut self, settings: &Settings, drops_queues: bool) -> Result<(), String> {
        let Some(place) = &self.place else {
            return Err("the cores do not run yet; reload again".to_owned());
        };
        self.limits = settings.limits.clone();
        let mut wrong = Vec::new();
        self.ending.retain(|(_, ended)| !ended.is_disconnected());
        let is_wanted =
            |entry: &Entry| settings.bridges.iter().any(|of| of.name == entry.bridge.name);
        for entry in std::mem::take(&mut self.entries) {
            if is_wanted(&entry) {
                self.entries.push(entry);
            } else if let Err(what) = entry.end(drops_queues) {
                wrong.push(what);
                self.entries.push(entry);
            } else {
                let ended = entry.ended().map(|ended| (entry.bridge.clone(), ended));
                self.ending.extend(ended);
            }
        }
        let mut left = std::mem::take(&mut self.entries);
        for bridge in settings.bridges.iter().map(Bridge::with_profile) {
            let at = left.iter().position(|entry| entry.bridge.name == bridge.name);
            let outcome = match at.map(|at| left.remove(at)) {
                None => {
                    let waits = self.waits(&bridge);
                    let terms = place.terms_of(&bridge, &settings.limits);
                    Entry::start(place, bridge, terms, &waits)
                }
                Some(entry) if entry.bridge == bridge => Ok(entry),
                Some(mut entry) => {
                    let terms = place.terms_of(&bridge, &settings.limits);
                    wrong.extend(entry.change(place, bridge, terms, drops_queues).err());
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

    /// What a new bridge waits for: bridges that are ending and would be in its way, and at the start what the store has.
    fn waits(&self, bridge: &Bridge) -> Waits {
        let host = host_name();
        let identifiers = bridge.client_identifiers(&host);
        let is_in_the_way = |of: &Bridge| {
            of.name == bridge.name
                || of.client_identifiers(&host).iter().any(|of| identifiers.contains(of))
        };
        let former = self.ending.iter().filter(|(of, _)| is_in_the_way(of));
        Waits {
            first: former.map(|(_, ended)| ended.clone()).collect(),
            before: self.doors.get(&bridge.name).cloned().into_iter().collect(),
            is_stopped: false,
        }
    }

    /// See [`super::Bridges::end`].
    pub fn end(&mut self) {
        if let Some(place) = &mut self.place {
            place.running = None;
        }
    }

    /// See [`super::Bridges::status`].
    pub fn status(&self) -> Vec<BridgeStatus> {
        self.entries.iter().map(|entry| entry.whole.status()).collect()
    }

    /// What is known of a bridge; none if there is no bridge of this name.
    pub fn whole(&self, name: &str) -> Option<&Arc<Whole>> {
        self.entries.iter().find(|entry| entry.bridge.name == name).map(|entry| &entry.whole)
    }
}

/// A text that may be empty for none.
fn some(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// Says that there is a session of a bridge that is not configured.
fn report(KeptBridge { name, messages, far_subscriptions }: &KeptBridge) {
    let session = session(name);
    tracing::warn!(
        bridge = &**name,
        session,
        messages,
        filters = ?far_subscriptions,
        "this bridge is not configured any more; its session is kept with its queue, and the far broker may \
         still have these subscriptions: end the session with broker ctl session delete, or configure the \
         bridge again and end it by a reload"
    );
}
