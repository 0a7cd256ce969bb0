//! Files in practice: with a byte order mark, mounted individually, in read-only folders; and the
//! default location of the store.
#![cfg(all(target_os = "linux", feature = "store"))]

#[path = "support/folder.rs"]
mod folder;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use folder::Folder;

const BROKER: &str = env!("CARGO_BIN_EXE_broker");

/// Runs `broker passwd` with cheap hashes and this standard input.
fn passwd(folder: &Folder, arguments: &[&str], input: &str) -> Output {
    let cheap = "[access.hashing]\nmemory_kib = 8\niterations = 1\n";
    let config = folder.write("cheap.toml", cheap);
    let mut child = Command::new(BROKER)
        .args(["passwd", "--config", &config])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("the process exits")
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn a_byte_order_mark_is_skipped_in_every_kind_of_file() {
    let folder = Folder::new("bom");
    let file = folder.path("passwords");
    assert!(passwd(&folder, &["add", "alice", "--file", &file], "first\n").status.success());
    assert!(passwd(&folder, &["add", "bob", "--file", &file], "other\n").status.success());
    let text = fs::read_to_string(&file).expect("the file exists");
    fs::write(&file, format!("\u{FEFF}{}", text.replace('\n', "\r\n"))).expect("written");
    let list = passwd(&folder, &["list", "--file", &file], "");
    assert_eq!(said(&list), "alice\nbob\n");
    assert!(passwd(&folder, &["verify", "alice", "--file", &file], "first\n").status.success());
    // After a change, the user occurs once.
    assert!(passwd(&folder, &["add", "alice", "--file", &file], "second\n").status.success());
    assert_eq!(said(&passwd(&folder, &["list", "--file", &file], "")), "alice\nbob\n");
    assert!(passwd(&folder, &["remove", "alice", "--file", &file], "").status.success());
    assert_eq!(said(&passwd(&folder, &["list", "--file", &file], "")), "bob\n");
    let rules = folder.write("acl.txt", "\u{FEFF}for everyone\r\n    allow all a/#\r\n");
    let config = folder.write(
        "broker.toml",
        &format!("\u{FEFF}[access]\npassword_file = {file:?}\nacl_file = {rules:?}\n"),
    );
    let check = Command::new(BROKER).args(["--check-config", "--config", &config]).output();
    let check = check.expect("the command runs");
    assert!(check.status.success(), "{}", said(&check));
    // PowerShell writes UTF-16; the file must be rejected.
    let utf_16: Vec<u8> = "\u{FEFF}x:y".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&file, utf_16).expect("written");
    let list = passwd(&folder, &["list", "--file", &file], "");
    assert!(!list.status.success() && said(&list).contains("UTF-16"), "{}", said(&list));
}

/// Runs a script with permission to mount; `None` if this user may not.
fn run_with_mounts(script: &str) -> Option<Output> {
    let unshare = |what: &[&str]| {
        Command::new("unshare").args(["--mount", "--map-root-user"]).args(what).output().ok()
    };
    let probe = ["bash", "-c", "mount -t tmpfs none /mnt"];
    if !unshare(&probe).is_some_and(|tried| tried.status.success()) {
        eprintln!("SKIPPED: no permission to mount (unshare, mount)");
        return None;
    }
    unshare(&["bash", "-c", script])
}

#[test]
fn a_password_file_that_is_a_mount_point_is_changed_in_place() {
    let folder = Folder::new("mounted");
    let file = folder.path("passwords");
    fs::create_dir(folder.0.join("inside")).expect("a folder");
    let inside = folder.write("inside/passwords", "");
    assert!(passwd(&folder, &["add", "alice", "--file", &file], "first\n").status.success());
    let config = folder.path("cheap.toml");
    for is_read_only in [false, true] {
        // The mount point's folder may be in a read-only image.
        let remount = match is_read_only {
            true => {
                format!("mount --bind {0} {0}; mount -o remount,ro,bind {0}", folder.path("inside"))
            }
            false => String::new(),
        };
        let script = format!(
            "set -e; {remount}\nmount --bind {file} {inside}\n\
             echo second | {BROKER} passwd --config {config} --file {inside} add alice\n\
             echo other | {BROKER} passwd --config {config} --file {inside} add bob\n\
             {BROKER} passwd --config {config} --file {inside} remove bob\n\
             echo second | {BROKER} passwd --config {config} --file {inside} verify alice"
        );
        let Some(output) = run_with_mounts(&script) else { return };
        assert!(output.status.success(), "read-only: {is_read_only}: {}", said(&output));
        let list = passwd(&folder, &["list", "--file", &file], "");
        assert_eq!(said(&list), "alice\n");
        assert!(!Path::new(&folder.path("inside/passwords.new")).exists());
    }
}

/// Whether a broker starts, or the error.
fn started(command: &mut Command) -> Result<(), String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    command.args(["--listen", &free.to_string()]).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command runs");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    while log.read_line(&mut said).expect("text") > 0 {
        if said.contains(" listening ") {
            child.kill().expect("the command runs");
            child.wait().expect("the process exits");
            return Ok(());
        }
    }
    child.wait().expect("the process exits");
    Err(said)
}

/// Runs the command as a user unknown to the system, and thus without a home; false if this user
/// may not.
fn as_nobody(command: &mut Command) -> bool {
    use std::os::unix::process::CommandExt as _;
    let is_root =
        fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0);
    if is_root {
        command.uid(54_321).gid(54_321);
    } else {
        eprintln!("SKIPPED: only root may run a program as another user");
    }
    is_root
}

#[test]
fn without_a_home_no_data_is_stored_below_the_working_directory() {
    let folder = Folder::new("home");
    let files = || fs::read_dir(&folder.0).expect("a folder").count();
    for (home, value) in [("HOME", ""), ("HOME", "relative"), ("XDG_STATE_HOME", "relative")] {
        let mut command = Command::new(BROKER);
        command.env_clear().current_dir(&folder.0);
        command.env(home, value);
        if !as_nobody(&mut command) {
            return;
        }
        let said = started(&mut command).expect_err("there is no place");
        for part in ["HOME", "STATE_DIRECTORY", "--data DIR", "--data none"] {
            assert!(said.contains(part), "{home}={value}: {said}");
        }
        assert_eq!(files(), 0, "{home}={value}");
    }
    let state = folder.path("state");
    let mut command = Command::new(BROKER);
    command.env_clear().current_dir("/").env("STATE_DIRECTORY", format!("{state}:/other"));
    started(&mut command).expect("systemd says where");
    assert!(Path::new(&state).join("ringmq").is_dir());
}
