//! TLS of one connection, by rustls without its I/O: records in, MQTT out, and back.
//!
//! An idle connection holds keys and state, and no buffer: records are read in memory of the core's,
//! and only one that is cut in half is kept.

mod certificates;
#[cfg(test)]
mod files_tests;
mod judge;
mod keys;
mod server_config;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{HandshakeKind, ServerConfig};

use self::certificates::identity_of;
use self::keys::cipher_of;
pub use self::keys::{Key, Keys};
use super::{Ciphers, Fault, Handshake, Layer, Received, Settling};
use crate::base::identity::CertificateIdentity;
use crate::base::limits::KERNEL_TLS_LOOKS_MAX;
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::base::send_buffer::SendBuffer;
use crate::config::listener::{self, IdentityFrom};
pub use crate::transport::tls::server_config::TlsConfig;

/// Plain bytes of a record at most (RFC 8446, 5.1).
const FRAGMENT_BYTES_MAX: usize = 16 * 1024;
/// Type, version and length of a record.
const RECORD_HEADER_BYTES: usize = 5;
/// What sealing adds to a record at most: header, nonce, content type, tag; and a key update before it.
const RECORD_EXTRA_BYTES: usize = 128;
/// Bytes of a record at most (RFC 5246, 6.2.3): no more than one, cut in half, is ever kept.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + FRAGMENT_BYTES_MAX + 2_048;
/// Bytes of a handshake message that comes in several records, at most; rustls takes no longer ones.
const HANDSHAKE_BYTES_MAX: usize = 0xFFFF + RECORD_BYTES_MAX;

