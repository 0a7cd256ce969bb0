//! Deterministic simulation: several engines, the lanes between them and the network around them
//! under a seeded scheduler, and a judge that watches from outside.
//!
//! ```text
//! cargo test --release --test simulation                            thousands of seeds
//! RINGMQ_SIM_SECONDS=3600 cargo test --release --test simulation    seeds for an hour
//! RINGMQ_SIM_SEED=77 cargo test --release --test simulation         one seed, with its steps
//! RINGMQ_SIM_STEPS=2,3,7 RINGMQ_SIM_SEED=77 cargo test …            only these steps of the seed
//! ```
//!
//! With `--features cluster`, half of the seeds are runs of several nodes, see `nodes`.
//!
//! A failing seed is run again with steps omitted, as long as it still fails, and the remaining
//! steps are printed (disabled by `RINGMQ_SIM_SHRINK=no`). `tests/simulation/plant` verifies that
//! planted faults are found.

#[cfg(feature = "bridge")]
mod bridge;
#[cfg(not(feature = "bridge"))]
#[path = "bridge_absent.rs"]
mod bridge;
mod client;
mod judge;
#[cfg(feature = "admin")]
mod listing;
#[cfg(not(feature = "admin"))]
#[path = "listing_absent.rs"]
mod listing;
#[cfg(feature = "cluster")]
mod nodes;
#[cfg(not(feature = "cluster"))]
#[path = "nodes_absent.rs"]
mod nodes;
#[path = "../support/packets.rs"]
mod packets;
mod plan;
mod random;
mod run;
mod wills;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plan::Plan;
use run::Run;

/// Default duration of a run.
const SECONDS: u64 = if cfg!(debug_assertions) { 20 } else { 60 };
/// One of this many seeds is run twice, to verify that runs are deterministic.
const TWICE_EVERY: u64 = 50;

fn main() -> ExitCode {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse().ok());
    if let Some(seed) = number("RINGMQ_SIM_SEED") {
        return replay(seed);
    }
    let first = number("RINGMQ_SIM_FIRST").unwrap_or(1);
    let seconds = Duration::from_secs(number("RINGMQ_SIM_SECONDS").unwrap_or(SECONDS));
    let seeds = number("RINGMQ_SIM_SEEDS").unwrap_or(u64::MAX);
    // A failing seed is printed with its cause; the panic messages of shrinking are suppressed.
    std::panic::set_hook(Box::new(|_| {}));
    let begin = Instant::now();
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let failure = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while begin.elapsed() < seconds && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= seeds {
                        break;
                    }
                    if let Err(what) = check(seed) {
                        failed.store(true, Ordering::Relaxed);
                        failure.lock().expect("no panic").get_or_insert((seed, what));
                    }
                }
            });
        }
    });
    let elapsed = begin.elapsed().as_secs_f64();
    let Some((seed, what)) = failure.into_inner().expect("no panic") else {
        let count = (next.into_inner() - first).min(seeds);
        println!("simulation: {count} seeds in {elapsed:.0} s, no failure");
        return ExitCode::SUCCESS;
    };
    println!("simulation: seed {seed} failed after {elapsed:.1} s: {what}");
    println!("replay: RINGMQ_SIM_SEED={seed} cargo test --release --test simulation");
    if std::env::var_os("RINGMQ_SIM_SHRINK").is_none_or(|value| value != "no") {
        shrink(seed);
    }
    ExitCode::FAILURE
}

fn attempt(plan: &Plan, seed: u64, is_told: bool) -> Result<u64, String> {
    catch_unwind(AssertUnwindSafe(|| Run::through(plan, seed, is_told))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a message")))
    })
}

fn check(seed: u64) -> Result<(), String> {
    let plan = Plan::new(seed);
    let trace = attempt(&plan, seed, false)?;
    match seed.is_multiple_of(TWICE_EVERY) && attempt(&plan, seed, false)? != trace {
        true => Err("two runs of one seed differ".to_owned()),
        false => Ok(()),
    }
}

fn replay(seed: u64) -> ExitCode {
    let mut plan = Plan::new(seed);
    if let Ok(kept) = std::env::var("RINGMQ_SIM_STEPS") {
        plan.steps.retain(|(number, _)| kept.split(',').any(|kept| kept == number.to_string()));
    }
    println!("seed {seed}: {}", plan.setup());
    match attempt(&plan, seed, true) {
        Ok(_) => {
            println!("no failure");
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("failed: {what}");
            ExitCode::FAILURE
        }
    }
}

/// The failure, without the numbers of clients and messages.
fn kind_of(what: &str) -> String {
    let (_, what) = what.split_once(": ").unwrap_or(("", what));
    what.chars().filter(|c| c.is_alphabetic()).collect()
}

/// Omits steps, many at first, then fewer, as long as the run fails (Zeller and Hildebrandt, 2002).
fn shrink(seed: u64) {
    let mut plan = Plan::new(seed);
    let mut what = attempt(&plan, seed, false).err().unwrap_or_default();
    let kind = kind_of(&what);
    let begin = Instant::now();
    let mut size = plan.steps.len() / 2;
    while size > 0 && begin.elapsed() < Duration::from_secs(60) {
        let (mut from, mut is_shorter) = (0, false);
        while from < plan.steps.len() {
            let mut steps = plan.steps.clone();
            steps.drain(from..(from + size).min(plan.steps.len()));
            let shorter = Plan { steps, ..plan };
            match attempt(&shorter, seed, false) {
                Err(why) if kind_of(&why) == kind => {
                    (plan, what, is_shorter) = (shorter, why, true);
                }
                _ => from += size,
            }
        }
        if !is_shorter {
            size /= 2;
        }
    }
    println!("shortest failing run: {}", plan.setup());
    for (number, step) in &plan.steps {
        println!("{number:4} {step:?}");
    }
    println!("failed: {what}");
    let numbers: Vec<String> = plan.steps.iter().map(|(number, _)| number.to_string()).collect();
    println!("replay it: RINGMQ_SIM_STEPS={} RINGMQ_SIM_SEED={seed}", numbers.join(","));
}
