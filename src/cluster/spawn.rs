//! An engine server that the broker runs.
