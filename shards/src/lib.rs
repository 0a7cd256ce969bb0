//! Topic matching for an MQTT broker: which subscriptions want a message, on this core and on
//! others, and which messages a new subscriber wants; and the lanes between the cores. Knows no
//! session, no packet, no socket and no clock.
//!
//! - [`topic`] checks Topic Names and Topic Filters, and contains the plain matcher that the
//!   indexes are tested against.
//! - [`SubscriptionIndex`] finds the subscriptions that match a Topic Name.
//! - [`Replica`] finds the other cores that hold a matching subscription.
//! - [`interest`] finds the other nodes of a cluster that hold a matching subscription, once for all cores.
//! - [`RetainedIndex`] finds the Topic Names that match a Topic Filter.
//! - [`mesh`] connects the cores of a process by lock-free queues.
//!
//! The indexes are built from the same parts: slabs of records under 32-bit ids, hash tables of ids
//! that store no key, and interned levels.

#[cfg(test)]
mod arbitrary;
mod hash;
mod id_table;
pub mod index;
pub mod interest;
mod levels;
pub mod mesh;
pub mod replica;
pub mod retained;
mod slab;
mod sync;
mod text;
pub mod topic;

pub use hash::Hashing;
pub use index::{
    FilterId, Matches, Subscribed, SubscriberId, Subscription, SubscriptionIndex,
    SubscriptionOptions, Turns, Unsubscribed,
};
pub use interest::NODES_MAX;
pub use replica::{CoreMatches, Fingerprint, GroupAt, GroupId, Replica};
pub use retained::{Cursor, RetainedIndex, ScanState, ScanStep};
pub use slab::heap;
pub use text::Text;
pub use topic::{
    TOPIC_BYTES_MAX, TopicError, TopicFilter, check_topic_name, exceeds_levels, filter_matches,
    has_wildcard, levels,
};
