//! 4.6: the order of messages.
