//! 4.9: flow control.
