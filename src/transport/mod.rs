//! The layers between a socket and MQTT: PROXY header, TLS and WebSocket, as the listener configures them.
//!
//! ```text
//! socket ─► PROXY header ─► TLS ─► WebSocket ─► MQTT     receive
//! socket ◄───────────────── TLS ◄─ WebSocket ◄─ MQTT     wrap, close
//! ```
//!
//! Sans-IO like the engine, which owns the state: bytes in, bytes out. Executors do not see the layers, and
//! connections of plain MQTT have no state here. The state moves with a connection to another core. The TLS
//! library draws randomness itself and reads the time of day for tickets and expiry: TLS is not replayed by
//! simulations.

#[cfg(feature = "bridge")]
pub mod bridge;
#[cfg(not(feature = "bridge"))]
#[path = "bridge_absent.rs"]
pub mod bridge;
mod ciphers;
#[cfg(feature = "websocket")]
mod frames;
mod listener;
pub mod proxy;
pub mod record;
#[cfg(feature = "websocket")]
mod request;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls_absent.rs"]
pub mod tls;
#[cfg(feature = "websocket")]
pub mod websocket;
#[cfg(not(feature = "websocket"))]
#[path = "websocket_absent.rs"]
pub mod websocket;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use self::bridge::FarEnd;
pub use self::ciphers::{Cipher, Ciphers};
use self::tls::{Keys, Tls};
use self::websocket::WebSocket;
use crate::base::identity::CertificateIdentity;
use crate::base::limits;
use crate::base::send_buffer::SendBuffer;
pub use crate::transport::listener::{ListenerPolicies, ListenerPolicy};

/// Failure of a layer below MQTT, which ends the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The layer that failed.
    pub layer: Layer,
    /// The reason.
    pub what: String,
}

/// A layer between socket and MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The PROXY header.
    Proxy,
    /// TLS.
    Tls,
    /// The client certificate of TLS.
    ClientCertificate,
    /// WebSocket and its HTTP request.
    WebSocket,
    /// The connection of a bridge to another broker.
    Bridge,
}

impl Layer {
    /// Name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "PROXY",
            Self::Tls => "TLS",
            Self::ClientCertificate => "client certificate",
            Self::WebSocket => "WebSocket",
            Self::Bridge => "bridge",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.layer.name(), self.what)
    }
}

/// Scratch memory that the connections of a core share.
#[derive(Debug, Default)]
pub struct Scratch {
    /// MQTT received through the layers.
    pub plain: Vec<u8>,
    /// TLS records being decrypted, or plaintext being encrypted.
    records: Vec<u8>,
    /// Plaintext of TLS for WebSocket.
    between: Vec<u8>,
    /// WebSocket frames being made, one per packet.
    #[cfg(feature = "websocket")]
    framed: SendBuffer,
}

impl Scratch {
    /// Clears the memory, and frees what grew very large.
    pub fn clear(&mut self) {
        for bytes in [&mut self.plain, &mut self.records, &mut self.between] {
            bytes.clear();
            if bytes.capacity() > SCRATCH_BYTES_KEPT {
                *bytes = Vec::new();
            }
        }
    }
}

impl Scratch {
    /// Puts each packet into a frame of its own. Returns false, without change, if there is at most one packet.
    #[cfg(feature = "websocket")]
    fn frame_each(&mut self, mqtt: &mut SendBuffer) -> bool {
        if frames::is_one_packet(mqtt) {
            return false;
        }
        let mut framed = std::mem::take(&mut self.framed);
        frames::frame_each(mqtt, &mut framed);
        std::mem::swap(mqtt, &mut framed);
        framed.clear();
        if framed.capacity() <= SCRATCH_BYTES_KEPT {
            self.framed = framed;
        }
        true
    }

    #[cfg(not(feature = "websocket"))]
    fn frame_each(&mut self, _mqtt: &mut SendBuffer) -> bool {
        false
    }
}

/// Bytes that a core keeps of each kind of scratch memory: twice the input of one read.
const SCRATCH_BYTES_KEPT: usize = 128 * 1024;

/// Results of received bytes, other than MQTT.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Address of the client, from a proxy.
    pub address: Option<SocketAddr>,
    /// Identity from the client certificate that a proxy verified, if configured.
    pub proxied: Option<Box<CertificateIdentity>>,
    /// A TLS handshake has completed.
    pub handshake: Option<Handshake>,
    /// Remaining validity of the client certificate, if there is one.
    pub certificate_valid_for: Option<Duration>,
    /// The client has closed its side.
    pub is_ended: bool,
    /// Number of WebSocket frames.
    pub frames: usize,
}

/// A completed TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// A full handshake, with certificates.
    Full,
    /// A resumption, by a session ticket.
    Resumed,
}

/// Whether a connection can move to kernel TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// The keys can be installed now.
    Ready,
    /// Not at present; check again later.
    Later,
    /// Checked too often: TLS stays in the broker.
    Never,
}

