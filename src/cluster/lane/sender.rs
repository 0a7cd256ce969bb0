//! The direction to the other node: frames that are open, wait to be sent, or wait for their receipt.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::header::{ASK, FRAGMENT, HEADER_BYTES, Header};
use super::receiver::{Assembly, FRAGMENT_HEAD_BYTES, Fragment};
use super::{Content, FrameError};
use crate::base::clock::{Deadline, Now};
use crate::cluster::codec::Item;
use crate::cluster::limits::{
    FRAME_BYTES_MAX, FRAME_BYTES_MIN, FRAME_OVERHEAD_BYTES, ITEM_BYTES_MAX, POOLED_FRAMES_MAX,
    SILENCE_MAX, SILENCE_MIN,
};

/// A closed frame. The header is written each time when it is sent.
#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    capacity: usize,
    /// When its oldest content was pushed.
    since: Now,
    /// [`FRAGMENT`] or nothing.
    flags: u8,
}

/// See the module. Numbers: `receipted <= taken < next <= kept's last + 1`.
#[derive(Debug)]
pub(super) struct Sender {
    window: usize,
    /// The frames after `receipted`, in order.
    kept: VecDeque<Kept>,
    receipted: u64,
    taken: u64,
    /// The frame to be sent next.
    next: u64,
    /// The highest number that was ever sent.
    sent: u64,
    /// Header and content of the frame that is being filled; empty if there is none.
    open: Vec<u8>,
    open_since: Now,
    /// Bytes of kept frames.
    kept_bytes: usize,
    /// Memory of kept frames.
    kept_capacity: usize,
    /// Bytes of frames that are sent and not taken.
    in_flight: usize,
    /// Buffers of earlier frames.
    pool: Vec<Vec<u8>>,
    /// When the first frame is sent again unless something is taken before.
    repeat_at: Option<Deadline>,
    silence: Duration,
    /// After a silence, one frame at a time is sent.
    is_probing: bool,
    /// The frame that the receiver last asked for.
    asked_for: u64,
    /// When something was last taken or receipted, or the first frame was sent for which there is no receipt.
    progress: Now,
}

impl Sender {
    pub fn new(window: usize, now: Now) -> Self {
        Self {
            window,
            kept: VecDeque::new(),
            receipted: 0,
            taken: 0,
            next: 1,
            sent: 0,
            open: Vec::new(),
            open_since: now,
            kept_bytes: 0,
            kept_capacity: 0,
            in_flight: 0,
            pool: Vec::new(),
            repeat_at: None,
            silence: SILENCE_MIN,
            is_probing: false,
            asked_for: 0,
            progress: now,
        }
    }

    pub fn set_window(&mut self, bytes: usize) {
        self.window = bytes;
    }

    /// Starts anew, and returns what was not receipted.
    pub fn restart(&mut self, now: Now) -> Unreceipted {
        self.close();
        let fresh = Self::new(self.window, now);
        let old = mem::replace(self, fresh);
        Unreceipted { kept: old.kept, next: old.receipted + 1, now, assembly: None }
    }

    #[inline]
    pub fn push(&mut self, now: Now, item: &Item<'_>) -> u64 {
        let bytes_max = item.bytes_max();
        if self.open.len().max(HEADER_BYTES) + bytes_max > FRAME_BYTES_MAX {
            if bytes_max > FRAME_BYTES_MAX - HEADER_BYTES {
                return self.push_large(now, item);
            }
            self.close();
        }
        if self.open.is_empty() {
            self.begin(now, bytes_max);
        }
        self.open.reserve(bytes_max);
        item.encode(&mut self.open);
        self.open_number()
    }

    fn push_large(&mut self, now: Now, item: &Item<'_>) -> u64 {
        self.close();
        let mut head = Vec::new();
        let mut tail = item.encode_head(&mut head);
        let mut head = head.as_slice();
        let total = head.len() + tail.len();
        debug_assert!(total <= ITEM_BYTES_MAX);
        while !head.is_empty() || !tail.is_empty() {
            let room = FRAME_BYTES_MAX - HEADER_BYTES - FRAGMENT_HEAD_BYTES;
            self.begin(now, FRAME_BYTES_MAX.min(total));
            self.open.extend_from_slice(&(total as u32).to_le_bytes());
            let part = head.split_off(..room.min(head.len())).unwrap_or_default();
            self.open.extend_from_slice(part);
            let part = tail.split_off(..(room - part.len()).min(tail.len())).unwrap_or_default();
            self.open.extend_from_slice(part);
            self.close_as(FRAGMENT);
        }
        self.last_number()
    }

