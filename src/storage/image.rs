//! What all records together say: sessions and retained messages, as they are to be taken up again.
//! Knows no file and no engine.
//!
//! Records of one core come in its order, those of different cores in any: a session is told of by
//! one core at a time, and of retained messages the highest stamp counts.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::storage::record::{
    CONTENTS_ANEW, Content, DeliveryNumber, Exchange, NoRecord, Record, SessionNumber, content_anew,
};

/// A message that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnedContent {
    /// Topic Name.
    pub topic: Box<str>,
    /// Payload.
    #[serde(with = "hex")]
    pub payload: Box<[u8]>,
    /// Encoded properties that are forwarded unaltered.
    #[serde(with = "hex")]
    pub passed_on: Box<[u8]>,
    /// When it expires, in microseconds since 1970.
    pub expires_us: Option<u64>,
    /// QoS it was published with.
    pub qos: u8,
}

impl From<Content<'_>> for OwnedContent {
    fn from(content: Content<'_>) -> Self {
        Self {
            topic: content.topic.into(),
            payload: content.payload.into(),
            passed_on: content.passed_on.into(),
            expires_us: content.expires_us,
            qos: content.qos,
        }
    }
}

impl OwnedContent {
    /// As a record has it.
    pub fn borrow(&self) -> Content<'_> {
        let Self { topic, payload, passed_on, expires_us, qos } = self;
        Content { topic, payload, passed_on, expires_us: *expires_us, qos: *qos }
    }
}

/// A message that all deliveries share which are of it. Of those told anew it may be told later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedContent(Arc<OnceLock<OwnedContent>>);

impl SharedContent {
    /// A message that is there.
    pub fn new(content: OwnedContent) -> Self {
        Self(Arc::new(OnceLock::from(content)))
    }

    /// The message, unless it has not been told.
    pub fn get(&self) -> Option<&OwnedContent> {
        self.0.get()
    }

    /// The same for all who share it, and for nobody else as long as one of them is there.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// How many share it.
    pub fn sharers(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    fn tell(&self, content: OwnedContent) {
        // A number is used once; a log that says otherwise keeps the first.
        let _ = self.0.set(content);
    }
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// QoS granted.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Subscription Identifier; 0 for none.
    pub identifier: u32,
}

/// A message on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Its number.
    pub number: DeliveryNumber,
    /// The message; none once PUBREC came.
    #[serde(with = "shared")]
    pub content: Option<SharedContent>,
    /// Effective QoS.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Packet Identifier; 0 while it waits.
    pub packet_identifier: u16,
    /// The shared subscription it was drawn for.
    pub shared: Option<Box<str>>,
    /// Subscription Identifiers.
    pub identifiers: Vec<u32>,
}

/// A Will that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Will {
    /// When it is due.
    pub due_us: u64,
    /// The message.
    pub content: OwnedContent,
    /// RETAIN flag.
    pub retain: bool,
    /// Message Expiry Interval in seconds, from publication.
    pub message_expiry_interval_s: Option<u32>,
}

/// The Will of a client that was connected to the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldWill {
    /// The client.
    pub client_identifier: Box<str>,
    /// The user as whom it was let in, where it is not known from its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<str>>,
    /// Will Delay Interval in seconds.
    pub delay_interval_s: u32,
    /// The message.
    pub content: OwnedContent,
    /// RETAIN flag.
    pub retain: bool,
    /// Message Expiry Interval in seconds, from publication.
    pub message_expiry_interval_s: Option<u32>,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// Its client.
    pub client_identifier: Box<str>,
    /// The user it belongs to, if any.
    pub owner: Option<Box<str>>,
    /// Session Expiry Interval in seconds.
    pub expiry_interval_s: u32,
    /// When its client went away; none when it was connected to the last.
    pub away_since_us: Option<u64>,
    /// By Topic Filter.
    pub subscriptions: BTreeMap<Box<str>, Subscription>,
    /// In flight, in the order of their Packet Identifiers.
    pub inflight: Vec<Delivery>,
    /// Waiting, in order.
    pub queue: VecDeque<Delivery>,
    /// QoS 2 messages from the client between PUBREC and PUBREL, by Packet Identifier.
    pub received: std::collections::BTreeSet<u16>,
    /// Its Will, where that waits for its time.
    pub will: Option<Will>,
}

