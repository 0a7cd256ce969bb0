//! The duplicate filter for QoS 2 messages from before a crash: a publisher that was not acknowledged
//! sends such a message again, and sessions that already have the message must not get it twice.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound::{Excluded, Unbounded};

use shards::SubscriptionIndex;

use crate::base::ids::SessionId;
use crate::engine::connections::pending_acks::Promise;
use crate::engine::durability::Durability;
use crate::engine::durability::checkpoint_part::CheckpointPart;
use crate::engine::durability::journal::Journal;
use crate::engine::mesh::Mesh;
use crate::engine::routing::recipients::SharedSubscription;
use crate::session::state::Session;
use crate::session::table::SessionTable;
use crate::storage::image;
use crate::storage::record::{Exchange, Record, SessionNumber};
use crate::wire::{Publish, Qos};

/// The exchange of a QoS 2 message that must reach each session once, even if its publisher sends the
/// message again after a crash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Qos2Exchange {
    pub exchange: Exchange,
    /// DUP flag: only a message that is sent again can be a duplicate.
    pub dup: bool,
}

/// The QoS 2 exchanges that a crash left open.
#[derive(Debug, Default)]
pub(in crate::engine) struct Qos2Dedup {
    /// Sessions of this core that have the message of an exchange.
    taken: HashMap<Exchange, HashSet<SessionNumber>>,
    /// Exchanges of home publishers with the sessions of all cores that have the message. Only
    /// the publisher's core logs them at a checkpoint, as only that core knows when the publisher has
    /// been acknowledged.
    by_publisher: BTreeSet<(Exchange, SessionNumber)>,
    /// Exchanges of home publishers with the shared subscriptions of which a member has the message.
    by_group: BTreeSet<(Exchange, Box<str>)>,
}

/// How far a checkpoint has logged the open exchanges: the last ones that were logged.
#[derive(Debug, Default)]
pub(super) struct LoggedExchanges {
    session: Option<(Exchange, SessionNumber)>,
    group: Option<(Exchange, Box<str>)>,
}

impl Qos2Dedup {
    /// Takes the open exchanges of an image, of which `sessions` are restored on this core.
    pub(super) fn restore(
        &mut self,
        mut taken: HashMap<Exchange, HashSet<SessionNumber>>,
        by_group: HashMap<Exchange, HashSet<Box<str>>>,
        sessions: &HashMap<SessionNumber, image::Session>,
    ) {
        let is_home = |exchange: &Exchange| sessions.contains_key(&exchange.publisher);
        for (&exchange, have) in taken.iter().filter(|(exchange, _)| is_home(exchange)) {
            self.by_publisher.extend(have.iter().map(|&session| (exchange, session)));
        }
        taken.retain(|_, have| {
            have.retain(|session| sessions.contains_key(session));
            !have.is_empty()
        });
        self.taken = taken;
        for (exchange, groups) in by_group.into_iter().filter(|(exchange, _)| is_home(exchange)) {
            self.by_group.extend(groups.into_iter().map(|group| (exchange, group)));
        }
    }

    /// A publisher's session has ended, and its exchanges with it.
    pub(super) fn end_publisher(&mut self, publisher: SessionNumber) {
        let first = Exchange { publisher, packet_identifier: 0 };
        let of_publisher = self.by_publisher.range((first, SessionNumber(0))..);
        let mut identifiers: Vec<u16> = of_publisher
            .map_while(|(of, _)| (of.publisher == publisher).then_some(of.packet_identifier))
            .collect();
        identifiers.dedup();
        for packet_identifier in identifiers {
            self.end_of_sessions(Exchange { publisher, packet_identifier });
        }
    }

    /// Forgets the sessions that have the message of an exchange; whether there were any.
    fn end_of_sessions(&mut self, exchange: Exchange) -> bool {
        let all = (exchange, SessionNumber(0))..=(exchange, SessionNumber(u64::MAX));
        let mut has_any = false;
        while let Some(&first) = self.by_publisher.range(all.clone()).next() {
            self.by_publisher.remove(&first);
            has_any = true;
        }
        has_any
    }

    /// The shared subscriptions of which a member has the message of an exchange.
    fn groups_of(&self, exchange: Exchange) -> impl Iterator<Item = &str> {
        let of_exchange = self.by_group.range((exchange, Box::from(""))..);
        of_exchange.map_while(move |(of, group)| (*of == exchange).then_some(&**group))
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.by_publisher.is_empty() && self.by_group.is_empty()
    }

    fn has(&self, session: &Session, exchange: &Exchange) -> bool {
        let taken = self.taken.get(exchange);
        session.number().is_some_and(|number| taken.is_some_and(|taken| taken.contains(&number)))
    }

    /// Forgets an exchange. True when the other cores have to forget it too.
    fn end(&mut self, exchange: Exchange) -> bool {
        self.taken.remove(&exchange);
        let has_sessions = self.end_of_sessions(exchange);
        let groups: Vec<Box<str>> = self.groups_of(exchange).map(Box::from).collect();
        let has_groups = !groups.is_empty();
        for group in groups {
            self.by_group.remove(&(exchange, group));
        }
        has_sessions || has_groups
    }

