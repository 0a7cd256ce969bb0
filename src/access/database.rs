//! The user database: users with passwords, and access rules, that operators change while the broker runs.
//!
//! The database is a file in the folder of the store. A change writes the whole file under another name, syncs and
//! renames it, and then takes effect on all cores, like a reload of the files. The password file and the file of rules go
//! first: a user of the password file hides a user of the same name here, and the rules here are asked after those of the
//! file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::acl::Rules;
use super::password_file::{self, Passwords, User};
use super::{AccessError, Asked, Control, Files, State, lock};
use crate::base::secret_file;
use crate::config::{self, Hashing};

#[cfg(test)]
mod tests;

/// The file's name.
const FILE: &str = "users.json";

/// Format of the file.
const FORMAT: u32 = 1;

/// Bytes of a user's name and of a group's name at most.
const NAME_BYTES_MAX: usize = 1_024;

/// Groups of a user at most.
const GROUPS_MAX: usize = 64;

/// Bytes of a password at most, as in CONNECT.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// Bytes of a rule, and of the clients that it is for, at most.
const RULE_BYTES_MAX: usize = 4_096;

/// The database and its file.
pub(super) struct Database {
    file: PathBuf,
    content: Arc<Content>,
}

/// Users and rules at one time.
#[derive(Clone, Default)]
pub(crate) struct Content {
    users: BTreeMap<Box<str>, Arc<Account>>,
    rules: Vec<Entry>,
    /// Number of the last rule, which no other rule gets.
    last_rule: u32,
}

/// A user.
#[derive(Clone)]
pub(crate) struct Account {
    user: Arc<User>,
    /// Groups of the rules that the user is a member of.
    pub groups: Box<[Box<str>]>,
}

impl Account {
    fn stored(&self, name: &str) -> StoredUser {
        StoredUser {
            name: name.into(),
            hash: self.user.hash().into(),
            verifier: self.user.verifier.clone(),
            groups: self.groups.clone(),
        }
    }

    /// Whether the user can log in by SCRAM.
    pub fn has_verifier(&self) -> bool {
        self.user.verifier.is_some()
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Number, which stays the same.
    pub number: u32,
    /// The clients that the rule is for, as in a line `for …`.
    #[serde(rename = "for")]
    pub who: Box<str>,
    /// The rule, as in a line `allow …` or `deny …`.
    pub rule: Box<str>,
}

/// A change of the database.
pub(crate) enum Edit {
    /// A new user.
    AddUser { name: String, password: String, groups: Vec<String> },
    /// Another password, other groups, or both.
    ChangeUser { name: String, password: Option<String>, groups: Option<Vec<String>> },
    /// One user less.
    RemoveUser { name: String },
    /// A new rule, before another one or after all.
    AddRule { who: String, rule: String, before: Option<u32> },
    /// Another rule in the place of one.
    ChangeRule { number: u32, who: String, rule: String },
    /// One rule less.
    RemoveRule { number: u32 },
}

/// Why a change is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no database.
    NotKept(String),
    /// The request is wrong.
    Wrong(String),
    /// There is no such user or rule.
    Unknown(String),
    /// There is such a user already.
    Exists(String),
    /// There is no room for another one.
    Full(String),
    /// The file cannot be written, or memory is missing.
    Failed(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotKept(what)
        | Self::Wrong(what)
        | Self::Unknown(what)
        | Self::Exists(what)
        | Self::Full(what)
        | Self::Failed(what)) = self;
        f.write_str(what)
    }
}

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    users: Vec<StoredUser>,
    last_rule: u32,
    rules: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredUser {
    name: Box<str>,
    hash: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verifier: Option<Box<str>>,
    groups: Box<[Box<str>]>,
}

impl Database {
    /// Reads the database; none if the settings ask for none.
    pub fn open(asked: &Asked) -> Result<Option<Self>, AccessError> {
        if !asked.access.database.is_used() {
            return Ok(None);
        }
        let folder = asked.folder.as_ref().map_err(|why| {
            AccessError(format!(
                "access.database: users and rules are kept in the folder of the store, and there is none ({why}); set \
                 storage.data, or --data DIR"
            ))
        })?;
        let file = folder.join(FILE);
        let content = Content::read(&file).map_err(AccessError)?;
        secret_file::warn_if_open(&file, "the user database");
        Ok(Some(Self { file, content: Arc::new(content) }))
    }

