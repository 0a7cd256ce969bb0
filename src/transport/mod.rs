//! What lies between a socket and MQTT: a PROXY header, TLS, WebSocket, each where the listener has it.
//!
//! ```text
//! socket ─► PROXY header ─► TLS ─► WebSocket ─► MQTT     receive
//! socket ◄───────────────── TLS ◄─ WebSocket ◄─ MQTT     wrap, close
//! ```
//!
//! Sans-IO like the engine, whose business it is: bytes in, bytes out. Executors know nothing of it,
//! and a plain connection has none of it. The state goes with a connection that moves to another core.
//! TLS draws randomness and, for tickets and expiry, reads the time of day inside its library: what it
//! makes is secret, and nobody wants it replayed.

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

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub use self::ciphers::{Cipher, Ciphers};
use self::tls::{Keys, Tls};
use self::websocket::WebSocket;
use crate::base::identity::CertificateIdentity;
use crate::base::limits;
use crate::base::send_buffer::SendBuffer;
pub use crate::transport::listener::{ListenerPolicies, ListenerPolicy};

/// Why a connection ends before MQTT, or beneath it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The layer that found it.
    pub layer: Layer,
    /// What was wrong.
    pub what: String,
}

/// A layer between socket and MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The PROXY header.
    Proxy,
    /// TLS.
    Tls,
    /// The certificate that a client shows in it, or fails to.
    ClientCertificate,
    /// WebSocket, and the request it begins with.
    WebSocket,
}

impl Layer {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "PROXY",
            Self::Tls => "TLS",
            Self::ClientCertificate => "client certificate",
            Self::WebSocket => "WebSocket",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.layer.name(), self.what)
    }
}

/// Memory that the connections of a core take turns to use.
#[derive(Debug, Default)]
pub struct Scratch {
    /// MQTT as it came out of the transport.
    pub plain: Vec<u8>,
    /// TLS records that are being read, or bytes that are being sealed into some.
    records: Vec<u8>,
    /// What TLS has brought for WebSocket.
    between: Vec<u8>,
    /// MQTT that becomes frames, one each packet.
    #[cfg(feature = "websocket")]
    framed: SendBuffer,
}

impl Scratch {
    /// Forgets what was in it; what grew very large is given back.
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
    /// Puts each packet in a frame of its own; not where there is one at most, whose frame is to begin.
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

/// Bytes that a core keeps of each kind of scratch memory: twice what a socket brings at a time.
const SCRATCH_BYTES_KEPT: usize = 128 * 1024;

/// What came of bytes from the socket, besides MQTT.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Where the client is, as a proxy says.
    pub address: Option<SocketAddr>,
    /// Whom the certificate names that the client has shown to a proxy, where that is asked for.
    pub proxied: Option<Box<CertificateIdentity>>,
    /// A TLS handshake is through.
    pub handshake: Option<Handshake>,
    /// For how long the client's certificate is valid from now on, where it has shown one in it.
    pub certificate_valid_for: Option<Duration>,
    /// The client has said that nothing more comes.
    pub is_ended: bool,
}

/// A TLS handshake that is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// With certificates.
    Full,
    /// By a ticket of an earlier one.
    Resumed,
}

/// Whether the kernel can go on with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    /// It can be given the keys now.
    Ready,
    /// Not at this moment.
    Later,
    /// It was looked at too often: TLS stays here.
    Never,
}

/// What one connection has between socket and MQTT.
#[derive(Debug)]
pub struct Transport {
    /// Until the PROXY header is there.
    proxy: Option<proxy::Header>,
    tls: Option<Box<Tls>>,
    websocket: Option<Box<WebSocket>>,
    /// Bytes from the socket that wait for their turn to be worked on.
    waiting: Vec<u8>,
    /// Bytes for the socket that go before all others.
    said: Vec<u8>,
}