    /// Begins a frame.
    fn begin(&mut self, now: Now, content_bytes: usize) {
        if self.open.capacity() == 0 {
            self.open = self.pool.pop().unwrap_or_default();
        }
        self.open.reserve((HEADER_BYTES + content_bytes).max(FRAME_BYTES_MIN));
        self.open.resize(HEADER_BYTES, 0);
        self.open_since = now;
    }

    /// Closes the open frame, if there is one.
    pub fn close(&mut self) {
        if !self.open.is_empty() {
            self.close_as(0);
        }
    }

    fn close_as(&mut self, flags: u8) {
        // A buffer that is mostly empty is used again: what is kept takes no more memory than it has bytes.
        let bytes = if self.open.len() < self.open.capacity() / 2 {
            let bytes = Bytes::copy_from_slice(&self.open);
            self.open.clear();
            Kept { capacity: bytes.len(), bytes, since: self.open_since, flags }
        } else {
            let open = mem::take(&mut self.open);
            Kept { capacity: open.capacity(), bytes: open.into(), since: self.open_since, flags }
        };
        self.kept_bytes += bytes.bytes.len();
        self.kept_capacity += bytes.capacity;
        self.kept.push_back(bytes);
    }

    /// The number of the last closed frame.
    fn last_closed(&self) -> u64 {
        self.receipted + self.kept.len() as u64
    }

    fn open_number(&self) -> u64 {
        self.last_closed() + 1
    }

    pub fn last_number(&self) -> u64 {
        self.last_closed() + u64::from(!self.open.is_empty())
    }

    pub fn receipted(&self) -> u64 {
        self.receipted
    }

    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Place of a frame that is kept.
    fn place(&self, number: u64) -> usize {
        (number - self.receipted - 1) as usize
    }

    /// The next frame, if the window allows it, and whether it was sent before. `header` lacks what belongs to the frame.
    pub fn transmit(&mut self, now: Now, header: Header) -> Option<(Bytes, bool)> {
        let place = self.place(self.next);
        let kept = self.kept.get_mut(place)?;
        let length = kept.bytes.len();
        if self.in_flight > 0 && (self.is_probing || self.in_flight + length > self.window) {
            return None;
        }
        let mut frame = mem::take(&mut kept.bytes).try_into_mut().unwrap_or_else(|shared| {
            // The carrier still has it from the last time.
            BytesMut::from(&*shared)
        });
        let header = Header {
            flags: header.flags | kept.flags,
            number: self.next,
            age_us: now.since_us(kept.since),
            ..header
        };
        header.write(&mut frame);
        kept.bytes = frame.freeze();
        let is_repeated = self.next <= self.sent;
        if self.in_flight == 0 {
            self.repeat_at = Some(now.after(self.silence));
        }
        if self.sent == self.receipted {
            self.progress = now;
        }
        self.in_flight += length;
        self.sent = self.sent.max(self.next);
        self.next += 1;
        Some((kept.bytes.clone(), is_repeated))
    }

    /// Checks what a frame of the other node says about this direction.
    pub fn check(&self, header: &Header) -> Result<(), FrameError> {
        if header.taken > self.sent {
            return Err(FrameError::Impossible("it acknowledges a frame that was not sent"));
        }
        if header.receipt > header.taken {
            return Err(FrameError::Impossible("its receipt is ahead of what was taken"));
        }
        Ok(())
    }