    /// Users and rules of now.
    pub fn content(&self) -> Arc<Content> {
        Arc::clone(&self.content)
    }

    /// The rules and users of the files, followed by those of the database that the settings ask for.
    pub fn merge(&self, asked: &Asked, files: &Files) -> (Option<Arc<Rules>>, Arc<Passwords>) {
        let bounds = &asked.access.database;
        let users = || self.content.users.iter().filter(|_| bounds.users_max > 0);
        let named = users().map(|(name, of)| (&**name, &of.user));
        let passwords = Passwords::clone(&files.passwords).with(named);
        if files.rules.is_none() && bounds.rules_max == 0 {
            return (None, Arc::new(passwords));
        }
        let mut rules = files.rules.as_deref().cloned().unwrap_or_default();
        for (name, account) in users().filter(|(name, _)| files.passwords.user(name).is_none()) {
            account.groups.iter().for_each(|group| rules.join(name, group));
        }
        for Entry { number, who, rule } in
            self.content.rules.iter().filter(|_| bounds.rules_max > 0)
        {
            rules.push(*number, who, rule).expect("checked when it was read or added");
        }
        (Some(Arc::new(rules)), Arc::new(passwords))
    }
}

impl Content {
    /// Reads the file; nothing if there is none. The error says what is wrong with it.
    fn read(file: &Path) -> Result<Self, String> {
        let unusable = |what: &dyn fmt::Display| {
            format!(
                "the user database {} cannot be read: {what}; restore the file from a backup, or remove it to begin \
                 without users and rules",
                file.display()
            )
        };
        let text = match std::fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(unusable(&error)),
        };
        let stored: Stored = serde_json::from_slice(&text).map_err(|error| unusable(&error))?;
        Self::restore(stored).map_err(|what| unusable(&what))
    }

    fn restore(stored: Stored) -> Result<Self, String> {
        if stored.format != FORMAT {
            let format = stored.format;
            return Err(format!("it has format {format}, and this broker reads format {FORMAT}"));
        }
        let mut content = Self { last_rule: stored.last_rule, ..Self::default() };
        for StoredUser { name, hash, verifier, groups } in stored.users {
            let wrong = |what: &dyn fmt::Display| format!("user {name:?}: {what}");
            let user = User::parse(&hash, verifier.as_deref()).map_err(|what| wrong(&what))?;
            check_name(&name).and_then(|()| check_groups(&groups)).map_err(|what| wrong(&what))?;
            let account = Arc::new(Account { user: Arc::new(user), groups });
            if content.users.insert(name.clone(), account).is_some() {
                return Err(wrong(&"there are two of this name"));
            }
        }
        for rule in stored.rules {
            let number = rule.number;
            let wrong = |what: &dyn fmt::Display| format!("rule {number}: {what}");
            check_rule(&rule.who, &rule.rule).map_err(|what| wrong(&what))?;
            if number > content.last_rule || content.place_of(number).is_some() {
                return Err(wrong(&"its number is above last_rule, or there are two of it"));
            }
            content.rules.push(rule);
        }
        Ok(content)
    }

    fn write(&self, file: &Path) -> Result<(), Refused> {
        let stored = Stored {
            format: FORMAT,
            users: self.users.iter().map(|(name, of)| of.stored(name)).collect(),
            last_rule: self.last_rule,
            rules: self.rules.clone(),
        };
        let failed = |error: &dyn fmt::Display| {
            let file = file.display();
            Refused::Failed(format!("{file} cannot be written, nothing has changed: {error}"))
        };
        let text = serde_json::to_vec_pretty(&stored).map_err(|error| failed(&error))?;
        secret_file::replace(file, &text).map_err(|error| failed(&error))
    }

    /// Users whose names are after `after`, in the order of names.
    pub fn users_after<'a>(
        &'a self,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, &'a Account)> {
        let begin = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = self.users.range::<str, _>((begin, std::ops::Bound::Unbounded));
        range.map(|(name, account)| (&**name, &**account))
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<&Account> {
        self.users.get(name).map(|account| &**account)
    }

    /// Number of users.
    pub fn users_len(&self) -> usize {
        self.users.len()
    }

    /// The rules, in the order in which they are asked.
    pub fn rules(&self) -> &[Entry] {
        &self.rules
    }

    fn place_of(&self, number: u32) -> Option<usize> {
        self.rules.iter().position(|rule| rule.number == number)
    }

    /// Makes a change; returns the number of a new rule. Slow: a password is hashed.
    fn apply(&mut self, change: Edit, facts: &Facts<'_>) -> Result<Option<u32>, Refused> {
        match change {
            Edit::AddUser { name, password, groups } => {
                facts.add_user(self, &name, &password, &groups)?;
            }
            Edit::ChangeUser { name, password, groups } => {
                let account = self.users.get_mut(&*name).ok_or_else(|| unknown_user(&name))?;
                let account = Arc::make_mut(account);
                if let Some(password) = password {
                    account.user = facts.hash(&password, Some(&account.user))?;
                }
                if let Some(groups) = groups {
                    account.groups = groups_of(&groups)?;
                }
            }
            Edit::RemoveUser { name } => {
                self.users.remove(&*name).ok_or_else(|| unknown_user(&name))?;
            }
            Edit::AddRule { who, rule, before } => {
                let number = facts.add_rule(self, &who, &rule, before)?;
                return Ok(Some(number));
            }
            Edit::ChangeRule { number, who, rule } => {
                let place = self.place_of(number).ok_or_else(|| unknown_rule(number))?;
                check_rule(&who, &rule).map_err(Refused::Wrong)?;
                self.rules[place] = Entry { number, who: who.into(), rule: rule.into() };
            }
            Edit::RemoveRule { number } => {
                let place = self.place_of(number).ok_or_else(|| unknown_rule(number))?;
                self.rules.remove(place);
            }
        }
        Ok(None)
    }
}

