//! The document of dynamic security: clients, groups and roles, as Mosquitto's plugin writes them to its file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::json::{self, Object};
use super::limits;
use crate::access::password_file::User;

/// The kinds of rules, in the order in which Mosquitto writes them.
pub(super) const KINDS: [(Kind, &str); 6] = [
    (Kind::PublishSend, "publishClientSend"),
    (Kind::PublishReceive, "publishClientReceive"),
    (Kind::SubscribeLiteral, "subscribeLiteral"),
    (Kind::SubscribePattern, "subscribePattern"),
    (Kind::UnsubscribeLiteral, "unsubscribeLiteral"),
    (Kind::UnsubscribePattern, "unsubscribePattern"),
];

/// The priority of a role or a group that is written without one.
const NO_PRIORITY: i32 = -1;

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A client publishes.
    PublishSend,
    /// A message is delivered to a client.
    PublishReceive,
    /// A client subscribes to exactly this filter.
    SubscribeLiteral,
    /// A client subscribes to a filter that this one covers.
    SubscribePattern,
    /// A client unsubscribes from exactly this filter.
    UnsubscribeLiteral,
    /// A client unsubscribes from a filter that this one covers.
    UnsubscribePattern,
}

impl Kind {
    /// The kind with this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        KINDS.iter().find(|(_, own)| own.eq_ignore_ascii_case(name)).map(|(kind, _)| *kind)
    }

    fn name(self) -> &'static str {
        KINDS[self as usize].1
    }
}

/// A rule of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    pub kind: Kind,
    pub topic: Box<str>,
    /// Rules with higher numbers are asked first.
    pub priority: i32,
    pub allows: bool,
}

/// Text for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts {
    pub name: Option<Box<str>>,
    pub description: Option<Box<str>>,
}

/// Names with priorities: roles of a client or of a group, or groups of a client.
pub(super) type Ranked = BTreeMap<Box<str>, i32>;

/// Names with priorities in the order in which they are asked: the highest priority first, and equal ones by name.
pub(super) fn in_order(ranked: &Ranked) -> Vec<(&str, i32)> {
    let mut names: Vec<(&str, i32)> =
        ranked.iter().map(|(name, &priority)| (&**name, priority)).collect();
    names.sort_by_key(|&(_, priority)| std::cmp::Reverse(priority));
    names
}

/// A client, who is known by its user name.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub texts: Texts,
    /// The only Client Identifier that it may use; none: any.
    pub client_identifier: Option<Box<str>>,
    /// The hash of its password; without one it cannot log in by password.
    pub password: Option<Password>,
    pub is_disabled: bool,
    pub roles: Ranked,
    /// When its rights changed last in a way that ends its connections.
    pub stamp: u64,
}

/// The hash of a password, and how the file has it.
#[derive(Clone, Debug)]
pub(super) struct Password {
    pub user: Arc<User>,
    /// The members of the file, so that the file keeps its form.
    members: Object,
}

impl Password {
    /// A password of which the file has the salt and the hash, both in base64 (Mosquitto 2.0).
    pub fn of_parts(salt: &str, hash: &str, iterations: i64) -> Result<Self, &'static str> {
        let user = User::parse(&format!("$7${iterations}${salt}${hash}"), None)?;
        let members = json!({ "password": hash, "salt": salt, "iterations": iterations });
        let Value::Object(members) = members else { unreachable!("made as an object") };
        Ok(Self { user: Arc::new(user), members })
    }

    /// A password of which the file has a single text (Mosquitto 2.1).
    fn of_text(text: &str) -> Result<Self, &'static str> {
        let user = Arc::new(User::parse(text, None)?);
        let members = Object::from_iter([("encoded_password".to_owned(), text.into())]);
        Ok(Self { user, members })
    }

    /// The password in the file; none if there is none.
    fn read(client: &Object) -> Result<Option<Self>, &'static str> {
        let text = |name| json::text(client, name).ok().flatten();
        if let Some(encoded) = text("encoded_password") {
            return Self::of_text(encoded).map(Some);
        }
        let iterations = json::member(client, "iterations").and_then(Value::as_i64);
        match (text("salt"), text("password"), iterations) {
            (Some(salt), Some(hash), Some(iterations)) => {
                Self::of_parts(salt, hash, iterations).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// A group of clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub texts: Texts,
    pub roles: Ranked,
    /// The priority that the group has for each of its clients.
    pub clients: Ranked,
}

/// A role: rules under a name.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub texts: Texts,
    /// Whether the role lets a client subscribe to filters with wildcards (Mosquitto 2.1).
    pub allows_wildcards: bool,
    /// By kind; those of a kind in the order in which they are asked.
    pub acls: Vec<Acl>,
}

