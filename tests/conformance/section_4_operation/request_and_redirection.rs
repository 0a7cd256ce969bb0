//! 4.10 and 4.11: request and response, and clients sent elsewhere.
