//! 4.12 and 4.13: enhanced authentication, and what follows an error.
