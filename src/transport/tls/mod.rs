//! TLS of one connection, with the unbuffered API of rustls: records in, MQTT out, and back.
//!
//! An idle connection holds keys and state, and no buffer: records are decrypted in scratch memory of the core,
//! and only an incomplete record is kept.

mod certificates;
#[cfg(feature = "bridge")]
mod client;
#[cfg(test)]
mod files_tests;
mod judge;
mod keys;
mod records;
mod server_config;
#[cfg(feature = "bridge")]
mod server_judge;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{HandshakeKind, ServerConfig};

use self::certificates::identity_of;
#[cfg(feature = "bridge")]
pub use self::client::{ClientTls, ClientTlsConfig};
use self::keys::cipher_of;
pub use self::keys::{Key, Keys};
use self::records::Records;
use super::{Ciphers, Fault, Handshake, Layer, Offload, Received};
use crate::base::identity::CertificateIdentity;
use crate::base::limits::KERNEL_TLS_LOOKS_MAX;
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::base::send_buffer::SendBuffer;
use crate::config::listener::{self, IdentityFrom};
pub use crate::transport::tls::server_config::{Loaded, TlsConfig};

/// The Common Name of a certificate.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<Box<str>> {
    identity_of(certificate, IdentityFrom::Cn)?.0.common_name
}

/// Most plaintext bytes in a record (RFC 8446, 5.1).
const FRAGMENT_BYTES_MAX: usize = 16 * 1024;
/// Type, version and length of a record.
const RECORD_HEADER_BYTES: usize = 5;
/// Most bytes that encryption adds to a record: header, nonce, content type, tag; and a key update before it.
const RECORD_EXTRA_BYTES: usize = 128;
/// Longest record (RFC 5246, 6.2.3): at most one incomplete record is kept.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + FRAGMENT_BYTES_MAX + 2_048;
/// Longest handshake message in several records; rustls refuses longer ones.
const HANDSHAKE_BYTES_MAX: usize = 0xFFFF + RECORD_BYTES_MAX;

/// TLS of one connection: the server's end, or the client's.
pub struct Tls<C = UnbufferedServerConnection> {
    connection: C,
    /// An incomplete record.
    incoming: Vec<u8>,
    phase: Phase,
    /// What of the peer's certificate is its identity; none: nothing.
    identity_from: Option<IdentityFrom>,
    identity: Option<Box<CertificateIdentity>>,
    /// Ciphers that kernel TLS supports; empty if it is not used.
    ciphers: Ciphers,
    /// Most plaintext bytes in a record that is sent.
    fragment_bytes_max: u16,
    /// Number of checks whether the connection can move to kernel TLS.
    looks: u16,
    /// The connection is about to move to kernel TLS: nothing is encrypted.
    is_offloading: bool,
}

impl<C> fmt::Debug for Tls<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("phase", &self.phase).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Handshake, before the first answer to the client.
    Hello,
    /// Handshake, after the first answer.
    Answered,
    /// Handshake, after an incomplete second message of the client.
    Lagging,
    /// Both sides may send.
    Open,
    /// TLS failed, or this side has closed it.
    Over,
}

