//! A broker of either kind, and what generated tests need.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::program;

/// Numbers from a seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    pub fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

/// A broker of either kind, of which several clients are connected.
pub struct Broker {
    child: Child,
    pub address: SocketAddr,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker {
    /// Mosquitto with these options.
    pub fn mosquitto(folder: &Path, options: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = address.expect("a free port");
        let settings = folder.join("mosquitto.conf");
        let port = address.port();
        // It would become another user, who may not read the folder of a test.
        let text = format!("user root\nlistener {port} 127.0.0.1\n{options}");
        std::fs::write(&settings, text).expect("written");
        let mut command = program("mosquitto");
        let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = silent.arg("-c").arg(&settings).spawn().expect("mosquitto starts");
        let broker = Self { child, address };
        let patience = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < patience, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        broker
    }

    /// `broker` with these keys of `[access]`.
    pub fn ringmq(folder: &Path, access: &str) -> Self {
        let settings = folder.join("broker.toml");
        let text =
            format!("listen = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n[access]\n{access}");
        std::fs::write(&settings, text).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_broker"))
            .arg("--config")
            .arg(&settings)
            .args(["--data", "none"])
            .args(std::env::var("RINGMQ_TEST_FLAGS").unwrap_or_default().split_whitespace())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("text") > 0, "the broker has ended");
            let event: serde_json::Value =
                serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
            assert_ne!(event["level"], "ERROR", "{line}");
            if event["message"] == "listening" {
                break event["address"].as_str().expect("an address").parse().expect("an address");
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }
}

/// A number from the environment.
pub fn number_of(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}
