//! Shipping: the pages of a node's log on their way to its stream. Sans-IO: frames, answers of the engine and times go in,
//! orders come out.
//!
//! Page *n* is appended with the expected last sequence *n* − 1, sixteen at a time, and pages are *released* strictly in
//! order. After a refusal, a lost answer or a reconnection nothing is released until the stream was looked at: what it has of this
//! process is released, the rest is appended again. Another's page or a seal in the place of a page ends it for good.
//! That is what makes the seal safe: the expected sequence alone refuses one page, and accepts those behind it.

pub mod page;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::{Deadline, Now};
use page::{Header, PageId, Seal, pages};

/// Pages under way at a time.
pub const UNDER_WAY_MAX: usize = 16;

/// Messages that a look reads at most: all that can be under way, and one that shows that another one writes.
pub const LOOK_MAX: usize = UNDER_WAY_MAX + 1;

/// Pauses between attempts, doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Microseconds for which a stream may seem to lack released pages: a server that has just been cut off may answer with
/// what it has.
const BEHIND_US: u64 = 10_000_000;

/// Why nothing is shipped any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The others have taken this node's sessions over.
    Sealed(Seal),
    /// Another process writes to the stream.
    Foreign,
    /// The stream has lost pages that were released.
    Behind,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed(Seal { node, incarnation, .. }) => write!(
                f,
                "node {node} (incarnation {incarnation}) has sealed the stream of this node: its sessions are taken over"
            ),
            Self::Foreign => f.write_str("another broker writes to the stream of this node"),
            Self::Behind => f.write_str("the stream of this node has lost what it had confirmed"),
        }
    }
}

/// What is to be done. An answer says the epoch of its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Append a page: [`Shipper::handle_appended`].
    Append {
        /// The epoch.
        epoch: u64,
        /// The sequence that it must get.
        sequence: u64,
        /// The message.
        page: Bytes,
    },
    /// Read up to [`LOOK_MAX`] messages from this sequence on: [`Shipper::handle_look`].
    Look {
        /// The epoch.
        epoch: u64,
        /// The first sequence.
        from: u64,
    },
    /// Drop what is before this sequence; without an answer.
    Purge {
        /// The first sequence that stays.
        before: u64,
    },
}

/// The answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It has its sequence.
    Stored,
    /// The last sequence was another one.
    Refused,
    /// No answer, or an error: it may be stored, or be stored later.
    Unknown,
}

/// The position of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The last sequence.
    pub last: u64,
    /// The messages from the first sequence of the look on; none in the place of one that is no page.
    pub found: Vec<Option<Header>>,
}

#[derive(Debug)]
struct Page {
    id: PageId,
    message: Bytes,
    is_stored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Appending,
    /// After a failure, until the next look.
    Resting(Deadline),
    /// A look is due.
    ToLook,
    Looking,
    Ended(End),
}

/// Counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pages released.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Appends that were refused, failed, or were not answered.
    pub failures: u64,
}

/// See the module's documentation. Its memory is bounded by what is pushed before it is released: the journals of the cores
/// pause publishers until the store has stored their records.
#[derive(Debug)]
pub struct Shipper {
    store: u64,
    run: u64,
    epoch: u64,
    /// Pages that are not released; the first ones are under way.
    pages: VecDeque<Page>,
    under_way: usize,
    /// The sequence of the first of them.
    next: u64,
    bytes: usize,
    state: State,
    failures: u32,
    /// The last frame that was released, and the last that was pushed.
    released: u64,
    pushed: u64,
    /// Frames that begin segments, with the sequences of their first pages.
    marks: VecDeque<(u64, u64)>,
    /// Frames before the first one are dropped once the second one is released.
    purge: Option<(u64, u64)>,
    /// Since when the first page waits.
    waits_since: Now,
    behind_since: Option<Now>,
    counters: Counters,
}

impl Shipper {
    /// Continues a stream after its last sequence. It has all frames up to `frame`.
    pub fn new(store: u64, run: u64, last_sequence: u64, frame: u64) -> Self {
        Self {
            store,
            run,
            epoch: 0,
            pages: VecDeque::new(),
            under_way: 0,
            next: last_sequence + 1,
            bytes: 0,
            state: State::Appending,
            failures: 0,
            released: frame,
            pushed: frame,
            marks: VecDeque::new(),
            purge: None,
            waits_since: Now(0),
            behind_since: None,
            counters: Counters::default(),
        }
    }

    /// Takes the next frame of the log.
    pub fn push(&mut self, now: Now, frame: u64, bytes: &[u8], begins_segment: bool) {
        if matches!(self.state, State::Ended(_)) {
            return;
        }
        if self.pages.is_empty() {
            self.waits_since = now;
        }
        if begins_segment {
            self.marks.push_back((frame, self.next + self.pages.len() as u64));
        }
        for (id, message) in pages(self.store, self.run, frame, bytes) {
            self.bytes += message.len();
            self.pages.push_back(Page { id, message, is_stored: false });
        }
        self.pushed = frame;
    }

    /// The log has dropped the frames before this one, which begins a segment: they are dropped from the stream once it
    /// has all frames that were pushed before this call.
    pub fn forget_before(&mut self, frame: u64) {
        self.purge = Some((frame, self.pushed));
    }

    /// The connection was made again: what was under way may be stored or not.
    pub fn handle_reconnected(&mut self) {
        if self.under_way > 0 || self.state == State::Looking {
            self.look_again(State::ToLook);
        }
    }

