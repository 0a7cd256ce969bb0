//! Policy of a listener: the layers of its connections, and the limit of their number. Knows no socket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::ids::Peer;
use crate::config::listener::{self, Listener};
use crate::config::proxy::Proxy;
use crate::transport::websocket::WebSocket;
use crate::transport::{Transport, proxy, tls};
use crate::wire::Version;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// The policies of all listeners, by number; the cores share them.
pub type ListenerPolicies = Arc<[Arc<ListenerPolicy>]>;

/// Policy of one listener.
#[derive(Debug)]
pub struct ListenerPolicy {
    /// The configured address or path.
    name: Arc<str>,
    transport: listener::Transport,
    proxies: Vec<Proxy>,
    proxied: proxy::Rules,
    tls: Option<tls::TlsConfig>,
    websocket: Arc<listener::WebSocket>,
    versions: [bool; 3],
    maximum_qos: u8,
    assigned_prefix: Option<Box<str>>,
    renames_clients: bool,
    /// Its clients are renamed, or their topics moved.
    changes_connect: bool,
    mount_point: Option<Arc<str>>,
    connections_max: u32,
    /// Current connections on all cores.
    connections: Arc<AtomicU32>,
}

impl ListenerPolicy {
    /// The policy of a configured listener, with `tls` if the transport uses TLS.
    pub fn new(listener: &Listener, tls: Option<tls::TlsConfig>) -> Self {
        debug_assert_eq!(listener.transport.has_tls(), tls.is_some());
        Self {
            name: listener.bind.to_string().into(),
            transport: listener.transport,
            proxies: listener.proxy_protocol_from.clone(),
            proxied: proxy::Rules {
                identity: listener.proxy_protocol_identity,
                requires_tls: listener.proxy_protocol_requires_tls,
            },
            tls,
            websocket: Arc::new(listener.websocket.clone()),
            versions: VERSIONS.map(|version| listener.accepts(version)),
            maximum_qos: listener.maximum_qos,
            assigned_prefix: listener.assigned_identifier_prefix.as_deref().map(Into::into),
            renames_clients: listener.username_as_client_identifier,
            changes_connect: listener.username_as_client_identifier
                || listener.mount_point.is_some(),
            mount_point: listener.mount_point.as_deref().map(Into::into),
            connections_max: listener.connections_max,
            connections: Arc::default(),
        }
    }

    /// A policy for the connections of the same listener from now on: those that there are count too.
    pub fn following(self, earlier: &Self) -> Self {
        Self { connections: Arc::clone(&earlier.connections), ..self }
    }

    /// Current connections on all cores.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The configured address or path, for the log.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Transport.
    pub fn transport(&self) -> listener::Transport {
        self.transport
    }

    /// Whether clients of a protocol version are accepted.
    pub fn accepts(&self, version: Version) -> bool {
        VERSIONS.iter().zip(self.versions).any(|(of, is_accepted)| *of == version && is_accepted)
    }

    /// Highest QoS of its clients.
    pub fn maximum_qos(&self) -> u8 {
        self.maximum_qos
    }

    /// How Client Identifiers begin that are assigned to its clients; none: as for all clients.
    pub fn assigned_prefix(&self) -> Option<&str> {
        self.assigned_prefix.as_deref()
    }

    /// Whether the User Name takes the place of the Client Identifier.
    pub fn renames_clients(&self) -> bool {
        self.renames_clients
    }

    /// Whether the CONNECT of a client is not taken as it is.
    pub fn changes_connect(&self) -> bool {
        self.changes_connect
    }

    /// What is put before the topics of its clients; none: nothing.
    pub fn mount_point(&self) -> Option<&Arc<str>> {
        self.mount_point.as_ref()
    }

    /// Configuration of TLS, if the transport uses TLS.
    pub fn tls_config(&self) -> Option<&tls::TlsConfig> {
        self.tls.as_ref()
    }

    /// Counts a connection, unless the limit is reached.
    pub fn enter(&self) -> bool {
        // Relaxed: a count that orders no other access.
        if self.connections_max == 0 {
            self.connections.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let within = |count| (count < self.connections_max).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    /// Counts the end of a connection.
    pub fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// The layers of a new connection; none for plain MQTT.
    pub fn transport_for(&self, peer: &Peer) -> Option<Box<Transport>> {
        let address = peer.address.map(|address| address.ip());
        let is_proxy = self.proxies.iter().any(|proxy| proxy.is_at(address));
        let transport = Transport {
            proxy: is_proxy.then(|| proxy::Header::new(self.proxied)),
            tls: self.tls.as_ref().and_then(tls::TlsConfig::begin).map(Box::new),
            websocket: self.transport.has_websocket().then(|| {
                let rules = Arc::clone(&self.websocket);
                let is_forwarded = rules.trusts(address);
                Box::new(WebSocket::begin(rules, is_forwarded, self.tls.is_some()))
            }),
            bridge: None,
            waiting: VecDeque::new(),
            said: Vec::new(),
        };
        (!transport.is_spent()).then(|| Box::new(transport))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_at_its_bound_takes_one_more_when_one_has_left() {
        let address = "127.0.0.1:1883".parse().expect("an address");
        let listener = Listener { connections_max: 2, ..Listener::tcp(address) };
        let policy = ListenerPolicy::new(&listener, None);
        assert!(policy.enter() && policy.enter() && !policy.enter());
        policy.leave();
        assert!(policy.enter() && !policy.enter());
    }

    #[test]
    fn connections_count_for_the_policy_that_follows_the_one_that_admitted_them() {
        let listener = Listener::tcp("127.0.0.1:1883".parse().expect("an address"));
        let policy = ListenerPolicy::new(&listener, None);
        assert!(policy.enter() && policy.enter());
        let listener = Listener { connections_max: 2, ..listener };
        let next = ListenerPolicy::new(&listener, None).following(&policy);
        assert!(!next.enter());
        policy.leave();
        next.leave();
        assert!(next.enter() && next.connections() == 1);
    }

    #[test]
    fn only_those_who_are_configured_are_taken_for_proxies() {
        let listener = Listener {
            proxy_protocol_from: vec!["10.0.0.0/8".parse().expect("a network")],
            ..Listener::tcp("127.0.0.1:1883".parse().expect("an address"))
        };
        let policy = ListenerPolicy::new(&listener, None);
        let from = |address: &str| {
            let address = Some(address.parse().expect("an address"));
            policy.transport_for(&Peer { address, listener: 0 }).is_some()
        };
        assert!(from("10.1.2.3:4") && from("[::ffff:10.1.2.3]:4"));
        assert!(!from("11.1.2.3:4") && !from("[::1]:4"));
    }
}
