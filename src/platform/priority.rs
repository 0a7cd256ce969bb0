//! The priority of a thread at the scheduler.

use std::io;

/// Levels of nice(1) that a thread gives way by: with 10, it gets a tenth of a processor that it shares with one busy
/// core, so that it still answers.
#[cfg(target_os = "linux")]
const NICE_LEVELS: i32 = 10;

/// The highest level of nice(1).
#[cfg(target_os = "linux")]
const NICE_MAX: i32 = 19;

/// The time slice that the thread asks for, longer than that of any other by default. Since Linux 6.12, a thread that
/// wakes up interrupts one with a longer slice at once; otherwise that one may run on for some milliseconds.
#[cfg(target_os = "linux")]
const SLICE_NS: u64 = 5_000_000;

/// From now on, the calling thread lets the cores go first where they share a processor: it never interrupts them, a
/// core that wakes up interrupts it, and it gets the smaller part of a processor that both could use. A thread at real
/// time becomes an ordinary one. Nothing changes where the system has no such priorities.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "system calls without a wrapper")]
pub fn give_way() -> io::Result<()> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes.
    let outcome =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    if attributes.sched_policy != libc::SCHED_IDLE as u32 {
        attributes.sched_policy = libc::SCHED_BATCH as u32;
    }
    attributes.size = size;
    attributes.sched_flags = 0;
    attributes.sched_nice = (attributes.sched_nice + NICE_LEVELS).min(NICE_MAX);
    attributes.sched_priority = 0;
    attributes.sched_runtime = SLICE_NS;
    (attributes.sched_deadline, attributes.sched_period) = (0, 0);
    // SAFETY: the kernel reads `size` bytes.
    let outcome = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Nothing changes: the system has no such priorities.
#[cfg(not(target_os = "linux"))]
pub fn give_way() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Field `number` of the thread's line in `/proc`, counted behind its name: see proc_pid_stat(5).
    fn field(number: usize) -> i32 {
        let line = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux has it");
        let (_, behind) = line.rsplit_once(')').expect("the name is in brackets");
        behind.split_whitespace().nth(number).expect("a field").parse().expect("a number")
    }

    #[test]
    fn a_thread_that_gives_way_is_nicer_and_never_interrupts_others() {
        let (nice, policy) = (16, 38);
        let (before, after, policy) = std::thread::spawn(move || {
            let before = field(nice);
            give_way().expect("nobody forbids it");
            (before, field(nice), field(policy))
        })
        .join()
        .expect("no panic");
        assert_eq!(after, (before + NICE_LEVELS).min(NICE_MAX));
        assert_eq!(policy, libc::SCHED_BATCH);
        assert_eq!(field(nice), before, "other threads stay as they are");
    }
}
