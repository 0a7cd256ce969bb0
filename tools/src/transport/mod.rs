//! How a client's bytes reach the broker: TCP, with TLS and WebSocket in it where they are asked for.
//! It is the only place that knows what a connection is made of; everything else reads and writes a
//! `Stream`.
//!
//! ```text
//! MQTT ─► WebSocket ─► TLS ─► socket      write
//! MQTT ◄─ WebSocket ◄─ TLS ◄─ socket      read
//! ```
//!
//! Plain TCP passes through untouched. The others share two buffers among all clients of a process; a
//! client keeps only what the socket did not take, and a record whose rest has not come.

mod socket;
#[cfg(test)]
mod tests;
mod tls;
mod websocket;

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    rc::Rc,
};

use mio::{Registry, Token, net::TcpStream};
use serde::{Deserialize, Serialize};

use crate::{address::LoopbackAddress, error::Result, limits::OUTGOING_BYTES_MAX};
pub use socket::Sources;
use tls::Tls;
pub use tls::{TlsSettings, TlsVersion};
use websocket::WebSocket;

/// What clients speak beneath MQTT. The default is plain TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transport {
    /// TLS, and how.
    pub tls: Option<TlsSettings>,
    /// WebSocket, at this path.
    pub websocket_path: Option<String>,
}

/// Its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing but TCP.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket in TLS.
    Wss,
}

impl Kind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WebSocket",
            Self::Wss => "WebSocket over TLS",
        }
    }
}

impl Transport {
    /// Its name.
    pub fn kind(&self) -> Kind {
        match (&self.tls, &self.websocket_path) {
            (None, None) => Kind::Tcp,
            (Some(_), None) => Kind::Tls,
            (None, Some(_)) => Kind::Ws,
            (Some(_), Some(_)) => Kind::Wss,
        }
    }
}

/// Opens connections to one broker.
#[derive(Debug)]
pub struct Connector {
    address: LoopbackAddress,
    sources: Sources,
    tls: Option<tls::Client>,
    websocket_path: Option<String>,
    scratch: Rc<RefCell<Scratch>>,
}

impl Connector {
    /// To `address`, from these addresses. An error if the authority cannot be read.
    pub fn new(address: LoopbackAddress, sources: Sources, transport: &Transport) -> Result<Self> {
        let protocol = if transport.websocket_path.is_some() { "http/1.1" } else { "mqtt" };
        let tls = transport.tls.as_ref().map(|tls| tls::Client::new(tls, protocol)).transpose()?;
        let websocket_path = transport.websocket_path.clone();
        Ok(Self { address, sources, tls, websocket_path, scratch: Rc::default() })
    }

    /// Begin to connect client `client`, and hear of it under `token`.
    pub fn connect(&self, client: u32, registry: &Registry, token: Token) -> io::Result<Stream> {
        let socket = socket::connect(self.address, self.sources, client, registry, token)?;
        if self.tls.is_none() && self.websocket_path.is_none() {
            return Ok(Stream { socket, layers: None });
        }
        let tls = self.tls.as_ref().map(|tls| tls.begin(client)).transpose()?;
        let websocket = self.websocket_path.as_deref();
        let websocket = websocket.map(|path| WebSocket::new(path, &self.address.to_string()));
        let layers = Layers {
            tls,
            websocket,
            unsent: Vec::new(),
            is_stuck: false,
            is_begun: false,
            is_ended: false,
            scratch: Rc::clone(&self.scratch),
        };
        Ok(Stream { socket, layers: Some(Box::new(layers)) })
    }
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes of the buffer hold data; there may be more to read.
    More(usize),
    /// So many bytes hold data, and the socket is empty until the next event.
    Last(usize),
    /// The peer closed.
    Closed,
}

/// One connection, which never blocks.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    layers: Option<Box<Layers>>,
}

/// What lies between MQTT and the socket.
#[derive(Debug)]
struct Layers {
    tls: Option<Tls>,
    websocket: Option<WebSocket>,
    /// For the socket, before all that follows.
    unsent: Vec<u8>,
    /// The socket took less than there was: it will say when it takes more.
    is_stuck: bool,
    is_begun: bool,
    /// Nothing more comes.
    is_ended: bool,
    scratch: Rc<RefCell<Scratch>>,
}

/// Memory that all connections of a process take turns to use.
#[derive(Debug, Default)]
struct Scratch {
    /// As it came from the socket, TLS records.
    records: Vec<u8>,
    /// What goes to the socket, and WebSocket frames that TLS has to seal first.
    outgoing: Vec<u8>,
    frames: Vec<u8>,
}

impl Stream {
    /// Whether the connection has come about; an error if it never will. What goes before MQTT is
    /// waited for by `write`.
    pub fn is_connected(&mut self) -> io::Result<bool> {
        let is_connected = socket::is_connected(&self.socket)?;
        if let Some(layers) = self.layers.as_mut().filter(|_| is_connected) {
            layers.begin()?;
        }
        Ok(is_connected)
    }

