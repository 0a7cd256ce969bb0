//! Authentication methods other than User Name and password file: SCRAM, tokens, and an HTTP
//! server.

use crate::Files;
use crate::support::reason::BAD_AUTHENTICATION_METHOD;
use crate::support::{Broker, Client, Connect, Property};

#[test]
fn mqtt_4_12_0_1_a_method_that_is_not_offered_is_refused() {
    let files = Files::new("method").with_users(&["alice"]);
    let connect = Connect::v5("c").property(Property::AuthenticationMethod("GS2-KRB5".to_owned()));
    Client::refused(&files.broker(""), connect.clone(), BAD_AUTHENTICATION_METHOD);
    Client::refused(&Broker::with_config(""), connect, BAD_AUTHENTICATION_METHOD);
}

#[cfg(feature = "scram")]
pub mod scram {
    use std::num::NonZeroU32;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use ring::{digest, hmac, pbkdf2};

    use crate::support::reason::{
        CONTINUE_AUTHENTICATION, NOT_AUTHORIZED, RE_AUTHENTICATE, SUCCESS,
    };
    use crate::support::{Auth, Broker, Client, Connect, Packet, Property, V5, property};
    use crate::{Files, record};

    const METHOD: &str = "SCRAM-SHA-256";

    fn method() -> Property {
        Property::AuthenticationMethod(METHOD.to_owned())
    }

    fn data(text: &str) -> Property {
        Property::AuthenticationData(text.into())
    }

    fn first(user: &str) -> String {
        format!("n,,n={user},r=fyko+d2lbbFgONRv9qkxdawL")
    }

    fn sign(key: &[u8], text: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
    }

    /// The client's last message, and the server's expected signature.
    pub fn answer(user: &str, password: &str, challenge: &str) -> (String, String) {
        let [nonce, salt, iterations] = challenge.split(',').collect::<Vec<_>>()[..] else {
            panic!("{challenge}")
        };
        let salt = BASE64.decode(&salt[2..]).expect("a salt");
        let iterations: u32 = iterations[2..].parse().expect("a number");
        let mut salted = [0; 32];
        let iterations = NonZeroU32::new(iterations).expect("not zero");
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            password.as_bytes(),
            &mut salted,
        );
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let without_proof = format!("c=biws,{nonce}");
        let signed = format!("{},{challenge},{without_proof}", &first(user)[3..]);
        let signature = sign(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, of)| key ^ of).collect();
        let server = sign(&sign(&salted, b"Server Key"), signed.as_bytes());
        (
            format!("{without_proof},p={}", BASE64.encode(proof)),
            format!("v={}", BASE64.encode(server)),
        )
    }

    fn challenge(client: &mut Client) -> String {
        match client.receive() {
            Packet::Auth(Auth { reason: CONTINUE_AUTHENTICATION, properties }) => {
                assert_eq!(property!(properties, AuthenticationMethod).as_deref(), Some(METHOD));
                let data = property!(properties, AuthenticationData).expect("a challenge");
                String::from_utf8(data).expect("text")
            }
            other => panic!("{other:?} instead of a challenge"),
        }
    }

    pub fn begin(broker: &Broker, user: &str) -> (Client, String) {
        let mut client = Client::open(broker, V5);
        client.send(Connect::v5("c").property(method()).property(data(&first(user))));
        let challenge = challenge(&mut client);
        (client, challenge)
    }

    pub fn reply(client: &mut Client, text: &str) {
        client.send(Auth::new(CONTINUE_AUTHENTICATION).property(method()).property(data(text)));
    }

    #[test]
    fn scram_authenticates_client_and_broker_without_sending_the_password() {
        let files = Files::new("scram")
            .with_users(&["alice", "bob"])
            .with_rules("for user alice\n allow all hers/#\nfor user bob\n allow all his/#\n");
        let broker = files.broker("");
        let (mut client, challenge) = begin(&broker, "alice");
        let (proof, expected) = answer("alice", "alicealice", &challenge);
        reply(&mut client, &proof);
        let connack = client.expect_connack();
        assert_eq!(connack.reason, SUCCESS);
        let proven = property!(connack.properties, AuthenticationData).expect("the broker's proof");
        assert_eq!(String::from_utf8(proven).expect("text"), expected);
        client.subscribe("hers/1", 0);

        record(&broker, METHOD);

        // The client may re-authenticate, but only as the same user.
        let again = Auth::new(RE_AUTHENTICATE).property(method());
        client.send(again.clone().property(data(&first("alice"))));
        let challenge = super::scram::challenge(&mut client);
        reply(&mut client, &answer("alice", "alicealice", &challenge).0);
        assert!(matches!(client.receive(), Packet::Auth(Auth { reason: SUCCESS, .. })));
        client.send(again.property(data(&first("bob"))));
        let challenge = super::scram::challenge(&mut client);
        reply(&mut client, &answer("bob", "bobbob", &challenge).0);
        client.expect_disconnect(NOT_AUTHORIZED);
    }

    #[test]
    fn a_wrong_proof_an_unknown_user_and_an_ill_formed_scram_message_are_refused() {
        let files = Files::new("scram-wrong").with_users(&["alice"]);
        let broker = files.broker("");
        for user in ["alice", "eve"] {
            let (mut client, challenge) = begin(&broker, user);
            assert!(challenge.ends_with(",i=4096"), "{challenge}");
            reply(&mut client, &answer(user, "guess", &challenge).0);
            client.expect_refusal(NOT_AUTHORIZED);
        }
        let connect = Connect::v5("c").property(method());
        Client::refused(&broker, connect.clone(), NOT_AUTHORIZED);
        Client::refused(&broker, connect.property(data("hello")), NOT_AUTHORIZED);
    }
}

