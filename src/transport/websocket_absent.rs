//! Replacement of WebSocket in a build without it: the type has no values.

use std::convert::Infallible;
use std::sync::Arc;

use super::{Fault, Received};
use crate::config::listener::WebSocket as Rules;

/// WebSocket of one connection.
#[derive(Debug)]
pub struct WebSocket(Infallible);

impl WebSocket {
    pub(super) fn begin(_rules: Arc<Rules>, _is_forwarded: bool, _has_tls: bool) -> Self {
        unreachable!("the configuration refuses it")
    }

    pub(super) fn receive(
        &mut self,
        _bytes: &[u8],
        _plain: &mut Vec<u8>,
        _received: &mut Received,
    ) -> Result<(), Fault> {
        match self.0 {}
    }

    pub(super) fn bytes_held(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn awaits_address(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn has_frame_per_packet(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn has_something_to_say(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn write_heads(&mut self, _bytes: usize, _out: &mut Vec<u8>) {
        match self.0 {}
    }

    pub(super) fn write_close(&mut self, _out: &mut Vec<u8>) {
        match self.0 {}
    }
}
