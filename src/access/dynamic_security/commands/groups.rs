//! Commands about groups.

use serde_json::json;

use super::super::document::{Document, Group, Ranked, priority};
use super::super::json::{self, Object};
use super::clients::{has_nameless, roles_of};
use super::{Change, Done, Outcome, Refusal, listed, name, new_name, other_texts, texts_of_new};

const NOT_FOUND: Refusal = Refusal::Borrowed("Group not found");
const NO_CLIENT: Refusal = Refusal::Borrowed("Client not found");
const NO_ROLE: Refusal = Refusal::Borrowed("Role not found");

pub(super) fn create(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = new_name(command, "groupname")?;
    let texts = texts_of_new(command)?;
    let document = &mut *change.document;
    if document.groups.contains_key(own) {
        return Err("Group already exists".into());
    }
    let roles = roles_of(document, command)?.unwrap_or_default();
    document.groups.insert(own.into(), Group { texts, roles, clients: Ranked::new() });
    Ok(Done::Changed)
}

pub(super) fn delete(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "groupname")?;
    let document = &mut *change.document;
    if !document.groups.contains_key(own) {
        return Err(NOT_FOUND);
    }
    if document.anonymous_group.as_deref() == Some(own) {
        return Err("Deleting the anonymous group is forbidden".into());
    }
    document.mark_group(own, change.stamp);
    document.groups.remove(own);
    Ok(Done::Changed)
}

pub(super) fn modify(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "groupname")?;
    let document = &mut *change.document;
    let before = document.groups.get(own).ok_or(NOT_FOUND)?;
    let mut group = Group { texts: other_texts(command, &before.texts)?, ..before.clone() };
    if let Some(roles) = roles_of(document, command)? {
        group.roles = roles;
    }
    if has_nameless(command, "clients", "username") {
        return Err("'clients' contains an object with an invalid 'username'".into());
    }
    if let Some(entries) = json::objects(command, "clients") {
        group.clients.clear();
        for entry in entries {
            let Some(client) = json::text(entry, "username").ok().flatten() else { continue };
            if !document.clients.contains_key(client) {
                let error = "'clients' contains an object with a 'username' that does not exist";
                return Err(error.into());
            }
            group.clients.entry(client.into()).or_insert_with(|| priority(entry));
        }
    }
    // Both those that are in the group and those that were.
    document.mark_group(own, change.stamp);
    document.groups.insert(own.into(), group);
    document.mark_group(own, change.stamp);
    Ok(Done::Changed)
}

pub(super) fn get(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "groupname")?;
    let group = change.document.groups.get(own).ok_or(NOT_FOUND)?;
    Ok(Done::Told(json!({ "group": Document::shown_group(own, group) })))
}

pub(super) fn list(change: &mut Change<'_>, command: &Object) -> Outcome {
    listed(command, "groups", change.document.groups.iter(), Document::shown_group)
}

pub(super) fn add_client(change: &mut Change<'_>, command: &Object) -> Outcome {
    let (client, own) = (name(command, "username")?, name(command, "groupname")?);
    let document = &mut *change.document;
    let found = document.clients.get_mut(client).ok_or(NO_CLIENT)?;
    let group = document.groups.get_mut(own).ok_or(NOT_FOUND)?;
    if group.clients.contains_key(client) {
        return Err("Client is already in this group".into());
    }
    group.clients.insert(client.into(), priority(command));
    found.stamp = change.stamp;
    Ok(Done::Changed)
}

pub(super) fn remove_client(change: &mut Change<'_>, command: &Object) -> Outcome {
    let (client, own) = (name(command, "username")?, name(command, "groupname")?);
    let document = &mut *change.document;
    let found = document.clients.get_mut(client).ok_or(NO_CLIENT)?;
    let group = document.groups.get_mut(own).ok_or(NOT_FOUND)?;
    group.clients.remove(client);
    found.stamp = change.stamp;
    Ok(Done::Changed)
}

pub(super) fn add_role(change: &mut Change<'_>, command: &Object) -> Outcome {
    let (own, role) = (name(command, "groupname")?, name(command, "rolename")?);
    let document = &mut *change.document;
    let group = document.groups.get_mut(own).ok_or(NOT_FOUND)?;
    if !document.roles.contains_key(role) {
        return Err(NO_ROLE);
    }
    if group.roles.contains_key(role) {
        return Err("Group is already in this role".into());
    }
    group.roles.insert(role.into(), priority(command));
    document.mark_group(own, change.stamp);
    Ok(Done::Changed)
}

pub(super) fn remove_role(change: &mut Change<'_>, command: &Object) -> Outcome {
    let (own, role) = (name(command, "groupname")?, name(command, "rolename")?);
    let document = &mut *change.document;
    let group = document.groups.get_mut(own).ok_or(NOT_FOUND)?;
    if !document.roles.contains_key(role) {
        return Err(NO_ROLE);
    }
    group.roles.remove(role);
    document.mark_group(own, change.stamp);
    Ok(Done::Changed)
}

pub(super) fn get_anonymous(change: &mut Change<'_>, _: &Object) -> Outcome {
    let group = change.document.anonymous_group.as_deref().unwrap_or_default();
    Ok(Done::Told(json!({ "group": { "groupname": group } })))
}

pub(super) fn set_anonymous(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "groupname")?;
    let document = &mut *change.document;
    if !document.groups.contains_key(own) {
        return Err(NOT_FOUND);
    }
    document.anonymous_group = Some(own.into());
    document.anonymous_stamp = change.stamp;
    Ok(Done::Changed)
}
