//! Conditions of bridges that involve several keys or several bridges, and texts.

use std::net::IpAddr;

use shards::{TOPIC_BYTES_MAX, TopicFilter, has_wildcard};

use super::server::Way;
use super::template::Template;
use super::{Bridge, BridgeTls, Echo, InRule, OutRule, Profile, StartMode, Version, is_of_broker};

/// Bridges at most.
const BRIDGES_MAX: usize = 64;

/// Servers of a bridge at most.
const SERVERS_MAX: usize = 16;

/// Rules of a bridge at most: each is compared with the topic of a message.
const RULES_MAX: usize = 256;

/// Bytes of a name at most.
const NAME_BYTES_MAX: usize = 64;

/// Bytes of a text of MQTT at most, such as a User Name.
const TEXT_BYTES_MAX: usize = 65_535;

/// ALPN protocols at most, and bytes of the name of one (RFC 7301, 3.1).
const ALPN_MAX: usize = 16;
const ALPN_BYTES_MAX: usize = 255;

/// Checks all bridges; the error has the number of the one that is wrong.
pub fn check(bridges: &[Bridge]) -> Result<(), (usize, String)> {
    if !bridges.is_empty() && !cfg!(feature = "bridge") {
        let what =
            "[[bridges]]: this broker was built without bridges; build it with --features bridge";
        return Err((0, what.to_owned()));
    }
    if bridges.len() > BRIDGES_MAX {
        return Err((BRIDGES_MAX, format!("[[bridges]]: more than {BRIDGES_MAX} bridges")));
    }
    for (number, bridge) in bridges.iter().enumerate() {
        let others = &bridges[..number];
        let checked = bridge.check().and_then(|()| bridge.check_among(others));
        checked.map_err(|what| {
            (number, format!("[[bridges]] name = \"{}\": {what}", bridge.name.escape_debug()))
        })?;
    }
    Ok(())
}

