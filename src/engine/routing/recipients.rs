//! The recipients of a topic: the matches of the subscription index, merged by session and cached by topic.

use std::sync::Arc;

use hashbrown::{HashTable, hash_table};
use shards::{
    CoreMatches, FilterId, GroupId, Hashing, Matches, Replica, Subscription, SubscriptionIndex,
};

use crate::base::ids::SessionId;
use crate::base::limits;
use crate::engine::access::{ReadRules, Reader};
use crate::engine::routing::elsewhere::Elsewhere;
use crate::resources::accounted::{OWN_BYTES, heap};
use crate::resources::gauges::Ledger;
use crate::session::outbound::Identifiers;
use crate::session::state::DeliveryClass;
use crate::session::table::SessionTable;
use crate::wire::Qos;

/// A session with all its matching subscriptions merged: it receives one copy, at the highest QoS and with
/// all Subscription Identifiers [MQTT-3.3.4-2], [MQTT-3.3.4-4].
#[derive(Clone, Debug)]
pub struct Recipient {
    /// The session.
    pub session: SessionId,
    /// Highest QoS granted.
    pub qos: Qos,
    /// Whether one of the subscriptions sets Retain As Published.
    pub retain_as_published: bool,
    /// Whether the session receives its own messages.
    pub no_local: NoLocal,
    /// Subscription Identifiers.
    pub subscription_identifiers: Identifiers,
}

/// The No Local options of a session's matching subscriptions, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLocal {
    /// No subscription sets No Local: delivered like messages of other clients.
    Unset,
    /// All subscriptions set No Local: not delivered [MQTT-3.8.3-3].
    Set,
    /// Some subscriptions set No Local: the others are matched again, without those.
    Mixed,
}

/// Memory of the counts in an [`Arc`].
const ARC_BYTES: usize = 16;

/// The recipients of a topic.
#[derive(Debug, Default)]
pub struct Recipients {
    /// Sessions of this core; the first `plain` of them can share an encoding.
    pub each: Vec<Recipient>,
    /// Number of sessions that need no properties of their own in the packet.
    pub plain: usize,
    /// Shared subscriptions that match: one member of each receives the message.
    pub shared: Vec<SharedSubscription>,
    /// Other cores with subscribers, and after them other nodes with subscribers to filters with wildcards, see `elsewhere`.
    pub cores: Vec<u16>,
    /// Encodings that the plain sessions need.
    pub classes: Classes,
}

/// The encodings of a QoS 0 message that plain sessions need.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classes {
    /// Of MQTT 3.1 and 3.1.1.
    pub v3: bool,
    /// Of MQTT 5.
    pub v5: bool,
    /// With the RETAIN flag as published.
    pub retain_as_published: bool,
}

impl Recipients {
    /// Whether there is no recipient.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty() && self.shared.is_empty() && self.cores.is_empty()
    }

    /// Bytes of memory in all.
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
        // One recipient for each session, however many of its subscriptions match.
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
                DeliveryClass::V5 | DeliveryClass::V5Alias | DeliveryClass::Mounted => {
                    classes.v5 = true;
                }
            }
            classes.retain_as_published |= recipient.retain_as_published;
        }
        Self { each, plain, classes, ..Self::default() }
    }
}

/// A shared subscription from this core's point of view.
#[derive(Debug)]
pub struct SharedSubscription {
    /// The Topic Filter with `$share/NAME/`; empty if all members are on this core.
    pub text: Box<str>,
    /// The members on this core.
    pub here: Option<FilterId>,
    /// The members on other cores.
    pub group: Option<GroupId>,
}

/// The shared subscriptions that match, with members on this core, on other cores, or on both.
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
    /// Merges the matching subscriptions of one session.
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
            && matches!(class, DeliveryClass::V3 | DeliveryClass::V5)
    }
}

/// Number of visited nodes of the subscription index per step of the turn's budget.
pub(super) const INDEX_STEPS_PER_STEP: usize = 8;

/// Steps of the index to build the recipients of a topic, besides the search in the indexes.
const ANSWER_STEPS: usize = 32;

/// Steps of the index to drop an entry.
const DROP_STEPS: usize = 4;

/// Entries of a cleared cache that are dropped in each turn, and while memory is short. One more is dropped for
/// each topic that is added, whose entry reuses its memory. With more, the allocator would have to merge tens of
/// thousands of free blocks at once, which takes milliseconds.
const DROPPED_IN_TURN: usize = 32;
const DROPPED_WHEN_SHORT: usize = 512;

/// Entries up to which a cache is cleared at once.
const CLEARED_AT_ONCE: usize = 128;

/// Whom rules know as the client of a session.
fn reader(session: SessionId, sessions: &SessionTable) -> Reader<'_> {
    let session = &sessions[session];
    Reader {
        user: session.user(),
        client_identifier: session.client_identifier.as_str(),
        listener: session.listener(),
    }
}

