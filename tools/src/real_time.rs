//! Real-time priority.

use std::process::{Command, Stdio, id};

use crate::error::{Error, Result};

/// While this exists, the process's main thread, and what it starts, run before all processes that
/// are not real-time (SCHED_FIFO, sched(7)). For loads that are idle at times: the kernel stops a
/// real-time thread that never sleeps for 50 ms of each second.
#[derive(Debug)]
pub struct RealTime(());

impl RealTime {
    /// Fails without permission, or without chrt(1).
    pub fn begin() -> Result<Self> {
        match chrt(&["--fifo", "--pid", "1"]) {
            true => Ok(Self(())),
            false => Err(Error::Usage(
                "--real-time needs CAP_SYS_NICE and chrt (util-linux): run as root, or omit it"
                    .into(),
            )),
        }
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        chrt(&["--other", "--pid", "0"]);
    }
}

/// Runs the system's program, as the system call would be unsafe code.
fn chrt(arguments: &[&str]) -> bool {
    let mut command = Command::new("chrt");
    command.args(arguments).arg(id().to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
