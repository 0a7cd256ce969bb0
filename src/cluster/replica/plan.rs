//! What a node does at its start with a log and a stream that do not have the same frames.

/// The first and the last frame of a log, or the first and the last whole one of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first frame.
    pub first: u64,
    /// The last frame.
    pub last: u64,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// They overlap or touch: each gets what only the other one has.
    Join,
    /// The log is empty, or ends before the stream begins: the log is replaced by what the stream has.
    TakeStream,
    /// The stream ends before the log begins, which is complete in itself, as it begins with a checkpoint: it goes to a new
    /// stream as a whole.
    ShipAll,
}

/// Decides; none where there are no frames.
pub fn plan(log: Option<Range>, stream: Option<Range>) -> Plan {
    match (log, stream) {
        (_, None) => Plan::Join,
        (None, Some(_)) => Plan::TakeStream,
        (Some(log), Some(stream)) if log.last + 1 < stream.first => Plan::TakeStream,
        (Some(log), Some(stream)) if stream.last + 1 < log.first => Plan::ShipAll,
        (Some(_), Some(_)) => Plan::Join,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_only_one_has_are_added_to_the_other_and_a_gap_is_never_bridged() {
        let range = |first, last| Some(Range { first, last });
        for (log, stream, expected) in [
            (None, None, Plan::Join),
            (range(1, 9), None, Plan::Join),
            (None, range(1, 9), Plan::TakeStream),
            (range(1, 9), range(1, 9), Plan::Join),
            (range(1, 9), range(5, 12), Plan::Join),
            (range(5, 12), range(1, 9), Plan::Join),
            (range(1, 9), range(10, 12), Plan::Join),
            (range(1, 9), range(11, 12), Plan::TakeStream),
            (range(10, 12), range(1, 9), Plan::Join),
            (range(11, 12), range(1, 9), Plan::ShipAll),
        ] {
            assert_eq!(plan(log, stream), expected, "log {log:?}, stream {stream:?}");
        }
    }
}
