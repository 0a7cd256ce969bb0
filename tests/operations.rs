//! The tour in docs/operations.md: each command is run, and prints what the document shows.
#![cfg(all(unix, feature = "admin"))]

#[path = "support/folder.rs"]
mod folder;
#[path = "support/shell.rs"]
mod shell;

use std::path::Path;

use folder::Folder;
use shell::{Shell, Step, free_port, lacks, steps_of};

/// A text with free ports in place of those of MQTT, the admin interface and Prometheus.
fn with_ports(text: &str, ports: &[u16; 3]) -> String {
    let documented = ["1883", "9883", "9090"].iter().zip(ports);
    documented.fold(text.to_owned(), |text, (documented, port)| {
        text.replace(documented, &port.to_string())
    })
}

#[test]
fn the_tour_of_an_operator_leads_through() {
    if lacks(&["prometheus", "promtool", "curl", "mosquitto_sub", "pgrep"]) {
        return;
    }
    let steps = steps_of("docs/operations.md", "## Tour", "console");
    assert!(steps.len() > 20, "{} commands", steps.len());
    let folder = Folder::new("tour");
    let ports = [free_port(), free_port(), free_port()];
    let deploy = folder.0.join("deploy/prometheus");
    std::fs::create_dir_all(&deploy).expect("a folder");
    for file in ["prometheus.yml", "ringmq.rules.yml"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus").join(file);
        let text = std::fs::read_to_string(source).expect("the file");
        std::fs::write(deploy.join(file), with_ports(&text, &ports)).expect("written");
    }
    let mut shell = Shell::new(&folder.0, ports[0]);
    for Step { command, output } in steps {
        shell.follow(&with_ports(&command, &ports), &output);
    }
}
