//! A far broker that a test plays itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{Ack, Encode, Publish, V5, V31, V311, Version, frame};
use crate::uninterrupted::uninterrupted;
use crate::{PATIENCE, free_address};

/// A packet of the bridge.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    Connect(Connect),
    Publish(Publish),
    Ack(Ack),
    /// Packet Identifier, and filters with their options.
    Subscribe(u16, Vec<(String, u8)>),
    /// Packet Identifier, and filters.
    Unsubscribe(u16, Vec<String>),
    Pingreq,
    Disconnect,
    /// DISCONNECT with Session Expiry Interval 0.
    EndSession,
}

/// CONNECT of the bridge.
#[derive(Debug, PartialEq, Eq)]
pub struct Connect {
    /// The byte of the Protocol Version.
    pub level: u8,
    pub clean_start: bool,
    pub keep_alive_s: u16,
    pub client_identifier: String,
    pub receive_maximum: Option<u16>,
}

/// Listens in the place of the far broker.
pub struct Far {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Far {
    pub fn new() -> Self {
        let listener = TcpListener::bind((free_address().ip(), 0)).expect("an address");
        listener.set_nonblocking(true).expect("an option");
        let address = listener.local_addr().expect("bound");
        Self { listener, address }
    }

    /// The next connection of the bridge, and its CONNECT.
    #[track_caller]
    pub fn accept(&self) -> (Peer, Connect) {
        let (stream, _) = Self::accept_at(std::slice::from_ref(self));
        Self::begin(stream)
    }

    /// The next connection of the bridge to one of these, and the place of that one.
    #[track_caller]
    pub fn accept_one_of(all: &[Self]) -> (usize, Peer) {
        let (stream, place) = Self::accept_at(all);
        (place, Self::begin(stream).0)
    }

    #[track_caller]
    fn accept_at(all: &[Self]) -> (TcpStream, usize) {
        let until = Instant::now() + PATIENCE;
        loop {
            for (place, far) in all.iter().enumerate() {
                match uninterrupted(|| far.listener.accept()) {
                    Ok((stream, _)) => return (stream, place),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
                }
            }
            assert!(Instant::now() < until, "no connection within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The connection with its CONNECT.
    #[track_caller]
    fn begin(stream: TcpStream) -> (Peer, Connect) {
        stream.set_nonblocking(false).expect("an option");
        stream.set_nodelay(true).expect("an option");
        let mut peer = Peer { stream, version: V5, bytes: Vec::new() };
        match peer.next() {
            Some(Packet::Connect(connect)) => {
                peer.version = match connect.level & 0x7F {
                    3 => V31,
                    4 => V311,
                    _ => V5,
                };
                (peer, connect)
            }
            other => panic!("{other:?} instead of CONNECT"),
        }
    }

    /// Ends the connections that wait: those of a broker that was killed.
    pub fn forget(&self) {
        while uninterrupted(|| self.listener.accept()).is_ok() {}
    }

    /// The first connection only ends a session that there may be from before.
    #[track_caller]
    pub fn discard(&self) {
        let (mut peer, connect) = self.accept();
        assert!(connect.clean_start);
        peer.connack(false, &[]);
        assert_eq!(peer.next(), Some(Packet::Disconnect));
        // The far broker closes the connection, as brokers do.
    }

    /// Accepts the next connection with this Session Present and these properties.
    #[track_caller]
    pub fn serve(&self, session_present: bool, properties: &[u8]) -> Peer {
        let (mut peer, _) = self.accept();
        peer.connack(session_present, properties);
        peer
    }
}

/// A connection of the bridge.
pub struct Peer {
    stream: TcpStream,
    version: Version,
    bytes: Vec<u8>,
}

impl Peer {
    /// The address of the bridge.
    #[cfg(target_os = "linux")]
    pub fn address(&self) -> SocketAddr {
        self.stream.peer_addr().expect("connected")
    }

    /// Accepts the connection.
    pub fn connack(&mut self, session_present: bool, properties: &[u8]) {
        let mut rest = vec![u8::from(session_present), 0];
        if self.version == V5 {
            rest.push(properties.len() as u8);
            rest.extend(properties);
        }
        self.raw(&frame(0x20, &rest));
    }

    /// Sends bytes; if the bridge has closed the connection, that shows later.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn send(&mut self, packet: impl Encode) {
        let bytes = packet.encode(self.version);
        self.raw(&bytes);
    }

    /// Answers SUBSCRIBE.
    pub fn suback(&mut self, identifier: u16, reasons: &[u8]) {
        let mut rest = identifier.to_be_bytes().to_vec();
        if self.version == V5 {
            rest.push(0);
        }
        rest.extend(reasons);
        self.raw(&frame(0x90, &rest));
    }

    /// Expects SUBSCRIBE and answers it with these reasons. Returns the filters.
    #[track_caller]
    pub fn grant(&mut self, reasons: &[u8]) -> Vec<(String, u8)> {
        match self.next() {
            Some(Packet::Subscribe(identifier, filters)) => {
                self.suback(identifier, reasons);
                filters
            }
            other => panic!("{other:?} instead of SUBSCRIBE"),
        }
    }

    /// Expects UNSUBSCRIBE and answers it. Returns the filters.
    #[track_caller]
    pub fn unsubscribed(&mut self) -> Vec<String> {
        match self.next() {
            Some(Packet::Unsubscribe(identifier, filters)) => {
                let mut rest = identifier.to_be_bytes().to_vec();
                if self.version == V5 {
                    rest.extend(std::iter::repeat_n(0, 1 + filters.len()));
                }
                self.raw(&frame(0xB0, &rest));
                filters
            }
            other => panic!("{other:?} instead of UNSUBSCRIBE"),
        }
    }

    /// The next PUBLISH.
    #[track_caller]
    pub fn publish(&mut self) -> Publish {
        match self.next() {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("{other:?} instead of PUBLISH"),
        }
    }

    /// Expects the end of the connection, whatever comes before.
    #[track_caller]
    pub fn expect_end(&mut self) {
        while self.next().is_some() {}
    }

    /// Expects an acknowledgement.
    #[track_caller]
    pub fn expect(&mut self, ack: Ack) {
        assert_eq!(self.next(), Some(Packet::Ack(ack)));
    }

    /// The next packet; none at the end of the connection.
    #[track_caller]
    pub fn next(&mut self) -> Option<Packet> {
        self.within(PATIENCE).unwrap_or_else(|| panic!("no packet within {PATIENCE:?}"))
    }

    /// The next packet, or the end of the connection; none if nothing comes for this time.
    #[track_caller]
    pub fn within(&mut self, patience: Duration) -> Option<Option<Packet>> {
        let until = Instant::now() + patience;
        loop {
            if let Some((first, rest)) = self.take_frame() {
                return Some(Some(decode(first, &rest, self.version)));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).expect("an option");
            let mut buffer = [0; 16 * 1024];
            match uninterrupted(|| self.stream.read(&mut buffer)) {
                Ok(0) => return Some(None),
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return None,
                    _ => return Some(None),
                },
            }
        }
    }

    /// The first byte and the rest behind the Remaining Length of a whole packet.
    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (mut length, mut at) = (0, 1);
        loop {
            let byte = *self.bytes.get(at)?;
            length |= usize::from(byte & 0x7F) << (7 * (at - 1));
            at += 1;
            if byte < 0x80 {
                break;
            }
        }
        if self.bytes.len() < at + length {
            return None;
        }
        let frame: Vec<u8> = self.bytes.drain(..at + length).collect();
        Some((frame[0], frame[at..].to_vec()))
    }
}

/// Reads fields from the beginning of bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, left) = self.0.split_at(count);
        self.0 = left;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn text(&mut self) -> String {
        let count = self.two();
        String::from_utf8(self.take(count.into()).to_vec()).expect("text")
    }

