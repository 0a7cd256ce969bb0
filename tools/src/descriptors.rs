//! The limit of descriptors of a process: one per client.

#[cfg(unix)]
use crate::error::Error;
use crate::error::Result;

/// Raises the limit for this many clients and the other descriptors.
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

/// Other systems have no such limit.
#[cfg(not(unix))]
pub fn raise_limit(_clients: u64) -> Result<()> {
    Ok(())
}
