//! Replacement of bridges in a build without them: the type has no values.

use std::convert::Infallible;

use super::{Fault, Received};
use crate::base::send_buffer::SendBuffer;

/// How the Client Identifiers of the bridges' sessions begin. Other clients may not use them.
pub const SESSION_PREFIX: &str = "$bridge/";

/// The layers between a socket to a far broker and the engine.
#[derive(Debug)]
pub struct FarEnd(Infallible);

impl FarEnd {
    pub(super) fn receive(
        &mut self,
        _bytes: &[u8],
        _records: &mut Vec<u8>,
        _between: &mut Vec<u8>,
        _plain: &mut Vec<u8>,
    ) -> Result<Received, Fault> {
        match self.0 {}
    }

    pub(super) fn link(&self) -> &Self {
        match self.0 {}
    }

    pub(super) fn has_input(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn has_something_to_say(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn is_broken(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn wrap(
        &mut self,
        _mqtt: SendBuffer,
        _spare: SendBuffer,
        _scratch: &mut Vec<u8>,
    ) -> (SendBuffer, SendBuffer) {
        match self.0 {}
    }

    pub(super) fn close(&mut self, _last: &mut SendBuffer) {
        match self.0 {}
    }

    pub(super) fn bytes_held(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn state_bytes(&self) -> usize {
        match self.0 {}
    }
}
