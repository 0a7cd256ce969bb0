//! The hook against a server that writes down what it is asked.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::access::tests::request::read_request;

/// What it was asked: the head, and the body.
type Asked = (String, serde_json::Value);

/// Answers one request on each connection with a yes.
fn serve(stream: impl Read + Write) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let (head, body) = read_request(&mut reader).ok()??;
    let answer =
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 15\r\n\r\n{\"allow\": true}";
    reader.get_mut().write_all(answer.as_bytes()).ok()?;
    Some((head, serde_json::from_slice(&body).expect("JSON")))
}

fn listen(
    serve: impl Fn(TcpStream) -> Option<Asked> + Send + 'static,
) -> (SocketAddr, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let (asked, questions) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if let Some(question) = serve(stream.expect("a connection")) {
                // Not all tests want to know.
                let _ = asked.send(question);
            }
        }
    });
    (address, questions)
}

/// A server of HTTPS on 127.0.0.1, and the PEM of its authority.
fn listen_secure() -> (SocketAddr, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key()).expect("it is signed");
    let own_key = key();
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .and_then(|params| params.signed_by(&own_key, &authority))
        .expect("it is signed");
    let own_key = PrivateKeyDer::try_from(own_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], own_key)
        .expect("they fit");
    let config = Arc::new(config);
    let (address, _) = listen(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).expect("it begins");
        serve(StreamOwned::new(connection, stream))
    });
    (address, authority.as_ref().pem())
}

fn hook(url: String) -> Hook {
    let settings = Http { url, cache_s: 0, timeout_ms: 10_000, ..Http::default() };
    Hook::new(&settings).expect("it is good").expect("there is one")
}

fn ask(hook: &Hook, password: Option<&[u8]>) -> bool {
    hook.ask("zoe".into(), "c", password, None).is_ok()
}

/// A file that goes with the test.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("ringmq-hook-{name}-{}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("written");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_password_reaches_the_server_as_it_came() {
    let (address, questions) = listen(serve);
    let hook = hook(format!("http://{address}/"));
    for (password, text, base64) in [
        (Some(&b"secret \"\xC3\xA9\"\0"[..]), Some("secret \"é\"\0"), None),
        (Some(b""), Some(""), None),
        (Some(b"\xFF\x00secret"), None, Some("/wBzZWNyZXQ=")),
        (Some(b"\xFE\x00secret"), None, Some("/gBzZWNyZXQ=")),
        (None, None, None),
    ] {
        assert!(ask(&hook, password));
        let (_, body) = questions.recv().expect("it is asked");
        assert_eq!(body["password"].as_str(), text, "{body}");
        assert_eq!(body["password_base64"].as_str(), base64, "{body}");
        assert_eq!(body.get("password_base64").is_some(), base64.is_some(), "{body}");
    }
}

#[test]
fn passwords_that_differ_in_bytes_alone_are_remembered_apart() {
    let (address, questions) = listen(serve);
    let settings = Http { url: format!("http://{address}/"), ..Http::default() };
    let hook = Hook::new(&settings).expect("it is good").expect("there is one");
    for password in [None, Some(&b""[..]), Some(b"\xFF"), Some(b"\xFE")] {
        assert!(ask(&hook, password) && ask(&hook, password));
    }
    assert_eq!(questions.try_iter().count(), 4, "each once");
}

#[test]
fn a_name_and_a_password_in_the_url_are_sent_and_not_part_of_it() {
    let (address, questions) = listen(serve);
    let hook = hook(format!("http://us:p%40ss@{address}/in?key=1"));
    assert!(ask(&hook, Some(b"x")));
    let (head, _) = questions.recv().expect("it is asked");
    assert!(head.starts_with("POST /in?key=1 HTTP/1.1\r\n"), "{head}");
    let header = format!("authorization: Basic {}", BASE64.encode("us:p@ss")).to_lowercase();
    assert!(head.to_lowercase().contains(&header), "{head}");
    assert!(!hook.server.name().contains("p%40ss") && !hook.server.name().contains("key"));
}

#[test]
fn a_server_of_https_is_believed_by_the_authorities_of_the_configuration_or_the_environment() {
    let (address, authority) = listen_secure();
    let (_, stranger) = listen_secure();
    let url = format!("https://{address}/");
    assert!(!ask(&hook(url.clone()), Some(b"x")), "browsers do not know it");
    let (good, bad) = (File::new("good", &authority), File::new("bad", &stranger));
    for (file, is_believed) in [(&good, true), (&bad, false)] {
        let settings = Http { url: url.clone(), ca: file.0.clone(), ..Http::default() };
        let hook = Hook::new(&settings).expect("it is good").expect("there is one");
        assert_eq!(ask(&hook, Some(b"x")), is_believed);
    }
    let hook = hook(url.clone());
    let by_environment = |file: &File| {
        let path = file.0.clone().into_os_string();
        let environment = |name: &str| (name == "SSL_CERT_FILE").then(|| path.clone());
        Server::open_with(&reached_by(&hook.settings), environment).expect("it is good")
    };
    let with = |server| Hook { server, ..hook.clone() };
    assert!(!ask(&with(by_environment(&bad)), Some(b"x")));
    assert!(ask(&with(by_environment(&good)), Some(b"x")));
}

#[test]
fn authorities_of_the_hook_are_read_anew_and_what_is_wrong_with_them_is_said() {
    let (address, authority) = listen_secure();
    let (_, stranger) = listen_secure();
    let file = File::new("anew", &stranger);
    let settings =
        Http { url: format!("https://{address}/"), ca: file.0.clone(), ..Http::default() };
    let hook = Hook::new(&settings).expect("it is good").expect("there is one");
    assert!(!ask(&hook, Some(b"x")));
    std::fs::write(&file.0, &authority).expect("written");
    let hook = hook.reload().expect("it is good");
    assert!(ask(&hook, Some(b"x")));
    std::fs::write(&file.0, authority.replace("-----END", "x-----END")).expect("written");
    let error = hook.reload().err().expect("it is wrong");
    assert!(error.starts_with("access.http.ca: ") && error.contains("line "), "{error}");
    let plain = Http { url: "http://127.0.0.1/".to_owned(), ..settings };
    let error = Hook::new(&plain).err().expect("there is no certificate");
    assert!(error.contains("access.http.ca has no effect"), "{error}");
}
