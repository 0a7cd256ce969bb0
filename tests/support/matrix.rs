//! Records for docs/matrix.md what a test has done: with which transport, authentication and
//! client, and on which executor.

use std::io::Write;

/// Names the file to append to; without it nothing is recorded.
const FILE: &str = "RINGMQ_MATRIX";

/// The executor of a broker with these flags, from its start event; `None` for other events.
pub fn setup_of(event: &serde_json::Value, flags: &str) -> Option<String> {
    if event["message"] != "starting" {
        return None;
    }
    if flags.contains("--mode sync") {
        return Some("sync".to_owned());
    }
    let (executor, cores) = (event["executor"].as_str()?, event["cores"].as_u64()?);
    Some(if cores > 1 { format!("{executor}, many cores") } else { executor.to_owned() })
}

/// Records that a client has successfully used a broker. Called after the fact.
pub fn record(setup: &str, transport: &str, authentication: &str, client: &str) {
    let Some(file) = std::env::var_os(FILE) else { return };
    let line = format!("{transport}\t{authentication}\t{client}\t{setup}\n");
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(file).expect("a file");
    file.write_all(line.as_bytes()).expect("a line");
}
