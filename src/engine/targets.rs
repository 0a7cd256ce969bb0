//! Who gets a topic: the answers of the subscription index, one record a subscriber, cached by topic.

use std::sync::Arc;

use hashbrown::HashTable;
use shards::{
    CoreMatches, FilterId, GroupId, Hashing, Matches, Replica, Subscription, SubscriptionIndex,
};

use crate::limits;
use crate::session::outbound::Identifiers;
use crate::session::state::{DeliveryClass, Session};
use crate::wire::Qos;

/// One subscriber, all its matching subscriptions taken together: one copy at the highest QoS with
/// all their identifiers [MQTT-3.3.4-2], [MQTT-3.3.4-4].
#[derive(Clone, Debug)]
pub struct Target {
    /// Index of the session.
    pub session: u32,
    /// Highest QoS granted.
    pub qos: Qos,
    /// Whether one of the subscriptions wants the RETAIN flag as published.
    pub retain_as_published: bool,
    /// What becomes of the client's own messages.
    pub own: Own,
    /// Subscription Identifiers.
    pub subscription_identifiers: Identifiers,
}

/// What becomes of messages that the subscriber itself published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// Delivered like others.
    Deliver,
    /// Kept away: all its subscriptions say No Local [MQTT-3.8.3-3].
    Omit,
    /// Some say No Local: the others decide, which takes a look of its own.
    Decide,
}

/// Everybody who gets a topic.
#[derive(Debug, Default)]
pub struct Targets {
    /// Subscribers; the first `plain` of them can share an encoding.
    pub each: Vec<Target>,
    /// How many need nothing of their own in the packet.
    pub plain: usize,
    /// Shared subscriptions that match: one member each.
    pub shared: Vec<Sharing>,
    /// Other cores with subscribers.
    pub cores: Vec<u16>,
    /// Encodings that the plain ones need.
    pub classes: Classes,
}

/// Which encodings of a QoS 0 message plain subscribers need.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classes {
    /// An MQTT 3 client is among them.
    pub v3: bool,
    /// An MQTT 5 client is among them.
    pub v5: bool,
    /// One of them wants RETAIN as published.
    pub retain_as_published: bool,
}

impl Targets {
    /// Nobody.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty() && self.shared.is_empty() && self.cores.is_empty()
    }

    fn new(matches: &mut Matches, session: impl Fn(u32) -> DeliveryClass) -> Self {
        let subscriptions = &mut matches.subscriptions;
        // A stable sort: a subscriber's identifiers stay in the order of the index.
        subscriptions.sort_by_key(|subscription| subscription.subscriber);
        let mut each: Vec<Target> = Vec::with_capacity(subscriptions.len());
        for of_one in subscriptions.chunk_by(|a, b| a.subscriber == b.subscriber) {
            each.push(Target::merge(of_one));
        }
        each.sort_by_key(|target| !target.is_plain(session(target.session)));
        let plain = each.partition_point(|target| target.is_plain(session(target.session)));
        let mut classes = Classes::default();
        for target in &each[..plain] {
            match session(target.session) {
                DeliveryClass::V3 => classes.v3 = true,
                DeliveryClass::V5 | DeliveryClass::V5Alias => classes.v5 = true,
            }
            classes.retain_as_published |= target.retain_as_published;
        }
        Self { each, plain, classes, ..Self::default() }
    }
}

/// A shared subscription as this core sees it.
#[derive(Debug)]
pub struct Sharing {
    /// Its Topic Filter, with `$share/NAME/`; left out when it has members here alone.
    pub text: Box<str>,
    /// Its members here.
    pub here: Option<FilterId>,
    /// Its members elsewhere.
    pub group: Option<GroupId>,
}

/// The shared subscriptions that match, whether they have members here, elsewhere, or both.
fn sharings(
    index: &SubscriptionIndex,
    replica: &Replica,
    here: &[FilterId],
    elsewhere: &[GroupId],
) -> Vec<Sharing> {
    let mut sharings: Vec<Sharing> = Vec::with_capacity(here.len().max(elsewhere.len()));
    for &filter in here {
        let mut sharing = Sharing { text: "".into(), here: Some(filter), group: None };
        if !elsewhere.is_empty() {
            let text = index.text(filter);
            sharing.group = replica.group(&text);
            sharing.text = text.into();
        }
        sharings.push(sharing);
    }
    let mut both: Vec<GroupId> = sharings.iter().filter_map(|sharing| sharing.group).collect();
    both.sort_unstable();
    let left = elsewhere.iter().copied().filter(|group| both.binary_search(group).is_err());
    sharings.extend(left.map(|group| Sharing {
        text: replica.text(group).into(),
        here: None,
        group: Some(group),
    }));
    sharings
}

