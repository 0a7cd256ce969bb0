//! One connection of the generator: its socket, unsent data, and an incomplete packet. Independent
//! of the scenario.

use std::io;

pub use crate::transport::ReadOutcome;
use crate::transport::Stream;

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The socket is connecting.
    Connecting,
    /// CONNECT was sent.
    AwaitConnack,
    /// SUBSCRIBE was sent.
    AwaitSuback,
    /// The client is ready.
    Ready,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// The transport.
    pub stream: Stream,
    /// The state.
    pub phase: Phase,
    /// Encoded and unsent: `outgoing[written..]`.
    pub outgoing: Vec<u8>,
    written: usize,
    /// An incomplete packet, moved to the front of the read buffer before the next read.
    pub partial: Vec<u8>,
}

impl Client {
    /// A new connection.
    pub fn new(stream: Stream) -> Self {
        let phase = Phase::Connecting;
        Self { stream, phase, outgoing: Vec::new(), written: 0, partial: Vec::new() }
    }

    /// Number of unsent bytes.
    #[inline]
    pub fn outgoing_bytes(&self) -> usize {
        self.outgoing.len() - self.written + self.stream.unsent_bytes()
    }

    /// Writes unsent data, as much as the socket accepts.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.outgoing.len() {
            match self.stream.write(&self.outgoing[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // Data of the transport itself, or that the socket did not accept.
        if self.stream.unsent_bytes() > 0 {
            self.stream.flush()?;
        }
        if self.written == self.outgoing.len() {
            self.outgoing.clear();
            self.written = 0;
        } else if self.written > self.outgoing.len() / 2 {
            self.outgoing.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Reads into `buffer` after the incomplete packet, which is moved to its front.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<ReadOutcome> {
        let kept = self.partial.len();
        // A packet may exceed the initial size of the buffer; the codec limits packets.
        if buffer.len() < 2 * kept {
            buffer.resize(2 * kept, 0);
        }
        buffer[..kept].copy_from_slice(&self.partial);
        loop {
            match self.stream.read(&mut buffer[kept..]) {
                Ok(ReadOutcome::Closed) => return Ok(ReadOutcome::Closed),
                Ok(ReadOutcome::Last(count)) => return Ok(ReadOutcome::Last(kept + count)),
                Ok(ReadOutcome::More(count)) => return Ok(ReadOutcome::More(kept + count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(ReadOutcome::Last(kept));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
