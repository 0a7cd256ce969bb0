//! Bridges, each of which begins with `connection`.

mod options;
mod tls;
mod topics;

use std::collections::BTreeMap;

use toml::Value;

use super::syntax::Line;
use super::translation::{Effect, Outcome, Translator, Written, WrittenBridge, WrittenRule};
use super::{ignored, refused};
use crate::base::host_name::host_name;
use crate::config::bridge::Server;
use crate::config::keys;

/// Bytes of the name of a bridge at most.
const NAME_BYTES_MAX: usize = 64;

/// A bridge while its section is read.
#[derive(Debug)]
pub(super) struct Draft {
    /// The name in the file.
    name: String,
    /// The place of the line that begins the section.
    place: usize,
    /// Host and port of each server.
    addresses: Vec<(String, u16)>,
    /// The places of options that are evaluated at the end.
    options: BTreeMap<String, usize>,
    keys: BTreeMap<String, (Value, Option<usize>)>,
    rules: Vec<WrittenRule>,
    /// Of each line for messages from the other broker, the name of its shared subscription, "" if it is none, and its
    /// place.
    shares: Vec<(String, usize)>,
}

impl Draft {
    fn set(&mut self, key: &str, value: impl Into<Value>, by: Option<usize>) {
        self.keys.insert(key.to_owned(), (value.into(), by));
    }
}

/// Takes an option of a bridge; none if the option is of something else.
pub(super) fn take(translator: &mut Translator, line: &Line, place: usize) -> Option<Outcome> {
    if line.option == "connection" {
        return Some(begin(translator, line, place));
    }
    options::is_of_bridge(&line.option).then(|| match translator.section.bridge {
        Some(bridge) => options::take(translator, bridge, line, place),
        None => refused("an option of a bridge, which begins with `connection NAME`"),
    })
}

/// Begins the section of a bridge.
fn begin(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    // Without this, the options that follow would be said to be those of no bridge.
    translator.section.bridge = Some(translator.bridges.len());
    let name = line.word().unwrap_or_default().to_owned();
    let earlier = translator.bridges.iter().find(|other| other.name == name).map(|of| of.place);
    translator.bridges.push(Draft {
        name,
        place,
        addresses: Vec::new(),
        options: BTreeMap::new(),
        keys: BTreeMap::new(),
        rules: Vec::new(),
        shares: Vec::new(),
    });
    line.word()?;
    if let Some(earlier) = earlier {
        return refused(format!("{}; choose another name", translator.set_at(earlier)));
    }
    match cfg!(feature = "bridge") {
        true => Ok(Effect::Taken),
        false => refused("this broker was built without bridges; remove the section"),
    }
}

/// The keys of all bridges.
pub(super) fn finish(translator: &mut Translator) -> Vec<WrittenBridge> {
    let mut all = Vec::new();
    let host = host_name();
    for mut draft in std::mem::take(&mut translator.bridges) {
        let names: Vec<String> = all.iter().map(|of: &(String, _)| of.0.clone()).collect();
        let name = unique_name(&draft.name, &names);
        finish_one(translator, &mut draft, &name, &host);
        let written = |(key, (value, by))| Written { key, value, by };
        let keys = draft.keys.into_iter().map(written).collect();
        all.push((name, WrittenBridge { keys, rules: draft.rules, by: draft.place }));
    }
    all.into_iter().map(|(_, bridge)| bridge).collect()
}

