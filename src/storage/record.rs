//! One change of what is kept, as bytes. Knows no file and no engine.
//!
//! Records stand one after the other in a batch: what one core changed in a turn or several. A batch
//! is kept whole or not at all. Instants are of the time of day, in microseconds since 1970.

use serde::{Deserialize, Serialize};

use crate::wire::Qos;

/// A session, never used for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionNumber(pub u64); // 14 bits of round, 10 of core, 32 of generation

/// Bits of a session number for the core it began on.
const CORE_BITS: u32 = 10;

impl SessionNumber {
    /// The session that began on a core with this generation, in its `round` of generations.
    pub fn new(round: u32, core: u16, generation: u32) -> Self {
        let era = u64::from(round) << CORE_BITS | u64::from(core);
        Self(era << 32 | u64::from(generation))
    }

    /// Its part that counts up, whatever the core: round and generation.
    pub fn serial(self) -> u64 {
        self.0 >> (32 + CORE_BITS) << 32 | self.0 & u64::from(u32::MAX)
    }
}

/// A QoS 2 message as its publisher names it, until that knows that it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exchange {
    /// The publisher's session.
    pub publisher: SessionNumber,
    /// The Packet Identifier.
    pub packet_identifier: u16,
}

/// A message on its way to one client, never used for another one of its session.
pub type DeliveryNumber = u64;

/// Contents with such numbers are told once for all deliveries that are told anew, whatever batches those
/// are in, and after them: until then a delivery is of the message that it was of before. Below it,
/// numbers are of one batch.
pub const CONTENTS_ANEW: u64 = 1 << 32;

/// The number of a content that a core tells anew, the `count`th since it began.
pub fn content_anew(core: u16, count: u64) -> u64 {
    CONTENTS_ANEW + (count << CORE_BITS | u64::from(core))
}

/// What copies of a message have in common.
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
    /// When it expires.
    pub expires_us: Option<u64>,
    /// QoS it was published with: 0 to 2.
    pub qos: u8,
}

