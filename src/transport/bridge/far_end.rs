//! The way to a far broker: TLS, if there is some, and the link.

use super::Link;
use crate::base::limits;
use crate::base::send_buffer::SendBuffer;
use crate::transport::tls::ClientTls;
use crate::transport::{Fault, Received};

/// The layers between a socket to a far broker and the engine.
#[derive(Debug)]
pub struct FarEnd {
    tls: Option<Box<ClientTls>>,
    link: Link,
    /// Bytes of TLS for the socket, sent before all others.
    said: Vec<u8>,
}

impl FarEnd {
    /// A connection without TLS.
    pub fn plain(link: Link) -> Self {
        Self { tls: None, link, said: Vec::new() }
    }

    /// A connection with TLS, whose first bytes are `said`.
    #[cfg(feature = "tls")]
    pub fn encrypted(link: Link, tls: ClientTls, said: Vec<u8>) -> Self {
        Self { tls: Some(Box::new(tls)), link, said }
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
            self.link.receive(bytes, plain)?;
            return Ok(received);
        };
        let outcome = tls.receive(bytes, records, between, &mut self.said, &mut received);
        // Input before a failure is processed first.
        let heard = self.link.receive(between, plain);
        between.clear();
        // Counted for listeners only.
        (received.handshake, received.certificate_valid_for) = (None, None);
        let outcome = outcome.inspect_err(|fault| self.link.end(fault.what.clone()));
        outcome.and(heard)?;
        Ok(received)
    }

    /// Whether nothing can be sent yet, because a TLS handshake is in progress.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether nothing can be sent any more.
    pub fn is_broken(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_over())
    }

    /// Whether a layer has bytes to send.
    pub fn has_something_to_say(&self) -> bool {
        !self.said.is_empty() || !self.is_handshaking() && self.link.has_something_to_say()
    }

    /// Turns packets of the engine into bytes for the socket. `spare` is an empty buffer; the buffer that is not used
    /// is returned second.
    pub fn wrap(
        &mut self,
        mut mqtt: SendBuffer,
        mut spare: SendBuffer,
        scratch: &mut Vec<u8>,
    ) -> (SendBuffer, SendBuffer) {
        if !self.is_handshaking() {
            self.link.wrap(&mut mqtt, scratch);
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
        if let Some(tls) = &mut self.tls {
            last.append(|out| tls.close(out));
        }
    }

    /// Memory of incomplete records and packets.
    pub fn bytes_held(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.bytes_held()) + self.link.bytes_held()
    }

    /// Approximate memory of the state.
    pub fn state_bytes(&self) -> usize {
        size_of::<Self>() + self.tls.as_ref().map_or(0, |_| limits::TLS_BYTES)
    }
}