fn finish_one(translator: &mut Translator, draft: &mut Draft, name: &str, host: &str) {
    let has_tls = tls::finish(translator, draft);
    // Mosquitto's own name, which the other broker may have rules for.
    if !draft.keys.contains_key("client_identifier") {
        draft.set("client_identifier", format!("{host}.{}", draft.name), None);
    }
    if let Some(&place) = draft.options.get("notifications_local_only") {
        draft.set("profile", "none", Some(place));
    }
    let is_silent =
        draft.keys.get("profile").is_some_and(|(profile, _)| profile.as_str() == Some("none"));
    if let Some(&place) = draft.options.get("notification_topic").filter(|_| is_silent) {
        // The other broker is told nothing; this one has the state on its own topic.
        draft.keys.remove("notification_topic");
        translator.outcomes[place] = ignored("no notifications go to the other broker");
    }
    for (key, default) in
        [("version", "3.1.1"), ("retained", "always"), ("profile", "mosquitto"), ("reload", "lazy")]
    {
        if !draft.keys.contains_key(key) {
            draft.set(key, default, None);
        }
    }
    if !draft.keys.contains_key("unsubscribe_out") {
        draft.set("unsubscribe_out", true, None);
    }
    finish_clean_session(draft);
    if !draft.keys.contains_key("user")
        && let Some((_, Some(place))) = draft.keys.remove("local_client_identifier")
    {
        let note = "no rule applies to a bridge without local_username";
        translator.outcomes[place] = Ok(Effect::Noted(note.to_owned()));
    }
    let password = draft.keys.get("password").and_then(|(_, by)| *by);
    let needs_user = !draft.keys.contains_key("username")
        && draft.keys.get("version").is_some_and(|(version, _)| version.as_str() != Some("5"));
    if let Some(place) = password.filter(|_| needs_user) {
        translator.outcomes[place] = refused("needs remote_username before MQTT 5.0; add a line");
    }
    finish_shares(translator, draft);
    finish_addresses(translator, draft, has_tls);
    draft.set("name", name, Some(draft.place));
    if translator.outcomes[draft.place].is_err() {
        return;
    }
    translator.outcomes[draft.place] = if draft.addresses.is_empty() {
        refused("has no server; add a line `address HOST:PORT`")
    } else if draft.rules.is_empty() && !draft.options.contains_key("topic") {
        refused("nothing goes out or comes in; add a line such as `topic # out`")
    } else {
        Ok(Effect::Noted(format!("its state is on $SYS/broker/bridges/{name}/state")))
    };
}

/// Without a session at the other broker, Mosquitto has none here either, unless the file says so: messages do not wait
/// for the connection.
fn finish_clean_session(draft: &mut Draft) {
    if draft.keys.contains_key("queue.offline") {
        return;
    }
    if let Some((clean_start, by)) = draft.keys.get("clean_start")
        && clean_start.as_bool() == Some(true)
    {
        let by = *by;
        draft.set("queue.offline", false, by);
    }
}

/// Sets the name of the shared subscriptions, which is one for all lines of a bridge.
fn finish_shares(translator: &mut Translator, draft: &mut Draft) {
    let Some((share, place)) = draft.shares.first().cloned() else { return };
    for (_, place) in draft.shares.iter().filter(|(other, _)| *other != share) {
        translator.outcomes[*place] = refused(
            "of the lines for messages from the other broker, all of a bridge are of one shared subscription, or none is; \
             give this one a section `connection` of its own",
        );
    }
    if !share.is_empty() {
        draft.set("share", share, Some(place));
    }
}

/// Sets the servers. With TLS they have another scheme; the port is the same.
fn finish_addresses(translator: &mut Translator, draft: &mut Draft, has_tls: bool) {
    let Some(&place) = draft.options.get("address") else { return };
    let scheme = if has_tls { "mqtts" } else { "mqtt" };
    let mut servers: Vec<Value> = Vec::new();
    for (host, port) in &draft.addresses {
        let url = match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}"),
            false => format!("{scheme}://{host}:{port}"),
        };
        match url.parse::<Server>() {
            Ok(_) => servers.push(url.into()),
            Err(what) => translator.outcomes[place] = refused(what),
        }
    }
    draft.set("servers", servers, Some(place));
}

/// The name of a bridge, in which other characters than those of names are replaced, and which no other bridge has.
fn unique_name(name: &str, others: &[String]) -> String {
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let letters = name.chars().map(|letter| if is_of_name(letter) { letter } else { '-' });
    // Two characters are left for a number.
    let own: String = letters.take(NAME_BYTES_MAX - 3).collect();
    let numbered = (2..).map(|number| format!("{own}-{number}"));
    let mut candidates = std::iter::once(own.clone()).chain(numbered);
    candidates.find(|name| !others.contains(name)).unwrap_or(own)
}

impl WrittenBridge {
    /// All keys as a table.
    pub fn table(&self) -> toml::Table {
        let mut table = toml::Table::new();
        self.keys.iter().for_each(|of| keys::insert(&mut table, &of.key, of.value.clone()));
        for name in WrittenRule::TABLES {
            let rules = self.rules.iter().filter(|rule| rule.table == name);
            let rules: Vec<Value> = rules.map(|rule| Value::Table(rule.table())).collect();
            if !rules.is_empty() {
                table.insert(name.to_owned(), rules.into());
            }
        }
        table
    }
}

impl WrittenRule {
    /// The names of the tables that a rule may be in.
    const TABLES: [&'static str; 2] = ["out", "in"];

    fn table(&self) -> toml::Table {
        let pair = |of: &Written| (of.key.clone(), of.value.clone());
        self.keys.iter().map(pair).collect()
    }
}