/// What is retained under a topic, or that nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The highest counts.
    pub stamp: u64,
    /// None once it was taken away.
    pub content: Option<OwnedContent>,
}

/// Everything that is kept, or that part of it which was asked for.
#[derive(Debug, Default)]
pub struct Image {
    /// By number.
    pub sessions: HashMap<SessionNumber, Session>,
    /// Wills of clients that were connected to the last, by the numbers of their sessions, which need
    /// not be kept.
    pub wills: HashMap<SessionNumber, HeldWill>,
    /// By topic.
    pub retained: HashMap<Box<str>, Retained>,
    /// Which sessions, of this part or not, have a QoS 2 message whose publisher cannot know yet that it
    /// was received.
    pub taken: HashMap<Exchange, HashSet<SessionNumber>>,
    /// Which shared subscriptions have such a message.
    pub taken_by_groups: HashMap<Exchange, HashSet<Box<str>>>,
    /// Messages that deliveries are of which have been told anew, until they are told, by number.
    awaited: HashMap<u64, SharedContent>,
    /// Messages between cores that have arrived: their deliveries may be told later, or anew.
    arrived: HashSet<(SessionNumber, DeliveryNumber)>,
    /// The highest serial number of any session, of this part or not.
    pub session_max: u64,
    /// The highest number of any delivery.
    pub delivery_max: u64,
    /// Records read.
    pub records: u64,
}

/// Which part of everything.
pub trait Part {
    /// Whether a client's session belongs to it.
    fn has_session(&self, client_identifier: &str) -> bool;
    /// Whether a topic does.
    fn has_topic(&self, topic: &str) -> bool;
}

/// All of it.
pub struct Whole;

impl Part for Whole {
    fn has_session(&self, _client_identifier: &str) -> bool {
        true
    }

    fn has_topic(&self, _topic: &str) -> bool {
        true
    }
}

