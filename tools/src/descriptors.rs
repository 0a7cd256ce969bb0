//! The descriptors a process may have, one for each client.

#[cfg(unix)]
use crate::error::Error;
use crate::error::Result;

/// Let this process have descriptors for so many clients and everything else.
#[cfg(unix)]
pub fn raise_limit(clients: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = clients + crate::limits::DESCRIPTORS_SPARE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(maximum) = limit.maximum.filter(|&maximum| maximum < needed) {
        return Err(Error::Usage(format!(
            "{needed} descriptors are needed and this process may have {maximum}: \
             --processes shares the clients out among several"
        )));
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)
        .map_err(|errno| Error::io("raise the descriptor limit", errno.into()))
}

/// Elsewhere there is no such limit to raise.
#[cfg(not(unix))]
pub fn raise_limit(_clients: u64) -> Result<()> {
    Ok(())
}
