//! Replacement of WebSocket to far brokers in a build without it: the type has no values.

use std::convert::Infallible;

use crate::base::send_buffer::SendBuffer;
use crate::transport::Fault;

/// WebSocket of one connection.
#[derive(Debug)]
pub struct ClientWebSocket(Infallible);

impl ClientWebSocket {
    /// Fails.
    pub fn begin(_host: &str, _path: &str) -> Result<Self, String> {
        Err("this build has no WebSocket; use mqtt:// or mqtts:// servers".to_owned())
    }

    pub fn is_open(&self) -> bool {
        match self.0 {}
    }

    pub fn is_broken(&self) -> bool {
        match self.0 {}
    }

    pub fn has_something_to_say(&self) -> bool {
        match self.0 {}
    }

    pub fn receive(
        &mut self,
        _bytes: &[u8],
        _frames_seen: &mut usize,
        _take: impl FnOnce(&[u8]) -> Result<(), Fault>,
    ) -> Result<Option<u16>, Fault> {
        match self.0 {}
    }

    pub fn wrap(&mut self, _mqtt: &mut SendBuffer, _scratch: &mut Vec<u8>) {
        match self.0 {}
    }

    pub fn write_close(&mut self, _out: &mut Vec<u8>) {
        match self.0 {}
    }

    pub fn bytes_held(&self) -> usize {
        match self.0 {}
    }
}
