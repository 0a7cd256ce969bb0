//! `broker passwd` and `broker acl`: what an operator does about access without a broker that runs.

use std::fmt::Write;
use std::io::{BufRead, IsTerminal};
use std::path::Path;

use crate::access::acl::{Subject, Wish};
use crate::access::{passwords, read_rules};
use crate::cli::{AclCommand, PasswdCommand};
use crate::config::Settings;
use crate::wire::Qos;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// `broker passwd`: what to print, and whether the answer is yes.
pub fn passwd(
    what: &PasswdCommand,
    file: Option<&Path>,
    settings: &Settings,
) -> Outcome<(String, bool)> {
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
            match passwords::add(path, user, &password, hashing)? {
                true => (format!("{at}: {user} added"), true),
                false => (format!("{at}: {user} has a new password"), true),
            }
        }
        PasswdCommand::Remove { user } => {
            passwords::remove(path, user)?;
            (format!("{at}: {user} removed"), true)
        }
        PasswdCommand::List => {
            let passwords = passwords::Passwords::read(path, hashing)?;
            (passwords.names().join("\n"), true)
        }
        PasswdCommand::Verify { user } => {
            let passwords = passwords::Passwords::read(path, hashing)?;
            let password = read_password(&format!("Password of {user}: "))?;
            match passwords.verify(user, password.as_bytes())? {
                true => (format!("{at}: this is the password of {user}"), true),
                false => (format!("{at}: there is no user {user} with this password"), false),
            }
        }
    })
}

fn new_password(user: &str) -> Outcome<String> {
    let password = read_password(&format!("New password of {user}: "))?;
    if password.is_empty() {
        return Err("the password is empty".into());
    }
    if std::io::stdin().is_terminal() && read_password("The same again: ")? != password {
        return Err("the two are not the same; nothing was changed".into());
    }
    Ok(password)
}

/// From the terminal without showing it, or the first line of standard input.
fn read_password(prompt: &str) -> Outcome<String> {
    if std::io::stdin().is_terminal() {
        return Ok(rpassword::prompt_password(prompt)?);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    Ok(password.strip_suffix('\r').unwrap_or(password).to_owned())
}

/// `broker acl check`: what to print, and whether everything asked is allowed.
pub fn acl(what: &AclCommand, settings: &Settings) -> Outcome<(String, bool)> {
    let AclCommand::Check { user, topic, client, publish, subscribe, qos, retain, file } = what;
    let path = match file {
        Some(path) => path,
        None if !settings.access.acl_file.as_os_str().is_empty() => &settings.access.acl_file,
        None => {
            return Err(
                "no file of rules: name one with --file, or a configuration that names one \
                        with --config; without rules everything is allowed"
                    .into(),
            );
        }
    };
    let rules = read_rules(path)?;
    let qos = Qos::try_from(*qos).map_err(|_| "--qos: 0, 1 or 2 is expected")?;
    let user = Some(user.as_str()).filter(|user| *user != "-");
    let client_identifier = client.as_deref().unwrap_or_default();
    let subject = Subject { user, client_identifier };
    let mut wishes = Vec::new();
    if let Some(topic) = topic.as_deref() {
        let has_wildcard = shards::has_wildcard(topic) || topic.starts_with("$share/");
        let both = !publish && !subscribe;
        if *publish && has_wildcard {
            return Err("--publish: nobody publishes to a topic with wildcards".into());
        }
        if *publish || (both && !has_wildcard) {
            wishes.push(("publish", topic, Wish::Publish { topic, qos, retain: *retain }));
        }
        if *subscribe || both {
            wishes.push(("subscribe", topic, Wish::Subscribe { filter: topic, qos }));
        }
    }
    let who = user.map_or("somebody without a name".to_owned(), |user| format!("{user:?}"));
    let (mut text, mut is_allowed) = (String::new(), true);
    if client.is_some()
        && let Some(verdict) = rules.decide_identifier(&subject)
    {
        is_allowed = verdict.is_allowed;
        let word = if is_allowed { "allowed" } else { "denied" };
        write!(text, "client {client_identifier}: {word} for {who}")?;
        match verdict.by {
            Some((rule, section)) => explain(&mut text, path, rule, rule.line, section)?,
            None => writeln!(text, ": no rule in {} allows it", path.display())?,
        }
    } else if topic.is_none() {
        writeln!(
            text,
            "client {client_identifier}: allowed for {who}: no rule in {} is about Client Identifiers",
            path.display()
        )?;
    }
    for (name, topic, wish) in wishes {
        let verdict = rules.decide_once(&subject, &wish);
        is_allowed &= verdict.qos.is_some();
        let word = match verdict.qos {
            Some(granted) if granted < qos => format!("allowed with QoS {}", u8::from(granted)),
            Some(_) => "allowed".to_owned(),
            None => "denied".to_owned(),
        };
        write!(text, "{name} {topic}: {word} for {who}")?;
        match verdict.by {
            Some((rule, section)) => explain(&mut text, path, rule, rule.line, section)?,
            None => writeln!(text, ": no rule in {} is about it", path.display())?,
        }
    }
    Ok((text.trim_end().to_owned(), is_allowed))
}

/// Says which rule decided.
fn explain(
    text: &mut String,
    path: &Path,
    rule: &dyn std::fmt::Display,
    line: u32,
    section: u32,
) -> std::fmt::Result {
    let at = path.display();
    writeln!(text, " by {at}:{line}: `{rule}` (its section begins in line {section})")
}
