//! Wills, from CONNECT until they are published or cancelled, across restarts of the broker.
//!
//! The store has the Wills of all connected clients, whether or not their sessions are stored. When the
//! broker ends, in whatever way, all connections end, and their Wills are due [MQTT-3.1.2-8], although
//! the clients did not fail. A server may defer them until it runs again (MQTT 5.0, section 3.1.2.5): the
//! next start gives the clients time to reconnect, and publishes the Wills of those that do not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use shards::Text;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::SessionId;
use crate::base::limits;
use crate::base::log_rate::{name, rated};
use crate::base::metrics::{Drop as DropCause, Metrics};
use crate::engine::access::{AccessControl, WillOwner};
use crate::engine::connections::ending::Ending;
use crate::engine::draft::Origin;
use crate::engine::durability::Durability;
use crate::engine::durability::checkpoint_part::CheckpointPart;
use crate::engine::durability::journal::Journal;
use crate::engine::listeners::{Listeners, NO_LISTENER};
use crate::engine::retained::RetainedStore;
use crate::engine::work::Work;
use crate::engine::{Engine, Timer};
use crate::message;
use crate::resources::gauges::{Charge, Ledger};
use crate::session::state::{Session, Will};
use crate::session::table::SessionTable;
use crate::storage::image::{HeldWill, OwnedContent};
use crate::storage::record::{Content, Record, SessionNumber};
use crate::wire::{self, Qos};

/// Wills of clients that were connected when the last process ended.
#[derive(Debug, Default)]
pub(super) struct LeftWills {
    /// In the order in which they are due; none where the client has reconnected.
    line: VecDeque<Option<LeftWill>>,
    /// The number of Wills that have left the line at its front.
    gone: usize,
    /// The place of each client's Will, counted from the first Will ever.
    places: HashMap<Arc<str>, usize>,
    /// Since when their clients can reconnect; none before the first turn.
    since: Option<Now>,
    /// The highest stamp of a retained message at that time.
    stamp_max: u64,
}

#[derive(Debug)]
struct LeftWill {
    session: SessionNumber,
    client_identifier: Arc<str>,
    /// The user name of the client.
    user: Option<Box<str>>,
    /// Seconds within which the client can reconnect.
    grace_s: u32,
    will: Will,
    /// Its bytes on the ledger.
    charge: Charge,
}

impl LeftWills {
    /// Removes the Will of a client.
    fn take(&mut self, client_identifier: &str) -> Option<LeftWill> {
        let place = self.places.remove(client_identifier)?;
        self.line.get_mut(place - self.gone)?.take()
    }

    /// When the next Will is due.
    fn next_due(&mut self) -> Option<Deadline> {
        while self.line.pop_front_if(|left| left.is_none()).is_some() {
            self.gone += 1;
        }
        let first = self.line.front()?.as_ref()?;
        Some(self.since?.after_s(first.grace_s.into()))
    }

    /// Removes the next Will if it is due.
    fn pop_due(&mut self, now: Now) -> Option<LeftWill> {
        self.next_due().filter(|due| due.is_due(now))?;
        let left = self.line.pop_front()??;
        self.gone += 1;
        self.places.remove(&left.client_identifier);
        Some(left)
    }

    /// Adds a Will behind the others.
    fn push(&mut self, mut left: LeftWill, ledger: &Ledger) {
        left.charge = Charge::of(ledger, left.bytes());
        let place = self.gone + self.line.len();
        self.places.insert(Arc::clone(&left.client_identifier), place);
        self.line.push_back(Some(left));
    }

    /// Logs the Wills from a place on, for a checkpoint, until the open batch is full; the place of the
    /// next one, if there is one.
    pub(super) fn log(
        &self,
        journal: &mut Journal,
        from: usize,
        part: &mut CheckpointPart,
    ) -> Option<usize> {
        for place in from.max(self.gone)..self.gone + self.line.len() {
            if part.is_full(journal) {
                return Some(place);
            }
            part.look_at(1);
            if let Some(left) = &self.line[place - self.gone] {
                let (client, delay_s) = (&left.client_identifier, left.will.delay_interval_s);
                write_held(journal, left.session, client, delay_s, &left.will);
                write_owner(journal, left.session, left.user.as_deref());
            }
        }
        None
    }
}

impl LeftWill {
    fn bytes(&self) -> usize {
        let user = self.user.as_ref().map_or(0, |user| user.len());
        size_of::<Self>() + self.will.bytes() + self.client_identifier.len() + user
    }
}

