//! The engine: connection, lanes, and the bucket of the cluster. No other module knows NATS.
//!
//! A [`Carrier`] belongs to one thread with a current-thread runtime of tokio. It does its work inside
//! [`Carrier::next_event`], which may be given up at any time (`select!`) and called again, and must be called again soon:
//! leases are renewed there. [`Carrier::send`] never waits.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::membership::JoinError;
use super::status::SharedStatus;
use super::view::{Incarnation, LaneVersions, NodeNumber, View};

/// How to reach the engine, and who this node is.
#[derive(Clone, Debug, Default)]
pub struct CarrierOptions {
    /// The name of the cluster: letters, digits, `-` and `_`.
    pub cluster: String,
    /// The name of this node, unique in the cluster.
    pub name: String,
    /// The number that this node has to have; none for the one it had before, or the lowest that is free.
    pub number: Option<NodeNumber>,
    /// The address for clients.
    pub advertise: String,
    /// Versions of lanes that this broker speaks.
    pub lanes: Option<LaneVersions>,
    /// The random number of this node's store ([`super::membership::store_number`]).
    pub store: u64,
    /// URLs of the engine's servers, `nats://HOST:PORT` or `tls://HOST:PORT`.
    pub servers: Vec<String>,
    /// User name and password.
    pub user: Option<(String, String)>,
    /// File with the credentials (a token and its key) of a NATS user.
    pub credentials: Option<PathBuf>,
    /// File with the seed of an NKey.
    pub nkey: Option<PathBuf>,
    /// File with certificates of authorities, in PEM.
    pub ca: Option<PathBuf>,
    /// Files with the certificate and the key of this node, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum CarrierEvent {
    /// There is a connection to an engine server, `HOST:PORT`.
    Connected {
        /// The server.
        server: String,
    },
    /// There is none. The carrier connects again by itself, and frames are dropped meanwhile.
    Disconnected,
    /// This node is in the view, as `Joining`. Lanes may begin; [`Carrier::set_ready`] makes it a full member.
    Joined {
        /// Its number.
        node: NodeNumber,
        /// Its incarnation.
        incarnation: Incarnation,
        /// The secret seed of the cluster's hashes.
        seed: [u8; 16],
    },
    /// This node cannot join; the carrier tries again when [`Carrier::rejoin`] is called.
    Refused(JoinError),
    /// A frame of a node came, as it was sent. The receiver checks its incarnation.
    FrameReceived {
        /// The node that it says it is from.
        from: NodeNumber,
        /// The frame.
        frame: Bytes,
    },
    /// Members came, left, or changed their state. Also the first view after [`CarrierEvent::Joined`].
    ViewChanged(Arc<View>),
    /// A member renewed its lease.
    LeaseSeen {
        /// The member.
        node: NodeNumber,
    },
    /// What [`Carrier::send_echo`] sent came back through the engine.
    EchoHeard(u64),
    /// The engine has had no quorum for ten seconds, as far as this node reaches it. It is still a member, as far as it
    /// knows.
    Isolated,
    /// The isolation has ended, and this node is still a member.
    Healed,
    /// Other nodes have taken this incarnation out of the view, or it has left on its own because it did not hear another
    /// one. It must not act as a member any more; the gateway ends its connections and calls [`Carrier::rejoin`].
    Evicted,
    /// This node has left, after [`Carrier::leave`].
    Left,
}

/// The connection to the engine.
pub struct Carrier;

impl Carrier {
    /// Checks the options (addresses, files) and starts to connect. Needs a runtime of tokio. Errors say which option is
    /// wrong; an engine that cannot be reached is no error but awaited.
    pub async fn start(_options: CarrierOptions, _status: SharedStatus) -> Result<Self, String> {
        Err(String::new())
    }

    /// The next event. May be given up and called again.
    pub async fn next_event(&mut self) -> CarrierEvent {
        std::future::pending().await
    }

    /// Sends a frame to a node, once, or never: without a connection, or when too much waits to be written, it is dropped and
    /// counted. Returns whether it was handed over.
    pub fn send(&mut self, _to: NodeNumber, _frame: Bytes) -> bool {
        false
    }

    /// Sends a number to this node itself through the engine ([`CarrierEvent::EchoHeard`]).
    pub fn send_echo(&mut self, _number: u64) {}

    /// Leaves the engine's server for the next one.
    pub fn force_reconnect(&mut self) {}

    /// Notes that a frame of a member's present incarnation came.
    pub fn note_heard(&mut self, _node: NodeNumber) {}

    /// Changes this node's state in the view from `Joining` to `Member`.
    pub fn set_ready(&mut self) {}

    /// Changes it to `Leaving`: the node gives its sessions away.
    pub fn set_leaving(&mut self) {}

    /// Takes this node out of the view ([`CarrierEvent::Left`]).
    pub fn leave(&mut self) {}

    /// Joins with the next incarnation, after [`CarrierEvent::Evicted`], [`CarrierEvent::Refused`] or
    /// [`CarrierEvent::Left`].
    pub fn rejoin(&mut self) {}

    /// The view; none before the bucket was read.
    pub fn view(&self) -> Option<&Arc<View>> {
        None
    }

    /// Whether this node may act as a member: it is in the last view that it knows, and was able to renew its lease in the
    /// last ten seconds.
    pub fn is_member(&self) -> bool {
        false
    }
}
