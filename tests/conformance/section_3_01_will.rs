//! 3.1.2.5 and 3.1.3.2: the Will Message.
