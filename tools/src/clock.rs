//! Nanoseconds of the clock that stamps, timetables and spans are told by. All processes of a
//! machine share it, so that one may say how long ago another one sent.

/// Now.
#[cfg(unix)]
#[inline]
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Now, since this process first asked: elsewhere a run has one process only.
#[cfg(not(unix))]
pub fn now_ns() -> u64 {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}

/// The moment a span after another.
pub fn after(ns: u64, span: std::time::Duration) -> u64 {
    ns + span.as_nanos() as u64
}
