//! Probes io_uring by using it, and explains why it is unavailable.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use io_uring::{cqueue, opcode, types};

use crate::config::Uring;
use crate::executor::uring::buffers::{self, Buffers};
use crate::executor::uring::ring::{Ring, Shape};

/// Set to 2, io_uring is disabled for everyone; set to 1, for all but one group. Since Linux 6.6.
const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

/// The newest of the required operations. Linux 6.0 has them all.
const NEEDED: [(&str, u8); 5] = [
    ("RECV", opcode::RecvMulti::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel2::CODE),
    ("SHUTDOWN", opcode::Shutdown::CODE),
    ("MSG_RING", opcode::MsgRingSendFd::CODE),
    ("SEND_ZC", opcode::SendZc::CODE),
];

/// Why io_uring cannot be used.
#[derive(Debug)]
pub enum Unavailable {
    /// The kernel has no io_uring.
    Absent,
    /// The administrator disabled io_uring for everyone, or for all but one group.
    DisabledBySysctl(u32),
    /// A seccomp filter on this process blocks it.
    Forbidden,
    /// The kernel's io_uring lacks a required feature.
    TooOld(String),
    /// The locked-memory limit of the process is too low.
    NoMemory {
        /// The limit, in bytes.
        locked_bytes_max: Option<u64>,
    },
    /// Any other error.
    Other(io::Error),
}

impl Unavailable {
    /// A machine-readable name of the reason.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::DisabledBySysctl(_) => "disabled-by-sysctl",
            Self::Forbidden => "forbidden",
            Self::TooOld(_) => "too-old",
            Self::NoMemory { .. } => "no-memory",
            Self::Other(_) => "failed",
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str(
                "this kernel has no io_uring (it needs Linux 6.0 or later, built with \
                 CONFIG_IO_URING), or a seccomp filter hides it",
            ),
            Self::DisabledBySysctl(value) => write!(
                f,
                "io_uring is disabled by sysctl: kernel.io_uring_disabled = {value}; an \
                 administrator may set it to 0"
            ),
            Self::Forbidden => f.write_str(
                "a seccomp filter blocks io_uring for this process, as the default profiles of container \
                 runtimes do; use a profile that allows io_uring_setup, io_uring_enter and \
                 io_uring_register",
            ),
            Self::TooOld(missing) => {
                write!(
                    f,
                    "this kernel's io_uring is too old: it lacks {missing} (needs Linux 6.0 or later)"
                )
            }
            Self::NoMemory { locked_bytes_max } => {
                f.write_str("this process may not lock the memory that io_uring needs")?;
                if let Some(bytes) = locked_bytes_max {
                    write!(f, ": its limit is {} KiB", bytes / 1024)?;
                }
                f.write_str("; raise it (`ulimit -l`, or LimitMEMLOCK in a systemd unit)")
            }
            Self::Other(error) => write!(f, "io_uring failed: {error}"),
        }
    }
}

impl std::error::Error for Unavailable {}

/// Optional features of this kernel's io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Task work can be deferred (Linux 6.1).
    pub defer_taskrun: bool,
    /// Several receives can share a buffer (Linux 6.12).
    pub incremental: bool,
    /// A socket removed from the ring's table is closed immediately. Before Linux 6.13 it stays open until
    /// every earlier operation on any socket of the table has ended, so as long as one client is idle
    /// (<https://github.com/axboe/liburing/issues/1192>).
    pub closes_direct_descriptors: bool,
}

/// Sets up a ring with the settings `uring` for `sockets_max` sockets, and receives a byte with it.
pub fn probe(uring: &Uring, sockets_max: u32) -> Result<Abilities, Unavailable> {
    let shape = Shape::of(uring, crate::executor::table_max(sockets_max));
    let mut ring = Ring::new(shape).map_err(|error| why(error, Path::new(SYSCTL)))?;
    let mut known = io_uring::Probe::new();
    ring.submitter().register_probe(&mut known).map_err(Unavailable::Other)?;
    let missing = NEEDED.iter().filter(|(_, code)| !known.is_supported(*code));
    let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        return Err(Unavailable::TooOld(missing.join(", ")));
    }
    let buffer_bytes = uring.buffer_bytes as usize;
    let buffers = Buffers::new(&ring, uring.buffers, buffer_bytes, uring.incremental);
    let buffers = buffers.map_err(|error| why(error, Path::new(SYSCTL)))?;
    receive_a_byte(&mut ring).map_err(Unavailable::Other)?;
    Ok(Abilities {
        defer_taskrun: ring.defers_taskrun(),
        incremental: buffers.is_incremental(),
        closes_direct_descriptors: closes_at_once(uring).unwrap_or(false),
    })
}

