//! Start and stop: sockets of brokers that live and that were killed, addresses in use, configurations that cannot be.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;

use crate::folder::Folder;
use crate::support::{Broker, CONFIG, Client, EXECUTORS, command, tokens, wait_for};

/// The outcome of a start that fails.
fn fails(folder: &Folder, config: &str, flags: &str) -> (Option<i32>, String) {
    tokens(folder);
    let Output { status, stderr, .. } = command(folder, config, flags).output().expect("it runs");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn a_socket_of_a_killed_broker_is_taken_over_and_removed_at_a_stop() {
    for flags in EXECUTORS {
        let broker = Broker::start("stale", flags);
        let socket = broker.socket();
        assert_eq!(socket, broker.folder.0.join("data/admin.sock"));
        let folder = broker.kill();
        assert!(socket.exists());
        let broker = Broker::with(folder, CONFIG, flags);
        assert_eq!(broker.unix().ask("GET", "/livez", &[], "").status, 200, "{flags}");
        assert!(broker.stop(), "{flags}");
        assert!(!socket.exists(), "{flags}");
    }
}

#[test]
fn a_socket_of_a_living_broker_and_a_port_in_use_are_errors_with_exit_code_3() {
    let broker = Broker::start("living", "--mode poll");
    let socket = broker.socket();
    let other = Folder::new("second");
    let config = CONFIG.replace("\"unix\"", &format!("\"unix:{}\"", socket.display()));
    let (code, said) = fails(&other, &config, "");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("the admin interface cannot listen on unix:"), "{said}");
    assert_eq!(broker.unix().ask("GET", "/livez", &[], "").status, 200, "it is not disturbed");
    let used = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = used.local_addr().expect("an address");
    let config = CONFIG.replace("\"127.0.0.1:0\"]", &format!("\"{port}\"]"));
    let (code, said) = fails(&other, &config, "");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("choose another port with admin.listen"), "{said}");
    assert!(!other.0.join("data/admin.sock").exists(), "nothing is left");
    // A file that is no socket is not removed.
    let file = other.write("file", "content");
    let config = CONFIG.replace("\"unix\"", &format!("\"unix:{file}\""));
    let (code, said) = fails(&other, &config, "");
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(std::fs::read_to_string(file).expect("it is there"), "content");
}

#[test]
fn a_configuration_that_cannot_be_is_refused_by_a_start_and_by_check_config() {
    let folder = Folder::new("refused");
    folder.write("broken", "read:a");
    let tcp = "[admin]\nlisten = [\"127.0.0.1:0\"]\n";
    for (text, code, what) in [
        ("[admin]\nlisten = [\"0.0.0.0:9883\"]\n".to_owned(), 2, "plain text"),
        (format!("{tcp}[admin.access]\ntokens_file = \"{{FOLDER}}/none\"\n"), 2, "/none: "),
        (format!("{tcp}[admin.access]\ntokens_file = \"{{FOLDER}}/broken\"\n"), 2, "line 1"),
        (format!("{tcp}[admin.access]\npassword_group = \"a\"\n"), 2, "password_file"),
        (
            format!("{tcp}[admin.tls]\ncertificate = \"{{FOLDER}}/none\"\nkey = \"b\"\n"),
            2,
            "admin.tls.certificate ",
        ),
        ("[admin]\nlisten = [\"unix:/nonexistent/admin.sock\"]\n".to_owned(), 3, "nonexistent"),
        (
            "[admin]\nsocket_group = \"no-such-group\"\n".to_owned()
                + "listen = [\"unix:{FOLDER}/s\"]\n",
            3,
            "no-such-group",
        ),
    ] {
        let config = format!("listen = \"127.0.0.1:0\"\n[storage]\ndata = \"none\"\n{text}");
        for flags in ["--check-config", ""] {
            let (found, said) = fails(&folder, &config, flags);
            assert_eq!(found, Some(code), "{text} {flags}: {said}");
            assert!(said.contains(what), "{text} {flags}: {said}");
        }
    }
}

#[test]
fn check_config_disturbs_no_broker_that_runs() {
    let broker = Broker::start("check", "--mode poll");
    let text = std::fs::read_to_string(broker.folder.path("broker.toml")).expect("a file");
    let checked = command(&broker.folder, &text, "--check-config").output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert_eq!(broker.unix().ask("GET", "/livez", &[], "").status, 200);
}

