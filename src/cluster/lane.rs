//! A lane between two nodes: one for each other node, both directions.
//!
//! A carrier that loses, repeats and reorders messages becomes one that delivers every [item](Item) once and in order, as
//! long as both nodes live. Items are packed into *frames* with numbers. The receiver takes frames in order and says in
//! each frame of its own up to which number it has *taken* them, and up to which number its caller has processed and
//! stored their content (the *receipt*). A frame is kept until its receipt.
//!
//! **Repetition.** A receiver that gets a later frame than the next one drops it and asks at once for the next one: the
//! sender goes back (*go-back-N*; the carrier is ordered except when it loses). After 200 ms in which nothing was taken,
//! the sender repeats the first frame only, then every 400 ms up to 2 s: a node that is stopped is not flooded, and when
//! that frame is taken, the others follow.
//!
//! **Window.** [`Lane::push`] refuses nothing, since announcements and receipts must not wait for messages. The caller
//! looks at [`Lane::is_loaded`] and stops reading publishers; what one turn has already read still fits. No more than the
//! window is sent before the receiver has taken some of it.
//!
//! **Large items** are divided into fragments, each a frame of its own, and put together by the receiver in memory that
//! grows with what has arrived, up to [`ITEM_BYTES_MAX`](super::limits::ITEM_BYTES_MAX). [`Lane::heap_bytes`] has all of
//! a lane's memory, for the caller's ledger.
//!
//! **Incarnations.** Frames name the incarnation of both nodes. A later incarnation of the other node starts the lane anew
//! and hands back what the earlier one had not receipted.

mod header;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;

use crate::base::clock::{Deadline, Now};
use crate::cluster::codec::{Item, Items, VERSION, VERSION_OLDEST};
use crate::cluster::limits::{KEEP_ALIVE, WINDOW_BYTES};
use header::{ASK, FRAGMENT, HEADER_BYTES, Header};
use receiver::{Fragment, Receiver};
use sender::Sender;
pub use sender::Unreceipted;

/// A lane to another node. Calls of a turn: [`handle_frame`](Self::handle_frame) and
/// [`handle_timeout`](Self::handle_timeout), then [`push`](Self::push) and [`set_receipt`](Self::set_receipt), then
/// [`flush`](Self::flush) and [`poll_transmit`](Self::poll_transmit) until there is nothing left, then
/// [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Lane {
    /// Incarnation of this node.
    own: u64,
    /// Incarnation of the other node.
    peer: u64,
    version: u8,
    sender: Sender,
    receiver: Receiver,
    last_sent: Now,
    last_heard: Now,
    counters: Counters,
}

/// What a lane has counted since it was made, over all incarnations of the other node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that were sent, repetitions and frames without content included.
    pub frames_sent: u64,
    /// Bytes of these frames.
    pub bytes_sent: u64,
    /// Frames that were sent again.
    pub frames_repeated: u64,
    /// Frames that were taken.
    pub frames_taken: u64,
    /// Bytes of these frames.
    pub bytes_taken: u64,
    /// Frames that had been taken before.
    pub frames_duplicate: u64,
    /// Gaps that were noticed.
    pub gaps: u64,
    /// Frames of or for an earlier incarnation.
    pub frames_outdated: u64,
    /// Frames that were damaged on the way.
    pub frames_damaged: u64,
    /// Times of silence after which a frame was sent again.
    pub silences: u64,
}

/// What a frame has brought.
#[derive(Debug, Default)]
pub struct Taken {
    /// The items that are the next ones; none when the frame had no content, was a duplicate, came early, or was not the
    /// last fragment of an item.
    pub content: Option<Content>,
    /// The other node has a later incarnation, and the lane has started anew: what the earlier one had not receipted.
    pub restarted: Option<Unreceipted>,
}

/// The items of a frame, or the one item of several.
#[derive(Clone, Debug)]
pub struct Content {
    /// Number of the frame, for [`Lane::set_receipt`]; the last one if there are several.
    pub number: u64,
    /// Microseconds since the oldest item was pushed, without the time on the way: deadlines in the content are that much
    /// closer.
    pub age_us: u64,
    bytes: Bytes,
}

