//! A progress bar, on a terminal and for long runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clock;

/// Shorter runs have no bar.
const SHORTEST: Duration = Duration::from_secs(3);
/// Redraw interval, so that the bar costs nothing compared to the load.
const DRAWN_EVERY_NS: u64 = 200_000_000;

/// The bar of a run.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    unit: String,
    begun_ns: u64,
    last: (u64, u64),
}

impl Progress {
    /// A bar for a span that starts now at this count; invisible where it would disturb.
    pub fn new(shown: bool, span: Duration, unit: &str, done: u64) -> Self {
        let target = if shown && span >= SHORTEST {
            // Draws only if standard error is a terminal.
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(span.as_millis() as u64), target);
        let style = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}")
            .expect("the template is well formed");
        bar.set_style(style);
        let now_ns = clock::now_ns();
        Self { bar, unit: unit.into(), begun_ns: now_ns, last: (now_ns, done) }
    }

    /// Updates the count, if known.
    pub fn tick(&mut self, now_ns: u64, done: Option<u64>) {
        let (last_ns, last_done) = self.last;
        if self.bar.is_hidden() || now_ns < last_ns + DRAWN_EVERY_NS {
            return;
        }
        self.bar.set_position((now_ns - self.begun_ns) / 1_000_000);
        if let Some(done) = done {
            let rate = done.saturating_sub(last_done) as f64 * 1e9 / (now_ns - last_ns) as f64;
            self.bar.set_message(format!("{rate:.0} {} a second", self.unit));
            self.last = (now_ns, done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
