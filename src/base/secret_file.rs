//! Files with secrets: a warning if everybody on the machine can read them, and a way to replace them.

#[cfg(feature = "admin")]
use std::io;
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

/// Replaces a file, or creates it, readable by its owner only. A crash leaves the old content or the new one.
#[cfg(feature = "admin")]
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        #[cfg(unix)]
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
