//! 3.15 and 4.12: AUTH and enhanced authentication.
