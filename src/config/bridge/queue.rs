//! Bounds of the queue of a bridge, where they are not those of all sessions.

use serde::{Deserialize, Serialize};

use crate::config::QueuePolicy;
use crate::config::number::between;

/// Bounds of the queue of a bridge.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeQueue {
    /// Messages; 0: `limits.queue_messages_max`.
    #[serde(deserialize_with = "between::<_, _, 0, 100_000_000>")]
    pub messages_max: u32,
    /// Bytes of messages; 0: `limits.queue_bytes_max`.
    #[serde(deserialize_with = "between::<_, _, 0, 1_099_511_627_776>")]
    pub bytes_max: u64,
    /// Which messages are dropped when the queue is full.
    pub policy: BridgePolicy,
    /// What becomes of QoS 0 messages while the bridge is not connected.
    pub qos0: Qos0,
    /// Seconds after which a message leaves the queue unsent; 0: never.
    #[serde(deserialize_with = "between::<_, _, 0, 4_294_967_295>")]
    pub expiry_s: u32,
    /// Messages that are sent in a second while there are some that have waited for the connection; 0: as many as the
    /// other broker acknowledges.
    #[serde(deserialize_with = "between::<_, _, 0, 10_000_000>")]
    pub backfill_per_second_max: u32,
    /// Whether publishers wait when the queue is nearly full.
    pub holds_publishers: bool,
    /// Whether messages are queued while the bridge is not connected.
    pub offline: bool,
}

impl Default for BridgeQueue {
    fn default() -> Self {
        Self {
            messages_max: 0,
            bytes_max: 0,
            policy: BridgePolicy::default(),
            qos0: Qos0::default(),
            expiry_s: 0,
            backfill_per_second_max: 0,
            holds_publishers: false,
            offline: true,
        }
    }
}

/// Which messages are dropped when the queue of a bridge is full.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum BridgePolicy {
    /// As `limits.queue_policy` says.
    #[default]
    Limits,
    /// The new message.
    DropNewest,
    /// The oldest queued message.
    DropOldest,
    /// All but the latest message of each topic, also while there is room.
    KeepLatest,
}

/// What becomes of QoS 0 messages while a bridge is not connected.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Qos0 {
    /// What `limits.queue_qos0` says.
    #[default]
    Limits,
    /// They are dropped.
    Drop,
    /// They are queued.
    Queue,
}

impl BridgeQueue {
    /// The policy, if it is not that of all sessions.
    pub fn policy(&self) -> Option<QueuePolicy> {
        match self.policy {
            BridgePolicy::Limits => None,
            BridgePolicy::DropNewest => Some(QueuePolicy::DropNewest),
            BridgePolicy::DropOldest => Some(QueuePolicy::DropOldest),
            BridgePolicy::KeepLatest => Some(QueuePolicy::KeepLatest),
        }
    }

    /// Whether QoS 0 messages are queued, if that is not as for all sessions.
    pub fn queues_qos_0(&self) -> Option<bool> {
        match self.qos0 {
            Qos0::Limits => None,
            Qos0::Drop => Some(false),
            Qos0::Queue => Some(true),
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.policy == BridgePolicy::KeepLatest && self.expiry_s > 0 {
            return Err(
                "queue.expiry_s: with keep-latest, a message takes the place of an older one, whose age it would have; \
                 remove expiry_s, or choose another policy"
                    .to_owned(),
            );
        }
        if !self.offline && self.holds_publishers {
            return Err("queue.holds_publishers: with offline = false messages are dropped while the bridge is not \
                        connected, and nobody is to wait for it; remove one of the two"
                .to_owned());
        }
        Ok(())
    }
}
