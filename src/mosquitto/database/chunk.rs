//! Chunks of the database, decoded from their bodies. Numbers of 16 and 32 bits are in network order, those of 64 bits
//! in the order of the machine that wrote them.
//!
//! Formats 5 and 6 have all numbers of a chunk first, and then its texts; formats 3 and 4 mix them, each text with its
//! length before it.

/// The number of a message in the file. Its bytes are not reordered, as it is only compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u64);

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// How far the delivery of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The message waits in the queue.
    Queued,
    /// Sent or about to be sent under its Packet Identifier: PUBACK or PUBREC is awaited. Of a message from the client:
    /// PUBREL is awaited.
    Unacknowledged,
    /// PUBREC has arrived, and PUBCOMP is awaited.
    Released,
}

impl Stage {
    /// The stage of a delivery by the number of its state in Mosquitto.
    pub(super) fn of_state(state: u8) -> Option<Self> {
        match state {
            // None, about to be sent at QoS 0, queued.
            0 | 1 | 11 => Some(Self::Queued),
            // About to be sent, or sent, at QoS 1 and 2. Of messages from the client: PUBREC was sent or is about to be.
            2 | 3 | 4 | 5 | 7 | 8 | 10 => Some(Self::Unacknowledged),
            // PUBREL is about to be sent, or was sent.
            6 | 9 => Some(Self::Released),
            _ => None,
        }
    }
}

/// A message, which deliveries and retained messages refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its number.
    pub id: MessageId,
    /// Expiry time in seconds since 1970.
    pub expires_s: Option<u64>,
    /// QoS it was published with: 0 to 2.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic Name, as it was written.
    pub topic: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// Property Length and properties; empty for none.
    pub properties: &'a [u8],
}

/// A message for a client or from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Client Identifier.
    pub client: &'a [u8],
    /// The message.
    pub message: MessageId,
    /// Packet Identifier, which queued messages have too.
    pub packet_identifier: u16,
    /// Effective QoS: 0 to 2.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// The direction.
    pub way: Way,
    /// The stage.
    pub stage: Stage,
    /// Property Length and properties, of which only Subscription Identifiers occur; empty for none.
    pub properties: &'a [u8],
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// Client Identifier.
    pub client: &'a [u8],
    /// Topic Filter.
    pub filter: &'a [u8],
    /// QoS granted: 0 to 2.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Subscription Identifier; 0 for none.
    pub identifier: u32,
}

/// A client with a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client<'a> {
    /// Client Identifier.
    pub client: &'a [u8],
    /// User Name; empty for none.
    pub user: &'a [u8],
    /// When the session expires, in seconds since 1970; none while the client is connected and for sessions that do not
    /// expire.
    pub expires_s: Option<u64>,
    /// Session Expiry Interval in seconds.
    pub expiry_interval_s: u32,
}

/// The Will of a client, which only SQLite databases have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Client Identifier.
    pub client: &'a [u8],
    /// Topic Name.
    pub topic: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// QoS: 0 to 2.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Property Length and properties; empty for none.
    pub properties: &'a [u8],
    /// When the Will is published, in seconds since 1970; none while the client is connected.
    pub due_s: Option<u64>,
    /// Will Delay Interval in seconds.
    pub delay_interval_s: u32,
}

