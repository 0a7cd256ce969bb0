//! Decisions of dynamic security: which rules a client has, in which order they are asked, and what they say. Made of a
//! document once; cores share it until another one takes its place.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::document::{Acl, Defaults, Document, Kind, Role, in_order};
use crate::access::acl::{Filter, Subject, Wish};
use crate::engine::{Coverage, ReadDecisions, ReadRules, Reader};

/// Topics that the defaults never open.
const CONTROL: &str = "$CONTROL";

/// The rights of all clients.
#[derive(Debug, Default)]
pub struct Security {
    clients: HashMap<Box<str>, Member>,
    /// The roles and the mark of clients without a name.
    anonymous: Member,
    classes: Vec<Class>,
    defaults: Defaults,
}

/// A client of the document.
#[derive(Debug, Default)]
struct Member {
    /// The place of its class.
    class: u32,
    client_identifier: Option<Box<str>>,
    is_disabled: bool,
    stamp: u64,
}

/// The roles of all clients that have the same ones in the same order.
#[derive(Debug)]
struct Class {
    roles: Box<[Arc<RoleRules>]>,
    /// Whether names of clients are inserted into the rules about deliveries.
    names_client: bool,
    /// Whether no rule is needed to know that its clients may publish to every topic.
    publishes_all: bool,
    /// Rules of all roles.
    rules: usize,
}

/// The rules of a role by what they are about.
#[derive(Debug)]
struct RoleRules {
    publish_send: Vec<TopicRule>,
    publish_receive: Vec<TopicRule>,
    subscribe: FilterRules,
    unsubscribe: FilterRules,
    allows_wildcards: bool,
}

/// A rule about topics.
#[derive(Debug)]
struct TopicRule {
    filter: Filter,
    allows: bool,
}

/// Rules about the filters of subscriptions.
#[derive(Debug, Default)]
struct FilterRules {
    /// Whether exactly this filter is allowed.
    literal: HashMap<Box<str>, bool>,
    patterns: Vec<Pattern>,
}

/// A rule about the filters that another filter covers.
#[derive(Debug)]
struct Pattern {
    text: Box<str>,
    allows: bool,
}

impl Security {
    /// What a document says.
    pub(super) fn of(document: &Document) -> Self {
        let roles = document.roles.iter().map(|(name, role)| (&**name, Arc::new(rules_of(role))));
        let mut builder = Builder {
            roles: roles.collect(),
            places: HashMap::new(),
            classes: Vec::new(),
            default_send: document.defaults.publish_send,
        };
        let groups = document.groups_of_all();
        let mut clients = HashMap::with_capacity(document.clients.len());
        for (name, client) in &document.clients {
            let own_groups = groups.get(&**name).into_iter().flatten();
            let of_groups = own_groups.filter_map(|(group, _)| document.groups.get(*group));
            let all = std::iter::once(&client.roles).chain(of_groups.map(|group| &group.roles));
            let member = Member {
                class: builder.class_of(all),
                client_identifier: client.client_identifier.clone(),
                is_disabled: client.is_disabled,
                stamp: client.stamp,
            };
            clients.insert(name.clone(), member);
        }
        let anonymous = document.anonymous_group.as_ref();
        let anonymous = anonymous.and_then(|group| document.groups.get(group));
        let class = builder.class_of(anonymous.map(|group| &group.roles));
        let anonymous = Member { class, stamp: document.anonymous_stamp, ..Member::default() };
        Self { clients, anonymous, classes: builder.classes, defaults: document.defaults }
    }

    /// None: a client that the document does not have.
    fn member(&self, user: Option<&str>) -> Option<&Member> {
        match user {
            Some(user) => self.clients.get(user),
            None => Some(&self.anonymous),
        }
    }

    /// The class of a client. One that the document does not have may do nothing.
    fn class(&self, user: Option<&str>) -> Option<&Class> {
        self.member(user).map(|member| &self.classes[member.class as usize])
    }

    /// Whether a client that has shown who it is may connect: not one that is disabled, or that has to use another
    /// Client Identifier.
    pub fn admits(&self, user: Option<&str>, client_identifier: &str) -> bool {
        self.member(user).is_none_or(|member| {
            let expected = member.client_identifier.as_deref();
            !member.is_disabled && expected.is_none_or(|expected| expected == client_identifier)
        })
    }

