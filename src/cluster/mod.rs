//! Several machines that serve as one broker: *nodes*, each a process with its cores.
//!
//! The [`gateway`] is one more core of the process's mesh, without clients: it passes on what the cores have for other
//! nodes, and gives them what other nodes send. An engine addresses each node like a core, in a lane of its own, so that
//! its answers to clients wait for the nodes concerned, and for no other.
//!
//! | folder or file | what it does |
//! | --- | --- |
//! | `codec` | what one node tells another, as bytes |
//! | `lane` | the lane between two nodes: every item once and in order, over a carrier that may lose some |
//! | `gateway` | the interest of the cores and of the nodes, and the receipts between them |
//! | `watchdog` | whether the engine still carries messages |
//! | `limits` | the bounds of all that |
//! | `view`, `membership` | who is a member, decided by compare-and-swap in a bucket of the engine |
//! | `suspicion` | which members are silent |
//! | `identity` | the numbers by which nodes are told apart |
//! | `ship` | the log of this node on its way to a replicated stream, page by page |
//! | `replica` | that stream: compared with the log at the start, and written from then on |
//! | `nats` | the engine: alone knows NATS |
//! | `setup` | what a carrier needs, from the configuration |
//! | `spawn` | runs an engine server beside the broker |
//! | `topics` | what is published below `$SYS` |
//! | `ports` | the way between the cores and the thread of the gateway |
//! | `runner` | that thread: gateway, carrier and watchdog together |
//!
//! `codec`, `lane`, `gateway`, `watchdog`, `ship`, `view` and `membership` are sans-IO: bytes and times go in, bytes and deadlines
//! come out.

pub mod codec;
pub mod gateway;
pub mod identity;
pub mod lane;
pub mod limits;
pub mod membership;
pub mod nats;
pub mod ports;
pub mod replica;
pub mod runner;
pub mod setup;
pub mod ship;
pub mod spawn;
mod suspicion;
mod topics;
pub mod view;
pub mod watchdog;
