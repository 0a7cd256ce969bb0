//! The file with the process identifier of a broker that runs.

use std::path::{Path, PathBuf};

use super::{Exit, Failure};

/// The file, which is removed at the end.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file; none if none is configured.
    pub fn write(path: &Path) -> Result<Option<Self>, Failure> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        std::fs::write(path, format!("{}\n", std::process::id())).map_err(|error| {
            let error = format!(
                "pid_file: cannot write {}: {error}; name a file in a folder that this user may write to",
                path.display()
            );
            Failure::new(Exit::Configuration, error)
        })?;
        Ok(Some(Self(path.to_owned())))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // It may be gone already, with its folder.
        let _ = std::fs::remove_file(&self.0);
    }
}
