//! Collections of what the cores count and record. Requests at the same time share one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::admin::tasks;
use crate::stats::{SharedStatistics, Snapshot};

/// Collections of the cores' statistics.
#[derive(Debug)]
pub struct Collections {
    statistics: SharedStatistics,
    last: Mutex<Option<Collection>>,
}

/// What a collection found.
#[derive(Debug)]
struct Collection {
    ended: Instant,
    /// How long it waited for the cores.
    patience: Duration,
    snapshot: Arc<Snapshot>,
}

impl Collection {
    /// Whether it is as good as one that begins at this time with this patience.
    fn serves(&self, arrived: Instant, patience: Duration) -> bool {
        let is_complete = self.patience >= patience || self.snapshot.missing().is_empty();
        self.ended >= arrived && is_complete
    }
}

impl Collections {
    /// Collections of these statistics.
    pub fn new(statistics: SharedStatistics) -> Self {
        Self { statistics, last: Mutex::default() }
    }

    /// Asks all cores and waits so long for their replies, or shares a collection that has begun. A core that has not
    /// replied to the last question is not asked again, so that nobody fills the queue of a core that hangs.
    pub async fn snapshot(&self, patience: Duration) -> Arc<Snapshot> {
        let arrived = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(last) = last.as_ref().filter(|last| last.serves(arrived, patience)) {
            return Arc::clone(&last.snapshot);
        }
        let statistics = self.statistics.clone();
        let collecting = tasks::beside(move || statistics.snapshot(patience));
        // A panic is one of this request.
        let snapshot = Arc::new(collecting.await.expect("the collection does not panic"));
        let ended = Instant::now();
        *last = Some(Collection { ended, patience, snapshot: Arc::clone(&snapshot) });
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::base::metrics::Metrics;
    use crate::base::notifier::Notifier;
    use crate::base::waker::Waker;
    use crate::control::{Command, Cores, Inbox, Statistics};
    use crate::stats::{PATIENCE, Recorder, collector};

    /// Collections of a core that the test plays, with its inbox; without its recorder, the core would have stopped.
    fn of_one_core() -> (Collections, Vec<Inbox>, Vec<Recorder>) {
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let (cores, inboxes) = Cores::new([Notifier::new(Waker::Poll(waker))].into());
        let (recorders, collector) = collector(1);
        (Collections::new(SharedStatistics::new(cores, collector, false)), inboxes, recorders)
    }

    #[test]
    fn requests_at_the_same_time_share_one_collection() {
        let (collections, mut inboxes, _recorders) = of_one_core();
        let (stop, mut asked) = (AtomicBool::new(false), 0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        std::thread::scope(|scope| {
            let core = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Long enough for all requests to begin.
                    std::thread::sleep(Duration::from_millis(20));
                    while let Some(Command::Statistics { empty, reply }) = inboxes[0].next_command()
                    {
                        asked += 1;
                        let metrics = Metrics { turns: asked, ..Metrics::default() };
                        reply.send(Statistics { recording: empty, metrics });
                    }
                }
            });
            let turns = runtime.block_on(async {
                let both = async {
                    tokio::join!(collections.snapshot(PATIENCE), collections.snapshot(PATIENCE))
                };
                let (one, other) = both.await;
                let later = collections.snapshot(PATIENCE).await;
                [one, other, later].map(|snapshot| snapshot.all.turns)
            });
            stop.store(true, Ordering::Relaxed);
            core.join().expect("it ends");
            assert_eq!(turns, [1, 1, 2]);
        });
        assert_eq!(asked, 2);
    }

    #[test]
    fn who_waits_longer_for_a_core_does_not_share_what_others_have_given_up() {
        let (collections, mut inboxes, _recorders) = of_one_core();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
        let answer = move || {
            std::thread::sleep(3 * short);
            let Some(Command::Statistics { empty, reply }) = inboxes[0].next_command() else {
                panic!("one question");
            };
            reply.send(Statistics { recording: empty, metrics: Metrics::default() });
            assert!(inboxes[0].next_command().is_none(), "a core is not asked again");
        };
        let core = std::thread::spawn(answer);
        let (hasty, patient) = runtime.block_on(async {
            tokio::join!(collections.snapshot(short), collections.snapshot(long))
        });
        core.join().expect("it ends");
        assert_eq!((hasty.missing(), patient.missing()), (vec![0], vec![]));
    }
}
