//! Connections to the broker: TCP, optionally with TLS and WebSocket. This module alone knows the
//! layers of a connection; all others read and write a `Stream`.
//!
//! ```text
//! MQTT ─► WebSocket ─► TLS ─► socket      write
//! MQTT ◄─ WebSocket ◄─ TLS ◄─ socket      read
//! ```
//!
//! Plain TCP is passed through. The other transports share two buffers among all clients of a
//! process; a client only keeps unsent data, and an incomplete record.

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

/// The transport below MQTT. The default is plain TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transport {
    /// The TLS settings, if used.
    pub tls: Option<TlsSettings>,
    /// The WebSocket path, if used.
    pub websocket_path: Option<String>,
}

/// The kind of transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Plain TCP.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Kind {
    /// The name for people.
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
    /// The name.
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
    /// Connections to `address`, from these source addresses. Fails if the authority cannot be
    /// read.
    pub fn new(address: LoopbackAddress, sources: Sources, transport: &Transport) -> Result<Self> {
        let protocol = if transport.websocket_path.is_some() { "http/1.1" } else { "mqtt" };
        let tls = transport.tls.as_ref().map(|tls| tls::Client::new(tls, protocol)).transpose()?;
        let websocket_path = transport.websocket_path.clone();
        Ok(Self { address, sources, tls, websocket_path, scratch: Rc::default() })
    }

    /// Starts to connect client `client`, registered under `token`.
    pub fn connect(&self, client: u32, registry: &Registry, token: Token) -> io::Result<Stream> {
        self.connect_to(self.address, client, registry, token)
    }

    /// Starts to connect client `client` to another address, registered under `token`.
    pub fn connect_to(
        &self,
        address: LoopbackAddress,
        client: u32,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Stream> {
        let socket = socket::connect(address, self.sources, client, registry, token)?;
        if self.tls.is_none() && self.websocket_path.is_none() {
            return Ok(Stream { socket, layers: None });
        }
        let tls = self.tls.as_ref().map(|tls| tls.begin(client)).transpose()?;
        let websocket = self.websocket_path.as_deref();
        let websocket = websocket.map(|path| WebSocket::new(path, &address.to_string()));
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

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// This many bytes of the buffer are filled; there may be more to read.
    More(usize),
    /// This many bytes are filled, and the socket is empty until the next event.
    Last(usize),
    /// The peer closed the connection.
    Closed,
}

/// One non-blocking connection.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    layers: Option<Box<Layers>>,
}

/// The layers between MQTT and the socket.
#[derive(Debug)]
struct Layers {
    tls: Option<Tls>,
    websocket: Option<WebSocket>,
    /// Data for the socket, before all later data.
    unsent: Vec<u8>,
    /// The socket accepted less than offered: an event will follow.
    is_stuck: bool,
    is_begun: bool,
    /// The input has ended.
    is_ended: bool,
    scratch: Rc<RefCell<Scratch>>,
}

/// Buffers shared by all connections of a process.
#[derive(Debug, Default)]
struct Scratch {
    /// Input from the socket: TLS records.
    records: Vec<u8>,
    /// Output for the socket, and WebSocket frames to be encrypted first.
    outgoing: Vec<u8>,
    frames: Vec<u8>,
}

impl Stream {
    /// Whether the TCP connection is established; an error if it failed. `write` waits for the
    /// layers below MQTT.
    pub fn is_connected(&mut self) -> io::Result<bool> {
        let is_connected = socket::is_connected(&self.socket)?;
        if let Some(layers) = self.layers.as_mut().filter(|_| is_connected) {
            layers.begin()?;
        }
        Ok(is_connected)
    }

    /// Reads available data.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<ReadOutcome> {
        if let Some(layers) = &mut self.layers {
            return layers.read(&mut self.socket, buffer);
        }
        match self.socket.read(buffer)? {
            0 => Ok(ReadOutcome::Closed),
            // A short read means that the stream is empty, which saves a second call.
            count if count < buffer.len() => Ok(ReadOutcome::Last(count)),
            count => Ok(ReadOutcome::More(count)),
        }
    }

    /// Writes as much as is accepted. Accepted data may wait for [`Self::flush`].
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.layers {
            None => self.socket.write(bytes),
            Some(layers) => layers.write(&mut self.socket, bytes),
        }
    }

    /// Number of bytes that were accepted, or created by the layers, and not written to the socket
    /// yet.
    #[inline]
    pub fn unsent_bytes(&self) -> usize {
        self.layers.as_ref().map_or(0, |layers| layers.unsent.len())
    }

    /// Writes them, as much as the socket accepts.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.layers {
            None => Ok(()),
            Some(layers) => layers.flush(&mut self.socket),
        }
    }
}

impl Layers {
    /// The socket is connected: starts the layers.
    fn begin(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_begun, true) {
            return Ok(());
        }
        match &mut self.tls {
            Some(tls) => tls.begin(&mut self.unsent),
            None => self.begin_websocket(),
        }
    }

    /// The layer below WebSocket is ready.
    fn begin_websocket(&mut self) -> io::Result<()> {
        let Some(websocket) = &mut self.websocket else { return Ok(()) };
        match websocket.take_request() {
            Some(request) => self.say(&request),
            None => Ok(()),
        }
    }

    /// Sends data created by the WebSocket layer.
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
                    // Notifies the broker if possible; the error is what counts.
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
            // The end of the stream follows.
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
            (None, None) => unreachable!("a stream without layers"),
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

/// Writes as much as the socket accepts; returns the number of bytes.
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

/// An invalid input or setting.
fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