impl Durability {
    /// Whether a retained message was published since the start that a retained Will from before must not
    /// replace.
    fn is_outdated(&self, will: &Will, retained: &RetainedStore) -> bool {
        let stamp_max = self.left_wills.stamp_max;
        let since_start = |stamp| stamp > stamp_max;
        will.retain && retained.stamp(&will.topic).is_some_and(since_start)
    }

    /// A client connects with a Will: the Will is stored while the client is connected.
    pub(in crate::engine) fn append_held_will(&mut self, state: &mut Session, round: u32) {
        let session = state.number().unwrap_or(self.session_number(round, state.generation));
        let (Some(journal), Some(will)) = (&mut self.journal, &mut state.will) else { return };
        will.held = Some(session);
        log_held(journal, state);
    }

    /// The Will of a client that was connected has been published, delayed or cancelled.
    fn append_will_over(&mut self, held: Option<SessionNumber>) {
        if let Some(session) = held {
            self.append(&Record::WillOver { session });
        }
    }

    /// The number of Wills whose clients can still reconnect.
    pub(in crate::engine) fn left_wills(&self) -> usize {
        self.left_wills.places.len()
    }

    /// A client has reconnected: the Will that the last process left is cancelled.
    #[inline]
    pub(in crate::engine) fn cancel_left_will(&mut self, client_identifier: &str) {
        if !self.left_wills.places.is_empty()
            && let Some(left) = self.left_wills.take(client_identifier)
        {
            self.append_will_over(Some(left.session));
        }
    }

    /// Takes the Wills of clients that were connected when the last process ended. Each client has
    /// `grace_min_s` at least to reconnect, unless its Client Identifier was assigned.
    pub(super) fn restore_wills(
        &mut self,
        held: HashMap<SessionNumber, HeldWill>,
        sessions: &SessionTable,
        is_assigned: impl Fn(&str) -> bool,
        grace_min_s: u32,
        (listeners, ledger): (&Listeners, &Ledger),
    ) {
        let grace_s = |of: &HeldWill| match is_assigned(&of.client_identifier) {
            // No client can reconnect under an assigned Client Identifier.
            true => 0,
            false => of.delay_interval_s.max(grace_min_s),
        };
        let mut held: Vec<(SessionNumber, HeldWill)> = held.into_iter().collect();
        // Sessions of several cores may have the same serial number.
        held.sort_unstable_by_key(|(session, will)| (grace_s(will), session.serial(), *session));
        for (session, of) in held {
            let (delay_interval_s, grace_s) = (of.delay_interval_s, grace_s(&of));
            let will = Will::restored(of.content, of.retain, of.message_expiry_interval_s);
            let will = will.map(|will| will.came_through(of.listener, listeners));
            let of_session = || {
                let id = sessions.find(&of.client_identifier)?;
                sessions[id].owner().map(Into::into)
            };
            let user = of.owner.or_else(of_session);
            // A client has one Will: the latest.
            let earlier = self.left_wills.take(&of.client_identifier);
            self.append_will_over(earlier.map(|earlier| earlier.session));
            let Some(will) = will else {
                self.append_will_over(Some(session));
                continue;
            };
            let will = Will { delay_interval_s, held: Some(session), ..will };
            let client_identifier = of.client_identifier.into();
            self.left_wills.push(
                LeftWill {
                    session,
                    client_identifier,
                    user,
                    grace_s,
                    will,
                    charge: Charge::default(),
                },
                ledger,
            );
        }
    }
}

impl Engine {
    /// The connection of a session has ended: publishes its Will, delays the Will, or cancels it
    /// [MQTT-3.1.2-8], [MQTT-3.1.2-10], [MQTT-3.1.3-9].
    pub(in crate::engine) fn dispose_will(&mut self, id: SessionId, ending: Ending) {
        let session = &mut self.sessions[id];
        if !ending.publishes_will() {
            let will = session.will.take();
            if ending != Ending::Shutdown {
                self.durability.append_will_over(will.and_then(|will| will.held));
            }
            return;
        }
        let Some(will) = &session.will else { return };
        let mut delay_s = session.delay_of(will);
        if ending == Ending::Drained && session.is_persistent() {
            // As at the next start: its client did not fail, and may come back to its session at another node.
            delay_s = delay_s.max(self.config.will_grace_s);
        }
        if delay_s == 0 {
            return self.publish_will(id);
        }
        let deadline = self.now.after_s(u64::from(delay_s));
        let Some(will) = &mut session.will else { return };
        will.due = Some(deadline);
        let held = will.held.take();
        self.timers.arm_session(self.now, id, &mut self.sessions, deadline);
        let state = &self.sessions[id];
        if let (Some(journal), Some(session)) = (&mut self.durability.journal, state.number()) {
            log_delayed(journal, session, state);
        }
        self.durability.append_will_over(held);
    }