impl Bridge {
    fn check(&self) -> Result<(), String> {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=NAME_BYTES_MAX).contains(&self.name.len()) || !self.name.bytes().all(is_letter) {
            return Err("a name has 1 to 64 of the characters A-Z a-z 0-9 - _".to_owned());
        }
        self.check_servers()?;
        for (key, text) in [
            ("client_identifier", &self.client_identifier),
            ("username", &self.username),
            ("password", &self.password),
            ("user", &self.user),
            ("local_client_identifier", &self.local_client_identifier),
        ] {
            if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
                return Err(format!("{key} has U+0000 or more than {TEXT_BYTES_MAX} bytes"));
            }
        }
        // [MQTT-3.1.2-22]
        let has_file = !self.password_file.as_os_str().is_empty();
        let has_password = has_file || !self.password.is_empty();
        if has_password && self.username.is_empty() && self.version != Version::V5 {
            let key = if has_file { "password_file" } else { "password" };
            return Err(format!("{key} needs username, except with version = \"5\""));
        }
        if has_file && !self.password.is_empty() {
            return Err("password and password_file exclude each other; remove one".to_owned());
        }
        if !self.bind.is_empty() && self.bind.parse::<IpAddr>().is_err() {
            return Err("bind is an address of this machine without a port, such as \"192.0.2.1\""
                .to_owned());
        }
        if !self.local_client_identifier.is_empty() && self.user.is_empty() {
            return Err("local_client_identifier is for rules, which apply to bridges with `user` only; name one, or \
                        remove it"
                .to_owned());
        }
        let reconnect = &self.reconnect;
        if u64::from(reconnect.first_ms) > u64::from(reconnect.most_s) * 1_000 {
            return Err("reconnect.first_ms is longer than reconnect.most_s".to_owned());
        }
        self.queue.check()?;
        self.check_rules()?;
        self.check_notification_topic()?;
        self.check_profile()?;
        self.check_connections()?;
        self.with_profile().check_net()
    }

    /// Checks that something tells messages that come back from others.
    fn check_net(&self) -> Result<(), String> {
        let is_unknown = matches!(self.version, Version::V311 | Version::V31) && !self.bridge_bit;
        match is_unknown && self.echo == Echo::Off && self.has_overlap() {
            true => Err("echo: topics of [[bridges.out]] come back by [[bridges.in]], and nothing would tell them from \
                         others: use version = \"auto\" or \"5\", bridge_bit = true or echo = \"auto\", or name topics \
                         that do not overlap"
                .to_owned()),
            false => Ok(()),
        }
    }

    fn check_servers(&self) -> Result<(), String> {
        if !(1..=SERVERS_MAX).contains(&self.servers.len()) {
            return Err(format!(
                "servers names 1 to {SERVERS_MAX} servers, such as \"mqtts://broker.example.org\""
            ));
        }
        if !self.servers.iter().all(|server| server.has_tls == self.has_tls()) {
            return Err("servers: some use TLS (mqtts, wss) and some do not (mqtt, ws, unix), so that a connection \
                        without TLS could take the place of one with it; use TLS for all, or for none"
                .to_owned());
        }
        let has_websocket =
            self.servers.iter().any(|server| matches!(server.way, Way::WebSocket(_)));
        if has_websocket && !cfg!(feature = "websocket") {
            return Err("servers: this broker was built without WebSocket; build it with --features websocket"
                .to_owned());
        }
        if let Some(twice) =
            (1..self.servers.len()).find(|&at| self.servers[..at].contains(&self.servers[at]))
        {
            return Err(format!("servers: {} is named twice", self.servers[twice]));
        }
        match (&self.tls, self.has_tls()) {
            (Some(_), false) => Err(
                "[bridges.tls] is present, but the servers are not mqtts:// or wss://; write mqtts or wss, or remove the table"
                    .to_owned(),
            ),
            (_, true) if !cfg!(feature = "tls") => Err(
                "servers: this broker was built without TLS; build it with --features tls".to_owned(),
            ),
            (tls, _) => tls.as_ref().map_or(Ok(()), BridgeTls::check),
        }
    }

    fn check_notification_topic(&self) -> Result<(), String> {
        let topic = &self.notification_topic;
        if topic.is_empty() {
            return Ok(());
        }
        if self.profile != Profile::Mosquitto {
            return Err(
                "notification_topic is for profile = \"mosquitto\", which tells whether the bridge is connected"
                    .to_owned(),
            );
        }
        let is_name = shards::check_topic_name(topic, usize::MAX).is_ok();
        (is_name && !topic.contains('\0')).then_some(()).ok_or_else(|| {
            format!(
                "notification_topic {topic:?} is not a Topic Name: it has neither wildcards nor U+0000, and 65,535 \
                 bytes at most"
            )
        })
    }

    fn check_rules(&self) -> Result<(), String> {
        let count = self.outgoing.len() + self.incoming.len();
        if count == 0 {
            return Err(
                "nothing goes out or comes in; name topics in [[bridges.out]] or [[bridges.in]]"
                    .to_owned(),
            );
        }
        if count > RULES_MAX {
            return Err(format!("more than {RULES_MAX} tables [[bridges.out]] and [[bridges.in]]"));
        }
        if self.start == StartMode::Lazy && self.outgoing.is_empty() {
            return Err("start = \"lazy\" without [[bridges.out]]: no message would ever wait, and the bridge never \
                        connect; use \"always\" or \"manual\""
                .to_owned());
        }
        for rule in &self.outgoing {
            rule.check().map_err(|what| format!("out filter = {:?}: {what}", rule.filter))?;
        }
        for rule in &self.incoming {
            rule.check().map_err(|what| format!("in filter = {:?}: {what}", rule.filter))?;
        }
        Ok(())
    }

    /// Checks that no other bridge has the name, or takes over the session at a server.
    fn check_among(&self, others: &[Self]) -> Result<(), String> {
        if others.iter().any(|other| other.name == self.name) {
            return Err("the name is used twice; names are unique".to_owned());
        }
        // Without a Client Identifier, it has the name of the bridge.
        let identifiers = self.client_identifiers("");
        let alike =
            |other: &&Self| other.client_identifiers("").iter().any(|of| identifiers.contains(of));
        for other in others.iter().filter(alike) {
            let shared = self.servers.iter().find(|server| other.servers.contains(server));
            if let Some(server) = shared {
                return Err(format!(
                    "client_identifier: bridge \"{}\" has the same one at {server}, and each connection would end the \
                     other; choose another",
                    other.name
                ));
            }
        }
        Ok(())
    }
}

impl OutRule {
    /// Checks that messages can pass.
    pub fn check(&self) -> Result<(), String> {
        let taken = ("local_prefix", self.local_prefix.as_str());
        check_rule(&self.filter, taken, ("remote_prefix", &self.remote_prefix), &self.to)
    }
}

impl InRule {
    /// Checks that messages can pass.
    pub fn check(&self) -> Result<(), String> {
        let taken = ("remote_prefix", self.remote_prefix.as_str());
        check_rule(&self.filter, taken, ("local_prefix", &self.local_prefix), &self.to)
    }
}

