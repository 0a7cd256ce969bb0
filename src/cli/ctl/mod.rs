//! `broker ctl`: the admin interface from the command line.
//!
//! | file | what it does |
//! | --- | --- |
//! | `flags` | the command line |
//! | `target` | where the interface is, and the token for it |
//! | `client` | HTTP requests |
//! | `calls` | the request of each command, and how its answer is shown |
//! | `table` | answers for people |
//! | `output` | standard output |
//! | `top` | the command that refreshes |
//! | `trace` | packets as they come |

mod calls;
mod client;
mod flags;
mod output;
mod table;
mod target;
mod top;
mod trace;

use std::fmt;
use std::io::Read;

use axum::http::StatusCode;
use serde_json::Value;

use super::{Exit, Failure};
use crate::admin::auth::tokens;
use crate::config::Settings;
use calls::{Call, View};
use client::{Answer, Client};
use flags::TokenCommand;
pub use flags::{CtlCommand, CtlFlags};
use output::Output;
use target::Target;
use trace::Trace;

/// Bytes of a payload or of content from standard input at most.
const INPUT_BYTES_MAX: u64 = 1 << 20;

/// Why a command failed.
#[derive(Debug)]
enum Error {
    /// Flags, files and variables that cannot be used.
    Usage(String),
    /// Nobody answers.
    Unreachable(String),
    /// The interface refused the request because of the caller.
    NotAllowed(String),
    /// The interface answered no.
    No(String),
    /// Any other failure.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(what)
        | Self::Unreachable(what)
        | Self::NotAllowed(what)
        | Self::No(what)
        | Self::Failed(what)) = self;
        f.write_str(what)
    }
}

impl std::error::Error for Error {}

/// The exit codes of this command, which have the numbers of those of the broker.
mod exit {
    use super::Exit;

    pub const DONE: Exit = Exit::Success;
    pub const NO: Exit = Exit::Other;
    pub const USAGE: Exit = Exit::Configuration;
    pub const UNREACHABLE: Exit = Exit::Listen;
    pub const NOT_ALLOWED: Exit = Exit::Descriptors;
    pub const IN_PART: Exit = Exit::Store;
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error {
            Error::Usage(_) => exit::USAGE,
            Error::Unreachable(_) => exit::UNREACHABLE,
            Error::NotAllowed(_) => exit::NOT_ALLOWED,
            Error::No(_) | Error::Failed(_) => exit::NO,
        };
        Self::of(exit, "ctl")(error)
    }
}

/// Runs the command.
pub(super) fn run(flags: &CtlFlags, settings: &Settings) -> Result<Exit, Failure> {
    if let CtlCommand::Token { file, what } = &flags.what {
        let file = file.as_ref().unwrap_or(&settings.admin.access.tokens_file);
        return Ok(token(file, what)?);
    }
    let target = Target::find(flags.at.as_ref(), settings)?;
    let token = target::token(flags.token_file.as_deref())?;
    if token.is_some() && target.is_exposed() && !flags.insecure {
        return Err(Failure::from(Error::Usage(format!(
            "{target}: others on the way could read the token, which is sent as plain text; use https, or --insecure in a \
             network that you trust"
        ))));
    }
    let client = Client::new(target, token, flags.ca.as_deref(), flags.identity.as_deref())?;
    let output = Output::new(flags.json);
    Ok(match &flags.what {
        CtlCommand::Top { by, n, interval, once } => {
            top::run(&client, output, (*by, *n), *interval, *once)?
        }
        what => ask(&client, output, calls::of(what)?)?,
    })
}