/// A part of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// Values that only Mosquitto needs.
    Settings,
    /// A message.
    Message(Message<'a>),
    /// A delivery.
    Delivery(Delivery<'a>),
    /// The message is retained.
    Retained(MessageId),
    /// A subscription.
    Subscription(Subscription<'a>),
    /// A client.
    Client(Client<'a>),
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Format(pub u32);

impl Format {
    /// The formats that can be read.
    pub const READABLE: std::ops::RangeInclusive<u32> = 3..=6;

    /// Formats that have all numbers of a chunk before its texts.
    pub(super) fn is_numbers_first(self) -> bool {
        self.0 >= 5
    }

    /// Bytes of the head of a chunk: its kind and its length.
    pub(super) fn head_bytes(self) -> usize {
        if self.is_numbers_first() { 8 } else { 6 }
    }
}

impl<'a> Chunk<'a> {
    /// Decodes the body of a chunk of `kind`, which is 1 to 6. None when the body does not fit.
    pub(super) fn decode(format: Format, kind: u32, body: &'a [u8]) -> Option<Self> {
        let mut body = Body(body);
        let chunk = match (kind, format.is_numbers_first()) {
            // Its length tells the word size of the machine; no chunk needs to know.
            (1, _) => {
                body.rest();
                Chunk::Settings
            }
            (2, true) => Chunk::Message(Message::decode(&mut body)?),
            (2, false) => Chunk::Message(Message::decode_old(&mut body, format)?),
            (3, true) => Chunk::Delivery(Delivery::decode(&mut body)?),
            (3, false) => Chunk::Delivery(Delivery::decode_old(&mut body)?),
            (4, _) => Chunk::Retained(body.id()?),
            (5, true) => Chunk::Subscription(Subscription::decode(&mut body)?),
            (5, false) => Chunk::Subscription(Subscription::decode_old(&mut body)?),
            (6, true) => Chunk::Client(Client::decode(&mut body, format)?),
            (6, false) => Chunk::Client(Client::decode_old(&mut body)?),
            _ => return None,
        };
        body.0.is_empty().then_some(chunk)
    }
}

impl<'a> Message<'a> {
    fn decode(body: &mut Body<'a>) -> Option<Self> {
        let (id, expires_s) = (body.id()?, body.time_s()?);
        let payload = body.four()?;
        let _packet_identifier = body.two()?;
        let (source, user, topic) = (body.two()?, body.two()?, body.two()?);
        let _port = body.two()?;
        let (qos, retain) = (body.qos()?, body.byte()? != 0);
        body.take(source.into())?;
        body.take(user.into())?;
        let topic = body.take(topic.into())?;
        let payload = body.take(payload as usize)?;
        let properties = body.rest();
        Some(Self { id, expires_s, qos, retain, topic, payload, properties })
    }

    fn decode_old(body: &mut Body<'a>, format: Format) -> Option<Self> {
        let id = body.id()?;
        body.text()?; // the Client Identifier of the publisher
        if format.0 >= 4 {
            body.text()?; // its User Name
            body.two()?; // the port of the listener
        }
        body.take(4)?; // Packet Identifiers
        let topic = body.text()?;
        let (qos, retain) = (body.qos()?, body.byte()? != 0);
        let payload = body.four()?;
        let payload = body.take(payload as usize)?;
        Some(Self { id, expires_s: None, qos, retain, topic, payload, properties: &[] })
    }
}

impl<'a> Delivery<'a> {
    fn decode(body: &mut Body<'a>) -> Option<Self> {
        let (message, packet_identifier, client) = (body.id()?, body.two()?, body.two()?);
        let (qos, stage) = (body.qos()?, body.stage()?);
        let (retain, way) = (body.byte()? & 0xF0 != 0, body.way()?);
        let client = body.take(client.into())?;
        let properties = body.rest();
        Some(Self { client, message, packet_identifier, qos, retain, way, stage, properties })
    }

    fn decode_old(body: &mut Body<'a>) -> Option<Self> {
        let (client, message, packet_identifier) = (body.text()?, body.id()?, body.two()?);
        let (qos, retain) = (body.qos()?, body.byte()? != 0);
        let (way, stage) = (body.way()?, body.stage()?);
        let _dup = body.byte()?;
        Some(Self { client, message, packet_identifier, qos, retain, way, stage, properties: &[] })
    }
}

impl<'a> Subscription<'a> {
    fn decode(body: &mut Body<'a>) -> Option<Self> {
        const NO_LOCAL: u8 = 1 << 2;
        const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
        let (identifier, client, filter) = (body.four()?, body.two()?, body.two()?);
        let (qos, options) = (body.qos()?, body.byte()?);
        body.take(2)?; // padding
        let (client, filter) = (body.take(client.into())?, body.take(filter.into())?);
        let no_local = options & NO_LOCAL != 0;
        let retain_as_published = options & RETAIN_AS_PUBLISHED != 0;
        Some(Self { client, filter, qos, no_local, retain_as_published, identifier })
    }

    fn decode_old(body: &mut Body<'a>) -> Option<Self> {
        let (client, filter, qos) = (body.text()?, body.text()?, body.qos()?);
        let (no_local, retain_as_published, identifier) = (false, false, 0);
        Some(Self { client, filter, qos, no_local, retain_as_published, identifier })
    }
}

impl<'a> Client<'a> {
    fn decode(body: &mut Body<'a>, format: Format) -> Option<Self> {
        /// Bytes that align a struct with numbers of 64 bits, where the machine aligns these to eight bytes.
        const PADDING: usize = 4;
        let (expires_s, expiry_interval_s) = (body.time_s()?, body.four()?);
        let (_last_packet_identifier, client) = (body.two()?, usize::from(body.two()?));
        let mut user = 0;
        if format.0 >= 6 {
            let _port = body.two()?;
            user = usize::from(body.two()?);
            if body.0.len() == PADDING + client + user {
                body.take(PADDING)?;
            }
        }
        let (client, user) = (body.take(client)?, body.take(user)?);
        Some(Self { client, user, expires_s, expiry_interval_s })
    }

    /// Formats without expiry: sessions last for ever. The time of the last disconnection does not matter then.
    fn decode_old(body: &mut Body<'a>) -> Option<Self> {
        let client = body.text()?;
        let _last_packet_identifier = body.two()?;
        let time_bytes = body.rest().len();
        let is_time = matches!(time_bytes, 0 | 4 | 8);
        let client = Self { client, user: &[], expires_s: None, expiry_interval_s: u32::MAX };
        is_time.then_some(client)
    }
}

/// The bytes of a body that have not been read yet.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn two(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn four(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn id(&mut self) -> Option<MessageId> {
        self.array().map(u64::from_le_bytes).map(MessageId)
    }

    /// A text with its length before it.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.two()?;
        self.take(length.into())
    }

    fn qos(&mut self) -> Option<u8> {
        self.byte().filter(|qos| *qos <= 2)
    }

    fn way(&mut self) -> Option<Way> {
        match self.byte()? {
            0 => Some(Way::In),
            1 => Some(Way::Out),
            _ => None,
        }
    }

    fn stage(&mut self) -> Option<Stage> {
        self.byte().and_then(Stage::of_state)
    }

    /// A time of day in seconds since 1970, in the byte order of the machine that wrote it: in the other order, a time
    /// before the year 4147 would be later than that. None for 0, and for a time later in both orders.
    fn time_s(&mut self) -> Option<Option<u64>> {
        const SECONDS_MAX: u64 = 1 << 36;
        let bytes = self.array()?;
        let orders = [u64::from_le_bytes(bytes), u64::from_be_bytes(bytes)];
        Some(
            orders
                .into_iter()
                .find(|seconds| *seconds < SECONDS_MAX)
                .filter(|seconds| *seconds > 0),
        )
    }
}
