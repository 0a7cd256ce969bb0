//! A broker with a listener of every kind, and a client for each of them.

#[path = "authority.rs"]
mod authority;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use serde_json::Value;

use self::authority::AcceptAnyServer;
pub use self::authority::Authority;
use crate::matrix::setup_of;

/// Timeout of every operation.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const EXECUTORS: &[&str] = &[
    "--cores 1",
    "--cores 3",
    "--mode poll --cores 1",
    "--mode poll --cores 3",
    "--mode sync",
    #[cfg(all(feature = "monoio", target_os = "linux", target_pointer_width = "64"))]
    "--executor monoio --cores 2",
    #[cfg(all(feature = "glommio", target_os = "linux", target_pointer_width = "64"))]
    "--executor glommio --cores 2",
];

pub const TRANSPORTS: [&str; 6] = ["tcp", "tls", "ws", "wss", "unix", "proxied"];

pub type Tls = Arc<ClientConfig>;

pub fn topic_of(transport: &str, number: usize) -> String {
    format!("{transport}/{number}")
}

/// A listener that requests client certificates.
pub fn mutual(asks: &str) -> String {
    format!(
        "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"tls\"\n[listeners.tls]\n\
         certificate = \"FOLDER/server.pem\"\nkey = \"FOLDER/key.pem\"\n\
         client_certificate = \"{asks}\"\nclient_ca = \"FOLDER/ca.pem\"\n\
         client_crl = [\"FOLDER/crl.pem\"]\nidentity = \"cn\"\n"
    )
}

/// Everything sent until the other side closes the connection.
pub fn rest(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    let mut rest = Vec::new();
    // The connection may be reset after the data.
    let _ = stream.read_to_end(&mut rest);
    rest
}

/// A folder that is removed on drop.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("ringmq-transports-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }
}

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Broker {
    child: Child,
    pub folder: Arc<Folder>,
    pub authority: Arc<Authority>,
    addresses: Vec<String>,
    /// The executor, as recorded for docs/matrix.md.
    pub setup: String,
    log: Mutex<Receiver<String>>,
}

impl Broker {
    /// Starts a broker with a listener of every kind, and the additional configuration `more`.
    pub fn start(flags: &str, more: &str) -> Self {
        Self::start_with(flags, more, |_, _| {})
    }

    /// Like [`start`](Self::start), with files added by `prepare`.
    pub fn start_with(flags: &str, more: &str, prepare: impl FnOnce(&Folder, &Authority)) -> Self {
        let folder = Arc::new(Folder::new());
        let authority = Arc::new(Authority::new());
        authority.write_server(&folder);
        prepare(&folder, &authority);
        let tls = "[listeners.tls]\ncertificate = \"FOLDER/server.pem\"\nkey = \"FOLDER/key.pem\"\n\
                   kernel = \"auto\"\n\
                   [[listeners.tls.names]]\ncertificate = \"FOLDER/other.pem\"\n\
                   key = \"FOLDER/other-key.pem\"\n";
        let listener = |transport: &str| {
            format!(
                "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"{transport}\"\nanonymous = true\n"
            )
        };
        let config = [
            listener("tcp"),
            listener("tls") + tls,
            listener("ws"),
            listener("wss") + tls,
            "[[listeners]]\nbind = \"unix:FOLDER/broker.sock\"\ntransport = \"unix\"\n".to_owned(),
            listener("tcp") + "proxy_protocol_from = [\"127.0.0.0/8\"]\n",
            more.to_owned(),
        ];
        let config = config.concat().replace("FOLDER", folder.to_str().expect("a path"));
        std::fs::write(folder.join("broker.toml"), config).expect("written");
        Self::run(flags, folder, authority)
    }

