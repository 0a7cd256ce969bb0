//! The password file: users with the hashes of their passwords, of Argon2id or as Mosquitto writes them, and,
//! optionally, verifiers for SCRAM. One line per user, `NAME:HASH` or `NAME:HASH:VERIFIER`; lines that begin with `#`
//! are comments. The file is replaced atomically, and readable only by its owner.

mod hash;
#[cfg(feature = "mosquitto-passwords")]
mod mosquitto_hash;
#[cfg(not(feature = "mosquitto-passwords"))]
#[path = "password_file/mosquitto_hash_absent.rs"]
mod mosquitto_hash;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;

use super::scram_verifier;
use crate::base::text_file;
use crate::config::Hashing;

pub use hash::NoMemory;
#[cfg(feature = "admin")]
pub(crate) use hash::{hash_of_token, is_hash, is_phc};
#[cfg(feature = "dynamic-security")]
pub(super) use mosquitto_hash::parts as parts_like_mosquitto;

/// The users of a password file.
#[derive(Clone, Debug, Default)]
pub struct Passwords {
    users: HashMap<Box<str>, Arc<User>>,
    /// Hash for unknown users, which takes as long to compute.
    nobody: Box<str>,
}

/// Entry of a user.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    hash: Box<str>,
    /// SCRAM verifier, if there is one.
    pub verifier: Option<Box<str>>,
}

/// Error of a password file.
#[derive(Debug)]
pub enum PasswordError {
    /// The file cannot be read or written.
    Io(PathBuf, io::Error),
    /// A line is invalid.
    Line(PathBuf, usize, &'static str),
    /// The user name is invalid.
    Name(&'static str),
    /// The password cannot be hashed.
    Hash(String),
    /// Unknown user.
    Unknown(String, PathBuf),
    /// Another process is changing the file.
    Locked(PathBuf),
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Line(path, line, what) => write!(f, "{}:{line}: {what}", path.display()),
            Self::Name(what) => f.write_str(what),
            Self::Hash(what) => write!(f, "the password cannot be hashed: {what}"),
            Self::Unknown(user, path) => {
                write!(
                    f,
                    "{}: unknown user {user:?}; `broker passwd list` lists all",
                    path.display()
                )
            }
            Self::Locked(path) => write!(
                f,
                "{} exists, or is locked: another `broker passwd` is running, or was interrupted; \
                 if none is running and the name ends in .new, remove the file",
                path.display()
            ),
        }
    }
}

impl std::error::Error for PasswordError {}

impl Passwords {
    /// Reads a password file.
    pub fn read(path: &Path, hashing: &Hashing) -> Result<Self, PasswordError> {
        let text = read_text(path)?;
        let mut passwords = Self::default();
        for (number, line) in text.lines().enumerate() {
            let wrong = |what| PasswordError::Line(path.to_owned(), number + 1, what);
            let Some((name, user)) = parse_line(line).map_err(wrong)? else { continue };
            if passwords.nobody.is_empty() {
                // Same cost as for known users, so that the time reveals nothing.
                passwords.nobody = hash::nobody_like(&user.hash);
            }
            if passwords.users.insert(name.into(), Arc::new(user)).is_some() {
                return Err(wrong("duplicate user"));
            }
        }
        if passwords.nobody.is_empty() {
            passwords.nobody = hash::nobody(hashing);
        }
        Ok(passwords)
    }

    /// No users.
    pub fn none(hashing: &Hashing) -> Self {
        Self { users: HashMap::new(), nobody: hash::nobody(hashing) }
    }

    /// These users and others, of which those with the name of one of these are left out.
    #[cfg(feature = "admin")]
    pub(super) fn with<'a>(
        mut self,
        others: impl Iterator<Item = (&'a str, &'a Arc<User>)>,
    ) -> Self {
        for (name, user) in others {
            if !self.users.contains_key(name) {
                self.users.insert(name.into(), Arc::clone(user));
            }
        }
        self
    }

    /// Other users and these, of which those with the name of one of the others are left out.
    #[cfg(feature = "dynamic-security")]
    pub(super) fn behind<'a>(
        &self,
        others: impl Iterator<Item = (&'a str, &'a Arc<User>)>,
    ) -> Self {
        let mut all = self.clone();
        for (number, (name, user)) in others.enumerate() {
            if number == 0 {
                all.nobody = hash::nobody_like(&user.hash);
            }
            all.users.insert(name.into(), Arc::clone(user));
        }
        all
    }

    /// The verifiers of SCRAM that the users have.
    pub fn verifiers(&self) -> impl Iterator<Item = &str> {
        self.users.values().filter_map(|user| user.verifier.as_deref())
    }

    /// Number of users.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are no users.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The entry of a user.
    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// User names, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.users.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    /// Whether this is the user's password. Slow, equally for unknown users: never called on the thread of a
    /// core.
    pub fn verify(&self, name: &str, password: &[u8]) -> Result<bool, NoMemory> {
        let user = self.users.get(name);
        let hash = user.map_or(&*self.nobody, |user| &*user.hash);
        Ok(hash::is_hash(password, hash)? && user.is_some())
    }

    /// Number of users whose password is fast to guess for whoever gets hold of the file.
    pub fn weak(&self) -> usize {
        self.users.values().filter(|user| mosquitto_hash::is_weak(&user.hash)).count()
    }
}

