//! The user that serves: a broker that is started as root opens its listeners and becomes that user.

#[cfg(target_os = "linux")]
use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

#[cfg(target_os = "linux")]
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{Mode, SFlag, fstat, fstatat},
    unistd::{User, fchown},
};

use super::Failure;
use crate::config::Settings;

/// Becomes the configured user, if there is one and the process is root's. The folder of the store
/// becomes the user's.
#[cfg(target_os = "linux")]
pub(super) fn become_configured(settings: &Settings) -> Result<(), Failure> {
    use super::Exit;
    use nix::unistd::{getuid, setgid, setgroups, setuid};

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

/// Gives a folder with everything in it to a user. What is in the folder may be the user's work, so
/// symbolic links are not followed, and a file stays as it is if it has another link or belongs to
/// somebody else: it could be any file of this machine.
#[cfg(target_os = "linux")]
fn give(path: &Path, user: &User) -> nix::Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match Dir::open(path, flags, Mode::empty()) {
        Ok(mut folder) => give_folder(&mut folder, path, user),
        Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(target_os = "linux")]
fn give_folder(folder: &mut Dir, path: &Path, user: &User) -> nix::Result<()> {
    give_one(folder.as_fd(), path, user)?;
    let names: Vec<_> =
        folder.iter().map(|entry| Ok(entry?.file_name().to_owned())).collect::<nix::Result<_>>()?;
    for name in names.iter().filter(|name| ![c".", c".."].contains(&name.as_c_str())) {
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        let found = fstatat(&*folder, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        // A FIFO is not waited for; what is opened is looked at again, as it may be another by now.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFDIR {
            let flags = flags | OFlag::O_DIRECTORY;
            let mut inner = Dir::openat(&*folder, name.as_c_str(), flags, Mode::empty())?;
            give_folder(&mut inner, &path, user)?;
        } else if kind == SFlag::S_IFREG {
            let file = openat(&*folder, name.as_c_str(), flags, Mode::empty())?;
            give_one(file.as_fd(), &path, user)?;
        }
    }
    Ok(())
}

/// Gives an open file or folder to a user.
#[cfg(target_os = "linux")]
fn give_one(file: BorrowedFd<'_>, path: &Path, user: &User) -> nix::Result<()> {
    let found = fstat(file)?;
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    let has_another_link = kind != SFlag::S_IFDIR && found.st_nlink > 1;
    let belongs_to_another = ![0, user.uid.as_raw()].contains(&found.st_uid);
    if has_another_link || belongs_to_another {
        let user = user.name.as_str();
        tracing::warn!(
            file = %path.display(),
            user,
            "not given to the user: the file has another link or belongs to somebody else"
        );
        return Ok(());
    }
    fchown(file, Some(user.uid), Some(user.gid))
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, chown, symlink},
    };

    use nix::unistd::getuid;

    use super::*;

    #[test]
    fn root_gives_the_user_the_store_and_nothing_that_is_linked_into_it() {
        if !getuid().is_root() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let user = User::from_name("nobody").expect("a user database").expect("there is nobody");
        let folder = std::env::temp_dir().join(format!("ringmq-user-{}", std::process::id()));
        let (store, outside) = (folder.join("store"), folder.join("outside"));
        fs::create_dir_all(store.join("inner")).expect("made");
        fs::create_dir(&outside).expect("made");
        for file in ["store/1.log", "store/inner/2.log", "store/other", "outside/a", "outside/b"] {
            fs::write(folder.join(file), "").expect("written");
        }
        chown(store.join("other"), Some(1), None).expect("root may");
        symlink(outside.join("a"), store.join("link")).expect("linked");
        symlink(&outside, store.join("linked-folder")).expect("linked");
        fs::hard_link(outside.join("b"), store.join("hard")).expect("linked");
        give(&store, &user).expect("given");
        let owner = |file: &str| fs::metadata(folder.join(file)).expect("there").uid();
        for given in ["store", "store/1.log", "store/inner", "store/inner/2.log"] {
            assert_eq!(owner(given), user.uid.as_raw(), "{given}");
        }
        for kept in ["outside", "outside/a", "outside/b"] {
            assert_eq!(owner(kept), 0, "{kept}");
        }
        assert_eq!(owner("store/other"), 1);
        give(&folder.join("absent"), &user).expect("nothing to give");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