/// Cache from topic to recipients, cleared as a whole when a subscription or a client's encoding changes.
/// The entries of a large cache are then dropped a few at a time.
#[derive(Debug)]
pub struct TopicCache {
    table: HashTable<Entry>,
    /// Entries that are not used any more, and the memory of their tables.
    cleared: Vec<(hash_table::IntoIter<Entry>, usize)>,
    /// The recipients of every topic that has none.
    nobody: Arc<Recipients>,
    hashing: Hashing,
    /// Epochs of the index and of the replica at which the entries were made.
    epochs: (u64, u64),
    /// Memory of all entries, and its maximum.
    entry_bytes: usize,
    bytes_max: usize,
    /// Memory is short: nothing is cached.
    is_off: bool,
    /// Bytes charged on the ledger.
    charged: usize,
    ledger: Ledger,
    scratch: Matches,
    scratch_elsewhere: CoreMatches,
    /// Steps since the last [`Self::take_steps`].
    steps: usize,
    /// Some subscriptions do not receive all that they match.
    is_filtered: bool,
    /// Rules that filter the subscriptions with a mark.
    read_rules: Option<Arc<dyn ReadRules>>,
    /// Some sessions take a part of all topics.
    has_parts: bool,
    /// What is not needed for all recipients is done: some subscriptions are filtered, or other nodes may have some.
    has_more: bool,
    /// The subscriptions of other nodes.
    pub(super) elsewhere: Elsewhere,
}

#[derive(Debug)]
struct Entry {
    /// The hash of the topic, so that the growth of the table reads no topic.
    hash: u64,
    topic: Box<str>,
    recipients: Arc<Recipients>,
}

/// Memory of an entry. All topics without recipients share one value.
fn entry_bytes(topic: &str, recipients: &Recipients) -> usize {
    let recipients_bytes = if recipients.is_empty() { 0 } else { recipients.heap_bytes() };
    recipients_bytes + heap(topic.len())
}

impl Entry {
    fn heap_bytes(&self) -> usize {
        entry_bytes(&self.topic, &self.recipients)
    }
}

impl TopicCache {
    /// An empty cache that takes at most `bytes_max` bytes.
    pub(super) fn new(
        hashing: Hashing,
        bytes_max: usize,
        ledger: Ledger,
        elsewhere: Elsewhere,
    ) -> Self {
        Self {
            table: HashTable::new(),
            cleared: Vec::new(),
            nobody: Arc::default(),
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
            is_filtered: false,
            read_rules: None,
            has_parts: false,
            has_more: elsewhere.is_there(),
            elsewhere,
        }
    }

    /// Other rules filter the subscriptions with a mark from now on; without rules, none is filtered.
    pub fn set_read_rules(&mut self, read_rules: Option<Arc<dyn ReadRules>>) {
        if self.read_rules.is_some() || read_rules.is_some() {
            self.read_rules = read_rules;
            self.is_filtered = self.has_parts || self.read_rules.is_some();
            self.has_more = self.is_filtered || self.elsewhere.is_there();
            self.clear();
        }
    }

    /// Some session takes a part of all topics.
    #[cfg(feature = "bridge")]
    pub fn note_part(&mut self) {
        (self.has_parts, self.is_filtered, self.has_more) = (true, true, true);
        self.clear();
    }

    /// Whether some subscriptions do not receive all that they match.
    pub fn is_filtered(&self) -> bool {
        self.is_filtered
    }

    /// Whether subscriptions with a mark are filtered.
    pub fn has_read_rules(&self) -> bool {
        self.read_rules.is_some()
    }

    /// Whether a session may receive messages of a topic by a subscription with a mark.
    pub fn may_read(&mut self, topic: &str, session: SessionId, sessions: &SessionTable) -> bool {
        let Some(rules) = &self.read_rules else { return true };
        let mut decisions = rules.decide(topic);
        let may_read = decisions.may_read(&reader(session, sessions));
        self.steps += INDEX_STEPS_PER_STEP * decisions.steps();
        may_read
    }

    /// Leaves out subscriptions that do not receive the topic, and adds the nodes with subscribers to the other cores.
    #[cold]
    fn do_more(&mut self, topic: &str, sessions: &SessionTable) {
        if self.is_filtered {
            self.leave_out(topic, sessions);
        }
        self.steps += self.elsewhere.add_nodes(topic, &mut self.scratch_elsewhere.cores);
    }

    /// Leaves out matching subscriptions of sessions that do not take the topic, and those with a mark whose sessions
    /// may not receive messages of it.
    #[cold]
    fn leave_out(&mut self, topic: &str, sessions: &SessionTable) {
        let subscriptions = &mut self.scratch.subscriptions;
        if self.has_parts {
            self.steps += subscriptions.len();
            subscriptions.retain(|of| sessions[SessionId::from(of.subscriber)].takes(topic));
        }
        let is_filtered = |subscription: &Subscription| subscription.options.is_filtered();
        let Some(rules) =
            self.read_rules.as_ref().filter(|_| subscriptions.iter().any(is_filtered))
        else {
            return;
        };
        let mut decisions = rules.decide(topic);
        subscriptions.retain(|subscription| {
            !is_filtered(subscription)
                || decisions.may_read(&reader(subscription.subscriber.into(), sessions))
        });
        self.steps += INDEX_STEPS_PER_STEP * decisions.steps();
    }

