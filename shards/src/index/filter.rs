//! The filters that are not shared, and where the text of a filter is kept.

use super::members::Members;
use super::trie::NodeId;
use crate::text::Text;

/// Where the text of a filter (without `$share/NAME/`) is.
#[derive(Debug)]
pub(crate) enum Place {
    /// Without a wildcard: in the record itself, found by the hash of the text.
    Exact(Text),
    /// With one: along the path to this node.
    Trie(NodeId),
}

impl Place {
    /// Bytes of memory that it takes besides its place.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Exact(text) => text.heap_bytes(),
            Self::Trie(_) => 0,
        }
    }
}

/// A filter that is not shared. 40 bytes: a client with a filter of its own pays for one of these.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) place: Place,
    pub(crate) members: Members,
}

const _: () = assert!(size_of::<Filter>() <= 40);
