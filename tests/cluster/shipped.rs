//! The services of deploy/docker/compose-cluster.yaml, as processes on loopback: their configuration, their variables and
//! their secrets are those of the containers.
#![cfg(all(feature = "admin", feature = "store"))]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::engine::program;
use super::folder::Folder;
use super::shell::free_port;
use super::{PATIENCE, alone};

const COMPOSE: &str = include_str!("../../deploy/docker/compose-cluster.yaml");
const ENGINE: &str = include_str!("../../deploy/docker/engine.conf");
const BROKER: &str = env!("CARGO_BIN_EXE_broker");
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A service, which ends with the test.
struct Service(Child);

impl Service {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("the service starts"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The variables that all nodes have.
fn variables() -> Vec<(&'static str, &'static str)> {
    let (_, block) = COMPOSE.split_once("&node-environment\n").expect("the variables of nodes");
    let lines = block.lines().take_while(|line| line.starts_with("  "));
    let lines = lines.filter(|line| !line.trim_start().starts_with('#'));
    lines.map(|line| line.trim().split_once(": ").expect("a variable and its value")).collect()
}

/// Where a server listens in place of a port of its container.
struct Places(Vec<[u16; 3]>);

impl Places {
    fn of(&self, server: usize, port: &str) -> String {
        let of = ["4222", "6222", "8222"].iter().position(|known| *known == port);
        format!("127.0.0.1:{}", self.0[server][of.expect("a port of a server")])
    }

    /// A text with these places for the names of servers.
    fn replace(&self, text: &str) -> String {
        let all = (0..3).flat_map(|server| ["4222", "6222"].map(|port| (server, port)));
        all.fold(text.to_owned(), |text, (server, port)| {
            text.replace(&format!("engine-{}:{port}", NAMES[server]), &self.of(server, port))
        })
    }

    /// The configuration of a server.
    fn configuration(&self, server: usize, folder: &Folder) -> String {
        let data = format!("ringmq/data/engine-{}", NAMES[server]);
        ENGINE
            .replace("0.0.0.0:4222", &self.of(server, "4222"))
            .replace("0.0.0.0:6222", &self.of(server, "6222"))
            .replace("127.0.0.1:8222", &self.of(server, "8222"))
            .replace("\"/data\"", &format!("{:?}", folder.path(&data)))
            .replace("../../run/secrets/", "")
    }
}

/// Waits until a node says that it is ready, as the health check of its container does.
fn await_ready(socket: &str, members: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let asked = Command::new(BROKER).args(["ctl", "--at", socket, "health"]).output();
        let asked = asked.expect("the program runs");
        let said = String::from_utf8_lossy(&asked.stdout).into_owned();
        if asked.status.success() && said.contains(members) {
            return;
        }
        let errors = String::from_utf8_lossy(&asked.stderr);
        assert!(Instant::now() < end, "{socket}: {said}{errors}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_services_of_the_compose_file_form_a_cluster() {
    let _alone = alone();
    let Some(program) = program() else { return };
    let folder = Folder::new("shipped");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/docker/cluster-folder");
    let made = Command::new(script).arg(folder.path("ringmq")).output().expect("it runs");
    assert!(made.status.success(), "{made:?}");
    let places = Places((0..3).map(|_| std::array::from_fn(|_| free_port())).collect());

    let secret = |name: &str| {
        std::fs::read_to_string(folder.path(&format!("ringmq/secrets/{name}"))).expect("a secret")
    };
    folder.write("routes.conf", &places.replace(&secret("routes.conf")));
    let mut services = Vec::new();
    for (server, name) in NAMES.iter().enumerate() {
        let file = format!("engine-{name}.conf");
        folder.write(&file, &places.configuration(server, &folder));
        let mut command = Command::new(&program);
        command.args(["--config", &folder.path(&file)]);
        services.push(Service::start(command.env("SERVER_NAME", format!("engine-{name}"))));
    }

    folder.write("ringmq/users/passwords", "");
    let mut sockets = Vec::new();
    for name in NAMES {
        let port = free_port();
        let data = folder.path(&format!("ringmq/data/node-{name}"));
        sockets.push(format!("unix:{data}/ringmq/{port}/admin.sock"));
        let mut command = Command::new(BROKER);
        command.env_clear().env("STATE_DIRECTORY", data).env("RINGMQ_CLUSTER__NODE", name);
        for (variable, value) in variables() {
            let value = places.replace(value).replace("0.0.0.0:1883", &format!("127.0.0.1:{port}"));
            let value = value.replace("/etc/ringmq", &folder.path("ringmq/users"));
            command.env(variable, value.replace("/run/secrets", &folder.path("ringmq/secrets")));
        }
        services.push(Service::start(&mut command));
    }
    sockets.iter().for_each(|socket| await_ready(socket, "one of 3 members"));
}
