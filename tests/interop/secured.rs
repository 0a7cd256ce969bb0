//! Brokers with authentication, and openssl and mosquitto's clients with and without valid
//! credentials.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::matrix::record;
use crate::support::{Authority, Broker, mutual};
use crate::{FLAGS, clients_are_there, text};

/// Users may publish and subscribe to all topics below their name.
const RULES: &str = "for users\n  allow all %u/#\n";

/// Adds alice to the password file, and writes rules.
const USERS: &str = "[access]\npassword_file = \"FOLDER/passwords\"\nacl_file = \"FOLDER/acl\"\n[access.hashing]\n\
     memory_kib = 8\niterations = 1\n";

pub fn flags() -> String {
    std::env::var(FLAGS).unwrap_or_default()
}

/// A broker with a listener of every kind that accepts anonymous clients.
pub fn open() -> Broker {
    Broker::start(&flags(), "")
}

/// A broker with a listener of every kind and the user alice, whose password is her name twice.
pub fn with_users(more: &str) -> Broker {
    Broker::start_with(&flags(), &format!("{more}{USERS}"), |folder, _| write_users(folder))
}

fn write_users(folder: &Path) {
    std::fs::write(folder.join("acl"), RULES).expect("written");
    std::fs::write(folder.join("cheap.toml"), "[access.hashing]\nmemory_kib = 8\niterations = 1\n")
        .expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(["passwd", "add", "alice", "--file"])
        .arg(folder.join("passwords"))
        .arg("--config")
        .arg(folder.join("cheap.toml"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("the command runs");
    command
        .stdin
        .take()
        .expect("piped")
        .write_all(b"alicealice\n")
        .expect("the process reads its input");
    assert!(command.wait().expect("the process exits").success());
}

/// Writes a certificate with this name and its key to files.
fn certificate(folder: &Path, authority: &Authority, name: &str, serial: u64) -> [String; 4] {
    let issued = authority.issue(name, serial);
    let file = |kind: &str| folder.join(format!("{name}-{kind}.pem")).display().to_string();
    std::fs::write(file("certificate"), issued.certificate_pem()).expect("written");
    std::fs::write(file("key"), issued.key_pem()).expect("written");
    ["--cert".to_owned(), file("certificate"), "--key".to_owned(), file("key")]
}

/// A mosquitto client, with TLS options if the listener uses TLS.
fn mosquitto(program: &str, broker: &Broker, listener: &str, arguments: &[&str]) -> Output {
    let address = broker.address(listener);
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
    if listener != "tcp" {
        command.arg("--cafile").arg(broker.folder.join("ca.pem"));
    }
    command.args(arguments).output().expect("the program is installed")
}

/// Publishes a retained message and receives it.
#[track_caller]
fn passes(broker: &Broker, listener: &str, topic: &str, arguments: &[&str]) {
    let publish = [&["-t", topic, "-q", "1", "-r", "-m", "there and back"], arguments].concat();
    let published = mosquitto("mosquitto_pub", broker, listener, &publish);
    assert!(published.status.success(), "{}", text(&published));
    let subscribe = [&["-t", topic, "-q", "1", "-C", "1", "-W", "20"], arguments].concat();
    let taken = mosquitto("mosquitto_sub", broker, listener, &subscribe);
    assert_eq!(taken.stdout, b"there and back\n", "{}", text(&taken));
}

/// Expects both commands to fail, and mosquitto to print one of these texts.
#[track_caller]
fn is_refused(broker: &Broker, listener: &str, arguments: &[&str], says: &[&str]) {
    for program in ["mosquitto_pub", "mosquitto_sub"] {
        let more: &[&str] = match program {
            "mosquitto_pub" => &["-t", "alice/x", "-q", "1", "-m", "x"],
            _ => &["-t", "alice/x", "-C", "1", "-W", "5"],
        };
        let output = mosquitto(program, broker, listener, &[more, arguments].concat());
        let said = text(&output);
        assert!(!output.status.success(), "{program} comes in: {said}");
        assert!(says.iter().any(|words| said.contains(words)), "{program} says: {said}");
    }
}

#[test]
fn openssl_connects_with_both_tls_versions_and_negotiates_mqtt() {
    if !clients_are_there() {
        return;
    }
    let broker = open();
    let address = broker.address("tls").to_string();
    let ca = broker.folder.join("ca.pem").display().to_string();
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-CAfile", &ca, "-verify_return_error"])
            .args(["-servername", "localhost", "-alpn", "mqtt", "-ign_eof", flag])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program is installed");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01o").expect("written");
        // The server closes the connection after DISCONNECT, which ends openssl.
        input.write_all(b"\xE0\x00").expect("written");
        let output = child.wait_with_output().expect("the process exits");
        let said = text(&output);
        let is_there = |bytes: &[u8]| output.stdout.windows(bytes.len()).any(|of| of == bytes);
        assert!(is_there(b"\x20\x02\x00\x00"), "no CONNACK: {said}");
        assert!(said.contains("ALPN protocol: mqtt"), "{said}");
        assert!(said.contains(&format!("New, {version}")) || said.contains(version), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        record(&broker.setup, "tls", "none", "openssl");
    }
    let other = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-CAfile", &ca, "-alpn", "h2"])
        .stdin(Stdio::null())
        .output()
        .expect("the program is installed");
    assert!(text(&other).contains("no application protocol"), "{}", text(&other));
}

#[test]
fn mosquitto_connects_with_both_tls_versions_and_verifies_the_server() {
    if !clients_are_there() {
        return;
    }
    let broker = open();
    for version in ["tlsv1.2", "tlsv1.3"] {
        for protocol in ["mqttv31", "mqttv311", "mqttv5"] {
            let arguments = ["--tls-version", version, "--tls-alpn", "mqtt", "-V", protocol];
            passes(&broker, "tls", &format!("{version}/{protocol}"), &arguments);
        }
    }
    record(&broker.setup, "tls", "none", "mosquitto");
    // The client does not connect to a server whose authority it does not trust.
    Authority::new().write_server(&broker.folder);
    is_refused(&broker, "tls", &[], &["certificate verify failed", "TLS error"]);
}

#[test]
fn mosquitto_authenticates_by_certificate_and_is_refused_without_a_valid_one() {
    if !clients_are_there() {
        return;
    }
    let broker = with_users(&mutual("required"));
    let folder = &broker.folder;
    let good = certificate(folder, &broker.authority, "good", 7);
    let good: Vec<&str> = good.iter().map(String::as_str).collect();
    for protocol in ["mqttv311", "mqttv5"] {
        let arguments = [&good[..], &["-V", protocol]].concat();
        // The rules use the certificate's name, regardless of the User Name.
        passes(&broker, "mutual", "good/1", &arguments);
        let as_alice = [&arguments[..], &["-u", "alice", "-P", "guess"]].concat();
        passes(&broker, "mutual", "good/2", &as_alice);
        denies(&broker, "mutual", "alice/1", &arguments);
    }
    record(&broker.setup, "tls", "certificate", "mosquitto");

    let stranger = certificate(folder, &Authority::new(), "stranger", 9);
    let stranger: Vec<&str> = stranger.iter().map(String::as_str).collect();
    let ends = ["TLS error", "connection was lost", "alert", "Protocol error", "SSL"];
    is_refused(&broker, "mutual", &stranger, &ends);
    record(&broker.setup, "tls", "unknown certificate, refused", "mosquitto");
    is_refused(&broker, "mutual", &[], &ends);
    is_refused(&broker, "mutual", &["-u", "alice", "-P", "alicealice"], &ends);
    record(&broker.setup, "tls", "no certificate, refused", "mosquitto");
    broker.authority.write_revoked(folder, &[7]);
    broker.reload();
    is_refused(&broker, "mutual", &good, &ends);
    record(&broker.setup, "tls", "revoked certificate, refused", "mosquitto");
}

/// A topic of another user: mosquitto is notified in versions that can express it.
#[track_caller]
fn denies(broker: &Broker, listener: &str, topic: &str, arguments: &[&str]) {
    let is_v5 = arguments.contains(&"mqttv5");
    let publish = [&["-t", topic, "-q", "1", "-m", "x"], arguments].concat();
    let published = mosquitto("mosquitto_pub", broker, listener, &publish);
    assert_eq!(text(&published).contains("Not authorized"), is_v5, "{}", text(&published));
    let subscribe = [&["-t", topic, "-C", "1", "-W", "5"], arguments].concat();
    let taken = mosquitto("mosquitto_sub", broker, listener, &subscribe);
    assert!(text(&taken).contains("All subscription requests were denied"), "{}", text(&taken));
}

#[test]
fn mosquitto_authenticates_by_password_and_is_restricted_by_the_rules() {
    if !clients_are_there() {
        return;
    }
    let broker = with_users("");
    for listener in ["tcp", "tls"] {
        for protocol in ["mqttv31", "mqttv311", "mqttv5"] {
            let of = |password| ["-u", "alice", "-P", password, "-V", protocol];
            passes(&broker, listener, "alice/1", &of("alicealice"));
            let says = ["bad user name or password", "Bad User Name or Password"];
            is_refused(&broker, listener, &of("guess"), &says);
            if protocol != "mqttv31" {
                denies(&broker, listener, "bob/1", &of("alicealice"));
            }
        }
        record(&broker.setup, listener, "password", "mosquitto");
        record(&broker.setup, listener, "wrong password, refused", "mosquitto");
        record(&broker.setup, listener, "denied by rules", "mosquitto");
    }
}
