//! Who gets a topic: the answers of the subscription index, one record a subscriber, cached by topic.

use std::sync::Arc;

use hashbrown::HashTable;
use shards::{
    CoreMatches, FilterId, GroupId, Hashing, Matches, Replica, Subscription, SubscriptionIndex,
};

use crate::base::ids::SessionId;
use crate::base::limits;
use crate::resources::accounted::{OWN_BYTES, heap};
use crate::resources::gauges::Ledger;
use crate::session::outbound::Identifiers;
use crate::session::state::DeliveryClass;
use crate::session::table::SessionTable;
use crate::wire::Qos;

/// One subscriber, all its matching subscriptions taken together: one copy at the highest QoS with
/// all their identifiers [MQTT-3.3.4-2], [MQTT-3.3.4-4].
#[derive(Clone, Debug)]
pub struct Recipient {
    /// Index of the session.
    pub session: SessionId,
    /// Highest QoS granted.
    pub qos: Qos,
    /// Whether one of the subscriptions wants the RETAIN flag as published.
    pub retain_as_published: bool,
    /// What becomes of the client's own messages.
    pub no_local: NoLocal,
    /// Subscription Identifiers.
    pub subscription_identifiers: Identifiers,
}

/// What becomes of messages that the subscriber itself published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLocal {
    /// No subscription sets No Local: delivered like messages of other clients.
    Unset,
    /// All subscriptions set No Local: not delivered [MQTT-3.8.3-3].
    Set,
    /// Some subscriptions set No Local: the others are matched again, without those.
    Mixed,
}

/// What an [`Arc`] takes besides what it holds.
const ARC_BYTES: usize = 16;

/// Everybody who gets a topic.
#[derive(Debug, Default)]
pub struct Recipients {
    /// Subscribers; the first `plain` of them can share an encoding.
    pub each: Vec<Recipient>,
    /// How many need nothing of their own in the packet.
    pub plain: usize,
    /// Shared subscriptions that match: one member each.
    pub shared: Vec<SharedSubscription>,
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

impl Recipients {
    /// Nobody.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty() && self.shared.is_empty() && self.cores.is_empty()
    }

    /// Bytes of memory that it takes, with itself.
    fn heap_bytes(&self) -> usize {
        let identifiers = |recipient: &Recipient| match &recipient.subscription_identifiers {
            Identifiers::Several(several) => heap(size_of_val(&**several) + ARC_BYTES),
            Identifiers::None | Identifiers::One(_) => 0,
        };
        heap(size_of::<Self>() + ARC_BYTES)
            + heap(self.each.capacity() * size_of::<Recipient>())
            + self.each.iter().map(identifiers).sum::<usize>()
            + heap(self.shared.capacity() * size_of::<SharedSubscription>())
            + self.shared.iter().map(|subscription| heap(subscription.text.len())).sum::<usize>()
            + heap(self.cores.capacity() * size_of::<u16>())
    }

    fn new(matches: &mut Matches, session: impl Fn(SessionId) -> DeliveryClass) -> Self {
        let subscriptions = &mut matches.subscriptions;
        // A stable sort: a subscriber's identifiers stay in the order of the index.
        subscriptions.sort_by_key(|subscription| subscription.subscriber);
        // As many as there are subscribers: one with many subscriptions is one.
        let subscribers = subscriptions.chunk_by(|a, b| a.subscriber == b.subscriber).count();
        let mut each: Vec<Recipient> = Vec::with_capacity(subscribers);
        for of_one in subscriptions.chunk_by(|a, b| a.subscriber == b.subscriber) {
            each.push(Recipient::merge(of_one));
        }
        each.sort_by_key(|recipient| !recipient.is_plain(session(recipient.session)));
        let plain =
            each.partition_point(|recipient| recipient.is_plain(session(recipient.session)));
        let mut classes = Classes::default();
        for recipient in &each[..plain] {
            match session(recipient.session) {
                DeliveryClass::V3 => classes.v3 = true,
                DeliveryClass::V5 | DeliveryClass::V5Alias => classes.v5 = true,
            }
            classes.retain_as_published |= recipient.retain_as_published;
        }
        Self { each, plain, classes, ..Self::default() }
    }
}

