//! What nodes tell each other of the session of a Client Identifier: which of them has it, and the session itself when it
//! moves.

use crate::cluster::codec::reader::Reader;
use crate::cluster::codec::{Fault, put_bytes, put_number};

/// Kinds of items.
mod kind {
    pub const CLAIM: u8 = 32;
    pub const WITHDRAW: u8 = 33;
    pub const ANSWER: u8 = 34;
    pub const FILTERS: u8 = 35;
    pub const ASK: u8 = 36;
    pub const STATE: u8 = 37;
    pub const FLUSH: u8 = 38;
    pub const FLUSHED: u8 = 39;
    pub const MARK: u8 = 40;
    // Since version 2:
    pub const OFFER: u8 = 41;
    pub const DECLINE: u8 = 42;
}

/// Bits of a claim.
mod bits {
    pub const ASKS: u8 = 0b0001;
    pub const ENDS: u8 = 0b0010;
    pub const REFUSES: u8 = 0b0100;
    pub const USER: u8 = 0b1000;
    /// Since version 2.
    pub const IS_OFFERED: u8 = 0b1_0000;
}

/// Something about the session of a Client Identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionItem<'a> {
    /// The Client Identifier.
    pub client: &'a str,
    /// The stamp of the claim that this is about.
    pub stamp: u64,
    /// What there is to say.
    pub step: SessionStep<'a>,
}

/// What there is to say of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStep<'a> {
    /// The sender has the session from now on, unless there is a later claim.
    Claim {
        /// The receiver answers, with the session if it has one.
        asks: bool,
        /// A session that the receiver has ends.
        ends: bool,
        /// The sender has the session and does not give it to the user who asked for it.
        refuses: bool,
        /// Its client is away: a node has offered the session. Version 1 does not say so.
        is_offered: bool,
        /// The user of the client.
        user: Option<&'a str>,
    },
    /// The sender's session has ended.
    Withdraw,
    /// The answer to a claim that asks: whether the session follows.
    Answer {
        /// It does.
        has_session: bool,
        /// A node that has left has it. Version 1 does not say so.
        is_absent: bool,
        /// The stamp under which the sender had claimed it.
        claimed: u64,
    },
    /// A part of the session: its owner and its subscriptions, as records.
    Filters {
        /// There are no more.
        is_last: bool,
        /// The records.
        records: &'a [u8],
    },
    /// Other nodes know the filters of the session that moves to the sender.
    Ask {
        /// The sender wants the state; otherwise it has it all, or has the session from elsewhere, and this one ends.
        wants: bool,
        /// These nodes, a bit for each.
        nodes: u64,
    },
    /// A part of the session: its messages and QoS 2 exchanges, as records.
    State {
        /// There are no more.
        is_last: bool,
        /// The records.
        records: &'a [u8],
    },
    /// Each core of the receiver sends marks, behind all that it has published so far.
    Flush {
        /// The number of the node to which the session moves: it gets a mark, as the sender does.
        to: u16,
    },
    /// A mark for the old node.
    Flushed {
        /// Number of cores of the sender: so many marks come.
        cores: u16,
    },
    /// A mark for the new node.
    Mark {
        /// Number of cores of the sender: so many marks come.
        cores: u16,
    },
    /// The sender wants to be rid of a session without a client. Since version 2.
    Offer {
        /// The user of the client.
        user: Option<&'a str>,
    },
    /// The receiver's offer is not taken. Since version 2.
    Decline,
}

impl<'a> SessionItem<'a> {
    /// The size of its texts and bytes.
    pub(super) fn bytes(&self) -> usize {
        self.client.len()
            + match self.step {
                SessionStep::Claim { user, .. } | SessionStep::Offer { user } => {
                    user.map_or(0, str::len)
                }
                SessionStep::Filters { records, .. } | SessionStep::State { records, .. } => {
                    records.len()
                }
                _ => 0,
            }
    }

