//! Listeners, and the layers between a socket and MQTT: the policy of each listener, TLS handshakes, whose number
//! per turn is limited, and the offload of TLS to the kernel.

mod handshake_queue;
mod handshakes;
mod kernel_tls;
mod offload;

use std::sync::Arc;

use crate::base::ids::{ConnectionId, Peer};
use crate::config::Limits;
use crate::engine::cause::Cause;
use crate::engine::connections::connection::Connection;
use crate::transport::{ListenerPolicies, ListenerPolicy};
use crate::wire::Version;
use handshake_queue::HandshakeQueue;
use offload::OffloadQueue;

/// Of the connections of bridges, which the broker has opened.
pub(in crate::engine) const NO_LISTENER: u16 = u16::MAX;

/// The listeners of one core. A connection takes one place of its listener from [`Self::admit`] to
/// [`Self::release`].
#[derive(Debug)]
pub(in crate::engine) struct Listeners {
    /// By the number of the listener; listeners without a policy accept plain MQTT.
    policies: ListenerPolicies,
    handshakes: HandshakeQueue,
    offload: OffloadQueue,
}

impl Listeners {
    /// Without policies yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            policies: ListenerPolicies::default(),
            handshakes: HandshakeQueue::new(limits),
            offload: OffloadQueue::default(),
        }
    }

    /// Other limits on handshakes hold from the next turn on.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.handshakes.set_limits(limits);
    }

    /// Sets the policy of each listener, by its number.
    pub fn set_policies(&mut self, policies: ListenerPolicies) {
        self.policies = policies;
    }

    /// Takes a place of the listener for a new connection, and gives the connection its transport.
    /// Refused at the listener's bound, and when memory is overdrawn and the transport needs some.
    pub fn admit(
        &self,
        peer: &Peer,
        connection: &mut Connection,
        memory_is_overdrawn: bool,
    ) -> Result<(), Cause> {
        let Some(policy) = self.policy(peer.listener) else { return Ok(()) };
        if !policy.enter() {
            return Err(Cause::ListenerFull);
        }
        connection.transport = policy.transport_for(peer);
        if connection.bytes_charged() > 0 && memory_is_overdrawn {
            // A handshake uses memory long before CONNACK can refuse the client for lack of memory.
            policy.leave();
            return Err(Cause::MemoryFull);
        }
        Ok(())
    }

    /// Whether a listener accepts clients of a protocol version.
    pub fn accepts(&self, listener: u16, version: Version) -> bool {
        self.policy(listener).is_none_or(|policy| policy.accepts(version))
    }

    /// Highest QoS of the clients of a listener; none: that of all clients.
    pub fn maximum_qos(&self, listener: u16) -> Option<u8> {
        self.policy(listener).map(ListenerPolicy::maximum_qos)
    }

    /// How Client Identifiers begin that are assigned to the clients of a listener; none: as for all clients.
    pub fn assigned_prefix(&self, listener: u16) -> Option<&str> {
        self.policy(listener)?.assigned_prefix()
    }

    /// Whether the User Name takes the place of the Client Identifier.
    pub fn renames_clients(&self, listener: u16) -> bool {
        self.policy(listener).is_some_and(ListenerPolicy::renames_clients)
    }

    /// What is put before the topics of the clients of a listener; none: nothing.
    pub fn mount_point(&self, listener: u16) -> Option<&Arc<str>> {
        self.policy(listener)?.mount_point()
    }

    /// Whether the CONNECT of a client is not taken as it is: the client is renamed, or its topics are moved.
    #[inline]
    pub fn changes_connect(&self, listener: u16) -> bool {
        self.policy(listener).is_some_and(ListenerPolicy::changes_connect)
    }

    /// Gives back the place of a connection that has ended.
    pub fn release(&self, listener: u16) {
        if let Some(policy) = self.policy(listener) {
            policy.leave();
        }
    }

    /// Whether connections of a listener use TLS.
    #[cfg(feature = "admin")]
    pub fn has_tls(&self, listener: u16) -> bool {
        self.policy(listener).is_some_and(|policy| policy.transport().has_tls())
    }

    /// Whether TLS handshakes wait for a later turn.
    #[inline]
    pub fn has_handshakes(&self) -> bool {
        !self.handshakes.is_empty()
    }

    /// The next handshake to continue, if the turn has a handshake step left.
    #[inline]
    pub fn next_handshake(&mut self) -> Option<ConnectionId> {
        self.handshakes.pop()
    }

    /// The next turn may take its handshake steps.
    #[inline]
    pub fn end_turn(&mut self) {
        self.handshakes.end_turn();
    }

    /// The address or path of a listener, for the log.
    pub fn name(&self, listener: u16) -> &str {
        let otherwise = if listener == NO_LISTENER { "bridge" } else { "unnamed" };
        self.policy(listener).map_or(otherwise, |policy| policy.name())
    }

    /// The address or path of a listener, for the store.
    pub fn stored_name(&self, listener: u16) -> Option<Arc<str>> {
        self.policy(listener).map(|policy| Arc::clone(policy.name()))
    }

    /// The number of the listener with this address or path; that of none if it is gone.
    pub fn with_name(&self, name: &str) -> u16 {
        let place = self.policies.iter().position(|policy| **policy.name() == *name);
        place.map_or(NO_LISTENER, |place| place as u16)
    }

    fn policy(&self, listener: u16) -> Option<&ListenerPolicy> {
        self.policies.get(usize::from(listener)).map(|policy| &**policy)
    }
}
