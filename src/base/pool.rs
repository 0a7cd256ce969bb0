//! A small pool of threads for what blocks: password hashes, signatures, requests over the network.
//! Its threads start with the first job, end when there is nothing to do for a while, and never
//! serve a connection. Knows nothing of what it runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use flume::{Receiver, RecvTimeoutError, Sender, TrySendError};

use crate::base::log_rate;
use crate::base::log_rate::rated;

/// How long a thread waits for another job before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// Threads at most, whatever the machine.
const THREADS_MAX: usize = 32;

type Job = Box<dyn FnOnce() + Send>;

/// As many jobs wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// The pool; clones are the same one.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    give: Sender<Job>,
    take: Receiver<Job>,
    threads: AtomicUsize,
    threads_max: usize,
    /// Jobs that were given and are not done.
    unfinished: AtomicUsize,
}

impl Pool {
    /// One of at most `threads_max` threads, in which at most `waiting_max` jobs wait.
    pub fn new(threads_max: usize, waiting_max: usize) -> Self {
        let (give, take) = flume::bounded(waiting_max);
        let (threads, unfinished) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Shared { give, take, threads, threads_max: threads_max.max(1), unfinished }))
    }

    /// The same with as many threads as this process may use processors, 32 at most: more would get no
    /// more done, and each hash takes memory.
    pub fn for_this_machine(waiting_max: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(processors.min(THREADS_MAX), waiting_max)
    }

    /// Runs a job on one of the threads, as soon as one is free.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Busy> {
        let shared = &self.0;
        let unfinished = shared.unfinished.fetch_add(1, Relaxed) + 1;
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            shared.give.try_send(Box::new(job))
        {
            shared.unfinished.fetch_sub(1, Relaxed);
            return Err(Busy);
        }
        if unfinished > shared.threads.load(Relaxed) {
            self.start_thread();
        }
        Ok(())
    }

    /// Jobs that run or wait.
    pub fn unfinished(&self) -> usize {
        self.0.unfinished.load(Relaxed)
    }

    /// Threads there are.
    pub fn threads(&self) -> usize {
        self.0.threads.load(Relaxed)
    }

    fn start_thread(&self) {
        if !self.0.may_add_thread() {
            return;
        }
        let shared = Arc::clone(&self.0);
        let run = move || serve(&shared);
        if let Err(error) = std::thread::Builder::new().name("pool".to_owned()).spawn(run) {
            self.0.threads.fetch_sub(1, Relaxed);
            // The job waits for a thread that is there, or for the next attempt to start one.
            rated!(warn, log_rate::now(), %error, "cannot start a thread of the pool");
        }
    }
}

impl Shared {
    /// Counts one more thread, unless there are as many as may be.
    fn may_add_thread(&self) -> bool {
        let one_more = |threads| (threads < self.threads_max).then_some(threads + 1);
        self.threads.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }
}

fn serve(shared: &Shared) {
    loop {
        match shared.take.recv_timeout(IDLE) {
            Ok(job) => {
                // Whoever waits for the job's answer is told by what the job holds being dropped.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    rated!(error, log_rate::now(), "a job of the pool panicked");
                }
                shared.unfinished.fetch_sub(1, Relaxed);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                shared.threads.fetch_sub(1, Relaxed);
                // A job that came in this moment counted on this thread.
                if shared.take.is_empty() || !shared.may_add_thread() {
                    return;
                }
            }
        }
    }
    shared.threads.fetch_sub(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn no_thread_starts_before_the_first_job_and_no_more_than_allowed() {
        let pool = Pool::new(2, 100);
        assert_eq!(pool.threads(), 0);
        let (done, is_done) = mpsc::channel();
        for number in 0..50 {
            let done = done.clone();
            pool.run(move || done.send(number).expect("the test waits")).expect("there is room");
        }
        let mut seen: Vec<i32> = (0..50).map(|_| is_done.recv().expect("each is run")).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        assert!((1..=2).contains(&pool.threads()), "{}", pool.threads());
    }

    #[test]
    fn beyond_what_may_wait_a_job_is_refused_and_the_others_are_done() {
        let pool = Pool::new(1, 3);
        let (go, may_go) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let first = done.clone();
        pool.run(move || {
            begun.send(()).expect("the test waits");
            may_go.recv().expect("the test says so");
            first.send(0).expect("the test waits");
        })
        .expect("there is room");
        has_begun.recv().expect("it begins");
        for number in 1..=3 {
            let done = done.clone();
            pool.run(move || done.send(number).expect("the test waits")).expect("there is room");
        }
        assert_eq!(pool.run(|| unreachable!("it is refused")), Err(Busy));
        assert_eq!(pool.unfinished(), 4);
        go.send(()).expect("the thread waits");
        assert_eq!((0..4).map(|_| is_done.recv().expect("done")).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_job_that_panics_takes_no_other_with_it() {
        let pool = Pool::new(1, 10);
        pool.run(|| panic!("on purpose")).expect("there is room");
        let (done, is_done) = mpsc::channel();
        pool.run(move || done.send(()).expect("the test waits")).expect("there is room");
        is_done.recv().expect("it is done");
    }
}