/// What a change depends on.
struct Facts<'a> {
    bounds: &'a config::Database,
    hashing: &'a Hashing,
    in_file: &'a Passwords,
}

impl Facts<'_> {
    fn hash(&self, password: &str, before: Option<&User>) -> Result<Arc<User>, Refused> {
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            let what = format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes");
            return Err(Refused::Wrong(what));
        }
        let user = User::new(password, self.hashing, before);
        user.map(Arc::new).map_err(|error| Refused::Failed(error.to_string()))
    }

    fn add_user(
        &self,
        content: &mut Content,
        name: &str,
        password: &str,
        groups: &[String],
    ) -> Result<(), Refused> {
        check_name(name).map_err(Refused::Wrong)?;
        let groups = groups_of(groups)?;
        if self.in_file.user(name).is_some() {
            let what = format!(
                "the user {name:?} is in the password file, which goes first; change it there with `broker passwd`"
            );
            return Err(Refused::Exists(what));
        }
        if content.users.contains_key(name) {
            return Err(Refused::Exists(format!("there is a user {name:?}; change it instead")));
        }
        has_room("users", content.users.len(), self.bounds.users_max)?;
        let user = self.hash(password, None)?;
        content.users.insert(name.into(), Arc::new(Account { user, groups }));
        Ok(())
    }

    fn add_rule(
        &self,
        content: &mut Content,
        who: &str,
        rule: &str,
        before: Option<u32>,
    ) -> Result<u32, Refused> {
        check_rule(who, rule).map_err(Refused::Wrong)?;
        has_room("rules", content.rules.len(), self.bounds.rules_max)?;
        let place = match before {
            Some(other) => content.place_of(other).ok_or_else(|| unknown_rule(other))?,
            None => content.rules.len(),
        };
        let number = content.last_rule.checked_add(1);
        let number = number.ok_or_else(|| Refused::Full("no number is left".to_owned()))?;
        content.last_rule = number;
        content.rules.insert(place, Entry { number, who: who.into(), rule: rule.into() });
        Ok(number)
    }
}

