//! What a link does with the packets of both sides.