    /// Logs open exchanges of home publishers, for a checkpoint; whether that was all.
    pub(super) fn log(
        &self,
        journal: &mut Journal,
        up_to: &mut LoggedExchanges,
        part: &mut CheckpointPart,
    ) -> bool {
        let from = up_to.session.map_or(Unbounded, Excluded);
        for &(exchange, session) in self.by_publisher.range((from, Unbounded)) {
            if part.is_full(journal) {
                return false;
            }
            part.look_at(1);
            up_to.session = Some((exchange, session));
            let Exchange { publisher, packet_identifier } = exchange;
            journal.write(&Record::Taken { session, publisher, packet_identifier });
        }
        let from = up_to.group.clone().map_or(Unbounded, Excluded);
        for of_group in self.by_group.range((from, Unbounded)) {
            if part.is_full(journal) {
                return false;
            }
            part.look_at(1);
            up_to.group = Some(of_group.clone());
            let (exchange, filter) = of_group;
            journal.write(&taken_by_group(*exchange, filter));
        }
        true
    }
}

impl Durability {
    /// The exchange of a QoS 2 message, of which some sessions may have stored their delivery before
    /// others, on other cores or in later turns.
    #[inline]
    pub(in crate::engine) fn exchange_of(
        &self,
        sessions: &SessionTable,
        session: SessionId,
        publish: &Publish<'_>,
    ) -> Option<Qos2Exchange> {
        if !self.has_journal() || publish.qos != Qos::ExactlyOnce {
            return None;
        }
        let publisher = sessions[session].number()?;
        let packet_identifier = publish.packet_identifier?.get();
        Some(Qos2Exchange { exchange: Exchange { publisher, packet_identifier }, dup: publish.dup })
    }

    /// Records to be stored before a message is acknowledged. The receipt is logged together with the
    /// deliveries, or, where other cores have some of them, once they have stored theirs: so a message that
    /// a client sends again after a crash is never taken for a duplicate of a lost one.
    #[inline]
    pub(in crate::engine) fn promise_of(
        &self,
        sessions: &SessionTable,
        session: SessionId,
        publish: &Publish<'_>,
        batch: Option<u64>,
    ) -> Promise {
        let is_kept = self.has_journal()
            && publish.qos == Qos::ExactlyOnce
            && sessions[session].number().is_some();
        let receives = publish.packet_identifier.filter(|_| is_kept);
        Promise { batch, receives, fans_out: false }
    }

    /// Whether a session has a message from before a crash that its publisher sends again now.
    #[inline]
    pub(in crate::engine) fn is_duplicate(
        &self,
        session: &Session,
        message: Option<Qos2Exchange>,
    ) -> bool {
        message.is_some_and(|message| {
            message.dup
                && !self.dedup.taken.is_empty()
                && self.dedup.has(session, &message.exchange)
        })
    }

    /// Whether a member of a shared subscription has a message from before a crash that its publisher
    /// sends again now.
    pub(in crate::engine) fn is_duplicate_of_group(
        &self,
        subscription: &SharedSubscription,
        message: Option<Qos2Exchange>,
        index: &SubscriptionIndex,
    ) -> bool {
        let Some(message) = message.filter(|message| message.dup) else { return false };
        let mut groups = self.dedup.groups_of(message.exchange);
        match subscription.here {
            Some(here) => {
                let text = index.text(here);
                groups.any(|group| *group == *text)
            }
            None => groups.any(|group| *group == *subscription.text),
        }
    }

    /// Whether no exchange from before a crash is open on this core.
    pub(in crate::engine) fn has_no_duplicates(&self) -> bool {
        self.dedup.taken.is_empty() && self.dedup.by_group.is_empty()
    }

    /// A message arrives that is not sent again: an earlier exchange of the same Packet Identifier is
    /// over.
    #[inline]
    pub(in crate::engine) fn begin_exchange(
        &mut self,
        message: Option<Qos2Exchange>,
        mesh: &mut Mesh,
    ) {
        if let Some(message) = message.filter(|message| !message.dup) {
            self.end_exchange(message.exchange, mesh);
        }
    }

    /// The publisher knows, or is about to learn, that its message from before a crash was received:
    /// from then on the Packet Identifier means another message. The other cores learn of this before
    /// they can get that message.
    #[inline]
    pub(super) fn end_exchange(&mut self, exchange: Exchange, mesh: &mut Mesh) {
        if !self.dedup.is_empty() && self.dedup.end(exchange) {
            mesh.send_exchange_over(exchange);
        }
    }

    /// The publisher's core reports that an exchange from before a crash is over.
    pub(in crate::engine) fn note_exchange_over(&mut self, exchange: Exchange) {
        self.dedup.taken.remove(&exchange);
    }
}

/// The record that a member of a shared subscription has the message of an exchange.
pub(super) fn taken_by_group(exchange: Exchange, filter: &str) -> Record<'_> {
    let Exchange { publisher, packet_identifier } = exchange;
    Record::TakenByGroup { publisher, packet_identifier, filter }
}
