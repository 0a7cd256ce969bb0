//! Collects the statistics of all cores: asks each, and keeps the counters of their last replies.

use std::time::{Duration, Instant};

use crate::base::latencies::Recording;
use crate::base::metrics::Metrics;
use crate::control::{Command, Cores, Refused, Replies, ReplyTo, Statistics, replies};
use crate::stats::Recorder;

/// How long a core may take to reply to a report or a scrape. A core that takes longer, in a turn longer than this, is
/// missing in one, and what it recorded is in the next.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Collects what the recorders of all cores record.
#[derive(Debug)]
pub struct Collector {
    cores: Vec<Collected>,
    reply_to: ReplyTo<Statistics>,
    replies: Replies<Statistics>,
}

/// What is known of one core.
#[derive(Debug)]
struct Collected {
    /// An empty recording for the next command; none while a reply is awaited.
    spare: Option<Box<Recording>>,
    /// Counters of the last reply.
    metrics: Metrics,
    /// Whether the core has replied to the last command.
    has_replied: bool,
}

/// A recorder for each of `cores` cores, and the collector for all.
pub fn collector(cores: u16) -> (Vec<Recorder>, Collector) {
    let (reply_to, replies) = replies();
    let of_core = |core| {
        let metrics = Metrics::default();
        let collected = Collected { spare: Some(Box::default()), metrics, has_replied: false };
        (Recorder::new(reply_to.core(core)), collected)
    };
    let (recorders, cores) = (0..usize::from(cores)).map(of_core).unzip();
    (recorders, Collector { cores, reply_to, replies })
}

impl Collector {
    /// The number of cores.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// Asks all cores, waits so long for their replies, and gives `take` what each has recorded since its last reply. A
    /// core that has not replied to the last command is not asked again.
    pub fn collect(
        &mut self,
        from: &Cores,
        patience: Duration,
        mut take: impl FnMut(usize, &Recording),
    ) {
        for (core, collected) in self.cores.iter_mut().enumerate() {
            collected.has_replied = false;
            if let Some(empty) = collected.spare.take() {
                let reply = self.reply_to.core(core);
                // The refusal is among the replies.
                let _ = from.send(core, Command::Statistics { empty, reply });
            }
        }
        let deadline = Instant::now() + patience;
        while self.cores.iter().any(|of| of.spare.is_none()) {
            let Some((core, answer)) = self.replies.next_before(deadline) else { break };
            self.add(core, answer, &mut take);
        }
    }

    /// What the cores sent when they stopped.
    pub fn collect_last(&mut self, mut take: impl FnMut(usize, &Recording)) {
        while let Some((core, answer)) = self.replies.try_next() {
            self.add(core, answer, &mut take);
        }
    }

    fn add(
        &mut self,
        core: usize,
        answer: Result<Statistics, Refused>,
        take: &mut impl FnMut(usize, &Recording),
    ) {
        let collected = &mut self.cores[core];
        let Ok(Statistics { mut recording, metrics }) = answer else {
            collected.spare.get_or_insert_default();
            return;
        };
        take(core, &recording);
        recording.clear();
        collected.spare.get_or_insert(recording);
        collected.metrics = metrics;
        collected.has_replied = true;
    }

    /// Whether a core has replied when it was asked last.
    pub fn has_replied(&self, core: usize) -> bool {
        self.cores[core].has_replied
    }

    /// Counters of a core since the start, as of its last reply.
    pub fn metrics(&self, core: usize) -> &Metrics {
        &self.cores[core].metrics
    }
}