    /// Applies what a checked frame says about this direction.
    pub fn handle_report(&mut self, now: Now, header: &Header) {
        if header.taken > self.taken {
            self.progress = now;
            let place = self.place(self.taken + 1);
            let arrived = header.taken.min(self.next - 1).saturating_sub(self.taken) as usize;
            self.in_flight -= self
                .kept
                .iter()
                .skip(place)
                .take(arrived)
                .map(|kept| kept.bytes.len())
                .sum::<usize>();
            self.taken = header.taken;
            self.next = self.next.max(self.taken + 1);
            self.silence = SILENCE_MIN;
            self.is_probing = false;
            self.repeat_at = (self.in_flight > 0).then(|| now.after(self.silence));
        }
        if header.receipt > self.receipted {
            self.progress = now;
            for _ in self.receipted..header.receipt {
                self.drop_first();
            }
            self.receipted = header.receipt;
        }
        let asked = header.taken + 1;
        let is_new =
            header.flags & ASK != 0 && header.taken == self.taken && self.asked_for != asked;
        if is_new && asked < self.next {
            self.asked_for = asked;
            self.go_back();
        }
    }

    fn drop_first(&mut self) {
        let Some(Kept { bytes, capacity, .. }) = self.kept.pop_front() else { return };
        self.kept_bytes -= bytes.len();
        self.kept_capacity -= capacity;
        if self.pool.len() < POOLED_FRAMES_MAX
            && capacity >= FRAME_BYTES_MIN
            && let Ok(mut bytes) = bytes.try_into_mut()
        {
            bytes.clear();
            self.pool.push(bytes.into());
        }
    }

    /// Sends again from the first frame that is not taken.
    fn go_back(&mut self) {
        self.next = self.taken + 1;
        self.in_flight = 0;
    }

    pub fn deadline(&self) -> Option<Deadline> {
        self.repeat_at
    }

    /// Whether a silence was long enough to send the first frame again.
    pub fn handle_timeout(&mut self, now: Now) -> bool {
        let is_due = self.repeat_at.is_some_and(|at| at.is_due(now));
        if is_due {
            self.repeat_at = None;
            self.silence = (self.silence * 2).min(SILENCE_MAX);
            self.is_probing = true;
            self.go_back();
        }
        is_due
    }

    /// Frees the buffers for later frames if there is nothing to send.
    pub fn shrink(&mut self) {
        if self.kept.is_empty() && self.open.is_empty() {
            self.kept = VecDeque::new();
            self.open = Vec::new();
            self.pool = Vec::new();
        }
    }

    pub fn load_bytes(&self) -> usize {
        self.kept_bytes + self.kept.len() * FRAME_OVERHEAD_BYTES + self.open.len()
    }

    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight
    }

    pub fn is_loaded(&self) -> bool {
        self.load_bytes() >= self.window
    }

    pub fn stuck_us(&self, now: Now) -> u64 {
        if self.sent == self.receipted { 0 } else { now.since_us(self.progress) }
    }

    pub fn heap_bytes(&self) -> usize {
        let pooled: usize = self.pool.iter().map(Vec::capacity).sum();
        self.kept_capacity
            + self.open.capacity()
            + pooled
            + self.kept.capacity() * size_of::<Kept>()
            + self.pool.capacity() * size_of::<Vec<u8>>()
    }
}

/// What an earlier incarnation of the other node had not receipted, frame by frame. It may have processed a part of it.
#[derive(Debug)]
pub struct Unreceipted {
    kept: VecDeque<Kept>,
    next: u64,
    now: Now,
    assembly: Option<Assembly>,
}

impl Iterator for Unreceipted {
    type Item = Content;

    /// The content of the next frame, or the next item that takes several. Ages are those of the restart.
    fn next(&mut self) -> Option<Content> {
        loop {
            let kept = self.kept.pop_front()?;
            let number = self.next;
            self.next += 1;
            let body = kept.bytes.slice(HEADER_BYTES..);
            if kept.flags & FRAGMENT == 0 {
                return Some(Content {
                    number,
                    age_us: self.now.since_us(kept.since),
                    bytes: body,
                });
            }
            let fragment = Fragment::read(&body).ok()?;
            let whole = Assembly::add(&mut self.assembly, kept.since, fragment).ok()?;
            if let Some((bytes, since)) = whole {
                return Some(Content { number, age_us: self.now.since_us(since), bytes });
            }
        }
    }
}