    /// Changes when the connections of a client have to end; 0 for a client that the document does not have.
    pub fn stamp(&self, user: Option<&str>) -> u64 {
        self.member(user).map_or(0, |member| member.stamp)
    }

    /// Whether a client may publish to every topic that does not begin with `$`.
    pub fn publishes_all(&self, user: Option<&str>) -> bool {
        self.class(user).is_some_and(|class| class.publishes_all)
    }

    /// Decides about a request, and adds its cost.
    pub fn decide(&self, subject: &Subject<'_>, wish: &Wish<'_>, steps: &mut usize) -> bool {
        match *wish {
            Wish::Publish { topic, .. } => {
                self.topic(subject, topic, self.defaults.publish_send, send, steps)
            }
            Wish::Receive { topic } => {
                self.topic(subject, topic, self.defaults.publish_receive, receive, steps)
            }
            Wish::Subscribe { filter, .. } => self.may_subscribe(subject, filter, steps),
        }
    }

    /// Whether a client may unsubscribe.
    pub fn may_unsubscribe(&self, subject: &Subject<'_>, filter: &str, steps: &mut usize) -> bool {
        let decided = self.class(subject.user).map(|class| {
            *steps += class.steps(filter);
            let decide = |role: &Arc<RoleRules>| role.unsubscribe.decide(filter, subject);
            class.roles.iter().find_map(decide)
        });
        decided.is_some_and(|decided| {
            decided.unwrap_or_else(|| by_default(self.defaults.unsubscribe, filter))
        })
    }

    fn may_subscribe(&self, subject: &Subject<'_>, filter: &str, steps: &mut usize) -> bool {
        let Some(class) = self.class(subject.user) else { return false };
        *steps += class.steps(filter);
        let decided = class.subscribes(filter, subject);
        if !decided.unwrap_or_else(|| by_default(self.defaults.subscribe, filter)) {
            return false;
        }
        // A rule that allows every filter covers shared subscriptions of all filters, also of those that another rule
        // denies.
        match inner(filter) {
            Some(inner) => {
                *steps += class.steps(inner);
                class.subscribes(inner, subject) != Some(false)
            }
            None => true,
        }
    }

    /// How much of what a filter matches a client may receive, and the cost of this.
    pub fn coverage(&self, subject: &Subject<'_>, filter: &str, steps: &mut usize) -> Coverage {
        let Some(class) = self.class(subject.user) else { return Coverage::Nothing };
        *steps += 2 * class.steps(filter);
        let filter = inner(filter).unwrap_or(filter);
        let (mut is_allowed, mut is_denied) = (false, false);
        let rules = class.roles.iter().flat_map(|role| &role.publish_receive);
        for rule in rules.filter(|rule| rule.filter.overlaps(filter, subject)) {
            match (rule.allows, rule.filter.covers(filter, subject)) {
                (true, true) => return coverage(true, is_denied),
                (false, true) => return coverage(is_allowed, true),
                (true, false) => is_allowed = true,
                (false, false) => is_denied = true,
            }
        }
        match by_default(self.defaults.publish_receive, filter) {
            true => coverage(true, is_denied),
            false => coverage(is_allowed, true),
        }
    }

    /// Decides about a topic by the rules that `of` returns.
    fn topic(
        &self,
        subject: &Subject<'_>,
        topic: &str,
        default: bool,
        of: fn(&RoleRules) -> &[TopicRule],
        steps: &mut usize,
    ) -> bool {
        let Some(class) = self.class(subject.user) else { return false };
        *steps += class.steps(topic);
        class.topic(subject, topic, of).unwrap_or_else(|| by_default(default, topic))
    }
}

fn send(role: &RoleRules) -> &[TopicRule] {
    &role.publish_send
}

fn receive(role: &RoleRules) -> &[TopicRule] {
    &role.publish_receive
}

/// What the default of a kind says about a topic or a filter.
fn by_default(allows: bool, text: &str) -> bool {
    allows && !text.starts_with(CONTROL)
}

