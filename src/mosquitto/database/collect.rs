//! Collects the chunks of a database as sessions and messages, and adds them to an image of the store. What the image
//! has stays: a session or retained message in the store is newer than one in the file.

use std::collections::{BTreeMap, HashMap};

use super::chunk::{Chunk, Client, Delivery, Message, MessageId, Stage, Subscription, Way};
use super::deliveries::{Exchange, Waiting};
use super::report::{Kind, Reason, Report};
use crate::storage::image::add::Additions;
use crate::storage::image::{self, HeldWill, Image, OwnedContent, SharedContent};
use crate::wire::PublishProperties;

/// Choices of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Sessions belong to the users in the file from then on. Mosquitto up to 2.0.15 writes wrong ones.
    pub owners: bool,
    /// Of a damaged file, the part before the damage is taken.
    pub salvage: bool,
}

/// The beginning of the Client Identifiers that Mosquitto's bridges have on their own side.
const BRIDGE: &str = "local.";

/// A message of the file.
#[derive(Debug)]
enum Known {
    Message { content: SharedContent, retain: bool },
    LeftOut(Reason),
}

/// A session of the file.
#[derive(Debug, Default)]
struct Collected {
    session: image::Session,
    waiting: Waiting,
    will: Option<HeldWill>,
}

/// Collects chunks.
#[derive(Debug)]
pub struct Collector {
    options: Options,
    /// The time of day, in microseconds since 1970.
    now_us: u64,
    messages: HashMap<MessageId, Known>,
    /// By Client Identifier; none for those that are left out.
    sessions: BTreeMap<Box<str>, Option<Collected>>,
    retained: Vec<MessageId>,
    report: Report,
}

impl Collector {
    /// Collects nothing yet. `source` describes the file in the report.
    pub fn new(source: String, options: Options, now_us: u64) -> Self {
        Self {
            options,
            now_us,
            messages: HashMap::new(),
            sessions: BTreeMap::new(),
            retained: Vec::new(),
            report: Report::new(source),
        }
    }

    /// Whether the part of a damaged database before the damage is taken.
    #[cfg(feature = "mosquitto-sqlite")]
    pub(super) fn salvages(&self) -> bool {
        self.options.salvage
    }

    /// The report so far.
    pub fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Takes a chunk. Messages come before what refers to them, and clients before their subscriptions and deliveries.
    pub fn take(&mut self, chunk: &Chunk<'_>) {
        match chunk {
            Chunk::Settings => {}
            Chunk::Message(message) => self.take_message(message),
            Chunk::Client(client) => self.take_client(client),
            Chunk::Subscription(subscription) => self.take_subscription(subscription),
            Chunk::Delivery(delivery) => self.take_delivery(delivery),
            Chunk::Retained(message) => self.retained.push(*message),
        }
    }

    fn is_over(&self, at_s: u64) -> bool {
        at_s.saturating_mul(1_000_000) <= self.now_us
    }

    fn take_message(&mut self, message: &Message<'_>) {
        let known = match topic_of(message.topic) {
            Err(reason) => Known::LeftOut(reason),
            Ok(_) if message.expires_s.is_some_and(|at| self.is_over(at)) => {
                Known::LeftOut(Reason::Expired)
            }
            Ok(topic) => {
                let content = OwnedContent {
                    topic: topic.into(),
                    payload: message.payload.into(),
                    passed_on: self.passed_on(message.properties),
                    expires_us: message.expires_s.map(|at| at.saturating_mul(1_000_000)),
                    qos: message.qos,
                };
                Known::Message { content: SharedContent::new(content), retain: message.retain }
            }
        };
        self.messages.insert(message.id, known);
    }

    /// The properties that are forwarded to subscribers, encoded.
    fn passed_on(&mut self, properties: &[u8]) -> Box<[u8]> {
        let mut out = Vec::new();
        if !properties.is_empty() {
            match PublishProperties::decode_section(properties) {
                Ok(properties) => properties.passed_on.write(&mut out),
                Err(_) => self.report.without_properties += 1,
            }
        }
        out.into()
    }

    fn take_client(&mut self, client: &Client<'_>) {
        let reason = match std::str::from_utf8(client.client) {
            Err(_) | Ok("") => Reason::Name,
            Ok(name) if self.sessions.contains_key(name) => Reason::Twice,
            Ok(name) => {
                let reason = self.reason_against(name, client);
                let session = reason.is_none().then(|| self.session_of(name, client));
                self.sessions.insert(name.into(), session);
                match reason {
                    None => return,
                    Some(reason) => reason,
                }
            }
        };
        self.report.leave_out(Kind::Session, reason, 1);
    }

