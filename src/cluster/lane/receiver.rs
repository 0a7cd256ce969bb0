//! The direction from the other node: which frames were taken, and what is said about them.

use bytes::Bytes;

use super::header::Header;
use super::{Content, FrameError};
use crate::base::clock::{Deadline, Now};
use crate::cluster::limits::{ITEM_BYTES_MAX, REPORT_BYTES, REPORT_DELAY};

/// The size of the whole item.
pub(super) const FRAGMENT_HEAD_BYTES: usize = 4;

/// A part of an item that is larger than a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    total: usize,
    part: &'a [u8],
}

impl<'a> Fragment<'a> {
    pub fn read(body: &'a [u8]) -> Result<Self, FrameError> {
        let (total, part) = body
            .split_first_chunk::<FRAGMENT_HEAD_BYTES>()
            .ok_or(FrameError::Impossible("a fragment without a size"))?;
        let total = u32::from_le_bytes(*total) as usize;
        if part.is_empty() || total > ITEM_BYTES_MAX {
            return Err(FrameError::Impossible("a fragment of a size that no item has"));
        }
        Ok(Self { total, part })
    }
}

/// An item of which not all fragments are here. Its memory grows with what has come.
#[derive(Debug)]
pub(super) struct Assembly {
    total: usize,
    bytes: Vec<u8>,
    /// When the item was pushed, on this node's clock.
    since: Now,
}

impl Assembly {
    /// Adds a fragment. Returns the item and the time when it was pushed, if that was the last one.
    pub fn add(
        this: &mut Option<Self>,
        since: Now,
        fragment: Fragment<'_>,
    ) -> Result<Option<(Bytes, Now)>, FrameError> {
        let Fragment { total, part } = fragment;
        let (expected, there) = this.as_ref().map_or((total, 0), |of| (of.total, of.bytes.len()));
        if expected != total || part.len() > total - there {
            return Err(FrameError::Impossible("a fragment of another item"));
        }
        let assembly = this.get_or_insert_with(|| Self { total, bytes: Vec::new(), since });
        // Doubles as a rule, and is never larger than the item.
        if part.len() > assembly.bytes.capacity() - assembly.bytes.len() {
            let wanted =
                (assembly.bytes.capacity() * 2).max(assembly.bytes.len() + part.len()).min(total);
            assembly.bytes.reserve_exact(wanted - assembly.bytes.len());
        }
        assembly.bytes.extend_from_slice(part);
        assembly.since = assembly.since.min(since);
        if assembly.bytes.len() < total {
            return Ok(None);
        }
        Ok(this.take().map(|whole| (whole.bytes.into(), whole.since)))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// The last frame that was taken.
    taken: u64,
    /// The last frame whose content the caller got: of an item in fragments that is the last of them, so that no receipt
    /// is given for a part of an item.
    given: u64,
    receipt: u64,
    assembly: Option<Assembly>,
    /// Something has to be said: at once, or at this time.
    report_now: bool,
    report_at: Option<Deadline>,
    /// Bytes that were taken and not reported.
    unreported: usize,
    /// The sender is to be asked for the next frame, and the frame it was last asked for.
    must_ask: bool,
    asked_for: u64,
}

impl Receiver {
    pub fn taken(&self) -> u64 {
        self.taken
    }

    pub fn receipt(&self) -> u64 {
        self.receipt
    }

    pub fn set_receipt(&mut self, number: u64) {
        let number = number.min(self.given);
        if number > self.receipt {
            self.receipt = number;
            self.report_now = true;
        }
    }

    /// Takes the next frame, which contains whole items.
    pub fn take_whole(
        &mut self,
        header: &Header,
        bytes: Bytes,
    ) -> Result<Option<Content>, FrameError> {
        if self.assembly.is_some() {
            return Err(FrameError::Impossible(
                "an item begins between the fragments of another one",
            ));
        }
        self.taken = header.number;
        self.given = header.number;
        Ok(Some(Content { number: header.number, age_us: header.age_us, bytes }))
    }

    /// Takes the next frame, which contains a part of an item.
    pub fn take_fragment(
        &mut self,
        now: Now,
        header: &Header,
        fragment: Fragment<'_>,
    ) -> Result<Option<Content>, FrameError> {
        let since = Now(now.0.saturating_sub(header.age_us));
        let whole = Assembly::add(&mut self.assembly, since, fragment)?;
        self.taken = header.number;
        Ok(whole.map(|(bytes, since)| {
            self.given = header.number;
            Content { number: header.number, age_us: now.since_us(since), bytes }
        }))
    }

    /// Notes that the sender has to be told what was taken: at once, or soon.
    pub fn report_soon(&mut self, now: Now, bytes: usize, at_once: bool) {
        self.unreported += bytes;
        if at_once || self.unreported >= REPORT_BYTES {
            self.report_now = true;
        } else if self.report_at.is_none() {
            self.report_at = Some(now.after(REPORT_DELAY));
        }
    }

    /// Notes a gap before the frame that came. Whether it is a new one.
    pub fn ask(&mut self) -> bool {
        let is_new = self.asked_for != self.taken + 1;
        if is_new {
            self.asked_for = self.taken + 1;
            self.must_ask = true;
        }
        is_new
    }

    pub fn take_ask(&mut self) -> bool {
        // The gap may have been filled in the same turn.
        std::mem::take(&mut self.must_ask) && self.asked_for == self.taken + 1
    }

    pub fn has_report(&self) -> bool {
        self.report_now
    }

    /// A frame leaves, in which everything is said.
    pub fn reported(&mut self) {
        self.report_now = false;
        self.report_at = None;
        self.unreported = 0;
    }

    pub fn deadline(&self) -> Option<Deadline> {
        self.report_at
    }

    pub fn handle_timeout(&mut self, now: Now) {
        if self.report_at.is_some_and(|at| at.is_due(now)) {
            self.report_now = true;
            self.report_at = None;
        }
    }

    pub fn heap_bytes(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| assembly.bytes.capacity())
    }
}