/// Sends the request of a command, and prints what comes.
fn ask(client: &Client, output: Output, call: Call) -> Result<Exit, Error> {
    if let View::Stream = call.view {
        let mut trace = Trace::new(output);
        return match client.stream(&call.path, |part| trace.add(part))? {
            Some(refused) => Err(refusal(&refused)),
            None => trace.end(),
        };
    }
    // People see the pages of a list as one table.
    let list = match call.view {
        View::List(list) if !output.is_json => Some(list),
        _ => None,
    };
    let (mut left, mut cursor, mut entries) = (call.limit, None::<String>, None::<Vec<Value>>);
    loop {
        let path = call.page(left, cursor.as_deref());
        let answer = client.ask(&call.method, &path, call.content.clone())?;
        if !call.shows_refusals(answer.status) && !answer.status.is_success() {
            return Err(refusal(&answer));
        }
        let value = json(&answer);
        let page = list.and_then(|list| list.entries(value.as_ref()?));
        match page {
            Some(page) => entries.get_or_insert_default().extend(page.iter().cloned()),
            None => print(output, &call, &answer, value.as_ref())?,
        }
        let value = value.unwrap_or_default();
        cursor = value.get("next").and_then(Value::as_str).map(str::to_owned);
        left = left.saturating_sub(call.entries(&value));
        if cursor.is_none() || left == 0 {
            if let Some((list, entries)) = list.zip(entries) {
                output.print(&table::of_entries(&entries, list, output.width()))?;
                if cursor.is_some() {
                    output.print("… and more, which --limit shows\n")?;
                }
            }
            return Ok(outcome(answer.status, &value));
        }
    }
}

fn json(answer: &Answer) -> Option<Value> {
    answer.is_json.then(|| serde_json::from_slice(&answer.content).ok())?
}

fn print(output: Output, call: &Call, answer: &Answer, value: Option<&Value>) -> Result<(), Error> {
    match value {
        Some(value) if output.is_json => output.print_foreign(format!("{value}\n").as_bytes()),
        Some(value) => output.print_foreign(call.shown(value, output.width()).as_bytes()),
        None if answer.content.is_empty() => output.print(&call.done_text()),
        None => output.print_foreign(&answer.content),
    }
}

/// The exit code of an answer that is not a refusal.
fn outcome(status: StatusCode, answer: &Value) -> Exit {
    let list = |name: &str| answer.get(name).and_then(Value::as_array);
    let has = |name: &str| list(name).is_some_and(|entries| !entries.is_empty());
    let is_complete = answer.get("complete").and_then(Value::as_bool).unwrap_or(true);
    match status {
        StatusCode::MULTI_STATUS => exit::IN_PART,
        status if !status.is_success() || has("errors") => exit::NO,
        _ if has("needs_restart") || !is_complete => exit::IN_PART,
        _ => exit::DONE,
    }
}

/// The error that an answer describes.
fn refusal(answer: &Answer) -> Error {
    let value = json(answer).unwrap_or_default();
    let detail = value.get("detail").or_else(|| value.get("title")).and_then(Value::as_str);
    let text = String::from_utf8_lossy(&answer.content);
    let what = format!("{} ({})", table::printable(detail.unwrap_or(text.trim())), answer.status);
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::NotAllowed(what),
        _ => Error::No(what),
    }
}

/// Text that was given, or standard input for `-`.
fn given_or_input(text: &str) -> Result<Vec<u8>, Error> {
    if text != "-" {
        return Ok(text.as_bytes().to_vec());
    }
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_end(&mut input);
    read.map_err(|error| Error::Usage(format!("standard input: {error}")))?;
    match input.len() as u64 > INPUT_BYTES_MAX {
        true => Err(Error::Usage("standard input has more than 1 MiB".to_owned())),
        false => Ok(input),
    }
}

/// Changes the file of tokens.
fn token(file: &std::path::Path, what: &TokenCommand) -> Result<Exit, Error> {
    if file.as_os_str().is_empty() {
        let what = "no file of tokens: set admin.access.tokens_file in the configuration and name that with \
                    --config, or use --file";
        return Err(Error::Usage(what.to_owned()));
    }
    match what {
        TokenCommand::Add { role, name } => {
            let token = tokens::add(file, *role, name).map_err(Error::Usage)?;
            Output::new(false).print(&format!("{token}\n"))?;
            Ok(exit::DONE)
        }
        TokenCommand::Remove { name } => match tokens::remove(file, name).map_err(Error::Usage)? {
            true => Ok(exit::DONE),
            false => Err(Error::No(format!("{} has no token {name:?}", file.display()))),
        },
    }
}
