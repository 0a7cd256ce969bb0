//! Commands about the document, as `mosquitto_ctrl dynsec` sends them, and their answers. Works on a document in memory;
//! knows no file and no connection.

mod clients;
mod groups;
mod roles;

use std::borrow::Cow;

use serde_json::{Value, json};

use super::document::Document;
use super::json::{self, Object};
use super::limits;

/// Why a command is refused, in Mosquitto's words where it has any.
pub(super) type Refusal = Cow<'static, str>;

/// What a command has done.
enum Done {
    /// The document has changed.
    Changed,
    /// The answer to a question.
    Told(Value),
}

type Outcome = Result<Done, Refusal>;

type Command = fn(&mut Change<'_>, &Object) -> Outcome;

/// A document that commands change.
pub(super) struct Change<'a> {
    pub document: &'a mut Document,
    /// Marks clients whose connections have to end.
    pub stamp: u64,
}

/// All commands.
const COMMANDS: &[(&str, Command)] = &[
    ("getDefaultACLAccess", roles::get_defaults),
    ("setDefaultACLAccess", roles::set_defaults),
    ("getDetails", get_details),
    ("createClient", clients::create),
    ("deleteClient", clients::delete),
    ("enableClient", clients::enable),
    ("disableClient", clients::disable),
    ("setClientId", clients::set_identifier),
    ("setClientPassword", clients::set_password),
    ("modifyClient", clients::modify),
    ("getClient", clients::get),
    ("listClients", clients::list),
    ("addClientRole", clients::add_role),
    ("removeClientRole", clients::remove_role),
    ("createGroup", groups::create),
    ("deleteGroup", groups::delete),
    ("modifyGroup", groups::modify),
    ("getGroup", groups::get),
    ("listGroups", groups::list),
    ("addGroupClient", groups::add_client),
    ("removeGroupClient", groups::remove_client),
    ("addGroupRole", groups::add_role),
    ("removeGroupRole", groups::remove_role),
    ("getAnonymousGroup", groups::get_anonymous),
    ("setAnonymousGroup", groups::set_anonymous),
    ("createRole", roles::create),
    ("deleteRole", roles::delete),
    ("modifyRole", roles::modify),
    ("getRole", roles::get),
    ("listRoles", roles::list),
    ("addRoleACL", roles::add_acl),
    ("removeRoleACL", roles::remove_acl),
];

/// The name of what is no command.
const UNKNOWN: &str = "Unknown command";

/// A command with its outcome.
struct Answer {
    command: Box<str>,
    outcome: Outcome,
    correlation: Option<Box<str>>,
}

/// The answers to the commands of a message.
#[derive(Default)]
pub(super) struct Answers(Vec<Answer>);

impl Answers {
    /// The answer to a message that has no commands.
    fn one(error: &'static str) -> Self {
        let (command, outcome) = (UNKNOWN.into(), Err(error.into()));
        Self(vec![Answer { command, outcome, correlation: None }])
    }

    /// Number of commands.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Number of commands that are answered with an error.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|answer| answer.outcome.is_err()).count()
    }

    /// The commands that have changed the document.
    pub fn changes(&self) -> impl Iterator<Item = &str> {
        let has_changed = |answer: &&Answer| matches!(answer.outcome, Ok(Done::Changed));
        self.0.iter().filter(has_changed).map(|answer| &*answer.command)
    }

    /// The changes have no effect, for this reason; what was answered after them is not so.
    pub fn withdraw(&mut self, reason: &str) {
        for answer in &mut self.0 {
            answer.outcome = Err(reason.to_owned().into());
        }
    }

    /// The message with all answers.
    pub fn into_text(self) -> Vec<u8> {
        let mut text = b"{\"responses\":[".to_vec();
        for (number, answer) in self.0.into_iter().enumerate() {
            if number > 0 {
                text.push(b',');
            }
            let mut object = Object::new();
            object.insert("command".to_owned(), (&*answer.command).into());
            let is_full = text.len() >= limits::ANSWER_BYTES_MAX;
            match answer.outcome {
                Ok(Done::Changed) => {}
                Ok(Done::Told(_)) if is_full => {
                    let error = "The answer is too large; send fewer commands at once";
                    object.insert("error".to_owned(), error.into());
                }
                Ok(Done::Told(data)) => drop(object.insert("data".to_owned(), data)),
                Err(error) => drop(object.insert("error".to_owned(), (&*error).into())),
            }
            if let Some(correlation) = answer.correlation {
                object.insert("correlationData".to_owned(), (&*correlation).into());
            }
            serde_json::to_writer(&mut text, &object).expect("texts and numbers are JSON");
        }
        text.extend_from_slice(b"]}");
        text
    }
}

