//! Password files of `mosquitto_passwd`.

use std::path::Path;
use std::process::{Command, Output};

use crate::{Folder, mosquitto_is_there, program, run};

const BROKER: &str = env!("CARGO_BIN_EXE_broker");

const PASSWORDS: [&str; 7] = [
    "x",
    "secret",
    "with space",
    "a:b$c",
    "pässwörd",
    "0123456789abcdef0123456789abcdef0123456789abcdef",
    "€",
];

/// `broker passwd` with hashes that are cheap to compute.
fn passwd(file: &Path, arguments: &[&str], input: &str) -> Output {
    let settings = file.with_file_name("cheap.toml");
    std::fs::write(&settings, "[access.hashing]\nmemory_kib = 8\niterations = 1\n")
        .expect("written");
    let mut command = Command::new(BROKER);
    command.args(["passwd", "--config"]).arg(settings).arg("--file").arg(file).args(arguments);
    run(&mut command, input)
}

fn is_password(file: &Path, user: &str, password: &str) -> bool {
    let out = passwd(file, &["verify", user], password);
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    out.status.success()
}

#[test]
fn every_password_that_mosquitto_passwd_hashes_is_known_before_and_after_the_upgrade() {
    if !mosquitto_is_there() {
        return;
    }
    let folder = Folder::new("passwords");
    let file = folder.path("passwords");
    let plain = folder.path("plain");
    for (number, password) in PASSWORDS.iter().enumerate() {
        for (kind, hashing) in [("sha512", "six"), ("sha512-pbkdf2", "seven")] {
            let mut command = program("mosquitto_passwd");
            command.args(["-H", kind]);
            if !file.exists() {
                command.arg("-c");
            }
            let user = format!("{hashing}{number}");
            let out = run(command.arg("-b").arg(&file).args([&user, *password]), "");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
    }
    // A file of plain passwords is refused by line, until it is hashed.
    std::fs::write(&plain, "upgraded:plain\n").expect("written");
    let refused = passwd(&plain, &["list"], "");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("plain:1: "), "{error}");
    assert!(run(program("mosquitto_passwd").arg("-U").arg(&plain), "").status.success());
    assert!(is_password(&plain, "upgraded", "plain") && !is_password(&plain, "upgraded", "x"));

    let all_are_known = || {
        for (number, password) in PASSWORDS.iter().enumerate() {
            for hashing in ["six", "seven"] {
                let user = format!("{hashing}{number}");
                assert!(is_password(&file, &user, password), "{user} {password}");
                assert!(!is_password(&file, &user, &format!("{password}x")), "{user} {password}");
            }
        }
    };
    all_are_known();
    let upgraded = passwd(&file, &["upgrade"], "");
    let said = String::from_utf8_lossy(&upgraded.stdout).into_owned();
    assert!(upgraded.status.success() && said.contains(": 14"), "{said}");
    let text = std::fs::read_to_string(&file).expect("there");
    assert_eq!(text.matches("$$argon2id$").count(), 14, "{text}");
    all_are_known();
}
