//! Whether io_uring can be used here, found out by using it; and if not, why not.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use io_uring::{cqueue, opcode, types};

use crate::config::Uring;
use crate::executor::uring::buffers::{self, Buffers};
use crate::executor::uring::ring::{Ring, Shape};

/// 2: nobody may use io_uring, 1: only a group may. Since Linux 6.6.
const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

/// Linux 6.0 has them all: the newest are these.
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
    /// The kernel has none.
    Absent,
    /// The administrator forbade it for everybody, or for all but a group.
    DisabledBySysctl(u32),
    /// A filter on this process forbids it.
    Forbidden,
    /// It lacks something.
    TooOld(String),
    /// The process may not lock enough memory.
    NoMemory {
        /// What it may, in bytes.
        locked_bytes_max: Option<u64>,
    },
    /// Anything else.
    Other(io::Error),
}

impl Unavailable {
    /// A word for it, for programs.
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
                "a seccomp filter forbids io_uring to this process, as container runtimes' default \
                 profiles do; run it with a profile that allows io_uring_setup, io_uring_enter and \
                 io_uring_register",
            ),
            Self::TooOld(missing) => {
                write!(
                    f,
                    "this kernel's io_uring is too old: it lacks {missing} (Linux 6.0 has it)"
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

/// What this kernel's io_uring can do beyond the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// The kernel's work waits until it is asked for (6.1).
    pub defer_taskrun: bool,
    /// Several receptions share a buffer (6.12).
    pub incremental: bool,
    /// A socket taken out of the ring's table is closed at once. Before Linux 6.13 it is kept until every
    /// operation has ended that began on any socket of the table before: for as long as one client
    /// says nothing (<https://github.com/axboe/liburing/issues/1192>).
    pub closes_direct_descriptors: bool,
}

/// Sets up a ring as `uring` says, for so many sockets, and receives a byte with it.
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

/// Closes a socket of a ring's table while another one receives; whether its peer sees it.
#[expect(unsafe_code, reason = "entries that point to no memory")]
fn closes_at_once(uring: &Uring) -> io::Result<bool> {
    let mut ring = Ring::new(Shape::of(uring, 2))?;
    let (idle, (peer, closed)) = (UnixStream::pair()?, UnixStream::pair()?);
    let table = [idle.0.as_raw_fd(), closed.as_raw_fd()];
    ring.submitter().register_files_update(0, &table)?;
    drop(closed);
    let receive = opcode::PollAdd::new(types::Fixed(0), libc::POLLIN as u32).build();
    // SAFETY: it points to no memory.
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

#[expect(unsafe_code, reason = "an entry that points to no memory")]
fn receive_a_byte(ring: &mut Ring) -> io::Result<()> {
    let (mut here, there) = UnixStream::pair()?;
    here.write_all(b"!")?;
    let file = types::Fd(there.as_raw_fd());
    let entry = opcode::RecvMulti::new(file, buffers::GROUP).build();
    // SAFETY: it points to no memory.
    unsafe { ring.push(&entry) }?;
    ring.enter(Some(std::time::Duration::from_secs(1)))?;
    let mut completions = Vec::new();
    ring.take_completions(&mut completions)?;
    match completions.first() {
        Some(first) if first.result == 1 && cqueue::more(first.flags) => Ok(()),
        Some(first) if first.result < 0 => Err(io::Error::from_raw_os_error(-first.result)),
        _ => Err(io::Error::other("a multishot receive did not work")),
    }
}

/// What a failed set-up means: io_uring_setup(2).
fn why(error: io::Error, sysctl: &Path) -> Unavailable {
    let disabled = std::fs::read_to_string(sysctl).ok().and_then(|text| text.trim().parse().ok());
    match (error.raw_os_error(), disabled) {
        (Some(libc::ENOSYS), _) => Unavailable::Absent,
        (Some(libc::EPERM | libc::EACCES), Some(value @ 1..)) => {
            Unavailable::DisabledBySysctl(value)
        }
        (Some(libc::EPERM | libc::EACCES), _) => Unavailable::Forbidden,
        (Some(libc::EINVAL), _) => Unavailable::TooOld("set-up flags".to_owned()),
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

    fn told_with(error: i32, sysctl: &str) -> &'static str {
        let folder = std::env::temp_dir().join(format!("ringmq-sysctl-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join(format!("{error}-{sysctl}"));
        std::fs::write(&file, sysctl).expect("written");
        let word = why(io::Error::from_raw_os_error(error), &file).word();
        std::fs::remove_file(file).expect("removed");
        word
    }

    #[test]
    fn absent_disabled_forbidden_and_too_old_are_told_apart() {
        assert_eq!(told_with(libc::ENOSYS, "0\n"), "absent");
        assert_eq!(told_with(libc::EPERM, "2\n"), "disabled-by-sysctl");
        assert_eq!(told_with(libc::EPERM, "1\n"), "disabled-by-sysctl");
        assert_eq!(told_with(libc::EPERM, "0\n"), "forbidden");
        assert_eq!(told_with(libc::EPERM, ""), "forbidden");
        assert_eq!(told_with(libc::EINVAL, "0\n"), "too-old");
        assert_eq!(told_with(libc::ENOMEM, "0\n"), "no-memory");
    }
}