    /// Looks at the stream though nothing waits, so that a node without messages finds a seal too.
    pub fn check(&mut self) {
        if self.state == State::Appending && self.pages.is_empty() {
            self.look_again(State::ToLook);
        }
    }

    /// What is to be done next.
    pub fn poll(&mut self, now: Now) -> Option<Order> {
        if let State::Resting(until) = self.state
            && until.is_due(now)
        {
            self.state = State::ToLook;
        }
        match self.state {
            State::ToLook => {
                self.state = State::Looking;
                Some(Order::Look { epoch: self.epoch, from: self.next })
            }
            State::Appending => {
                let purge = self.poll_purge();
                purge.or_else(|| {
                    let limit = UNDER_WAY_MAX.min(self.pages.len());
                    (self.under_way < limit).then(|| {
                        let (epoch, sequence) = (self.epoch, self.next + self.under_way as u64);
                        let page = self.pages[self.under_way].message.clone();
                        self.under_way += 1;
                        Order::Append { epoch, sequence, page }
                    })
                })
            }
            State::Resting(_) | State::Looking | State::Ended(_) => None,
        }
    }

    fn poll_purge(&mut self) -> Option<Order> {
        let (frame, until) = self.purge.filter(|&(_, until)| until <= self.released)?;
        self.purge = None;
        debug_assert!(frame <= until + 1);
        let mut before = None;
        while let Some((_, sequence)) = self.marks.pop_front_if(|&mut (first, _)| first <= frame) {
            before = Some(sequence);
        }
        before.map(|before| Order::Purge { before })
    }

    /// When [`Self::poll`] may have something to do though nothing happens.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        match self.state {
            State::Resting(until) => Some(until),
            _ => None,
        }
    }

    /// The answer to an append.
    pub fn handle_appended(&mut self, now: Now, epoch: u64, sequence: u64, appended: Appended) {
        if epoch != self.epoch || self.state != State::Appending {
            return;
        }
        match appended {
            Appended::Stored => {
                if let Some(at) = sequence.checked_sub(self.next)
                    && let Some(page) = self.pages.get_mut(at as usize)
                {
                    page.is_stored = true;
                }
                while self.pages.front().is_some_and(|page| page.is_stored) {
                    self.release(now);
                    self.under_way -= 1;
                }
            }
            Appended::Refused | Appended::Unknown => {
                self.counters.failures += 1;
                self.fail(now);
            }
        }
    }

    /// The position of the stream; none if that could not be found out.
    pub fn handle_look(&mut self, now: Now, epoch: u64, look: Option<Look>) {
        if epoch != self.epoch || self.state != State::Looking {
            return;
        }
        let Some(Look { last, found }) = look else { return self.fail(now) };
        if last + 1 < self.next {
            let since = *self.behind_since.get_or_insert(now);
            return match now.since_us(since) >= BEHIND_US {
                true => self.end(End::Behind),
                false => self.fail(now),
            };
        }
        self.behind_since = None;
        let is_whole = self.next + found.len() as u64 > last;
        for header in found {
            let own = self.pages.front().map(|page| page.id);
            match header {
                Some(Header::Page(id)) if Some(id) == own => self.release(now),
                Some(Header::Seal(seal)) => return self.end(End::Sealed(seal)),
                _ => return self.end(End::Foreign),
            }
        }
        self.state = if is_whole { State::Appending } else { State::ToLook };
    }

    fn release(&mut self, now: Now) {
        let Some(page) = self.pages.pop_front() else { return };
        self.next += 1;
        self.bytes -= page.message.len();
        self.counters.pages += 1;
        self.counters.bytes += page.message.len() as u64;
        if page.id.part + 1 == page.id.parts {
            self.released = page.id.frame;
        }
        (self.waits_since, self.failures) = (now, 0);
    }

    /// Looks at the stream: at once after the first failure, after a pause otherwise.
    fn fail(&mut self, now: Now) {
        let pause = PAUSE_MIN * (1 << self.failures.min(5)) / 2;
        let state = match self.failures {
            0 => State::ToLook,
            _ => State::Resting(now.after(pause.min(PAUSE_MAX))),
        };
        self.failures += 1;
        self.look_again(state);
    }

    fn look_again(&mut self, state: State) {
        if matches!(self.state, State::Ended(_)) {
            return;
        }
        self.pages.iter_mut().take(self.under_way).for_each(|page| page.is_stored = false);
        self.under_way = 0;
        self.epoch += 1;
        self.state = state;
    }

    fn end(&mut self, end: End) {
        self.pages.clear();
        (self.under_way, self.bytes) = (0, 0);
        self.state = State::Ended(end);
    }

    /// The last frame of which every page is released, as is every frame before.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Frames that are not released.
    pub fn frames_waiting(&self) -> u64 {
        self.pushed - self.released
    }

    /// Bytes of the pages that are not released.
    pub fn bytes_waiting(&self) -> usize {
        self.bytes
    }

    /// Pages under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// For how long no page has been released though some wait.
    pub fn stalled_for(&self, now: Now) -> Duration {
        match self.pages.is_empty() {
            true => Duration::ZERO,
            false => Duration::from_micros(now.since_us(self.waits_since)),
        }
    }

    /// Why nothing is shipped any more.
    pub fn end_reason(&self) -> Option<End> {
        match self.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Counters since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