    fn run(flags: &str, folder: Arc<Folder>, authority: Arc<Authority>) -> Self {
        let flags = &flags.replace("FOLDER", folder.to_str().expect("a path"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(if flags.contains("--data") { &[][..] } else { &["--data", "none"] })
            .args(["--log-format", "json", "--config"])
            .arg(folder.join("broker.toml"))
            .args(flags.split_whitespace())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let (lines, log) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| drop(lines.send(line)));
        });
        let config = std::fs::read_to_string(folder.join("broker.toml")).expect("the file exists");
        let expected = config.matches("[[listeners]]").count();
        let (mut addresses, mut setup) = (Vec::new(), String::new());
        while addresses.len() < expected {
            let line = log.recv_timeout(PATIENCE).expect("the server listens");
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            setup = setup_of(&event, flags).unwrap_or(setup);
            if event["message"] == "listening" {
                addresses.push(event["address"].as_str().expect("text").to_owned());
            }
        }
        Self { child, folder, authority, addresses, setup, log: Mutex::new(log) }
    }

    pub fn start_again(&self, flags: &str) -> Self {
        Self::run(flags, Arc::clone(&self.folder), Arc::clone(&self.authority))
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill").args([signal, &pid]).status().expect("the command runs").success()
        );
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("the command runs");
        self.child.wait().expect("the process exits");
    }

    pub fn stop(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().expect("the process exits").success());
    }

    fn reload_until(&self, says: &str) {
        self.signal("-HUP");
        let log = self.log.lock().expect("no test panics with the lock");
        let is_it = |line: String| line.contains(says) && line.contains("\"what\":\"listeners\"");
        while !is_it(log.recv_timeout(PATIENCE).expect("the log line")) {}
    }

    /// Waits for a log line that contains all of these texts.
    pub fn waits_for_line(&self, says: &[&str]) {
        let log = self.log.lock().expect("no test panics with the lock");
        while let line = log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{says:?}"))
            && !says.iter().all(|part| line.contains(part))
        {}
    }

    /// Reloads all files; the log must contain all of these texts first.
    pub fn reload_after(&self, says: &[&str]) {
        self.signal("-HUP");
        self.waits_for_line(says);
        self.waits_for_line(&["reloaded", "\"what\":\"listeners\""]);
    }

    pub fn reload(&self) {
        self.reload_until("reloaded");
    }

    pub fn reload_fails(&self) {
        self.reload_until("cannot reload");
    }

    /// The address of a listener by its transport; listeners added by tests are last.
    pub fn address(&self, transport: &str) -> SocketAddr {
        let place = TRANSPORTS.iter().position(|name| *name == transport);
        self.addresses[place.unwrap_or(TRANSPORTS.len())].parse().expect("an address")
    }

    pub fn tcp(&self, transport: &str) -> TcpStream {
        let stream = TcpStream::connect(self.address(transport)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        // Sent at once, even if the client disconnects right after.
        stream.set_nodelay(true).expect("an option");
        stream
    }

    pub fn client(&self, transport: &str) -> Client {
        self.client_with(transport, self.authority.client_config(None))
    }

    pub fn client_with(&self, transport: &str, config: Tls) -> Client {
        self.try_client_with(transport, config).expect("the client is accepted")
    }

    /// A client of a Unix domain socket in the broker's folder.
    pub fn unix_client(&self, name: &str) -> Client {
        let stream = UnixStream::connect(self.folder.join(name)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        Client { stream: Way::Plain(Box::new(stream)), frames: None, read: Vec::new() }
    }

    pub fn try_client_with(&self, transport: &str, config: Tls) -> std::io::Result<Client> {
        let stream: Way = match transport {
            "unix" => {
                let stream = UnixStream::connect(self.folder.join("broker.sock"))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Way::Plain(Box::new(stream))
            }
            "proxied" => {
                let mut stream = self.tcp(transport);
                stream.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")?;
                Way::Plain(Box::new(stream))
            }
            "tls" | "wss" | "mutual" => {
                Way::Tls(Box::new(self.tls(transport, "localhost", config)?))
            }
            _ => Way::Plain(Box::new(self.tcp(transport))),
        };
        let mut client = Client { stream, frames: None, read: Vec::new() };
        if matches!(transport, "ws" | "wss") {
            client.upgrade()?;
        }
        Ok(client)
    }

    fn tls(
        &self,
        transport: &str,
        name: &str,
        config: Tls,
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connection = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, self.tcp(transport));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    fn trusting() -> Tls {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAnyServer))
            .with_no_client_auth();
        Arc::new(config)
    }

    pub fn client_of_any_server(&self, transport: &str) -> Client {
        self.client_with(transport, Self::trusting())
    }

    pub fn certificate_shown(&self, transport: &str) -> Vec<u8> {
        self.certificate_shown_for(transport, "localhost")
    }

    pub fn certificate_shown_for(&self, transport: &str, name: &str) -> Vec<u8> {
        let stream = self.tls(transport, name, Self::trusting()).expect("the client is accepted");
        stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

trait ReadWrite: Read + Write + Send {
    fn socket(&self) -> socket2::SockRef<'_>;
}

impl ReadWrite for TcpStream {
    fn socket(&self) -> socket2::SockRef<'_> {
        self.into()
    }
}

