//! `broker passwd` and `broker acl`: password files and access rules, without a running broker.

use std::error::Error;
use std::fmt::{self, Write};
use std::io::{BufRead, IsTerminal};
use std::path::Path;

use super::console::print;
use super::{AclCommand, Exit, Failure, PasswdCommand};
use crate::access::acl::{Covered, Rules, Subject, Wish};
use crate::access::password_file::{self, Passwords};
use crate::access::read_rules;
use crate::config::{AclFormat, Settings};
use crate::wire::Qos;

/// The text to print, and whether the answer is yes.
type Answer = Result<(String, bool), Box<dyn Error>>;

/// Runs `broker passwd`.
pub(super) fn passwd(
    what: &PasswdCommand,
    file: Option<&Path>,
    settings: &Settings,
) -> Result<Exit, Failure> {
    print_answer("passwd", change_or_ask_passwords(what, file, settings))
}

/// Runs `broker acl check`.
pub(super) fn acl(what: &AclCommand, settings: &Settings) -> Result<Exit, Failure> {
    print_answer("acl", ask_rules(what, settings))
}

fn print_answer(command: &'static str, answer: Answer) -> Result<Exit, Failure> {
    let (text, is_yes) = answer.map_err(Failure::of(Exit::Configuration, command))?;
    print(text, Exit::of_answer(is_yes))
}

fn change_or_ask_passwords(
    what: &PasswdCommand,
    file: Option<&Path>,
    settings: &Settings,
) -> Answer {
    let path = match file {
        Some(path) => path,
        None if settings.access.has_password_file() => &settings.access.password_file,
        None => {
            return Err(
                "no password file: name one with --file, or a configuration that names one \
                        with --config"
                    .into(),
            );
        }
    };
    let at = path.display();
    let hashing = &settings.access.hashing;
    Ok(match what {
        PasswdCommand::Add { user } => {
            let password = new_password(user)?;
            match password_file::add(path, user, &password, hashing)? {
                true => (format!("{at}: {user} added"), true),
                false => (format!("{at}: {user} has a new password"), true),
            }
        }
        PasswdCommand::Remove { user } => {
            password_file::remove(path, user)?;
            (format!("{at}: {user} removed"), true)
        }
        PasswdCommand::Upgrade => {
            let upgraded = password_file::upgrade(path, hashing)?;
            (format!("{at}: hashes protected by Argon2id: {upgraded}"), true)
        }
        PasswdCommand::List => (Passwords::read(path, hashing)?.names().join("\n"), true),
        PasswdCommand::Verify { user } => {
            let passwords = Passwords::read(path, hashing)?;
            let password = read_password(&format!("Password of {user}: "))?;
            match passwords.verify(user, password.as_bytes())? {
                true => (format!("{at}: this is the password of {user}"), true),
                false => (format!("{at}: there is no user {user} with this password"), false),
            }
        }
    })
}

/// Asks for a new password, twice on a terminal.
pub(super) fn new_password(user: &str) -> Result<String, Box<dyn Error>> {
    let password = read_password(&format!("New password of {user}: "))?;
    if password.is_empty() {
        return Err("the password is empty".into());
    }
    if std::io::stdin().is_terminal() && read_password("Repeat the password: ")? != password {
        return Err("the passwords differ; nothing was changed".into());
    }
    Ok(password)
}

