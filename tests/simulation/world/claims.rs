//! What nodes know of the sessions of the others.

use super::World;

impl World {
    /// Everything is at rest: each node knows of each session at another node, and of no other.
    pub fn check_claims(&mut self) -> Result<(), String> {
        let nodes = self.nodes.count();
        let (mut sessions, mut claims) = (vec![0; nodes], vec![0; nodes]);
        for core in 0..self.cores.len() {
            let node = self.nodes.node_of(core);
            let Some(sessions) = sessions.get_mut(node) else { return Ok(()) };
            let metrics = self.cores[core].engine.metrics();
            *sessions += metrics.clients_connected + metrics.clients_disconnected;
            claims[node] += metrics.cluster_claims;
        }
        let all: u64 = sessions.iter().sum();
        match (0..nodes).find(|&node| claims[node] != all - sessions[node]) {
            Some(node) => Err(format!(
                "node {node} knows of {} sessions elsewhere, and there are {}",
                claims[node],
                all - sessions[node]
            )),
            None => Ok(()),
        }
    }
}
