//! Memberships of several nodes on a bucket that is late, loses answers and stalls, under one seed.

mod promises;
mod world;