    fn reason_against(&self, name: &str, client: &Client<'_>) -> Option<Reason> {
        if name.starts_with(BRIDGE) {
            Some(Reason::Bridge)
        } else if name.contains('\0') {
            Some(Reason::Name)
        } else if client.expiry_interval_s == 0 {
            Some(Reason::Ends)
        } else {
            let has_expired = client.expires_s.is_some_and(|at| self.is_over(at));
            has_expired.then_some(Reason::Expired)
        }
    }

    fn session_of(&mut self, name: &str, client: &Client<'_>) -> Collected {
        let expiry_interval_s = client.expiry_interval_s;
        let since_s = client.expires_s.map(|at| at.saturating_sub(expiry_interval_s.into()));
        // Without a time the client was connected, or the session never expires: its absence begins now.
        let since_us = since_s.map_or(self.now_us, |since_s| since_s.saturating_mul(1_000_000));
        let session = image::Session {
            client_identifier: name.into(),
            owner: self.owner_of(client.user),
            expiry_interval_s,
            away_since_us: Some(since_us.min(self.now_us)),
            ..image::Session::default()
        };
        Collected { session, ..Collected::default() }
    }

    fn owner_of(&mut self, user: &[u8]) -> Option<Box<str>> {
        if user.is_empty() || !self.options.owners {
            return None;
        }
        let name = std::str::from_utf8(user).ok().filter(|name| !name.contains(char::is_control));
        if name.is_none() {
            self.report.leave_out(Kind::Owner, Reason::Believed, 1);
        }
        name.map(Into::into)
    }

    /// The session of a client in the file, unless it is left out, with what refers to it.
    fn find(&mut self, client: &[u8], kind: Kind) -> Option<&mut Collected> {
        let found = std::str::from_utf8(client).ok().and_then(|name| self.sessions.get_mut(name));
        let reason = match found {
            Some(Some(session)) => return Some(session),
            Some(None) => Reason::OfSession,
            None => Reason::NoSession,
        };
        self.report.leave_out(kind, reason, 1);
        None
    }

    fn take_subscription(&mut self, of: &Subscription<'_>) {
        let filter = std::str::from_utf8(of.filter)
            .ok()
            .filter(|filter| shards::TopicFilter::parse(filter, usize::MAX).is_ok());
        let Some(session) = self.find(of.client, Kind::Subscription) else { return };
        let Some(filter) = filter else {
            return self.report.leave_out(Kind::Subscription, Reason::Name, 1);
        };
        let subscription = image::Subscription {
            qos: of.qos,
            no_local: of.no_local,
            retain_as_published: of.retain_as_published,
            identifier: of.identifier,
        };
        session.session.subscriptions.insert(filter.into(), subscription);
    }

    /// Takes the Will of a client that was taken before.
    #[cfg(feature = "mosquitto-sqlite")]
    pub(super) fn take_will(&mut self, of: &super::chunk::Will<'_>) {
        let topic = topic_of(of.topic);
        let passed_on = self.passed_on(of.properties);
        let Some(session) = self.find(of.client, Kind::Will) else { return };
        let topic = match topic {
            Ok(topic) => topic.into(),
            Err(reason) => return self.report.leave_out(Kind::Will, reason, 1),
        };
        let (payload, qos, retain) = (of.payload.into(), of.qos, of.retain);
        let content = OwnedContent { topic, payload, passed_on, expires_us: None, qos };
        let message_expiry_interval_s = None;
        match of.due_s {
            Some(due_s) => {
                let due_us = due_s.saturating_mul(1_000_000);
                session.session.will = Some(image::Will {
                    due_us,
                    content,
                    retain,
                    message_expiry_interval_s,
                    listener: None,
                });
            }
            None => {
                session.will = Some(HeldWill {
                    client_identifier: session.session.client_identifier.clone(),
                    owner: None,
                    delay_interval_s: of.delay_interval_s,
                    content,
                    retain,
                    message_expiry_interval_s,
                    listener: None,
                });
            }
        }
    }

