//! The invariants, judged from outside: by what clients sent and received, and when.
//!
//! Where the network or the protocol leaves the outcome open (a message in transit when a
//! connection was cut, a session about to expire), nothing is expected; forbidden outcomes stay
//! forbidden.

mod groups;
mod moves;

use std::collections::{BTreeMap, BTreeSet};

use shards::TopicFilter;

use self::moves::Whereabouts;
use crate::plan::CLIENTS;
use crate::wills::Wills;
use crate::world::World;

pub struct Message {
    pub publisher: usize,
    pub topic: &'static str,
    pub qos: u8,
    pub retain: bool,
    pub bytes: usize,
    sent_at: u64,
    /// The turn in which a core had read all of it.
    pub read_in: Option<u64>,
    /// PUBACK or PUBREC was received, or the connection lasted long enough.
    is_accepted: bool,
    /// Whether the broker has it is unknown.
    is_doubtful: bool,
    /// Sent again, so that the broker may have accepted it twice at QoS 1.
    pub is_resent: bool,
    /// Sent since everything settled last.
    is_fresh: bool,
    /// The node of its publisher, and how often that had changed the node.
    node: usize,
    stay: usize,
    /// It had no acknowledgement when its publisher left for another node.
    is_left_behind: bool,
    /// The node of its publisher was killed: acknowledgements wait for no node whose subscribers have QoS 0 alone.
    is_of_killed: bool,
}

struct Held {
    filter: &'static str,
    qos: u8,
    since: u64,
}

#[derive(Default)]
struct Subscriber {
    subscriptions: Vec<Held>,
    /// Possible subscriptions, with the lowest QoS: requested, but perhaps without a response.
    asked: BTreeMap<&'static str, u8>,
    /// The core of the last connection.
    core: Option<usize>,
    /// When the client connected, if it is connected.
    connected_at: Option<u64>,
    is_kept: bool,
    /// Number of sessions so far.
    sessions: usize,
    /// Messages that the client must receive when it reconnects.
    owed: BTreeSet<usize>,
    whereabouts: Whereabouts,
}

/// A message as received by a client.
pub struct Seen {
    pub client: usize,
    pub link: usize,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    /// The number of the client's session.
    pub session: usize,
}

/// Messages that need not arrive, until everything settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// Those for shared subscriptions: a node was killed with members of them.
    Groups,
    /// All: a node was evicted.
    All,
}

