//! A small thread pool for blocking work: password hashes, signatures, network requests. Its
//! threads start with the first job, end after an idle period, and never serve a connection. Knows
//! nothing of the jobs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use flume::{Receiver, RecvTimeoutError, Sender, TrySendError};

use crate::base::log_rate;
use crate::base::log_rate::rated;

/// How long a thread waits for another job before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// Maximum number of threads on any machine.
const THREADS_MAX: usize = 32;

type Job = Box<dyn FnOnce() + Send>;

/// The queue of jobs is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// A thread pool; clones share it.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    give: Sender<Job>,
    take: Receiver<Job>,
    threads: AtomicUsize,
    threads_max: usize,
    /// Jobs submitted and not completed.
    unfinished: AtomicUsize,
}

impl Pool {
    /// A pool of at most `threads_max` threads and `waiting_max` queued jobs.
    pub fn new(threads_max: usize, waiting_max: usize) -> Self {
        let (give, take) = flume::bounded(waiting_max);
        let (threads, unfinished) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Shared { give, take, threads, threads_max: threads_max.max(1), unfinished }))
    }

    /// A pool with as many threads as this process may use processors, at most 32: more threads
    /// would not be faster, and each password hash takes memory.
    pub fn for_this_machine(waiting_max: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(processors.min(THREADS_MAX), waiting_max)
    }

    /// Queues a job, which runs on the first free thread.
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

    /// Number of running and queued jobs.
    pub fn unfinished(&self) -> usize {
        self.0.unfinished.load(Relaxed)
    }

    /// Number of threads.
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
            // The job stays queued until a thread is free or the next attempt to start one
            // succeeds.
            rated!(warn, log_rate::now(), %error, "cannot start a thread of the pool");
        }
    }
}

impl Shared {
    /// Reserves a slot for one more thread, unless the maximum is reached.
    fn may_add_thread(&self) -> bool {
        let one_more = |threads| (threads < self.threads_max).then_some(threads + 1);
        self.threads.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }
}

fn serve(shared: &Shared) {
    loop {
        match shared.take.recv_timeout(IDLE) {
            Ok(job) => {
                // The job's receiver learns of a panic because the job's captured state is dropped.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    rated!(error, log_rate::now(), "a job of the pool panicked");
                }
                shared.unfinished.fetch_sub(1, Relaxed);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                shared.threads.fetch_sub(1, Relaxed);
                // A job submitted just now relied on this thread.
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
            pool.run(move || done.send(number).expect("the test waits"))
                .expect("the queue has room");
        }
        let mut seen: Vec<i32> = (0..50).map(|_| is_done.recv().expect("each is run")).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        assert!((1..=2).contains(&pool.threads()), "{}", pool.threads());
    }

    #[test]
    fn a_job_beyond_the_queue_bound_is_refused_and_the_others_complete() {
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
        has_begun.recv().expect("the operation starts");
        for number in 1..=3 {
            let done = done.clone();
            pool.run(move || done.send(number).expect("the test waits"))
                .expect("the queue has room");
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
        pool.run(move || done.send(()).expect("the test waits")).expect("the queue has room");
        is_done.recv().expect("the job is done");
    }
}
