//! Pins cores to processors, and their memory to NUMA nodes.

use crate::config::Cores;
use crate::platform::plan::{self, Impossible, Placement};
use crate::platform::topology::Topology;

/// The placement of each core. None when there are more cores than processors, and for a single core, which the
/// system schedules freely. The error is about a list of processors that do not exist.
pub fn placements(cores: &Cores, numa: bool) -> Result<Vec<Placement>, Impossible> {
    if *cores == Cores::Count(1) && !numa {
        return Ok(Vec::new());
    }
    match plan::plan(&Topology::here(), cores, numa) {
        Err(too_few @ Impossible::TooFew { .. }) => {
            tracing::warn!("{too_few}");
            Ok(Vec::new())
        }
        outcome => outcome,
    }
}

/// Pins the calling thread, which runs core `core`, to its processor, and if `numa` its memory to the
/// processor's node.
pub fn pin(core: usize, placement: Placement, numa: bool) {
    let Placement { processor, node, .. } = placement;
    if !core_affinity::set_for_current(core_affinity::CoreId { id: usize::from(processor) }) {
        tracing::warn!(core, processor, "cannot pin to this processor; the system chooses one");
    }
    if numa && let Err(error) = prefer_node(node) {
        tracing::warn!(%error, core, node, "cannot bind memory to this node; the system chooses one");
    }
}

/// Allocates this thread's memory from this node while the node has any: set_mempolicy(2). The kernel does so by
/// default, unless the process was started with another policy.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[expect(unsafe_code, reason = "a system call without a wrapper")]
fn prefer_node(node: u16) -> std::io::Result<()> {
    const NODES_MAX: usize = 1_024;
    let mut mask = [0u64; NODES_MAX / 64];
    let Some(word) = mask.get_mut(usize::from(node) / 64) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    *word |= 1 << (node % 64);
    // SAFETY: the mask has as many bits as it says, and the kernel copies it.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            libc::c_long::from(libc::MPOL_PREFERRED),
            mask.as_ptr(),
            NODES_MAX,
        )
    };
    match outcome {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn prefer_node(_node: u16) -> std::io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux", target_pointer_width = "64"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_on_the_processor_of_its_placement() {
        let placements = placements(&Cores::Count(1), true).expect("there is one");
        let placement = placements[0];
        let on = std::thread::spawn(move || {
            pin(0, placement, true);
            prefer_node(placement.node).map(|()| core_affinity::get_core_ids().expect("known"))
        });
        let on = on.join().expect("no panic").expect("the node is there");
        assert_eq!(
            on.iter().map(|id| id.id).collect::<Vec<_>>(),
            [usize::from(placement.processor)]
        );
    }

    #[test]
    fn a_single_core_is_not_pinned() {
        assert_eq!(placements(&Cores::Count(1), false), Ok(Vec::new()));
    }

    #[test]
    fn a_processor_that_is_not_there_is_refused_by_number() {
        let refused = placements(&Cores::List(vec![0, 1_023]), false);
        let refused = refused.expect_err("there is no such machine here").to_string();
        assert!(refused.contains("1023") && refused.contains("broker platform"), "{refused}");
    }
}
