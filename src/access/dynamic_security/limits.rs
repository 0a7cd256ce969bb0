//! What commands can make of the document, and of the broker.

/// Bytes of the file at most.
pub(super) const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// Clients, groups, roles, rules, and names in lists at most.
pub(super) const ENTRIES_MAX: usize = 100_000;

/// Bytes of the name of a client, a group or a role at most.
pub(super) const NAME_BYTES_MAX: usize = 1_024;

/// Bytes of a text for people at most.
pub(super) const TEXT_BYTES_MAX: usize = 4_096;

/// Bytes of a password at most, as in CONNECT.
pub(super) const PASSWORD_BYTES_MAX: usize = 65_535;

/// Bytes of a message with commands at most.
pub(super) const REQUEST_BYTES_MAX: usize = 256 << 10;

/// Commands in a message at most.
pub(super) const COMMANDS_MAX: usize = 1_000;

/// Messages with commands that wait at most, those of all cores together.
pub(super) const WAITING_MAX: usize = 32;

/// Bytes of an answer from which on commands only say that it is too large.
pub(super) const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Says that the document has no room for more.
pub(super) fn too_large() -> String {
    format!(
        "the document would have more than {ENTRIES_MAX} entries or {DOCUMENT_BYTES_MAX} bytes; remove clients, groups \
         or roles that nobody needs"
    )
}
