//! The architecture, checked against the sources: no part of `src/` imports from a floor above its own.
//! `cargo x counts` prints how far the code is from its other aims.

mod calls;
mod counts;
mod document;
mod floors;
mod source;