/// The layers of one connection.
#[derive(Debug)]
pub struct Transport {
    /// Present until the PROXY header is complete.
    proxy: Option<proxy::Header>,
    tls: Option<Box<Tls>>,
    websocket: Option<Box<WebSocket>>,
    /// The far end is a broker, of which a bridge is the client.
    bridge: Option<Box<FarEnd>>,
    /// Bytes from the socket that are not processed yet.
    waiting: VecDeque<u8>,
    /// Bytes of TLS for the socket, sent before all others.
    said: Vec<u8>,
}

impl Transport {
    /// Processes bytes from the socket. Appends MQTT to `scratch.plain`, even if a failure follows it. May
    /// leave an answer to send: [`Self::has_something_to_say`].
    pub fn receive(&mut self, bytes: &[u8], scratch: &mut Scratch) -> Result<Received, Fault> {
        let mut received = Received::default();
        let mut bytes = bytes;
        if let Some(header) = &mut self.proxy {
            let fault = |what: &str| Fault { layer: Layer::Proxy, what: what.to_owned() };
            let Some((used, said)) = header.take(bytes).map_err(fault)? else {
                return Ok(received);
            };
            (received.address, received.proxied) = (said.address, said.certificate);
            self.proxy = None;
            bytes = &bytes[used..];
        }
        let Scratch { plain, records, between, .. } = scratch;
        if let Some(bridge) = &mut self.bridge {
            return bridge.receive(bytes, records, between, plain);
        }
        match (&mut self.tls, &mut self.websocket) {
            (None, None) => plain.extend_from_slice(bytes),
            (None, Some(websocket)) => websocket.receive(bytes, plain, &mut received)?,
            (Some(tls), None) => {
                tls.receive(bytes, records, plain, &mut self.said, &mut received)?;
            }
            (Some(tls), Some(websocket)) => {
                let outcome = tls.receive(bytes, records, between, &mut self.said, &mut received);
                // Input before a failure is processed first.
                let heard = websocket.receive(between, plain, &mut received);
                between.clear();
                outcome.and(heard)?;
            }
        }
        Ok(received)
    }

    /// A connection to the far broker of a bridge.
    pub fn to_far_broker(far_end: FarEnd) -> Self {
        Self {
            proxy: None,
            tls: None,
            websocket: None,
            bridge: Some(Box::new(far_end)),
            waiting: VecDeque::new(),
            said: Vec::new(),
        }
    }

    /// The way to the far broker, if it is the connection of a bridge.
    pub fn bridge(&self) -> Option<&FarEnd> {
        self.bridge.as_deref()
    }

    /// The same, to change it.
    pub fn bridge_mut(&mut self) -> Option<&mut FarEnd> {
        self.bridge.as_deref_mut()
    }

    /// Whether the PROXY header or HTTP request that has the client's address is still missing.
    pub fn awaits_address(&self) -> bool {
        self.proxy.is_some() || self.websocket.as_ref().is_some_and(|of| of.awaits_address())
    }

    /// Whether processing the next bytes is expensive, because a TLS handshake is in progress.
    pub fn is_laborious(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether the first half of the handshake is done, and the client has not sent part of the second half.
    pub fn is_half_through(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_answered())
    }

    /// Keeps bytes from the socket for later; returns the number of bytes kept.
    pub fn keep_waiting(&mut self, bytes: &[u8]) -> usize {
        self.waiting.extend(bytes);
        self.waiting.len()
    }

