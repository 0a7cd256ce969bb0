//! `--check-config` reports all problems that would prevent a start, and addresses and flags are
//! accepted as people type them.
#![cfg(all(unix, feature = "tls", feature = "websocket", feature = "store"))]

#[path = "support/folder.rs"]
mod folder;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use folder::Folder;

fn broker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The output of `--check-config`, and its exit code.
fn check(arguments: &[&str]) -> (Option<i32>, String) {
    let output: Output =
        broker(&[&["--check-config"], arguments].concat()).output().expect("the command runs");
    let both = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&both).into_owned())
}

/// Writes a certificate and its key to files.
fn certificate(folder: &Folder, name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
        .expect("a generated certificate");
    (
        folder.write(&format!("{name}.pem"), &made.cert.pem()),
        folder.write(&format!("{name}-key.pem"), &made.signing_key.serialize_pem()),
    )
}

#[test]
fn check_config_finds_every_problem_that_prevents_a_start() {
    let folder = Folder::new("stops");
    let (good, good_key) = certificate(&folder, "good");
    let (_, other_key) = certificate(&folder, "other");
    let broken = folder.write("broken.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n");
    let file = folder.write("file", "");
    let tls = |certificate: &str, key: &str, more: &str| {
        format!(
            "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"tls\"\n[listeners.tls]\n\
             certificate = {certificate:?}\nkey = {key:?}\n{more}"
        )
    };
    let asks = format!("client_certificate = \"required\"\nclient_ca = {good:?}\n");
    let tcp = |bind: &str| format!("[[listeners]]\nbind = {bind:?}\ntransport = \"tcp\"\n");
    let unix = |path: &str, more: &str| {
        format!("[[listeners]]\nbind = \"unix:{path}\"\ntransport = \"unix\"\n{more}")
    };
    #[cfg(feature = "bridge")]
    let bridge = |keys: &str, tls: &str| {
        format!(
            "[[bridges]]\nname = \"a\"\nservers = [\"mqtts://127.0.0.1:9\"]\nusername = \"u\"\n{keys}\n\
             [bridges.tls]\n{tls}[[bridges.out]]\nfilter = \"#\"\n"
        )
    };
    #[cfg(feature = "bridge")]
    let client =
        |certificate: &str, key: &str| format!("certificate = {certificate:?}\nkey = {key:?}\n");
    #[cfg(feature = "bridge")]
    let empty = folder.write("empty", "");
    let cases = [
        (
            "a certificate that is not there",
            tls("/nonexistent.pem", &good_key, ""),
            "/nonexistent.pem",
        ),
        ("one that is broken", tls(&broken, &good_key, ""), "broken.pem"),
        ("a key of another one", tls(&good, &other_key, ""), "other-key.pem"),
        ("no key", tls(&good, &good, ""), "good.pem"),
        (
            "an authority that is not there",
            tls(&good, &good_key, "client_certificate = \"required\"\nclient_ca = \"/none.pem\"\n"),
            "/none.pem",
        ),
        (
            "a revocation list",
            tls(&good, &good_key, &format!("{asks}client_crl = [{file:?}]\n")),
            "file",
        ),
        ("the same address twice", tcp("127.0.0.1:1883") + &tcp("127.0.0.1:1883"), "twice"),
        (
            "an address within another",
            tcp("0.0.0.0:1883") + &tcp("127.0.0.1:1883"),
            "127.0.0.1:1883",
        ),
        ("the same path twice", unix("/tmp/x.sock", "") + &unix("/tmp/x.sock", ""), "twice"),
        ("an address of another machine", tcp("192.0.2.1:1883"), "no such address"),
        ("a folder that is not there", unix("/nonexistent/x.sock", ""), "/nonexistent"),
        ("something else at a path", unix(&file, ""), "not a socket"),
        (
            "a user who is not there",
            unix(&folder.path("x.sock"), "[listeners.unix]\nowner = \"no-such\"\n"),
            "no-such",
        ),
        ("a path that is too long", unix(&folder.path(&"x".repeat(120)), ""), "too long"),
        #[cfg(feature = "bridge")]
        (
            "a password of a bridge",
            bridge("password_file = \"/nonexistent/p\"", ""),
            "/nonexistent/p",
        ),
        #[cfg(feature = "bridge")]
        ("an empty one", bridge(&format!("password_file = {empty:?}"), ""), "write the password"),
        #[cfg(feature = "bridge")]
        ("an authority of a bridge", bridge("", "ca = \"/none.pem\"\n"), "tls.ca /none.pem"),
        #[cfg(feature = "bridge")]
        ("a certificate of a bridge", bridge("", &client(&broken, &good_key)), "tls.certificate"),
        #[cfg(feature = "bridge")]
        ("a key of a bridge", bridge("", &client(&good, &good)), "tls.key"),
        ("processors that are not there", "cores = \"0,1023\"\n".to_owned(), "1023"),
        ("a file for a folder", format!("[storage]\ndata = \"{file}/data\"\n"), "file"),
        (
            "statistics",
            "[stats]\nenabled = true\nlog = \"/nonexistent/x.hlog\"\n".to_owned(),
            "/nonexistent/x.hlog",
        ),
        (
            "descriptors",
            "[limits]\nconnections_max = 99999999\n[uring]\ndirect_descriptors = false\n"
                .to_owned(),
            "connections_max",
        ),
        (
            "a table that is not for it",
            tcp("127.0.0.1:0") + "[listeners.websocket]\nframe_per_packet = true\n",
            "neither ws nor wss",
        ),
        (
            "the same of TLS",
            tcp("127.0.0.1:0") + "[listeners.tls]\nkernel = \"off\"\n",
            "neither tls nor wss",
        ),
        ("the same of Unix sockets", tcp("127.0.0.1:0") + "[listeners.unix]\n", "not a path"),
    ];
    for (what, text, says) in cases {
        let config = folder.write("broker.toml", &text);
        let (code, said) = check(&["--config", &config]);
        assert!(code != Some(0) && said.contains(says), "{what}: {code:?}: {said}");
        // A start ends with the same problem.
        let mut start = broker(&["--config", &config]);
        if !text.contains("data =") {
            start.args(["--data", "none"]);
        }
        let mut start = start.stderr(Stdio::null()).spawn().expect("the command runs");
        let until = Instant::now() + Duration::from_secs(10);
        let ended = loop {
            match start.try_wait().expect("a child") {
                Some(status) => break status.code(),
                None if Instant::now() > until => panic!("{what}: the broker starts"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        start.kill().ok();
        assert_eq!(ended, code, "{what}: {said}");
    }
}

#[test]
fn check_config_reports_all_problems_at_once_without_side_effects() {
    let folder = Folder::new("all");
    let (good, good_key) = certificate(&folder, "good");
    let listener = |port: u16, certificate: &str| {
        format!(
            "[[listeners]]\nbind = \"127.0.0.1:{port}\"\ntransport = \"tls\"\n[listeners.tls]\n\
             certificate = {certificate:?}\nkey = {good_key:?}\n"
        )
    };
    let text = [
        "cores = \"0,1023\"\n".to_owned(),
        format!("[storage]\ndata = \"{good}/x\"\n"),
        listener(18_883, "/first.pem"),
        listener(18_884, "/second.pem"),
    ];
    let config = folder.write("broker.toml", &text.concat());
    let (code, said) = check(&["--config", &config]);
    assert!(code != Some(0));
    for says in ["1023", "good.pem/x", "/first.pem", "/second.pem"] {
        assert!(said.contains(says), "{says}: {said}");
    }
    let socket = folder.path("broker.sock");
    let data = folder.path("data/below");
    let log = folder.path("stats.hlog");
    let text = format!(
        "[[listeners]]\nbind = \"unix:{socket}\"\ntransport = \"unix\"\n\
         [storage]\ndata = {data:?}\n[stats]\nenabled = true\nlog = {log:?}\n"
    );
    let config = folder.write("broker.toml", &text);
    let (code, said) = check(&["--config", &config]);
    assert_eq!(code, Some(0), "{said}");
    for path in [&socket, &data, &log] {
        assert!(!Path::new(path).exists(), "{path}");
    }
}

#[test]
fn a_configuration_can_be_checked_while_a_broker_uses_it() {
    let folder = Folder::new("beside");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("free");
    let text = format!("listen = \"{free}\"\n[storage]\ndata = {:?}\n", folder.path("data"));
    let config = folder.write("broker.toml", &text);
    let mut running =
        broker(&["-c", &config]).stderr(Stdio::null()).spawn().expect("the process starts");
    assert!(is_served(&free.to_string()));
    let (code, said) = check(&["-c", &config]);
    running.kill().expect("the command runs");
    running.wait().expect("the process exits");
    assert_eq!(code, Some(0), "{said}");
}

/// The log of a start, up to the line that a listener is open.
fn said_before_listening(config: &str) -> String {
    let mut start =
        broker(&["--data", "none", "--config", config]).spawn().expect("the process starts");
    let mut log = BufReader::new(start.stderr.take().expect("piped"));
    let mut said = String::new();
    while !said.contains(" listening ") && log.read_line(&mut said).expect("text") > 0 {}
    start.kill().expect("the command runs");
    start.wait().expect("the process exits");
    assert!(said.contains(" listening "), "{said}");
    said
}

#[test]
fn certificates_that_some_clients_refuse_are_named_in_a_warning() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    type Change = fn(&mut CertificateParams);
    let folder = Folder::new("doubts");
    let good: Change = |_| {};
    let cases: [(&str, Change); 3] = [
        ("says CA:TRUE", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ("certificate 1 has expired", |params| params.not_after = date_time_ymd(2020, 1, 1)),
        ("is not valid before", |params| {
            (params.not_before, params.not_after) =
                (date_time_ymd(3000, 1, 1), date_time_ymd(3001, 1, 1))
        }),
    ];
    let said_of = |change: Change| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a signed certificate").pem();
        let text = format!(
            "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"tls\"\n[listeners.tls]\n\
             certificate = {:?}\nkey = {:?}\n",
            folder.write("doubtful.pem", &certificate),
            folder.write("doubtful-key.pem", &key.serialize_pem())
        );
        said_before_listening(&folder.write("broker.toml", &text))
    };
    for (says, change) in cases {
        let said = said_of(change);
        assert!(said.contains(says) && said.contains("doubtful.pem"), "{says}: {said}");
        assert!(!said_of(good).contains(says), "{says}");
    }
}

/// Whether a broker starts there and answers CONNECT.
fn is_served(address: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let Ok(mut stream) = TcpStream::connect(address) else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let mut connack = [0; 4];
        let connect = b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0";
        return stream.write_all(connect).and_then(|()| stream.read_exact(&mut connack)).is_ok();
    }
    false
}

#[test]
fn addresses_are_accepted_in_every_usual_form() {
    let folder = Folder::new("addresses");
    let both = "0.0.0.0:18830, [::]:18830";
    let cases = [
        ("listen = \":18830\"", both),
        ("listen = \"18830\"", both),
        ("listen = 18830", both),
        ("listen = \"*:18830\"", both),
        (
            "listen = [\"127.0.0.1:18830\", \":18831\"]",
            "127.0.0.1:18830, 0.0.0.0:18831, [::]:18831",
        ),
        ("listen = \"localhost:18830\"", "127.0.0.1:18830"),
        ("[[listeners]]\nbind = \":18830\"", both),
        ("[[listeners]]\nbind = \"localhost:18830\"", "127.0.0.1:18830"),
    ];
    for (text, says) in cases {
        let config = folder.write("broker.toml", text);
        let (code, said) = check(&["--config", &config]);
        assert_eq!(code, Some(0), "{text}: {said}");
        assert!(said.contains(says), "{text}: {said}");
    }
    for (wrong, says) in [
        ("listen = \"no-such-host.invalid:1883\"", "no-such-host.invalid"),
        ("listen = \"localhost\"", "not an address with a port"),
        ("listen = \"::1:1883\"", "[::1]:1883"),
        ("listen = 70000", "70000"),
        ("listen = \"127.0.0.1:70000\"", "not an address with a port"),
        ("[[listeners]]\nbind = \"no-such-host.invalid:1883\"", "no-such-host.invalid"),
    ] {
        let config = folder.write("broker.toml", wrong);
        let (code, said) = check(&["--config", &config]);
        assert_eq!(code, Some(2), "{wrong}: {said}");
        assert!(said.contains(says), "{wrong}: {said}");
    }
}

#[test]
fn flags_are_accepted_in_every_usual_form() {
    let folder = Folder::new("flags");
    let config = folder.write("broker.toml", "[log]\nlevel = \"warn\"\n");
    for (flags, says) in [
        (&["-p", "18840"][..], "127.0.0.1:18840, [::1]:18840"),
        (&["--port", "18840", "-p", "18841"], "127.0.0.1:18840, [::1]:18840, 127.0.0.1:18841"),
        (&["-c", &config, "-v", "-p", "18840"], "127.0.0.1:18840"),
        (&["--listen", "18840"], "0.0.0.0:18840, [::]:18840"),
        (&["--listen", "localhost:18840"], "127.0.0.1:18840"),
        (&["--listen", "127.0.0.1:18840", "-p", "18841"], "127.0.0.1:18840, 127.0.0.1:18841"),
        (&["--stats", "10", "-p", "18840"], "127.0.0.1:18840"),
        (&["--stats", "-p", "18840"], "127.0.0.1:18840"),
    ] {
        let (code, said) = check(flags);
        assert_eq!(code, Some(0), "{flags:?}: {said}");
        assert!(said.contains(says), "{flags:?}: {said}");
    }
    let (code, said) = check(&["-p", "70000"]);
    assert!(code == Some(2) && said.contains("70000"), "{said}");
    let (code, said) = check(&["-v", "--log-level", "warn"]);
    assert!(code == Some(2) && said.contains("--log-level"), "{said}");
}

#[test]
fn check_config_reports_the_errors_of_all_files_and_variables() {
    let folder = Folder::new("files");
    std::fs::create_dir(folder.path("conf.d")).expect("a folder");
    let config = folder.write("broker.toml", "include = \"conf.d\"\n[limits]\nsessions_max = 5\n");
    folder.write("conf.d/1.toml", "[limits]\nsessions_max = 6\n");
    folder.write("conf.d/2.toml", "[limits]\nsession_max = 6\n");
    let mut command = broker(&["--check-config", "--config", &config]);
    let output = command.env("RINGMQ_LIMITS__SESSION_MAX", "7").output().expect("the command runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for says in [
        "1.toml:2: limits.sessions_max is set at ",
        "broker.toml:3 too",
        "unknown field `session_max`",
        "RINGMQ_LIMITS__SESSIONS_MAX",
    ] {
        assert!(said.contains(says), "{says}: {said}");
    }
    assert!(said.lines().filter(|line| line.starts_with("broker: ")).count() == 3, "{said}");
}

#[test]
fn print_config_shows_each_key_with_its_value_and_origin() {
    let folder = Folder::new("print");
    let config = folder.write(
        "broker.toml",
        "[limits]\nsessions_max = 5\n[access.http]\nurl = \"http://u:hidden@127.0.0.1:1/\"\n",
    );
    let mut command = broker(&["--print-config", "--config", &config, "--cores", "2"]);
    let output = command.env("RINGMQ_LISTEN", "127.0.0.1:7").output().expect("the command runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for says in [
        format!("limits.sessions_max = 5  # {config}:2\n"),
        format!("access.http.url = \"http://***@127.0.0.1:1/\"  # {config}:4\n"),
        "listen = [\"127.0.0.1:7\"]  # RINGMQ_LISTEN\n".to_owned(),
        "cores = 2  # --cores\n".to_owned(),
        "log.level = \"info\"  # default\n".to_owned(),
    ] {
        assert!(said.contains(&says), "{says}: {said}");
    }
    assert!(!said.contains("hidden"), "{said}");
}