/// How much of a filter may be received.
fn coverage(allows: bool, is_denied: bool) -> Coverage {
    match (allows, is_denied) {
        (true, false) => Coverage::Whole,
        (true, true) => Coverage::Part,
        (false, _) => Coverage::Nothing,
    }
}

/// The filter of a shared subscription without `$share/NAME/`.
fn inner(filter: &str) -> Option<&str> {
    filter.strip_prefix("$share/")?.split_once('/').map(|(_, inner)| inner)
}

impl Class {
    /// Highest cost of a decision about a text, in steps of a core's budget: about eight rules and a short text are one.
    fn steps(&self, text: &str) -> usize {
        1 + self.rules * (1 + text.len() / 64) / 8
    }

    /// What the first rule says that fits a topic.
    fn topic(
        &self,
        subject: &Subject<'_>,
        topic: &str,
        of: fn(&RoleRules) -> &[TopicRule],
    ) -> Option<bool> {
        let mut rules = self.roles.iter().flat_map(|role| of(role));
        let found = rules.find(|rule| rule.filter.matches(topic, subject, rule.allows))?;
        Some(found.allows)
    }

    fn subscribes(&self, filter: &str, subject: &Subject<'_>) -> Option<bool> {
        let has_wildcard = filter.contains(['+', '#']);
        self.roles.iter().find_map(|role| match has_wildcard && !role.allows_wildcards {
            true => Some(false),
            false => role.subscribe.decide(filter, subject),
        })
    }
}

impl FilterRules {
    fn add(&mut self, acl: &Acl, is_literal: bool) {
        let (text, allows) = (acl.topic.clone(), acl.allows);
        match is_literal {
            true => {
                self.literal.entry(text).or_insert(allows);
            }
            false => self.patterns.push(Pattern { text, allows }),
        }
    }

    fn len(&self) -> usize {
        self.literal.len() + self.patterns.len()
    }

    /// What the rules say about a filter; none if none fits. Those about exactly this filter go first.
    fn decide(&self, filter: &str, subject: &Subject<'_>) -> Option<bool> {
        self.literal.get(filter).copied().or_else(|| {
            let found = self.patterns.iter().find(|of| of.covers(filter, subject))?;
            Some(found.allows)
        })
    }
}

impl Pattern {
    /// Whether a filter is one of those that this one is about. Wildcards in the first level are about topics that begin
    /// with `$` too, unlike in a subscription.
    fn covers(&self, filter: &str, subject: &Subject<'_>) -> bool {
        if &*self.text == "#" {
            return true;
        }
        let ((own, has_rest), (theirs, is_open)) = (without_rest(&self.text), without_rest(filter));
        if is_open && !has_rest {
            return false;
        }
        let mut theirs = theirs.split('/');
        for own in own.split('/') {
            let Some(level) = theirs.next() else { return false };
            let fits = match own {
                "+" => true,
                "%c" => is_name(level, Some(subject.client_identifier)),
                "%u" => is_name(level, subject.user),
                _ => own == level,
            };
            if !fits {
                return false;
            }
        }
        has_rest || theirs.next().is_none()
    }
}

/// Whether a level is the name of a client.
fn is_name(level: &str, name: Option<&str>) -> bool {
    name == Some(level) && !level.contains(['+', '#'])
}

/// A filter without `#` at its end, and whether there was one.
fn without_rest(filter: &str) -> (&str, bool) {
    match filter.strip_suffix('#') {
        Some(rest) => (rest.strip_suffix('/').unwrap_or(rest), true),
        None => (filter, false),
    }
}

fn rules_of(role: &Role) -> RoleRules {
    let mut rules = RoleRules {
        publish_send: Vec::new(),
        publish_receive: Vec::new(),
        subscribe: FilterRules::default(),
        unsubscribe: FilterRules::default(),
        allows_wildcards: role.allows_wildcards,
    };
    for acl in &role.acls {
        let topic_rule = || {
            let filter = Filter::new(&with_names(&acl.topic));
            is_filter(&acl.topic).then_some(TopicRule { filter, allows: acl.allows })
        };
        match acl.kind {
            Kind::PublishSend => rules.publish_send.extend(topic_rule()),
            Kind::PublishReceive => rules.publish_receive.extend(topic_rule()),
            Kind::SubscribeLiteral => rules.subscribe.add(acl, true),
            Kind::SubscribePattern => rules.subscribe.add(acl, false),
            Kind::UnsubscribeLiteral => rules.unsubscribe.add(acl, true),
            Kind::UnsubscribePattern => rules.unsubscribe.add(acl, false),
        }
    }
    rules
}

