//! Which cores a thread and the processes it starts run on.

use crate::error::Result;

/// Bind the calling thread, and what it starts from now on, to these cores.
#[cfg(target_os = "linux")]
pub fn pin_to(cores: &[usize]) -> Result<()> {
    use crate::error::Error;
    let mut set = rustix::thread::CpuSet::new();
    for &core in cores {
        if core >= rustix::thread::CpuSet::MAX_CPU {
            return Err(Error::Usage(format!("there is no core {core}")));
        }
        set.set(core);
    }
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|errno| Error::io(format!("pin to cores {cores:?}"), errno.into()))
}

/// Elsewhere there is no such call; figures are then taken unpinned.
#[cfg(not(target_os = "linux"))]
pub fn pin_to(_cores: &[usize]) -> Result<()> {
    Ok(())
}
