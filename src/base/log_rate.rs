//! Rate-limited logging for lines that peers can cause: a bounded number per second and call site,
//! with peer-chosen text truncated. Suppressed lines are counted, and the next line of the same
//! kind states how many.

use std::fmt::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tracing::field::DisplayValue;

use crate::base::atomic::AtomicU64;
use crate::base::clock::Now;

/// Maximum number of lines of one kind per second, over all cores.
const LINES_PER_SECOND_MAX: u32 = 10;

const WINDOW_US: u64 = 1_000_000;

/// Larger differences cannot come from the clocks of one broker's cores.
const CLOCKS_DIFFER_S: u64 = 60;

/// Maximum displayed length of a name in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Suppressed lines of all kinds.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Number of lines suppressed since the start.
pub fn suppressed_lines() -> u64 {
    LEFT_OUT.load(Relaxed)
}

/// The time for callers without an executor's clock. Each kind of line uses either this clock or an
/// executor's.
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    Now(elapsed.as_micros().try_into().unwrap_or(u64::MAX))
}

/// Counter of recent lines of one kind. Concurrent threads may exceed the bound by one line each,
/// and no other data depends on it, so Relaxed suffices.
#[derive(Debug)]
pub struct Rate {
    /// The current second, plus one; 0 before the first line.
    second: AtomicU64,
    lines: AtomicU32,
    suppressed: AtomicU64,
    lines_max: u32,
}

impl Rate {
    /// Creates a counter without lines.
    #[expect(clippy::new_without_default, reason = "only used in statics")]
    pub const fn new() -> Self {
        Self::with_max(LINES_PER_SECOND_MAX)
    }

    /// Creates a counter that admits so many lines per second.
    pub const fn with_max(lines_max: u32) -> Self {
        let (second, suppressed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { second, lines: AtomicU32::new(0), suppressed, lines_max }
    }

    /// Whether one more line may be written; if so, the number of lines suppressed before it, if
    /// any.
    pub fn admit(&self, now: Now) -> Result<Option<u64>, Suppressed> {
        let second = now.0 / WINDOW_US + 1;
        let counted = self.second.load(Relaxed);
        // The clocks of cores differ slightly; their lines share one counter.
        if second > counted || counted - second > CLOCKS_DIFFER_S {
            self.second.store(second, Relaxed);
            self.lines.store(0, Relaxed);
        }
        if self.lines.fetch_add(1, Relaxed) >= self.lines_max {
            self.lines.store(self.lines_max, Relaxed);
            return Err(self.suppress());
        }
        Ok(Some(self.suppressed.swap(0, Relaxed)).filter(|&lines| lines > 0))
    }

    /// Counts a line that is left out for another reason, such as a limit of its own.
    pub fn suppress(&self) -> Suppressed {
        self.suppressed.fetch_add(1, Relaxed);
        LEFT_OUT.fetch_add(1, Relaxed);
        Suppressed
    }
}

/// The line is suppressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed;

/// Logs like `tracing::LEVEL!(…)`, but at most a fixed number of times per second and call site:
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

/// Logs like `tracing::LEVEL!(…)` if `admit` returns `Ok`, for a limit that is not one of the call site:
/// `rated_by!(info, left_out = admit, field = …, left_out, "text")`.
/// `info or warn if condition` in place of the level: a line of level `warn` on a condition.
macro_rules! rated_by {
    (info or warn if $is_warning:expr, $($line:tt)+) => {
        if $is_warning {
            $crate::base::log_rate::rated_by!(@ warn WARN $($line)+)
        } else {
            $crate::base::log_rate::rated_by!(@ info INFO $($line)+)
        }
    };
    (info, $($line:tt)+) => { $crate::base::log_rate::rated_by!(@ info INFO $($line)+) };
    (@ $level:ident $LEVEL:ident $left_out:ident = $admit:expr, $($line:tt)+) => {{
        if tracing::enabled!(tracing::Level::$LEVEL)
            && let Ok($left_out) = $admit
        {
            tracing::$level!($($line)+);
        }
    }};
}
pub(crate) use rated_by;

/// Maximum displayed length of a text with details in bytes.
const DETAIL_BYTES_MAX: usize = 512;

/// A log field with a text that may contain peer-chosen parts, and that may be longer than a name.
pub fn detail(text: &str) -> DisplayValue<Detail<'_>> {
    tracing::field::display(Detail(text))
}

/// Text like a [`Name`], of which more is shown.
#[derive(Clone, Copy, Debug)]
pub struct Detail<'a>(pub &'a str);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_cut(f, self.0, DETAIL_BYTES_MAX)
    }
}

/// A log field with peer-chosen text.
pub fn name(text: &str) -> DisplayValue<Name<'_>> {
    tracing::field::display(Name(text))
}

/// Peer-chosen text for the log: truncated, without control characters, with the full length if
/// truncated.
#[derive(Clone, Copy)]
pub struct Name<'a>(pub &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_cut(f, self.0, NAME_BYTES_MAX)
    }
}

fn write_cut(f: &mut fmt::Formatter<'_>, text: &str, bytes_max: usize) -> fmt::Result {
    let shown = &text[..text.floor_char_boundary(bytes_max)];
    for character in shown.chars() {
        // Including characters that change the text direction.
        match character.is_control() || is_invisible(character) {
            true => write!(f, "{}", character.escape_unicode())?,
            false => f.write_char(character)?,
        }
    }
    match shown.len() < text.len() {
        true => write!(f, "… ({} bytes)", text.len()),
        false => Ok(()),
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Line and paragraph separators, and characters that change the text direction.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_kind_are_limited_and_the_next_one_states_how_many_were_suppressed() {
        let rate = Rate::new();
        let admitted = |now| (0..25).filter(|_| rate.admit(Now(now)).is_ok()).count();
        let before = suppressed_lines();
        assert_eq!((admitted(0), admitted(999_999)), (10, 0));
        assert!(suppressed_lines() - before >= 40); // of all kinds, and other tests log too
        assert_eq!(rate.admit(Now(1_000_000)), Ok(Some(40)));
        assert_eq!(rate.admit(Now(1_000_001)), Ok(None));
        // A core whose clock is behind shares the current second.
        assert_eq!((admitted(500_000), admitted(1_000_000)), (8, 0));
    }

    #[test]
    fn a_name_is_truncated_at_a_character_boundary_and_shows_its_length() {
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
        // With escapes, the longest name has a bounded size.
        assert!(Name(&"\u{1}".repeat(65_535)).to_string().len() < 128 * 8);
    }
}