/// Reads a password from the terminal without echo, or from the first line of standard input.
fn read_password(prompt: &str) -> Result<String, Box<dyn Error>> {
    if std::io::stdin().is_terminal() {
        return Ok(rpassword::prompt_password(prompt)?);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    Ok(password.strip_suffix('\r').unwrap_or(password).to_owned())
}

fn ask_rules(what: &AclCommand, settings: &Settings) -> Answer {
    let AclCommand::Check { user, topic, client, publish, subscribe, qos, retain, file, format } =
        what;
    let path = match file {
        Some(path) => path,
        None if !settings.access.acl_file.as_os_str().is_empty() => &settings.access.acl_file,
        None => {
            return Err(
                "no file of access rules: name one with --file, or a configuration that names one \
                        with --config; without rules everything is allowed"
                    .into(),
            );
        }
    };
    let format = match format.as_deref() {
        Some("mosquitto") => AclFormat::Mosquitto,
        Some(_) => AclFormat::Ringmq,
        None => settings.access.acl_format,
    };
    let rules = read_rules("access.acl_file", path, format)?;
    let qos = Qos::try_from(*qos).map_err(|_| "--qos: 0, 1 or 2 is expected")?;
    let user = Some(user.as_str()).filter(|user| *user != "-");
    let client_identifier = client.as_deref().unwrap_or_default();
    let mut wishes = Vec::new();
    if let Some(topic) = topic.as_deref() {
        let has_wildcard = shards::has_wildcard(topic) || topic.starts_with("$share/");
        let both = !publish && !subscribe;
        if *publish && has_wildcard {
            return Err("--publish: a topic with wildcards cannot be published to".into());
        }
        if *publish || (both && !has_wildcard) {
            wishes.push(("publish", topic, Wish::Publish { topic, qos, retain: *retain }));
        }
        if *subscribe || both {
            wishes.push(("subscribe", topic, Wish::Subscribe { filter: topic, qos }));
        }
    }
    let subject = Subject { user, client_identifier };
    let mut question =
        Question { path, rules: &rules, subject, is_allowed: true, text: String::new() };
    if client.is_some() || topic.is_none() {
        question.ask_identifier(topic.is_none())?;
    }
    for (name, topic, wish) in wishes {
        match wish {
            Wish::Subscribe { filter, .. } if rules.is_filtering() => question.ask_part(filter)?,
            _ => question.ask(name, topic, qos, &wish)?,
        }
    }
    Ok((question.text.trim_end().to_owned(), question.is_allowed))
}

/// The client that is checked, and the results so far.
struct Question<'a> {
    path: &'a Path,
    rules: &'a Rules,
    subject: Subject<'a>,
    is_allowed: bool,
    text: String,
}

impl Question<'_> {
    /// Checks whether the client may use its Client Identifier. `mentions_silence` also reports that no rule is
    /// about Client Identifiers.
    fn ask_identifier(&mut self, mentions_silence: bool) -> fmt::Result {
        let (who, at) = (self.who(), self.path.display());
        let client_identifier = self.subject.client_identifier;
        let Some(verdict) = self.rules.decide_identifier(&self.subject) else {
            if mentions_silence {
                writeln!(
                    self.text,
                    "client {client_identifier}: allowed for {who}: no rule in {at} is about Client \
                     Identifiers"
                )?;
            }
            return Ok(());
        };
        self.is_allowed &= verdict.is_allowed;
        let word = if verdict.is_allowed { "allowed" } else { "denied" };
        write!(self.text, "client {client_identifier}: {word} for {who}")?;
        match verdict.by {
            Some((rule, section)) => self.explain(rule, rule.line, section),
            None => writeln!(self.text, ": no rule in {at} allows it"),
        }
    }

    /// Checks a publication or subscription.
    fn ask(&mut self, name: &str, topic: &str, qos: Qos, wish: &Wish<'_>) -> fmt::Result {
        let verdict = self.rules.decide_once(&self.subject, wish);
        self.is_allowed &= verdict.qos.is_some();
        let word = match verdict.qos {
            Some(granted) if granted < qos => format!("allowed with QoS {}", u8::from(granted)),
            Some(_) => "allowed".to_owned(),
            None => "denied".to_owned(),
        };
        let who = self.who();
        write!(self.text, "{name} {topic}: {word} for {who}")?;
        match verdict.by {
            Some((rule, section)) => self.explain(rule, rule.line, section),
            None => writeln!(self.text, ": no rule in {} applies", self.path.display()),
        }
    }

    /// Checks how much of what a filter matches a client receives.
    fn ask_part(&mut self, filter: &str) -> fmt::Result {
        let sections = self.rules.sections_of(&self.subject);
        let covered = self.rules.covered(&sections, &self.subject, filter);
        let is_shared = filter.starts_with("$share/");
        let (word, part) = match covered {
            Covered::Whole => ("allowed", "everything"),
            Covered::Part { .. } if is_shared => ("denied", "a part"),
            Covered::Part { .. } => ("allowed", "a part"),
            Covered::Nothing { .. } => ("denied", "nothing"),
        };
        self.is_allowed &= word == "allowed";
        let (who, at) = (self.who(), self.path.display());
        writeln!(
            self.text,
            "subscribe {filter}: {word} for {who}: the rules in {at} let the client receive {part} of it"
        )
    }

    fn who(&self) -> String {
        match self.subject.user {
            Some(user) => format!("{user:?}"),
            None => "an anonymous client".to_owned(),
        }
    }

    /// Appends the rule that decided.
    fn explain(&mut self, rule: &dyn fmt::Display, line: u32, section: u32) -> fmt::Result {
        let at = self.path.display();
        writeln!(self.text, " by {at}:{line}: `{rule}` (its section begins in line {section})")
    }
}
