//! Dynamic security: clients, groups and roles in the file of Mosquitto's plugin of that name, which commands on the topic
//! `$CONTROL/dynamic-security/v1` change while the broker runs.
//!
//! One thread executes the commands of all cores, one message after the other. A change writes the whole file under
//! another name, syncs and renames it, and then takes effect on all cores, like a reload of the files. Only after that
//! the answer goes to the core that has received the commands, which publishes it.

mod commands;
mod document;
mod json;
mod limits;
mod policy;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::acl::Subject;
use super::password_file::{Passwords, User};
use super::{AccessError, Asked, Control, Notify, configured, lock, warn_about};
use crate::base::atomic::AtomicU64;
use crate::base::log_rate::{self, rated};
use crate::base::pool::Pool;
use crate::base::{secret_file, text_file};
use crate::config::Hashing;
use crate::engine::ControlTopic;
use commands::{Answers, Change};
use document::Document;
pub use policy::{Receiving, Security};

/// The key of the file's name.
const KEY: &str = "access.dynamic_security";

/// The topic of commands.
const COMMANDS: &str = "$CONTROL/dynamic-security/v1";

/// The topic of answers.
const ANSWERS: &str = "$CONTROL/dynamic-security/v1/response";

/// The last mark of a client whose rights have changed.
static STAMP: AtomicU64 = AtomicU64::new(0);

/// A mark that no client has.
fn next_stamp() -> u64 {
    STAMP.fetch_add(1, Relaxed) + 1
}

/// What a topic is for.
pub(super) fn control_topic(topic: &str) -> ControlTopic {
    match topic {
        COMMANDS => ControlTopic::Commands,
        _ if topic.starts_with("$CONTROL/") => ControlTopic::Reserved,
        _ => ControlTopic::No,
    }
}

/// A message with commands, and who sent it.
#[derive(Debug)]
struct Request {
    payload: Box<[u8]>,
    user: Option<Box<str>>,
    client_identifier: Box<str>,
}

/// A message that the broker publishes: its topic and its payload.
pub(super) type Publication = (&'static str, Vec<u8>);

/// Counters of commands.
#[derive(Default)]
pub(super) struct Counts {
    pub commands: AtomicU64,
    /// Of these, commands that were answered with an error.
    pub errors: AtomicU64,
    /// Messages with commands for which there was no room.
    pub refused: AtomicU64,
}

/// The thread that executes commands, and its counters.
pub(super) struct Executor {
    /// A pool of one thread, which takes one message after the other.
    thread: Pool,
    pub counts: Counts,
}

impl Default for Executor {
    fn default() -> Self {
        Self { thread: Pool::new(1, limits::WAITING_MAX), counts: Counts::default() }
    }
}

/// The document, its file, and what it says.
pub(super) struct DynamicSecurity {
    file: PathBuf,
    document: Arc<Document>,
    security: Arc<Security>,
    users: Vec<(Box<str>, Arc<User>)>,
}

impl DynamicSecurity {
    /// Reads the file; none if the settings name none. `before` is what has been in force until now.
    pub fn open(asked: &Asked, before: Option<&Self>) -> Result<Option<Self>, AccessError> {
        let Some(file) = configured(&asked.access.dynamic_security) else { return Ok(None) };
        let error = |what: &dyn std::fmt::Display| {
            AccessError(format!("{KEY}: {}: {what}", file.display()))
        };
        let text = match text_file::read(file) {
            Ok(text) => text,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
                let hint = "`mosquitto_ctrl dynsec init FILE USER` makes one with an administrator";
                return Err(error(&format!("{why}; {hint}")));
            }
            Err(why) => return Err(error(&why)),
        };
        if text.len() > limits::DOCUMENT_BYTES_MAX {
            return Err(error(&limits::too_large()));
        }
        secret_file::warn_if_open(file, "the passwords of dynamic security");
        let (mut document, unknown) =
            Document::read(&text, next_stamp()).map_err(|what| error(&what))?;
        if unknown > 0 {
            let what = format!(
                "dynamic security: {unknown} names of roles, groups or clients in lists are not defined, and left out"
            );
            warn_about(file, &what);
        }
        if let Some(before) = before.filter(|before| before.file == *file) {
            document.keep_marks_of(&before.document);
        }
        Ok(Some(Self::of(file.to_owned(), document, &asked.access.hashing)))
    }

    fn of(file: PathBuf, document: Document, hashing: &Hashing) -> Self {
        let nobody = User::nobody(hashing);
        let users = document.clients.iter().map(|(name, client)| {
            let user = client.password.as_ref().map_or(&nobody, |password| &password.user);
            (name.clone(), Arc::clone(user))
        });
        let users = users.collect();
        let security = Arc::new(Security::of(&document));
        Self { file, document: Arc::new(document), security, users }
    }

    /// What the document says.
    pub fn security(&self) -> Arc<Security> {
        Arc::clone(&self.security)
    }

    /// The users of the document, followed by others.
    pub fn passwords_before(&self, others: &Passwords) -> Passwords {
        others.behind(self.users.iter().map(|(name, user)| (&**name, user)))
    }

    /// Whether another one is of the same file.
    pub fn is_of_file(&self, other: Option<&Self>) -> bool {
        other.is_some_and(|other| self.file == other.file)
    }

    /// Whether both are of the same file and commands have changed one of them since the other was read.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.file == other.file && self.document.changes != other.document.changes
    }

    /// Writes the file as it is, so that a broker that cannot keep changes does not start.
    pub fn check_writable(&self) -> Result<(), AccessError> {
        let write = || secret_file::replace(&self.file, &std::fs::read(&self.file)?);
        write().map_err(|error| unwritable(&self.file, &error))
    }

    /// Executes commands, and writes what they change. If that fails, nothing has changed.
    fn execute(&mut self, payload: &[u8], hashing: &Hashing) -> Answers {
        let mut document = Document::clone(&self.document);
        let mut change = Change { document: &mut document, stamp: next_stamp() };
        let mut answers = commands::execute(payload, &mut change);
        let changes = answers.changes().count();
        if changes == 0 {
            return answers;
        }
        document.changes += changes as u64;
        let written = document.write().and_then(|text| {
            secret_file::replace(&self.file, &text).map_err(|error| {
                format!("{} cannot be written, nothing has changed: {error}", self.file.display())
            })
        });
        match written {
            Ok(()) => *self = Self::of(std::mem::take(&mut self.file), document, hashing),
            Err(reason) => {
                rated!(error, log_rate::now(), "dynamic security: {reason}");
                answers.withdraw(&reason);
            }
        }
        answers
    }
}

