//! 3.1: CONNECT.
