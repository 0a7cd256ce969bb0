//! Memory cost of a core's filters in the replicas of the others. A separate process, as it counts
//! allocations.

use std::alloc::System;

use shards::Replica;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FILTERS: usize = 1_000_000;

#[test]
fn a_replicated_exact_filter_takes_at_most_24_bytes() {
    let mut replica = Replica::new(7);
    let region = Region::new(ALLOCATOR);
    let in_use = |region: &Region<'_, System>| {
        let stats = region.change();
        stats.bytes_allocated - stats.bytes_deallocated
    };
    for n in 0..FILTERS {
        replica.announce_exact(1, replica.fingerprint(&format!("site/{}/device/{n}", n % 1000)));
        // At several distances from the next growth of the tables.
        if n % 50_000 == 49_999 {
            let bytes = in_use(&region);
            assert!(bytes <= 24 * (n + 1), "{bytes} bytes for {} filters", n + 1);
        }
    }
    for n in 0..FILTERS {
        replica.withdraw_exact(1, replica.fingerprint(&format!("site/{}/device/{n}", n % 1000)));
    }
    // On a slow machine the test harness prints a message meanwhile, which allocates.
    let bytes = in_use(&region);
    assert!(bytes < 4_096, "what is withdrawn takes nothing, and this takes {bytes}");
}
