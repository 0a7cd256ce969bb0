//! CPU affinity of a thread and of the processes it starts.

use crate::error::Result;

/// Pins the calling thread, and threads and processes it starts later, to these cores.
#[cfg(target_os = "linux")]
pub fn pin_to(cores: &[usize]) -> Result<()> {
    use crate::error::Error;
    let mut set = rustix::thread::CpuSet::new();
    for &core in cores {
        if core >= rustix::thread::CpuSet::MAX_CPU {
            return Err(Error::Usage(format!("core {core} does not exist")));
        }
        set.set(core);
    }
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|errno| Error::io(format!("pin to cores {cores:?}"), errno.into()))
}

/// Other systems have no such call; measurements are then unpinned.
#[cfg(not(target_os = "linux"))]
pub fn pin_to(_cores: &[usize]) -> Result<()> {
    Ok(())
}