    fn take_delivery(&mut self, of: &Delivery<'_>) {
        let kind = match (of.way, of.stage) {
            (Way::In, _) => Kind::Received,
            (Way::Out, Stage::Queued) => Kind::Queued,
            (Way::Out, _) => Kind::Inflight,
        };
        let message = match self.messages.get(&of.message) {
            Some(Known::Message { content, retain }) => Ok((content.clone(), *retain)),
            Some(Known::LeftOut(reason)) => Err(*reason),
            None => Err(Reason::NoMessage),
        };
        let identifiers = PublishProperties::decode_section(of.properties)
            .map(|properties| properties.subscription_identifiers.into_iter().collect())
            .unwrap_or_default();
        let Some(session) = self.find(of.client, kind) else { return };
        let outcome = match (of.way, of.stage) {
            (Way::In, _) => session.waiting.receive(of.packet_identifier, message.ok()),
            (Way::Out, Stage::Released) => session.waiting.release(of.packet_identifier),
            (Way::Out, _) if of.qos == 0 => Err(Reason::Qos0),
            (Way::Out, stage) => message
                .and_then(|(content, _)| session.waiting.deliver(of, stage, content, identifiers)),
        };
        if let Err(reason) = outcome {
            self.report.leave_out(kind, reason, 1);
        }
    }

    /// Adds everything to an image, except for clients that have a session there and topics that have a retained
    /// message there. What was taken and what not.
    pub fn add_to(self, image: &mut Image) -> Report {
        let Self { messages, sessions, retained, mut report, .. } = self;
        let mut retained = retained_of(messages, retained, &mut report);
        let mut add = Additions::to(image);
        for collected in sessions.into_values().flatten() {
            collected.add(&mut add, &mut retained, &mut report);
        }
        for content in retained.into_values() {
            match add.retained(content) {
                true => report.take(Kind::Retained, 1),
                false => report.leave_out(Kind::Retained, Reason::InStore, 1),
            }
        }
        report
    }
}

type RetainedMessages = BTreeMap<Box<str>, OwnedContent>;

/// The retained messages by topic. They leave the table, so that those that nobody else has are not copied.
fn retained_of(
    mut messages: HashMap<MessageId, Known>,
    ids: Vec<MessageId>,
    report: &mut Report,
) -> RetainedMessages {
    let mut retained = BTreeMap::new();
    for id in ids {
        let reason = match messages.remove(&id) {
            Some(Known::Message { content, .. }) => match content.into_content() {
                Some(content) if content.payload.is_empty() => Reason::Empty,
                Some(content) => {
                    retained.insert(content.topic.clone(), content);
                    continue;
                }
                None => Reason::NoMessage,
            },
            Some(Known::LeftOut(reason)) => reason,
            None => Reason::NoMessage,
        };
        report.leave_out(Kind::Retained, reason, 1);
    }
    retained
}

impl Collected {
    /// Adds the session to an image. Messages of which the client has not sent PUBREL are published when the broker
    /// starts, as Mosquitto would do at the PUBREL; those with RETAIN are retained.
    fn add(self, add: &mut Additions<'_>, retained: &mut RetainedMessages, report: &mut Report) {
        let Self { mut session, waiting, will } = self;
        let Exchange { inflight, queue, received, forwards, queued_again, identifiers_lost } =
            waiting.end();
        let counts = [
            (Kind::Session, 1),
            (Kind::Subscription, session.subscriptions.len()),
            (Kind::Queued, queue.len()),
            (Kind::Inflight, inflight.len()),
            (Kind::Received, received.len()),
            (Kind::Will, usize::from(will.is_some() || session.will.is_some())),
            (Kind::Owner, usize::from(session.owner.is_some())),
        ];
        (session.inflight, session.queue, session.received) = (inflight, queue, received);
        let Some(number) = add.session(session) else {
            for (kind, count) in counts {
                let reason =
                    if kind == Kind::Session { Reason::InStore } else { Reason::OfSession };
                report.leave_out(kind, reason, count);
            }
            return;
        };
        counts.into_iter().for_each(|(kind, count)| report.take(kind, count));
        report.queued_again += queued_again;
        report.leave_out(Kind::Inflight, Reason::Identifier, identifiers_lost);
        if let Some(will) = will {
            add.will(number, will);
        }
        for (content, retain) in forwards {
            if retain && let Some(content) = content.get() {
                retained.remove(&content.topic);
                if !content.payload.is_empty() {
                    retained.insert(content.topic.clone(), content.clone());
                }
            }
            add.forward(content, retain);
        }
    }
}

/// The topic of a message that may be imported.
fn topic_of(topic: &[u8]) -> Result<&str, Reason> {
    let topic = std::str::from_utf8(topic).map_err(|_| Reason::Name)?;
    if shards::check_topic_name(topic, usize::MAX).is_err() {
        Err(Reason::Name)
    } else if topic == "$SYS" || topic.starts_with("$SYS/") {
        Err(Reason::Sys)
    } else {
        Ok(topic)
    }
}