    /// The Will that the last process left for the client of a stored session becomes a delayed one of that session, so that
    /// it goes where the session goes.
    #[cfg(feature = "cluster")]
    pub(in crate::engine) fn delay_left_will(&mut self, id: SessionId) {
        let client = self.sessions[id].client_identifier.as_str();
        let Some(left) = self.durability.left_wills.take(client) else { return };
        let since = self.durability.left_wills.since.unwrap_or(self.now);
        let due = since.after_s(left.grace_s.into());
        let will = Will { due: Some(due), held: None, ..left.will };
        self.sessions[id].set_will(will, self.memory.ledger());
        self.note_delayed_will(id);
        self.durability.append_will_over(Some(left.session));
    }

    /// A session without a client has a Will that is due later: logs it, and arms its timer.
    #[cfg(feature = "cluster")]
    pub(in crate::engine) fn note_delayed_will(&mut self, id: SessionId) {
        let state = &self.sessions[id];
        let Some(due) = state.will.as_ref().and_then(|will| will.due) else { return };
        if let (Some(journal), Some(session)) = (&mut self.durability.journal, state.number()) {
            log_delayed(journal, session, state);
        }
        self.timers.arm_session(self.now, id, &mut self.sessions, due);
    }

    /// Publishes the Will of a session, if it has one.
    pub(in crate::engine) fn publish_will(&mut self, id: SessionId) {
        let state = &mut self.sessions[id];
        let Some(will) = state.will.take() else { return };
        let (user, client) = (state.owner(), &state.client_identifier);
        let owner = WillOwner { user, client_identifier: client, listener: will.listener };
        if may_publish(&mut self.access, &owner, &will, &mut self.work) {
            self.publish_as_will(&will, Some(id));
        } else {
            note_denied(&mut self.metrics, self.now, &will);
        }
        if let (Some(_), Some(session)) = (will.due, self.sessions[id].number()) {
            self.durability.append(&Record::WillSent { session });
        }
        self.durability.append_will_over(will.held);
    }

    /// Publishes a Will; `session` is that of its client, if it is known.
    fn publish_as_will(&mut self, will: &Will, session: Option<SessionId>) {
        let expires_s = will.message_expiry_interval_s;
        let expires = expires_s.map(|seconds| self.now.after_s(u64::from(seconds)));
        let content = will.as_message(expires);
        let mut stored = None;
        if will.retain {
            // When retained messages are at their limit, the old one stays; subscribers get the new one.
            stored = self.retain(&content, session).ok();
        }
        self.report_published(&content, session, will.retain);
        let begun = self.router.fan_outs().begun();
        self.route(&content, &Origin::default(), will.retain, stored.as_ref());
        let fans_out = self.router.fan_outs().begun() > begun;
        // In the batch in which the stored Will ends, its way to the other cores begins.
        if will.due.is_some() || will.held.is_some() {
            self.begin_forward_of_will(&content, will.retain, fans_out);
        }
    }

    /// Publishes the Wills of clients that had time to reconnect and did not, a part in each turn.
    pub(in crate::engine) fn publish_left_wills(&mut self) {
        if self.durability.left_wills.since.is_none() {
            self.durability.left_wills.since = Some(self.now);
            self.durability.left_wills.stamp_max = self.retained.latest_stamp();
        }
        let mut published = 0;
        while published < limits::LEFT_WILLS_PER_TURN
            && let Some(left) = self.durability.left_wills.pop_due(self.now)
        {
            published += 1;
            let client = Text::new(&left.client_identifier);
            let user = left.user.as_deref();
            let owner =
                WillOwner { user, client_identifier: &client, listener: left.will.listener };
            match may_publish(&mut self.access, &owner, &left.will, &mut self.work) {
                true if self.durability.is_outdated(&left.will, &self.retained) => {}
                true => self.publish_as_will(&left.will, None),
                false => note_denied(&mut self.metrics, self.now, &left.will),
            }
            self.durability.append_will_over(left.will.held);
        }
        if published > 0 {
            rated!(
                info,
                self.now,
                wills = published,
                "published Wills of clients that did not reconnect after the restart"
            );
        }
        match self.durability.left_wills.next_due() {
            Some(due) => self.timers.arm_ahead(self.now, due, Timer::LeftWills),
            None => self.durability.left_wills = LeftWills::default(),
        }
    }
}

/// The access rules have changed since a client connected with its Will.
fn note_denied(metrics: &mut Metrics, now: Now, will: &Will) {
    metrics.drops.add(DropCause::NotAuthorized, 1);
    rated!(
        info,
        now,
        topic = name(&will.topic),
        "a Will is not published: the access rules no longer allow its client to publish there"
    );
}

