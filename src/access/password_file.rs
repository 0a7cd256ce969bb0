//! The password file: users with the Argon2id hashes of their passwords and, optionally, verifiers for SCRAM.
//! One line per user, `NAME:HASH` or `NAME:HASH:VERIFIER`; lines that begin with `#` are comments. The file is
//! replaced atomically, and readable only by its owner.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use super::scram_verifier;
use crate::base::text_file;
use crate::config::Hashing;

/// A hash that fits no password, for unknown users.
const NOBODY: &str = "AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

thread_local! {
    /// Memory for the hashes of a thread, reused from one to the next and freed when the thread ends: an
    /// allocator would keep such large blocks for each of many threads.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Not enough memory for a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not enough memory for the hash of a password, which needs as many KiB as `m=` says",
        )
    }
}

impl std::error::Error for NoMemory {}

/// The users of a password file.
#[derive(Debug, Default)]
pub struct Passwords {
    users: HashMap<Box<str>, Arc<User>>,
    /// Hash for unknown users, which takes as long to compute.
    nobody: Box<str>,
}

/// Entry of a user.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    /// Hash in the PHC string format.
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
                let costs = user.hash.rsplitn(3, '$').nth(2).unwrap_or_default();
                passwords.nobody = format!("{costs}${NOBODY}").into();
            }
            if passwords.users.insert(name.into(), Arc::new(user)).is_some() {
                return Err(wrong("duplicate user"));
            }
        }
        if passwords.nobody.is_empty() {
            passwords.nobody = nobody(hashing);
        }
        Ok(passwords)
    }

    /// No users.
    pub fn none(hashing: &Hashing) -> Self {
        Self { users: HashMap::new(), nobody: nobody(hashing) }
    }

    /// The verifiers of SCRAM that the file has.
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
        let Ok(hash) = PasswordHash::new(hash) else { return Ok(false) };
        Ok(is_hash_of(password, &hash)? && user.is_some())
    }
}

/// Whether a password has this hash.
fn is_hash_of(password: &[u8], hash: &PasswordHash) -> Result<bool, NoMemory> {
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Ok(false) };
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from);
    let (Ok(algorithm), Ok(version), Ok(params)) =
        (Algorithm::new(hash.algorithm.as_str()), version, Params::try_from(hash))
    else {
        return Ok(false);
    };
    let blocks = params.block_count();
    let argon2 = Argon2::new(algorithm, version, params);
    let mut output = [0; Output::MAX_LENGTH];
    let output = &mut output[..expected.len()];
    MEMORY.with_borrow_mut(|memory| {
        let more = blocks.saturating_sub(memory.len());
        memory.try_reserve_exact(more).map_err(|_| NoMemory)?;
        memory.resize(memory.len().max(blocks), Block::new());
        let salt: &[u8] = salt.as_ref();
        let hashed =
            argon2.hash_password_into_with_memory(password, salt, output, &mut memory[..blocks]);
        // Compares in constant time.
        Ok(hashed.is_ok() && Output::new(output).is_ok_and(|output| output == *expected))
    })
}

fn nobody(hashing: &Hashing) -> Box<str> {
    let Hashing { memory_kib, iterations, .. } = hashing;
    format!("$argon2id$v=19$m={memory_kib},t={iterations},p=1${NOBODY}").into()
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
    if name.is_empty() {
        return Err("a user's name is expected before the colon");
    }
    let (hash, verifier) = match rest.split_once(':') {
        Some((hash, verifier)) => (hash, Some(verifier)),
        None => (rest, None),
    };
    let is_hash = hash.starts_with("$argon2id$")
        && PasswordHash::new(hash).is_ok_and(|hash| hash.salt.is_some() && hash.hash.is_some());
    if !is_hash {
        return Err("a hash as `broker passwd add` writes it is expected: $argon2id$…");
    }
    if verifier.is_some_and(|verifier| !scram_verifier::is_verifier(verifier)) {
        return Err("the text after the hash is not a SCRAM-SHA-256 verifier");
    }
    Ok(Some((name, User { hash: hash.into(), verifier: verifier.map(Into::into) })))
}

