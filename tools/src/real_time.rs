//! Running before everything else on a core.

use std::process::{Command, Stdio, id};

use crate::error::{Error, Result};

/// As long as it is there, this process's main thread, and what it starts, run before all that is not
/// real-time (SCHED_FIFO, sched(7)). For loads that leave their cores idle at times: a thread that
/// never sleeps is stopped for 50 ms of each second.
#[derive(Debug)]
pub struct RealTime(());

impl RealTime {
    /// Fails where the process may not, and where there is no chrt(1).
    pub fn begin() -> Result<Self> {
        match chrt(&["--fifo", "--pid", "1"]) {
            true => Ok(Self(())),
            false => Err(Error::Usage(
                "--real-time needs CAP_SYS_NICE and chrt (util-linux): run as root, or leave it out"
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

/// The system's program, as the call behind it would be unsafe code.
fn chrt(arguments: &[&str]) -> bool {
    let mut command = Command::new("chrt");
    command.args(arguments).arg(id().to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
