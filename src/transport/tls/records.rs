//! What both ends of TLS have in common.

use std::ops::Deref;

#[cfg(feature = "bridge")]
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;
use rustls::{CommonState, Error, SideData};

use super::judge;
#[cfg(feature = "bridge")]
use super::server_judge;
use crate::transport::{Fault, Layer};

/// One end of TLS, without buffers.
pub trait Records: Send + 'static {
    /// State of this end, in the types of rustls.
    type Side: SideData;

    /// Processes records; see [`UnbufferedStatus`].
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side>;

    /// What both ends know.
    fn common(&self) -> &CommonState;

    /// The fault that an error of this end is.
    fn fault(error: &Error) -> Fault;
}

impl Records for UnbufferedServerConnection {
    type Side = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self.deref()
    }

    fn fault(error: &Error) -> Fault {
        match judge::is_about_certificate(error) {
            true => Fault { layer: Layer::ClientCertificate, what: judge::explain(error) },
            false => super::fault(error.to_string()),
        }
    }
}

#[cfg(feature = "bridge")]
impl Records for UnbufferedClientConnection {
    type Side = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self.deref()
    }

    fn fault(error: &Error) -> Fault {
        super::fault(server_judge::explain(error))
    }
}
