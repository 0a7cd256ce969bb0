//! The broker process that is killed, and its data folder.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct Broker {
    child: Child,
    pub address: SocketAddr,
}

impl Broker {
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &std::env::var("RINGMQ_TEST_FLAGS").unwrap_or_default(), 0)
    }

    /// Starts a broker with these flags. Clients connected at a crash have this many seconds to
    /// reconnect before their Wills are published.
    pub fn start_with(data: &Path, flags: &str, will_grace_s: u32) -> Self {
        let config = data.with_extension("toml");
        // Small, so that the store is compacted often.
        let text =
            format!("[storage]\nwill_grace_s = {will_grace_s}\ncompact_bytes_min = 1048576\n");
        std::fs::write(&config, text).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--data"])
            .arg(data)
            .arg("--config")
            .arg(config)
            .args(flags.split_whitespace())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut seen = String::new();
        let address = loop {
            let start = seen.len();
            assert!(
                log.read_line(&mut seen).expect("text") > 0,
                "the broker did not start:\n{seen}"
            );
            let event: serde_json::Value = serde_json::from_str(&seen[start..]).expect("JSON");
            if event["message"] == "listening" {
                break event["address"].as_str().expect("one").parse().expect("one");
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("the command runs");
        self.child.wait().expect("the process exits");
    }

    pub fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        assert!(self.child.wait().expect("the process exits").success(), "the broker exits with 0");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that is removed on drop.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let base = std::env::var_os("RINGMQ_TEST_DATA").map_or_else(std::env::temp_dir, Into::into);
        let path = base.join(format!("ringmq-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let kept = std::env::var_os("RINGMQ_CRASH_KEEP").is_some() && std::thread::panicking();
        if !kept {
            let _ = std::fs::remove_dir_all(&self.0);
            let _ = std::fs::remove_file(self.0.with_extension("toml"));
        }
    }
}
