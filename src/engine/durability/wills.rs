//! The Will, from CONNECT until it is published or cancelled, also through the end of the broker.
//!
//! Where there is a store it has the Wills of clients that are connected, whether or not their
//! sessions are kept. A broker that ends, however it ends, ends their connections, and they are due
//! [MQTT-3.1.2-8]; but their clients did not fail. A server may put them off until it runs again
//! (MQTT 5.0, section 3.1.2.5): the next start gives everybody time to come back, and publishes the
//! Wills of those who do not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use shards::Text;

use crate::base::clock::{Deadline, Now};
use crate::base::ids::SessionId;
use crate::base::limits;
use crate::base::log_rate::{name, rated};
use crate::base::metrics::Drop as DropCause;
use crate::engine::access::AccessControl;
use crate::engine::client_identifiers::is_assigned;
use crate::engine::durability::journal::Journal;
use crate::engine::packets::disconnect::Ending;
use crate::engine::routing::deliver::Origin;
use crate::engine::work::Work;
use crate::engine::{Engine, Timer};
use crate::message;
use crate::resources::gauges::Ledger;
use crate::session::state::{Session, Will};
use crate::storage::image::{HeldWill, OwnedContent};
use crate::storage::record::{Content, Record, SessionNumber};
use crate::wire::{self, Qos};

/// Wills of clients that were connected when the process before this one ended.
#[derive(Debug, Default)]
pub(in crate::engine) struct LeftWills {
    /// In the order in which they are due; none where the client came back.
    line: VecDeque<Option<LeftWill>>,
    /// How many have left the line at its front.
    gone: usize,
    /// Where a client's Will stands, counted from the first one ever.
    places: HashMap<Arc<str>, usize>,
    /// Since when their clients can come back; none before the first turn.
    since: Option<Now>,
    /// The highest stamp of a retained message before that.
    stamp_max: u64,
}

#[derive(Debug)]
struct LeftWill {
    session: SessionNumber,
    client_identifier: Arc<str>,
    /// As which user its client was known.
    user: Option<Box<str>>,
    /// Seconds that its client has.
    grace_s: u32,
    will: Will,
}

impl LeftWills {
    /// Takes the Will of a client away.
    fn take(&mut self, client_identifier: &str, ledger: &Ledger) -> Option<LeftWill> {
        let place = self.places.remove(client_identifier)?;
        let left = self.line.get_mut(place - self.gone)?.take()?;
        ledger.release(left.bytes());
        Some(left)
    }

    /// When the first one is due whose client is not back.
    fn next_due(&mut self) -> Option<Deadline> {
        while self.line.pop_front_if(|left| left.is_none()).is_some() {
            self.gone += 1;
        }
        let first = self.line.front()?.as_ref()?;
        Some(self.since?.after_s(first.grace_s.into()))
    }

    /// Takes the first one whose time is over.
    fn pop_due(&mut self, now: Now, ledger: &Ledger) -> Option<LeftWill> {
        self.next_due().filter(|due| due.is_due(now))?;
        let left = self.line.pop_front()??;
        self.gone += 1;
        self.places.remove(&left.client_identifier);
        ledger.release(left.bytes());
        Some(left)
    }

