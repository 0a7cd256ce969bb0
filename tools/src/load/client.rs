//! One connection of the generator: its socket, what is waiting to be written, and the beginning
//! of a packet whose end has not come. Knows no scenario.

use std::io;

pub use crate::transport::ReadOutcome;
use crate::transport::Stream;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The socket is being connected.
    Connecting,
    /// CONNECT was sent.
    AwaitConnack,
    /// SUBSCRIBE was sent.
    AwaitSuback,
    /// It can be used.
    Ready,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// What its bytes go through.
    pub stream: Stream,
    /// How far it has come.
    pub phase: Phase,
    /// Encoded and not yet written: `outgoing[written..]`.
    pub outgoing: Vec<u8>,
    written: usize,
    /// The start of a packet, moved to the front of the read buffer before the next read.
    pub partial: Vec<u8>,
}

impl Client {
    /// A connection just begun.
    pub fn new(stream: Stream) -> Self {
        let phase = Phase::Connecting;
        Self { stream, phase, outgoing: Vec::new(), written: 0, partial: Vec::new() }
    }

    /// Bytes waiting to be written.
    #[inline]
    pub fn outgoing_bytes(&self) -> usize {
        self.outgoing.len() - self.written + self.stream.unsent_bytes()
    }

    /// Write what is waiting, as far as the socket takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.outgoing.len() {
            match self.stream.write(&self.outgoing[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // What the transport has to say itself, or the socket did not take.
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

    /// Read into `buffer` behind the partial packet, which is put at its front.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<ReadOutcome> {
        let kept = self.partial.len();
        // A packet may be larger than the buffer is at first; the codec bounds packets.
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
