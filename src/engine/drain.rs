//! Clients that are sent to other nodes of the cluster: the order of the moment, and the address that each client is told.

use std::sync::Arc;

use crate::control::drain::{DrainOrder, DrainProgress, Purpose};
use crate::engine::Engine;
use crate::wire::ReasonCode;

/// The order of the moment.
#[derive(Debug, Default)]
pub(in crate::engine) struct Drain {
    order: Option<Arc<DrainOrder>>,
    /// The target whose address is told next.
    next: usize,
}

impl Drain {
    /// Whether new clients are refused.
    #[inline]
    pub fn refuses_clients(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.purpose == Purpose::Drain)
    }

    /// The order of the moment.
    #[cfg(feature = "cluster")]
    pub fn order(&self) -> Option<&Arc<DrainOrder>> {
        self.order.as_ref()
    }

    /// The address of the next node in turn that has one; none without an order.
    pub fn next_reference(&mut self) -> Option<Arc<str>> {
        let targets = &self.order.as_ref()?.targets;
        let places = (0..targets.len()).map(|place| (self.next + place) % targets.len());
        let has_address = |&place: &usize| !targets[place].server_reference.is_empty();
        let place = { places }.find(has_address)?;
        self.next = place + 1;
        Some(targets[place].server_reference.as_ref().into())
    }
}

impl Engine {
    /// Another order holds from now on, or none; how far this core has come.
    pub(in crate::engine) fn take_drain_order(
        &mut self,
        order: Option<Arc<DrainOrder>>,
    ) -> DrainProgress {
        self.drain.order = order;
        self.continue_draining();
        self.drain_progress()
    }

    /// The address that goes with a reason to use another server.
    pub(in crate::engine) fn server_reference(&mut self, reason: ReasonCode) -> Option<Arc<str>> {
        let configured = match reason {
            ReasonCode::UseAnotherServer
            | ReasonCode::ServerMoved
            | ReasonCode::ServerShuttingDown => self.config.mqtt.server_reference.as_str(),
            _ => return None,
        };
        let of_node = self.drain.next_reference();
        of_node.or_else(|| (!configured.is_empty()).then(|| configured.into()))
    }
}