    /// Tells those from a place on anew, until enough is told; where to go on, if not at the end.
    pub(in crate::engine) fn tell_anew(&self, journal: &mut Journal, from: usize) -> Option<usize> {
        for place in from.max(self.gone)..self.gone + self.line.len() {
            if journal.bytes() >= limits::CHECKPOINT_BYTES {
                return Some(place);
            }
            if let Some(left) = &self.line[place - self.gone] {
                let (client, delay_s) = (&left.client_identifier, left.will.delay_interval_s);
                write_held(journal, left.session, client, delay_s, &left.will);
                write_user(journal, left.session, left.user.as_deref());
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

impl Engine {
    /// A client is let in: its Will is kept while it is connected.
    pub(in crate::engine) fn hold_will(&mut self, index: SessionId) {
        let own = self.core();
        let (Some(journal), state) = (&mut self.journal, &mut self.sessions[index]) else {
            return;
        };
        let unkept = SessionNumber::new(self.connections.round(), own.0, state.generation);
        let session = state.number().unwrap_or(unkept);
        let Some(will) = &mut state.will else { return };
        will.held = Some(session);
        tell_held(journal, state);
    }

    /// A Will that was kept while its client was connected is that no more.
    fn tell_over(&mut self, held: Option<SessionNumber>) {
        if let (Some(session), Some(journal)) = (held, &mut self.journal) {
            journal.write(&Record::WillOver { session });
        }
    }

    /// Publishes the Will, sets it aside for its delay, or cancels it [MQTT-3.1.2-8],
    /// [MQTT-3.1.2-10], [MQTT-3.1.3-9].
    pub(in crate::engine) fn settle_will(&mut self, index: SessionId, ending: Ending) {
        let session = &mut self.sessions[index];
        if !ending.publishes_will() {
            let will = session.take_will(self.place.ledger());
            if ending != Ending::Shutdown {
                self.tell_over(will.and_then(|will| will.held));
            }
            return;
        }
        let Some(will) = &session.will else { return };
        let delay_s = session.delay_of(will);
        if delay_s == 0 {
            return self.publish_will(index);
        }
        let deadline = self.now.after_s(u64::from(delay_s));
        let Some(will) = &mut session.will else { return };
        will.due = Some(deadline);
        let held = will.held.take();
        self.arm_session(index, deadline);
        let state = &self.sessions[index];
        if let (Some(journal), Some(session)) = (&mut self.journal, state.number()) {
            write_waiting(journal, session, state);
        }
        self.tell_over(held);
    }

    /// Publishes the Will of a session, if it has one.
    pub(in crate::engine) fn publish_will(&mut self, index: SessionId) {
        let Some(will) = self.sessions[index].take_will(self.place.ledger()) else {
            return;
        };
        let state = &self.sessions[index];
        let (user, client) = (state.owner(), &state.client_identifier);
        if may_publish(&mut self.access, user, client, &will, &mut self.work) {
            self.publish_as_will(&will, Some(index));
        } else {
            self.withhold_will(&will);
        }
        if let (Some(_), Some(journal), Some(session)) =
            (will.due, &mut self.journal, self.sessions[index].number())
        {
            journal.write(&Record::WillSent { session });
        }
        self.tell_over(will.held);
    }

    /// The rules have changed since a client was let in with its Will.
    fn withhold_will(&mut self, will: &Will) {
        self.metrics.drops.add(DropCause::NotAuthorized, 1);
        rated!(
            info,
            self.now,
            topic = name(&will.topic),
            "a Will is not published: the rules do not let its client publish there any more"
        );
    }

    /// `session` is its client's, where that is known.
    fn publish_as_will(&mut self, will: &Will, session: Option<SessionId>) {
        let expires_s = will.message_expiry_interval_s;
        let expires = expires_s.map(|seconds| self.now.after_s(u64::from(seconds)));
        let content = will.as_message(expires);
        let mut stored = None;
        if will.retain {
            // A store that is full keeps the old value; the subscribers hear the new one.
            stored = self.retain(&content, session).ok();
        }
        let begun = self.router.fan_outs().begun();
        self.route(&content, &Origin::default(), will.retain, stored.as_ref());
        let fans_out = self.router.fan_outs().begun() > begun;
        // What the store knew of it gives way, in one batch, to its way to the other cores.
        if will.due.is_some() || will.held.is_some() {
            self.begin_passage_of_will(&content, will.retain, fans_out);
        }
    }

    /// Takes up the Wills of clients that were connected to the last.
    pub(in crate::engine) fn restore_wills(&mut self, held: HashMap<SessionNumber, HeldWill>) {
        let mut held: Vec<(SessionNumber, HeldWill)> = held.into_iter().collect();
        let grace_min_s = self.config.will_grace_s;
        // Of one client the later one counts, should there be more.
        let grace_s = |of: &HeldWill| match is_assigned(&of.client_identifier) {
            // Nobody can come back by it.
            true => 0,
            false => of.delay_interval_s.max(grace_min_s),
        };
        held.sort_unstable_by_key(|(session, will)| (grace_s(will), session.serial()));
        for (session, of) in held {
            let (delay_interval_s, grace_s) = (of.delay_interval_s, grace_s(&of));
            let will = Will::restored(of.content, of.retain, of.message_expiry_interval_s);
            let of_session = || {
                let index = self.sessions.find(&of.client_identifier)?;
                self.sessions[index].owner().map(Into::into)
            };
            let user = of.owner.or_else(of_session);
            let earlier = self.left_wills.take(&of.client_identifier, self.place.ledger());
            self.tell_over(earlier.map(|earlier| earlier.session));
            let Some(will) = will else {
                self.tell_over(Some(session));
                continue;
            };
            let left = LeftWill {
                session,
                client_identifier: of.client_identifier.into(),
                user,
                grace_s,
                will: Will { delay_interval_s, held: Some(session), ..will },
            };
            self.place.ledger().charge(left.bytes());
            let (name, place) = (Arc::clone(&left.client_identifier), self.left_wills.line.len());
            self.left_wills.places.insert(name, place);
            self.left_wills.line.push_back(Some(left));
        }
        self.count_left_wills();
        if !self.left_wills.places.is_empty() {
            self.timers.arm(self.now.after_s(0), Timer::LeftWills);
        }
    }

    /// A client is back: it did not fail.
    #[inline]
    pub(in crate::engine) fn cancel_left_will(&mut self, client_identifier: &str) {
        if !self.left_wills.places.is_empty()
            && let Some(left) = self.left_wills.take(client_identifier, self.place.ledger())
        {
            self.tell_over(Some(left.session));
            self.count_left_wills();
        }
    }

    /// Publishes the Wills of those who had time to come back and did not, a part in a turn.
    pub(in crate::engine) fn look_at_left_wills(&mut self) {
        if self.left_wills.since.is_none() {
            self.left_wills.since = Some(self.now);
            self.left_wills.stamp_max = self.retained.latest_stamp();
        }
        let mut published = 0;
        while published < limits::LEFT_WILLS_PER_TURN
            && let Some(left) = self.left_wills.pop_due(self.now, self.place.ledger())
        {
            published += 1;
            let client = Text::new(&left.client_identifier);
            let user = left.user.as_deref();
            match may_publish(&mut self.access, user, &client, &left.will, &mut self.work) {
                true if self.is_outdated(&left.will) => {}
                true => self.publish_as_will(&left.will, None),
                false => self.withhold_will(&left.will),
            }
            self.tell_over(left.will.held);
        }
        if published > 0 {
            rated!(
                info,
                self.now,
                wills = published,
                "published Wills of clients that did not come back"
            );
        }
        self.count_left_wills();
        match self.left_wills.next_due() {
            Some(due) => {
                let due = due.min(self.now.after_s(limits::TIMER_AHEAD_S));
                self.timers.arm(due, Timer::LeftWills);
            }
            None => self.left_wills = LeftWills::default(),
        }
    }

    /// Whether a retained Will of before the start would replace what was published to its topic since.
    fn is_outdated(&self, will: &Will) -> bool {
        let since_start = |stamp| stamp > self.left_wills.stamp_max;
        will.retain && self.retained.stamp(&will.topic).is_some_and(since_start)
    }

    fn count_left_wills(&mut self) {
        self.metrics.wills_left = self.left_wills.places.len() as u64;
    }
}

/// Tells the Will of a connected client, when it is let in and for a checkpoint.
pub(in crate::engine) fn tell_held(journal: &mut Journal, state: &Session) {
    if let Some(will) = &state.will
        && let Some(session) = will.held
    {
        let delay_s = state.delay_of(will);
        write_held(journal, session, state.client_identifier.as_str(), delay_s, will);
        if state.number().is_none() {
            // Of one that is kept the store knows whose it is.
            write_user(journal, session, state.owner());
        }
    }
}

/// Tells as whom the client of a Will was known: by that its right to publish it is judged.
fn write_user(journal: &mut Journal, session: SessionNumber, user: Option<&str>) {
    if let Some(owner) = user {
        journal.write(&Record::Owned { session, owner });
    }
}

/// Whether a client may still publish its Will.
fn may_publish(
    access: &mut AccessControl,
    user: Option<&str>,
    client_identifier: &Text,
    will: &Will,
    work: &mut Work,
) -> bool {
    let content = will.as_message(None);
    access.may_publish_will(user, client_identifier, &content, will.retain, work)
}

/// Tells the Will of a session that waits for its delay, if it has one.
pub(in crate::engine) fn write_waiting(
    journal: &mut Journal,
    session: SessionNumber,
    state: &Session,
) {
    let Some(will) = &state.will else { return };
    let Some(due) = will.due else { return };
    journal.write(&Record::Will {
        session,
        due_us: journal.wall_us(due),
        content: will.content(),
        retain: will.retain,
        message_expiry_interval_s: will.message_expiry_interval_s,
    });
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
        }
    }

    /// From the store; none when it is none that a client can have.
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
        })
    }

    /// As it is published.
    fn as_message(&self, expires: Option<Deadline>) -> message::Content<'_> {
        message::Content {
            topic: &self.topic,
            payload: &self.payload,
            passed_on: &self.passed_on,
            expires,
            qos: self.qos,
        }
    }

    /// As it is told to the store.
    fn content(&self) -> Content<'_> {
        Content {
            topic: &self.topic,
            payload: &self.payload,
            passed_on: &self.passed_on,
            expires_us: None,
            qos: self.qos.into(),
        }
    }
}
