//! Reads MQTT packets from a socket with a timeout.

use std::io::{ErrorKind, Read, Result};
use std::net::TcpStream;

use ringmq::wire::{self, Frame};

use crate::uninterrupted::uninterrupted;

/// The next packet, if one arrives within the timeout of the socket. `bytes` has what was read and is not used yet.
pub fn next_packet(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    loop {
        if let Ok(Frame::Complete { total, .. }) = wire::frame(bytes, usize::MAX) {
            return Ok(Some(bytes.drain(..total).collect()));
        }
        let mut buffer = [0; 16 * 1024];
        match uninterrupted(|| stream.read(&mut buffer)) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}