fn read_text(path: &Path) -> Result<String, PasswordError> {
    text_file::read(path).map_err(|error| PasswordError::Io(path.to_owned(), error))
}

/// Parses a line; none if it has no user.
fn parse_line(line: &str) -> Result<Option<(&str, User)>, &'static str> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let Some((name, rest)) = line.split_once(':') else {
        return Err(
            "a user's name, a colon and a hash are expected; `broker passwd add` writes them",
        );
    };
    let rest = rest.trim_end();
    if name.is_empty() {
        return Err("a user's name is expected before the colon");
    }
    let (hash, verifier) = match rest.split_once(':') {
        Some((hash, verifier)) => (hash, Some(verifier)),
        None => (rest, None),
    };
    User::parse(hash, verifier).map(|user| Some((name, user)))
}

impl User {
    /// A user with this hash and this SCRAM verifier.
    pub(super) fn parse(hash: &str, verifier: Option<&str>) -> Result<Self, &'static str> {
        hash::check(hash)?;
        if verifier.is_some_and(|verifier| !scram_verifier::is_verifier(verifier)) {
            return Err("the text after the hash is not a SCRAM-SHA-256 verifier");
        }
        Ok(Self { hash: hash.into(), verifier: verifier.map(Into::into) })
    }

    /// A user with this password. Slow. If the user already has the password, the salt stays, so that connected
    /// clients stay connected.
    pub(super) fn new(
        password: &str,
        hashing: &Hashing,
        before: Option<&Self>,
    ) -> Result<Self, PasswordError> {
        let old = before.and_then(|user| PasswordHash::new(&user.hash).ok());
        let old = match old {
            Some(old) if hash::is_hash_of(password.as_bytes(), &old)? => Some(old),
            _ => None,
        };
        let hash = hash::make(password.as_bytes(), hashing, old.as_ref())?;
        let kept = before.filter(|_| old.is_some()).and_then(|user| user.verifier.as_deref());
        let verifier =
            scram_verifier::make(password, hashing, kept).map_err(PasswordError::Hash)?;
        Ok(Self { hash: hash.into(), verifier: verifier.map(Into::into) })
    }

    /// A user without a password, who cannot log in with one.
    #[cfg(feature = "dynamic-security")]
    pub(super) fn nobody(hashing: &Hashing) -> Arc<Self> {
        Arc::new(Self { hash: hash::nobody(hashing), verifier: None })
    }

    /// The hash of the password.
    #[cfg(feature = "admin")]
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// Whether the password is that of another entry for the same user, as far as two hashes show.
    pub fn has_password_of(&self, other: &Self) -> bool {
        hash::is_of_same_password(&self.hash, &other.hash)
    }
}

impl From<NoMemory> for PasswordError {
    fn from(error: NoMemory) -> Self {
        Self::Hash(error.to_string())
    }
}

/// Checks the name of a user.
pub(super) fn check_name(name: &str) -> Result<(), PasswordError> {
    match name.is_empty() || name.starts_with('#') || name.contains([':', '\n', '\r', '\0']) {
        true => Err(PasswordError::Name(
            "a user's name is not empty, does not begin with #, and has no colon or line break",
        )),
        false => Ok(()),
    }
}

/// Adds a user, or changes its password; true if the user is new. Creates the file if necessary.
pub fn add(
    path: &Path,
    name: &str,
    password: &str,
    hashing: &Hashing,
) -> Result<bool, PasswordError> {
    check_name(name)?;
    let before = Passwords::read(path, hashing).ok();
    let before = before.as_ref().and_then(|passwords| passwords.user(name));
    let user = User::new(password, hashing, before.map(|user| &**user))?;
    let verifier = user.verifier.as_deref();
    let verifier = verifier.map_or_else(String::new, |verifier| format!(":{verifier}"));
    let line = format!("{name}:{}{verifier}\n", user.hash);
    change(path, true, |text| {
        let mut is_new = true;
        let mut changed = String::new();
        for old in text.split_inclusive('\n') {
            if is_line_of(old, name) {
                is_new = false;
                changed.push_str(&line);
            } else {
                changed.push_str(old);
            }
        }
        if is_new {
            if !changed.is_empty() && !changed.ends_with('\n') {
                changed.push('\n');
            }
            changed.push_str(&line);
        }
        Some((changed, is_new))
    })
    .map(|is_new| is_new.unwrap_or(false))
}

