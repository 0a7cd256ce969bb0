//! The broker as a node of a cluster: its log and the replicated stream before it serves, and the thread of its gateway.

use std::thread::JoinHandle;
use std::time::Duration;

use super::{Server, ServerError};
use crate::cluster::replica::Ended;
use crate::cluster::runner::{self, Started};
use crate::config::Replicas;
use crate::executor::threads::ForGateway;

/// The node.
#[derive(Default)]
pub(super) struct Node {
    /// The way to the engine, where it is there before the cores.
    started: Option<Started>,
    ended: Ended,
}

impl Server {
    /// With a replicated log, waits for the engine, and brings log and stream together, before anything is restored. None if
    /// the broker was asked to stop meanwhile.
    pub(super) fn open_node(&self) -> Result<Option<Node>, ServerError> {
        let mut node = Node::default();
        let cluster = &self.settings.cluster;
        if !cluster.is_enabled() || cluster.replicas == Replicas::One {
            return Ok(Some(node));
        }
        let mut store = self.store.borrow_mut();
        let store = store.as_mut().ok_or_else(|| {
            let what = "cluster.replicas: 3 needs a store; name a folder in storage.data";
            ServerError::Cluster(what.to_owned())
        })?;
        let board = self.cluster.clone().unwrap_or_default();
        let connected = runner::connect_replicated(cluster, store, board, &self.stop, &node.ended);
        node.started = connected.map_err(ServerError::Cluster)?;
        Ok(node.started.is_some().then_some(node))
    }
}

impl Node {
    /// Starts the thread of the gateway, if the broker is a node of a cluster.
    pub fn start(
        &mut self,
        server: &Server,
        parts: Option<ForGateway>,
    ) -> Result<Option<JoinHandle<()>>, ServerError> {
        let (Some(parts), Some(cores)) = (parts, server.stop.cores()) else { return Ok(None) };
        let ForGateway { place, ports, started } = parts;
        let settings = &server.settings;
        let board = server.cluster.clone().unwrap_or_default();
        let parts = runner::Parts {
            place,
            ports,
            cores: cores.clone(),
            started,
            stop: server.stop.clone(),
            board: board.clone(),
            sys_interval: Duration::from_secs(settings.mqtt.sys_interval_s.into()),
            seed: server.keys.tables,
        };
        let connected = match self.started.take() {
            Some(started) => Ok(started),
            None => {
                let folder = settings.data_folder().ok();
                runner::connect(&settings.cluster, folder.as_deref(), board)
            }
        };
        let gateway = connected.and_then(|started| runner::start(parts, started));
        gateway.map(Some).map_err(ServerError::Cluster)
    }

    /// An error if this broker had to end because of its stream.
    pub fn check_taken_over(&self) -> Result<(), ServerError> {
        match self.ended.get() {
            Some(why) => Err(ServerError::TakenOver(why.clone())),
            None => Ok(()),
        }
    }
}