impl ReadWrite for UnixStream {
    fn socket(&self) -> socket2::SockRef<'_> {
        self.into()
    }
}

enum Way {
    Plain(Box<dyn ReadWrite>),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Way {
    fn stream(&mut self) -> &mut dyn Stream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream,
        }
    }

    fn socket(&self) -> socket2::SockRef<'_> {
        match self {
            Self::Plain(stream) => stream.socket(),
            Self::Tls(stream) => stream.sock.socket(),
        }
    }
}

/// A 3.1.1 client.
pub struct Client {
    stream: Way,
    /// With WebSocket: the number of frames sent.
    frames: Option<u32>,
    /// MQTT bytes received.
    read: Vec<u8>,
}

impl Client {
    fn upgrade(&mut self) -> std::io::Result<()> {
        let stream = self.stream.stream();
        stream.write_all(
            b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Protocol: mqtt\r\n\r\n",
        )?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        self.frames = Some(0);
        Ok(())
    }

    pub fn handshake_kind(&self) -> HandshakeKind {
        let Way::Tls(stream) = &self.stream else { panic!("not a TLS client") };
        stream.conn.handshake_kind().expect("the handshake is complete")
    }

    /// The TLS session.
    pub fn tls(&mut self) -> &mut StreamOwned<ClientConnection, TcpStream> {
        let Way::Tls(stream) = &mut self.stream else { panic!("not a TLS client") };
        stream
    }

