//! This package only has benchmarks: `cargo bench -p stores`.
