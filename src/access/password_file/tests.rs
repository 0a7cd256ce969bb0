//! Password files: what is written is read, and what is wrong is named.

use super::*;
use crate::base::secret_file::is_open_to_others;

const CHEAP: Hashing =
    Hashing { memory_kib: 8, iterations: 1, scram: true, scram_iterations: 4_096 };

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ringmq-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the test");
    folder
}

#[test]
fn a_user_is_known_by_the_password_given_last_and_nobody_by_another() {
    let path = folder("passwd-verify").join("passwords");
    assert!(add(&path, "alice", "first", &CHEAP).expect("written"));
    assert!(add(&path, "bob", "other", &CHEAP).expect("written"));
    assert!(!add(&path, "alice", "second", &CHEAP).expect("written"));
    let passwords = Passwords::read(&path, &CHEAP).expect("it reads what it wrote");
    assert_eq!(passwords.names(), ["alice", "bob"]);
    let is_right = |name, password: &str| {
        passwords.verify(name, password.as_bytes()).expect("there is memory")
    };
    assert!(is_right("alice", "second") && is_right("bob", "other"));
    for (name, password) in [("alice", "first"), ("alice", ""), ("bob", "second"), ("eve", "x")] {
        assert!(!is_right(name, password), "{name} {password}");
    }
    // Whatever stands in for those who are not there is no way in.
    assert!(!is_right("", "") && Passwords::none(&CHEAP).verify("alice", b"second") == Ok(false));
}

#[test]
fn a_password_that_is_hashed_anew_is_the_same_and_another_is_not() {
    let path = folder("passwd-anew").join("passwords");
    let entry = |password: &str, hashing: &Hashing| {
        add(&path, "alice", password, hashing).expect("written");
        let passwords = Passwords::read(&path, hashing).expect("it reads");
        assert_eq!(passwords.verify("alice", password.as_bytes()), Ok(true));
        Arc::clone(passwords.user("alice").expect("she is there"))
    };
    let first = entry("first", &CHEAP);
    assert_eq!(entry("first", &CHEAP), first, "at the same cost nothing changes");
    let dearer = entry("first", &Hashing { iterations: 2, ..CHEAP });
    let without = entry("first", &Hashing { scram: false, ..CHEAP });
    for anew in [&dearer, &without] {
        assert!(anew.has_password_of(&first) && **anew != *first);
    }
    let second = entry("second", &CHEAP);
    assert!(!second.has_password_of(&first) && !second.has_password_of(&dearer));
    let back = entry("first", &CHEAP);
    assert!(!back.has_password_of(&second));
}

#[test]
fn removing_a_user_keeps_the_others_and_the_comments() {
    let path = folder("passwd-remove").join("passwords");
    fs::write(&path, "# ours\n").expect("written");
    add(&path, "alice", "a", &CHEAP).expect("written");
    add(&path, "bob", "b", &CHEAP).expect("written");
    remove(&path, "alice").expect("she is there");
    assert!(matches!(remove(&path, "alice"), Err(PasswordError::Unknown(..))));
    let text = fs::read_to_string(&path).expect("it is there");
    assert!(text.starts_with("# ours\nbob:$argon2id$") && text.lines().count() == 2, "{text}");
    assert!(!path.with_file_name("passwords.new").exists());
}

#[cfg(unix)]
#[test]
fn the_file_is_for_its_owner_alone_and_never_half_written() {
    use std::os::unix::fs::PermissionsExt;
    let path = folder("passwd-mode").join("passwords");
    fs::write(&path, "").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    assert!(is_open_to_others(&path));
    add(&path, "alice", "a", &CHEAP).expect("written");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(!is_open_to_others(&path));
    // Whoever finds another one at work changes nothing.
    fs::write(path.with_file_name("passwords.new"), "").expect("written");
    let before = fs::read_to_string(&path).expect("there");
    assert!(matches!(add(&path, "bob", "b", &CHEAP), Err(PasswordError::Locked(_))));
    assert_eq!(fs::read_to_string(&path).expect("there"), before);
}