impl Target {
    /// All subscriptions of one client that match, as one.
    pub fn merge(subscriptions: &[Subscription]) -> Self {
        let first = &subscriptions[0];
        let no_local = subscriptions.iter().filter(|s| s.options.no_local()).count();
        let highest = subscriptions.iter().map(|s| s.options.qos()).max().unwrap_or(0);
        let identifiers: Vec<u32> = match subscriptions {
            [one] if one.identifier == 0 => Vec::new(),
            several => several.iter().map(|s| s.identifier).filter(|&i| i != 0).collect(),
        };
        Self {
            session: first.subscriber.0,
            qos: Qos::try_from(highest).expect("the index keeps what was granted"),
            retain_as_published: subscriptions.iter().any(|s| s.options.retain_as_published()),
            own: match no_local {
                0 => Own::Deliver,
                all if all == subscriptions.len() => Own::Omit,
                _ => Own::Decide,
            },
            subscription_identifiers: Identifiers::new(&identifiers),
        }
    }

    fn is_plain(&self, class: DeliveryClass) -> bool {
        self.own == Own::Deliver
            && matches!(self.subscription_identifiers, Identifiers::None)
            && class != DeliveryClass::V5Alias
    }
}

/// Topic → targets, thrown away as a whole when a subscription or a client's encoding changes.
#[derive(Debug)]
pub struct TopicCache {
    table: HashTable<Entry>,
    hashing: Hashing,
    /// Epochs of the index and the replica to which the entries belong.
    epochs: (u64, u64),
    /// Targets in all entries.
    targets: usize,
    scratch: Matches,
    scratch_elsewhere: CoreMatches,
}

#[derive(Debug)]
struct Entry {
    topic: Box<str>,
    targets: Arc<Targets>,
}

impl TopicCache {
    /// An empty one.
    pub fn new(hashing: Hashing) -> Self {
        Self {
            table: HashTable::new(),
            hashing,
            epochs: (0, 0),
            targets: 0,
            scratch: Matches::default(),
            scratch_elsewhere: CoreMatches::default(),
        }
    }

    /// Forgets everything: some client is to be encoded for differently.
    pub fn clear(&mut self) {
        self.table.clear();
        self.targets = 0;
    }

    /// Who gets `topic`.
    pub fn targets(
        &mut self,
        topic: &str,
        index: &SubscriptionIndex,
        replica: &Replica,
        sessions: &slab::Slab<Session>,
    ) -> Arc<Targets> {
        let epochs = (index.epoch(), replica.epoch());
        if self.epochs != epochs {
            self.epochs = epochs;
            self.clear();
        }
        let hash = self.hashing.long(topic);
        if let Some(entry) = self.table.find(hash, |entry| &*entry.topic == topic) {
            return Arc::clone(&entry.targets);
        }
        index.matches(topic, &mut self.scratch);
        let class = |session: u32| sessions[session as usize].class;
        let mut targets = Targets::new(&mut self.scratch, class);
        let elsewhere = &mut self.scratch_elsewhere;
        replica.matches(topic, elsewhere);
        targets.cores.clone_from(&elsewhere.cores);
        targets.shared = sharings(index, replica, &self.scratch.shared, &elsewhere.groups);
        let targets = Arc::new(targets);
        if topic.len() > limits::CACHED_TOPIC_BYTES_MAX {
            return targets;
        }
        if self.table.len() >= limits::TOPIC_CACHE_ENTRIES_MAX
            || self.targets + targets.each.len() > limits::TOPIC_CACHE_TARGETS_MAX
        {
            self.clear();
        }
        self.targets += targets.each.len();
        let entry = Entry { topic: topic.into(), targets: Arc::clone(&targets) };
        let hashing = &self.hashing;
        self.table.insert_unique(hash, entry, |entry| hashing.long(&entry.topic));
        targets
    }

    /// The subscriptions of one session that match `topic` without No Local, as one.
    pub fn target_for_own(
        &mut self,
        topic: &str,
        session: u32,
        index: &SubscriptionIndex,
    ) -> Option<Target> {
        index.matches(topic, &mut self.scratch);
        let own: Vec<Subscription> = self
            .scratch
            .subscriptions
            .iter()
            .filter(|s| s.subscriber.0 == session && !s.options.no_local())
            .copied()
            .collect();
        (!own.is_empty()).then(|| Target::merge(&own))
    }
}