/// A shared subscription as this core sees it.
#[derive(Debug)]
pub struct SharedSubscription {
    /// Its Topic Filter, with `$share/NAME/`; left out when it has members here alone.
    pub text: Box<str>,
    /// Its members here.
    pub here: Option<FilterId>,
    /// Its members elsewhere.
    pub group: Option<GroupId>,
}

/// The shared subscriptions that match, whether they have members here, elsewhere, or both.
fn shared_subscriptions(
    index: &SubscriptionIndex,
    replica: &Replica,
    here: &[FilterId],
    elsewhere: &[GroupId],
) -> Vec<SharedSubscription> {
    let mut subscriptions: Vec<SharedSubscription> =
        Vec::with_capacity(here.len().max(elsewhere.len()));
    for &filter in here {
        let mut subscription =
            SharedSubscription { text: "".into(), here: Some(filter), group: None };
        if !elsewhere.is_empty() {
            let text = index.text(filter);
            subscription.group = replica.group(&text);
            subscription.text = text.into();
        }
        subscriptions.push(subscription);
    }
    let mut both: Vec<GroupId> =
        subscriptions.iter().filter_map(|subscription| subscription.group).collect();
    both.sort_unstable();
    let left = elsewhere.iter().copied().filter(|group| both.binary_search(group).is_err());
    subscriptions.extend(left.map(|group| SharedSubscription {
        text: replica.text(group).into(),
        here: None,
        group: Some(group),
    }));
    subscriptions
}

impl Recipient {
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
            session: first.subscriber.into(),
            qos: Qos::try_from(highest).expect("the index keeps what was granted"),
            retain_as_published: subscriptions.iter().any(|s| s.options.retain_as_published()),
            no_local: match no_local {
                0 => NoLocal::Unset,
                all if all == subscriptions.len() => NoLocal::Set,
                _ => NoLocal::Mixed,
            },
            subscription_identifiers: Identifiers::new(&identifiers),
        }
    }

    fn is_plain(&self, class: DeliveryClass) -> bool {
        self.no_local == NoLocal::Unset
            && matches!(self.subscription_identifiers, Identifiers::None)
            && class != DeliveryClass::V5Alias
    }
}

/// What an answer takes besides the walks of the indexes, in their steps.
const ANSWER_STEPS: usize = 32;

/// Topic → recipients, thrown away as a whole when a subscription or a client's encoding changes.
#[derive(Debug)]
pub struct TopicCache {
    table: HashTable<Entry>,
    hashing: Hashing,
    /// Epochs of the index and the replica to which the entries belong.
    epochs: (u64, u64),
    /// What the entries weigh together, and may.
    entry_bytes: usize,
    bytes_max: usize,
    /// Memory is short: nothing is kept.
    is_off: bool,
    /// What of all this is on the ledger.
    charged: usize,
    ledger: Ledger,
    scratch: Matches,
    scratch_elsewhere: CoreMatches,
    /// What the answers cost that were asked for lately.
    steps: usize,
}

#[derive(Debug)]
struct Entry {
    topic: Box<str>,
    recipients: Arc<Recipients>,
}

impl TopicCache {
    /// An empty one, which may take so many bytes.
    pub fn new(hashing: Hashing, bytes_max: usize, ledger: Ledger) -> Self {
        Self {
            table: HashTable::new(),
            hashing,
            epochs: (0, 0),
            entry_bytes: 0,
            bytes_max,
            is_off: false,
            charged: 0,
            ledger,
            scratch: Matches::default(),
            scratch_elsewhere: CoreMatches::default(),
            steps: 0,
        }
    }

    /// Forgets everything: some client is to be encoded for differently.
    pub fn clear(&mut self) {
        self.table.clear();
        self.entry_bytes = 0;
        self.settle();
    }

