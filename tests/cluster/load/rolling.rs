//! Nodes that are emptied, stopped, and started again with a later program, one after the other, under load.
//!
//! ```text
//! RINGMQ_TEST_OLD_BROKER=PATH  the program before the update; without it, this one with the version 1 of lanes
//! RINGMQ_TEST_ROLLING=1        further updates of all: from the second one on, nodes can offer each other sessions
//! ```

#![cfg(feature = "admin")]

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::traffic::Traffic;
use super::{Clients, number};
use crate::alone;
use crate::brokers::operators::{socket, told, wait_until};
use crate::engine::{Engine, port};
use crate::support::Broker;

/// Load between two nodes.
const PAUSE: Duration = Duration::from_millis(1_500);

/// The program, and what it runs with.
fn program(is_old: bool) -> String {
    let own = env!("CARGO_BIN_EXE_broker");
    match std::env::var("RINGMQ_TEST_OLD_BROKER") {
        Ok(old) if is_old => old,
        _ if is_old => format!("env RINGMQ_TEST_LANES=1 {own}"),
        _ => own.to_owned(),
    }
}

/// The nodes of a run, each with its address.
struct Updated<'a> {
    engine: &'a Engine,
    addresses: Vec<SocketAddr>,
    brokers: Vec<Broker>,
}

impl Updated<'_> {
    fn start(&self, node: usize, is_old: bool) -> Broker {
        let folder = self.engine.folder.path(&format!("store{node}"));
        let (address, admin) = (self.addresses[node], socket(node));
        let section = self.engine.settings(&format!("node{node}"));
        let text = format!(
            "cores = 2\n[storage]\ndata = {folder:?}\n[admin]\nlisten = [\"unix:{}\"]\n[cluster]\n{section}\
             advertise = \"{address}\"\n",
            admin.display()
        );
        Broker::run(&program(is_old), &address.to_string(), &text)
    }

    /// Empties a node, stops it and starts it again. Returns how many clients and sessions it has sent elsewhere.
    fn update(&mut self, node: usize, traffic: &Traffic, is_from_old: bool) -> (u64, u64) {
        assert!(told(node, &["ctl", "drain", "--rate", "100000"]).is_some(), "a drain of {node}");
        let mut last = Value::Null;
        wait_until("the node is emptied", || {
            let Some(status) = drained(node) else { return false };
            let count = |key: &str| status[key].as_u64().unwrap_or(u64::MAX);
            // A node of the old version offers no sessions: they go where their clients go.
            let is_empty = match is_from_old {
                true => count("clients") == 0 && count("sessions") == 0,
                false => status["empty"] == true,
            };
            if last != status {
                println!("node {node}: {status}");
            }
            last = status;
            is_empty
        });
        let count = |key: &str| last[key].as_u64().unwrap_or(0);
        let counts = (count("disconnected"), count("moved"));
        traffic.set_open(node, false);
        self.brokers[node].stop();
        self.brokers[node].await_end();
        self.brokers[node] = self.start(node, false);
        wait_until("the node is ready", || told(node, &["ctl", "health"]).is_some());
        traffic.set_open(node, true);
        counts
    }
}

fn drained(node: usize) -> Option<Value> {
    serde_json::from_str(&told(node, &["ctl", "drain", "status", "--json"])?).ok()
}

#[test]
fn nodes_that_are_updated_one_after_the_other_under_load_lose_double_and_reorder_nothing() {
    let _alone = alone();
    let seed = number("RINGMQ_TEST_SEED").unwrap_or(1);
    let Some(engine) = Engine::start("rolling") else { return };
    let addresses: Vec<SocketAddr> =
        (0..3).map(|_| SocketAddr::from(([127, 0, 0, 1], port()))).collect();
    let mut nodes = Updated { engine: &engine, addresses: addresses.clone(), brokers: Vec::new() };
    for node in 0..3 {
        let broker = nodes.start(node, true);
        nodes.brokers.push(broker);
    }
    (0..3).for_each(|node| {
        wait_until("the nodes are ready", || told(node, &["ctl", "health"]).is_some());
    });
    let mut clients = Clients::new(&addresses);
    let rounds = 1 + number("RINGMQ_TEST_ROLLING").unwrap_or(0);
    let (begin, mut disconnected, mut moved) = (Instant::now(), 0, 0);
    clients.run(&addresses, seed, |traffic| {
        for round in 0..rounds {
            for node in 0..3 {
                std::thread::sleep(PAUSE);
                let (clients, sessions) = nodes.update(node, traffic, round == 0);
                (disconnected, moved) = (disconnected + clients, moved + sessions);
            }
        }
        std::thread::sleep(PAUSE);
    });
    let moves = clients.moves.load(Relaxed);
    let (verdict, findings) = clients.settle(&addresses);
    println!(
        "{rounds} updates of three nodes in {} s: {disconnected} clients disconnected, {moved} sessions moved, {moves} \
         changes of the node",
        begin.elapsed().as_secs()
    );
    findings.iter().take(40).for_each(|finding| println!("{finding}"));
    println!("{}", verdict.line());
    (0..3).for_each(|node| drop(std::fs::remove_file(socket(node))));
    assert!(disconnected > 0 && moved > 0 && verdict.delivered > 0, "no load");
    assert!(verdict.is_clean() && !findings.iter().any(|of| of.contains("session")));
}