#[cfg(feature = "jwt")]
mod tokens {
    use crate::support::reason::{BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED};
    use crate::support::{Broker, Client, Connect, V5, V311, for_versions};
    use crate::{Files, record};

    const MADE_ELSEWHERE: &str = include_str!("../../src/access/methods/jwt/tokens.json");

    #[test]
    fn a_token_in_the_user_name_is_accepted_if_configured() {
        let files = Files::new("token-in").with_rules("for user alice\n allow all hers/#\n");
        let made: serde_json::Value = serde_json::from_str(MADE_ELSEWHERE).expect("JSON");
        files.write("keys", &made["key_set"].to_string());
        let token = made["tokens"]["ES384"].as_str().expect("a token");
        let forged = format!("{token}A");
        let in_name = |version, token: &str| Connect::new(version, "c").username(token);
        let in_password =
            |version, token: &str| Connect::new(version, "c").username("anything").password(token);
        for (place, name, password) in [
            ("", false, true),
            ("token_in = \"username\"\n", true, false),
            ("token_in = \"either\"\n", true, true),
        ] {
            let keys = format!("[access.jwt]\nkey_set = {:?}\n{place}", files.path("keys"));
            let broker = files.broker(&keys);
            for_versions(|version| {
                let connects =
                    [(name, in_name(version, token)), (password, in_password(version, token))];
                for (is_let_in, connect) in connects {
                    if is_let_in {
                        Client::connect(&broker, connect).subscribe("hers/1", 0);
                    } else {
                        let no = crate::in_version(version, BAD_USER_NAME_OR_PASSWORD, 4);
                        Client::refused(&broker, connect, no);
                    }
                }
            });
            Client::refused(&broker, in_name(V5, &forged), BAD_USER_NAME_OR_PASSWORD);
            assert!(!broker.log().contains(&token[..40]), "{}", broker.log());
        }
    }

    #[test]
    fn an_unknown_key_is_ignored_and_a_short_secret_fails_start_and_reload() {
        let files = Files::new("keys").with_rules("for user alice\n allow all hers/#\n");
        let made: serde_json::Value = serde_json::from_str(MADE_ELSEWHERE).expect("JSON");
        let mut set = made["key_set"].clone();
        let unknown =
            serde_json::json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "new"});
        set["keys"].as_array_mut().expect("keys").insert(0, unknown);
        files.write("keys", &set.to_string());
        let keys = format!("[access.jwt]\nkey_set = {:?}\n", files.path("keys"));
        let broker = files.broker(&keys);
        broker.await_log("a key of the key set is ignored: key 1 (new)", 1);
        let token = made["tokens"]["ES384"].as_str().expect("a token");
        let connects = || {
            let connect = Connect::v5("c").username("anything").password(token);
            Client::connect(&broker, connect).subscribe("hers/1", 0);
        };
        connects();
        for secret in ["", "c2hvcnQ"] {
            let short = serde_json::json!({"kty": "oct", "k": secret, "kid": "short"});
            let set = serde_json::json!({ "keys": [short, set["keys"][1]] });
            files.write("keys", &set.to_string());
            let said = "key 1 (short): its secret has";
            let before = broker.log().matches(said).count();
            broker.signal("-HUP");
            broker.await_log(said, before + 1);
            connects();
            let config = files.path("short.toml");
            files.write("short.toml", &files.access(&keys));
            let mut command =
                crate::broker(&["--listen", "127.0.0.1:0", "--data", "none", "--config"]);
            let out = crate::run(command.arg(config), "");
            assert_eq!(out.status.code(), Some(2), "{out:?}");
            assert!(crate::text(&out.stderr).contains(said), "{out:?}");
        }
    }

    #[test]
    fn a_token_authenticates_its_subject_until_a_reload_removes_the_key() {
        let files = Files::new("tokens").with_rules("for user alice\n allow all hers/#\n");
        let made: serde_json::Value = serde_json::from_str(MADE_ELSEWHERE).expect("JSON");
        files.write("keys", &made["key_set"].to_string());
        let keys = format!("[access.jwt]\nkey_set = {:?}\n", files.path("keys"));
        let broker = files.broker(&keys);
        let token = made["tokens"]["ES384"].as_str().expect("a token");
        let with =
            |version, token: &str| Connect::new(version, "c").username("anything").password(token);
        for_versions(|version| {
            let mut client = Client::connect(&broker, with(version, token));
            client.subscribe("hers/1", 0);
        });
        record(&broker, "token");
        Client::refused(&broker, with(V5, &format!("{token}A")), BAD_USER_NAME_OR_PASSWORD);
        Client::refused(&broker, with(V311, "no token"), 4);
        Client::refused(&broker, Connect::v5("c"), NOT_AUTHORIZED);
        files.write(
            "keys",
            r#"{"keys": [{"kty": "oct", "k": "b25lIHRoYXQgbm8gdG9rZW4gaXMgc2lnbmVkIGJ5ISE"}]}"#,
        );
        broker.signal("-HUP");
        broker.await_log("\"reloaded\"", 1);
        Client::refused(&broker, with(V5, token), BAD_USER_NAME_OR_PASSWORD);
        files.write("keys", "{");
        broker.signal("-HUP");
        broker.await_log("a JSON Web Key Set is expected", 1);
        drop(Broker::with_config(""));
    }
}