/// The error of a file that cannot be replaced.
fn unwritable(file: &Path, error: &std::io::Error) -> AccessError {
    AccessError(format!(
        "{KEY}: {}: {error}: commands of `mosquitto_ctrl` could not be kept; let the user of the broker write the file and \
         its folder, in which a new file replaces it",
        file.display()
    ))
}

impl Control {
    /// Checks that changes by commands can be kept. Writes files.
    pub(super) fn check_writable(&self) -> Result<(), AccessError> {
        lock(&self.state).security.as_ref().map_or(Ok(()), DynamicSecurity::check_writable)
    }

    /// Queues a message with commands; the answer goes to `reply`, and `notify` wakes the core. False if too many wait, or
    /// it is too large.
    pub(super) fn command(
        self: &Arc<Self>,
        who: &Subject<'_>,
        payload: &[u8],
        reply: flume::Sender<Publication>,
        notify: Notify,
    ) -> bool {
        let has_room = payload.len() <= limits::REQUEST_BYTES_MAX && {
            let control = Arc::clone(self);
            let request = Request {
                payload: payload.into(),
                user: who.user.map(Into::into),
                client_identifier: who.client_identifier.into(),
            };
            let execute = move || {
                if let Some(payload) = control.execute(&request) {
                    // Fails if the core has stopped.
                    let _ = reply.send((ANSWERS, payload));
                    notify();
                }
            };
            self.commands.thread.run(execute).is_ok()
        };
        if !has_room {
            self.commands.counts.refused.fetch_add(1, Relaxed);
        }
        has_room
    }

    /// Executes commands, and puts what they change in force; the answer. None if there is no dynamic security any more.
    fn execute(&self, request: &Request) -> Option<Vec<u8>> {
        let mut state = lock(&self.state);
        let hashing = state.asked.access.hashing;
        let security = state.security.as_mut()?;
        let answers = security.execute(&request.payload, &hashing);
        let mut has_changed = false;
        for command in answers.changes() {
            has_changed = true;
            let client = log_rate::name(&request.client_identifier);
            let user = request.user.as_deref().map(log_rate::name);
            rated!(info, log_rate::now(), client, user, command, "dynamic security has changed");
        }
        if has_changed {
            self.put_in_force(&state);
        }
        drop(state);
        let counts = &self.commands.counts;
        counts.commands.fetch_add(answers.len() as u64, Relaxed);
        counts.errors.fetch_add(answers.errors() as u64, Relaxed);
        Some(answers.into_text())
    }
}