impl Default for Role {
    fn default() -> Self {
        Self { texts: Texts::default(), allows_wildcards: true, acls: Vec::new() }
    }
}

impl Role {
    /// Adds a rule behind all that are asked before it.
    pub fn add(&mut self, acl: Acl) {
        let order = |of: &Acl| (of.kind, std::cmp::Reverse(of.priority));
        let place = self.acls.partition_point(|of| order(of) <= order(&acl));
        self.acls.insert(place, acl);
    }

    /// The place of the rule of this kind about this topic.
    pub fn place_of(&self, kind: Kind, topic: &str) -> Option<usize> {
        self.acls.iter().position(|acl| acl.kind == kind && *acl.topic == *topic)
    }
}

/// What holds where no rule decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    pub publish_send: bool,
    pub publish_receive: bool,
    pub subscribe: bool,
    pub unsubscribe: bool,
}

impl Defaults {
    /// Each with its name.
    pub fn all(&mut self) -> [(&'static str, &mut bool); 4] {
        [
            ("publishClientSend", &mut self.publish_send),
            ("publishClientReceive", &mut self.publish_receive),
            ("subscribe", &mut self.subscribe),
            ("unsubscribe", &mut self.unsubscribe),
        ]
    }
}

/// Everything that the file has.
#[derive(Clone, Debug, Default)]
pub(super) struct Document {
    pub defaults: Defaults,
    pub clients: BTreeMap<Box<str>, Client>,
    pub groups: BTreeMap<Box<str>, Group>,
    pub roles: BTreeMap<Box<str>, Role>,
    /// The group whose roles clients without a name have.
    pub anonymous_group: Option<Box<str>>,
    /// When the rights of clients without a name changed last.
    pub anonymous_stamp: u64,
    /// Changes so far.
    pub changes: u64,
    /// Members of the file that this broker does not know.
    others: Object,
}

/// Why a document cannot be used: where in it, and what is wrong.
pub(super) type Wrong = String;

impl Document {
    /// Reads a document; `stamp` marks its clients. What it names and does not have is left out, as in Mosquitto; how
    /// many such names there are is the second result.
    pub fn read(text: &str, stamp: u64) -> Result<(Self, usize), Wrong> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| format!("{error}; a document in JSON is expected"))?;
        let Value::Object(mut object) = value else {
            return Err("an object in JSON is expected".to_owned());
        };
        let mut document = Self { anonymous_stamp: stamp, ..Self::default() };
        if let Some(Value::Object(defaults)) = json::member(&object, "defaultACLAccess") {
            for (name, default) in document.defaults.all() {
                *default = json::truth(defaults, name).unwrap_or(false);
            }
        }
        let mut unknown = 0;
        for (name, role) in entries(&object, "roles", "rolename")? {
            document.roles.insert(name, read_role(role)?);
        }
        for (name, client) in entries(&object, "clients", "username")? {
            let client = document.read_client(&name, client, stamp, &mut unknown)?;
            document.clients.insert(name, client);
        }
        for (name, group) in entries(&object, "groups", "groupname")? {
            let group = document.read_group(group, &mut unknown);
            document.groups.insert(name, group);
        }
        let anonymous = json::text(&object, "anonymousGroup").ok().flatten();
        document.anonymous_group =
            anonymous.filter(|name| document.groups.contains_key(*name)).map(Into::into);
        unknown += usize::from(document.anonymous_group.is_none() && anonymous.is_some());
        let known = ["defaultACLAccess", "clients", "groups", "roles", "anonymousGroup"];
        object.retain(|name, _| !known.iter().any(|known| known.eq_ignore_ascii_case(name)));
        document.others = object;
        document.check_size()?;
        Ok((document, unknown))
    }

    fn read_client(
        &self,
        name: &str,
        client: &Object,
        stamp: u64,
        unknown: &mut usize,
    ) -> Result<Client, Wrong> {
        let wrong = |what: &str| format!("the password of the client {name:?}: {what}");
        let identifier = json::text(client, "clientid").ok().flatten();
        Ok(Client {
            texts: read_texts(client),
            client_identifier: identifier.filter(|text| !text.is_empty()).map(Into::into),
            password: Password::read(client).map_err(wrong)?,
            is_disabled: json::truth(client, "disabled").unwrap_or(false),
            roles: read_ranked(client, "roles", "rolename", &self.roles, unknown),
            stamp,
        })
    }

    fn read_group(&self, group: &Object, unknown: &mut usize) -> Group {
        Group {
            texts: read_texts(group),
            roles: read_ranked(group, "roles", "rolename", &self.roles, unknown),
            clients: read_ranked(group, "clients", "username", &self.clients, unknown),
        }
    }

    /// The document as text. The error: it is too large.
    pub fn write(&self) -> Result<Vec<u8>, Wrong> {
        self.check_size()?;
        let mut object = Object::new();
        let mut defaults = self.defaults;
        let defaults = defaults.all().map(|(name, allows)| (name.to_owned(), (*allows).into()));
        object.insert("defaultACLAccess".to_owned(), Object::from_iter(defaults).into());
        let clients = self.clients.iter().map(|(name, client)| self.write_client(name, client));
        object.insert("clients".to_owned(), clients.collect::<Vec<_>>().into());
        let groups = self.groups.iter().map(|(name, group)| self.write_group(name, group));
        object.insert("groups".to_owned(), groups.collect::<Vec<_>>().into());
        let roles = self.roles.iter().map(|(name, role)| Self::shown_role(name, role));
        object.insert("roles".to_owned(), roles.collect::<Vec<_>>().into());
        if let Some(group) = &self.anonymous_group {
            object.insert("anonymousGroup".to_owned(), (&**group).into());
        }
        object.extend(self.others.clone());
        let text = serde_json::to_vec_pretty(&object).expect("texts and numbers are JSON");
        match text.len() <= limits::DOCUMENT_BYTES_MAX {
            true => Ok(text),
            false => Err(limits::too_large()),
        }
    }

    fn write_client(&self, name: &str, client: &Client) -> Value {
        let mut object = self.client_without_groups(name, client);
        if let Some(password) = &client.password {
            object.extend(password.members.clone());
        }
        object.into()
    }

    fn write_group(&self, name: &str, group: &Group) -> Value {
        let mut object = named("groupname", name, &group.texts);
        object.insert("roles".to_owned(), ranked("rolename", &group.roles));
        object.insert("clients".to_owned(), ranked("username", &group.clients));
        object.into()
    }

    fn client_without_groups(&self, name: &str, client: &Client) -> Object {
        let mut object = named("username", name, &client.texts);
        if let Some(identifier) = &client.client_identifier {
            object.insert("clientid".to_owned(), (&**identifier).into());
        }
        if client.is_disabled {
            object.insert("disabled".to_owned(), true.into());
        }
        object.insert("roles".to_owned(), ranked("rolename", &client.roles));
        object
    }

    /// A client without its password, as commands show it.
    pub fn shown_client(&self, name: &str, client: &Client) -> Value {
        let mut object = self.client_without_groups(name, client);
        object.insert("groups".to_owned(), ranked("groupname", &self.groups_of(name)));
        object.into()
    }

    /// A group, as commands show it.
    pub fn shown_group(name: &str, group: &Group) -> Value {
        let mut object = named("groupname", name, &group.texts);
        let clients = in_order(&group.clients);
        let clients = clients.into_iter().map(|(name, _)| json!({ "username": name }));
        object.insert("clients".to_owned(), clients.collect::<Vec<_>>().into());
        object.insert("roles".to_owned(), ranked("rolename", &group.roles));
        object.into()
    }

    /// A role, as commands show it and as the file has it.
    pub fn shown_role(name: &str, role: &Role) -> Value {
        let mut object = named("rolename", name, &role.texts);
        if !role.allows_wildcards {
            object.insert("allowwildcardsubs".to_owned(), false.into());
        }
        let acls = role.acls.iter().map(|Acl { kind, topic, priority, allows }| {
            json!({
                "acltype": kind.name(), "topic": topic, "priority": priority, "allow": allows,
            })
        });
        object.insert("acls".to_owned(), acls.collect::<Vec<_>>().into());
        object.into()
    }

    /// The groups of a client, with the priorities that they have for it.
    pub fn groups_of(&self, client: &str) -> Ranked {
        let all = self.groups.iter();
        all.filter_map(|(name, group)| Some((name.clone(), *group.clients.get(client)?))).collect()
    }

    /// The groups of all clients, each with its priority.
    pub fn groups_of_all(&self) -> BTreeMap<&str, Vec<(&str, i32)>> {
        let mut all: BTreeMap<&str, Vec<(&str, i32)>> = BTreeMap::new();
        for (group, Group { clients, .. }) in &self.groups {
            for (client, &priority) in clients {
                all.entry(client).or_default().push((group, priority));
            }
        }
        // By name already; the order of equal priorities stays.
        all.values_mut()
            .for_each(|of| of.sort_by_key(|&(_, priority)| std::cmp::Reverse(priority)));
        all
    }

    /// The rights of these clients have changed: their connections end.
    pub fn mark(&mut self, clients: impl IntoIterator<Item = Box<str>>, stamp: u64) {
        for client in clients {
            if let Some(client) = self.clients.get_mut(&client) {
                client.stamp = stamp;
            }
        }
    }

    /// The rights of a group's clients have changed.
    pub fn mark_group(&mut self, group: &str, stamp: u64) {
        if self.anonymous_group.as_deref() == Some(group) {
            self.anonymous_stamp = stamp;
        }
        let clients = self.groups.get(group).map(|group| group.clients.clone());
        self.mark(clients.into_iter().flatten().map(|(name, _)| name), stamp);
    }

    /// The rights of everybody with a role have changed.
    pub fn mark_role(&mut self, role: &str, stamp: u64) {
        for client in self.clients.values_mut().filter(|of| of.roles.contains_key(role)) {
            client.stamp = stamp;
        }
        let groups = self.groups.iter().filter(|(_, group)| group.roles.contains_key(role));
        let groups: BTreeSet<Box<str>> = groups.map(|(name, _)| name.clone()).collect();
        groups.iter().for_each(|group| self.mark_group(group, stamp));
    }

    /// Takes the marks of another document for clients that log in as before.
    pub fn keep_marks_of(&mut self, before: &Self) {
        for (name, client) in &mut self.clients {
            if let Some(old) = before.clients.get(name)
                && old.is_disabled == client.is_disabled
                && old.client_identifier == client.client_identifier
            {
                client.stamp = old.stamp;
            }
        }
        self.anonymous_stamp = before.anonymous_stamp;
        self.changes = before.changes;
    }

    /// Clients, groups, roles, rules, and names in lists.
    fn entries(&self) -> usize {
        let clients: usize = self.clients.values().map(|of| 1 + of.roles.len()).sum();
        let groups: usize =
            self.groups.values().map(|of| 1 + of.roles.len() + of.clients.len()).sum();
        let roles: usize = self.roles.values().map(|of| 1 + of.acls.len()).sum();
        clients + groups + roles
    }

    fn check_size(&self) -> Result<(), Wrong> {
        match self.entries() <= limits::ENTRIES_MAX {
            true => Ok(()),
            false => Err(limits::too_large()),
        }
    }
}