fn has_room(what: &str, count: usize, max: u32) -> Result<(), Refused> {
    if max == 0 {
        return Err(Refused::NotKept(not_kept(what)));
    }
    match count < max as usize {
        true => Ok(()),
        false => Err(Refused::Full(format!(
            "there are {count} {what}; remove some, or raise access.database.{what}_max"
        ))),
    }
}

/// Says how to have a database.
pub(crate) fn not_kept(what: &str) -> String {
    format!(
        "this broker keeps no {what}: set access.database.{what}_max to the number of {what} that it may keep, in the \
         folder that storage.data names"
    )
}

/// There is no such user.
pub(crate) fn unknown_user(name: &str) -> Refused {
    Refused::Unknown(format!("the user database has no user {name:?}"))
}

fn unknown_rule(number: u32) -> Refused {
    Refused::Unknown(format!("the user database has no rule {number}"))
}

fn check_name(name: &str) -> Result<(), String> {
    password_file::check_name(name).map_err(|error| error.to_string())?;
    match name.len() > NAME_BYTES_MAX {
        true => Err(format!("a user's name is longer than {NAME_BYTES_MAX} bytes")),
        false => Ok(()),
    }
}

fn check_groups(groups: &[Box<str>]) -> Result<(), String> {
    if groups.len() > GROUPS_MAX {
        return Err(format!("a user has at most {GROUPS_MAX} groups"));
    }
    let is_wrong = |group: &str| {
        group.is_empty()
            || group.len() > NAME_BYTES_MAX
            || group.contains(|character: char| character == '"' || character.is_control())
    };
    match groups.iter().find(|group| is_wrong(group)) {
        Some(group) => Err(format!(
            "a group's name has 1 to {NAME_BYTES_MAX} bytes, and no quotation mark or control character: {group:?}"
        )),
        None => Ok(()),
    }
}

fn groups_of(names: &[String]) -> Result<Box<[Box<str>]>, Refused> {
    let mut groups: Vec<Box<str>> = names.iter().map(|name| name.as_str().into()).collect();
    groups.sort_unstable();
    groups.dedup();
    check_groups(&groups).map_err(Refused::Wrong)?;
    Ok(groups.into())
}

fn check_rule(who: &str, rule: &str) -> Result<(), String> {
    for text in [who, rule] {
        if text.len() > RULE_BYTES_MAX || text.contains(char::is_control) {
            let what = "longer than 4,096 bytes, or has a line break or another control character";
            return Err(format!("a rule, or the clients that it is for, is {what}"));
        }
    }
    Rules::default().push(0, who, rule)
}

impl Control {
    /// Users and rules of the database; none if there is none.
    pub(crate) fn database(&self) -> Option<Arc<Content>> {
        self.snapshot.load().database.clone()
    }

    /// Number of users and rules in the database.
    pub(super) fn database_counts(&self) -> (u64, u64) {
        let snapshot = self.snapshot.load();
        let content = snapshot.database.as_ref();
        content.map_or((0, 0), |of| (of.users.len() as u64, of.rules.len() as u64))
    }

    /// Whether a user of the password file hides one of the database.
    pub(crate) fn is_hidden(&self, name: &str, account: &Account) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.passwords.user(name).is_none_or(|user| !Arc::ptr_eq(user, &account.user))
    }

    /// Changes the database, in the file first, and puts the change in force; returns the number of a new rule. If the
    /// file cannot be written, nothing changes. Slow: waits for the disk, one change at a time.
    pub(crate) fn change_database(&self, change: Edit) -> Result<Option<u32>, Refused> {
        let mut state = lock(&self.state);
        let State { asked, files, database, .. } = &mut *state;
        let what = match change {
            Edit::AddUser { .. } | Edit::ChangeUser { .. } | Edit::RemoveUser { .. } => "users",
            _ => "rules",
        };
        let database = database.as_mut().ok_or_else(|| Refused::NotKept(not_kept(what)))?;
        let facts = Facts {
            bounds: &asked.access.database,
            hashing: &asked.access.hashing,
            in_file: &files.passwords,
        };
        let mut content = Content::clone(&database.content);
        let number = content.apply(change, &facts)?;
        content.write(&database.file)?;
        database.content = Arc::new(content);
        self.put_in_force(&state);
        Ok(number)
    }
}