impl User {
    /// Whether the password is that of another entry for the same user, as far as two hashes show. Each new
    /// password gets a random salt: the same salt with a different cost means that [`add`] has hashed the same
    /// password again.
    pub fn has_password_of(&self, other: &Self) -> bool {
        if self.hash == other.hash {
            return true;
        }
        let (Ok(one), Ok(other)) = (PasswordHash::new(&self.hash), PasswordHash::new(&other.hash))
        else {
            return false;
        };
        one.salt == other.salt && one.params != other.params
    }
}

/// The line of a user with this password. Slow. If the user already has the password, the salt stays, so that
/// connected clients stay connected.
fn line_of(
    name: &str,
    password: &str,
    hashing: &Hashing,
    before: Option<&User>,
) -> Result<String, PasswordError> {
    let hash_error = |error: &dyn fmt::Display| PasswordError::Hash(error.to_string());
    let params = Params::new(hashing.memory_kib, hashing.iterations, 1, None)
        .map_err(|error| hash_error(&error))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let old = before.and_then(|user| PasswordHash::new(&user.hash).ok());
    let old = match old {
        Some(old)
            if is_hash_of(password.as_bytes(), &old).map_err(|error| hash_error(&error))? =>
        {
            Some(old)
        }
        _ => None,
    };
    let hash = match old.as_ref().and_then(|old| old.salt.as_ref()) {
        Some(salt) => argon2.hash_password_with_salt(password.as_bytes(), salt.as_ref()),
        None => argon2.hash_password(password.as_bytes()),
    };
    let hash = hash.map_err(|error| hash_error(&error))?;
    let mut line = format!("{name}:{hash}");
    let kept = before.filter(|_| old.is_some()).and_then(|user| user.verifier.as_deref());
    let verifier = scram_verifier::make(password, hashing, kept).map_err(PasswordError::Hash)?;
    if let Some(verifier) = verifier {
        line.push(':');
        line.push_str(&verifier);
    }
    line.push('\n');
    Ok(line)
}

/// Adds a user, or changes its password; true if the user is new. Creates the file if necessary.
pub fn add(
    path: &Path,
    name: &str,
    password: &str,
    hashing: &Hashing,
) -> Result<bool, PasswordError> {
    if name.is_empty() || name.starts_with('#') || name.contains([':', '\n', '\r', '\0']) {
        return Err(PasswordError::Name(
            "a user's name is not empty, does not begin with #, and has no colon or line break",
        ));
    }
    let before = Passwords::read(path, hashing).ok();
    let before = before.as_ref().and_then(|passwords| passwords.user(name));
    let line = line_of(name, password, hashing, before.map(|user| &**user))?;
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

fn is_line_of(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(of, _)| of == name)
}

