//! Files that hold secrets: a warning for those that everybody on the machine may read.

use std::path::Path;

/// Says in the log that everybody may read `what`, in this file, if so.
pub fn warn_if_open(path: &Path, what: &str) {
    if is_open_to_others(path) {
        tracing::warn!(
            file = %path.display(),
            "everybody on this machine may read {what}; chmod 600 it"
        );
    }
}

/// Whether others than its owner and group may read a file.
#[cfg(unix)]
pub fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o007 != 0)
}

/// Whether others than its owner and group may read a file: not known here.
#[cfg(not(unix))]
pub fn is_open_to_others(_path: &Path) -> bool {
    false
}