impl Transport {
    /// Takes what came from the socket. MQTT is added to `scratch.plain`, also where what follows it
    /// is of no use. Afterwards there may be something to say: [`Self::has_something_to_say`].
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
        match (&mut self.tls, &mut self.websocket) {
            (None, None) => plain.extend_from_slice(bytes),
            (None, Some(websocket)) => websocket.receive(bytes, plain, &mut received)?,
            (Some(tls), None) => {
                tls.receive(bytes, records, plain, &mut self.said, &mut received)?;
            }
            (Some(tls), Some(websocket)) => {
                let outcome = tls.receive(bytes, records, between, &mut self.said, &mut received);
                // What came before something bad is heard first.
                let heard = websocket.receive(between, plain, &mut received);
                between.clear();
                outcome.and(heard)?;
            }
        }
        Ok(received)
    }

    /// Whether the PROXY header, or the request, that says where the client is has not come yet.
    pub fn awaits_address(&self) -> bool {
        self.proxy.is_some() || self.websocket.as_ref().is_some_and(|of| of.awaits_address())
    }

    /// Whether what comes next from the socket takes work that other clients should not have to wait
    /// for: a TLS handshake is going on.
    pub fn is_laborious(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether the first half of that work is done, and the client has not tried the second in vain.
    pub fn is_half_through(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_answered())
    }

    /// Keeps bytes from the socket for later; returns how many wait by now.
    pub fn keep_waiting(&mut self, bytes: &[u8]) -> usize {
        self.waiting.extend_from_slice(bytes);
        self.waiting.len()
    }

    /// The bytes that were kept.
    pub fn take_waiting(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether bytes are kept for later.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The memory for bytes from the socket that it keeps: those that wait, and what is not whole yet.
    pub fn bytes_held(&self) -> usize {
        let header = self.proxy.as_ref().map_or(0, proxy::Header::bytes_held);
        let records = self.tls.as_ref().map_or(0, |tls| tls.bytes_held());
        let frames = self.websocket.as_ref().map_or(0, |websocket| websocket.bytes_held());
        self.waiting.capacity() + header + records + frames
    }

    /// The memory of its state, roughly.
    pub fn state_bytes(&self) -> usize {
        let tls = self.tls.as_ref().map_or(0, |_| limits::TLS_BYTES);
        tls + self.websocket.as_ref().map_or(0, |_| limits::WEBSOCKET_BYTES)
    }

    /// Whether it does nothing to bytes any more.
    pub fn is_spent(&self) -> bool {
        self.proxy.is_none() && self.tls.is_none() && self.websocket.is_none()
    }

    /// Whether something is to go to the socket that is no MQTT.
    pub fn has_something_to_say(&self) -> bool {
        !self.said.is_empty()
            || self.websocket.as_ref().is_some_and(|websocket| websocket.has_something_to_say())
    }

    /// Turns MQTT into what goes to the socket, together with what is to be said besides. `spare` is
    /// an empty buffer; the one that is not needed afterwards is returned second.
    pub fn wrap(
        &mut self,
        mut mqtt: SendBuffer,
        mut spare: SendBuffer,
        scratch: &mut Scratch,
    ) -> (SendBuffer, SendBuffer) {
        let mut head = std::mem::take(&mut scratch.between);
        if let Some(websocket) = &mut self.websocket {
            match websocket.has_frame_per_packet() && scratch.frame_each(&mut mqtt) {
                true => websocket.write_heads(0, &mut head),
                false => websocket.write_heads(mqtt.len(), &mut head),
            }
        }
        let (wrapped, rest) = match &mut self.tls {
            None => {
                debug_assert!(self.said.is_empty(), "it is TLS that says something");
                mqtt.prepend(&head);
                (mqtt, spare)
            }
            Some(tls) => {
                spare.append(|out| {
                    out.append(&mut self.said);
                    tls.seal(&head, &mut mqtt, &mut scratch.records, out);
                });
                // Most have said what they ever will.
                self.said = Vec::new();
                (spare, mqtt)
            }
        };
        head.clear();
        scratch.between = head;
        scratch.records.clear();
        (wrapped, rest)
    }

    /// The last bytes for the socket: `mqtt`, and that nothing follows it; none when there is nobody
    /// to say it to.
    pub fn close(&mut self, mqtt: Option<SendBuffer>, scratch: &mut Scratch) -> Option<SendBuffer> {
        let mqtt = mqtt.unwrap_or_default();
        let (mut last, mut rest) = self.wrap(mqtt, SendBuffer::default(), scratch);
        rest.clear();
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

    /// Whether it cannot say anything any more.
    pub fn is_broken(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_over())
    }

    /// Whether the kernel is wanted to go on with its TLS, and has the cipher for it. None where it is
    /// not wanted to.
    pub fn fits_kernel(&self) -> Option<bool> {
        self.tls.as_ref().and_then(|tls| tls.fits_kernel())
    }

    /// Looks whether the kernel can be given its keys. If it is ready nothing is sealed any more, until
    /// [`Self::take_keys`] or [`Self::stay`] is called.
    pub fn look_at_kernel(&mut self, is_busy: bool) -> Settling {
        let is_busy = is_busy || !self.said.is_empty() || !self.waiting.is_empty();
        self.tls.as_mut().map_or(Settling::Never, |tls| tls.look_at_kernel(is_busy))
    }

    /// Whether nothing may be sealed: the kernel is about to go on with it.
    pub fn is_settling(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_settling())
    }

    /// The keys, for a kernel that goes on with TLS, and whom the certificate named; TLS here is over
    /// then. None where what came meanwhile is not a whole record: it goes on here.
    pub fn take_keys(&mut self) -> Option<(Keys, Option<Box<CertificateIdentity>>)> {
        let keys = self.tls.take()?.take_keys(&mut self.said);
        keys.map_err(|tls| self.tls = Some(tls)).ok()
    }

    /// TLS stays here.
    pub fn stay(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.stay();
        }
    }

    /// Whom the client's certificate names, if it has shown one.
    pub fn certificate(&self) -> Option<&CertificateIdentity> {
        self.tls.as_ref()?.certificate()
    }

    /// The same, to note in it what the engine knows.
    pub fn certificate_mut(&mut self) -> Option<&mut CertificateIdentity> {
        self.tls.as_mut()?.certificate_mut()
    }
}
