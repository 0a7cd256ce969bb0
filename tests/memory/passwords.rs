//! Memory for authentication, and for log lines about refused clients.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Attacked, Folder, Kind, MIB, Outcome, check, connect, send};

/// Memory of Argon2 in MiB. The number of iterations is the minimum, as debug builds are slow.
const HASH_MIB: u64 = 8;

/// A configuration with the user `alice`, whose password is `right`, and anonymous clients.
fn with_alice(folder: &Folder) -> String {
    let settings = format!("[access.hashing]\nmemory_kib = {}\niterations = 1\n", HASH_MIB * 1024);
    let (file, passwords) = (folder.0.join("hashing.toml"), folder.0.join("passwords"));
    std::fs::write(&file, &settings).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.arg("--config").arg(&file).args(["passwd", "--file"]).arg(&passwords);
    let mut child =
        command.args(["add", "alice"]).stdin(Stdio::piped()).spawn().expect("the command runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), b"right\n")
        .expect("the process reads its input");
    assert!(child.wait().expect("the process exits").success());
    format!(
        "limits.connect_timeout_s = 60\n{settings}[access]\nanonymous = true\npassword_file = \"{}\"\n",
        passwords.display()
    )
}

fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

#[test]
fn wrong_passwords() {
    let folder = Folder::new("passwords");
    check(&Kind {
        name: "50 wrong passwords, 8 MiB each",
        // CONNACK with "Bad User Name or Password".
        tells: &[0x20, 0x03, 0x00, 0x86, 0x00],
        configuration: with_alice(&folder),
        extra_bytes: processors() * HASH_MIB * MIB,
        attack: |attacked| {
            let mut outcome = Outcome { refused_min: 50, ..Outcome::default() };
            let guess = |n: usize| {
                let mut stream = TcpStream::connect(attacked.address).expect("the server listens");
                send(&mut stream, &connect("c", Some(("alice", &format!("wrong {n}")))));
                stream
            };
            let streams: Vec<TcpStream> = (0..50).map(guess).collect();
            for stream in streams {
                outcome.take(stream, Duration::from_secs(30));
            }
            outcome
        },
        counts: "clients/refused",
        ..Kind::default()
    });
}

#[test]
fn connects_that_wait_for_password_verification() {
    let folder = Folder::new("waiting");
    check(&Kind {
        name: "500 CONNECTs of 120 KB with a password",
        // CONNACK with "Bad User Name or Password", for those that fit into memory.
        tells: &[0x20, 0x03, 0x00, 0x86, 0x00],
        configuration: with_alice(&folder),
        extra_bytes: processors() * HASH_MIB * MIB,
        attack: |attacked: &Attacked| {
            let mut outcome = Outcome { refused_min: 400, ..Outcome::default() };
            let long = "x".repeat(60_000);
            let streams: Vec<TcpStream> = (0..500)
                .map(|_| {
                    let mut stream =
                        TcpStream::connect(attacked.address).expect("the server listens");
                    send(&mut stream, &connect(&long, Some((&long, "wrong"))));
                    stream
                })
                .collect();
            for stream in streams {
                outcome.take(stream, Duration::from_secs(30));
            }
            outcome
        },
        counts: "connections/input-refused",
        ..Kind::default()
    });
}

#[test]
fn log_lines_about_client_identifiers_of_other_users() {
    let folder = Folder::new("identifiers");
    check(&Kind {
        name: "500 Client Identifiers of 65,000 bytes, foreign",
        configuration: with_alice(&folder),
        extra_bytes: processors() * HASH_MIB * MIB,
        attack: |attacked| {
            let mut outcome = Outcome { refused_min: 500, ..Outcome::default() };
            let long = "x".repeat(65_000);
            let mut alice = TcpStream::connect(attacked.address).expect("the server listens");
            send(&mut alice, &connect(&long, Some(("alice", "right"))));
            outcome.take(alice, Duration::from_secs(10));
            assert_eq!(outcome.refused, 0, "alice is accepted: {:02x?}", outcome.told);
            let stranger = connect(&long, None);
            for _ in 0..500 {
                let mut stream = TcpStream::connect(attacked.address).expect("the server listens");
                send(&mut stream, &stranger);
                outcome.take(stream, Duration::from_secs(10));
            }
            outcome
        },
        says: Some("… (65000 bytes)"),
        counts: "log/left-out",
        ..Kind::default()
    });
}
