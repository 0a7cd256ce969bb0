//! Finds every reason why a start would fail, without starting: nothing is listened on or written.

use std::io;
use std::path::Path;

use super::plan::Plan;
use super::{ServerError, listen};
use crate::config::Settings;
use crate::server::certificates;
#[cfg(feature = "store")]
use crate::storage::log::StoreError;

/// Every reason why a start with these settings would fail, in the order of a start.
pub fn check(settings: &Settings) -> Vec<ServerError> {
    let mut found = Plan::make(settings).err().unwrap_or_default();
    let log = &settings.stats.log;
    if settings.stats.enabled
        && !log.as_os_str().is_empty()
        && let Err(error) = may_write(log)
    {
        found.push(ServerError::Stats(log.clone(), error));
    }
    let security = &settings.access.dynamic_security;
    if let (true, Err(error)) = (settings.access.has_dynamic_security(), may_replace(security)) {
        found.push(ServerError::DynamicSecurity(security.clone(), error));
    }
    found.extend(
        settings.every_listener().filter_map(|listener| certificates::check(&listener).err()),
    );
    found.extend(crate::webhooks::check(settings).err().map(ServerError::Webhooks));
    #[cfg(feature = "bridge")]
    found.extend(super::bridge_files::check(&settings.bridges).err().map(ServerError::Bridges));
    for listener in settings.every_listener() {
        if let Err(error) = listen::check(settings, &listener) {
            found.push(ServerError::Listen(listener.bind, error));
        }
    }
    #[cfg(feature = "admin")]
    found.extend(super::admin::check(settings));
    #[cfg(feature = "store")]
    if let Some(why) = settings.lacks_folder() {
        found.push(ServerError::NoFolder(why));
    }
    #[cfg(feature = "store")]
    if let Ok(folder) = settings.data_folder()
        && let Err(error) = may_create(&folder)
    {
        found.push(ServerError::Store(StoreError::Io(folder, "use the folder", error)));
    }
    found
}

/// Whether a file could be written, or created.
pub(super) fn may_write(file: &Path) -> io::Result<()> {
    match std::fs::metadata(file) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => std::fs::File::options().append(true).open(file).map(drop),
        Err(_) => {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            may_write_in(folder.unwrap_or(Path::new(".")))
        }
    }
}

/// Whether another file could take the place of a file, or of the one that a link names.
fn may_replace(file: &Path) -> io::Result<()> {
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    may_write_in(folder.unwrap_or(Path::new(".")))
}

/// Whether a folder exists or could be created, with its parents.
#[cfg(feature = "store")]
fn may_create(folder: &Path) -> io::Result<()> {
    let above = folder.ancestors().find(|path| path.symlink_metadata().is_ok());
    match above {
        Some(above) => may_write_in(above),
        // Relative to the working directory.
        None => may_write_in(Path::new(".")),
    }
}

/// Whether files could be created in a folder.
pub(super) fn may_write_in(folder: &Path) -> io::Result<()> {
    let about =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    if !std::fs::metadata(folder).map_err(about)?.is_dir() {
        return Err(about(io::ErrorKind::NotADirectory.into()));
    }
    #[cfg(unix)]
    {
        use nix::unistd::{AccessFlags, access};
        access(folder, AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|error| about(error.into()))?;
    }
    Ok(())
}