/// The objects of a list with their names, each of which is there once. Objects without a name are left out.
fn entries<'a>(
    object: &'a Object,
    list: &str,
    name: &str,
) -> Result<BTreeMap<Box<str>, &'a Object>, Wrong> {
    let mut named = BTreeMap::new();
    match json::member(object, list) {
        None => return Ok(named),
        Some(Value::Array(_)) => {}
        Some(_) => return Err(format!("{list}: a list is expected")),
    }
    for entry in json::objects(object, list).into_iter().flatten() {
        let Some(own) = json::text(entry, name).ok().flatten().filter(|own| !own.is_empty()) else {
            continue;
        };
        if own.len() > limits::NAME_BYTES_MAX {
            return Err(format!(
                "{list}: a {name} is longer than {} bytes",
                limits::NAME_BYTES_MAX
            ));
        }
        if named.insert(own.into(), entry).is_some() {
            return Err(format!("{list}: there are two with the {name} {own:?}"));
        }
    }
    Ok(named)
}

fn read_texts(object: &Object) -> Texts {
    let text = |name| json::text(object, name).ok().flatten().map(Into::into);
    Texts { name: text("textname"), description: text("textdescription") }
}

fn read_role(role: &Object) -> Result<Role, Wrong> {
    let allows_wildcards = json::truth(role, "allowwildcardsubs").unwrap_or(true);
    let mut read = Role { texts: read_texts(role), allows_wildcards, acls: Vec::new() };
    for acl in json::objects(role, "acls").into_iter().flatten().filter_map(read_acl) {
        read.acls.push(acl);
    }
    // Equal ones stay in their order.
    read.acls.sort_by_key(|acl| (acl.kind, std::cmp::Reverse(acl.priority)));
    Ok(read)
}

