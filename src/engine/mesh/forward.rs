//! Forwards messages to the other cores that have subscribers for them.

use crate::base::ids::{ConnectionId, CoreId};
use crate::engine::Engine;
use crate::engine::connections::Connections;
use crate::engine::draft::{Draft, Origin};
use crate::engine::mesh::Mesh;
use crate::engine::mesh::batch::{Batch, Destination};
use crate::engine::retained::Stored;
use crate::engine::routing::recipients::Recipients;

impl Engine {
    /// Forwards a message to the other cores and nodes that have subscribers for it, or, when it is retained, to
    /// all of them. Returns whether another node has subscribers.
    pub(in crate::engine) fn forward(
        &mut self,
        recipients: &Recipients,
        draft: &mut Draft<'_>,
        origin: &Origin,
        stored: Option<&Stored>,
    ) -> bool {
        let cores = self.mesh.cores();
        match stored {
            None => {
                for &core in recipients.cores.iter().filter(|&&core| core < cores) {
                    self.forward_to(CoreId(core), draft, origin, |_| Destination::Subscribers);
                }
            }
            Some(stored) => {
                for core in self.mesh.others() {
                    let whom = Destination::SubscribersAndStore(stored.stamp);
                    self.forward_to(core, draft, origin, |_| whom);
                }
            }
        }
        self.forward_to_nodes(recipients, draft, origin, stored)
    }

    /// Forwards a message to one core.
    pub(in crate::engine) fn forward_to(
        &mut self,
        core: CoreId,
        draft: &mut Draft<'_>,
        origin: &Origin,
        whom: impl FnOnce(&mut Batch) -> Destination,
    ) {
        // Other cores can pause only a client of this core.
        let own = origin.publisher.filter(|publisher| publisher.core == self.mesh.core());
        let publisher = own.map(|publisher| publisher.connection);
        let waits = self.mesh.send_message(core, draft, publisher, self.memory.ledger(), whom);
        if waits && let Some(publisher) = publisher {
            wait_for_lane(publisher, core, &mut self.connections, &mut self.mesh);
        }
    }
}

/// Leaves a publisher unread until the window of the lane to a core has space.
fn wait_for_lane(
    publisher: ConnectionId,
    core: CoreId,
    connections: &mut Connections,
    mesh: &mut Mesh,
) {
    if connections.get_mut(publisher).is_some_and(|connection| connection.read_holds == 0) {
        mesh.queue_publisher(core, publisher);
        connections.pause_reading(publisher);
    }
}