    /// Ends the sending direction, with close_notify or a Close frame if `is_said`, and continues
    /// to read.
    pub fn shut(&mut self, is_said: bool) -> std::io::Result<()> {
        if is_said && self.frames.is_some() {
            self.stream.stream().write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 232])?;
        }
        if is_said && let Way::Tls(stream) = &mut self.stream {
            stream.conn.send_close_notify();
            stream.conn.write_tls(&mut stream.sock)?;
        }
        self.stream.socket().shutdown(std::net::Shutdown::Write)
    }

    /// Closes the socket so that the kernel resets the connection.
    pub fn reset(self) {
        self.stream.socket().set_linger(Some(Duration::ZERO)).expect("an option");
    }

    /// Reduces the receive buffer.
    pub fn take_little(&self) {
        self.stream.socket().set_recv_buffer_size(4_096).expect("an option");
    }

    /// Everything received until the broker sends close_notify or a Close frame; an error if the
    /// connection ends without.
    pub fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.stream().read_to_end(&mut rest).map(|_| rest)
    }

    /// Sends raw bytes below the MQTT layer.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.stream().write_all(bytes).expect("the data is sent");
    }

    /// Sends MQTT; with WebSocket split into frames at arbitrary positions.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(frames) = &mut self.frames else { return self.stream.stream().write_all(bytes) };
        for part in bytes.chunks(60_000.min(bytes.len() / 2 + 1)) {
            *frames += 1;
            let mut frame = vec![0x82];
            match part.len() {
                0..126 => frame.push(0x80 | part.len() as u8),
                length => {
                    frame.push(0x80 | 126);
                    frame.extend((length as u16).to_be_bytes());
                }
            }
            let mask = frames.wrapping_mul(0x9E37_79B9).to_be_bytes();
            frame.extend(mask);
            frame.extend(part.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            self.stream.stream().write_all(&frame)?;
        }
        Ok(())
    }

    /// Reads this many bytes of MQTT.
    fn receive(&mut self, bytes: usize) -> std::io::Result<Vec<u8>> {
        while self.read.len() < bytes {
            let stream = self.stream.stream();
            if self.frames.is_none() {
                let mut some = vec![0; bytes - self.read.len()];
                stream.read_exact(&mut some)?;
                self.read.extend(some);
                continue;
            }
            let mut head = [0; 2];
            stream.read_exact(&mut head)?;
            if head[0] == 0x88 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            assert_eq!(head[0], 0x82, "[MQTT-6.0.0-1]");
            let mut long = vec![0; [0, 2, 8][usize::from(head[1].saturating_sub(125))]];
            stream.read_exact(&mut long)?;
            let long = long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            let mut payload = vec![0; if head[1] < 126 { usize::from(head[1]) } else { long }];
            stream.read_exact(&mut payload)?;
            self.read.extend(payload);
        }
        Ok(self.read.drain(..bytes).collect())
    }

    /// The next packet: its first byte, and the bytes after its length.
    pub fn packet(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let first = self.receive(1)?[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.receive(1)?[0];
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok((first, self.receive(length)?))
    }

    fn try_connect(&mut self, name: &str) -> std::io::Result<(u8, Vec<u8>)> {
        let mut connect = vec![0x10, 12 + name.len() as u8];
        connect.extend(b"\x00\x04MQTT\x04\x02\x00\x00\x00");
        connect.push(name.len() as u8);
        connect.extend(name.as_bytes());
        self.send(&connect)?;
        self.packet()
    }

    pub fn connect(&mut self, name: &str) {
        let connack = self.try_connect(name).expect("a response");
        assert_eq!(connack, (0x20, vec![0, 0]));
    }

    pub fn tries_to_connect(&mut self, name: &str) -> bool {
        self.try_connect(name).is_ok_and(|connack| connack == (0x20, vec![0, 0]))
    }

    pub fn subscribe(&mut self, topic: &str) {
        self.ask_for(topic);
        assert_eq!(self.packet().expect("a response"), (0x90, vec![0, 1, 0]));
    }

    fn ask_for(&mut self, topic: &str) {
        let mut subscribe = vec![0x82, 5 + topic.len() as u8, 0, 1, 0, topic.len() as u8];
        subscribe.extend(topic.as_bytes());
        subscribe.push(0);
        self.send(&subscribe).expect("the data is sent");
    }

    /// The values of a `$SYS` counter, one per change, up to the expected value; the server may
    /// send one before SUBACK.
    pub fn waits_for_counter(&mut self, topic: &str, value: usize) {
        self.ask_for(topic);
        let mut seen = Vec::new();
        while seen.last() != Some(&value) {
            let (first, packet) = self.packet().expect("a packet arrives");
            if first == 0x90 {
                continue;
            }
            let text = String::from_utf8_lossy(&packet[2 + topic.len()..]).into_owned();
            seen.push(text.parse().expect("a number"));
            assert!(seen.len() < 30, "{topic} does not become {value}: {seen:?}");
        }
    }

    pub fn publish(&mut self, topic: &str, payload: &[u8]) {
        let mut length = 2 + topic.len() + payload.len();
        let mut publish = vec![0x30];
        while length > 0x7F {
            publish.push(length as u8 | 0x80);
            length >>= 7;
        }
        publish.extend([length as u8, 0, topic.len() as u8]);
        publish.extend(topic.as_bytes());
        publish.extend(payload);
        self.send(&publish).expect("the data is sent");
    }

    /// The payload of the next message, which must have this topic.
    pub fn publish_received(&mut self, topic: &str) -> Vec<u8> {
        let (first, packet) = self.packet().expect("a packet arrives");
        assert_eq!(first, 0x30);
        assert_eq!(&packet[2..2 + topic.len()], topic.as_bytes());
        packet[2 + topic.len()..].to_vec()
    }

    pub fn ping(&mut self) {
        self.send(&[0xC0, 0]).expect("the data is sent");
        assert_eq!(self.packet().expect("a response").0, 0xD0);
    }
}