/// A rule; none without a known type and a topic.
pub(super) fn read_acl(acl: &Object) -> Option<Acl> {
    Some(Acl {
        kind: Kind::from_name(json::text(acl, "acltype").ok()??)?,
        topic: json::text(acl, "topic").ok()??.into(),
        priority: json::number(acl, "priority").unwrap_or(0),
        allows: json::truth(acl, "allow").unwrap_or(false),
    })
}

/// A list of names with priorities, of which those that are not among `known` are counted and left out.
fn read_ranked<T>(
    object: &Object,
    list: &str,
    name: &str,
    known: &BTreeMap<Box<str>, T>,
    unknown: &mut usize,
) -> Ranked {
    let mut read = Ranked::new();
    for entry in json::objects(object, list).into_iter().flatten() {
        let Some(own) = json::text(entry, name).ok().flatten() else { continue };
        match known.contains_key(own) {
            true => {
                read.entry(own.into()).or_insert_with(|| priority(entry));
            }
            false => *unknown += 1,
        }
    }
    read
}

/// The priority of a role or a group.
pub(super) fn priority(entry: &Object) -> i32 {
    json::number(entry, "priority").unwrap_or(NO_PRIORITY)
}

fn named(kind: &str, name: &str, texts: &Texts) -> Object {
    let mut object = Object::new();
    object.insert(kind.to_owned(), name.into());
    for (key, text) in [("textname", &texts.name), ("textdescription", &texts.description)] {
        if let Some(text) = text {
            object.insert(key.to_owned(), (&**text).into());
        }
    }
    object
}

fn ranked(kind: &str, ranked: &Ranked) -> Value {
    let entry = |(name, priority): (&str, i32)| match priority {
        NO_PRIORITY => json!({ kind: name }),
        _ => json!({ kind: name, "priority": priority }),
    };
    in_order(ranked).into_iter().map(entry).collect::<Vec<_>>().into()
}
