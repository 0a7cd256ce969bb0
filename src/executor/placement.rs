//! Which of the machine's processors runs which of our cores, and whose memory it takes.

use crate::config::Cores;
use crate::platform::plan::{self, Impossible, Seat};
use crate::platform::topology::Topology;

/// A seat for each core; none when a thread for each would have to share, or when there is one core
/// alone, which the system moves about as it likes. An error is for a list that cannot be had.
pub fn seats(cores: &Cores, numa: bool) -> Result<Vec<Seat>, Impossible> {
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

/// Keeps the calling thread, which is our core `core`, on its processor, and if `numa` its memory on
/// the processor's node.
pub fn sit_down(core: usize, seat: Seat, numa: bool) {
    let Seat { processor, node, .. } = seat;
    if !core_affinity::set_for_current(core_affinity::CoreId { id: usize::from(processor) }) {
        tracing::warn!(core, processor, "cannot pin to this processor; the system chooses one");
    }
    if numa && let Err(error) = prefer_node(node) {
        tracing::warn!(%error, core, node, "cannot keep memory on this node; the system chooses one");
    }
}

/// What this thread touches first is taken from this node while it has any: set_mempolicy(2). That
/// is what the kernel does anyway, unless it was told otherwise when the process was started.
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
    fn a_thread_sits_where_the_plan_says() {
        let seats = seats(&Cores::Count(1), true).expect("there is one");
        let seat = seats[0];
        let on = std::thread::spawn(move || {
            sit_down(0, seat, true);
            prefer_node(seat.node).map(|()| core_affinity::get_core_ids().expect("known"))
        });
        let on = on.join().expect("no panic").expect("the node is there");
        assert_eq!(on.iter().map(|id| id.id).collect::<Vec<_>>(), [usize::from(seat.processor)]);
    }

    #[test]
    fn one_core_alone_is_moved_about_by_the_system() {
        assert_eq!(seats(&Cores::Count(1), false), Ok(Vec::new()));
    }

    #[test]
    fn a_processor_that_is_not_there_is_refused_by_number() {
        let refused = seats(&Cores::List(vec![0, 1_023]), false);
        let refused = refused.expect_err("there is no such machine here").to_string();
        assert!(refused.contains("1023") && refused.contains("broker platform"), "{refused}");
    }
}
