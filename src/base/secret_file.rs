//! Files with secrets: a warning if everybody on the machine can read them.

use std::path::Path;

/// Warns in the log if everybody can read the file, which contains `what`.
pub fn warn_if_open(path: &Path, what: &str) {
    if is_open_to_others(path) {
        tracing::warn!(
            file = %path.display(),
            "every user can read {what}; run chmod 600 on it"
        );
    }
}

/// Whether users other than the owner and the group can read a file.
#[cfg(unix)]
pub fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o007 != 0)
}

/// Whether others can read a file: unknown on this platform.
#[cfg(not(unix))]
pub fn is_open_to_others(_path: &Path) -> bool {
    false
}