/// Removes a user.
pub fn remove(path: &Path, name: &str) -> Result<(), PasswordError> {
    let removed = change(path, false, |text| {
        let kept: String =
            text.split_inclusive('\n').filter(|line| !is_line_of(line, name)).collect();
        (kept.len() < text.len()).then_some((kept, ()))
    })?;
    removed.ok_or_else(|| PasswordError::Unknown(name.to_owned(), path.to_owned()))
}

/// Protects the weak hashes of Mosquitto by Argon2id, without knowing the passwords; how many. Slow.
pub fn upgrade(path: &Path, hashing: &Hashing) -> Result<usize, PasswordError> {
    // Before the file is locked: each hash takes long. A line that changes meanwhile stays as it is.
    let text = read_text(path)?;
    let mut protected = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what| PasswordError::Line(path.to_owned(), number + 1, what);
        let Some((name, user)) = parse_line(line).map_err(wrong)? else { continue };
        if let Some(hash) = mosquitto_hash::protect(&user.hash, hashing)? {
            let verifier =
                user.verifier.map_or_else(String::new, |verifier| format!(":{verifier}"));
            protected.insert(line, format!("{name}:{hash}{verifier}"));
        }
    }
    if protected.is_empty() {
        return Ok(0);
    }
    let changed = change(path, false, |text| {
        let mut count = 0;
        let mut changed = String::new();
        for old in text.split_inclusive('\n') {
            let line = old.trim_end_matches(['\r', '\n']);
            match protected.get(line) {
                Some(new) => {
                    count += 1;
                    changed.push_str(new);
                    changed.push_str(&old[line.len()..]);
                }
                None => changed.push_str(old),
            }
        }
        Some((changed, count))
    })?;
    Ok(changed.unwrap_or(0))
}

fn is_line_of(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(of, _)| of == name)
}

/// Replaces the file, so that readers find either the old or the new content. A file that is a mount point, as in
/// containers, or whose folder is read-only, is changed in place. Nothing is written if `edit` returns none.
pub(crate) fn change<T>(
    path: &Path,
    may_make: bool,
    edit: impl FnOnce(&str) -> Option<(String, T)>,
) -> Result<Option<T>, PasswordError> {
    // A link stays a link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed = |error| PasswordError::Io(path.clone(), error);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let file = match create_private(&new) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(PasswordError::Locked(new));
        }
        Err(error) if is_of_the_folder(&error) && path.is_file() => None,
        Err(error) => return Err(PasswordError::Io(new, error)),
    };
    let mut is_renamed = false;
    let outcome = (|| {
        let _lock = match &file {
            Some(_) => None, // the new file is one
            None => Some(lock(&path)?),
        };
        let text = match text_file::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_make => String::new(),
            Err(error) => return Err(failed(error)),
        };
        let Some((text, told)) = edit(&text) else { return Ok(None) };
        match &file {
            Some(file) => replace(&path, &new, file, &text).map(|renamed| is_renamed = renamed),
            None => write_in_place(&path, &text),
        }
        .map_err(failed)?;
        Ok(Some(told))
    })();
    // After the rename, a file of this name belongs to another process.
    if file.is_some() && !is_renamed {
        let _ = fs::remove_file(&new);
    }
    outcome
}

/// Replaces the old file by the new one; false if the old one was changed in place instead.
fn replace(path: &Path, new: &Path, mut file: &File, text: &str) -> io::Result<bool> {
    keep_owner(path, file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match fs::rename(new, path) {
        // A mount point cannot be replaced.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            write_in_place(path, text).map(|()| false)
        }
        outcome => outcome.map(|()| true),
    }
}

/// Changes the file in place. Concurrent readers may find partial content.
fn write_in_place(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

/// Locks the file against other processes that change it in place.
fn lock(path: &Path) -> Result<File, PasswordError> {
    let failed = |error| PasswordError::Io(path.to_owned(), error);
    let file = File::options().write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(PasswordError::Locked(path.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Whether an error means that no file can be created in the folder.
fn is_of_the_folder(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Keeps the owner of the old file, so that root can change a file that the broker's user reads.
#[cfg(unix)]
fn keep_owner(old: &Path, new: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let Ok(old) = fs::metadata(old) else { return Ok(()) };
    let is_same = new.metadata().is_ok_and(|new| (new.uid(), new.gid()) == (old.uid(), old.gid()));
    if is_same { Ok(()) } else { fchown(new, Some(old.uid()), Some(old.gid())) }
}

#[cfg(not(unix))]
fn keep_owner(_old: &Path, _new: &File) -> io::Result<()> {
    Ok(())
}
