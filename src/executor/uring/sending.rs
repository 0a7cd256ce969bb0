//! Sends on sockets, from submission to completion.

use std::io;

use io_uring::cqueue;

use super::Executor;
use super::operation::Operation;
use super::ring::Completion;
use super::send::{self, Way};
use super::socket::Phase;

/// Errors after which a send is submitted again. A send is cancelled only for that purpose, or because its
/// socket closes.
const AGAIN: [i32; 5] = [libc::EAGAIN, libc::EINTR, libc::ENOBUFS, libc::ENOMEM, libc::ECANCELED];

impl Executor {
    /// Submits a send of a socket's pending buffer.
    #[expect(unsafe_code, reason = "the kernel reads the buffer")]
    pub(super) fn submit(&mut self, file: u32, way: Way) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else { return Ok(()) };
        let Some(buffer) = &socket.pending else { return Ok(()) };
        socket.is_sending = true;
        socket.is_sent_unless_failed = way == Way::Now;
        // SAFETY: only `progress` changes `pending`, after the operation has completed; and a socket is not
        // removed while it is sending.
        let offered = unsafe { send::submit(self.rings.of(file), file, buffer, way) }?;
        match way {
            Way::Now => self.sent.push((file, offered)),
            Way::Waiting => self.core.noted.sends_waited += 1,
            Way::ZeroCopy | Way::Reported => {}
        }
        Ok(())
    }

    /// Whether the engine waits for a send that has most likely succeeded already.
    pub(super) fn awaits_sent(&mut self) -> bool {
        self.sent.iter().any(|&(file, _)| {
            self.sockets.get(file).is_some_and(|socket| match socket.phase {
                Phase::Open => self.core.engine.awaits_sent(socket.id),
                _ => true,
            })
        })
    }

    /// Completes the sends of the last turn: after the kernel has been entered, every send without a failure
    /// completion has succeeded.
    pub(super) fn reap_sends(&mut self, completions: &[Completion]) -> io::Result<()> {
        if self.rings.has_queued() {
            return Ok(());
        }
        let mut sent = std::mem::take(&mut self.sent);
        for completion in completions {
            if let Operation::SendNow(file) = Operation::of(completion.user_data) {
                self.sent_some(file, completion.result)?;
            }
        }
        for (file, offered) in sent.drain(..) {
            if self.sockets.get(file).is_some_and(|socket| socket.is_sent_unless_failed) {
                self.progress(file, offered, Way::Now)?;
            }
        }
        // Sends submitted above belong to the next turn.
        sent.append(&mut self.sent);
        self.sent = sent;
        Ok(())
    }

    /// Handles a send that completed with some bytes, none, or an error.
    pub(super) fn sent_some(&mut self, file: u32, result: i32) -> io::Result<()> {
        match result {
            0.. => self.progress(file, result as usize, Way::Waiting),
            _ if AGAIN.contains(&-result) => self.progress(file, 0, Way::Waiting),
            _ => {
                let Some(socket) = self.sockets.get(file) else {
                    return self.handle_unexpected(file, "send");
                };
                socket.has_sent();
                match socket.phase {
                    Phase::Open => self.lose(file),
                    Phase::Closing => self.try_close(file),
                    Phase::Lingering | Phase::Leaving => self.begin_closing(file),
                }
            }
        }
    }

    /// Handles the two completions of a zero-copy send: one with the result, one when the kernel no longer
    /// uses the memory.
    pub(super) fn copied(&mut self, file: u32, completion: Completion) -> io::Result<()> {
        if cqueue::more(completion.flags) {
            self.copying.insert(file, completion.result);
            return Ok(());
        }
        let result = self.copying.remove(&file).unwrap_or(completion.result);
        self.sent_some(file, result)
    }

    /// Records `bytes` as sent, and sends the rest by `way`.
    fn progress(&mut self, file: u32, bytes: usize, way: Way) -> io::Result<()> {
        let Some(socket) = self.sockets.get(file) else {
            return self.handle_unexpected(file, "send");
        };
        socket.has_sent();
        if socket.phase == Phase::Closing {
            return self.try_close(file);
        }
        let Some(buffer) = socket.pending.as_mut().filter(|buffer| buffer.len() >= bytes) else {
            return self.handle_unexpected(file, "send");
        };
        buffer.advance(bytes);
        let drained = if buffer.is_empty() { socket.pending.take() } else { None };
        let is_drained = drained.is_some();
        match socket.phase {
            Phase::Open => {
                let id = socket.id;
                self.core.engine.handle_sent(self.core.now, id, bytes, drained);
            }
            _ => {
                if let Some(lingering) = self.lingering.get_mut(&file) {
                    lingering.linger_time.note_written(bytes);
                }
                if is_drained {
                    return self.continue_lingering(file);
                }
            }
        }
        if is_drained { Ok(()) } else { self.submit(file, way) }
    }
}