/// TLS of one connection.
pub struct Tls {
    connection: UnbufferedServerConnection,
    /// Part of a record whose rest has not come.
    incoming: Vec<u8>,
    phase: Phase,
    identity_from: IdentityFrom,
    identity: Option<Box<CertificateIdentity>>,
    /// Those by which the kernel may go on with it; none when it stays here.
    ciphers: Ciphers,
    /// Plain bytes of a record that is sent, at most.
    fragment_bytes_max: u16,
    /// How often it was looked whether the kernel can.
    looks: u16,
    /// It is about to: nothing is sealed.
    is_settling: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("phase", &self.phase).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing but the handshake, of which the client has heard nothing yet.
    Hello,
    /// The same, and the client has been answered.
    Answered,
    /// What the client said to that was not all it has to say.
    Lagging,
    /// Both sides may send.
    Open,
    /// It failed, or we have said that nothing follows.
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
            identity_from: settings.identity,
            identity: None,
            ciphers,
            fragment_bytes_max: settings.record_bytes_max,
            looks: 0,
            is_settling: false,
        })
    }

    /// Takes what came: what it decrypts to is added to `plain`, what is to be answered to `said`.
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
            // As it is: so a record that comes byte by byte is not moved with each of them.
            true => own,
            false => rest.to_vec(),
        };
        outcome?;
        if self.phase == Phase::Hello && !said.is_empty() {
            self.phase = Phase::Answered;
        }
        let most = match self.phase {
            // No client's hello is longer than a record; a chain of certificates may be.
            Phase::Hello | Phase::Open | Phase::Over => RECORD_BYTES_MAX,
            Phase::Answered | Phase::Lagging => HANDSHAKE_BYTES_MAX,
        };
        match self.incoming.len() > most {
            true => Err(fault("a record or message longer than any may be")),
            false => Ok(()),
        }
    }

    /// Goes through the records in `buffer`; returns how many bytes they were.
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
                self.connection.process_tls_records(&mut buffer[used..]);
            let is_blocked = match state {
                Err(error) => {
                    self.phase = Phase::Over;
                    self.collect_alert(&mut buffer[used + discard..], said);
                    return Err(match judge::is_about_certificate(&error) {
                        true => {
                            Fault { layer: Layer::ClientCertificate, what: judge::explain(&error) }
                        }
                        false => fault(error.to_string()),
                    });
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
                // It is not agreed to: what could be replayed is no MQTT.
                Ok(_) => return Err(fault("data before the handshake")),
            };
            used += discard;
            if let Err(fault) = self.look_for_end_of_handshake(received) {
                // What came in the same breath is nobody's.
                plain.truncate(plain_before);
                return Err(fault);
            }
            if is_blocked {
                return Ok(used);
            }
        }
    }

    /// Notes that the handshake is through, if it is. A certificate that has expired is refused: a ticket
    /// stands for the one that was shown when it was given out, and the library does not look at its date.
    fn look_for_end_of_handshake(&mut self, received: &mut Received) -> Result<(), Fault> {
        if !self.is_handshaking() || self.connection.is_handshaking() {
            return Ok(());
        }
        self.phase = Phase::Open;
        received.handshake = Some(match self.connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            _ => Handshake::Full,
        });
        let certificate = self.connection.peer_certificates().and_then(|chain| chain.first());
        let Some(certificate) = certificate else { return Ok(()) };
        let refused = |what: &str| Fault { layer: Layer::ClientCertificate, what: what.to_owned() };
        let (identity, valid_for) = identity_of(certificate, self.identity_from)
            .ok_or_else(|| refused("its names and its date cannot be read"))?;
        if valid_for.is_zero() {
            return Err(refused("it has expired since the client was given its ticket"));
        }
        received.certificate_valid_for = Some(valid_for);
        self.identity = Some(Box::new(identity));
        Ok(())
    }

    /// After something bad: what tells the peer so. `rest` is what has not been looked at: rustls may
    /// remember places in it.
    fn collect_alert(&mut self, rest: &mut [u8], said: &mut Vec<u8>) {
        while self.connection.wants_write()
            && let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
                self.connection.process_tls_records(rest)
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

    /// Seals `head` and then all of `mqtt` into records. `scratch` is memory to use.
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
        // With what is kept: rustls remembers places in it while a message is cut in half.
        let UnbufferedStatus { state, .. } =
            self.connection.process_tls_records(&mut self.incoming);
        let sealed = match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                traffic.encrypt(plain, &mut out[begin..])
            }
            // Something was to be said first, and has been collected when it came about.
            _ => Err(EncryptError::EncryptExhausted),
        };
        match sealed {
            Ok(bytes) => out.truncate(begin + bytes),
            Err(error) => {
                rated!(warn, log_rate::now(), %error, "TLS cannot seal any more; the connection ends");
                out.truncate(begin);
                self.phase = Phase::Over;
            }
        }
    }

    /// Says that nothing follows.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Over;
        if let UnbufferedStatus { state: Ok(ConnectionState::WriteTraffic(mut traffic)), .. } =
            self.connection.process_tls_records(&mut self.incoming)
        {
            let begin = out.len();
            out.resize(begin + RECORD_EXTRA_BYTES, 0);
            let bytes = traffic.queue_close_notify(&mut out[begin..]).unwrap_or(0);
            out.truncate(begin + bytes);
        }
    }

    /// The memory for a record that is not whole.
    pub(super) fn bytes_held(&self) -> usize {
        self.incoming.capacity()
    }

    pub(super) fn certificate(&self) -> Option<&CertificateIdentity> {
        self.identity.as_deref()
    }

    pub(super) fn certificate_mut(&mut self) -> Option<&mut CertificateIdentity> {
        self.identity.as_deref_mut()
    }

    /// Whether the kernel is wanted, and has the cipher.
    pub(super) fn fits_kernel(&self) -> Option<bool> {
        if self.ciphers.is_empty() {
            return None;
        }
        let cipher = self.connection.negotiated_cipher_suite().and_then(cipher_of);
        Some(cipher.is_some_and(|cipher| self.ciphers.has(cipher)))
    }

    pub(super) fn look_at_kernel(&mut self, is_busy: bool) -> Settling {
        self.looks += 1;
        if self.phase != Phase::Open || self.looks > KERNEL_TLS_LOOKS_MAX {
            return Settling::Never;
        }
        if is_busy || !self.incoming.is_empty() {
            return Settling::Later;
        }
        self.is_settling = true;
        Settling::Ready
    }

    pub(super) fn is_settling(&self) -> bool {
        self.is_settling
    }

    pub(super) fn stay(&mut self) {
        self.is_settling = false;
    }

    /// Gives the keys away, if all that came was whole records and nothing is to be said first; what
    /// is goes to `said`.
    pub(super) fn take_keys(
        mut self: Box<Self>,
        said: &mut Vec<u8>,
    ) -> Result<(Keys, Option<Box<CertificateIdentity>>), Box<Self>> {
        let was_settling = std::mem::take(&mut self.is_settling);
        let is_whole = self.phase == Phase::Open && self.incoming.is_empty();
        if !was_settling || !is_whole || self.answers_key_update(said) {
            return Err(self);
        }
        let Self { connection, identity, .. } = *self;
        let keys = Keys::of(connection).expect("its handshake is over and it has nothing to say");
        Ok((keys, identity))
    }

    /// The client may have changed its keys and asked for ours to change: rustls has changed them, and
    /// says so only before the next record that is sealed. Whether that is yet to be said; it is added
    /// to `said`.
    fn answers_key_update(&mut self, said: &mut Vec<u8>) -> bool {
        if let UnbufferedStatus { state: Ok(ConnectionState::WriteTraffic(mut traffic)), .. } =
            self.connection.process_tls_records(&mut [])
        {
            // There is no room for the record, but what goes before it is made.
            let no_room = traffic.encrypt(&[0], &mut []);
            debug_assert!(no_room.is_err());
        }
        if !self.connection.wants_write() {
            return false;
        }
        let (mut nothing, mut received) = (Vec::new(), Received::default());
        let said = self.process(&mut [], &mut nothing, said, &mut received);
        debug_assert!(said.is_ok() && nothing.is_empty(), "nothing has come");
        true
    }
}

fn fault(what: impl Into<String>) -> Fault {
    Fault { layer: Layer::Tls, what: what.into() }
}

/// Adds to `said` what `encode` writes, which says how much room it needs.
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
