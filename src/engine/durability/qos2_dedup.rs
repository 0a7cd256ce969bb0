//! The duplicate filter for QoS 2 messages from before a crash: a publisher that was not acknowledged
//! sends such a message again, and sessions that already have the message must not get it twice.

use std::collections::{HashMap, HashSet};

use shards::SubscriptionIndex;

use crate::base::ids::SessionId;
use crate::engine::connections::pending_acks::Promise;
use crate::engine::durability::Durability;
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
pub(in crate::engine) struct Qos2Exchange {
    pub exchange: Exchange,
    /// DUP flag: only a message that is sent again can be a duplicate.
    pub dup: bool,
}

/// The QoS 2 exchanges that a crash left open.
#[derive(Debug, Default)]
pub(in crate::engine) struct Qos2Dedup {
    /// Sessions of this core that have the message of an exchange.
    taken: HashMap<Exchange, HashSet<SessionNumber>>,
    /// By home publisher and Packet Identifier, the sessions of all cores that have the message. Only
    /// the publisher's core logs them at a checkpoint, as only that core knows when the publisher has
    /// been acknowledged.
    by_publisher: HashMap<SessionNumber, HashMap<u16, HashSet<SessionNumber>>>,
    /// By exchange of a home publisher, the shared subscriptions of which a member has the message.
    by_group: HashMap<Exchange, HashSet<Box<str>>>,
}

impl Qos2Dedup {
    /// Takes the open exchanges of an image, of which `sessions` are restored on this core.
    pub(super) fn restore(
        &mut self,
        mut taken: HashMap<Exchange, HashSet<SessionNumber>>,
        mut by_group: HashMap<Exchange, HashSet<Box<str>>>,
        sessions: &HashMap<SessionNumber, image::Session>,
    ) {
        for (&Exchange { publisher, packet_identifier }, have) in &taken {
            if sessions.contains_key(&publisher) {
                let of_publisher = self.by_publisher.entry(publisher).or_default();
                of_publisher.insert(packet_identifier, have.clone());
            }
        }
        taken.retain(|_, have| {
            have.retain(|session| sessions.contains_key(session));
            !have.is_empty()
        });
        self.taken = taken;
        by_group.retain(|exchange, _| sessions.contains_key(&exchange.publisher));
        self.by_group = by_group;
    }

    /// A publisher's session has ended, and its exchanges with it.
    pub(super) fn end_publisher(&mut self, publisher: SessionNumber) {
        self.by_publisher.remove(&publisher);
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
        let mut has_sessions = false;
        if let Some(of_publisher) = self.by_publisher.get_mut(&exchange.publisher) {
            has_sessions = of_publisher.remove(&exchange.packet_identifier).is_some();
            if of_publisher.is_empty() {
                self.by_publisher.remove(&exchange.publisher);
            }
        }
        let has_groups = self.by_group.remove(&exchange).is_some();
        has_sessions || has_groups
    }

    /// Logs all open exchanges of home publishers, for a checkpoint.
    pub(super) fn log(&self, journal: &mut Journal) {
        for (&publisher, exchanges) in &self.by_publisher {
            for (&packet_identifier, sessions) in exchanges {
                for &session in sessions {
                    journal.write(&Record::Taken { session, publisher, packet_identifier });
                }
            }
        }
        for (&exchange, groups) in &self.by_group {
            groups.iter().for_each(|filter| journal.write(&taken_by_group(exchange, filter)));
        }
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
        let Some(groups) = self.dedup.by_group.get(&message.exchange) else { return false };
        match subscription.here {
            Some(here) => groups.contains(&*index.text(here)),
            None => groups.contains(&*subscription.text),
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
