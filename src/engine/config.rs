//! The part of the configuration that the engine of a core needs.

use crate::base::limits;
use crate::config::bridge::BridgeQueue;
use crate::config::{Limits, Mqtt, Protection, QueuePolicy, Settings};
use crate::session::client_identifiers;
use crate::session::outbound::QueueLimits;
use crate::session::state::Session;

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
    /// Seconds for which the sessions of a node of the cluster that has left are waited for.
    #[cfg(feature = "cluster")]
    pub(super) absent_session_wait_s: u32,
    /// Whether statistics are collected: for `--stats`, or for the metrics of the admin interface.
    pub(super) has_statistics: bool,
    /// Limits of the queue of one session, from `limits` and `protection`.
    pub(super) queue_limits: QueueLimits,
    /// Which sessions queue QoS 0 messages while their clients are away.
    queues_qos_0: QueuesQos0,
    /// Whether clients that come, and clients that leave by themselves, are logged.
    pub(super) logs_connections: bool,
    /// Whether the log goes to topics.
    pub(super) has_log_topics: bool,
    /// Whether any limit on the rate of a client is configured.
    pub(super) bounds_rates: bool,
    /// How assigned Client Identifiers begin, for all clients and for those of each listener.
    assigned_prefixes: Vec<Box<str>>,
    /// Whether payloads are looked at: their length, or what they say they are.
    pub(super) checks_payloads: bool,
    /// The lowest of the highest QoS of all listeners and of `mqtt`.
    pub(super) lowest_maximum_qos: u8,
    /// The terms of clients that connect now.
    pub(super) terms: Terms,
    announced: Announced,
    /// What holds for clients with earlier terms.
    announced_earlier: Announced,
}

/// Which values of CONNACK hold for a client: a client is served by those that it was told, until it disconnects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms(u8);

/// Values that CONNACK announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub packet_bytes_max: u32,
    pub receive_maximum: u16,
    pub topic_alias_maximum: u16,
    pub retain_available: bool,
    pub wildcard_subscription_available: bool,
    pub subscription_identifiers_available: bool,
    pub shared_subscription_available: bool,
}

/// Which sessions queue QoS 0 messages while their clients are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueuesQos0 {
    None,
    /// Those that a setting of their own says it of, or, without one, that of all.
    Some,
    All,
}

impl QueuesQos0 {
    fn of(settings: &Settings, all_do: bool) -> Self {
        let mut bridges = settings.bridges.iter();
        let differs = bridges.any(|of| of.queue.queues_qos_0().is_some_and(|does| does != all_do));
        match (differs, all_do) {
            (true, _) => Self::Some,
            (false, true) => Self::All,
            (false, false) => Self::None,
        }
    }
}

impl Announced {
    fn of(limits: &Limits, mqtt: &Mqtt) -> Self {
        Self {
            packet_bytes_max: limits.packet_bytes_max,
            receive_maximum: limits.receive_maximum,
            topic_alias_maximum: limits.topic_alias_maximum,
            retain_available: mqtt.retain_available,
            wildcard_subscription_available: mqtt.wildcard_subscription_available,
            subscription_identifiers_available: mqtt.subscription_identifiers_available,
            shared_subscription_available: mqtt.shared_subscription_available,
        }
    }

    /// What clients of either may do.
    fn or(self, other: Self) -> Self {
        Self {
            packet_bytes_max: self.packet_bytes_max.max(other.packet_bytes_max),
            receive_maximum: self.receive_maximum.max(other.receive_maximum),
            topic_alias_maximum: self.topic_alias_maximum.max(other.topic_alias_maximum),
            retain_available: self.retain_available || other.retain_available,
            wildcard_subscription_available: self.wildcard_subscription_available
                || other.wildcard_subscription_available,
            subscription_identifiers_available: self.subscription_identifiers_available
                || other.subscription_identifiers_available,
            shared_subscription_available: self.shared_subscription_available
                || other.shared_subscription_available,
        }
    }
}