    /// Takes the bytes that were kept.
    pub fn take_waiting(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.waiting).into()
    }

    /// Takes the first of the bytes that were kept, at most so many.
    pub fn take_waiting_part(&mut self, bytes_max: usize) -> Vec<u8> {
        if self.waiting.len() <= bytes_max {
            return self.take_waiting();
        }
        self.waiting.drain(..bytes_max).collect()
    }

    /// Number of bytes kept for later.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len()
    }

    /// Whether bytes are kept for later, or a bridge has input of its own.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
            || self.bridge.as_ref().is_some_and(|far_end| far_end.link().has_input())
    }

    /// Memory of bytes from the socket: those not processed yet, and incomplete headers, records and frames.
    pub fn bytes_held(&self) -> usize {
        let header = self.proxy.as_ref().map_or(0, proxy::Header::bytes_held);
        let records = self.tls.as_ref().map_or(0, |tls| tls.bytes_held());
        let frames = self.websocket.as_ref().map_or(0, |websocket| websocket.bytes_held());
        let far_end = self.bridge.as_ref().map_or(0, |far_end| far_end.bytes_held());
        self.waiting.capacity() + header + records + frames + far_end
    }

    /// Approximate memory of the state.
    pub fn state_bytes(&self) -> usize {
        let tls = self.tls.as_ref().map_or(0, |_| limits::TLS_BYTES);
        let websocket = self.websocket.as_ref().map_or(0, |_| limits::WEBSOCKET_BYTES);
        tls + websocket + self.bridge.as_ref().map_or(0, |far_end| far_end.state_bytes())
    }

    /// Whether no layer is left.
    pub fn is_spent(&self) -> bool {
        self.proxy.is_none()
            && self.tls.is_none()
            && self.websocket.is_none()
            && self.bridge.is_none()
    }

    /// Whether a layer has bytes to send.
    pub fn has_something_to_say(&self) -> bool {
        !self.said.is_empty()
            || self.websocket.as_ref().is_some_and(|websocket| websocket.has_something_to_say())
            || self.bridge.as_ref().is_some_and(|far_end| far_end.has_something_to_say())
    }

    /// Wraps MQTT in the layers, together with the bytes that the layers have to send. `spare` is an empty
    /// buffer; the buffer that is not used is returned second.
    pub fn wrap(
        &mut self,
        mut mqtt: SendBuffer,
        mut spare: SendBuffer,
        scratch: &mut Scratch,
    ) -> (SendBuffer, SendBuffer) {
        if let Some(bridge) = &mut self.bridge {
            return bridge.wrap(mqtt, spare, &mut scratch.records);
        }
        let mut head = std::mem::take(&mut scratch.between);
        if let Some(websocket) = &mut self.websocket {
            match websocket.has_frame_per_packet() && scratch.frame_each(&mut mqtt) {
                true => websocket.write_heads(0, &mut head),
                false => websocket.write_heads(mqtt.len(), &mut head),
            }
        }
        let (wrapped, rest) = match &mut self.tls {
            None => {
                debug_assert!(self.said.is_empty(), "only TLS has bytes of its own");
                mqtt.prepend(&head);
                (mqtt, spare)
            }
            Some(tls) => {
                spare.append(|out| {
                    out.append(&mut self.said);
                    tls.seal(&head, &mut mqtt, &mut scratch.records, out);
                });
                // Most connections have no more bytes of TLS after the handshake.
                self.said = Vec::new();
                (spare, mqtt)
            }
        };
        head.clear();
        scratch.between = head;
        scratch.records.clear();
        (wrapped, rest)
    }

    /// The last bytes for the socket: `mqtt`, then the close messages of the layers; none if there is nothing to
    /// send.
    pub fn close(&mut self, mqtt: Option<SendBuffer>, scratch: &mut Scratch) -> Option<SendBuffer> {
        let mqtt = mqtt.unwrap_or_default();
        let (mut last, mut rest) = self.wrap(mqtt, SendBuffer::default(), scratch);
        rest.clear();
        if let Some(bridge) = &mut self.bridge {
            bridge.close(&mut last);
            return (!last.is_empty()).then_some(last);
        }
        if let Some(websocket) = &mut self.websocket {
            rest.append(|out| websocket.write_close(out));
        }
        match &mut self.tls {
            Some(tls) => last.append(|out| {
                tls.seal(&[], &mut rest, &mut scratch.records, out);
                tls.close(out);
            }),
            None => last.append(|out| rest.take(usize::MAX, out)),
        }
        scratch.records.clear();
        (!last.is_empty()).then_some(last)
    }

    /// Whether nothing can be sent any more.
    pub fn is_broken(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_over())
            || self.bridge.as_ref().is_some_and(|far_end| far_end.is_broken())
    }

    /// Whether the kernel supports the cipher of the connection; none if kernel TLS is not configured.
    pub fn fits_kernel(&self) -> Option<bool> {
        self.tls.as_ref().and_then(|tls| tls.fits_kernel())
    }

    /// Checks whether the connection can move to kernel TLS now. If it can, nothing is encrypted until
    /// [`Self::take_keys`] or [`Self::stay`] is called.
    pub fn check_kernel(&mut self, is_busy: bool) -> Offload {
        let is_busy = is_busy || !self.said.is_empty() || !self.waiting.is_empty();
        self.tls.as_mut().map_or(Offload::Never, |tls| tls.check_kernel(is_busy))
    }

    /// Whether nothing may be encrypted, because the connection is about to move to kernel TLS.
    pub fn is_offloading(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_offloading())
    }

    /// Takes the keys for kernel TLS, and the identity from the client certificate; TLS in the broker ends. None
    /// if an incomplete record has arrived meanwhile: TLS stays in the broker.
    pub fn take_keys(&mut self) -> Option<(Keys, Option<Box<CertificateIdentity>>)> {
        let keys = self.tls.take()?.take_keys(&mut self.said);
        keys.map_err(|tls| self.tls = Some(tls)).ok()
    }

    /// Keeps TLS in the broker.
    pub fn stay(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.stay();
        }
    }

    /// Identity from the client certificate, if there is one.
    pub fn certificate(&self) -> Option<&CertificateIdentity> {
        self.tls.as_ref()?.certificate()
    }

    /// The identity, for the engine to complete.
    pub fn certificate_mut(&mut self) -> Option<&mut CertificateIdentity> {
        self.tls.as_mut()?.certificate_mut()
    }
}
