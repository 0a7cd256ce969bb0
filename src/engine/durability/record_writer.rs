//! Appends a record to the journal for each change that must survive a crash: of sessions that outlive
//! their connection, and of retained messages. Each core logs its own sessions, and the retained messages
//! that were published on it.

use shards::{Subscription, SubscriptionIndex};

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, SessionId};
use crate::engine::durability::Durability;
use crate::engine::durability::qos2_dedup::{Qos2Exchange, taken_by_group};
use crate::engine::mesh::Mesh;
use crate::message;
use crate::session::inbound::Inbound;
use crate::session::outbound::{Delivery, Outbound};
use crate::session::state::Session;
use crate::session::table::SessionTable;
use crate::storage::commit::RecordRef;
use crate::storage::record::{Exchange, Record, SessionNumber};
use crate::wire::PacketIdentifier;

impl Durability {
    pub(super) fn append(&mut self, record: &Record<'_>) {
        if let Some(journal) = &mut self.journal {
            journal.write(record);
        }
    }

    /// The number under which a session is logged, if it is.
    fn number(&self, sessions: &SessionTable, id: SessionId) -> Option<SessionNumber> {
        self.journal.as_ref()?;
        sessions[id].number()
    }

    /// A client connects: its session is logged from here on, if the session outlives the connection.
    /// True when the store did not know the session before.
    pub(in crate::engine) fn append_connected(&mut self, state: &mut Session, round: u32) -> bool {
        let number = self.session_number(round, state.generation);
        let Some(journal) = &mut self.journal else { return false };
        let expiry_interval_s = state.expiry_interval_s;
        match (state.number(), state.is_persistent()) {
            (None, true) => {
                let [low, middle, high, _] = ((number.0 >> 32) as u32).to_le_bytes();
                state.era = [low, middle, high];
                let session = state.number().expect("it has an era");
                let client_identifier = state.client_identifier.as_str();
                journal.write(&Record::Session { session, client_identifier, expiry_interval_s });
                return true;
            }
            // A session that will end with its connection stays logged until then: its messages in
            // flight keep their order, and their place in exchanges from before a crash.
            (Some(session), _) => {
                journal.write(&Record::Connected { session, expiry_interval_s });
            }
            (None, false) => {}
        }
        false
    }

    /// The session has a new owner.
    pub(in crate::engine) fn append_owner(&mut self, state: &Session) {
        if let (Some(session), Some(owner)) = (state.number(), state.owner()) {
            self.append(&Record::Owned { session, owner });
        }
    }

    /// The session has ended.
    pub(in crate::engine) fn append_ended(&mut self, state: &mut Session) {
        if let Some(session) = state.number() {
            state.era = [0; 3];
            self.dedup.end_publisher(session);
            self.append(&Record::Ended { session });
        }
    }

    /// The connection of a session has ended, and the session has not.
    pub(in crate::engine) fn append_away(&mut self, state: &Session, now: Now) {
        if let (Some(journal), Some(session)) = (&mut self.journal, state.number()) {
            let (expiry_interval_s, since_us) = (state.expiry_interval_s, journal.now_us(now));
            journal.write(&Record::Away { session, expiry_interval_s, since_us });
        }
    }

    /// A session has subscribed.
    pub(in crate::engine) fn append_subscribed(
        &mut self,
        state: &Session,
        filter: &str,
        of: &Subscription,
    ) {
        if let (Some(journal), Some(session)) = (&mut self.journal, state.number()) {
            journal.write(&subscribed(session, filter, of));
        }
    }

    /// A session has unsubscribed.
    pub(in crate::engine) fn append_unsubscribed(&mut self, state: &Session, filter: &str) {
        if let (Some(journal), Some(session)) = (&mut self.journal, state.number()) {
            journal.write(&Record::Unsubscribed { session, filter });
        }
    }

    /// A bridge may have a subscription at its far broker from now on, or has none any more.
    #[cfg(feature = "bridge")]
    pub(in crate::engine) fn append_far_subscription(
        &mut self,
        state: &Session,
        filter: &str,
        is_there: bool,
    ) {
        let Some(session) = state.number() else { return };
        self.append(&match is_there {
            true => Record::FarSubscribed { session, filter },
            false => Record::FarUnsubscribed { session, filter },
        });
    }

    /// A message is queued for a client, or sent under a Packet Identifier; the delivery remembers the
    /// record. A shared subscription is named by its text in `index`.
    pub(in crate::engine) fn append_delivery(
        &mut self,
        session: SessionNumber,
        delivery: &Delivery,
        packet_identifier: u16,
        exchange: Option<Qos2Exchange>,
        index: &SubscriptionIndex,
    ) -> RecordRef {
        let Some(journal) = &mut self.journal else { return RecordRef::default() };
        let shared = delivery.shared.map(|filter| index.text(filter));
        match (exchange.map(|of| of.exchange), &shared) {
            (Some(exchange), Some(filter)) => journal.write(&taken_by_group(exchange, filter)),
            (Some(Exchange { publisher, packet_identifier }), None) => {
                journal.write(&Record::Taken { session, publisher, packet_identifier });
            }
            (None, _) => {}
        }
        journal.write_delivery(session, delivery, packet_identifier, shared.as_deref())
    }

    /// A member of a shared subscription gets the message, on whichever core.
    pub(super) fn append_taken_by_group(&mut self, exchange: Option<Qos2Exchange>, filter: &str) {
        if let Some(of) = exchange {
            self.append(&taken_by_group(of.exchange, filter));
        }
    }

