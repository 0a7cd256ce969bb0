//! Records: changes of the stored state, and their encoding. Knows no file and no engine.
//!
//! A batch is a sequence of records: the changes of one core in a turn or several. A batch is stored
//! completely or not at all. Times are times of day, in microseconds since 1970.

use serde::{Deserialize, Serialize};

use crate::wire::Qos;

/// The number of a session; numbers are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionNumber(pub u64); // 14 bits of round, 10 of core, 32 of generation

/// Bits of a session number for the core on which the session began.
const CORE_BITS: u32 = 10;

impl SessionNumber {
    /// The session that began on a core with this generation, in its `round` of generations.
    pub fn new(round: u32, core: u16, generation: u32) -> Self {
        let era = u64::from(round) << CORE_BITS | u64::from(core);
        Self(era << 32 | u64::from(generation))
    }

    /// The first session number after all with this serial number or a lower one.
    pub fn following(serial: u64) -> Self {
        // Rounds begin at 1, as the engine has 0 for sessions that are not stored; generation 0 is not used.
        let next = (serial + 1).max(1 << 32);
        let next = if next as u32 == 0 { next + 1 } else { next };
        Self::new((next >> 32) as u32, 0, next as u32)
    }

    /// The part that counts up, without the core: round and generation.
    pub fn serial(self) -> u64 {
        self.0 >> (32 + CORE_BITS) << 32 | self.0 & u64::from(u32::MAX)
    }
}

/// A QoS 2 exchange as its publisher identifies it, until the publisher knows that the message was
/// received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exchange {
    /// The publisher's session.
    pub publisher: SessionNumber,
    /// The Packet Identifier.
    pub packet_identifier: u16,
}

/// The number of a delivery of a message to one client; numbers are not reused within a session.
pub type DeliveryNumber = u64;

/// The lowest number of a content in a checkpoint. Such a content is logged once for all deliveries of the
/// checkpoint, in whatever batches, and after them: until then a delivery has the content that it had
/// before. Lower numbers are valid within one batch.
pub const CHECKPOINT_CONTENTS: u64 = 1 << 32;

/// The number of the `count`th content that a core logs for checkpoints.
pub fn checkpoint_content(core: u16, count: u64) -> u64 {
    CHECKPOINT_CONTENTS + (count << CORE_BITS | u64::from(core))
}

/// The content of a message, which all of its copies share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content<'a> {
    /// Topic Name.
    pub topic: &'a str,
    /// Payload.
    #[serde(with = "serde_bytes")]
    pub payload: &'a [u8],
    /// Encoded properties that are forwarded unaltered.
    #[serde(with = "serde_bytes")]
    pub passed_on: &'a [u8],
    /// Expiry time.
    pub expires_us: Option<u64>,
    /// QoS it was published with: 0 to 2.
    pub qos: u8,
}

