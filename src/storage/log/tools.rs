//! What `broker store` does.