impl Tls {
    fn new(
        config: Arc<ServerConfig>,
        settings: &listener::Tls,
        ciphers: Ciphers,
    ) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            phase: Phase::Hello,
            identity_from: Some(settings.identity),
            identity: None,
            ciphers,
            fragment_bytes_max: settings.record_bytes_max,
            looks: 0,
            is_offloading: false,
        })
    }

    /// See [`Transport::fits_kernel`](super::Transport::fits_kernel).
    pub(super) fn fits_kernel(&self) -> Option<bool> {
        if self.ciphers.is_empty() {
            return None;
        }
        let cipher = self.connection.common().negotiated_cipher_suite().and_then(cipher_of);
        Some(cipher.is_some_and(|cipher| self.ciphers.has(cipher)))
    }

    pub(super) fn check_kernel(&mut self, is_busy: bool) -> Offload {
        self.looks += 1;
        if self.phase != Phase::Open || self.looks > KERNEL_TLS_LOOKS_MAX {
            return Offload::Never;
        }
        if is_busy || !self.incoming.is_empty() {
            return Offload::Later;
        }
        self.is_offloading = true;
        Offload::Ready
    }

    pub(super) fn is_offloading(&self) -> bool {
        self.is_offloading
    }

    pub(super) fn stay(&mut self) {
        self.is_offloading = false;
    }

    /// Extracts the keys, if all received records are complete and no answer is pending; a pending answer is
    /// appended to `said`.
    pub(super) fn take_keys(
        mut self: Box<Self>,
        said: &mut Vec<u8>,
    ) -> Result<(Keys, Option<Box<CertificateIdentity>>), Box<Self>> {
        let was_offloading = std::mem::take(&mut self.is_offloading);
        let is_whole = self.phase == Phase::Open && self.incoming.is_empty();
        if !was_offloading || !is_whole || self.answers_key_update(said) {
            return Err(self);
        }
        let Self { connection, identity, .. } = *self;
        let keys = Keys::of(connection).expect("its handshake is over and it has nothing to say");
        Ok((keys, identity))
    }

    /// Whether a key update has to be answered; appends the answer to `said`. rustls has already updated the keys
    /// when the client asked for it, but produces the answer only before the next record that is encrypted.
    fn answers_key_update(&mut self, said: &mut Vec<u8>) -> bool {
        if let UnbufferedStatus { state: Ok(ConnectionState::WriteTraffic(mut traffic)), .. } =
            self.connection.process(&mut [])
        {
            // Fails for lack of room, but produces the answer.
            let no_room = traffic.encrypt(&[0], &mut []);
            debug_assert!(no_room.is_err());
        }
        if !self.connection.common().wants_write() {
            return false;
        }
        let (mut nothing, mut received) = (Vec::new(), Received::default());
        let said = self.process(&mut [], &mut nothing, said, &mut received);
        debug_assert!(said.is_ok() && nothing.is_empty(), "nothing has come");
        true
    }
}

