//! Filters that are not shared, and the storage of a filter's text.

use super::members::Members;
use super::trie::NodeId;
use crate::text::Text;

/// Location of a filter's text (without `$share/NAME/`).
#[derive(Debug)]
pub(crate) enum Place {
    /// Filter without a wildcard: in the record itself, found by the hash of the text.
    Exact(Text),
    /// Filter with a wildcard: along the path to this node.
    Trie(NodeId),
}

impl Place {
    /// Bytes of memory allocated outside the value.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Exact(text) => text.heap_bytes(),
            Self::Trie(_) => 0,
        }
    }
}

/// A filter that is not shared. 40 bytes, since every client with a filter of its own needs one.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) place: Place,
    pub(crate) members: Members,
}

const _: () = assert!(size_of::<Filter>() <= 40);