    /// A queued message is sent.
    pub(in crate::engine) fn append_sent(
        &mut self,
        sessions: &SessionTable,
        id: SessionId,
        record: RecordRef,
        identifier: PacketIdentifier,
    ) {
        if let Some(session) = self.number(sessions, id)
            && record.number != 0
        {
            let (delivery, packet_identifier) = (record.number, identifier.get());
            self.append(&Record::Sent { session, delivery, packet_identifier });
        }
    }

    /// PUBREC has arrived for a message.
    pub(in crate::engine) fn append_released(
        &mut self,
        sessions: &SessionTable,
        id: SessionId,
        record: RecordRef,
        identifier: PacketIdentifier,
    ) {
        if let Some(session) = self.number(sessions, id)
            && record.number != 0
        {
            let (delivery, packet_identifier) = (record.number, identifier.get());
            self.append(&Record::Released { session, delivery, packet_identifier });
        }
    }

    /// The deliveries of a session that have ended since the last call: acknowledged, expired or
    /// dropped.
    #[inline]
    pub(in crate::engine) fn append_done(&mut self, sessions: &mut SessionTable, id: SessionId) {
        if self.journal.is_some() {
            let state = &mut sessions[id];
            let number = state.number();
            if let Some(outbound) = &mut state.outbound {
                self.append_done_of(number, outbound);
            }
        }
    }

    /// The ended deliveries of a queue that its session, of this number, has no more.
    pub(in crate::engine) fn append_done_of(
        &mut self,
        number: Option<SessionNumber>,
        outbound: &mut Outbound,
    ) {
        if let Some(journal) = &mut self.journal {
            journal.end_deliveries(number, outbound);
        }
    }

    /// A delivery has ended.
    pub(super) fn append_end_of_delivery(
        &mut self,
        session: Option<SessionNumber>,
        record: RecordRef,
    ) {
        if let (Some(journal), Some(session)) = (&mut self.journal, session) {
            journal.end_delivery(session, record);
        }
    }

    /// A client's QoS 2 message counts as received: the batch that must be stored, if there is one.
    pub(in crate::engine) fn append_received(
        &mut self,
        state: &mut Session,
        identifier: PacketIdentifier,
        mesh: &mut Mesh,
    ) -> Option<u64> {
        self.journal.as_ref()?;
        let session = state.number()?;
        if let Some(inbound) = &mut state.inbound {
            inbound.note_logged(identifier);
        }
        let mark = self.mark();
        let packet_identifier = identifier.get();
        self.append(&Record::Received { session, packet_identifier });
        self.end_exchange(Exchange { publisher: session, packet_identifier }, mesh);
        self.batch_since(mark)
    }

    /// A client's QoS 2 message has arrived. The record waits until all of its deliveries are stored, on
    /// other cores too.
    pub(in crate::engine) fn withhold_received(
        &self,
        inbound: &mut Inbound,
        identifier: PacketIdentifier,
    ) {
        if self.journal.is_some() {
            inbound.withhold(identifier, self.checkpoints_begun);
        }
    }

    /// PUBREL has arrived for a client's QoS 2 message.
    pub(in crate::engine) fn append_completed(
        &mut self,
        sessions: &SessionTable,
        id: SessionId,
        identifier: PacketIdentifier,
    ) {
        if let Some(session) = self.number(sessions, id) {
            self.append(&Record::Completed { session, packet_identifier: identifier.get() });
        }
    }

    /// A message is retained under this stamp, or, with an empty payload, the retained message removed.
    pub(in crate::engine) fn append_retained(
        &mut self,
        content: &message::Content<'_>,
        stamp: u64,
    ) {
        let Some(journal) = &mut self.journal else { return };
        if content.payload.is_empty() {
            return journal.write(&Record::Cleared { stamp, topic: content.topic });
        }
        let content = journal.content(content);
        journal.write(&Record::Retained { stamp, content });
    }

    /// Lets a new connection wait until the session that its CONNACK promises is stored; false when
    /// nothing has to be waited for.
    pub(in crate::engine) fn await_connack(
        &mut self,
        id: ConnectionId,
        state: &Session,
        mark: u64,
    ) -> bool {
        let Some(journal) = &mut self.journal else { return false };
        let batch = match state.number() {
            Some(_) => journal.batch_of_all(),
            None => journal.batch_since(mark),
        };
        if let Some(batch) = batch {
            journal.wait(batch, id);
        }
        batch.is_some()
    }

    /// Holds a delivery until the records of this turn are stored.
    pub(in crate::engine) fn hold_until_stored(
        &mut self,
        state: &mut Session,
        id: ConnectionId,
        record: RecordRef,
    ) {
        let Some(journal) = &mut self.journal else { return };
        let batch = journal.number();
        journal.wait(batch, id);
        if let Some(outbound) = &mut state.outbound {
            outbound.hold_until(batch, record);
        }
    }
}

/// The record of a subscription.
pub(in crate::engine) fn subscribed<'a>(
    session: SessionNumber,
    filter: &'a str,
    of: &Subscription,
) -> Record<'a> {
    Record::Subscribed {
        session,
        filter,
        qos: of.options.qos(),
        no_local: of.options.no_local(),
        retain_as_published: of.options.retain_as_published(),
        identifier: of.identifier,
    }
}
