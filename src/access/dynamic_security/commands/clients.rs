//! Commands about clients.

use serde_json::{Value, json};

use super::super::document::{Client, Document, Password, Ranked, priority};
use super::super::json::{self, Object};
use super::super::limits;
use super::{
    Change, Done, Outcome, Refusal, listed, name, new_name, optional, other_texts, texts_of_new,
};
use crate::access::password_file;

const NOT_FOUND: Refusal = Refusal::Borrowed("Client not found");
const NO_ROLE: Refusal = Refusal::Borrowed("Role not found");

pub(super) fn create(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = new_name(command, "username")?;
    let password = password_of(command)?;
    let identifier = optional(command, "clientid", "client id")?;
    let texts = texts_of_new(command)?;
    let document = &mut *change.document;
    if document.clients.contains_key(own) {
        return Err("Client already exists".into());
    }
    let roles = roles_of(document, command)?.unwrap_or_default();
    let groups = groups_of(command).unwrap_or_default();
    if groups.keys().any(|group| !document.groups.contains_key(group)) {
        return Err("Group not found".into());
    }
    let client = Client {
        texts,
        client_identifier: identifier.filter(|text| !text.is_empty()).map(Into::into),
        password: password.map(hashed).transpose()?,
        is_disabled: false,
        roles,
        stamp: change.stamp,
    };
    document.clients.insert(own.into(), client);
    join(document, own, groups);
    Ok(Done::Changed)
}

pub(super) fn delete(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "username")?;
    change.document.clients.remove(own).ok_or(NOT_FOUND)?;
    leave_all(change.document, own);
    Ok(Done::Changed)
}

pub(super) fn enable(change: &mut Change<'_>, command: &Object) -> Outcome {
    client(change, command)?.is_disabled = false;
    Ok(Done::Changed)
}

pub(super) fn disable(change: &mut Change<'_>, command: &Object) -> Outcome {
    let stamp = change.stamp;
    let client = client(change, command)?;
    (client.is_disabled, client.stamp) = (true, stamp);
    Ok(Done::Changed)
}

pub(super) fn set_identifier(change: &mut Change<'_>, command: &Object) -> Outcome {
    name(command, "username")?;
    let identifier = optional(command, "clientid", "client ID")?;
    let stamp = change.stamp;
    let client = client(change, command)?;
    client.client_identifier = identifier.filter(|text| !text.is_empty()).map(Into::into);
    client.stamp = stamp;
    Ok(Done::Changed)
}

pub(super) fn set_password(change: &mut Change<'_>, command: &Object) -> Outcome {
    name(command, "username")?;
    let password = match password_of(command)? {
        None => return Err("Invalid/missing password".into()),
        Some("") => return Err("Empty password is not allowed".into()),
        Some(password) => password,
    };
    let stamp = change.stamp;
    let client = client(change, command)?;
    client.password = Some(hashed(password)?);
    client.stamp = stamp;
    Ok(Done::Changed)
}

pub(super) fn modify(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "username")?;
    let document = &*change.document;
    let before = document.clients.get(own).ok_or(NOT_FOUND)?;
    let mut client = Client { texts: other_texts(command, &before.texts)?, ..before.clone() };
    if let Some(identifier) = optional(command, "clientid", "client ID")? {
        client.client_identifier = Some(identifier.into()).filter(|_| !identifier.is_empty());
    }
    if let Some(roles) = roles_of(document, command)? {
        client.roles = roles;
    }
    if has_nameless(command, "groups", "groupname") {
        return Err("'groups' contains an object with an invalid 'groupname'".into());
    }
    let groups = groups_of(command);
    if groups.iter().flatten().any(|(group, _)| !document.groups.contains_key(group)) {
        return Err("'groups' contains an object with a 'groupname' that does not exist".into());
    }
    if let Some(password) = password_of(command)?.filter(|password| !password.is_empty()) {
        client.password = Some(hashed(password)?);
    }
    client.stamp = change.stamp;
    change.document.clients.insert(own.into(), client);
    if let Some(groups) = groups {
        leave_all(change.document, own);
        join(change.document, own, groups);
    }
    Ok(Done::Changed)
}

