//! The way to a far broker: TLS and WebSocket, if they are used, and the link.

use super::Link;
use super::websocket::ClientWebSocket;
use crate::base::limits;
use crate::base::send_buffer::SendBuffer;
use crate::transport::tls::ClientTls;
use crate::transport::{Fault, Received};

/// The layers between a socket to a far broker and the engine.
#[derive(Debug)]
pub struct FarEnd {
    tls: Option<Box<ClientTls>>,
    websocket: Option<Box<ClientWebSocket>>,
    link: Link,
    /// Bytes of TLS for the socket, sent before all others.
    said: Vec<u8>,
}

impl FarEnd {
    /// A connection without TLS.
    pub fn plain(link: Link) -> Self {
        Self { tls: None, websocket: None, link, said: Vec::new() }
    }

    /// A connection with TLS, whose first bytes are `said`.
    #[cfg(feature = "tls")]
    pub fn encrypted(link: Link, tls: ClientTls, said: Vec<u8>) -> Self {
        Self { tls: Some(Box::new(tls)), websocket: None, link, said }
    }

    /// The same connection with WebSocket. `host` and `path` are those of the request.
    pub fn over_websocket(self, host: &str, path: &str) -> Result<Self, String> {
        let websocket = Some(Box::new(ClientWebSocket::begin(host, path)?));
        Ok(Self { websocket, ..self })
    }

    /// The link.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The link, to change it.
    pub fn link_mut(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Processes bytes from the socket: appends packets for the engine to `plain`.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        records: &mut Vec<u8>,
        between: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Received, Fault> {
        let mut received = Received::default();
        let Some(tls) = &mut self.tls else {
            self.hear(bytes, plain, &mut received)?;
            return Ok(received);
        };
        let outcome = tls.receive(bytes, records, between, &mut self.said, &mut received);
        // Input before a failure is processed first.
        let heard = self.hear(between, plain, &mut received);
        between.clear();
        // Counted for listeners only.
        (received.handshake, received.certificate_valid_for) = (None, None);
        let outcome = outcome.inspect_err(|fault| self.link.fail_tls(fault.what.clone()));
        outcome.and(heard)?;
        Ok(received)
    }

    /// Processes bytes above TLS.
    fn hear(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        received: &mut Received,
    ) -> Result<(), Fault> {
        let Self { websocket: Some(websocket), link, .. } = self else {
            return self.link.receive(bytes, plain);
        };
        let frames = &mut received.frames;
        let outcome = websocket.receive(bytes, frames, |mqtt| link.receive(mqtt, plain));
        match outcome {
            Ok(Some(code)) => {
                link.end(format!("the far broker has closed the WebSocket with code {code}"));
                received.is_ended = true;
            }
            Ok(None) => {}
            Err(fault) => {
                link.end(fault.what.clone());
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Whether no MQTT can be sent yet, because a handshake is in progress.
    fn is_handshaking(&self) -> bool {
        self.has_tls_handshake() || self.websocket.as_ref().is_some_and(|of| !of.is_open())
    }

    fn has_tls_handshake(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether nothing can be sent any more.
    pub fn is_broken(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_over())
            || self.websocket.as_ref().is_some_and(|of| of.is_broken())
    }

    /// Whether a layer has bytes to send.
    pub fn has_something_to_say(&self) -> bool {
        let of_websocket = self.websocket.as_ref().is_some_and(|of| of.has_something_to_say());
        !self.said.is_empty()
            || !self.has_tls_handshake() && of_websocket
            || !self.is_handshaking() && self.link.has_something_to_say()
    }

    /// Turns packets of the engine into bytes for the socket. `spare` is an empty buffer; the buffer that is not used
    /// is returned second.
    pub fn wrap(
        &mut self,
        mut mqtt: SendBuffer,
        mut spare: SendBuffer,
        scratch: &mut Vec<u8>,
    ) -> (SendBuffer, SendBuffer) {
        match self.is_handshaking() {
            false => self.link.wrap(&mut mqtt, scratch),
            // Packets for a session that this broker has refused.
            true if self.websocket.is_some() => mqtt.clear(),
            true => {}
        }
        let is_next = !self.has_tls_handshake();
        if let Some(websocket) = self.websocket.as_mut().filter(|_| is_next) {
            websocket.wrap(&mut mqtt, scratch);
        }
        match &mut self.tls {
            None => (mqtt, spare),
            Some(tls) => {
                spare.append(|out| {
                    out.append(&mut self.said);
                    tls.seal(&[], &mut mqtt, scratch, out);
                });
                scratch.clear();
                (spare, mqtt)
            }
        }
    }

    /// Appends the close messages of the layers.
    pub fn close(&mut self, last: &mut SendBuffer) {
        let mut frame = SendBuffer::default();
        if let Some(websocket) = &mut self.websocket {
            frame.append(|out| websocket.write_close(out));
        }
        last.append(|out| match &mut self.tls {
            Some(tls) => {
                tls.seal(&[], &mut frame, &mut Vec::new(), out);
                tls.close(out);
            }
            None => frame.take(usize::MAX, out),
        });
    }

    /// Memory of incomplete records, frames and packets.
    pub fn bytes_held(&self) -> usize {
        let frames = self.websocket.as_ref().map_or(0, |of| of.bytes_held());
        frames + self.tls.as_ref().map_or(0, |tls| tls.bytes_held()) + self.link.bytes_held()
    }

    /// Approximate memory of the state.
    pub fn state_bytes(&self) -> usize {
        let websocket = self.websocket.as_ref().map_or(0, |_| size_of::<ClientWebSocket>());
        let tls = self.tls.as_ref().map_or(0, |_| limits::TLS_BYTES);
        size_of::<Self>() + websocket + tls + self.link.state_bytes()
    }
}