pub struct Judge {
    pub messages: Vec<Message>,
    pub wills: Wills,
    subscribers: Vec<Subscriber>,
    /// A counter of client actions and observations.
    clock: u64,
    /// Data sent by a client before its connection ended is sure to arrive.
    pub keeps_what_it_sent: bool,
    /// Deliveries of a message to a client, except for retained ones of a new subscription.
    received: BTreeMap<(usize, usize), Vec<Seen>>,
    /// The last message by subscriber, publisher, topic and QoS.
    last: BTreeMap<(usize, usize, &'static str, u8), usize>,
    /// The newest live message of a topic that a client has received on a link.
    newest_live: BTreeMap<(usize, &'static str), usize>,
    /// Shared subscriptions that a member left, or may have left, since everything settled last,
    /// with the lowest QoS of those members.
    left_groups: BTreeMap<&'static str, u8>,
    /// The subset where a member's session ended, or may have ended, or a member unsubscribed.
    ended_groups: BTreeSet<&'static str>,
    /// The subset where a member unsubscribed, which keeps the messages in transit to it.
    unsubscribed_groups: BTreeSet<&'static str>,
    /// When everything settled last.
    settled_at: u64,
    may_drop_qos_0: bool,
    has_crashed: bool,
    split: Option<Split>,
    was_split: bool,
    /// Nodes that were evicted since everything settled.
    evicted: BTreeSet<usize>,
}

impl Judge {
    pub fn new(may_drop_qos_0: bool) -> Self {
        Self {
            messages: Vec::new(),
            wills: Wills::default(),
            subscribers: (0..CLIENTS).map(|_| Subscriber::default()).collect(),
            clock: 0,
            received: BTreeMap::new(),
            last: BTreeMap::new(),
            newest_live: BTreeMap::new(),
            left_groups: BTreeMap::new(),
            ended_groups: BTreeSet::new(),
            unsubscribed_groups: BTreeSet::new(),
            settled_at: 0,
            may_drop_qos_0,
            keeps_what_it_sent: false,
            has_crashed: false,
            split: None,
            was_split: false,
            evicted: BTreeSet::new(),
        }
    }

    /// Whether the broker has acknowledged a message, so that its subscribers have to receive it.
    #[cfg(feature = "bridge")]
    pub fn is_accepted(&self, message: usize) -> bool {
        let of = &self.messages[message];
        of.is_accepted && !of.is_doubtful
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub fn publish(
        &mut self,
        publisher: usize,
        topic: &'static str,
        qos: u8,
        retain: bool,
        bytes: usize,
    ) -> usize {
        let sent_at = self.tick();
        let (node, stay) = self.subscribers[publisher].whereabouts.now();
        self.messages.push(Message {
            publisher,
            topic,
            qos,
            retain,
            bytes,
            sent_at,
            read_in: None,
            is_accepted: false,
            is_doubtful: self.split.is_some_and(|split| split.concerns(topic)),
            is_resent: false,
            is_fresh: true,
            node,
            stay,
            is_left_behind: false,
            is_of_killed: false,
        });
        self.messages.len() - 1
    }

    /// The payload of a message: its number, padded to the requested length.
    pub fn payload(&self, message: usize) -> Vec<u8> {
        let mut payload = (message as u64).to_be_bytes().to_vec();
        payload.resize(self.messages[message].bytes, b'.');
        payload
    }

    pub fn doubt(&mut self, message: usize) {
        self.messages[message].is_doubtful = true;
    }

    pub fn connect(
        &mut self,
        client: usize,
        core: Option<usize>,
        present: bool,
    ) -> Result<(), String> {
        let now = self.tick();
        let subscriber = &mut self.subscribers[client];
        if subscriber.is_kept && !present {
            return Err(format!("the session of client {client} is lost"));
        }
        subscriber.core = core.or(subscriber.core);
        subscriber.connected_at = Some(now);
        Ok(())
    }

    /// The broker crashed: messages sent again need not have DUP set, as the broker may not know
    /// that it had sent them.
    pub fn note_crash(&mut self, now_us: u64) {
        // QoS 0 is not acknowledged: messages not yet on disk are lost, whether their publisher was
        // connected or had ended its stream.
        (0..CLIENTS).for_each(|client| self.doubt_fresh(client));
        self.wills.crash(now_us);
        self.last.clear();
        self.has_crashed = true;
        self.subscribers.iter_mut().for_each(|subscriber| subscriber.core = None);
    }

    /// What is on its way between nodes, and what follows until everything settles, may be lost.
    pub fn note_split(&mut self, split: Split) {
        self.split = self.split.max(Some(split));
        self.was_split = true;
        for message in self.messages.iter_mut().filter(|of| of.is_fresh && split.concerns(of.topic))
        {
            message.is_doubtful = true;
        }
    }

    /// Whether a node was killed or evicted since everything settled.
    pub fn is_split(&self) -> bool {
        self.split.is_some()
    }

    /// Whether a node was killed or evicted at some time.
    pub fn was_split(&self) -> bool {
        self.was_split
    }

    /// Whether the server has a session of a client that outlives its connection.
    pub fn is_kept(&self, client: usize) -> bool {
        self.subscribers[client].is_kept
    }

    pub fn keep_session(&mut self, client: usize, is_kept: bool) {
        let subscriber = &mut self.subscribers[client];
        subscriber.is_kept = is_kept && !subscriber.whereabouts.is_unsure();
    }

    pub fn lose_connection(&mut self, client: usize) {
        self.tick();
        self.leave_groups(client);
        self.subscribers[client].connected_at = None;
        if !self.keeps_what_it_sent {
            self.doubt_fresh(client);
        }
    }

    /// A client's last QoS 0 messages may or may not have arrived.
    pub fn doubt_fresh(&mut self, client: usize) {
        let fresh = self.messages.iter_mut().filter(|m| m.is_fresh && m.publisher == client);
        for message in fresh.filter(|m| m.qos == 0) {
            message.is_doubtful = true;
        }
    }

    /// UNSUBACK was received.
    pub fn note_unsubscribed(&mut self, client: usize, filter: &str) {
        self.subscribers[client].asked.remove(filter);
    }

    fn leave_groups(&mut self, client: usize) {
        let asked = self.subscribers[client].asked.iter();
        for (&filter, &qos) in asked.filter(|(filter, _)| filter.starts_with("$share/")) {
            let lowest = self.left_groups.entry(filter).or_insert(qos);
            *lowest = qos.min(*lowest);
        }
    }

    pub fn end_session(&mut self, client: usize) {
        self.tick();
        self.leave_groups(client);
        let subscriber = &mut self.subscribers[client];
        self.ended_groups.extend(subscriber.asked.keys().filter(|f| f.starts_with("$share/")));
        subscriber.subscriptions.clear();
        subscriber.owed.clear();
        subscriber.is_kept = false;
    }

    pub fn ask(&mut self, client: usize, filter: &'static str, qos: u8) {
        let subscriber = &mut self.subscribers[client];
        let lowest = subscriber.asked.entry(filter).or_insert(qos);
        *lowest = qos.min(*lowest);
        // Until the response is received, the QoS of either subscription may apply.
        subscriber.subscriptions.retain(|held| held.filter != filter);
    }

    /// The server has started a new session for a client.
    pub fn begin_session(&mut self, client: usize) {
        self.end_session(client);
        self.subscribers[client].sessions += 1;
        self.subscribers[client].asked.clear();
    }

    pub fn subscribe(&mut self, client: usize, filter: &'static str, qos: u8) {
        let since = self.tick();
        let held = &mut self.subscribers[client].subscriptions;
        held.retain(|held| held.filter != filter);
        held.push(Held { filter, qos, since });
    }

    pub fn unsubscribe(&mut self, client: usize, filter: &'static str) {
        self.tick();
        self.leave_groups(client);
        self.unsubscribed_groups.insert(filter);
        self.ended_groups.insert(filter);
        let subscriber = &mut self.subscribers[client];
        subscriber.subscriptions.retain(|held| held.filter != filter);
        // A pending message may have been for that filter.
        subscriber.owed.clear();
    }

    /// PUBACK or PUBREC was received: every core with a subscriber must have the message. Batches
    /// sent at the latest when the message arrived must have reached that core.
    pub fn acknowledge(&mut self, world: &World, message: usize) -> Result<(), String> {
        self.messages[message].is_accepted = true;
        let of = &self.messages[message];
        let (Some(home), Some(read_in)) = (self.subscribers[of.publisher].core, of.read_in) else {
            return Ok(());
        };
        if of.is_resent || of.is_doubtful {
            return Ok(()); // perhaps read on the previous connection
        }
        for (client, subscriber) in self.subscribers.iter().enumerate() {
            let Some(core) = subscriber.core.filter(|&core| core != home) else { continue };
            // Nobody waits for another node that has subscribers of QoS 0 alone.
            let is_near = world.group(home).contains(&core);
            let is_owed = plain(subscriber, of).any(|held| is_near || held.qos > 0);
            if is_owed
                && subscriber.whereabouts.is_here_since(read_in)
                && world.lanes[home][core].arrived < read_in
            {
                return Err(format!(
                    "message {message} was acknowledged before core {core} of client {client} had it"
                ));
            }
        }
        Ok(())
    }

    /// A client received a message.
    pub fn receive(&mut self, mut seen: Seen, topic: &str, payload: &[u8]) -> Result<(), String> {
        self.tick();
        if payload.is_empty() {
            return Ok(()); // the removal of a retained message has no number
        }
        let number = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes) as usize);
        let message = number.filter(|&number| number < self.messages.len());
        let message = message.ok_or_else(|| format!("{topic}: {payload:?} was never sent"))?;
        let (of, client) = (&self.messages[message], seen.client);
        seen.session = self.subscribers[client].sessions;
        if of.topic != topic || payload.len() != of.bytes {
            return Err(format!("message {message} was altered"));
        }
        self.subscribers[client].owed.remove(&message);
        if seen.retain {
            return self.receive_retained(&seen, message);
        }
        let is_shared = of.topic.starts_with("s/");
        let key = (client, of.publisher, of.topic, seen.qos);
        if !seen.dup && !of.is_resent && !is_shared {
            let last = self.last.insert(key, message);
            if let Some(last) = last.filter(|&last| last > message) {
                self.last.insert(key, last);
            }
            if let Some(last) = last.filter(|&last| last > message)
                && !self.may_be_late(client, message, last)
            {
                return Err(format!("client {client} received message {message} after {last}"));
            }
        }
        let newest = self.newest_live.entry((seen.link, of.topic)).or_default();
        *newest = (*newest).max(message);
        self.check_duplicate(&seen, message)?;
        self.received.entry((message, client)).or_default().push(seen);
        Ok(())
    }

    fn receive_retained(&self, seen: &Seen, message: usize) -> Result<(), String> {
        let of = &self.messages[message];
        let newest = self.newest_live.get(&(seen.link, of.topic)).copied();
        let newer = newest.filter(|&newest| newest > message && !seen.dup);
        match newer {
            Some(newer)
                if self.messages[newer].publisher == of.publisher
                    && !of.is_resent
                    && !of.is_left_behind
                    && !self.messages[newer].is_resent
                    // A crash may leave only the delivery of an unacknowledged message.
                    && (self.messages[newer].is_accepted || !self.has_crashed)
                    && of.topic != crate::plan::COMMON_RETAINED =>
            {
                let client = seen.client;
                Err(format!(
                    "client {client} received retained message {message} after live {newer}"
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_duplicate(&self, seen: &Seen, message: usize) -> Result<(), String> {
        let (of, client) = (&self.messages[message], seen.client);
        let before = self.received.get(&(message, client)).map_or(&[][..], Vec::as_slice);
        // A message for two groups is sent twice to a member of both, perhaps at different QoS.
        let is_shared = of.topic.starts_with("s/");
        let copies = before.iter().filter(|b| !is_shared || b.qos == seen.qos).count();
        let is_allowed = copies < if is_shared { 3 } else { 1 }
            || of.qos == 1 && of.is_resent
            // Messages delivered below QoS 2 before a crash need not have been stored, nor those
            // for a session that ended in it.
            || of.is_resent
                && self.has_crashed
                && before.iter().all(|b| b.qos < 2 || b.session < seen.session)
            || seen.qos == 1 && (seen.dup || before.iter().any(|b| b.link != seen.link))
            || self.may_be_doubled(client, message);
        match is_allowed {
            true => Ok(()),
            false => Err(format!("client {client} received message {message} twice")),
        }
    }

    /// Everything has settled: every accepted message must have reached all clients that were
    /// subscribed before it was sent and still are.
    pub fn settle(&mut self, now_us: u64) -> Result<(), String> {
        self.wills.settle(now_us);
        for message in &mut self.messages {
            let is_connected = self.subscribers[message.publisher].connected_at.is_some();
            message.is_accepted |= message.qos == 0 && message.is_fresh && is_connected;
        }
        for number in 0..self.messages.len() {
            let of = &self.messages[number];
            if !of.is_fresh || !of.is_accepted || of.is_doubtful || of.bytes == 0 {
                continue;
            }
            if of.topic.starts_with("s/") {
                self.judge_groups(number)?;
            } else {
                self.judge_delivery(number)?;
            }
        }
        self.settle_moves();
        for message in &mut self.messages {
            message.is_fresh = false;
        }
        self.split = None;
        self.left_groups.clear();
        self.ended_groups.clear();
        self.unsubscribed_groups.clear();
        self.settled_at = self.tick();
        for (client, subscriber) in self.subscribers.iter().enumerate() {
            if let (Some(_), Some(owed)) = (subscriber.connected_at, subscriber.owed.first()) {
                return Err(format!(
                    "client {client} reconnected and did not receive message {owed}"
                ));
            }
        }
        Ok(())
    }

    fn judge_delivery(&mut self, number: usize) -> Result<(), String> {
        let of = &self.messages[number];
        for client in 0..self.subscribers.len() {
            let subscriber = &self.subscribers[client];
            let Some(qos) = plain(subscriber, of).map(|held| held.qos.min(of.qos)).max() else {
                continue;
            };
            if self.received.contains_key(&(number, client)) {
                continue;
            }
            let was_there = subscriber.connected_at.is_some_and(|since| since < of.sent_at);
            match (qos, subscriber.connected_at) {
                (0, _) if !was_there || self.may_drop_qos_0 || of.is_of_killed => {}
                (1.., None) => {
                    self.subscribers[client].owed.insert(number);
                }
                _ => return Err(format!("client {client} did not receive message {number}")),
            }
        }
        Ok(())
    }

    /// Whether nodes may have different retained messages of a topic. Of what a node that was killed or evicted has
    /// published without an acknowledgement, each of the others keeps what has reached it.
    pub fn may_differ(&self, topic: &str) -> bool {
        let in_doubt = |of: &&Message| of.is_doubtful || of.is_resent || !of.is_accepted;
        let of_topic = self.messages.iter().filter(|of| of.topic == topic && of.retain);
        self.was_split && of_topic.filter(in_doubt).count() > 0
    }

    /// The possible final values of a topic: the last accepted message, or an uncertain one.
    pub fn may_be_retained(&self, topic: &str, number: Option<usize>) -> bool {
        let of_topic =
            || self.messages.iter().enumerate().filter(|(_, m)| m.topic == topic && m.retain);
        let last = of_topic().rfind(|(_, m)| m.is_accepted && !m.is_doubtful);
        let last_number = last.map(|(number, _)| number);
        let is_in_doubt = |m: &Message| m.is_doubtful || m.is_resent || !m.is_accepted;
        let is_later = |number: usize| last_number.is_none_or(|last| number > last);
        let candidates: Vec<(usize, &Message)> = of_topic()
            .filter(|(n, m)| {
                Some(*n) == last_number
                    || m.is_resent
                    || m.is_left_behind
                    || is_later(*n) && is_in_doubt(m)
            })
            .collect();
        match number {
            Some(number) => candidates.iter().any(|(n, m)| *n == number && m.bytes > 0),
            None => last.is_none() || candidates.iter().any(|(_, m)| m.bytes == 0),
        }
    }
}

impl Split {
    fn concerns(self, topic: &str) -> bool {
        self == Self::All || topic.starts_with("s/")
    }
}

/// A client's ordinary subscriptions that a message must reach.
fn plain<'a>(
    subscriber: &'a Subscriber,
    message: &'a Message,
) -> impl Iterator<Item = &'a Held> + use<'a> {
    subscriber.subscriptions.iter().filter(|held| {
        !held.filter.starts_with("$share/")
            && held.since < message.sent_at
            && matches(held.filter, message.topic)
    })
}

fn matches(filter: &str, topic: &str) -> bool {
    TopicFilter::parse(filter, 99).is_ok_and(|filter| filter.matches(topic))
}
