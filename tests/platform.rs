//! The broker where io_uring is unavailable, for each cause: it names the cause, falls back and
//! serves; with io_uring forced, it exits with the cause.
#![cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01p";

fn broker(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(flags).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The io_uring part of the seccomp profile of container runtimes.
fn without_io_uring(mut command: Command, errno: u32) -> Command {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let filter = SeccompFilter::new(
        calls.into_iter().map(|call| (call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        TargetArch::try_from(std::env::consts::ARCH).expect("a supported architecture"),
    );
    let program: BpfProgram = filter.expect("a filter").try_into().expect("a program");
    #[expect(unsafe_code, reason = "a filter between fork and exec")]
    // SAFETY: it makes system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            seccompiler::apply_filter(&program).map_err(|_| std::io::ErrorKind::Other.into())
        });
    }
    command
}

/// Without the capability that lifts the limit, and with almost no lockable memory.
fn without_locked_memory(flags: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--inh-caps", "-ipc_lock", "--bounding-set", "-ipc_lock"])
        .args(["prlimit", "--memlock=4096", env!("CARGO_BIN_EXE_broker")])
        .args(flags)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

struct Serving {
    child: Child,
    /// Reads the log until the broker listens.
    log: String,
    address: SocketAddr,
}

impl Serving {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the broker starts");
        let mut reader = BufReader::new(child.stderr.take().expect("piped"));
        let mut log = String::new();
        let address = loop {
            let start = log.len();
            assert!(reader.read_line(&mut log).expect("text") > 0, "the broker exited: {log}");
            let event: serde_json::Value = serde_json::from_str(&log[start..]).expect("JSON");
            if event["message"] == "listening" {
                break event["address"].as_str().expect("text").parse().expect("address");
            }
        };
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        Self { child, log, address }
    }

    fn serves(&self) {
        let mut client = TcpStream::connect(self.address).expect("the server listens");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        client.write_all(CONNECT).expect("sent");
        let mut connack = [0; 4];
        client.read_exact(&mut connack).expect("in time");
        assert_eq!(connack, [0x20, 2, 0, 0]);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SERVE: [&str; 4] = ["--listen", "127.0.0.1:0", "--log-format", "json"];

/// `auto` falls back, serves, and logs the cause once; `uring` fails with the cause and suggests
/// `auto`.
fn falls_back(command: impl Fn(&[&str]) -> Command, word: &str, says: &[&str]) {
    for cores in ["1", "2"] {
        let serving = Serving::start(command(&[&SERVE[..], &["--cores", cores]].concat()));
        serving.serves();
        assert_eq!(serving.log.matches("running on poll").count(), 1, "{}", serving.log);
        assert!(serving.log.contains(&format!("\"because\":\"{word}\"")), "{}", serving.log);
        assert!(serving.log.contains("\"executor\":\"poll\""), "{}", serving.log);
    }
    let forced = command(&["--mode", "uring"]).output().expect("the command runs");
    let stderr = String::from_utf8_lossy(&forced.stderr).into_owned();
    assert_eq!(forced.status.code(), Some(1), "{stderr}");
    for part in [says, &["--mode uring", "--mode auto"]].concat() {
        assert!(stderr.contains(part), "{part:?} is missing: {stderr}");
    }
    let report = json(&command(&["platform", "--json"]).output().expect("the command runs"));
    assert_eq!(report["io_uring"]["state"], "unusable");
    assert_eq!(report["io_uring"]["because"], word);
    assert_eq!(report["recommended"]["mode"], "poll");
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_broker_falls_back_if_a_container_forbids_io_uring() {
    let command = |flags: &[&str]| without_io_uring(broker(flags), libc::EPERM as u32);
    falls_back(command, "forbidden", &["seccomp", "io_uring_setup"]);
}

#[test]
fn the_broker_falls_back_if_the_kernel_has_no_io_uring() {
    let command = |flags: &[&str]| without_io_uring(broker(flags), libc::ENOSYS as u32);
    falls_back(command, "absent", &["no io_uring", "Linux 6.0"]);
}

#[test]
fn the_broker_falls_back_if_too_little_memory_can_be_locked() {
    falls_back(without_locked_memory, "no-memory", &["4 KiB", "LimitMEMLOCK"]);
}

#[test]
#[ignore = "changes a setting of the whole machine; .ci/run runs it alone"]
fn the_broker_falls_back_if_the_administrator_disabled_io_uring() {
    const SETTING: &str = "/proc/sys/kernel/io_uring_disabled";
    struct Restore(String);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = std::fs::write(SETTING, &self.0);
        }
    }
    let _restore = Restore(std::fs::read_to_string(SETTING).expect("Linux 6.6 or later"));
    std::fs::write(SETTING, "2").expect("as root");
    falls_back(broker, "disabled-by-sysctl", &["kernel.io_uring_disabled = 2"]);
}

#[test]
fn the_platform_is_reported_as_text_and_as_json() {
    let report = json(&broker(&["platform", "--json"]).output().expect("the command runs"));
    assert_eq!(report["architecture"], std::env::consts::ARCH);
    assert!(report["processors"].as_u64() >= Some(1));
    assert!(report["memory_bytes"].as_u64() > Some(1 << 20));
    let text = broker(&["platform"]).output().expect("the command runs").stdout;
    let text = String::from_utf8(text).expect("text");
    for part in ["system", "processors", "memory", "descriptors", "io_uring", "broker --mode"] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
}

#[test]
fn the_plan_is_reported_as_text_and_as_json() {
    let plan = broker(&["platform", "--plan", "--cores", "1", "--numa", "--json"]);
    let plan = json(&{ plan }.output().expect("the command runs"));
    assert_eq!(plan["seats"].as_array().map(Vec::len), Some(1));
    let many =
        broker(&["platform", "--plan", "--cores", "1024"]).output().expect("the command runs");
    let stderr = String::from_utf8_lossy(&many.stderr).into_owned();
    assert_eq!(many.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("1024 cores are asked for"), "{stderr}");
}

#[test]
fn in_sync_mode_the_only_other_threads_wait_for_signals_and_write_the_log() {
    for mode in [&["--mode", "sync"][..], &["--mode", "sync", "--executor", "poll"]] {
        let serving = Serving::start(broker(&[&SERVE[..], mode].concat()));
        serving.serves();
        let _clients: Vec<_> = (0..50).map(|_| TcpStream::connect(serving.address)).collect();
        serving.serves();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", serving.child.id()));
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        let names = tasks.expect("the command runs").filter_map(name);
        // Workers of io_uring are threads of the kernel.
        let mut own: Vec<String> = names.filter(|name| !name.starts_with("iou-")).collect();
        own.sort_unstable();
        assert_eq!(own, ["broker\n", "log\n", "signals\n"]);
    }
}