impl Content {
    /// The items, in order. After an error the lane cannot go on, see
    /// [`DecodeError`](crate::cluster::codec::DecodeError).
    pub fn items(&self) -> Items<'_> {
        Items::new(&self.bytes)
    }

    /// A part of an item, by reference: the whole frame stays in memory as long as the result. `part` must be borrowed
    /// from this content.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// Size of the encoded items.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Lane {
    /// A lane between these incarnations, on which nothing was sent.
    pub fn new(own_incarnation: u64, peer_incarnation: u64, now: Now) -> Self {
        Self {
            own: own_incarnation,
            peer: peer_incarnation,
            version: VERSION_OLDEST,
            sender: Sender::new(WINDOW_BYTES, now),
            receiver: Receiver::default(),
            last_sent: now,
            last_heard: now,
            counters: Counters::default(),
        }
    }

    /// The version of frames that it sends.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Sets the version of frames from the next one on: the highest that both nodes speak. Before,
    /// frames have the oldest one.
    pub fn set_version(&mut self, version: u8) {
        debug_assert!((VERSION_OLDEST..=VERSION).contains(&version));
        self.version = version;
    }

    /// Sets the window, in bytes, at most [`WINDOW_BYTES`]: see [`window_of`](super::limits::window_of). One frame is sent
    /// whatever the window.
    pub fn set_window(&mut self, bytes: usize) {
        self.sender.set_window(bytes.min(WINDOW_BYTES));
    }

    /// The other node's incarnation.
    pub fn peer_incarnation(&self) -> u64 {
        self.peer
    }

    /// Starts the lane anew for a later incarnation of the other node, of which the caller knows otherwise: by the list of
    /// members. Returns what the earlier one had not receipted; none if the incarnation is not later.
    pub fn restart(&mut self, peer_incarnation: u64, now: Now) -> Option<Unreceipted> {
        if peer_incarnation <= self.peer {
            return None;
        }
        self.peer = peer_incarnation;
        self.receiver = Receiver::default();
        self.last_heard = now;
        Some(self.sender.restart(now))
    }

    /// Adds an item of at most [`ITEM_BYTES_MAX`](super::limits::ITEM_BYTES_MAX) bytes to the open frame, which is closed
    /// when it is full, and returns the number of the frame that carries the item; the last one if it takes several.
    /// Nothing is refused, see [`is_loaded`](Self::is_loaded).
    #[inline]
    pub fn push(&mut self, now: Now, item: &Item<'_>) -> u64 {
        self.sender.push(now, item)
    }

    /// Closes the open frame, so that it can be sent.
    pub fn flush(&mut self) {
        self.sender.close();
    }

    /// The next frame for the carrier; none when all is sent, or as much as the window allows. To be called until then,
    /// after every call that takes a time, and after [`flush`](Self::flush) and [`set_receipt`](Self::set_receipt).
    pub fn poll_transmit(&mut self, now: Now) -> Option<Bytes> {
        let mut header = Header {
            version: self.version,
            flags: if self.receiver.take_ask() { ASK } else { 0 },
            sender: self.own,
            receiver: self.peer,
            number: 0,
            taken: self.receiver.taken(),
            receipt: self.receiver.receipt(),
            age_us: 0,
        };
        let is_asking = header.flags != 0;
        let frame = match self.sender.transmit(now, header) {
            Some((frame, is_repeated)) => {
                self.counters.frames_repeated += u64::from(is_repeated);
                frame
            }
            None if is_asking || self.receiver.has_report() => {
                let mut frame = vec![0; HEADER_BYTES];
                header.age_us = 0;
                header.write(&mut frame);
                frame.into()
            }
            None => return None,
        };
        self.receiver.reported();
        self.last_sent = now;
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += frame.len() as u64;
        Some(frame)
    }

    /// Takes a frame of the other node. Damaged frames and those of earlier incarnations change nothing.
    pub fn handle_frame(&mut self, now: Now, frame: Bytes) -> Result<Taken, FrameError> {
        let header = Header::read(&frame).inspect_err(|error| {
            self.counters.frames_damaged += u64::from(!error.is_final());
        })?;
        if header.sender < self.peer {
            self.counters.frames_outdated += 1;
            return Ok(Taken::default());
        }
        if header.receiver > self.own {
            return Err(FrameError::Superseded(header.receiver));
        }
        let restarted = self.restart(header.sender, now);
        if header.receiver < self.own {
            self.counters.frames_outdated += 1;
            return Ok(Taken { content: None, restarted });
        }
        self.sender.check(&header)?;
        self.last_heard = now;
        self.sender.handle_report(now, &header);
        let content = if header.number == 0 { None } else { self.take(now, &header, frame)? };
        Ok(Taken { content, restarted })
    }

    /// Takes the content of a frame if it is the next one.
    fn take(
        &mut self,
        now: Now,
        header: &Header,
        frame: Bytes,
    ) -> Result<Option<Content>, FrameError> {
        if header.number <= self.receiver.taken() {
            self.counters.frames_duplicate += 1;
            self.receiver.report_soon(now, 0, true);
            return Ok(None);
        }
        if header.number > self.receiver.taken() + 1 {
            self.counters.gaps += u64::from(self.receiver.ask());
            return Ok(None);
        }
        let length = frame.len();
        let body = frame.slice(HEADER_BYTES..);
        let content = match header.flags & FRAGMENT {
            0 => self.receiver.take_whole(header, body),
            _ => self.receiver.take_fragment(now, header, Fragment::read(&body)?),
        }?;
        self.counters.frames_taken += 1;
        self.counters.bytes_taken += length as u64;
        self.receiver.report_soon(now, length, false);
        Ok(content)
    }

    /// The caller has processed and stored all content up to this number, which the lane has given to it.
    pub fn set_receipt(&mut self, number: u64) {
        self.receiver.set_receipt(number);
    }

    /// The last frame whose content the other node has processed and stored.
    pub fn receipted(&self) -> u64 {
        self.sender.receipted()
    }

    /// The last frame that the other node has taken; its content may still be lost with it.
    pub fn taken_by_peer(&self) -> u64 {
        self.sender.taken()
    }

    /// The number of the last frame that was closed or begun: everything pushed so far is in it or before it.
    pub fn last_number(&self) -> u64 {
        self.sender.last_number()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let keep_alive = Some(self.last_sent.after(KEEP_ALIVE));
        [keep_alive, self.sender.deadline(), self.receiver.deadline()].into_iter().flatten().min()
    }

    /// Handles deadlines that have passed; [`poll_transmit`](Self::poll_transmit) then has what there is to send.
    pub fn handle_timeout(&mut self, now: Now) {
        self.counters.silences += u64::from(self.sender.handle_timeout(now));
        self.receiver.handle_timeout(now);
        if self.last_sent.after(KEEP_ALIVE).is_due(now) {
            self.receiver.report_soon(now, 0, true);
            self.sender.shrink();
        }
    }

    /// Bytes that wait for receipts of the other node, with the open frame.
    pub fn load_bytes(&self) -> usize {
        self.sender.load_bytes()
    }

    /// Bytes that were sent and that the other node has not taken, as far as it has said.
    pub fn in_flight_bytes(&self) -> usize {
        self.sender.in_flight_bytes()
    }

    /// Whether the window is full: publishers with messages for the node wait until it is not.
    pub fn is_loaded(&self) -> bool {
        self.sender.is_loaded()
    }

    /// For how many microseconds the other node has taken and receipted nothing although something was sent to it.
    pub fn stuck_us(&self, now: Now) -> u64 {
        self.sender.stuck_us(now)
    }

    /// When the last frame came from the other node's present incarnation; it sends one in every second.
    pub fn last_heard(&self) -> Now {
        self.last_heard
    }

    /// Memory that the lane holds: kept frames, the open frame, frames for reuse, and the item whose fragments come in.
    /// Frames that [`poll_transmit`](Self::poll_transmit) has returned are the same memory until their receipt.
    pub fn heap_bytes(&self) -> usize {
        self.sender.heap_bytes() + self.receiver.heap_bytes()
    }

    /// What the lane has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// A frame that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Damaged on the way: the sender will repeat it.
    Damaged(&'static str),
    /// It has a version that this program does not understand.
    Version(u8),
    /// The other node knows a later incarnation of this node: this one has to end.
    Superseded(u64),
    /// It says what cannot be, although its checksum is right.
    Impossible(&'static str),
}

impl FrameError {
    /// Whether the lane cannot go on: the same would happen again.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Damaged(_))
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => write!(f, "a frame of the other node is damaged: {what}"),
            Self::Version(version) => write!(
                f,
                "a frame of the other node has version {version}; this program understands {VERSION_OLDEST} to {VERSION}: \
                 upgrade the older node, one release at a time"
            ),
            Self::Superseded(incarnation) => write!(
                f,
                "the other node knows a later start of this node ({incarnation}): two brokers run with the same node number, \
                 or this one was taken for dead"
            ),
            Self::Impossible(what) => {
                write!(f, "a frame of the other node contradicts those before it: {what}")
            }
        }
    }
}

impl std::error::Error for FrameError {}
