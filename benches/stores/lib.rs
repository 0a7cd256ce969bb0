//! Has benchmarks only: `cargo bench -p stores`.