/// Executes the commands of a message in their order.
pub(super) fn execute(payload: &[u8], change: &mut Change<'_>) -> Answers {
    if payload.len() > limits::REQUEST_BYTES_MAX {
        return Answers::one("Payload too large");
    }
    let Ok(Value::Object(request)) = serde_json::from_slice(payload) else {
        return Answers::one("Payload not valid JSON");
    };
    let Some(Value::Array(commands)) = json::member(&request, "commands") else {
        return Answers::one("Invalid/missing commands");
    };
    if commands.len() > limits::COMMANDS_MAX {
        return Answers::one("Too many commands");
    }
    let mut told_bytes = 0;
    let answer = |command| {
        let mut answer = execute_one(command, change);
        if let Ok(Done::Told(data)) = &answer.outcome {
            // Only as many are kept as are sent.
            if told_bytes > limits::ANSWER_BYTES_MAX {
                answer.outcome = Err("The answer is too large; send fewer commands at once".into());
            } else {
                told_bytes += data.to_string().len();
            }
        }
        answer
    };
    Answers(commands.iter().map(answer).collect())
}

fn execute_one(command: &Value, change: &mut Change<'_>) -> Answer {
    let refused = |command: &str, error: &'static str| Answer {
        command: command.into(),
        outcome: Err(error.into()),
        correlation: None,
    };
    let Value::Object(object) = command else { return refused(UNKNOWN, "Command not an object") };
    let Ok(Some(name)) = json::text(object, "command") else {
        return refused(UNKNOWN, "Missing command");
    };
    let name = shortened(name);
    let Ok(correlation) = json::text(object, "correlationData") else {
        return refused(name, "Invalid correlationData data type.");
    };
    let correlation = correlation.map(Into::into);
    let found = COMMANDS.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
    match found {
        Some((own, run)) => {
            Answer { command: (*own).into(), outcome: run(change, object), correlation }
        }
        None => Answer { command: name.into(), outcome: Err(UNKNOWN.into()), correlation },
    }
}

/// The beginning of a name that is not known.
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(limits::NAME_BYTES_MAX)]
}

/// How many of each kind there are.
fn get_details(change: &mut Change<'_>, _: &Object) -> Outcome {
    let Document { clients, groups, roles, changes, .. } = &*change.document;
    Ok(Done::Told(json!({
        "clientCount": clients.len(), "groupCount": groups.len(), "roleCount": roles.len(),
        "changeIndex": changes,
    })))
}

/// A name that a command needs, such as `username`.
fn name<'a>(command: &'a Object, member: &'static str) -> Result<&'a str, Refusal> {
    let name = json::text(command, member).ok().flatten();
    let name = name.ok_or_else(|| format!("Invalid/missing {member}"))?;
    match name.len() > limits::NAME_BYTES_MAX {
        true => Err(format!("{member} too long").into()),
        false => Ok(name),
    }
}

/// The name of something new.
fn new_name<'a>(command: &'a Object, member: &'static str) -> Result<&'a str, Refusal> {
    match name(command, member)? {
        "" => Err(format!("Empty {member}").into()),
        name => Ok(name),
    }
}

/// A text that a command may have; `what` is its name in the error.
fn optional<'a>(command: &'a Object, member: &str, what: &str) -> Result<Option<&'a str>, Refusal> {
    let text = json::text(command, member).map_err(|_| format!("Invalid/missing {what}"))?;
    match text.is_some_and(|text| text.len() > limits::TEXT_BYTES_MAX) {
        true => Err(format!("{what} too long").into()),
        false => Ok(text),
    }
}

/// Takes the texts for people of a new entry.
fn texts_of_new(command: &Object) -> Result<super::document::Texts, Refusal> {
    Ok(super::document::Texts {
        name: optional(command, "textname", "textname")?.map(Into::into),
        description: optional(command, "textdescription", "textdescription")?.map(Into::into),
    })
}

/// Texts for people that replace earlier ones.
fn other_texts(
    command: &Object,
    before: &super::document::Texts,
) -> Result<super::document::Texts, Refusal> {
    let super::document::Texts { name, description } = texts_of_new(command)?;
    let before = before.clone();
    Ok(super::document::Texts {
        name: name.or(before.name),
        description: description.or(before.description),
    })
}

/// Some entries of a list, by `count` and `offset`; each as its name, or whole if the command is `verbose`.
fn listed<'a, T: 'a>(
    command: &Object,
    kind: &str,
    all: impl ExactSizeIterator<Item = (&'a Box<str>, &'a T)>,
    shown: impl Fn(&str, &T) -> Value,
) -> Outcome {
    let is_verbose = json::truth(command, "verbose").unwrap_or(false);
    let offset = json::number(command, "offset").unwrap_or(0).max(0) as usize;
    let count = json::number(command, "count").filter(|&count| count >= 0);
    // As in Mosquitto, there is no way to ask for none.
    let count = count.map_or(usize::MAX, |count| count.max(1) as usize);
    let total = all.len();
    let mut bytes = 0;
    let mut list = Vec::new();
    for (name, entry) in all.skip(offset).take(count) {
        let entry = if is_verbose { shown(name, entry) } else { (&**name).into() };
        bytes += entry.to_string().len();
        if bytes > limits::ANSWER_BYTES_MAX {
            return Err("The answer is too large; ask for parts by count and offset".into());
        }
        list.push(entry);
    }
    Ok(Done::Told(json!({ "totalCount": total, kind: list })))
}