/// Closes a socket of a ring's table while an operation on another is pending; returns whether its peer sees
/// the close.
#[expect(unsafe_code, reason = "submits entries that point to no memory")]
fn closes_at_once(uring: &Uring) -> io::Result<bool> {
    let mut ring = Ring::new(Shape::of(uring, 2))?;
    let (idle, (peer, closed)) = (UnixStream::pair()?, UnixStream::pair()?);
    let table = [idle.0.as_raw_fd(), closed.as_raw_fd()];
    ring.submitter().register_files_update(0, &table)?;
    drop(closed);
    let receive = opcode::PollAdd::new(types::Fixed(0), libc::POLLIN as u32).build();
    // SAFETY: the entry points to no memory.
    unsafe { ring.push(&receive) }?;
    ring.enter(Some(std::time::Duration::ZERO))?;
    let close = opcode::Close::new(types::Fixed(1)).build();
    // SAFETY: as above.
    unsafe { ring.push(&close) }?;
    ring.enter(Some(std::time::Duration::from_secs(1)))?;
    peer.set_nonblocking(true)?;
    match (&peer).read(&mut [0]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

#[expect(unsafe_code, reason = "submits an entry that points to no memory")]
fn receive_a_byte(ring: &mut Ring) -> io::Result<()> {
    let (mut here, there) = UnixStream::pair()?;
    here.write_all(b"!")?;
    let file = types::Fd(there.as_raw_fd());
    let entry = opcode::RecvMulti::new(file, buffers::GROUP).build();
    // SAFETY: the entry points to no memory.
    unsafe { ring.push(&entry) }?;
    ring.enter(Some(std::time::Duration::from_secs(1)))?;
    let mut completions = Vec::new();
    ring.take_completions(&mut completions)?;
    match completions.first() {
        Some(first) if first.result == 1 && cqueue::more(first.flags) => Ok(()),
        Some(first) if first.result < 0 => Err(io::Error::from_raw_os_error(-first.result)),
        _ => Err(io::Error::other("a multishot receive failed")),
    }
}

/// Explains a failed setup: see io_uring_setup(2).
fn why(error: io::Error, sysctl: &Path) -> Unavailable {
    let disabled = std::fs::read_to_string(sysctl).ok().and_then(|text| text.trim().parse().ok());
    match (error.raw_os_error(), disabled) {
        (Some(libc::ENOSYS), _) => Unavailable::Absent,
        (Some(libc::EPERM | libc::EACCES), Some(value @ 1..)) => {
            Unavailable::DisabledBySysctl(value)
        }
        (Some(libc::EPERM | libc::EACCES), _) => Unavailable::Forbidden,
        (Some(libc::EINVAL), _) => Unavailable::TooOld("setup flags".to_owned()),
        (Some(libc::ENOMEM), _) => Unavailable::NoMemory { locked_bytes_max: locked_bytes_max() },
        _ => Unavailable::Other(error),
    }
}

fn locked_bytes_max() -> Option<u64> {
    rlimit::Resource::MEMLOCK.get_soft().ok().filter(|&bytes| bytes != rlimit::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word_for(error: i32, sysctl: &str) -> &'static str {
        let folder = std::env::temp_dir().join(format!("ringmq-sysctl-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join(format!("{error}-{sysctl}"));
        std::fs::write(&file, sysctl).expect("written");
        let word = why(io::Error::from_raw_os_error(error), &file).word();
        std::fs::remove_file(file).expect("removed");
        word
    }

    #[test]
    fn setup_errors_are_distinguished() {
        assert_eq!(word_for(libc::ENOSYS, "0\n"), "absent");
        assert_eq!(word_for(libc::EPERM, "2\n"), "disabled-by-sysctl");
        assert_eq!(word_for(libc::EPERM, "1\n"), "disabled-by-sysctl");
        assert_eq!(word_for(libc::EPERM, "0\n"), "forbidden");
        assert_eq!(word_for(libc::EPERM, ""), "forbidden");
        assert_eq!(word_for(libc::EINVAL, "0\n"), "too-old");
        assert_eq!(word_for(libc::ENOMEM, "0\n"), "no-memory");
    }
}