impl Image {
    /// Takes in a batch.
    pub fn apply(&mut self, mut batch: &[u8], part: &impl Part) -> Result<(), NoRecord> {
        let mut contents: HashMap<u64, (Content<'_>, Option<SharedContent>)> = HashMap::new();
        // What deliveries were of, by session, before they are told anew in this batch.
        let mut before: HashMap<SessionNumber, HashMap<DeliveryNumber, SharedContent>> =
            HashMap::new();
        while let Some(record) = Record::decode(&mut batch)? {
            self.records += 1;
            match record {
                Record::Content { number, content } if number >= CONTENTS_ANEW => {
                    // Where nobody awaits it, it is of sessions of another part.
                    if let Some(awaited) = self.awaited.remove(&number) {
                        awaited.tell(content.into());
                    }
                }
                Record::Content { number, content } => {
                    contents.insert(number, (content, None));
                }
                Record::Queued { session, delivery, content, qos, .. } => {
                    self.delivery_max = self.delivery_max.max(delivery);
                    let Some(state) = self.sessions.get_mut(&session) else { continue };
                    if !self.arrived.is_empty() && self.arrived.contains(&(session, delivery)) {
                        continue;
                    }
                    let shared = if content >= CONTENTS_ANEW {
                        let known = before.get(&session).and_then(|of| of.get(&delivery));
                        match known {
                            Some(known) => known.clone(),
                            None => self.awaited.entry(content).or_default().clone(),
                        }
                    } else {
                        let (content, shared) = contents.get_mut(&content).ok_or(NoRecord)?;
                        let new = || SharedContent::new(OwnedContent::from(*content));
                        shared.get_or_insert_with(new).clone()
                    };
                    state.take(&record, shared, qos);
                }
                Record::Retained { stamp, content } => {
                    if part.has_topic(content.topic) {
                        self.retain(content.topic, stamp, Some(content));
                    }
                }
                Record::Cleared { stamp, topic } => {
                    if part.has_topic(topic) {
                        self.retain(topic, stamp, None);
                    }
                }
                Record::Session { session, client_identifier, expiry_interval_s } => {
                    self.session_max = self.session_max.max(session.serial());
                    if part.has_session(client_identifier) {
                        let client_identifier = client_identifier.into();
                        let state =
                            Session { client_identifier, expiry_interval_s, ..Session::default() };
                        if let Some(old) = self.sessions.insert(session, state) {
                            before.insert(session, old.contents());
                        }
                    }
                }
                Record::Ended { session } => {
                    self.sessions.remove(&session);
                }
                Record::Taken { session, publisher, packet_identifier } => {
                    // The session itself may be told later, anew.
                    let exchange = Exchange { publisher, packet_identifier };
                    self.taken.entry(exchange).or_default().insert(session);
                }
                Record::TakenByGroup { publisher, packet_identifier, filter } => {
                    let exchange = Exchange { publisher, packet_identifier };
                    self.taken_by_groups.entry(exchange).or_default().insert(filter.into());
                }
                Record::WillHeld {
                    session,
                    client_identifier,
                    delay_interval_s,
                    content,
                    retain,
                    message_expiry_interval_s,
                } => {
                    self.session_max = self.session_max.max(session.serial());
                    if part.has_session(client_identifier) {
                        let will = HeldWill {
                            client_identifier: client_identifier.into(),
                            owner: None,
                            delay_interval_s,
                            content: content.into(),
                            retain,
                            message_expiry_interval_s,
                        };
                        self.wills.insert(session, will);
                    }
                }
                Record::WillOver { session } => {
                    self.wills.remove(&session);
                }
                Record::Arrived { session, delivery } => {
                    // The delivery may never be told, and its number is used up all the same.
                    self.delivery_max = self.delivery_max.max(delivery);
                    self.arrived.insert((session, delivery));
                    self.change(&Record::Done { session, delivery });
                }
                other => self.change(&other),
            }
        }
        Ok(())
    }

    fn retain(&mut self, topic: &str, stamp: u64, content: Option<Content<'_>>) {
        let content = content.map(OwnedContent::from);
        match self.retained.get_mut(topic) {
            Some(kept) if kept.stamp > stamp => {}
            Some(kept) => *kept = Retained { stamp, content },
            None => {
                self.retained.insert(topic.into(), Retained { stamp, content });
            }
        }
    }

    fn change(&mut self, record: &Record<'_>) {
        let (Record::Connected { session, .. }
        | Record::Away { session, .. }
        | Record::Subscribed { session, .. }
        | Record::Unsubscribed { session, .. }
        | Record::Sent { session, .. }
        | Record::Released { session, .. }
        | Record::Done { session, .. }
        | Record::Received { session, .. }
        | Record::Completed { session, .. }
        | Record::Will { session, .. }
        | Record::WillSent { session }
        | Record::Owned { session, .. }) = record
        else {
            return;
        };
        if let Record::Received { packet_identifier, .. }
        | Record::Completed { packet_identifier, .. } = record
        {
            let (publisher, packet_identifier) = (*session, *packet_identifier);
            let exchange = Exchange { publisher, packet_identifier };
            self.taken.remove(&exchange);
            self.taken_by_groups.remove(&exchange);
        }
        if let Some(session) = self.sessions.get_mut(session) {
            session.change(record);
        } else if let Record::Owned { session, owner } = record
            && let Some(will) = self.wills.get_mut(session)
        {
            will.owner = Some((*owner).into());
        }
    }

    /// Everything anew, as few records as say it.
    pub fn write(&self, mut batch_is_full: impl FnMut(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        // Each content once, after the deliveries that are of it.
        let (mut contents, mut numbers) = (Vec::new(), HashMap::new());
        let mut number_of = |content: &SharedContent| {
            *numbers.entry(content.address()).or_insert_with(|| {
                contents.push(content.clone());
                content_anew(0, contents.len() as u64)
            })
        };
        for (&number, session) in &self.sessions {
            session.write(number, &mut out, &mut number_of);
            batch_is_full(&mut out);
        }
        for (content, number) in contents.iter().zip((1..).map(|count| content_anew(0, count))) {
            let Some(content) = content.get() else { continue };
            Record::Content { number, content: content.borrow() }.encode(&mut out);
            batch_is_full(&mut out);
        }
        for (&Exchange { publisher, packet_identifier }, sessions) in &self.taken {
            for &session in sessions.iter().filter(|session| self.sessions.contains_key(session)) {
                Record::Taken { session, publisher, packet_identifier }.encode(&mut out);
            }
        }
        let of_groups = self.taken_by_groups.iter();
        for (&Exchange { publisher, packet_identifier }, groups) in
            of_groups.filter(|(exchange, _)| self.sessions.contains_key(&exchange.publisher))
        {
            for filter in groups {
                Record::TakenByGroup { publisher, packet_identifier, filter }.encode(&mut out);
            }
        }
        for (&session, will) in &self.wills {
            will.write(session, &mut out);
            batch_is_full(&mut out);
        }
        for retained in self.retained.values() {
            // Of what was taken away nothing older is left.
            let Some(content) = &retained.content else { continue };
            let content = content.borrow();
            Record::Retained { stamp: retained.stamp, content }.encode(&mut out);
            batch_is_full(&mut out);
        }
        out
    }
}

impl Session {
    /// What its deliveries are of, by number.
    fn contents(self) -> HashMap<DeliveryNumber, SharedContent> {
        let all = self.inflight.into_iter().chain(self.queue);
        all.filter_map(|of| Some((of.number, of.content?))).collect()
    }

    fn take(&mut self, record: &Record<'_>, content: SharedContent, qos: u8) {
        let Record::Queued { delivery, retain, packet_identifier, shared, identifiers, .. } =
            record
        else {
            return;
        };
        let delivery = Delivery {
            number: *delivery,
            content: Some(content),
            qos,
            retain: *retain,
            packet_identifier: *packet_identifier,
            shared: shared.map(Into::into),
            identifiers: identifiers.to_vec(),
        };
        match packet_identifier {
            0 => self.queue.push_back(delivery),
            _ => self.inflight.push(delivery),
        }
    }

    fn change(&mut self, record: &Record<'_>) {
        match record {
            Record::Connected { expiry_interval_s, .. } => {
                self.expiry_interval_s = *expiry_interval_s;
                (self.away_since_us, self.will) = (None, None);
            }
            Record::Away { expiry_interval_s, since_us, .. } => {
                self.expiry_interval_s = *expiry_interval_s;
                self.away_since_us = Some(*since_us);
            }
            Record::Subscribed {
                filter, qos, no_local, retain_as_published, identifier, ..
            } => {
                let subscription = Subscription {
                    qos: *qos,
                    no_local: *no_local,
                    retain_as_published: *retain_as_published,
                    identifier: *identifier,
                };
                self.subscriptions.insert((*filter).into(), subscription);
            }
            Record::Unsubscribed { filter, .. } => {
                self.subscriptions.remove(*filter);
            }
            Record::Sent { delivery, packet_identifier, .. } => {
                // Nearly always the first one that waits.
                let place = self.queue.iter().position(|queued| queued.number == *delivery);
                if let Some(mut sent) = place.and_then(|place| self.queue.remove(place)) {
                    sent.packet_identifier = *packet_identifier;
                    self.inflight.push(sent);
                }
            }
            Record::Released { delivery, packet_identifier, .. } => {
                self.release(*delivery, *packet_identifier);
            }
            Record::Done { delivery, .. } => {
                let is_it = |of: &Delivery| of.number == *delivery;
                if let Some(place) = self.inflight.iter().position(is_it) {
                    self.inflight.remove(place);
                } else if let Some(place) = self.queue.iter().position(is_it) {
                    self.queue.remove(place);
                }
            }
            Record::Received { packet_identifier, .. } => {
                self.received.insert(*packet_identifier);
            }
            Record::Completed { packet_identifier, .. } => {
                self.received.remove(packet_identifier);
            }
            Record::Will { due_us, content, retain, message_expiry_interval_s, .. } => {
                self.will = Some(Will {
                    due_us: *due_us,
                    content: OwnedContent::from(*content),
                    retain: *retain,
                    message_expiry_interval_s: *message_expiry_interval_s,
                });
            }
            Record::WillSent { .. } => self.will = None,
            Record::Owned { owner, .. } => self.owner = Some((*owner).into()),
            _ => {}
        }
    }

    fn release(&mut self, number: DeliveryNumber, packet_identifier: u16) {
        if let Some(of) = self.inflight.iter_mut().find(|of| of.number == number) {
            (of.content, of.packet_identifier) = (None, packet_identifier);
            return;
        }
        self.inflight.push(Delivery {
            number,
            content: None,
            qos: 2,
            retain: false,
            packet_identifier,
            shared: None,
            identifiers: Vec::new(),
        });
    }

    /// All of it, as records but for the contents of its deliveries, of which `number_of` tells the
    /// numbers.
    fn write(
        &self,
        session: SessionNumber,
        out: &mut Vec<u8>,
        mut number_of: impl FnMut(&SharedContent) -> u64,
    ) {
        let (client_identifier, expiry_interval_s) =
            (&*self.client_identifier, self.expiry_interval_s);
        Record::Session { session, client_identifier, expiry_interval_s }.encode(out);
        if let Some(owner) = &self.owner {
            Record::Owned { session, owner }.encode(out);
        }
        for (filter, of) in &self.subscriptions {
            Record::Subscribed {
                session,
                filter,
                qos: of.qos,
                no_local: of.no_local,
                retain_as_published: of.retain_as_published,
                identifier: of.identifier,
            }
            .encode(out);
        }
        for &packet_identifier in &self.received {
            Record::Received { session, packet_identifier }.encode(out);
        }
        for of in self.inflight.iter().chain(&self.queue) {
            of.write(session, out, &mut number_of);
        }
        if let Some(since_us) = self.away_since_us {
            Record::Away { session, expiry_interval_s, since_us }.encode(out);
        }
        if let Some(will) = &self.will {
            Record::Will {
                session,
                due_us: will.due_us,
                content: will.content.borrow(),
                retain: will.retain,
                message_expiry_interval_s: will.message_expiry_interval_s,
            }
            .encode(out);
        }
    }
}

impl HeldWill {
    fn write(&self, session: SessionNumber, out: &mut Vec<u8>) {
        Record::WillHeld {
            session,
            client_identifier: &self.client_identifier,
            delay_interval_s: self.delay_interval_s,
            content: self.content.borrow(),
            retain: self.retain,
            message_expiry_interval_s: self.message_expiry_interval_s,
        }
        .encode(out);
        if let Some(owner) = &self.owner {
            Record::Owned { session, owner }.encode(out);
        }
    }
}

impl Delivery {
    fn write(
        &self,
        session: SessionNumber,
        out: &mut Vec<u8>,
        number_of: impl FnOnce(&SharedContent) -> u64,
    ) {
        let (delivery, packet_identifier) = (self.number, self.packet_identifier);
        let Some(content) = &self.content else {
            return Record::Released { session, delivery, packet_identifier }.encode(out);
        };
        Record::Queued {
            session,
            delivery,
            content: number_of(content),
            qos: self.qos,
            retain: self.retain,
            packet_identifier,
            shared: self.shared.as_deref(),
            identifiers: self.identifiers.as_slice().into(),
        }
        .encode(out);
    }
}

/// Bytes as text for people and programs: two hexadecimal digits each.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let text: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
        to.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Box<[u8]>, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || de::Error::custom("two hexadecimal digits for each byte are expected");
        let digit = |at: u8| char::from(at).to_digit(16).map(|digit| digit as u8);
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        text.as_bytes().chunks(2).map(|pair| byte(pair).ok_or_else(wrong)).collect()
    }
}

/// A message that several may share, as one of its own.
mod shared {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{OwnedContent, SharedContent};

    pub fn serialize<S: Serializer>(
        content: &Option<SharedContent>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        content.as_ref().and_then(SharedContent::get).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SharedContent>, D::Error> {
        Ok(Option::<OwnedContent>::deserialize(from)?.map(SharedContent::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the next delivery of that session could bear it, and count as arrived.
    #[test]
    fn the_number_of_what_arrived_is_used_up_though_the_delivery_was_never_told() {
        let mut batch = Vec::new();
        Record::Arrived { session: SessionNumber(1), delivery: 9 }.encode(&mut batch);
        let mut image = Image::default();
        image.apply(&batch, &Whole).expect("a record");
        assert_eq!(image.delivery_max, 9);
    }
}
