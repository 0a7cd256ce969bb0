//! `broker ctl`: the admin interface from the command line. A crate of its own, which is compiled for size.
//!
//! | file | what it does |
//! | --- | --- |
//! | `flags` | the command line |
//! | `target` | where the interface is, and the token for it |
//! | `client` | HTTP requests |
//! | `calls` | the request of each command, and how its answer is shown |
//! | `drain` | a node that is emptied |
//! | `table` | answers for people |
//! | `output` | standard output |
//! | `top` | the command that refreshes |
//! | `trace` | packets as they come |

mod calls;
mod client;
mod drain;
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

use calls::{Call, View};
use client::{Answer, Client};
pub use flags::{ClusterFlags, CtlCommand, CtlFlags, ROLES, TokenCommand, level_names};
use output::Output;
pub use target::Target;
use trace::Trace;

/// Bytes of a payload or of content from standard input at most.
const INPUT_BYTES_MAX: u64 = 1 << 20;

/// What the program knows that the client is part of.
pub struct Known<'a> {
    /// Where the configuration has the interface.
    pub places: Vec<Target>,
    /// Asks for the new password of a user; the error says why there is none.
    pub new_password: NewPassword<'a>,
}

/// See [`Known::new_password`].
pub type NewPassword<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, or the answer is yes.
    Done,
    /// The answer is no.
    No,
    /// Flags, files and variables cannot be used.
    Usage,
    /// Nobody answers.
    Unreachable,
    /// The caller may not do this.
    NotAllowed,
    /// It is done in part.
    InPart,
}

/// Why a command failed.
#[derive(Debug)]
pub enum Error {
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

impl Error {
    /// What the error says about the command.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Usage(_) => Outcome::Usage,
            Self::Unreachable(_) => Outcome::Unreachable,
            Self::NotAllowed(_) => Outcome::NotAllowed,
            Self::No(_) | Self::Failed(_) => Outcome::No,
        }
    }
}

/// Runs the command.
pub fn run(flags: &CtlFlags, known: &Known<'_>) -> Result<Outcome, Error> {
    let CtlFlags { interface, what } = flags;
    let target = Target::find(interface.at.as_ref(), known.places.clone())?;
    let token = target::token(interface.token_file.as_deref())?;
    if token.is_some() && target.is_exposed() && !interface.insecure {
        return Err(Error::Usage(format!(
            "{target}: others on the way could read the token, which is sent as plain text; use https, or --insecure in a \
             network that you trust"
        )));
    }
    let client =
        Client::new(target, token, interface.ca.as_deref(), interface.identity.as_deref())?;
    let output = Output::new(interface.json);
    Ok(match what {
        CtlCommand::Top { by, n, interval, once } => {
            top::run(&client, output, (*by, *n), *interval, *once)?
        }
        CtlCommand::Drain(flags) if drain::waits(flags) => {
            ask(&client, output, drain::call(flags))?;
            drain::wait(&client, output)?
        }
        what => ask(&client, output, calls::of(what, known.new_password)?)?,
    })
}

/// Sends the request of a command, and prints what comes.
fn ask(client: &Client, output: Output, call: Call) -> Result<Outcome, Error> {
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
fn outcome(status: StatusCode, answer: &Value) -> Outcome {
    let list = |name: &str| answer.get(name).and_then(Value::as_array);
    let has = |name: &str| list(name).is_some_and(|entries| !entries.is_empty());
    let is_complete = answer.get("complete").and_then(Value::as_bool).unwrap_or(true);
    match status {
        StatusCode::MULTI_STATUS => Outcome::InPart,
        status if !status.is_success() || has("errors") => Outcome::No,
        _ if has("needs_restart") || !is_complete => Outcome::InPart,
        _ => Outcome::Done,
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

/// Prints text of the program itself.
pub fn print_text(text: &str) -> Result<(), Error> {
    Output::new(false).print(text)
}