#[test]
fn a_wrong_line_is_named_with_its_number() {
    let path = folder("passwd-wrong").join("passwords");
    for (text, part) in [
        ("alice\n", ":1: a user's name, a colon and a hash"),
        ("# x\n\n:$argon2id$\n", ":3: a user's name is expected before the colon"),
        ("alice:secret\n", ":1: a hash"),
    ] {
        fs::write(&path, text).expect("written");
        let error = Passwords::read(&path, &CHEAP).expect_err("it is wrong").to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_name_that_would_break_the_file_is_refused() {
    let path = folder("passwd-name").join("passwords");
    for name in ["", "a:b", "a\nb", "#a"] {
        assert!(matches!(add(&path, name, "x", &CHEAP), Err(PasswordError::Name(_))), "{name:?}");
    }
    assert!(!path.exists());
}

#[test]
fn an_unknown_user_is_compared_at_the_cost_of_the_others() {
    let path = folder("passwd-cost").join("passwords");
    add(&path, "alice", "a", &CHEAP).expect("written");
    let dear = Hashing { memory_kib: 1_024, ..CHEAP };
    let passwords = Passwords::read(&path, &dear).expect("it reads");
    assert!(passwords.nobody.contains("m=8,t=1,p=1"), "{}", passwords.nobody);
    assert!(PasswordHash::new(&passwords.nobody).is_ok_and(|hash| hash.hash.is_some()));
    let none = Passwords::none(&dear);
    assert!(none.nobody.contains("m=1024") && PasswordHash::new(&none.nobody).is_ok());
}

/// Lines that mosquitto_passwd 2.0.11 wrote, each with its password.
#[cfg(feature = "mosquitto-passwords")]
const OF_MOSQUITTO: [(&str, &str); 4] = [
    (
        "alice:$7$101$sJq2E15Fd4sZsq33$hT7UYy+8H0KDQCY3utpdLc8hfZWIioQ+3McGJeCAgqO+dLPtA8zfgT3RtXFoUTuRJLQjT40RxFxDSLtbP5vFrQ==",
        "secret",
    ),
    (
        "bob:$7$101$yU/8MwEeooWyQriC$dmWHf84u0/1Nf1Vh4l6Ksr3ygstO/bsf190nEF9UWq/HBskYxxE+gDH12XSQd2aukY0RD/c0BjVn/84V8qnpoQ==",
        "pass word:ü",
    ),
    (
        "carol:$6$iH81C049y6ZPQOGR$5CxoIo4+JCxD+coKh+C/XjrIBeCC9w7WxGHQEWbv+Or3bPyY9zzIdg1Wfja2nlNCx8wcUrRWJNSlMBwaDRaD6A==",
        "secret",
    ),
    (
        "eve:$6$UPidIbkknu+fi1kA$ho+GcAb7Ruy1A/MnPNRWx2nxGepXXrxGYaaIB+W0BYz2fDZrhctzNQnaxkF0ENVXO+fWRBSU2QNNq1lT13ee8g==",
        "plain",
    ),
];

#[cfg(feature = "mosquitto-passwords")]
fn file_of_mosquitto(name: &str) -> PathBuf {
    let path = folder(name).join("passwords");
    let lines: Vec<&str> = OF_MOSQUITTO.iter().map(|(line, _)| *line).collect();
    fs::write(&path, format!("# of Mosquitto\r\n{}\r\n", lines.join("\r\n"))).expect("written");
    path
}

#[cfg(feature = "mosquitto-passwords")]
fn is_right(passwords: &Passwords, line: &str, password: &str) -> bool {
    let name = line.split(':').next().expect("a name");
    passwords.verify(name, password.as_bytes()).expect("there is memory")
}

#[cfg(feature = "mosquitto-passwords")]
#[test]
fn hashes_of_mosquitto_are_verified_and_are_those_of_no_other_password() {
    let passwords = Passwords::read(&file_of_mosquitto("passwd-mosquitto"), &CHEAP).expect("read");
    assert_eq!((passwords.len(), passwords.weak()), (4, 4));
    for (line, password) in OF_MOSQUITTO {
        assert!(is_right(&passwords, line, password), "{line}");
        for wrong in ["", "Secret", "secret ", "pass word:u"] {
            assert!(!is_right(&passwords, line, wrong), "{line} {wrong:?}");
        }
    }
    assert!(passwords.nobody.starts_with("$7$101$"), "{}", passwords.nobody);
    assert_eq!(passwords.verify("nobody", b"secret"), Ok(false));
}

#[cfg(feature = "mosquitto-passwords")]
#[test]
fn hashes_of_mosquitto_are_protected_without_their_passwords_and_stay_those_of_the_same_clients() {
    let path = file_of_mosquitto("passwd-upgrade");
    let before = Passwords::read(&path, &CHEAP).expect("read");
    add(&path, "frank", "f", &CHEAP).expect("written");
    assert_eq!(upgrade(&path, &CHEAP).expect("written"), 4);
    let text = fs::read_to_string(&path).expect("there");
    assert!(
        text.starts_with("# of Mosquitto\r\nalice:$7$101$sJq2E15Fd4sZsq33$$argon2id$"),
        "{text}"
    );
    let after = Passwords::read(&path, &CHEAP).expect("read");
    assert_eq!((after.len(), after.weak()), (5, 0));
    for (line, password) in OF_MOSQUITTO {
        assert!(is_right(&after, line, password) && !is_right(&after, line, "x"), "{line}");
        let name = line.split(':').next().expect("a name");
        let (old, new) = (before.user(name).expect("there"), after.user(name).expect("there"));
        assert!(new.has_password_of(old) && **new != **old, "{name}");
        assert!(!text.contains(&line[line.rfind('$').expect("a hash")..]), "{line}");
    }
    assert_eq!(upgrade(&path, &CHEAP).expect("read"), 0);
    assert_eq!(fs::read_to_string(&path).expect("there"), text);
    // A new password is another one, whatever the old hash was.
    add(&path, "alice", "secret", &CHEAP).expect("written");
    let renewed = Passwords::read(&path, &CHEAP).expect("read");
    let alice = |passwords: &Passwords| Arc::clone(passwords.user("alice").expect("there"));
    assert!(!alice(&renewed).has_password_of(&alice(&after)));
    assert!(is_right(&renewed, "alice:", "secret"));
}

#[cfg(feature = "mosquitto-passwords")]
#[test]
fn a_damaged_hash_of_mosquitto_is_named_with_its_line() {
    let path = folder("passwd-damaged").join("passwords");
    let (line, _) = OF_MOSQUITTO[0];
    for (text, part) in [
        (line.replace("101", "0"), "from 1 to 10000000"),
        (line.replace("101", "x"), "from 1 to 10000000"),
        (line.replace("101", "4000000000"), "from 1 to 10000000"),
        (line.replace("sJq2E15Fd4sZsq33", "s"), "salt"),
        (line.replace("sJq2E15Fd4sZsq33", ""), "salt"),
        (line.replace("rQ==", ""), "64 bytes"),
        (line.replace("$7$101$", "$5$"), "mosquitto_passwd -U"),
        ("alice:secret".to_owned(), "mosquitto_passwd -U"),
    ] {
        fs::write(&path, format!("# x\n{text}\n")).expect("written");
        let error = Passwords::read(&path, &CHEAP).expect_err("it is wrong").to_string();
        assert!(error.contains(":2: ") && error.contains(part), "{error}");
        assert!(matches!(upgrade(&path, &CHEAP), Err(PasswordError::Line(_, 2, _))));
    }
}