/// A change. The order of the variants is part of the format: new ones are added at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// A session begins, with its client connected. In a checkpoint up to format 4: replaces everything that was
    /// logged of the session before.
    Session {
        /// Number of the session.
        session: SessionNumber,
        /// Client Identifier.
        client_identifier: &'a str,
        /// Session Expiry Interval in seconds.
        expiry_interval_s: u32,
    },
    /// The client of a session has reconnected; a delayed Will is cancelled.
    Connected {
        /// Number of the session.
        session: SessionNumber,
        /// Session Expiry Interval in seconds.
        expiry_interval_s: u32,
    },
    /// The connection of a session has ended.
    Away {
        /// Number of the session.
        session: SessionNumber,
        /// Session Expiry Interval in seconds.
        expiry_interval_s: u32,
        /// Time of the end.
        since_us: u64,
    },
    /// A session has ended.
    Ended {
        /// Number of the session.
        session: SessionNumber,
    },
    /// A session has subscribed, or changed a subscription.
    Subscribed {
        /// Number of the session.
        session: SessionNumber,
        /// Topic Filter, with `$share/NAME/` when shared.
        filter: &'a str,
        /// QoS granted: 0 to 2.
        qos: u8,
        /// No Local.
        no_local: bool,
        /// Retain As Published.
        retain_as_published: bool,
        /// Subscription Identifier; 0 for none.
        identifier: u32,
    },
    /// A session has unsubscribed.
    Unsubscribed {
        /// Number of the session.
        session: SessionNumber,
        /// Topic Filter.
        filter: &'a str,
    },
    /// The content of deliveries that follow in this batch, or, from [`CHECKPOINT_CONTENTS`] on, of earlier
    /// deliveries of a checkpoint.
    Content {
        /// Number of the content, within the batch or for all batches.
        number: u64,
        /// The content.
        #[serde(borrow)]
        content: Content<'a>,
    },
    /// A message is queued for a client.
    Queued {
        /// Number of the session.
        session: SessionNumber,
        /// Number of the delivery.
        delivery: DeliveryNumber,
        /// Number of a [`Record::Content`] of this batch, or, from [`CHECKPOINT_CONTENTS`] on, of a batch
        /// that may follow.
        content: u64,
        /// Effective QoS: 1 or 2.
        qos: u8,
        /// RETAIN flag.
        retain: bool,
        /// Packet Identifier; 0 while the message is queued.
        packet_identifier: u16,
        /// Topic Filter of the shared subscription, if there is one.
        shared: Option<&'a str>,
        /// Subscription Identifiers.
        identifiers: Identifiers,
    },
    /// A queued message is sent.
    Sent {
        /// Number of the session.
        session: SessionNumber,
        /// Number of the delivery.
        delivery: DeliveryNumber,
        /// Packet Identifier.
        packet_identifier: u16,
    },
    /// PUBREC has arrived: PUBREL follows, and the message is no longer needed. This may be the first
    /// record of the delivery.
    Released {
        /// Number of the session.
        session: SessionNumber,
        /// Number of the delivery.
        delivery: DeliveryNumber,
        /// Packet Identifier.
        packet_identifier: u16,
    },
    /// A delivery is acknowledged completely, or dropped.
    Done {
        /// Number of the session.
        session: SessionNumber,
        /// Number of the delivery.
        delivery: DeliveryNumber,
    },
    /// A QoS 2 message was received from a client.
    Received {
        /// Number of the session.
        session: SessionNumber,
        /// Packet Identifier.
        packet_identifier: u16,
    },
    /// PUBREL has arrived for a QoS 2 message from a client.
    Completed {
        /// Number of the session.
        session: SessionNumber,
        /// Packet Identifier.
        packet_identifier: u16,
    },
    /// The delay of a Will begins.
    Will {
        /// Number of the session.
        session: SessionNumber,
        /// Time of publication.
        due_us: u64,
        /// The message; `expires_us` is not used.
        #[serde(borrow)]
        content: Content<'a>,
        /// RETAIN flag.
        retain: bool,
        /// Message Expiry Interval in seconds, from publication.
        message_expiry_interval_s: Option<u32>,
    },
    /// A delayed Will was published.
    WillSent {
        /// Number of the session.
        session: SessionNumber,
    },
    /// A message is retained.
    Retained {
        /// The highest stamp of a topic counts, in whatever order the records come.
        stamp: u64,
        /// The message.
        #[serde(borrow)]
        content: Content<'a>,
    },
    /// A retained message is removed.
    Cleared {
        /// As for [`Record::Retained`].
        stamp: u64,
        /// Topic Name.
        topic: &'a str,
    },
    /// A session has a QoS 2 message whose publisher cannot know yet that it was received: if the
    /// publisher sends the message again, this session must not get it again. Ends with the publisher's
    /// [`Record::Received`].
    Taken {
        /// Number of the session that has the message.
        session: SessionNumber,
        /// Number of the publisher's session.
        publisher: SessionNumber,
        /// Packet Identifier of the publisher.
        packet_identifier: u16,
    },
    /// A member of a shared subscription has such a message, on whatever core.
    TakenByGroup {
        /// Number of the publisher's session.
        publisher: SessionNumber,
        /// Packet Identifier of the publisher.
        packet_identifier: u16,
        /// Topic Filter, with `$share/NAME/`.
        filter: &'a str,
    },
    /// A forward has arrived on another core, and its delivery ends: the deliveries that follow from it
    /// are in the same batch. The record may precede that of the forward. Forwards between cores are
    /// deliveries of sessions without a client.
    Arrived {
        /// Number of the session.
        session: SessionNumber,
        /// Number of the delivery.
        delivery: DeliveryNumber,
    },
    /// A session belongs to this user from now on; a session without such a record has no owner. For a
    /// session that is not stored: the user of the client whose Will was logged before.
    Owned {
        /// Number of the session.
        session: SessionNumber,
        /// User name.
        owner: &'a str,
    },
    /// A client has connected with a Will, whether or not its session is stored.
    WillHeld {
        /// Number of the session, which has one Will at a time.
        session: SessionNumber,
        /// Client Identifier.
        client_identifier: &'a str,
        /// Will Delay Interval in seconds, at most the Session Expiry Interval.
        delay_interval_s: u32,
        /// The message; `expires_us` is not used.
        #[serde(borrow)]
        content: Content<'a>,
        /// RETAIN flag.
        retain: bool,
        /// Message Expiry Interval in seconds, from publication.
        message_expiry_interval_s: Option<u32>,
    },
    /// The connection of a client with a Will has ended, or the client has reconnected after a restart;
    /// the fate of the Will is in the same batch.
    WillOver {
        /// Number of the session.
        session: SessionNumber,
    },
    /// In a checkpoint: the session is logged again, in this batch and perhaps later ones. What was logged of the
    /// session before counts until [`Record::Rewritten`].
    Rewrite {
        /// Number of the session.
        session: SessionNumber,
        /// Client Identifier.
        client_identifier: &'a str,
        /// Session Expiry Interval in seconds.
        expiry_interval_s: u32,
    },
    /// In a checkpoint: a delivery of a session that is logged again. Messages that wait are logged from the last to
    /// the first; all of them come before those that were queued since [`Record::Rewrite`]. The fields are those of
    /// [`Record::Queued`].
    Requeued {
        /// Number of the session.
        session: SessionNumber,
        /// Number of the delivery.
        delivery: DeliveryNumber,
        /// Number of a [`Record::Content`], from [`CHECKPOINT_CONTENTS`] on.
        content: u64,
        /// Effective QoS: 1 or 2.
        qos: u8,
        /// RETAIN flag.
        retain: bool,
        /// Packet Identifier; 0 while the message is queued.
        packet_identifier: u16,
        /// Topic Filter of the shared subscription, if there is one.
        shared: Option<&'a str>,
        /// Subscription Identifiers.
        identifiers: Identifiers,
    },
    /// The session has been logged again completely: what was logged of it before [`Record::Rewrite`] no longer
    /// counts.
    Rewritten {
        /// Number of the session.
        session: SessionNumber,
    },
    /// The session of a bridge may have a subscription at its far broker from now on.
    FarSubscribed {
        /// Number of the session.
        session: SessionNumber,
        /// Topic Filter of topics at the far broker.
        filter: &'a str,
    },
    /// It has no such subscription any more.
    FarUnsubscribed {
        /// Number of the session.
        session: SessionNumber,
        /// Topic Filter of topics at the far broker.
        filter: &'a str,
    },
    /// The client of the Will that was logged before came through this listener, whose access rules apply.
    WillThrough {
        /// Number of the session.
        session: SessionNumber,
        /// Address or path of the listener, as configured.
        listener: &'a str,
    },
}

