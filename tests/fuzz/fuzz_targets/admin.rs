//! Requests to the admin interface of a running broker: each route with arbitrary parameters and contents, and
//! arbitrary bytes.
//!
//! No request causes a panic or an error of the broker, each answer is HTTP, an error is a problem that says its status,
//! and the broker lives on.

#![no_main]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use arbitrary::Arbitrary;
use clap::Parser;
use libfuzzer_sys::fuzz_target;
use ringmq::admin::openapi;
use ringmq::admin::routes::table;
use ringmq::cli::{self, Flags};
use serde_json::{Map, Value, json};

/// Bytes of an answer that are read; a longer one is a stream.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Arbitrary, Debug)]
enum Input {
    Requests(Vec<Request>),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Request {
    route: u16,
    method: Option<u8>,
    /// What takes the places of the parameters of the path.
    path: Vec<Text>,
    query: Vec<(u8, Text)>,
    content: Content,
}

#[derive(Arbitrary, Debug)]
enum Content {
    None,
    Members(Vec<(u8, Scalar)>),
    Bytes { is_json: bool, bytes: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
enum Scalar {
    Null,
    Yes(bool),
    Number(i64),
    Real(f64),
    Text(Text),
    Texts(Vec<Text>),
    Members(Vec<(u8, Text)>),
}

/// A name that means something, or any text.
#[derive(Arbitrary, Debug)]
enum Text {
    Known(u8),
    Number(i32),
    Other(String),
}

const KNOWN: [&str; 18] = [
    "c", "a/b", "a/#", "$share/g/a/#", "#", "+", "127.0.0.1", "10.0.0.0/8", "base64", "queued", "connected", "allow",
    "publish", "debug", "2030-01-01T00:00:00Z", "true", "0", "%2F",
];

impl Text {
    fn text(&self) -> String {
        match self {
            Self::Known(number) => KNOWN[usize::from(*number) % KNOWN.len()].to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Other(text) => text.clone(),
        }
    }
}

/// What can be asked, from the OpenAPI document.
struct Interface {
    routes: Vec<(String, &'static str)>,
    /// Names of parameters in queries.
    parameters: Vec<String>,
    /// Names of the members of contents.
    members: Vec<String>,
}

impl Interface {
    fn new() -> Self {
        let document = openapi::document();
        let (mut parameters, mut members) = (BTreeSet::new(), BTreeSet::new());
        names(&document["paths"], "parameters", &mut parameters);
        names(&document["components"], "properties", &mut members);
        let routes = table().into_iter().map(|route| (route.method.to_string(), route.path));
        Self {
            // Streams do not end.
            routes: routes.filter(|(_, path)| !path.ends_with("/stream")).collect(),
            parameters: parameters.into_iter().collect(),
            members: members.into_iter().collect(),
        }
    }

    fn member(&self, number: u8) -> String {
        self.members[usize::from(number) % self.members.len()].clone()
    }
}

/// Names of what is below a member: of the entries of lists by their `name`, or of the members of objects.
fn names(value: &Value, below: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if name == below {
                    let listed = value.as_array().into_iter().flatten();
                    all.extend(listed.filter_map(|of| of["name"].as_str()).map(str::to_owned));
                    all.extend(value.as_object().into_iter().flatten().map(|(name, _)| name.clone()));
                }
                names(value, below, all);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, below, all)),
        _ => {}
    }
}

/// The broker that runs as long as the fuzzer.
struct Broker {
    interface: Interface,
    socket: PathBuf,
}

static BROKER: OnceLock<Broker> = OnceLock::new();

impl Broker {
    fn start() -> Self {
        let folder = std::env::temp_dir().join("broker");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let (socket, config) = (folder.join("admin.sock"), folder.join("broker.toml"));
        let rules = folder.join("acl.txt");
        std::fs::write(&rules, "for everyone\n  allow all #\n").expect("written");
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\ncores = 2\nmode = \"poll\"\n\
             [storage]\ndata = {:?}\nsync = \"none\"\n\
             [access]\nanonymous = true\nacl_file = {rules:?}\n\
             [access.database]\nusers_max = 10\nrules_max = 100\n\
             [admin]\nlisten = [\"unix:{}\"]\n",
            folder.join("store"),
            socket.display(),
        );
        std::fs::write(&config, text).expect("written");
        let flags = ["broker", "--log-level", "error", "--config"].map(OsStr::new);
        let flags = Flags::parse_from([&flags[..], &[config.as_os_str()]].concat());
        std::thread::spawn(move || {
            cli::run(&flags).map_err(|failure| failure.to_string()).expect("it serves");
            panic!("the broker has ended");
        });
        let started = std::time::Instant::now();
        while !is_alive(&socket) {
            assert!(started.elapsed() < Duration::from_secs(60), "the broker does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let broker = Self { interface: Interface::new(), socket };
        broker.add_client();
        broker
    }

    /// A session of the client `c` with a subscription, in which messages are queued.
    fn add_client(&self) {
        let listeners = get(&self.socket, "/api/v1/listeners");
        let listeners: Value = serde_json::from_slice(&listeners.content).expect("JSON");
        let address = listeners["listeners"][0]["address"].as_str().expect("an address");
        let mut client = TcpStream::connect(address).expect("it listens");
        // CONNECT of MQTT 5.0 with a Session Expiry Interval; SUBSCRIBE to a/# at QoS 1.
        let connect = b"\x10\x13\0\x04MQTT\x05\0\0\x3c\x05\x11\xff\xff\xff\xff\0\x01c";
        let subscribe = b"\x82\x09\0\x01\0\0\x03a/#\x01";
        client.write_all(&[&connect[..], subscribe].concat()).expect("sent");
        let mut answers = [0; 5];
        client.read_exact(&mut answers).expect("CONNACK");
    }
}

/// An answer.
struct Answer {
    status: u16,
    head: String,
    content: Vec<u8>,
}

/// Sends bytes, a request or not, and reads the first answer; no status if there is none.
fn ask(socket: &Path, bytes: &[u8], is_request: bool) -> Answer {
    let mut stream = UnixStream::connect(socket).expect("the admin interface listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    // The broker may have answered and closed before everything is sent.
    let _ = stream.write_all(bytes);
    if !is_request {
        // A request that is not complete would be waited for.
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let (mut answer, mut piece) = (Vec::new(), [0; 16 << 10]);
    loop {
        let read = match stream.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("no answer: {error}"),
        };
        answer.extend_from_slice(&piece[..read]);
        let end = answer.windows(4).position(|of| of == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end {
            let head = String::from_utf8(answer[..end].to_vec()).expect("the head is text");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            // Without a length, the content is a stream or comes in parts: nothing of it is checked.
            let length = length.map_or(0, |length| length.parse().expect("a number"));
            let has_all = answer.len() >= end + length;
            if has_all || read == 0 || answer.len() > ANSWER_BYTES_MAX {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                let status = status.unwrap_or_else(|| panic!("no answer of HTTP: {head:?}"));
                let content = answer[end..].iter().copied().take(length).collect();
                return Answer { status, head, content };
            }
        } else if read == 0 {
            assert!(answer.is_empty(), "a part of an answer: {answer:?}");
            return Answer { status: 0, head: String::new(), content: Vec::new() };
        }
    }
}

fn is_alive(socket: &Path) -> bool {
    socket.exists()
        && UnixStream::connect(socket).is_ok()
        && get(socket, "/livez").status == 200
}

fn get(socket: &Path, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    ask(socket, request.as_bytes(), true)
}

impl Request {
    fn bytes(&self, interface: &Interface) -> Vec<u8> {
        let (method, path) = &interface.routes[usize::from(self.route) % interface.routes.len()];
        let others = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];
        let method = self.method.map_or(&**method, |of| others[usize::from(of) % others.len()]);
        let mut values = self.path.iter().map(Text::text);
        let part = |part: &str| match part.starts_with('{') {
            true => escaped(&values.next().unwrap_or_else(|| "c".to_owned())),
            false => part.to_owned(),
        };
        let path = path.split('/').map(part).collect::<Vec<_>>().join("/");
        let pair = |(number, value): &(u8, Text)| {
            let name = &interface.parameters[usize::from(*number) % interface.parameters.len()];
            format!("{}={}", escaped(name), escaped(&value.text()))
        };
        let query = self.query.iter().take(8).map(pair).collect::<Vec<_>>().join("&");
        let (media_type, content) = match &self.content {
            Content::None => ("application/json", Vec::new()),
            Content::Members(members) => {
                let member = |(number, value): &(u8, Scalar)| {
                    (interface.member(*number), value.value(interface))
                };
                let content: Map<String, Value> = members.iter().map(member).collect();
                ("application/json", Value::Object(content).to_string().into_bytes())
            }
            Content::Bytes { is_json: true, bytes } => ("application/json", bytes.clone()),
            Content::Bytes { is_json: false, bytes } => ("text/plain", bytes.clone()),
        };
        let head = format!(
            "{method} {path}?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {media_type}\r\n\
             content-length: {}\r\n\r\n",
            content.len()
        );
        [head.into_bytes(), content].concat()
    }
}

impl Scalar {
    fn value(&self, interface: &Interface) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Yes(yes) => json!(yes),
            Self::Number(number) => json!(number),
            Self::Real(number) => json!(number),
            Self::Text(text) => json!(text.text()),
            Self::Texts(texts) => texts.iter().map(Text::text).collect(),
            Self::Members(members) => {
                let member = |(number, text): &(u8, Text)| {
                    (interface.member(*number), Value::from(text.text()))
                };
                members.iter().map(member).collect()
            }
        }
    }
}

/// A text as a part of a URL.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn check(answer: &Answer, request: &dyn std::fmt::Debug) {
    let Answer { status, head, content } = answer;
    let is_possible = (100..500).contains(status) || matches!(status, 503 | 504 | 507);
    assert!(is_possible, "{head}\n{}\n{request:?}", String::from_utf8_lossy(content));
    let is_problem = head.contains("content-type: application/problem+json");
    if is_problem && !content.is_empty() {
        let problem: Value = serde_json::from_slice(content).expect("JSON");
        assert_eq!(problem["status"], *status, "{problem}");
        assert!(problem["detail"].is_string(), "{problem}");
    }
}

fuzz_target!(|input: Input| {
    let broker = BROKER.get_or_init(Broker::start);
    match input {
        Input::Requests(requests) => {
            for request in requests.iter().take(8) {
                check(&ask(&broker.socket, &request.bytes(&broker.interface), true), request);
            }
        }
        Input::Bytes(bytes) => {
            let answer = ask(&broker.socket, &bytes, false);
            if answer.status > 0 {
                check(&answer, &bytes);
            }
        }
    }
    assert!(is_alive(&broker.socket));
});