pub(super) fn get(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "username")?;
    let client = change.document.clients.get(own).ok_or(NOT_FOUND)?;
    Ok(Done::Told(json!({ "client": change.document.shown_client(own, client) })))
}

pub(super) fn list(change: &mut Change<'_>, command: &Object) -> Outcome {
    let document = &*change.document;
    listed(command, "clients", document.clients.iter(), |name, client| {
        document.shown_client(name, client)
    })
}

pub(super) fn add_role(change: &mut Change<'_>, command: &Object) -> Outcome {
    let (own, role) = (name(command, "username")?, name(command, "rolename")?);
    let document = &mut *change.document;
    let client = document.clients.get_mut(own).ok_or(NOT_FOUND)?;
    if !document.roles.contains_key(role) {
        return Err(NO_ROLE);
    }
    if client.roles.contains_key(role) {
        // Mosquitto has no other words for it.
        return Err("Internal error".into());
    }
    client.roles.insert(role.into(), priority(command));
    client.stamp = change.stamp;
    Ok(Done::Changed)
}

pub(super) fn remove_role(change: &mut Change<'_>, command: &Object) -> Outcome {
    let (own, role) = (name(command, "username")?, name(command, "rolename")?);
    let document = &mut *change.document;
    let client = document.clients.get_mut(own).ok_or(NOT_FOUND)?;
    if !document.roles.contains_key(role) {
        return Err(NO_ROLE);
    }
    client.roles.remove(role);
    client.stamp = change.stamp;
    Ok(Done::Changed)
}

/// The client that a command names.
fn client<'a>(change: &'a mut Change<'_>, command: &Object) -> Result<&'a mut Client, Refusal> {
    let own = name(command, "username")?;
    change.document.clients.get_mut(own).ok_or(NOT_FOUND)
}

fn password_of(command: &Object) -> Result<Option<&str>, Refusal> {
    let password =
        json::text(command, "password").map_err(|_| Refusal::from("Invalid/missing password"))?;
    match password.is_some_and(|password| password.len() > limits::PASSWORD_BYTES_MAX) {
        true => Err("password too long".into()),
        false => Ok(password),
    }
}

/// The hash of a new password. Slow.
fn hashed(password: &str) -> Result<Password, Refusal> {
    let failed = |error: &dyn std::fmt::Display| Refusal::from(format!("Internal error: {error}"));
    let parts = password_file::parts_like_mosquitto(password).map_err(|error| failed(&error))?;
    let (salt, hash, iterations) = parts;
    Password::of_parts(&salt, &hash, iterations).map_err(|error| failed(&error))
}

/// The roles that a command lists; none if it has no list.
pub(super) fn roles_of(document: &Document, command: &Object) -> Result<Option<Ranked>, Refusal> {
    const WRONG: &str = "'roles' not an array or missing/invalid rolename";
    let list = match json::member(command, "roles") {
        None => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(WRONG.into()),
    };
    let mut roles = Ranked::new();
    for entry in list {
        let entry = entry.as_object().ok_or(WRONG)?;
        let role = json::text(entry, "rolename").ok().flatten().ok_or(WRONG)?;
        if !document.roles.contains_key(role) {
            return Err(NO_ROLE);
        }
        roles.entry(role.into()).or_insert_with(|| priority(entry));
    }
    Ok(Some(roles))
}

/// The groups that a command lists; none if it has no list.
fn groups_of(command: &Object) -> Option<Ranked> {
    let mut groups = Ranked::new();
    for entry in json::objects(command, "groups")? {
        if let Some(group) = json::text(entry, "groupname").ok().flatten() {
            groups.entry(group.into()).or_insert_with(|| priority(entry));
        }
    }
    Some(groups)
}

/// Whether a list has an object without a name.
pub(super) fn has_nameless(command: &Object, list: &str, name: &str) -> bool {
    let mut entries = json::objects(command, list).into_iter().flatten();
    entries.any(|entry| !matches!(json::text(entry, name), Ok(Some(_))))
}

fn join(document: &mut Document, client: &str, groups: Ranked) {
    for (group, priority) in groups {
        if let Some(group) = document.groups.get_mut(&group) {
            group.clients.insert(client.into(), priority);
        }
    }
}

fn leave_all(document: &mut Document, client: &str) {
    for group in document.groups.values_mut() {
        group.clients.remove(client);
    }
}
