//! Users and rules of Mosquitto's files: what Debian's `mosquitto` and its tools decide, and what `broker` decides.
//!
//! `tests/interop/setup` installs them, which the first test runs. Where that is not possible, `RINGMQ_INTEROP=skip`
//! skips these tests with a message.

#![cfg(all(unix, feature = "mosquitto-passwords"))]

mod broker;
mod client;
#[cfg(feature = "dynamic-security")]
mod dynamic;
mod passwords;
mod rules;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// Whether Mosquitto is installed; installs it the first time. False only if the tests are skipped.
fn mosquitto_is_there() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        if std::env::var_os("RINGMQ_INTEROP").is_some_and(|value| value == "skip") {
            eprintln!("SKIPPED because of RINGMQ_INTEROP=skip: Mosquitto was not compared");
            return false;
        }
        if which("mosquitto_passwd").is_some() && which("mosquitto").is_some() {
            return true;
        }
        let setup = Command::new("tests/interop/setup").output().expect("bash is there");
        let what = String::from_utf8_lossy(&setup.stderr).into_owned();
        assert!(setup.status.success(), "tests/interop/setup failed:\n{what}");
        true
    })
}

/// The path of a program, which may be one for administrators.
fn which(name: &str) -> Option<PathBuf> {
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn program(name: &str) -> Command {
    Command::new(which(name).unwrap_or_else(|| panic!("{name} is not installed")))
}

/// A folder of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("ringmq-of-mosquitto-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a command with this input.
fn run(command: &mut Command, input: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the command starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}
