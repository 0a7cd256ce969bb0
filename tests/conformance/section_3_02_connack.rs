//! 3.2: CONNACK.