    /// Appends the item without its last bytes, which are returned.
    pub(super) fn encode_head(&self, out: &mut Vec<u8>) -> &'a [u8] {
        out.push(match self.step {
            SessionStep::Claim { .. } => kind::CLAIM,
            SessionStep::Withdraw => kind::WITHDRAW,
            SessionStep::Answer { .. } => kind::ANSWER,
            SessionStep::Filters { .. } => kind::FILTERS,
            SessionStep::Ask { .. } => kind::ASK,
            SessionStep::State { .. } => kind::STATE,
            SessionStep::Flush { .. } => kind::FLUSH,
            SessionStep::Flushed { .. } => kind::FLUSHED,
            SessionStep::Mark { .. } => kind::MARK,
            SessionStep::Offer { .. } => kind::OFFER,
            SessionStep::Decline => kind::DECLINE,
        });
        put_bytes(self.client.as_bytes(), out);
        out.extend_from_slice(&self.stamp.to_le_bytes());
        match self.step {
            SessionStep::Claim { asks, ends, refuses, is_offered, user } => {
                let if_some = |is_some, bit| if is_some { bit } else { 0 };
                out.push(
                    if_some(asks, bits::ASKS)
                        | if_some(ends, bits::ENDS)
                        | if_some(refuses, bits::REFUSES)
                        | if_some(is_offered, bits::IS_OFFERED)
                        | if_some(user.is_some(), bits::USER),
                );
                if let Some(user) = user {
                    put_bytes(user.as_bytes(), out);
                }
            }
            SessionStep::Offer { user } => {
                out.push(if user.is_some() { bits::USER } else { 0 });
                if let Some(user) = user {
                    put_bytes(user.as_bytes(), out);
                }
            }
            SessionStep::Withdraw | SessionStep::Decline => {}
            SessionStep::Flush { to: number }
            | SessionStep::Flushed { cores: number }
            | SessionStep::Mark { cores: number } => out.extend_from_slice(&number.to_le_bytes()),
            SessionStep::Answer { has_session, is_absent, claimed } => {
                out.push(u8::from(has_session) | u8::from(is_absent) << 1);
                out.extend_from_slice(&claimed.to_le_bytes());
            }
            SessionStep::Ask { wants, nodes } => {
                out.push(wants.into());
                out.extend_from_slice(&nodes.to_le_bytes());
            }
            SessionStep::Filters { is_last, records } | SessionStep::State { is_last, records } => {
                out.push(is_last.into());
                put_number(records.len() as u64, out);
                return records;
            }
        }
        &[]
    }

    /// The item of this kind; none if it is another kind of item.
    pub(super) fn decode(kind: u8, reader: &mut Reader<'a>) -> Result<Option<Self>, Fault> {
        if !(kind::CLAIM..=kind::DECLINE).contains(&kind) {
            return Ok(None);
        }
        let client = reader.text("client identifier")?;
        let stamp = reader.fixed_u64()?;
        let step = match kind {
            kind::CLAIM => {
                let bits = reader.byte()?;
                let has = |bit| bits & bit != 0;
                SessionStep::Claim {
                    asks: has(bits::ASKS),
                    ends: has(bits::ENDS),
                    refuses: has(bits::REFUSES),
                    is_offered: has(bits::IS_OFFERED),
                    user: if has(bits::USER) { Some(reader.text("user name")?) } else { None },
                }
            }
            kind::WITHDRAW => SessionStep::Withdraw,
            kind::ANSWER => {
                let bits = reader.byte()?;
                let (has_session, is_absent) = (bits & 1 != 0, bits & 2 != 0);
                SessionStep::Answer { has_session, is_absent, claimed: reader.fixed_u64()? }
            }
            kind::FILTERS => {
                SessionStep::Filters { is_last: reader.byte()? != 0, records: reader.bytes()? }
            }
            kind::ASK => {
                SessionStep::Ask { wants: reader.byte()? != 0, nodes: reader.fixed_u64()? }
            }
            kind::FLUSH => SessionStep::Flush { to: reader.fixed_u16()? },
            kind::FLUSHED => SessionStep::Flushed { cores: reader.fixed_u16()? },
            kind::OFFER => {
                let has_user = reader.byte()? & bits::USER != 0;
                let user = if has_user { Some(reader.text("user name")?) } else { None };
                SessionStep::Offer { user }
            }
            kind::DECLINE => SessionStep::Decline,
            kind::MARK => SessionStep::Mark { cores: reader.fixed_u16()? },
            _ => SessionStep::State { is_last: reader.byte()? != 0, records: reader.bytes()? },
        };
        Ok(Some(Self { client, stamp, step }))
    }
}
