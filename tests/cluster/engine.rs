//! Three engine servers on loopback.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::folder::Folder;

/// The program; none, with a notice, if it cannot be had here.
pub fn program() -> Option<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/nats-server");
    let output = Command::new(script).output().expect("the script runs");
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        eprintln!("SKIPPED: nats-server could not be installed: {why}");
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A port that nobody uses.
pub fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// Three servers with routes to each other.
pub struct Engine {
    program: String,
    pub folder: Folder,
    pub ports: [u16; 3],
    servers: Vec<Option<Child>>,
}

impl Engine {
    pub fn start(name: &str) -> Option<Self> {
        let program = program()?;
        let folder = Folder::new(name);
        let listeners: Vec<TcpListener> =
            (0..6).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let port = |of: usize| listeners[of].local_addr().expect("its address").port();
        let ports = [port(0), port(1), port(2)];
        let routes = (3..6).map(|of| format!("\"nats-route://127.0.0.1:{}\"", port(of)));
        let routes = routes.collect::<Vec<_>>().join(", ");
        for (number, of) in ports.iter().enumerate() {
            let store = folder.path(&format!("server{number}"));
            let routed = port(number + 3);
            folder.write(
                &format!("server{number}.conf"),
                &format!(
                    "server_name: server{number}\nlisten: \"127.0.0.1:{of}\"\njetstream {{ store_dir: \"{store}\" }}\n\
                     accounts {{ A {{ jetstream: enabled, users: [ {{ user: u, password: p }} ] }} }}\n\
                     cluster {{ name: test, no_advertise: true, listen: \"127.0.0.1:{routed}\", routes: [ {routes} ] }}\n"
                ),
            );
        }
        drop(listeners);
        let mut engine = Self { program, folder, ports, servers: vec![None, None, None] };
        (0..3).for_each(|number| engine.boot(number));
        Some(engine)
    }

    pub fn boot(&mut self, number: usize) {
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.folder.path(&format!("server{number}.conf")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.servers[number] = Some(child.expect("the server starts"));
    }

    /// As `kill -9`.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut server) = self.servers[number].take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Sends a server a signal, if it runs.
    pub fn signal(&self, number: usize, signal: &str) {
        if let Some(server) = &self.servers[number] {
            let id = server.id().to_string();
            let sent = Command::new("kill").args([signal, &id]).status().expect("kill runs");
            assert!(sent.success(), "{signal}");
        }
    }

    /// The section of the configuration for a node.
    pub fn settings(&self, node: &str) -> String {
        let servers = self.ports.map(|port| format!("\"nats://127.0.0.1:{port}\""));
        format!(
            "name = \"test\"\nnode = \"{node}\"\nengine = [{}]\nuser = \"u\"\npassword = \"p\"\n",
            servers.join(", ")
        )
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        (0..3).for_each(|number| self.kill(number));
    }
}