impl<C: Records> Tls<C> {
    /// Processes received bytes: appends plaintext to `plain`, and answers to `said`.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        records: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        said: &mut Vec<u8>,
        received: &mut Received,
    ) -> Result<(), Fault> {
        if self.phase == Phase::Over {
            return Ok(());
        }
        if self.phase == Phase::Answered {
            self.phase = Phase::Lagging;
        }
        let mut own = std::mem::take(&mut self.incoming);
        records.clear();
        let has_own = !own.is_empty();
        let buffer = if has_own { &mut own } else { &mut *records };
        buffer.extend_from_slice(bytes);
        let outcome = self.process(buffer, plain, said, received);
        let used = match &outcome {
            Ok(used) => *used,
            Err(_) => buffer.len(),
        };
        let rest = buffer.get(used..).unwrap_or_default();
        self.incoming = match used == 0 && has_own {
            // Kept in place, so that a record that arrives byte by byte is not copied for each byte.
            true => own,
            false => rest.to_vec(),
        };
        outcome?;
        if self.phase == Phase::Hello && !said.is_empty() {
            self.phase = Phase::Answered;
        }
        let most = match self.phase {
            // A ClientHello fits into a record; a certificate chain may not.
            Phase::Hello | Phase::Open | Phase::Over => RECORD_BYTES_MAX,
            Phase::Answered | Phase::Lagging => HANDSHAKE_BYTES_MAX,
        };
        match self.incoming.len() > most {
            true => Err(fault("a record or message above the maximum length")),
            false => Ok(()),
        }
    }

    /// Processes the records in `buffer`; returns their number of bytes.
    fn process(
        &mut self,
        buffer: &mut [u8],
        plain: &mut Vec<u8>,
        said: &mut Vec<u8>,
        received: &mut Received,
    ) -> Result<usize, Fault> {
        let (mut used, plain_before) = (0, plain.len());
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                self.connection.process(&mut buffer[used..]);
            let is_blocked = match state {
                Err(error) => {
                    self.phase = Phase::Over;
                    self.collect_alert(&mut buffer[used + discard..], said);
                    return Err(C::fault(&error));
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|error| fault(error.to_string()))?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(|out| data.encode(out), said);
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    received.is_ended = true;
                    false
                }
                Ok(ConnectionState::Closed) => true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => true,
                // Early data is not accepted, because it could be replayed.
                Ok(_) => return Err(fault("data before the end of the handshake")),
            };
            used += discard;
            if let Err(fault) = self.check_end_of_handshake(received) {
                // Data received together with the refused handshake is discarded.
                plain.truncate(plain_before);
                return Err(fault);
            }
            if is_blocked {
                return Ok(used);
            }
        }
    }

    /// Checks whether the handshake has completed. Refuses an expired client certificate: a ticket represents the
    /// certificate of the full handshake, whose expiry the library does not check at a resumption.
    fn check_end_of_handshake(&mut self, received: &mut Received) -> Result<(), Fault> {
        if !self.is_handshaking() || self.connection.common().is_handshaking() {
            return Ok(());
        }
        self.phase = Phase::Open;
        received.handshake = Some(match self.connection.common().handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            _ => Handshake::Full,
        });
        let certificate =
            self.connection.common().peer_certificates().and_then(|chain| chain.first());
        let (Some(certificate), Some(identity_from)) = (certificate, self.identity_from) else {
            return Ok(());
        };
        let refused = |what: &str| Fault { layer: Layer::ClientCertificate, what: what.to_owned() };
        let (identity, valid_for) = identity_of(certificate, identity_from)
            .ok_or_else(|| refused("its names and expiry cannot be read"))?;
        if valid_for.is_zero() {
            return Err(refused("it has expired since the full handshake"));
        }
        received.certificate_valid_for = Some(valid_for);
        self.identity = Some(Box::new(identity));
        Ok(())
    }

    /// Collects the alert after a failure. `rest` is the unprocessed input, which rustls may refer to.
    fn collect_alert(&mut self, rest: &mut [u8], said: &mut Vec<u8>) {
        while self.connection.common().wants_write()
            && let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
                self.connection.process(rest)
        {
            encode(|out| data.encode(out), said);
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self.phase, Phase::Hello | Phase::Answered | Phase::Lagging)
    }

    pub(super) fn is_answered(&self) -> bool {
        self.phase == Phase::Answered
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Encrypts `head` and then all of `mqtt` into records, using the memory of `scratch`.
    pub(super) fn seal(
        &mut self,
        head: &[u8],
        mqtt: &mut SendBuffer,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        if self.phase != Phase::Open {
            debug_assert!(self.phase == Phase::Over || head.len() + mqtt.len() == 0);
            return mqtt.clear();
        }
        scratch.clear();
        scratch.extend_from_slice(head);
        while !(scratch.is_empty() && mqtt.is_empty()) {
            let fragment_bytes_max = usize::from(self.fragment_bytes_max);
            mqtt.take(fragment_bytes_max.saturating_sub(scratch.len()), scratch);
            self.seal_one(scratch, out);
            scratch.clear();
        }
    }

    fn seal_one(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let begin = out.len();
        let records = plain.len() / usize::from(self.fragment_bytes_max) + 1;
        out.resize(begin + plain.len() + records * RECORD_EXTRA_BYTES, 0);
        // The incomplete record is passed because rustls may refer to it.
        let UnbufferedStatus { state, .. } = self.connection.process(&mut self.incoming);
        let sealed = match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                traffic.encrypt(plain, &mut out[begin..])
            }
            // All other output has been collected when it was produced.
            _ => Err(EncryptError::EncryptExhausted),
        };
        match sealed {
            Ok(bytes) => out.truncate(begin + bytes),
            Err(error) => {
                rated!(warn, log_rate::now(), %error, "TLS encryption failed; the connection is closed");
                out.truncate(begin);
                self.phase = Phase::Over;
            }
        }
    }

    /// Appends a close_notify alert.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Over;
        if let UnbufferedStatus { state: Ok(ConnectionState::WriteTraffic(mut traffic)), .. } =
            self.connection.process(&mut self.incoming)
        {
            let begin = out.len();
            out.resize(begin + RECORD_EXTRA_BYTES, 0);
            let bytes = traffic.queue_close_notify(&mut out[begin..]).unwrap_or(0);
            out.truncate(begin + bytes);
        }
    }

    /// Memory of an incomplete record.
    pub(super) fn bytes_held(&self) -> usize {
        self.incoming.capacity()
    }

    pub(super) fn certificate(&self) -> Option<&CertificateIdentity> {
        self.identity.as_deref()
    }

    pub(super) fn certificate_mut(&mut self) -> Option<&mut CertificateIdentity> {
        self.identity.as_deref_mut()
    }
}

fn fault(what: impl Into<String>) -> Fault {
    Fault { layer: Layer::Tls, what: what.into() }
}

/// Appends the output of `encode` to `said`, with as much room as `encode` asks for.
fn encode(mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>, said: &mut Vec<u8>) {
    let begin = said.len();
    let mut room = 2_048;
    loop {
        said.resize(begin + room, 0);
        match encode(&mut said[begin..]) {
            Ok(bytes) => return said.truncate(begin + bytes),
            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
            Err(EncodeError::AlreadyEncoded) => return said.truncate(begin),
        }
    }
}
