//! Files with secrets: a warning if everybody on the machine can read them, and a way to replace them.

#[cfg(any(feature = "admin", feature = "dynamic-security"))]
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

/// Replaces a file, or creates it, readable by its owner only. A crash leaves the old content or the new one. A link
/// stays a link, and the owner the same where the process may give files away.
#[cfg(any(feature = "admin", feature = "dynamic-security"))]
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    keep_owner(path, &file);
    let renamed = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = renamed {
        // Nobody else uses this name.
        let _ = std::fs::remove_file(&new);
        return Err(error);
    }
    match path.parent() {
        #[cfg(unix)]
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Gives a new file to the owner of the old one. Only root may do so: for others, the file is of the process.
#[cfg(all(unix, any(feature = "admin", feature = "dynamic-security")))]
fn keep_owner(old: &Path, new: &std::fs::File) {
    use std::os::unix::fs::{MetadataExt, fchown};
    if let Ok(old) = std::fs::metadata(old) {
        let _ = fchown(new, Some(old.uid()), Some(old.gid()));
    }
}

#[cfg(all(not(unix), any(feature = "admin", feature = "dynamic-security")))]
fn keep_owner(_old: &Path, _new: &std::fs::File) {}
