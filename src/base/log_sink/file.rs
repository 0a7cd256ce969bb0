//! A log file, which another program may rename: after a signal the file of the configured name is opened again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Asks for the file to be opened again before the next line; clones ask for the same file.
#[derive(Clone, Debug, Default)]
pub struct Reopen(Arc<AtomicBool>);

impl Reopen {
    /// Asks.
    pub fn ask(&self) {
        // Relaxed: nothing else is ordered by it.
        self.0.store(true, Relaxed);
    }
}

/// A log file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    reopen: Reopen,
}

impl LogFile {
    /// Opens a file to append to, and creates it if there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, reopen: Reopen::default() })
    }

    /// Asks for the file to be opened again.
    pub fn reopen(&self) -> Reopen {
        self.reopen.clone()
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.reopen.0.swap(false, Relaxed) {
            match append(&self.path) {
                Ok(file) => self.file = file,
                // The line goes through the queue of this thread, which never waits for it.
                Err(error) => tracing::error!(
                    %error,
                    file = %self.path.display(),
                    "cannot open the log file again; the log continues in the file that was open"
                ),
            }
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn after_a_rotation_lines_go_to_a_new_file_and_a_failure_loses_none() {
        let folder = std::env::temp_dir().join(format!("ringmq-log-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (path, rotated) = (folder.join("log"), folder.join("log.1"));
        let mut log = LogFile::open(&path).expect("opened");
        log.write_all(b"one\n").expect("written");
        fs::rename(&path, &rotated).expect("renamed");
        log.write_all(b"two\n").expect("written");
        log.reopen().ask();
        log.write_all(b"three\n").expect("written");
        assert_eq!(fs::read_to_string(&rotated).expect("text"), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).expect("text"), "three\n");
        fs::rename(&path, &rotated).expect("renamed");
        fs::create_dir(&path).expect("a folder in its place");
        log.reopen().ask();
        log.write_all(b"four\n").expect("written");
        assert_eq!(fs::read_to_string(&rotated).expect("text"), "three\nfour\n");
        fs::remove_dir_all(folder).expect("removed");
    }
}
