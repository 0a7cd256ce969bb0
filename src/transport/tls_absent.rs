//! Replacement of TLS in a build without it: the types have no values.

use std::convert::Infallible;

use super::{Fault, Offload, Received};
use crate::base::identity::CertificateIdentity;
use crate::base::send_buffer::SendBuffer;

/// TLS of one connection.
#[derive(Debug)]
pub struct Tls(Infallible);

impl Tls {
    pub(super) fn receive(
        &mut self,
        _bytes: &[u8],
        _records: &mut Vec<u8>,
        _plain: &mut Vec<u8>,
        _said: &mut Vec<u8>,
        _received: &mut Received,
    ) -> Result<(), Fault> {
        match self.0 {}
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn is_answered(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn is_over(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn seal(
        &mut self,
        _head: &[u8],
        _mqtt: &mut SendBuffer,
        _scratch: &mut Vec<u8>,
        _out: &mut Vec<u8>,
    ) {
        match self.0 {}
    }

    pub(super) fn close(&mut self, _out: &mut Vec<u8>) {
        match self.0 {}
    }

    pub(super) fn bytes_held(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn certificate(&self) -> Option<&CertificateIdentity> {
        match self.0 {}
    }

    pub(super) fn certificate_mut(&mut self) -> Option<&mut CertificateIdentity> {
        match self.0 {}
    }

    pub(super) fn fits_kernel(&self) -> Option<bool> {
        match self.0 {}
    }

    pub(super) fn check_kernel(&mut self, _is_busy: bool) -> Offload {
        match self.0 {}
    }

    pub(super) fn is_offloading(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn stay(&mut self) {
        match self.0 {}
    }

    #[expect(clippy::boxed_local, reason = "it goes back as it came")]
    pub(super) fn take_keys(
        self: Box<Self>,
        _said: &mut Vec<u8>,
    ) -> Result<(Keys, Option<Box<CertificateIdentity>>), Box<Self>> {
        match self.0 {}
    }
}

/// The client's end of TLS.
pub type ClientTls = Tls;

/// The keys of a connection for kernel TLS.
#[derive(Debug)]
pub struct Keys(Infallible);

/// TLS configuration of a listener.
#[derive(Debug)]
pub struct TlsConfig(Infallible);

impl TlsConfig {
    /// Starts TLS on a new connection.
    pub fn begin(&self) -> Option<Tls> {
        match self.0 {}
    }
}