#[cfg(feature = "http-hook")]
pub mod asked {
    use std::io::{BufReader, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use crate::http::read_request;
    use crate::support::reason::{BAD_USER_NAME_OR_PASSWORD, SERVER_UNAVAILABLE};
    use crate::support::{Broker, Client, Connect, V5, for_versions};
    use crate::{Files, record};

    /// An HTTP server that accepts clients whose User Name equals their password.
    pub struct Server {
        pub address: SocketAddr,
        connections: Arc<AtomicUsize>,
        questions: Arc<AtomicUsize>,
    }

    impl Server {
        pub fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("the server listens");
            let (connections, questions) =
                (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
            let counts = (Arc::clone(&connections), Arc::clone(&questions));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    counts.0.fetch_add(1, SeqCst);
                    let questions = Arc::clone(&counts.1);
                    std::thread::spawn(move || serve(stream.expect("a connection"), &questions));
                }
            });
            Self { address, connections, questions }
        }

        fn asked(&self) -> usize {
            self.questions.load(SeqCst)
        }
    }

    fn serve(stream: TcpStream, questions: &AtomicUsize) {
        let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
        let mut stream = stream;
        while let Some((_, body)) = read_request(&mut reader).expect("the body follows") {
            questions.fetch_add(1, SeqCst);
            let asked: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert!(asked["address"] == "127.0.0.1" && asked["client_identifier"].is_string());
            let (status, answer) = match asked["username"].as_str().expect("a name") {
                "brief" => ("200 OK", r#"{"allow": true, "expires_in_s": 1}"#),
                "broken" => ("500 Oops", "{}"),
                "nonsense" => ("200 OK", "yes"),
                "forbidden" => ("403 Forbidden", ""),
                name if asked["password"] == name => ("200 OK", r#"{"allow": true}"#),
                _ => ("200 OK", r#"{"allow": false}"#),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", answer.len());
            if stream.write_all((head + answer).as_bytes()).is_err() {
                return;
            }
        }
    }

    fn asking(address: SocketAddr, more: &str) -> Broker {
        Broker::with_config(&format!("[access.http]\nurl = \"http://{address}/\"\n{more}\n"))
    }

    fn named(name: &str, password: &str) -> Connect {
        Connect::v5("c").username(name).password(password)
    }

    #[test]
    fn the_http_hook_keeps_its_connection_alive_and_caches_positive_responses() {
        let server = Server::start();
        let broker = asking(server.address, "");
        for_versions(|version| {
            let connect = Connect::new(version, "c").username("zoe").password("zoe");
            Client::connect(&broker, connect).disconnect();
        });
        assert_eq!(server.asked(), 1, "the second response comes from the cache");
        record(&broker, "HTTP server");
        Client::refused(&broker, named("zoe", "guess"), BAD_USER_NAME_OR_PASSWORD);
        Client::refused(&broker, named("forbidden", "x"), BAD_USER_NAME_OR_PASSWORD);
        Client::refused(&broker, named("zoe", "guess"), BAD_USER_NAME_OR_PASSWORD);
        assert_eq!(server.asked(), 4, "denials are not cached");
        assert_eq!(server.connections.load(SeqCst), 1);
        let forgetful = asking(server.address, "cache_s = 0");
        (0..2).for_each(|_| Client::connect(&forgetful, named("zoe", "zoe")).disconnect());
        assert_eq!(server.asked(), 6);
    }

    #[test]
    fn the_http_hook_is_not_called_for_users_of_the_password_file() {
        let server = Server::start();
        let files = Files::new("asked").with_users(&["alice"]);
        let hook = format!("[access.http]\nurl = \"http://{}/\"\n", server.address);
        let broker = files.broker(&hook);
        Client::connect(&broker, crate::as_user(V5, "alice", "c")).disconnect();
        Client::refused(&broker, named("alice", "alice"), BAD_USER_NAME_OR_PASSWORD);
        assert_eq!(server.asked(), 0);
        Client::connect(&broker, named("zoe", "zoe"));
    }

    #[test]
    fn a_failing_http_hook_refuses_clients_unless_configured_otherwise() {
        let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let gone = gone.expect("a free port");
        Client::refused(&asking(gone, ""), named("zoe", "zoe"), SERVER_UNAVAILABLE);
        Client::connect(&asking(gone, "on_failure = \"allow\""), named("zoe", "x")).expect_alive();
        let broker = asking(Server::start().address, "");
        for name in ["broken", "nonsense"] {
            Client::refused(&broker, named(name, name), SERVER_UNAVAILABLE);
        }
        broker.await_log("HTTP hook: the request failed", 2);
    }

    #[test]
    fn the_http_hook_trusts_the_authorities_of_its_key_and_of_the_environment() {
        let files = Files::new("authorities");
        let start = |url: &str, key: &str| {
            let listener = "listen = \"127.0.0.1:0\"\n[storage]\ndata = \"none\"\n";
            let hook = format!("{listener}[access.http]\nurl = \"{url}://127.0.0.1:1/\"\n{key}");
            files.write("hook.toml", &hook);
            let mut command = crate::broker(&["--check-config", "--config"]);
            command.arg(files.path("hook.toml")).env("SSL_CERT_FILE", "/nonexistent/env.pem");
            let out = crate::run(&mut command, "");
            (out.status.code(), crate::text(&out.stderr))
        };
        let (code, said) = start("https", "");
        assert!(code == Some(2) && said.contains("SSL_CERT_FILE: /nonexistent/env.pem"), "{said}");
        let (code, said) = start("https", "ca = \"/nonexistent/key.pem\"\n");
        assert!(code == Some(2) && said.contains("access.http.ca: /nonexistent/key.pem"), "{said}");
        let (code, said) = start("http", "ca = \"/nonexistent/key.pem\"\n");
        assert!(code == Some(2) && said.contains("has no effect for an http URL"), "{said}");
    }

    #[test]
    fn a_password_in_the_url_of_the_http_hook_is_never_logged() {
        let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let gone = gone.expect("a free port");
        let url = format!("http://ringmq:hunter2@{gone}/in?key=hunter3");
        let broker = Broker::with_config(&format!("[access.http]\nurl = \"{url}\"\n"));
        Client::refused(&broker, named("zoe", "zoe"), SERVER_UNAVAILABLE);
        broker.await_log("HTTP hook: the request failed", 1);
        let log = broker.log();
        assert!(log.contains(&format!("http://{gone}/in?…")), "{log}");
        assert!(!log.contains("hunter"), "{log}");
    }

    #[test]
    fn a_hanging_http_hook_does_not_delay_password_authentication() {
        // A server that accepts connections and never responds.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = silent.local_addr().expect("the server listens");
        let hook = format!("[access.http]\nurl = \"http://{address}/\"\ntimeout_ms = 60000\n");
        let files = Files::new("hangs").with_users(&["alice"]);
        let broker = files.broker(&hook);
        // More requests than there are threads.
        let waiting: Vec<Client> = (0..100)
            .map(|number| {
                let mut client = Client::open(&broker, V5);
                client.send(Connect::v5(&format!("z-{number}")).username("zoe").password("zoe"));
                client
            })
            .collect();
        for_versions(|version| {
            let mut alice = Client::connect(&broker, crate::as_user(version, "alice", "c"));
            alice.expect_alive();
            let no = crate::in_version(version, BAD_USER_NAME_OR_PASSWORD, 4);
            let guess = Connect::new(version, "d").username("alice").password("guess");
            Client::refused(&broker, guess, no);
        });
        for mut client in waiting {
            assert!(
                client.receive_within(std::time::Duration::from_millis(1)).is_none(),
                "the client still waits"
            );
        }
    }
}
