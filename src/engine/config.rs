//! The part of the configuration that the engine of a core needs.

use crate::base::limits;
use crate::config::{Limits, Mqtt, Protection, Settings};
use crate::session::outbound::QueueLimits;

/// Limits and options of an engine. Every core has a copy.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) limits: Limits,
    pub(super) mqtt: Mqtt,
    pub(super) protection: Protection,
    /// Seconds after a start during which the Will of a client that has not come back is withheld.
    pub(super) will_grace_s: u32,
    /// Whether a session belongs to the user that created it.
    pub(super) bind_sessions: bool,
    /// Whether statistics are collected.
    pub(super) has_statistics: bool,
    /// Limits of the queue of one session, from `limits` and `protection`.
    pub(super) queue_limits: QueueLimits,
    /// Whether any limit on the rate of a client is configured.
    pub(super) bounds_rates: bool,
}

impl Config {
    /// The engine's part of the settings, with limits that may have been adapted to the machine.
    pub fn new(settings: &Settings, limits: Limits) -> Self {
        let Settings { mqtt, protection, .. } = settings;
        Self {
            mqtt: mqtt.clone(),
            protection: protection.clone(),
            will_grace_s: settings.storage.will_grace_s,
            bind_sessions: settings.access.bind_sessions,
            has_statistics: settings.stats.enabled,
            queue_limits: QueueLimits {
                messages_max: limits.queue_messages_max as usize,
                bytes_max: limits.queue_bytes_max,
                user_bytes_max: protection.queue_bytes_per_user_max,
                policy: limits.queue_policy,
            },
            bounds_rates: protection.bounds_rates(),
            limits,
        }
    }

    /// Limit of concurrent connections, of all cores together.
    pub fn connections_max(&self) -> u32 {
        self.limits.connections_max
    }

    /// Lowers that limit, if it is higher.
    pub fn lower_connections_max(&mut self, connections_max: u32) {
        self.limits.connections_max = self.limits.connections_max.min(connections_max);
    }

    /// How many bytes may wait for a consumer before it counts as behind.
    #[inline]
    pub(super) fn outbox_behind_bytes(&self) -> usize {
        self.limits.outbox_bytes_max as usize / limits::CONGESTED_OUTBOX_SHARE
    }

    /// Bytes of input that may wait on all cores together.
    pub(super) fn input_bytes_max(&self) -> u64 {
        let share = self.limits.memory_bytes_max / limits::INPUT_SHARE;
        share.max(limits::INPUT_BYTES_MIN)
    }

    /// Whether statistics are collected.
    pub fn has_statistics(&self) -> bool {
        self.has_statistics
    }
}

impl From<&Settings> for Config {
    fn from(settings: &Settings) -> Self {
        Self::new(settings, settings.limits.clone())
    }
}
