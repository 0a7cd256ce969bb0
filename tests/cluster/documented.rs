//! The commands of docs/cluster.md, on one machine.
#![cfg(all(feature = "admin", feature = "store"))]

use std::process::{Child, Command, Stdio};

use super::alone;
use super::engine::program;
use super::folder::Folder;
use super::shell::{Shell, free_port, lacks, steps_of};

const PAGE: &str = "docs/cluster.md";

/// An engine server as the page starts it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nodes_on_one_machine_serve_as_one_as_documented() {
    let _alone = alone();
    let Some(program) = program() else { return };
    if lacks(&["mosquitto_sub"]) {
        return;
    }
    let folder = Folder::new("documented");
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let here = |text: &str| {
        let documented = ["18830", "18831", "18832", "4222"].iter().zip(&ports);
        let text = documented.fold(text.to_owned(), |text, (documented, port)| {
            text.replace(documented, &port.to_string())
        });
        text.replace("/tmp/ringmq", &folder.path("ringmq"))
            .replace("/tmp/nats/data", &folder.path("nats"))
            .replace("target/release/broker", "broker")
    };
    let one_machine = steps_of(PAGE, "## Five minutes on one machine", "console");
    let serve = one_machine.iter().find(|step| step.command.contains("nats-server -a"));
    let serve = here(&serve.expect("the engine").command);
    let flags = serve.trim_end_matches(" &").split(' ').skip(1);
    let mut server = Command::new(program);
    server.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Server(server.spawn().expect("the engine server starts"));

    let text = include_str!("../../docs/cluster.md");
    let (_, configuration) = text.split_once("```toml\n").expect("a configuration");
    let (configuration, _) = configuration.split_once("```").expect("its end");
    for number in 0..3 {
        let of = configuration
            .replace("18830", &format!("1883{number}"))
            .replace("ringmq/node0", &format!("ringmq/node{number}"))
            .replace("node = 0", &format!("node = {number}"));
        folder.write(&format!("node{number}.toml"), &here(&of));
    }
    // Ports are in the commands.
    let mut shell = Shell::new(&folder.0, 0);
    shell.run("unset -f mosquitto_pub mosquitto_sub");
    let mut steps = one_machine.iter().skip_while(|step| !step.command.starts_with("for n in"));
    let start = here(&steps.next().expect("the nodes").command).replace("toml &", "toml 2>>log &");
    shell.follow(&start, "");
    for number in 0..3 {
        let health = format!("broker ctl health --config node{number}.toml");
        shell.follow(&health, "…cluster  yes…");
    }
    shell.follow("cat log", "…cluster: joined…cluster: a node has joined…");
    let subscribe = here(&steps.next().expect("a subscriber").command);
    shell.run(&format!("{} >received &", subscribe.trim_end_matches(" &")));
    let publish = steps.next().expect("a publisher");
    // Again until the subscription is known.
    let look = format!("{}; cat received", here(&publish.command));
    shell.follow(&look, &format!("{}…", publish.output.trim()));

    for step in steps_of(PAGE, "## Watching a cluster", "console") {
        let command = step.command.replace("broker ", "broker --config node0.toml ");
        // Names and numbers are those of other nodes.
        let first = step.output.trim().lines().next().expect("a line").replace("plant", "lab");
        shell.follow(&command, &format!("{first}…"));
        shell.follow(&format!("{command} --json"), "…\"lab\"…\"member\"…\"member\"…\"member\"…");
    }
}