    /// Another limit on the bytes.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        if self.entry_bytes > bytes_max {
            self.clear();
        }
    }

    /// Removes all entries: copies for some client are encoded differently from now on.
    pub fn clear(&mut self) {
        if self.table.len() <= CLEARED_AT_ONCE {
            self.steps += DROP_STEPS * self.table.len();
            self.entry_bytes -= self.table.drain().map(|entry| entry.heap_bytes()).sum::<usize>();
        } else {
            let table_bytes = self.table.allocation_size();
            let table = std::mem::replace(&mut self.table, HashTable::new());
            self.cleared.push((table.into_iter(), table_bytes));
        }
        self.settle();
    }

    /// Called in each turn. Frees all memory, over several turns, and caches nothing from then on, if `is_off`.
    pub fn give_way(&mut self, is_off: bool) {
        if is_off && !self.is_off {
            self.clear();
            (self.scratch, self.scratch_elsewhere) = Default::default();
            self.table.shrink_to_fit(|entry| entry.hash);
            self.settle();
        }
        self.is_off = is_off;
        if !self.cleared.is_empty() {
            self.drop_cleared(if is_off { DROPPED_WHEN_SHORT } else { DROPPED_IN_TURN });
            self.settle();
        }
    }

    /// Drops some entries of cleared tables.
    fn drop_cleared(&mut self, entries: usize) {
        for _ in 0..entries {
            let Some((table, _)) = self.cleared.last_mut() else { return };
            self.steps += DROP_STEPS;
            match table.next() {
                Some(entry) => self.entry_bytes -= entry.heap_bytes(),
                None => drop(self.cleared.pop()),
            }
        }
    }

    /// Bytes charged on the ledger.
    pub fn charged(&self) -> usize {
        self.charged
    }

    fn settle(&mut self) {
        let scratch = self.scratch.heap_bytes()
            + self.scratch_elsewhere.heap_bytes()
            + self.elsewhere.heap_bytes();
        let bytes = self.entry_bytes + self.table_bytes() + scratch;
        let bytes = bytes.saturating_sub(OWN_BYTES);
        self.ledger.charge(bytes.saturating_sub(self.charged));
        self.ledger.release(self.charged.saturating_sub(bytes));
        self.charged = bytes;
    }

    /// Memory of all tables, without what the entries refer to.
    fn table_bytes(&self) -> usize {
        let cleared = self.cleared.iter().map(|(_, bytes)| bytes);
        self.table.allocation_size() + cleared.sum::<usize>()
    }

    /// Steps since the last call. Recipients that were cached take none.
    pub fn take_steps(&mut self) -> usize {
        std::mem::take(&mut self.steps)
    }

    /// The recipients of `topic`.
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
        let found = self.find(topic, index, replica, sessions);
        let recipients = match found.is_empty() {
            true => Arc::clone(&self.nobody),
            false => Arc::new(found),
        };
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
        replica.matches(topic, &mut self.scratch_elsewhere);
        if self.has_more {
            self.do_more(topic, sessions);
        }
        let class = |session: SessionId| sessions[session].class;
        let mut recipients = Recipients::new(&mut self.scratch, class);
        let elsewhere = &self.scratch_elsewhere;
        // To build the recipients, and to cache them.
        self.steps += elsewhere.steps() + ANSWER_STEPS;
        recipients.cores.clone_from(&elsewhere.cores);
        recipients.shared =
            shared_subscriptions(index, replica, &self.scratch.shared, &elsewhere.groups);
        recipients
    }

    /// Caches the recipients of a topic, if there is room.
    fn keep(&mut self, hash: u64, topic: &str, recipients: &Arc<Recipients>) {
        if !self.cleared.is_empty() {
            self.drop_cleared(1);
        }
        let bytes = entry_bytes(topic, recipients);
        if self.is_off || topic.len() > limits::CACHED_TOPIC_BYTES_MAX || bytes > self.bytes_max {
            return;
        }
        let is_full =
            |cache: &Self| cache.entry_bytes + bytes + cache.table_bytes() > cache.bytes_max;
        if self.table.len() >= limits::TOPIC_CACHE_ENTRIES_MAX || is_full(self) {
            // Cleared entries take the room until they are dropped.
            if !self.cleared.is_empty() {
                return;
            }
            self.clear();
            if is_full(self) {
                return;
            }
        }
        self.entry_bytes += bytes;
        let entry = Entry { hash, topic: topic.into(), recipients: Arc::clone(recipients) };
        self.table.insert_unique(hash, entry, |entry| entry.hash);
    }

    /// Merges the subscriptions of one session that match `topic` and do not set No Local.
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
