//! Log lines that peers can cause: so many of a kind in a second, and what peers chose cut to a length
//! that is good to read. What was left out is counted, and told in the next line of its kind.

use std::fmt::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tracing::field::DisplayValue;

use crate::base::atomic::AtomicU64;
use crate::base::clock::Now;

/// Lines of one kind in a second, of all cores together.
const LINES_PER_SECOND_MAX: u32 = 10;

const WINDOW_US: u64 = 1_000_000;

/// Clocks that differ by more are not those of one broker's cores.
const CLOCKS_DIFFER_S: u64 = 60;

/// Bytes of a name that are shown.
const NAME_BYTES_MAX: usize = 128;

/// Lines of all kinds that were left out.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Lines that were left out since the start.
pub fn left_out() -> u64 {
    LEFT_OUT.load(Relaxed)
}

/// Time for those who are not told it. A kind of line goes by this one or by an executor's.
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    Now(elapsed.as_micros().try_into().unwrap_or(u64::MAX))
}

/// How many lines of one kind there were lately. Threads that log at once may exceed the bound by one
/// line each, and nothing else goes by it: Relaxed suffices.
#[derive(Debug)]
pub struct Rate {
    /// The second that is counted, plus one; 0 before the first.
    second: AtomicU64,
    lines: AtomicU32,
    left_out: AtomicU64,
}

impl Rate {
    /// None so far.
    #[expect(clippy::new_without_default, reason = "it stands in a static")]
    pub const fn new() -> Self {
        let (second, left_out) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { second, lines: AtomicU32::new(0), left_out }
    }

    /// Whether one more may be written; if so, how many were left out before it, unless none.
    pub fn admit(&self, now: Now) -> Result<Option<u64>, LeftOut> {
        let second = now.0 / WINDOW_US + 1;
        let counted = self.second.load(Relaxed);
        // Cores differ by a little, and are counted together.
        if second > counted || counted - second > CLOCKS_DIFFER_S {
            self.second.store(second, Relaxed);
            self.lines.store(0, Relaxed);
        }
        if self.lines.fetch_add(1, Relaxed) >= LINES_PER_SECOND_MAX {
            self.lines.store(LINES_PER_SECOND_MAX, Relaxed);
            self.left_out.fetch_add(1, Relaxed);
            LEFT_OUT.fetch_add(1, Relaxed);
            return Err(LeftOut);
        }
        Ok(Some(self.left_out.swap(0, Relaxed)).filter(|&lines| lines > 0))
    }
}

/// A line that is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut;

/// Logs as `tracing::LEVEL!(…)` does, at most so many times a second from each place it stands at:
/// `rated!(warn, now, field = …, "text")`.
macro_rules! rated {
    (error, $($line:tt)+) => { $crate::base::log_rate::rated!(@ error ERROR $($line)+) };
    (warn, $($line:tt)+) => { $crate::base::log_rate::rated!(@ warn WARN $($line)+) };
    (info, $($line:tt)+) => { $crate::base::log_rate::rated!(@ info INFO $($line)+) };
    (@ $level:ident $LEVEL:ident $now:expr, $($line:tt)+) => {{
        static RATE: $crate::base::log_rate::Rate = $crate::base::log_rate::Rate::new();
        if tracing::enabled!(tracing::Level::$LEVEL)
            && let Ok(left_out) = RATE.admit($now)
        {
            tracing::$level!(left_out, $($line)+);
        }
    }};
}
pub(crate) use rated;

/// A field that a peer chose.
pub fn name(text: &str) -> DisplayValue<Name<'_>> {
    tracing::field::display(Name(text))
}

/// A text that a peer chose, as it stands in the log: its beginning, without control characters, and how
/// long it is if that is not all.
#[derive(Clone, Copy)]
pub struct Name<'a>(pub &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.floor_char_boundary(NAME_BYTES_MAX)];
        for character in shown.chars() {
            // Among them those that turn the direction of what follows.
            match character.is_control() || is_invisible(character) {
                true => write!(f, "{}", character.escape_unicode())?,
                false => f.write_char(character)?,
            }
        }
        match shown.len() < self.0.len() {
            true => write!(f, "… ({} bytes)", self.0.len()),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Line and paragraph separators, and what changes the direction of text.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_kind_are_rated_and_the_next_one_tells_how_many_were_left_out() {
        let rate = Rate::new();
        let admitted = |now| (0..25).filter(|_| rate.admit(Now(now)).is_ok()).count();
        let before = left_out();
        assert_eq!((admitted(0), admitted(999_999)), (10, 0));
        assert!(left_out() - before >= 40); // of all kinds, and other tests log too
        assert_eq!(rate.admit(Now(1_000_000)), Ok(Some(40)));
        assert_eq!(rate.admit(Now(1_000_001)), Ok(None));
        // A core whose clock is behind has no second of its own.
        assert_eq!((admitted(500_000), admitted(1_000_000)), (8, 0));
    }

    #[test]
    fn a_name_is_cut_where_a_character_ends_and_says_how_long_it_is() {
        let shown = |text: &str| Name(text).to_string();
        assert_eq!(shown("sensor/1 é"), "sensor/1 é");
        assert_eq!(shown(&"x".repeat(128)), "x".repeat(128));
        assert_eq!(shown(&"é".repeat(65)), format!("{}… (130 bytes)", "é".repeat(64)));
        let odd = format!("x{}", "é".repeat(100));
        assert_eq!(shown(&odd), format!("x{}… (201 bytes)", "é".repeat(63)));
    }

    #[test]
    fn a_name_cannot_begin_another_line_or_change_the_terminal() {
        assert_eq!(Name("a\nb\u{1b}[2J\u{202e}").to_string(), r"a\u{a}b\u{1b}[2J\u{202e}");
        // Escaped, the longest takes a known number of bytes.
        assert!(Name(&"\u{1}".repeat(65_535)).to_string().len() < 128 * 8);
    }
}
