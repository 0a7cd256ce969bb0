//! Notes what a test has done, for docs/matrix.md: by which transport and authentication, with whose
//! client, and what the broker ran on.

use std::io::Write;

/// A file to add to; nothing is noted without.
const FILE: &str = "RINGMQ_MATRIX";

/// What a broker with these flags runs on, as the event says with which it starts; none where it is
/// another one.
pub fn setup_of(event: &serde_json::Value, flags: &str) -> Option<String> {
    let fields = &event["fields"];
    if fields["message"] != "starting" {
        return None;
    }
    if flags.contains("--mode sync") {
        return Some("sync".to_owned());
    }
    let (executor, cores) = (fields["executor"].as_str()?, fields["cores"].as_u64()?);
    Some(if cores > 1 { format!("{executor}, many cores") } else { executor.to_owned() })
}

/// Notes that a client did with a broker what the test says. To be called when it has.
pub fn did(setup: &str, transport: &str, authentication: &str, client: &str) {
    let Some(file) = std::env::var_os(FILE) else { return };
    let line = format!("{transport}\t{authentication}\t{client}\t{setup}\n");
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(file).expect("a file");
    file.write_all(line.as_bytes()).expect("a line");
}
