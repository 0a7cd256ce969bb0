//! No part of `src/` imports from a floor above its own.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{self, File};

/// The floors, from bottom to top. A part is a folder of `src/` or a file directly in it; parts
/// that do not exist yet already have their floor.
const FLOORS: &[(&str, &str)] = &[
    ("base", "Words and tools that every part needs: identifiers, time, limits, log output."),
    ("wire", "Packets to bytes and bytes to packets, without allocation."),
    ("config", "The configuration as it is written."),
    ("resources", "Memory and other bounded resources, counted by holder."),
    ("message", "A message that outlives its packet."),
    ("transport", "Layers between a socket and MQTT, without I/O: PROXY protocol, TLS, WebSocket."),
    ("storage", "The journal on disk: records, segments, checkpoints, recovery."),
    ("session", "The state of one client: windows, queues, Will, Topic Aliases."),
    ("control", "Typed commands to running cores, and their replies."),
    ("engine", "The protocol, without I/O: events in, actions out."),
    ("mosquitto", "Mosquitto's configuration and files, translated."),
    ("access", "Authentication and authorization."),
    ("stats", "Latency histograms and counters, collected from all cores."),
    ("webhooks", "Events reported to HTTP servers."),
    ("bridges", "Connections to other brokers."),
    ("cluster", "The other machines that serve as one broker with this one."),
    ("platform", "The machine: processors, NUMA nodes, limits of the system."),
    ("executor", "Sockets and waiting: io_uring, epoll, other runtimes."),
    ("service", "The service manager: readiness, watchdog, Windows services."),
    ("admin", "HTTP for operators: health, status, commands; one thread beside the cores."),
    ("server", "One broker in a process: listeners, cores, certificates, start and stop."),
    ("cli", "The command line and its subcommands."),
    ("main", "Arguments in, exit code out."),
];

/// Remaining imports from a floor above: the part, and the part that it imports. An entry is
/// removed with its last import.
const STILL_UPWARD: &[(&str, &str)] = &[];

/// The names of the floors, from the bottom to the top.
pub fn names() -> impl Iterator<Item = &'static str> {
    FLOORS.iter().map(|(name, _)| *name)
}

fn floor_of(part: &str) -> Option<usize> {
    FLOORS.iter().position(|(name, _)| *name == part)
}

/// An import from a floor above.
pub struct Upward<'a> {
    pub file: &'a File,
    pub line: usize,
    pub to: &'a str,
}

/// All imports from a floor above, in the order of files and lines.
pub fn upward(files: &[File]) -> Vec<Upward<'_>> {
    let mut found = Vec::new();
    for file in files {
        let Some(own) = floor_of(file.floor()) else { continue };
        let lines: BTreeSet<_> = file.paths.iter().map(|(line, path)| (line, &path[0])).collect();
        for (&line, to) in lines {
            if floor_of(to).is_some_and(|other| other > own) {
                found.push(Upward { file, line, to });
            }
        }
    }
    found
}

/// The files of the broker: the library's and the command's.
pub fn broker() -> Vec<File> {
    let mut files = source::read_crate("src/lib.rs");
    files.extend(source::read_crate("src/main.rs"));
    files
}

#[test]
fn no_part_imports_from_a_floor_above() {
    let files = broker();
    let mut still = BTreeMap::new();
    let mut unexpected = Vec::new();
    for Upward { file, line, to } in upward(&files) {
        let arrow = (file.floor(), to);
        if STILL_UPWARD.contains(&arrow) {
            *still.entry(arrow).or_insert(0) += 1;
        } else {
            unexpected.push(format!("{}:{line}: {} -> {to}", file.path, arrow.0));
        }
    }
    assert!(
        unexpected.is_empty(),
        "imports from a floor above; the floors are in tests/architecture/floors.rs:\n{}",
        unexpected.join("\n")
    );
    for arrow in STILL_UPWARD {
        let (from, to) = arrow;
        assert!(
            still.contains_key(arrow),
            "{from} no longer imports {to}: remove the entry from STILL_UPWARD"
        );
    }
}

#[test]
fn every_part_has_a_floor() {
    for file in broker() {
        assert!(
            file.path == "src/lib.rs" || floor_of(file.floor()).is_some(),
            "{} is on no floor: add `{}` to FLOORS in tests/architecture/floors.rs",
            file.path,
            file.floor()
        );
    }
}