/// Replaces the file, so that readers find either the old or the new content. A file that is a mount point, as in
/// containers, or whose folder is read-only, is changed in place. Nothing is written if `edit` returns none.
fn change<T>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret_file::is_open_to_others;

    const CHEAP: Hashing =
        Hashing { memory_kib: 8, iterations: 1, scram: true, scram_iterations: 4_096 };

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ringmq-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for the test");
        folder
    }

    #[test]
    fn a_user_is_known_by_the_password_given_last_and_nobody_by_another() {
        let path = folder("passwd-verify").join("passwords");
        assert!(add(&path, "alice", "first", &CHEAP).expect("written"));
        assert!(add(&path, "bob", "other", &CHEAP).expect("written"));
        assert!(!add(&path, "alice", "second", &CHEAP).expect("written"));
        let passwords = Passwords::read(&path, &CHEAP).expect("it reads what it wrote");
        assert_eq!(passwords.names(), ["alice", "bob"]);
        let is_right = |name, password: &str| {
            passwords.verify(name, password.as_bytes()).expect("there is memory")
        };
        assert!(is_right("alice", "second") && is_right("bob", "other"));
        for (name, password) in [("alice", "first"), ("alice", ""), ("bob", "second"), ("eve", "x")]
        {
            assert!(!is_right(name, password), "{name} {password}");
        }
        // Whatever stands in for those who are not there is no way in.
        assert!(
            !is_right("", "") && Passwords::none(&CHEAP).verify("alice", b"second") == Ok(false)
        );
    }

    #[test]
    fn a_password_that_is_hashed_anew_is_the_same_and_another_is_not() {
        let path = folder("passwd-anew").join("passwords");
        let entry = |password: &str, hashing: &Hashing| {
            add(&path, "alice", password, hashing).expect("written");
            let passwords = Passwords::read(&path, hashing).expect("it reads");
            assert_eq!(passwords.verify("alice", password.as_bytes()), Ok(true));
            Arc::clone(passwords.user("alice").expect("she is there"))
        };
        let first = entry("first", &CHEAP);
        assert_eq!(entry("first", &CHEAP), first, "at the same cost nothing changes");
        let dearer = entry("first", &Hashing { iterations: 2, ..CHEAP });
        let without = entry("first", &Hashing { scram: false, ..CHEAP });
        for anew in [&dearer, &without] {
            assert!(anew.has_password_of(&first) && **anew != *first);
        }
        let second = entry("second", &CHEAP);
        assert!(!second.has_password_of(&first) && !second.has_password_of(&dearer));
        let back = entry("first", &CHEAP);
        assert!(!back.has_password_of(&second));
    }

    #[test]
    fn removing_a_user_keeps_the_others_and_the_comments() {
        let path = folder("passwd-remove").join("passwords");
        fs::write(&path, "# ours\n").expect("written");
        add(&path, "alice", "a", &CHEAP).expect("written");
        add(&path, "bob", "b", &CHEAP).expect("written");
        remove(&path, "alice").expect("she is there");
        assert!(matches!(remove(&path, "alice"), Err(PasswordError::Unknown(..))));
        let text = fs::read_to_string(&path).expect("it is there");
        assert!(text.starts_with("# ours\nbob:$argon2id$") && text.lines().count() == 2, "{text}");
        assert!(!path.with_file_name("passwords.new").exists());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_for_its_owner_alone_and_never_half_written() {
        use std::os::unix::fs::PermissionsExt;
        let path = folder("passwd-mode").join("passwords");
        fs::write(&path, "").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        assert!(is_open_to_others(&path));
        add(&path, "alice", "a", &CHEAP).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(!is_open_to_others(&path));
        // Whoever finds another one at work changes nothing.
        fs::write(path.with_file_name("passwords.new"), "").expect("written");
        let before = fs::read_to_string(&path).expect("there");
        assert!(matches!(add(&path, "bob", "b", &CHEAP), Err(PasswordError::Locked(_))));
        assert_eq!(fs::read_to_string(&path).expect("there"), before);
    }

    #[test]
    fn a_wrong_line_is_named_with_its_number() {
        let path = folder("passwd-wrong").join("passwords");
        for (text, part) in [
            ("alice\n", ":1: a user's name, a colon and a hash"),
            ("# x\n\n:$argon2id$\n", ":3: a user's name is expected before the colon"),
            ("alice:secret\n", ":1: a hash as `broker passwd add` writes it"),
        ] {
            fs::write(&path, text).expect("written");
            let error = Passwords::read(&path, &CHEAP).expect_err("it is wrong").to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_name_that_would_break_the_file_is_refused() {
        let path = folder("passwd-name").join("passwords");
        for name in ["", "a:b", "a\nb", "#a"] {
            assert!(
                matches!(add(&path, name, "x", &CHEAP), Err(PasswordError::Name(_))),
                "{name:?}"
            );
        }
        assert!(!path.exists());
    }

    #[test]
    fn an_unknown_user_is_compared_at_the_cost_of_the_others() {
        let path = folder("passwd-cost").join("passwords");
        add(&path, "alice", "a", &CHEAP).expect("written");
        let dear = Hashing { memory_kib: 1_024, ..CHEAP };
        let passwords = Passwords::read(&path, &dear).expect("it reads");
        assert!(passwords.nobody.contains("m=8,t=1,p=1"), "{}", passwords.nobody);
        assert!(PasswordHash::new(&passwords.nobody).is_ok_and(|hash| hash.hash.is_some()));
        let none = Passwords::none(&dear);
        assert!(none.nobody.contains("m=1024") && PasswordHash::new(&none.nobody).is_ok());
    }
}
