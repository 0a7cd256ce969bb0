//! Several machines that serve as one broker: *nodes*, each a process with its cores.
//!
//! Everything here is sans-IO: bytes and times go in, bytes and deadlines come out.

pub mod codec;
pub mod lane;
pub mod limits;
pub mod watchdog;