impl Config {
    /// The engine's part of the settings, with limits that may have been adapted to the machine.
    pub fn new(settings: &Settings, limits: Limits) -> Self {
        let Settings { mqtt, protection, listeners, .. } = settings;
        let assigned = listeners.iter().filter_map(|of| of.assigned_identifier_prefix.as_ref());
        let assigned = assigned.chain([&mqtt.assigned_identifier_prefix]);
        let of_listeners = listeners.iter().map(|listener| listener.maximum_qos);
        Self {
            mqtt: mqtt.clone(),
            protection: protection.clone(),
            will_grace_s: settings.storage.will_grace_s,
            bind_sessions: settings.access.binds_sessions(),
            #[cfg(feature = "cluster")]
            absent_session_wait_s: settings.cluster.absent_session_wait_s,
            has_statistics: settings.stats.enabled || settings.has_admin(),
            queue_limits: QueueLimits {
                messages_max: limits.queue_messages_max as usize,
                bytes_max: limits.queue_bytes_max,
                user_bytes_max: protection.queue_bytes_per_user_max,
                policy: limits.queue_policy,
                inflight_bytes_max: limits.inflight_bytes_max,
            },
            queues_qos_0: QueuesQos0::of(settings, limits.queue_qos0),
            logs_connections: settings.log.connections,
            has_log_topics: settings.log.topics,
            bounds_rates: protection.bounds_rates(),
            assigned_prefixes: assigned.map(|prefix| prefix.as_str().into()).collect(),
            checks_payloads: mqtt.payload_format_validate || limits.payload_bytes_max > 0,
            lowest_maximum_qos: of_listeners.fold(mqtt.maximum_qos, u8::min),
            terms: Terms::default(),
            announced: Announced::of(&limits, mqtt),
            announced_earlier: Announced::of(&limits, mqtt),
            limits,
        }
    }

    /// Other settings hold from the next decision on. For clients that are connected, the values that CONNACK
    /// announced hold until they disconnect: with several earlier terms, the widest of them.
    pub(super) fn replace(&mut self, mut next: Self) {
        (next.terms, next.announced_earlier) = (self.terms, self.announced_earlier);
        if next.announced != self.announced {
            match self.terms.0.checked_add(1) {
                Some(terms) => {
                    let is_first = self.terms == Terms::default();
                    next.announced_earlier = match is_first {
                        true => self.announced,
                        false => self.announced_earlier.or(self.announced),
                    };
                    next.terms = Terms(terms);
                }
                // Numbers are used up: newcomers may do what earlier clients may.
                None => next.announced = next.announced.or(self.announced),
            }
        }
        *self = next;
    }

    /// What a client with these terms was told.
    #[inline]
    pub(super) fn announced(&self, terms: Terms) -> &Announced {
        match terms == self.terms {
            true => &self.announced,
            false => &self.announced_earlier,
        }
    }

    /// Whether QoS 0 messages to the client of a session are queued while it is away.
    #[inline]
    pub(super) fn queues_qos_0(&self, session: &Session) -> bool {
        match self.queues_qos_0 {
            QueuesQos0::None => false,
            QueuesQos0::All => true,
            QueuesQos0::Some => self.has_queue_for_qos_0(session),
        }
    }

    #[cold]
    fn has_queue_for_qos_0(&self, session: &Session) -> bool {
        let own = session.own_bounds().and_then(BridgeQueue::queues_qos_0);
        own.unwrap_or(self.limits.queue_qos0)
    }

    /// The policy of the queue of a session.
    pub(super) fn queue_policy(&self, session: &Session) -> QueuePolicy {
        session.own_bounds().and_then(BridgeQueue::policy).unwrap_or(self.queue_limits.policy)
    }

    /// Whether a Client Identifier has the form of those that are assigned.
    pub(super) fn is_assigned(&self, client_identifier: &str) -> bool {
        let fits = |prefix: &str| client_identifiers::is_assigned(client_identifier, prefix);
        self.assigned_prefixes.iter().any(|prefix| fits(prefix))
    }

    /// Limit of concurrent connections, of all cores together.
    pub fn connections_max(&self) -> u32 {
        self.limits.connections_max
    }

    /// Lowers that limit, if it is higher.
    pub fn lower_connections_max(&mut self, connections_max: u32) {
        self.limits.connections_max = self.limits.connections_max.min(connections_max);
    }

    /// Limit of the memory that messages, queues and outboxes take, of all cores together.
    pub fn memory_bytes_max(&self) -> u64 {
        self.limits.memory_bytes_max
    }

    /// How many bytes may wait for a consumer before it counts as behind.
    #[inline]
    pub(super) fn outbox_behind_bytes(&self) -> usize {
        self.limits.outbox_bytes_max as usize / limits::CONGESTED_OUTBOX_SHARE
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