/// Logs the Will of a connected client, at CONNECT and for a checkpoint.
pub(super) fn log_held(journal: &mut Journal, state: &Session) {
    if let Some(will) = &state.will
        && let Some(session) = will.held
    {
        let delay_s = state.delay_of(will);
        write_held(journal, session, state.client_identifier.as_str(), delay_s, will);
        if state.number().is_none() {
            // A stored session has a record of its owner.
            write_owner(journal, session, state.owner());
        }
    }
}

/// Logs the user name of a Will's client, which the access rules for publishing it depend on.
fn write_owner(journal: &mut Journal, session: SessionNumber, user: Option<&str>) {
    if let Some(owner) = user {
        journal.write(&Record::Owned { session, owner });
    }
}

/// Whether a client may still publish its Will.
fn may_publish(
    access: &mut AccessControl,
    owner: &WillOwner<'_>,
    will: &Will,
    work: &mut Work,
) -> bool {
    let content = will.as_message(None);
    access.may_publish_will(owner, &content, will.retain, will.is_granted, work)
}

/// Logs the Will of a session that waits for its delay, if there is one.
pub(super) fn log_delayed(journal: &mut Journal, session: SessionNumber, state: &Session) {
    let Some(will) = &state.will else { return };
    let Some(due) = will.due else { return };
    journal.write(&Record::Will {
        session,
        due_us: journal.wall_us(due),
        content: will.content(),
        retain: will.retain,
        message_expiry_interval_s: will.message_expiry_interval_s,
    });
    write_listener(journal, session, will);
}

/// Logs which listener the client of a Will came through: its access rules decide whether the Will is published.
fn write_listener(journal: &mut Journal, session: SessionNumber, will: &Will) {
    if let Some(listener) = &will.listener_name {
        journal.write(&Record::WillThrough { session, listener });
    }
}

fn write_held(
    journal: &mut Journal,
    session: SessionNumber,
    client_identifier: &str,
    delay_interval_s: u32,
    will: &Will,
) {
    journal.write(&Record::WillHeld {
        session,
        client_identifier,
        delay_interval_s,
        content: will.content(),
        retain: will.retain,
        message_expiry_interval_s: will.message_expiry_interval_s,
    });
    write_listener(journal, session, will);
}

impl Will {
    /// From a CONNECT.
    pub(in crate::engine) fn new(will: &wire::Will<'_>) -> Self {
        let mut passed_on = Vec::new();
        will.passed_on.write(&mut passed_on);
        Self {
            topic: will.topic.into(),
            payload: will.payload.into(),
            qos: will.qos,
            retain: will.retain,
            delay_interval_s: will.delay_interval_s,
            message_expiry_interval_s: will.message_expiry_interval,
            passed_on: passed_on.into(),
            due: None,
            held: None,
            is_granted: false,
            listener: NO_LISTENER,
            listener_name: None,
            charge: Charge::default(),
        }
    }

    /// From the store; none when no client can have sent such a Will.
    pub(in crate::engine) fn restored(
        content: OwnedContent,
        retain: bool,
        message_expiry_interval_s: Option<u32>,
    ) -> Option<Self> {
        shards::check_topic_name(&content.topic, usize::MAX).ok()?;
        Some(Self {
            topic: content.topic,
            payload: content.payload,
            qos: Qos::try_from(content.qos).unwrap_or(Qos::AtMostOnce),
            retain,
            delay_interval_s: 0,
            message_expiry_interval_s,
            passed_on: content.passed_on,
            due: None,
            held: None,
            is_granted: false,
            listener: NO_LISTENER,
            listener_name: None,
            charge: Charge::default(),
        })
    }

    /// The Will of a client that came through the listener with this address or path, if the store has it.
    pub(in crate::engine) fn came_through(
        self,
        listener: Option<Box<str>>,
        listeners: &Listeners,
    ) -> Self {
        let number = listener.as_deref().map_or(NO_LISTENER, |name| listeners.with_name(name));
        Self { listener: number, listener_name: listener.map(Into::into), ..self }
    }

    /// The message that is published.
    fn as_message(&self, expires: Option<Deadline>) -> message::Content<'_> {
        message::Content {
            topic: &self.topic,
            payload: &self.payload,
            passed_on: &self.passed_on,
            expires,
            qos: self.qos,
        }
    }

    /// The content of its record.
    pub(in crate::engine) fn content(&self) -> Content<'_> {
        Content {
            topic: &self.topic,
            payload: &self.payload,
            passed_on: &self.passed_on,
            expires_us: None,
            qos: self.qos.into(),
        }
    }
}
