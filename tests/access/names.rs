//! Which clients are accepted, with and without a User Name.

use crate::support::reason::{
    BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED, V3_BAD_USER_NAME_OR_PASSWORD, V3_NOT_AUTHORIZED,
};
use crate::support::{Broker, Client, Connect, V311, for_versions};
use crate::{Files, as_user, broker, in_version, record, run, text};

#[test]
fn the_default_configuration_refuses_unknown_clients_from_other_machines() {
    for_versions(|version| {
        let broker = Broker::listening_at("0.0.0.0:0", "");
        let no = in_version(version, NOT_AUTHORIZED, V3_NOT_AUTHORIZED);
        Client::refused(&broker, Connect::new(version, "c"), no);
        Client::refused(&broker, Connect::new(version, ""), no);
        Client::refused(&broker, as_user(version, "admin", "c"), no);
        Client::refused(&broker, Connect::new(version, "c").username("").password(""), no);
        broker.await_log("clients must authenticate, but no users are configured", 1);
    });
}

#[test]
fn anonymous_clients_are_accepted_only_if_configured() {
    let open = Broker::listening_at("0.0.0.0:0", "[access]\nanonymous = true\n");
    open.await_log("anonymous clients may connect, and other machines may reach this listener", 1);
    Client::connect(&open, Connect::v5("c"));
    record(&open, "none");
    Client::connect(&open, as_user(V311, "whoever", "d"));
    let shut = Broker::with_config("[access]\nanonymous = false\n");
    Client::refused(&shut, Connect::v5("c"), NOT_AUTHORIZED);
    let files = Files::new("anonymous").with_users(&["alice"]);
    Client::refused(&files.broker(""), Connect::v5("c"), NOT_AUTHORIZED);
    let both = files.broker("anonymous = true");
    Client::connect(&both, Connect::v5("c"));
    Client::refused(
        &both,
        Connect::v5("c").username("alice").password("guess"),
        BAD_USER_NAME_OR_PASSWORD,
    );
}

#[test]
fn users_of_the_password_file_are_accepted_with_their_password_on_every_executor() {
    let files = Files::new("passwords").with_users(&["alice", "bob"]);
    let hows: &[&str] = match std::env::var_os("RINGMQ_TEST_FLAGS") {
        Some(_) => &[""], // the flags choose the executor
        None => &["mode = \"sync\"", "mode = \"poll\"\ncores = 3", ""],
    };
    for how in hows {
        let broker = Broker::with_config(&format!("{how}\n{}", files.access("")));
        for_versions(|version| {
            let no = in_version(version, BAD_USER_NAME_OR_PASSWORD, V3_BAD_USER_NAME_OR_PASSWORD);
            let unnamed = in_version(version, NOT_AUTHORIZED, V3_NOT_AUTHORIZED);
            let clients = ["a", "b", "c", "d"]
                .map(|name| Client::connect(&broker, as_user(version, "alice", name)));
            Client::connect(&broker, as_user(version, "bob", "e")).expect_alive();
            for (user, password) in
                [("alice", "bobbob"), ("alice", ""), ("eve", "eveeve"), ("", "")]
            {
                let connect = Connect::new(version, "f").username(user).password(password);
                Client::refused(&broker, connect, no);
            }
            Client::refused(&broker, Connect::new(version, "f").username("alice"), no);
            Client::refused(&broker, Connect::new(version, "f"), unnamed);
            clients.into_iter().for_each(|mut client| client.expect_alive());
        });
        record(&broker, "password");
    }
}

#[test]
fn broker_passwd_manages_users_and_never_accepts_a_password_as_an_argument() {
    let files = Files::new("command");
    let said = |arguments: &[&str], input: &str| {
        let out = files.passwd(arguments, input);
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let (code, out, _) = said(&["add", "alice"], "secret\n");
    assert!(code == Some(0) && out.contains("alice added"), "{out}");
    let (_, out, _) = said(&["add", "alice"], "other\r\n");
    assert!(out.contains("alice has a new password"), "{out}");
    said(&["add", "bob"], "b");
    assert_eq!(said(&["list"], "").1, "alice\nbob\n");
    assert_eq!(said(&["verify", "alice"], "other").0, Some(0));
    assert_eq!(said(&["verify", "alice"], "secret").0, Some(1));
    assert_eq!(said(&["verify", "eve"], "other").0, Some(1));
    assert_eq!(said(&["remove", "bob"], "").0, Some(0));
    let (code, _, error) = said(&["remove", "bob"], "");
    assert!(code == Some(2) && error.contains("unknown user \"bob\""), "{error}");
    let (code, _, error) = said(&["add", "carol"], "\n");
    assert!(code == Some(2) && error.contains("empty"), "{error}");
    assert_ne!(
        said(&["add", "carol", "secret"], "").0,
        Some(0),
        "passwords are not accepted as arguments"
    );
    let kept = std::fs::read_to_string(files.path("passwords")).expect("the file exists");
    assert!(kept.starts_with("alice:$argon2id$v=19$m=8,t=1,p=1$") && !kept.contains("other"));
    let out = run(&mut broker(&["passwd", "list"]), "");
    assert!(text(&out.stderr).contains("--file"), "{}", text(&out.stderr));
}

#[cfg(all(unix, feature = "jwt"))]
#[test]
fn the_log_warns_of_world_readable_passwords_and_secret_keys_but_not_of_public_keys() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new("open").with_users(&["alice"]);
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let secret = format!("{{\"keys\":[{{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"{key}\"}}]}}");
    let public = "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"EdDSA\",\
                  \"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";
    let start = |keys: &str, mode| {
        files.write("keys", keys);
        for name in ["keys", "passwords"] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(files.path(name), mode).expect("set");
        }
        files.broker(&format!("[access.jwt]\nkey_set = {:?}\n", files.path("keys")))
    };
    let warnings = |broker: &Broker| broker.log().matches("every user can read").count();
    let open = start(&secret, 0o644);
    open.await_log("every user can read the password file", 1);
    open.await_log("every user can read the key set", 1);
    assert_eq!(warnings(&start(public, 0o644)), 1);
    assert_eq!(warnings(&start(&secret, 0o600)), 0);
}