/// Whether a text is a Topic Filter; as one that matches nothing, another text does nothing in Mosquitto.
pub(super) fn is_filter(text: &str) -> bool {
    text.starts_with("$share/") || shards::TopicFilter::parse(text, usize::MAX).is_ok()
}

/// A topic in the syntax of [`Filter`]: names are inserted where a whole level is `%u` or `%c` (Mosquitto 2.1).
fn with_names(topic: &str) -> String {
    let level = |level: &str| match level {
        "%u" | "%c" => level.to_owned(),
        _ => level.replace('%', "%%"),
    };
    topic.split('/').map(level).collect::<Vec<_>>().join("/")
}

/// Finds the class of each client.
struct Builder<'a> {
    roles: HashMap<&'a str, Arc<RoleRules>>,
    /// Classes by the names of their roles.
    places: HashMap<Box<[&'a str]>, u32>,
    classes: Vec<Class>,
    default_send: bool,
}

impl<'a> Builder<'a> {
    /// The class of a client with these lists of roles.
    fn class_of(&mut self, lists: impl IntoIterator<Item = &'a super::document::Ranked>) -> u32 {
        // A role that is asked again says the same.
        let mut found = HashSet::new();
        let names = lists.into_iter().flat_map(in_order).map(|(name, _)| name);
        let names: Vec<&str> = names.filter(|name| found.insert(*name)).collect();
        if let Some(&place) = self.places.get(&*names) {
            return place;
        }
        let roles: Box<[Arc<RoleRules>]> =
            names.iter().filter_map(|name| self.roles.get(name).cloned()).collect();
        let place = self.classes.len() as u32;
        self.classes.push(Class::new(roles, self.default_send));
        self.places.insert(names.into(), place);
        place
    }
}

impl Class {
    fn new(roles: Box<[Arc<RoleRules>]>, default_send: bool) -> Self {
        let names_client = roles.iter().flat_map(|role| &role.publish_receive);
        let names_client = { names_client }.any(|rule| rule.filter.names_client());
        let first = roles.iter().flat_map(|role| &role.publish_send).next();
        let publishes_all = match first {
            Some(rule) => rule.allows && rule.filter.is_everything(),
            None => default_send,
        };
        let count = |role: &Arc<RoleRules>| {
            let topics = role.publish_send.len() + role.publish_receive.len();
            topics + role.subscribe.len() + role.unsubscribe.len()
        };
        let rules = roles.iter().map(count).sum();
        Self { roles, names_client, publishes_all, rules }
    }
}

/// Rights to receive messages, as the topic caches of the cores ask for them.
#[derive(Debug)]
pub struct Receiving(pub Arc<Security>);

impl ReadRules for Receiving {
    fn decide<'a>(&'a self, topic: &'a str) -> Box<dyn ReadDecisions + 'a> {
        Box::new(Decisions { security: &self.0, topic, decided: HashMap::new(), steps: 0 })
    }
}

/// Decisions about one topic.
struct Decisions<'a> {
    security: &'a Security,
    topic: &'a str,
    /// By class, what holds for every client in it.
    decided: HashMap<u32, bool>,
    steps: usize,
}

impl ReadDecisions for Decisions<'_> {
    fn may_read(&mut self, reader: &Reader<'_>) -> bool {
        let Self { security, topic, decided, steps } = self;
        *steps += 1;
        let Some(member) = security.member(reader.user) else { return false };
        let class = &security.classes[member.class as usize];
        let subject = Subject { user: reader.user, client_identifier: reader.client_identifier };
        let wish = Wish::Receive { topic };
        match class.names_client {
            true => security.decide(&subject, &wish, steps),
            false => *decided
                .entry(member.class)
                .or_insert_with(|| security.decide(&subject, &wish, steps)),
        }
    }

    fn steps(&self) -> usize {
        self.steps
    }
}