    /// Gives all memory back, and takes none from here on, if `is_off`.
    pub fn give_way(&mut self, is_off: bool) {
        if is_off && self.charged > 0 {
            (self.table, self.entry_bytes) = (HashTable::new(), 0);
            (self.scratch, self.scratch_elsewhere) = Default::default();
            self.settle();
        }
        self.is_off = is_off;
    }

    /// Bytes of it that are on the ledger.
    pub fn charged(&self) -> usize {
        self.charged
    }

    fn settle(&mut self) {
        let scratch = self.scratch.heap_bytes() + self.scratch_elsewhere.heap_bytes();
        let bytes = self.entry_bytes + self.table.allocation_size() + scratch;
        let bytes = bytes.saturating_sub(OWN_BYTES);
        self.ledger.charge(bytes.saturating_sub(self.charged));
        self.ledger.release(self.charged.saturating_sub(bytes));
        self.charged = bytes;
    }

    /// What the answers cost since this was asked last; those that were cached, nothing.
    pub fn take_steps(&mut self) -> usize {
        std::mem::take(&mut self.steps)
    }

    /// Who gets `topic`.
    pub fn recipients(
        &mut self,
        topic: &str,
        index: &SubscriptionIndex,
        replica: &Replica,
        sessions: &SessionTable,
    ) -> Arc<Recipients> {
        let epochs = (index.epoch(), replica.epoch());
        if self.epochs != epochs {
            self.epochs = epochs;
            self.clear();
        }
        let hash = self.hashing.long(topic);
        if let Some(entry) = self.table.find(hash, |entry| &*entry.topic == topic) {
            return Arc::clone(&entry.recipients);
        }
        let recipients = Arc::new(self.find(topic, index, replica, sessions));
        self.keep(hash, topic, &recipients);
        self.settle();
        recipients
    }

    fn find(
        &mut self,
        topic: &str,
        index: &SubscriptionIndex,
        replica: &Replica,
        sessions: &SessionTable,
    ) -> Recipients {
        index.matches(topic, &mut self.scratch);
        self.steps += self.scratch.steps();
        let class = |session: SessionId| sessions[session].class;
        let mut recipients = Recipients::new(&mut self.scratch, class);
        let elsewhere = &mut self.scratch_elsewhere;
        replica.matches(topic, elsewhere);
        // To make the answer, and to keep it.
        self.steps += elsewhere.steps() + ANSWER_STEPS;
        recipients.cores.clone_from(&elsewhere.cores);
        recipients.shared =
            shared_subscriptions(index, replica, &self.scratch.shared, &elsewhere.groups);
        recipients
    }

    /// Keeps an answer for the next time, where there is room.
    fn keep(&mut self, hash: u64, topic: &str, recipients: &Arc<Recipients>) {
        let bytes = recipients.heap_bytes() + heap(topic.len());
        if self.is_off || topic.len() > limits::CACHED_TOPIC_BYTES_MAX || bytes > self.bytes_max {
            return;
        }
        if self.table.len() >= limits::TOPIC_CACHE_ENTRIES_MAX
            || self.entry_bytes + bytes + self.table.allocation_size() > self.bytes_max
        {
            self.steps += ANSWER_STEPS / 8 * self.table.len();
            self.clear();
        }
        self.entry_bytes += bytes;
        let entry = Entry { topic: topic.into(), recipients: Arc::clone(recipients) };
        let hashing = &self.hashing;
        self.table.insert_unique(hash, entry, |entry| hashing.long(&entry.topic));
    }

    /// The subscriptions of one session that match `topic` without No Local, as one.
    pub fn recipient_of_own(
        &mut self,
        topic: &str,
        session: SessionId,
        index: &SubscriptionIndex,
    ) -> Option<Recipient> {
        index.matches(topic, &mut self.scratch);
        let own: Vec<Subscription> = self
            .scratch
            .subscriptions
            .iter()
            .filter(|s| SessionId::from(s.subscriber) == session && !s.options.no_local())
            .copied()
            .collect();
        (!own.is_empty()).then(|| Recipient::merge(&own))
    }
}
