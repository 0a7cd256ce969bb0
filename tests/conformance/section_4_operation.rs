//! Chapter 4: operational behaviour.