    /// Skips properties, which 5.0 has.
    fn skip_properties(&mut self, version: Version) {
        self.properties(version);
    }

    /// The bytes of properties, which 5.0 has.
    fn properties(&mut self, version: Version) -> &'a [u8] {
        if version != V5 {
            return &[];
        }
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        self.take(length)
    }
}

/// The Receive Maximum of CONNECT, among the properties that a bridge sends.
fn receive_maximum(properties: &[u8]) -> Option<u16> {
    let mut fields = Fields(properties);
    while !fields.0.is_empty() {
        match fields.byte() {
            0x21 => return Some(fields.two()),
            0x11 | 0x27 => drop(fields.take(4)),
            other => panic!("a bridge does not send property {other:#x} in CONNECT"),
        }
    }
    None
}

fn decode(first: u8, rest: &[u8], version: Version) -> Packet {
    let mut fields = Fields(rest);
    match first >> 4 {
        1 => {
            fields.text();
            let level = fields.byte();
            let flags = fields.byte();
            assert_eq!(flags & 1, 0, "[MQTT-3.1.2-3] a reserved flag");
            let keep_alive_s = fields.two();
            let properties = fields.properties(if level == 5 { V5 } else { V311 });
            let client_identifier = fields.text();
            Packet::Connect(Connect {
                level,
                clean_start: flags & 2 != 0,
                keep_alive_s,
                client_identifier,
                receive_maximum: receive_maximum(properties),
            })
        }
        3 => {
            let qos = first >> 1 & 3;
            let topic = fields.text();
            let packet_identifier = (qos > 0).then(|| fields.two());
            fields.skip_properties(version);
            Packet::Publish(Publish {
                dup: first & 8 != 0,
                qos,
                retain: first & 1 != 0,
                topic,
                packet_identifier,
                properties: Vec::new(),
                payload: fields.0.to_vec(),
            })
        }
        kind @ 4..=7 => {
            let packet_identifier = fields.two();
            let reason = if fields.0.is_empty() { 0 } else { fields.byte() };
            assert!(version == V5 || rest.len() == 2, "an acknowledgement of {} bytes", rest.len());
            Packet::Ack(Ack { kind, packet_identifier, reason, properties: Vec::new() })
        }
        8 => {
            let identifier = fields.two();
            fields.skip_properties(version);
            let mut filters = Vec::new();
            while !fields.0.is_empty() {
                filters.push((fields.text(), fields.byte()));
            }
            Packet::Subscribe(identifier, filters)
        }
        10 => {
            let identifier = fields.two();
            fields.skip_properties(version);
            let mut filters = Vec::new();
            while !fields.0.is_empty() {
                filters.push(fields.text());
            }
            Packet::Unsubscribe(identifier, filters)
        }
        12 => Packet::Pingreq,
        // Normal disconnection, and properties of five bytes.
        14 if rest == [0, 5, 0x11, 0, 0, 0, 0] => Packet::EndSession,
        14 => Packet::Disconnect,
        other => panic!("a bridge does not send packets of type {other}"),
    }
}