    /// Read what is there.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<ReadOutcome> {
        if let Some(layers) = &mut self.layers {
            return layers.read(&mut self.socket, buffer);
        }
        match self.socket.read(buffer)? {
            0 => Ok(ReadOutcome::Closed),
            // A short read of a stream means that it is empty: no second call to learn that.
            count if count < buffer.len() => Ok(ReadOutcome::Last(count)),
            count => Ok(ReadOutcome::More(count)),
        }
    }

    /// Write what is taken. What was taken may wait for [`Self::flush`].
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.layers {
            None => self.socket.write(bytes),
            Some(layers) => layers.write(&mut self.socket, bytes),
        }
    }

    /// Bytes that were taken, or that the transport has to say itself, and that the socket has not
    /// taken yet.
    #[inline]
    pub fn unsent_bytes(&self) -> usize {
        self.layers.as_ref().map_or(0, |layers| layers.unsent.len())
    }

    /// Write them, as far as the socket takes them.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.layers {
            None => Ok(()),
            Some(layers) => layers.flush(&mut self.socket),
        }
    }
}

impl Layers {
    /// The socket is connected: say what goes first.
    fn begin(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_begun, true) {
            return Ok(());
        }
        match &mut self.tls {
            Some(tls) => tls.begin(&mut self.unsent),
            None => self.begin_websocket(),
        }
    }

    /// What is beneath WebSocket is open.
    fn begin_websocket(&mut self) -> io::Result<()> {
        let Some(websocket) = &mut self.websocket else { return Ok(()) };
        match websocket.take_request() {
            Some(request) => self.say(&request),
            None => Ok(()),
        }
    }

    /// What WebSocket has to say itself.
    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) if !bytes.is_empty() => tls.seal(bytes, &mut self.unsent),
            _ => {
                self.unsent.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Whether MQTT may be sent.
    fn is_open(&self) -> bool {
        self.tls.as_ref().is_none_or(Tls::is_open)
            && self.websocket.as_ref().is_none_or(WebSocket::is_open)
    }

    fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<ReadOutcome> {
        if self.is_ended {
            return Ok(ReadOutcome::Closed);
        }
        let Self { tls, unsent, scratch, .. } = self;
        let (mut filled, more) = match tls {
            None => {
                let count = socket.read(buffer)?;
                self.is_ended = count == 0;
                (count, count == buffer.len())
            }
            Some(tls) => {
                let outcome = tls.read(socket, &mut scratch.borrow_mut().records, buffer, unsent);
                self.is_ended = tls.is_ended();
                if matches!(&outcome, Err(error) if error.kind() == io::ErrorKind::InvalidData) {
                    // The broker is told why, if it can be; what counts is the reason.
                    let _ = self.flush(socket);
                }
                outcome?
            }
        };
        if self.tls.as_ref().is_none_or(Tls::is_open) {
            self.begin_websocket()?;
        }
        if let Some(websocket) = &mut self.websocket {
            let mut answer = Vec::new();
            filled = websocket.receive(&mut buffer[..filled], &mut answer)?;
            self.is_ended |= websocket.is_ended();
            self.say(&answer)?;
        }
        match (self.is_ended, filled) {
            (true, 0) => Ok(ReadOutcome::Closed),
            // What comes next is the end.
            (true, _) => Ok(ReadOutcome::More(filled)),
            (false, _) if more => Ok(ReadOutcome::More(filled)),
            (false, _) => Ok(ReadOutcome::Last(filled)),
        }
    }

    fn write(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        if self.is_stuck || !self.is_open() {
            self.flush(socket)?;
        }
        if self.is_stuck || !self.is_open() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = &bytes[..bytes.len().min(OUTGOING_BYTES_MAX)];
        let Scratch { outgoing, frames, .. } = &mut *self.scratch.borrow_mut();
        outgoing.clear();
        outgoing.append(&mut self.unsent);
        match (&mut self.websocket, &mut self.tls) {
            (Some(websocket), None) => websocket.frame(bytes, outgoing),
            (None, Some(tls)) => tls.seal(bytes, outgoing)?,
            (Some(websocket), Some(tls)) => {
                frames.clear();
                websocket.frame(bytes, frames);
                tls.seal(frames, outgoing)?;
            }
            (None, None) => unreachable!("a stream without layers has no such thing"),
        }
        let written = write_all(socket, outgoing)?;
        self.is_stuck = written < outgoing.len();
        self.unsent = outgoing[written..].to_vec();
        Ok(bytes.len())
    }

    fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let written = write_all(socket, &self.unsent)?;
        self.is_stuck = written < self.unsent.len();
        match self.is_stuck {
            true => drop(self.unsent.drain(..written)),
            false => self.unsent = Vec::new(),
        }
        Ok(())
    }
}

/// Write as far as the socket takes it; how far that was.
fn write_all(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// What came, or was asked for, is of no use.
fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
