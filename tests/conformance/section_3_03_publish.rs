//! 3.3: PUBLISH.