/// One change. New kinds are added at the end: their order is the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// A session begins, with its client connected; or is told anew from here on, and whatever was
    /// told of it before does not count.
    Session {
        /// Its number.
        session: SessionNumber,
        /// Its client.
        client_identifier: &'a str,
        /// Session Expiry Interval in seconds.
        expiry_interval_s: u32,
    },
    /// Its client came back; a Will that waited is cancelled.
    Connected {
        /// Which session.
        session: SessionNumber,
        /// Session Expiry Interval in seconds.
        expiry_interval_s: u32,
    },
    /// Its client went away.
    Away {
        /// Which session.
        session: SessionNumber,
        /// Session Expiry Interval in seconds.
        expiry_interval_s: u32,
        /// When.
        since_us: u64,
    },
    /// It is over.
    Ended {
        /// Which session.
        session: SessionNumber,
    },
    /// A subscription was made, or changed.
    Subscribed {
        /// Whose.
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
    /// A subscription is over.
    Unsubscribed {
        /// Whose.
        session: SessionNumber,
        /// Topic Filter.
        filter: &'a str,
    },
    /// A message that deliveries after it in this batch are of; or, from [`CONTENTS_ANEW`] on, deliveries
    /// that were told anew before it.
    Content {
        /// Tells it from others in this batch, or in all of them.
        number: u64,
        /// What it is.
        #[serde(borrow)]
        content: Content<'a>,
    },
    /// A message is to go to a client.
    Queued {
        /// Whose.
        session: SessionNumber,
        /// Names it from here on.
        delivery: DeliveryNumber,
        /// The [`Record::Content`] of this batch; or, from [`CONTENTS_ANEW`] on, one of a batch that may
        /// follow.
        content: u64,
        /// Effective QoS: 1 or 2.
        qos: u8,
        /// RETAIN flag.
        retain: bool,
        /// Its Packet Identifier, once it is sent; 0 before.
        packet_identifier: u16,
        /// The shared subscription it was drawn for.
        shared: Option<&'a str>,
        /// Subscription Identifiers.
        identifiers: Identifiers,
    },
    /// It is sent from now on.
    Sent {
        /// Whose.
        session: SessionNumber,
        /// Which delivery.
        delivery: DeliveryNumber,
        /// Its Packet Identifier.
        packet_identifier: u16,
    },
    /// PUBREC came: PUBREL follows, and the message is not needed any more. It may be the first that
    /// is told of it.
    Released {
        /// Whose.
        session: SessionNumber,
        /// Which delivery.
        delivery: DeliveryNumber,
        /// Its Packet Identifier.
        packet_identifier: u16,
    },
    /// It was acknowledged to the end, or dropped.
    Done {
        /// Whose.
        session: SessionNumber,
        /// Which delivery.
        delivery: DeliveryNumber,
    },
    /// A QoS 2 message came from a client.
    Received {
        /// Whose.
        session: SessionNumber,
        /// Its Packet Identifier.
        packet_identifier: u16,
    },
    /// Its PUBREL came.
    Completed {
        /// Whose.
        session: SessionNumber,
        /// Its Packet Identifier.
        packet_identifier: u16,
    },
    /// A Will waits for its time.
    Will {
        /// Whose.
        session: SessionNumber,
        /// When it is to be published.
        due_us: u64,
        /// The message; `expires_us` is not used.
        #[serde(borrow)]
        content: Content<'a>,
        /// RETAIN flag.
        retain: bool,
        /// Message Expiry Interval in seconds, from publication.
        message_expiry_interval_s: Option<u32>,
    },
    /// It was published.
    WillSent {
        /// Whose.
        session: SessionNumber,
    },
    /// A message is retained under its topic.
    Retained {
        /// The highest of a topic counts, in whatever order they are told.
        stamp: u64,
        /// The message.
        #[serde(borrow)]
        content: Content<'a>,
    },
    /// None is.
    Cleared {
        /// As for a message.
        stamp: u64,
        /// Topic Name.
        topic: &'a str,
    },
    /// A session has a QoS 2 message of a client that cannot know yet whether it was received: should
    /// it be sent again, this session is not to get it again. Over once the publisher's
    /// [`Record::Received`] is told.
    Taken {
        /// Who has it.
        session: SessionNumber,
        /// Whose message it is.
        publisher: SessionNumber,
        /// Under which Packet Identifier the publisher sent it.
        packet_identifier: u16,
    },
    /// The same for a shared subscription: one of its members has it, whichever.
    TakenByGroup {
        /// Whose message it is.
        publisher: SessionNumber,
        /// Under which Packet Identifier the publisher sent it.
        packet_identifier: u16,
        /// Topic Filter, with `$share/NAME/`.
        filter: &'a str,
    },
    /// A delivery has arrived on another core, and is over: what became of it is told in the same
    /// batch. It may be told before the delivery. Messages on their way from core to core are
    /// deliveries of sessions without a client.
    Arrived {
        /// The session.
        session: SessionNumber,
        /// Which delivery.
        delivery: DeliveryNumber,
    },
    /// A session belongs to the user of this name from now on. One of which it is not told is
    /// nobody's. Of a session that is not kept, the client's whose Will was told before.
    Owned {
        /// Which session.
        session: SessionNumber,
        /// User name.
        owner: &'a str,
    },
    /// A client was let in with a Will, whether or not its session is kept.
    WillHeld {
        /// Its session; it has one Will at a time.
        session: SessionNumber,
        /// The client.
        client_identifier: &'a str,
        /// Will Delay Interval in seconds, no longer than the session lasts.
        delay_interval_s: u32,
        /// The message; `expires_us` is not used.
        #[serde(borrow)]
        content: Content<'a>,
        /// RETAIN flag.
        retain: bool,
        /// Message Expiry Interval in seconds, from publication.
        message_expiry_interval_s: Option<u32>,
    },
    /// Its connection is over, or it is back after the broker was down, and what became of its Will
    /// is told in the same batch.
    WillOver {
        /// The session.
        session: SessionNumber,
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

/// Most of a record are numbers of a few bytes: one after the other costs less than a copy.
const FEW_BYTES: usize = 10;

/// What postcard writes to.
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

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRecord;

impl<'a> Record<'a> {
    /// Appends it to a batch.
    pub fn encode(&self, out: &mut Vec<u8>) {
        postcard::serialize_with_flavor(self, Appended(out))
            .expect("memory takes what it is given");
    }

    /// Takes the first one off a batch; `None` at its end.
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
    fn records_come_back_as_they_were_one_after_the_other() {
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
        ];
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        let mut rest = &bytes[..];
        for record in &records {
            assert_eq!(Record::decode(&mut rest), Ok(Some(record.clone())));
        }
        assert_eq!(Record::decode(&mut rest), Ok(None));
        for cut in 1..bytes.len() {
            // Whatever is missing is noticed, or the records before it are told.
            let mut rest = &bytes[..cut];
            while let Ok(Some(_)) = Record::decode(&mut rest) {}
        }
    }
}