#[test]
fn a_broker_that_stops_answers_status_until_its_clients_have_gone() {
    for flags in EXECUTORS {
        let broker = Broker::start("stopping", flags);
        // A client that does not read what it receives holds the stop up.
        let mut client = std::net::TcpStream::connect(&broker.mqtt).expect("it listens");
        client.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a").expect("it reads");
        client.write_all(b"\x82\x06\0\x01\0\x01t\0").expect("it reads");
        client.read_exact(&mut [0; 9]).expect("CONNACK and SUBACK");
        client.set_write_timeout(Some(std::time::Duration::from_secs(1))).expect("an option");
        let publish = [&b"\x30\x83\x80\x04\0\x01t"[..], &[0; 65_536]].concat();
        let mut open = Client::unix(&broker.socket());
        let mut is_left = || {
            let metrics = open.ask("GET", "/metrics", &[], "");
            let text = String::from_utf8_lossy(&metrics.body).into_owned();
            let line = text.lines().find_map(|line| line.strip_prefix("ringmq_output_bytes "));
            line.expect("a metric").parse::<u64>().expect("a number") > 0
        };
        // More than sockets buffer; what exceeds the outbox is dropped.
        wait_for("output that the client does not take", || {
            let _ = (0..100).try_for_each(|_| client.write_all(&publish));
            let was_left = is_left();
            std::thread::sleep(std::time::Duration::from_millis(200));
            (was_left && is_left()).then_some(())
        });
        assert_eq!(open.ask("GET", "/api/v1/cores", &[], "").status, 200, "{flags}");
        broker.signal("-TERM");
        let status = wait_for("a stop", || {
            let status = open.ask("GET", "/api/v1/status", &[], "");
            (status.json()["stopping"] == true).then_some(status)
        });
        assert_eq!(status.status, 200, "{flags}");
        assert_eq!(open.ask("GET", "/api/v1/cores", &[], "").status, 503, "{flags}");
        assert_eq!(open.ask("GET", "/readyz", &[], "").status, 503, "{flags}");
        assert_eq!(open.ask("GET", "/livez", &[], "").status, 200, "{flags}");
        drop(client);
        assert!(broker.wait(), "{flags}");
    }
}

#[test]
fn without_an_address_there_is_no_thread_and_no_socket() {
    let names = |broker: &Broker| -> Vec<String> {
        let tasks = format!("/proc/{}/task", broker.pid());
        let tasks = std::fs::read_dir(tasks).into_iter().flatten().flatten();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect()
    };
    let config = CONFIG.replace("listen = [\"unix\", \"127.0.0.1:0\"]", "listen = []");
    let broker = Broker::with(Folder::new("none"), &config, "--mode poll");
    assert!(broker.admin.is_empty() && !broker.folder.0.join("data/admin.sock").exists());
    assert!(!names(&broker).contains(&"admin".to_owned()));
    if cfg!(target_os = "linux") {
        // A thread sets its name after it starts, which the broker does not wait for.
        let broker = Broker::start("some", "--mode poll");
        wait_for("the thread", || names(&broker).contains(&"admin".to_owned()).then_some(()));
    }
}

/// Times that threads of this name went to sleep.
#[cfg(target_os = "linux")]
fn sleeps(broker: &Broker, name: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", broker.pid())).expect("it runs");
    let of = |path: std::path::PathBuf| {
        let is_one = std::fs::read_to_string(path.join("comm")).ok()?.trim() == name;
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        is_one.then(|| count.expect("a line").trim().parse::<u64>().expect("a number"))
    };
    tasks.flatten().filter_map(|task| of(task.path())).sum()
}

#[cfg(target_os = "linux")]
#[test]
fn the_thread_sleeps_while_nobody_asks() {
    let broker = Broker::start("idle", "--mode poll");
    assert_eq!(broker.tcp().ask("GET", "/livez", &[], "").status, 200);
    assert_eq!(broker.unix().ask("GET", "/api/v1/status", &[], "").status, 200);
    // The connections end, and with them their timers.
    std::thread::sleep(std::time::Duration::from_secs(1));
    // A process that was frozen wakes all its threads when it continues, so a few intervals are
    // tried; a timer shorter than an interval wakes the thread in each of them.
    let sleeps_through = |_| {
        let before = sleeps(&broker, "admin");
        assert!(before > 0, "the thread is there");
        std::thread::sleep(std::time::Duration::from_secs(3));
        sleeps(&broker, "admin") == before
    };
    assert!((0..5).any(sleeps_through), "the thread wakes although nobody asks");
}
