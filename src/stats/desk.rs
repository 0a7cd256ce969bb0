//! Between the cores and whoever reports: asking all cores, and adding up what they answer.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::base::metrics::Metrics;
use crate::stats::recorder::Answer;
use crate::stats::{Recorder, Recording};

/// How long a core may take to answer. One that does not, in a turn longer than this, is missing in
/// one report, and what it recorded is in the next.
const PATIENCE: Duration = Duration::from_secs(1);

/// The reporter's end.
pub struct Desk {
    cores: Vec<Seat>,
    answers: mpsc::Receiver<Answer>,
    wake: Box<dyn Fn() + Send>,
}

/// One core, seen from here.
struct Seat {
    asks: mpsc::Sender<Box<Recording>>,
    /// An empty recording to ask with; none while an answer is awaited.
    spare: Option<Box<Recording>>,
    /// Counters as it said last.
    metrics: Metrics,
}

/// A recorder for each of `cores` cores, and the other end of all.
pub fn desk(cores: u16) -> (Vec<Recorder>, Desk) {
    let (say, answers) = mpsc::channel();
    let seat = |core| {
        let (asks, asked) = mpsc::channel();
        let recorder = Recorder::new(core, asked, say.clone());
        (recorder, Seat { asks, spare: Some(Box::default()), metrics: Metrics::default() })
    };
    let (recorders, cores) = (0..usize::from(cores)).map(seat).unzip();
    (recorders, Desk { cores, answers, wake: Box::new(|| {}) })
}

impl Desk {
    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// How to wake all cores, so that they see that they are asked.
    pub fn waking(mut self, wake: impl Fn() + Send + 'static) -> Self {
        self.wake = Box::new(wake);
        self
    }

    /// Asks all cores, and gives `take` what each recorded since it was asked last.
    pub fn collect(&mut self, mut take: impl FnMut(usize, &Recording)) {
        for seat in &mut self.cores {
            // One that ended hears nothing; its last answer is on its way.
            if let Some(empty) = seat.spare.take() {
                let _ = seat.asks.send(empty);
            }
        }
        (self.wake)();
        let until = Instant::now() + PATIENCE;
        while self.cores.iter().any(|seat| seat.spare.is_none()) {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(answer) = self.answers.recv_timeout(left) else { break };
            self.hear(answer, &mut take);
        }
    }

    /// What the cores said at their end.
    pub fn collect_last(&mut self, mut take: impl FnMut(usize, &Recording)) {
        while let Ok(answer) = self.answers.try_recv() {
            self.hear(answer, &mut take);
        }
    }

    fn hear(&mut self, answer: Answer, take: &mut impl FnMut(usize, &Recording)) {
        let Answer { core, mut recording, metrics } = answer;
        take(core, &recording);
        recording.clear();
        let seat = &mut self.cores[core];
        seat.spare.get_or_insert(recording);
        seat.metrics = metrics;
    }

    /// Counters of a core since the start, as it said last.
    pub fn metrics(&self, core: usize) -> &Metrics {
        &self.cores[core].metrics
    }
}