/// Subscription Identifiers of a delivery.
pub type Identifiers = smallvec::SmallVec<[u32; 2]>;

impl<'a> Content<'a> {
    /// QoS it was published with.
    pub fn qos(&self) -> Qos {
        Qos::try_from(self.qos).unwrap_or(Qos::AtLeastOnce)
    }
}

/// Up to this length, bytes are pushed one by one, which costs less than a copy: most of a record are
/// small numbers.
const FEW_BYTES: usize = 10;

/// The output of postcard: appends to a batch.
struct Appended<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appended<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if bytes.len() > FEW_BYTES {
            self.0.extend_from_slice(bytes);
        } else {
            bytes.iter().for_each(|&byte| self.0.push(byte));
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRecord;

impl<'a> Record<'a> {
    /// Appends the record to a batch.
    pub fn encode(&self, out: &mut Vec<u8>) {
        postcard::serialize_with_flavor(self, Appended(out)).expect("a vector accepts all bytes");
    }

    /// Takes the first record off a batch; `None` at its end.
    pub fn decode(bytes: &mut &'a [u8]) -> Result<Option<Self>, NoRecord> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (record, rest) = postcard::take_from_bytes(bytes).map_err(|_| NoRecord)?;
        *bytes = rest;
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_following_session_number_has_neither_round_nor_generation_0() {
        let following = |serial| SessionNumber::following(serial);
        assert_eq!(following(0), SessionNumber::new(1, 0, 1));
        assert_eq!(following(SessionNumber::new(1, 3, 7).serial()), SessionNumber::new(1, 0, 8));
        let last = SessionNumber::new(1, 0, u32::MAX).serial();
        assert_eq!(following(last), SessionNumber::new(2, 0, 1));
    }

    #[test]
    fn records_are_decoded_as_they_were_encoded() {
        let content = Content {
            topic: "a/b",
            payload: b"21.5",
            passed_on: &[1, 1],
            expires_us: Some(7),
            qos: 2,
        };
        let session = SessionNumber(1 << 40 | 3);
        let records = [
            Record::Session { session, client_identifier: "c", expiry_interval_s: 9 },
            Record::Content { number: 1, content },
            Record::Queued {
                session,
                delivery: 1 << 50,
                content: 1,
                qos: 1,
                retain: true,
                packet_identifier: 5,
                shared: Some("$share/g/a/#"),
                identifiers: Identifiers::from_slice(&[1, 200]),
            },
            Record::Retained { stamp: u64::MAX, content },
            Record::Owned { session, owner: "u" },
            Record::Ended { session },
            Record::TakenByGroup {
                publisher: session,
                packet_identifier: 7,
                filter: "$share/g/a/#",
            },
            Record::Arrived { session, delivery: 3 },
            Record::WillHeld {
                session,
                client_identifier: "c",
                delay_interval_s: 5,
                content,
                retain: true,
                message_expiry_interval_s: Some(60),
            },
            Record::WillOver { session },
            Record::Rewrite { session, client_identifier: "c", expiry_interval_s: 9 },
            Record::Requeued {
                session,
                delivery: 1 << 50,
                content: CHECKPOINT_CONTENTS,
                qos: 2,
                retain: false,
                packet_identifier: 0,
                shared: None,
                identifiers: Identifiers::new(),
            },
            Record::Rewritten { session },
            Record::FarSubscribed { session, filter: "cmd/#" },
            Record::FarUnsubscribed { session, filter: "cmd/#" },
            Record::WillThrough { session, listener: "127.0.0.1:1883" },
        ];
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        let mut rest = &bytes[..];
        for record in &records {
            assert_eq!(Record::decode(&mut rest), Ok(Some(record.clone())));
        }
        assert_eq!(Record::decode(&mut rest), Ok(None));
        for cut in 1..bytes.len() {
            // Missing bytes cause an error, or only complete records are returned.
            let mut rest = &bytes[..cut];
            while let Ok(Some(_)) = Record::decode(&mut rest) {}
        }
    }
}