impl BridgeTls {
    fn check(&self) -> Result<(), String> {
        let has = |path: &std::path::Path| !path.as_os_str().is_empty();
        if has(&self.certificate) != has(&self.key) {
            return Err(
                "tls.certificate and tls.key belong together; name both PEM files, or neither"
                    .to_owned(),
            );
        }
        let is_name = |name: &String| (1..=ALPN_BYTES_MAX).contains(&name.len());
        if self.alpn.len() > ALPN_MAX || !self.alpn.iter().all(is_name) {
            return Err(format!(
                "tls.alpn has up to {ALPN_MAX} names of 1 to {ALPN_BYTES_MAX} bytes each, such as \"mqtt\""
            ));
        }
        if self.versions.is_empty() {
            return Err("tls.versions is empty; name \"1.2\", \"1.3\" or both".to_owned());
        }
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if !self.server_name.bytes().all(is_of_name) {
            return Err(
                "tls.server_name is a host name or an address, such as \"broker.example.org\""
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// Checks a filter, the beginning that is taken off its topics, and the one that is put before, or the topic that takes
/// the place of theirs.
fn check_rule(
    filter: &str,
    (taken_key, taken): (&str, &str),
    (put_key, put): (&str, &str),
    to: &str,
) -> Result<(), String> {
    match TopicFilter::parse(filter, usize::MAX) {
        Err(error) => return Err(format!("no Topic Filter: {error}")),
        Ok(parsed) if parsed.share_name().is_some() => {
            return Err("a shared subscription is not bridged; name the filter after $share/NAME/"
                .to_owned());
        }
        Ok(_) => {}
    }
    if is_of_broker(filter) {
        return Err("topics of $SYS and $CONTROL are of one broker, and are not bridged".to_owned());
    }
    if !to.is_empty() {
        if !taken.is_empty() || !put.is_empty() {
            return Err(format!(
                "to is the whole topic, so that {taken_key} and {put_key} have no use; remove them, or to"
            ));
        }
        return Template::parse(to, filter).map(drop);
    }
    for (key, prefix) in [(taken_key, taken), (put_key, put)] {
        if has_wildcard(prefix) || prefix.contains('\0') || prefix.len() > TOPIC_BYTES_MAX {
            return Err(format!(
                "{key} is the beginning of a topic: without +, # and U+0000, up to {TOPIC_BYTES_MAX} bytes"
            ));
        }
    }
    if is_of_broker(put) {
        return Err(format!(
            "{put_key}: topics of $SYS and $CONTROL are of one broker; choose another"
        ));
    }
    match can_begin(filter, taken) {
        true => Ok(()),
        false => Err(format!(
            "no topic of the filter begins with {taken_key} = {taken:?}, so that nothing would pass; correct one of them"
        )),
    }
}

/// Whether a topic that a filter matches can begin with a prefix.
fn can_begin(filter: &str, prefix: &str) -> bool {
    // [MQTT-4.7.2-1]
    if prefix.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut levels, mut wanted) = (filter.split('/'), prefix.split('/').peekable());
    while let Some(beginning) = wanted.next() {
        let is_complete = wanted.peek().is_some();
        match levels.next() {
            Some("#") => return true,
            Some("+") => {}
            Some(level) if is_complete && level == beginning => {}
            Some(level) if !is_complete && level.starts_with(beginning) => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_no_topic_of_a_filter_begins_with_is_found() {
        for (filter, prefix) in [
            ("a/#", ""),
            ("a/#", "a"),
            ("a/#", "a/"),
            ("a/#", "a/b/c"),
            ("a/b", "a/b"),
            ("abc", "ab"),
            ("+/b", "x/"),
            ("+/b", "x/b"),
            ("#", "x/y/"),
            ("$a/#", "$a/b"),
            ("/a", "/"),
        ] {
            assert!(can_begin(filter, prefix), "{filter} {prefix}");
        }
        for (filter, prefix) in [
            ("a/#", "b"),
            ("a/b", "a/b/"),
            ("a/b", "a/c"),
            ("ab", "a/"),
            ("+/b", "x/c"),
            ("#", "$a/"),
            ("+/a", "$a/"),
            ("a", "/a"),
        ] {
            assert!(!can_begin(filter, prefix), "{filter} {prefix}");
        }
    }

    #[cfg(not(feature = "bridge"))]
    #[test]
    fn a_broker_without_bridges_refuses_them_and_says_why() {
        let text = "[[bridges]]\nname = \"a\"\nservers = [\"mqtt://h\"]\n[[bridges.out]]\nfilter = \"#\"\n";
        let settings = crate::config::Settings::from_toml(text).expect("it is read");
        let error = settings.check().expect_err("it has none").to_string();
        assert!(error.contains("build it with --features bridge"), "{error}");
    }
}
