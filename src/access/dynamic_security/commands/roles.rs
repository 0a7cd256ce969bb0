//! Commands about roles, and about what holds where no rule decides.

use serde_json::{Value, json};

use super::super::document::{Acl, Document, Kind, Role, read_acl};
use super::super::json::{self, Object};
use super::super::policy::is_filter;
use super::{Change, Done, Outcome, Refusal, listed, name, new_name, other_texts, texts_of_new};

const NOT_FOUND: Refusal = Refusal::Borrowed("Role not found");
const WRONG_TOPIC: Refusal = Refusal::Borrowed("Invalid ACL topic");

pub(super) fn create(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = new_name(command, "rolename")?;
    let texts = texts_of_new(command)?;
    if change.document.roles.contains_key(own) {
        return Err("Role already exists".into());
    }
    let acls = acls_of(command)?.unwrap_or_default();
    let allows_wildcards = json::truth(command, "allowwildcardsubs").unwrap_or(true);
    change.document.roles.insert(own.into(), Role { texts, allows_wildcards, acls });
    Ok(Done::Changed)
}

pub(super) fn delete(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "rolename")?;
    let document = &mut *change.document;
    if !document.roles.contains_key(own) {
        return Err(NOT_FOUND);
    }
    document.mark_role(own, change.stamp);
    document.roles.remove(own);
    let of_clients = document.clients.values_mut().map(|client| &mut client.roles);
    let of_groups = document.groups.values_mut().map(|group| &mut group.roles);
    for roles in of_clients.chain(of_groups) {
        roles.remove(own);
    }
    Ok(Done::Changed)
}

pub(super) fn modify(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "rolename")?;
    let before = change.document.roles.get(own).ok_or("Role does not exist")?;
    let texts = other_texts(command, &before.texts)?;
    let acls = acls_of(command)?.unwrap_or_else(|| before.acls.clone());
    let allows_wildcards = json::truth(command, "allowwildcardsubs");
    let allows_wildcards = allows_wildcards.unwrap_or(before.allows_wildcards);
    let role = Role { texts, allows_wildcards, acls };
    if role.acls != before.acls || role.allows_wildcards != before.allows_wildcards {
        change.document.mark_role(own, change.stamp);
    }
    change.document.roles.insert(own.into(), role);
    Ok(Done::Changed)
}

pub(super) fn get(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "rolename")?;
    let role = change.document.roles.get(own).ok_or(NOT_FOUND)?;
    Ok(Done::Told(json!({ "role": Document::shown_role(own, role) })))
}

pub(super) fn list(change: &mut Change<'_>, command: &Object) -> Outcome {
    listed(command, "roles", change.document.roles.iter(), Document::shown_role)
}

pub(super) fn add_acl(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "rolename")?;
    let role = change.document.roles.get_mut(own).ok_or(NOT_FOUND)?;
    let (kind, topic) = rule_of(command)?;
    if !is_filter(topic) {
        return Err(WRONG_TOPIC);
    }
    if role.place_of(kind, topic).is_some() {
        return Err("ACL with this topic already exists".into());
    }
    role.add(Acl {
        kind,
        topic: topic.into(),
        priority: json::number(command, "priority").unwrap_or(0),
        allows: json::truth(command, "allow").unwrap_or(false),
    });
    change.document.mark_role(own, change.stamp);
    Ok(Done::Changed)
}

pub(super) fn remove_acl(change: &mut Change<'_>, command: &Object) -> Outcome {
    let own = name(command, "rolename")?;
    let role = change.document.roles.get_mut(own).ok_or(NOT_FOUND)?;
    let (kind, topic) = rule_of(command)?;
    let place = role.place_of(kind, topic).ok_or("ACL not found")?;
    role.acls.remove(place);
    change.document.mark_role(own, change.stamp);
    Ok(Done::Changed)
}

pub(super) fn get_defaults(change: &mut Change<'_>, _: &Object) -> Outcome {
    let all = change.document.defaults.all();
    let acls = all.map(|(kind, allows)| json!({ "acltype": kind, "allow": *allows }));
    Ok(Done::Told(json!({ "acls": acls })))
}

pub(super) fn set_defaults(change: &mut Change<'_>, command: &Object) -> Outcome {
    let Some(Value::Array(acls)) = json::member(command, "acls") else {
        return Err("Missing/invalid actions array".into());
    };
    for acl in acls.iter().filter_map(Value::as_object) {
        let (kind, allows) = (json::text(acl, "acltype").ok().flatten(), json::truth(acl, "allow"));
        let (Some(kind), Some(allows)) = (kind, allows) else { continue };
        for (own, default) in change.document.defaults.all() {
            if own.eq_ignore_ascii_case(kind) {
                *default = allows;
            }
        }
    }
    Ok(Done::Changed)
}

/// The kind and the topic of the rule that a command is about.
fn rule_of(command: &Object) -> Result<(Kind, &str), Refusal> {
    let kind = json::text(command, "acltype").ok().flatten().ok_or("Invalid/missing acltype")?;
    let kind = Kind::from_name(kind).ok_or("Unknown acltype")?;
    let topic = json::text(command, "topic").ok().flatten().ok_or("Invalid/missing topic")?;
    // As long as a Topic Filter of MQTT can be.
    match topic.len() > usize::from(u16::MAX) {
        true => Err(WRONG_TOPIC),
        false => Ok((kind, topic)),
    }
}

/// The rules that a command lists; none if it has no list.
fn acls_of(command: &Object) -> Result<Option<Vec<Acl>>, Refusal> {
    let Some(list) = json::objects(command, "acls") else { return Ok(None) };
    let mut role = Role::default();
    for acl in list.filter_map(read_acl) {
        if !is_filter(&acl.topic) || acl.topic.len() > usize::from(u16::MAX) {
            return Err(WRONG_TOPIC);
        }
        role.add(acl);
    }
    Ok(Some(role.acls))
}
