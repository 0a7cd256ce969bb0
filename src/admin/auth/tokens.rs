//! The file of tokens: lines of `ROLE:NAME:HASH`, readable by its owner only. A token is `NAME.SECRET`.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hashbrown::HashMap;

use crate::access::password_file::{self, NoMemory, PasswordError};
use crate::base::{secret_file, text_file};
use crate::config::Role;

/// Random bytes of a token.
const SECRET_BYTES: usize = 24;
/// Tokens of a file at most.
const TOKENS_MAX: usize = 10_000;

/// A line of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Token {
    /// Name, which is part of the token.
    pub name: Box<str>,
    /// What a caller with the token may do.
    pub role: Role,
    /// Hash of the secret in the PHC string format.
    pub hash: Box<str>,
}

impl Token {
    /// Whether this is the secret of the token. Slow.
    pub(super) fn is_secret(&self, secret: &str) -> Result<bool, NoMemory> {
        password_file::is_hash(secret.as_bytes(), &self.hash)
    }
}

/// Tokens by name.
pub type Tokens = HashMap<Box<str>, Arc<Token>>;

/// The tokens of a file, which can be read again.
pub struct TokenFile(ArcSwap<Tokens>);

impl TokenFile {
    /// Reads a file; without a path there are no tokens.
    pub fn open(path: &Path) -> Result<Self, String> {
        read(path).map(|tokens| Self(ArcSwap::from_pointee(tokens)))
    }

    /// Other tokens are valid from now on.
    pub fn replace(&self, tokens: Tokens) {
        self.0.store(Arc::new(tokens));
    }

    #[cfg(test)]
    fn reload(&self, path: &Path) -> Result<(), String> {
        read(path).map(|tokens| self.replace(tokens))
    }

    /// The token with this name.
    pub fn named(&self, name: &str) -> Option<Arc<Token>> {
        self.0.load().get(name).cloned()
    }

    /// The token that this text names, and the secret in it.
    pub(super) fn find(&self, text: &str) -> Option<(Arc<Token>, String)> {
        let (name, secret) = text.split_once('.')?;
        Some((self.named(name)?, secret.to_owned()))
    }
}

/// Reads a file of tokens.
pub(super) fn read(path: &Path) -> Result<Tokens, String> {
    if path.as_os_str().is_empty() {
        return Ok(Tokens::new());
    }
    let wrong = |what: String| format!("admin.access.tokens_file {}: {what}", path.display());
    let text = text_file::read(path).map_err(|error| wrong(error.to_string()))?;
    secret_file::warn_if_open(path, "the file of tokens");
    let mut tokens = Tokens::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: String| wrong(format!("line {}: {what}", number + 1));
        let Some(token) = parse(line).map_err(wrong)? else { continue };
        if tokens.insert(token.name.clone(), Arc::new(token)).is_some() {
            return Err(wrong("duplicate name".to_owned()));
        }
        if tokens.len() > TOKENS_MAX {
            return Err(wrong(format!("more than {TOKENS_MAX} tokens")));
        }
    }
    Ok(tokens)
}

/// Parses a line; none if it has no token.
fn parse(line: &str) -> Result<Option<Token>, String> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut parts = line.splitn(3, ':');
    let (Some(role), Some(name), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("ROLE:NAME:HASH is expected".to_owned());
    };
    let role = role.parse()?;
    check_name(name)?;
    if !password_file::is_phc(hash) {
        return Err("a hash is expected after the name: $argon2id$…".to_owned());
    }
    Ok(Some(Token { name: name.into(), role, hash: hash.into() }))
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_@".contains(c);
    match (1..=64).contains(&name.len()) && name.chars().all(fits) {
        true => Ok(()),
        false => Err(format!("{name:?} is not a name of up to 64 letters, digits, -, _ and @")),
    }
}

/// Adds a token to a file, or replaces the one with this name, and returns the token: it is not stored anywhere.
pub fn add(path: &Path, role: Role, name: &str) -> Result<String, String> {
    check_name(name)?;
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|error| error.to_string())?;
    let secret = BASE64_URL_SAFE_NO_PAD.encode(secret);
    let hash = password_file::hash_of_token(&secret).map_err(|error| error.to_string())?;
    let line = format!("{}:{name}:{hash}\n", role.name());
    change(path, |text| {
        let mut kept = without(text, name);
        if !kept.is_empty() && !kept.ends_with('\n') {
            kept.push('\n');
        }
        Some(kept + &line)
    })?;
    Ok(format!("{name}.{secret}"))
}

/// Removes a token from a file. Whether there was one.
pub fn remove(path: &Path, name: &str) -> Result<bool, String> {
    change(path, |text| Some(without(text, name)).filter(|kept| kept.len() < text.len()))
}

/// The lines of other tokens.
fn without(text: &str, name: &str) -> String {
    let is_other = |line: &&str| line.split(':').nth(1) != Some(name) || line.starts_with('#');
    text.split_inclusive('\n').filter(is_other).collect()
}

fn change(path: &Path, edit: impl FnOnce(&str) -> Option<String>) -> Result<bool, String> {
    let changed = password_file::change(path, true, |text| edit(text).map(|text| (text, ())));
    changed.map(|outcome| outcome.is_some()).map_err(|error: PasswordError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct File(std::path::PathBuf);

    impl File {
        fn new(name: &str) -> Self {
            let name = format!("ringmq-tokens-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_token_that_was_added_is_known_until_it_is_removed_or_replaced() {
        let file = File::new("added");
        let first = add(&file.0, Role::Read, "a").expect("added");
        let other = add(&file.0, Role::Admin, "b").expect("added");
        let tokens = TokenFile::open(&file.0).expect("it is read");
        let is_right = |token: &str| {
            let found = tokens.find(token);
            found.is_some_and(|(token, secret)| token.is_secret(&secret).expect("memory"))
        };
        assert!(is_right(&first) && is_right(&other));
        assert!(!is_right("a.b") && !is_right("c.b") && !is_right("a") && !is_right(""));
        assert!(!is_right(&other.replacen('b', "a", 1)));
        let second = add(&file.0, Role::Operate, "a").expect("replaced");
        tokens.reload(&file.0).expect("it is read");
        assert!(is_right(&second) && is_right(&other) && !is_right(&first));
        assert_eq!(tokens.named("a").expect("it is there").role, Role::Operate);
        assert_eq!((remove(&file.0, "a"), remove(&file.0, "a")), (Ok(true), Ok(false)));
        tokens.reload(&file.0).expect("it is read");
        assert!(!is_right(&second) && is_right(&other));
    }

    #[test]
    fn an_error_names_the_file_and_the_line_and_leaves_the_tokens_as_they_were() {
        let file = File::new("wrong");
        let token = add(&file.0, Role::Read, "a").expect("added");
        let tokens = TokenFile::open(&file.0).expect("it is read");
        let good = std::fs::read_to_string(&file.0).expect("a file");
        for (line, what) in [
            ("root:b:x", "not a role"),
            ("read:b", "ROLE:NAME:HASH"),
            ("read:b c:$argon2id$x", "not a name"),
            ("read:b:secret", "a hash is expected"),
            (good.trim(), "duplicate name"),
        ] {
            std::fs::write(&file.0, format!("# comment\n\n{good}{line}\n")).expect("written");
            let error = tokens.reload(&file.0).expect_err(line);
            assert!(error.contains("line 4: ") && error.contains(what), "{error}");
            assert!(error.contains(&file.0.display().to_string()), "{error}");
        }
        assert!(tokens.find(&token).is_some());
        assert!(add(&file.0, Role::Read, "a:b").is_err());
    }
}
