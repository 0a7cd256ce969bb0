//! The clock for stamps, timetables and spans, in nanoseconds. All processes of a machine share it,
//! so that one process can measure the age of another's message.

/// The current time.
#[cfg(unix)]
#[inline]
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The time since the first call in this process: other systems run a single process only.
#[cfg(not(unix))]
pub fn now_ns() -> u64 {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}

/// The instant `duration` after another.
pub fn after(ns: u64, span: std::time::Duration) -> u64 {
    ns + span.as_nanos() as u64
}
