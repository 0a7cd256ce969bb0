//! The user that serves: a broker that is started as root opens its listeners and becomes that user.

use super::Failure;
use crate::config::Settings;

/// Becomes the configured user, if there is one and the process is root's. The folder of the store becomes the user's.
#[cfg(target_os = "linux")]
pub(super) fn become_configured(settings: &Settings) -> Result<(), Failure> {
    use super::Exit;
    use nix::unistd::{User, getuid, setgid, setgroups, setuid};

    let name = settings.user.as_str();
    if name.is_empty() {
        return Ok(());
    }
    if !getuid().is_root() {
        tracing::info!(
            user = name,
            "not started as root: the user stays the one that started the broker"
        );
        return Ok(());
    }
    let failed = |what: String| {
        let error = format!("user = \"{name}\": {what}; name a user of this machine, or \"\"");
        Failure::new(Exit::Configuration, error)
    };
    let user = User::from_name(name)
        .map_err(|error| failed(error.to_string()))?
        .ok_or_else(|| failed("there is no such user".to_owned()))?;
    if let Ok(folder) = settings.data_folder() {
        give(&folder, &user).map_err(|error| failed(format!("{}: {error}", folder.display())))?;
    }
    // Groups first: the user may not change them any more.
    let become_user = || {
        setgroups(&[user.gid])?;
        setgid(user.gid)?;
        setuid(user.uid)
    };
    become_user().map_err(|error| failed(error.to_string()))
}

/// Gives a folder with everything in it to a user.
#[cfg(target_os = "linux")]
fn give(path: &std::path::Path, user: &nix::unistd::User) -> std::io::Result<()> {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    std::os::unix::fs::lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    if found.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    Ok(())
}

/// Refuses a user: this is for Linux.
#[cfg(not(target_os = "linux"))]
pub(super) fn become_configured(settings: &Settings) -> Result<(), Failure> {
    match settings.user.as_str() {
        "" => Ok(()),
        name => {
            let error = format!(
                "user = \"{name}\": not supported on this system; start the broker as that user"
            );
            Err(Failure::new(super::Exit::Configuration, error))
        }
    }
}
