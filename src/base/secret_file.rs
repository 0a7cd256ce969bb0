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

/// Reads the line of a file that is a password or a token. The error says what to do, and has nothing of the line.
#[cfg(feature = "bridge")]
pub fn read_line(path: &Path) -> Result<String, String> {
    /// Bytes of a Password at most [MQTT-1.5.6].
    const BYTES_MAX: usize = 65_535;
    let text = super::text_file::read(path)
        .map_err(|error| format!("{error}; name a file that the broker's user may read"))?;
    let line =
        text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    match line.len() {
        0 => Err("the file is empty; write the password to it".to_owned()),
        _ if line.contains('\n') => {
            Err("the file has several lines; it has one, the password".to_owned())
        }
        1..=BYTES_MAX => Ok(line.to_owned()),
        _ => Err(format!("the password has more than {BYTES_MAX} bytes")),
    }
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

#[cfg(all(test, feature = "bridge"))]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_line_of_its_file_without_the_line_end() {
        let path = std::env::temp_dir().join(format!("ringmq-secret-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            read_line(&path)
        };
        for text in ["hush ", "hush \n", "hush \r\n", "\u{FEFF}hush \n"] {
            assert_eq!(read(text).as_deref(), Ok("hush "), "{text:?}");
        }
        for (text, says) in [
            ("", "is empty"),
            ("\n", "is empty"),
            ("hush\nhush\n", "several lines"),
            (&"h".repeat(65_536), "more than 65535 bytes"),
        ] {
            let error = read(text).expect_err(says);
            assert!(error.contains(says) && !error.contains("hh"), "{error}");
        }
        std::fs::remove_file(&path).expect("removed");
        assert!(read_line(&path).is_err_and(|error| error.contains("name a file")));
    }
}
