//! Topics of a bridge: which rule a message falls under, and its topic on the other side.
//!
//! A rule has a filter of topics on the side that a message comes from, the beginning that is taken off the topic, and
//! the one that is put before it. The first rule in the order of the configuration whose filter matches, and whose
//! beginning the topic has, decides; a message that falls under none does not pass. In the place of the beginnings, a rule
//! may have a topic that is made of what the wildcards of its filter stand for.

use shards::{TOPIC_BYTES_MAX, filter_matches, has_wildcard};

use crate::config::bridge::template::Template;
use crate::config::bridge::{InRule, OutRule, is_of_broker};
use crate::wire::Qos;

/// The way of messages from this broker to the other one.
#[derive(Clone, Debug, Default)]
pub struct OutMap(Map);

impl OutMap {
    /// The map of rules that the configuration has checked.
    pub fn new(rules: &[OutRule]) -> Self {
        Self(Map::new(
            "",
            rules.iter().map(|rule| {
                let prefixes = (rule.local_prefix.as_str(), rule.remote_prefix.as_str());
                Rule::new(&rule.filter, rule.qos_max, prefixes, &rule.to)
            }),
        ))
    }

    /// Writes the topic at the other broker of a message with this topic. Returns the number of the rule and the
    /// highest QoS of the message there; none, with nothing written, if the message does not pass.
    pub fn map_out(&self, topic: &str, into: &mut String) -> Option<(usize, Qos)> {
        let rule = self.0.map(topic, into)?;
        Some((rule, self.0.rules[rule].qos))
    }

    /// The same map without subscriptions: for messages that were queued before.
    pub fn without_subscriptions(mut self) -> Self {
        self.0.filters = Box::default();
        self
    }

    /// Whether nothing is subscribed to.
    pub fn is_empty(&self) -> bool {
        self.0.filters.is_empty()
    }

    /// Bytes by which a topic grows at most.
    pub fn growth_max(&self) -> usize {
        let grows = |rule: &Rule| match &rule.made {
            // Each wildcard stands once.
            Some(template) => template.text_bytes(),
            None => rule.put_before.len().saturating_sub(rule.taken_off.len()),
        };
        self.0.rules.iter().map(grows).max().unwrap_or(0)
    }

    /// The Topic Filters at the other broker that match what the rules send there, of rules that only exchange the
    /// beginning of topics.
    pub fn remote_filters(&self) -> impl Iterator<Item = String> {
        let plain = self.0.rules.iter().filter(|rule| rule.made.is_none());
        plain.filter_map(|rule| {
            let rest = rule.filter.strip_prefix(&*rule.taken_off)?;
            Some(format!("{}{rest}", rule.put_before))
        })
    }

    /// The Topic Filters to subscribe to at this broker, each once, with the highest QoS of its rules.
    pub fn local_filters(&self) -> impl Iterator<Item = (&str, Qos)> {
        self.0.filters()
    }
}

/// The way of messages from the other broker to this one.
#[derive(Clone, Debug, Default)]
pub struct InMap(Map);

impl InMap {
    /// The map of rules that the configuration has checked.
    pub fn new(rules: &[InRule]) -> Self {
        Self::shared("", rules)
    }

    /// The same with shared subscriptions of this name, if it is not empty.
    pub fn shared(share: &str, rules: &[InRule]) -> Self {
        let beginning = if share.is_empty() { String::new() } else { format!("$share/{share}/") };
        Self(Map::new(
            &beginning,
            rules.iter().map(|rule| {
                let prefixes = (rule.remote_prefix.as_str(), rule.local_prefix.as_str());
                Rule::new(&rule.filter, rule.qos, prefixes, &rule.to)
            }),
        ))
    }

    /// Writes the topic at this broker of a message with this topic. Returns the number of the rule; none, with
    /// nothing written, if the message does not pass.
    pub fn map_in(&self, topic: &str, into: &mut String) -> Option<usize> {
        self.0.map(topic, into)
    }

    /// Whether a filter matches a topic at the other broker.
    pub fn matches(&self, topic: &str) -> bool {
        self.0.rules.iter().any(|rule| rule.matches(topic))
    }

    /// Whether the subscriptions are shared.
    pub fn is_shared(&self) -> bool {
        self.0.is_shared
    }

    /// Whether a Topic Filter is to be subscribed to at the other broker.
    pub fn has_filter(&self, filter: &str) -> bool {
        self.remote_filters().any(|(of, _)| of == filter)
    }

    /// The Topic Filters to subscribe to at the other broker, each once, with the highest QoS of its rules.
    pub fn remote_filters(&self) -> impl Iterator<Item = (&str, Qos)> {
        self.0.filters()
    }
}

#[derive(Clone, Debug, Default)]
struct Map {
    rules: Box<[Rule]>,
    /// The filters of the rules as they are subscribed to, each once, with the highest QoS of its rules.
    filters: Box<[(Box<str>, Qos)]>,
    is_shared: bool,
}

impl Map {
    /// `beginning` is put before the filters when they are subscribed to.
    fn new(beginning: &str, rules: impl Iterator<Item = Rule>) -> Self {
        let rules: Box<[Rule]> = rules.collect();
        let mut filters: Vec<(Box<str>, Qos)> = Vec::new();
        for rule in &rules {
            let filter = format!("{beginning}{}", rule.filter);
            match filters.iter_mut().find(|(of, _)| **of == *filter) {
                Some((_, qos)) => *qos = rule.qos.max(*qos),
                None => filters.push((filter.into(), rule.qos)),
            }
        }
        Self { rules, filters: filters.into(), is_shared: !beginning.is_empty() }
    }

    fn map(&self, topic: &str, into: &mut String) -> Option<usize> {
        into.clear();
        let mut rules = self.rules.iter().enumerate();
        let (number, rule, rest) =
            rules.find_map(|(number, rule)| Some((number, rule, rule.rest(topic)?)))?;
        match &rule.made {
            Some(template) => template.write(&rule.filter, topic, into),
            None => {
                into.push_str(&rule.put_before);
                into.push_str(rest);
            }
        }
        if !(1..=TOPIC_BYTES_MAX).contains(&into.len()) || is_of_broker(into) {
            into.clear();
            return None;
        }
        Some(number)
    }

    fn filters(&self) -> impl Iterator<Item = (&str, Qos)> {
        self.filters.iter().map(|(filter, qos)| (&**filter, *qos))
    }
}

#[derive(Clone, Debug)]
struct Rule {
    filter: Box<str>,
    kind: Kind,
    taken_off: Box<str>,
    put_before: Box<str>,
    /// The topic on the other side, if it is made of what the wildcards of the filter stand for.
    made: Option<Template>,
    qos: Qos,
}

/// How topics are compared with a filter.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The filter is a topic.
    Exact,
    /// The filter is a topic with its levels below, `topic/#`.
    Below,
    /// Level by level.
    Wildcards,
}

impl Rule {
    fn new(filter: &str, qos: u8, (taken_off, put_before): (&str, &str), to: &str) -> Self {
        let kind = match filter.strip_suffix("/#") {
            Some(above) if !has_wildcard(above) => Kind::Below,
            None if !has_wildcard(filter) => Kind::Exact,
            _ => Kind::Wildcards,
        };
        Self {
            filter: filter.into(),
            kind,
            taken_off: taken_off.into(),
            put_before: put_before.into(),
            // The configuration has been checked.
            made: if to.is_empty() { None } else { Template::parse(to, filter).ok() },
            // The configuration has no other QoS.
            qos: Qos::try_from(qos).unwrap_or(Qos::ExactlyOnce),
        }
    }

    /// The rest of a topic behind the beginning that is taken off; none if the rule is not for the topic.
    fn rest<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let rest = topic.strip_prefix(&*self.taken_off)?;
        self.matches(topic).then_some(rest)
    }

    /// Whether the filter matches a topic [MQTT-4.7].
    fn matches(&self, topic: &str) -> bool {
        match self.kind {
            Kind::Exact => *self.filter == *topic,
            Kind::Below => {
                let above = &self.filter[..self.filter.len() - 2];
                let below = topic.strip_prefix(above);
                below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
            }
            Kind::Wildcards => filter_matches(&self.filter, topic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shards::{Matches, SubscriberId, Subscription, SubscriptionIndex, SubscriptionOptions};
    use shards::{TopicFilter, check_topic_name};

    /// Rules of the filter, the local and the remote prefix.
    fn out(rules: &[(&str, &str, &str)]) -> OutMap {
        let rule = |&(filter, local, remote): &(&str, &str, &str)| OutRule {
            filter: filter.to_owned(),
            qos_max: 2,
            local_prefix: local.to_owned(),
            remote_prefix: remote.to_owned(),
            to: String::new(),
        };
        OutMap::new(&rules.iter().map(rule).collect::<Vec<_>>())
    }

    /// The same rules for the other direction.
    fn into(rules: &[(&str, &str, &str)]) -> InMap {
        let rule = |&(filter, local, remote): &(&str, &str, &str)| InRule {
            filter: filter.to_owned(),
            qos: 1,
            local_prefix: local.to_owned(),
            remote_prefix: remote.to_owned(),
            to: String::new(),
        };
        InMap::new(&rules.iter().map(rule).collect::<Vec<_>>())
    }

    /// The rule and the topic at the other broker.
    fn goes(map: &OutMap, topic: &str) -> Option<(usize, String)> {
        let mut mapped = "of the last message".to_owned();
        let rule = map.map_out(topic, &mut mapped).map(|(rule, _)| rule);
        assert_eq!(rule.is_none(), mapped.is_empty(), "nothing is written unless it passes");
        rule.map(|rule| (rule, mapped))
    }

    /// The rule and the topic at this broker.
    fn comes(map: &InMap, topic: &str) -> Option<(usize, String)> {
        let mut mapped = "of the last message".to_owned();
        let rule = map.map_in(topic, &mut mapped);
        assert_eq!(rule.is_none(), mapped.is_empty(), "nothing is written unless it passes");
        rule.map(|rule| (rule, mapped))
    }

    #[test]
    fn the_local_prefix_is_taken_off_and_the_remote_one_put_before_on_the_way_out() {
        let map = out(&[("site/#", "site/", "plant7/")]);
        assert_eq!(goes(&map, "site/a/b"), Some((0, "plant7/a/b".to_owned())));
        assert_eq!(goes(&map, "other/a"), None);
        let map = out(&[("site/#", "", "plant7/")]);
        assert_eq!(goes(&map, "site/a"), Some((0, "plant7/site/a".to_owned())));
        let map = out(&[("#", "", "")]);
        assert_eq!(goes(&map, "a"), Some((0, "a".to_owned())));
    }

    #[test]
    fn the_remote_prefix_is_taken_off_and_the_local_one_put_before_on_the_way_in() {
        let map = into(&[("plant7/cmd/#", "", "plant7/")]);
        assert_eq!(comes(&map, "plant7/cmd/a"), Some((0, "cmd/a".to_owned())));
        assert_eq!(comes(&map, "plant7/a"), None);
        let map = into(&[("cmd/#", "cloud/", "")]);
        assert_eq!(comes(&map, "cmd/a"), Some((0, "cloud/cmd/a".to_owned())));
    }

    #[test]
    fn topics_are_made_of_what_the_wildcards_of_a_filter_stand_for_in_both_directions() {
        let rule = |filter: &str, to: &str| OutRule {
            filter: filter.to_owned(),
            qos_max: 2,
            local_prefix: String::new(),
            remote_prefix: String::new(),
            to: to.to_owned(),
        };
        let map = OutMap::new(&[rule("site/+/t/#", "t/{2}/of/{1}"), rule("#", "rest")]);
        assert_eq!(goes(&map, "site/hall/t/a/b"), Some((0, "t/a/b/of/hall".to_owned())));
        assert_eq!(goes(&map, "other"), Some((1, "rest".to_owned())));
        assert_eq!(map.growth_max(), "t//of/".len());
        let map = InMap::new(&[InRule {
            filter: "+/cmd/+".to_owned(),
            qos: 1,
            local_prefix: String::new(),
            remote_prefix: String::new(),
            to: "{2}/{1}".to_owned(),
        }]);
        assert_eq!(comes(&map, "plant/cmd/lamp"), Some((0, "lamp/plant".to_owned())));
        assert_eq!(comes(&map, "plant/cmd"), None);
        assert_eq!(comes(&map, "plant/cmd/$SYS"), None, "of the broker itself");
        let long = "x".repeat(TOPIC_BYTES_MAX - "site/".len());
        let map = OutMap::new(&[rule("site/#", "a longer one/{1}")]);
        assert_eq!(goes(&map, &format!("site/{long}")), None, "too long");
    }

    #[test]
    fn a_message_that_a_filter_matches_and_a_prefix_does_not_stays_unless_a_later_rule_takes_it() {
        let map = out(&[("#", "a/", "x/")]);
        assert_eq!(goes(&map, "b/c"), None);
        assert_eq!(goes(&map, "a"), None, "matched by a/#, without the slash of the prefix");
        let map = out(&[("#", "a/", "x/"), ("+/c", "", "y/")]);
        assert_eq!(goes(&map, "b/c"), Some((1, "y/b/c".to_owned())));
    }

    #[test]
    fn the_first_rule_in_the_order_of_the_configuration_decides() {
        let map = out(&[("a/b", "", "1/"), ("a/#", "", "2/"), ("#", "", "3/")]);
        assert_eq!(goes(&map, "a/b"), Some((0, "1/a/b".to_owned())));
        assert_eq!(goes(&map, "a"), Some((1, "2/a".to_owned())));
        assert_eq!(goes(&map, "b"), Some((2, "3/b".to_owned())));
        let reversed = out(&[("#", "", "3/"), ("a/b", "", "1/")]);
        assert_eq!(goes(&reversed, "a/b"), Some((0, "3/a/b".to_owned())));
    }

    #[test]
    fn topics_of_a_broker_about_itself_neither_go_nor_come() {
        let all = out(&[("#", "", ""), ("+/a", "", "")]);
        assert_eq!(goes(&all, "$SYS/a"), None, "[MQTT-4.7.2-1]");
        let map = out(&[("a/#", "a/", "")]);
        assert_eq!(goes(&map, "a/$SYS/b"), None);
        assert_eq!(goes(&map, "a/$SYSTEM/b"), Some((0, "$SYSTEM/b".to_owned())));
        let map = into(&[("a/#", "", "a/")]);
        for topic in ["a/$SYS", "a/$SYS/b", "a/$CONTROL/dynamic-security/v1"] {
            assert_eq!(comes(&map, topic), None, "{topic}");
        }
        let map = into(&[("a/#", "$", "a/")]);
        assert_eq!(comes(&map, "a/SYS/b"), None);
    }

    #[test]
    fn a_topic_that_would_be_empty_or_too_long_does_not_pass() {
        let map = out(&[("a/#", "a", "")]);
        assert_eq!(goes(&map, "a"), None);
        assert_eq!(goes(&map, "a/"), Some((0, "/".to_owned())));
        let map = out(&[("#", "", "prefix/")]);
        let longest = "x".repeat(TOPIC_BYTES_MAX - "prefix/".len());
        let (_, mapped) = goes(&map, &longest).expect("it fits");
        assert_eq!(mapped.len(), TOPIC_BYTES_MAX);
        assert_eq!(goes(&map, &format!("{longest}x")), None);
    }

    #[test]
    fn the_documented_topics_are_mapped_as_documented() {
        let document = include_str!("../../../docs/bridges.md");
        let (_, rows) = document.split_once("| here | there |\n").expect("the table");
        let (rows, _) = rows.split_once("\n\n").expect("it ends");
        for row in rows.lines().skip(1) {
            let cells: Vec<&str> =
                row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let [_, table, filter, local, remote, here, there, _] = cells[..] else {
                panic!("{row}")
            };
            let rule = [(filter, local, remote)];
            let (mapped, expected) = match table {
                "out" => (goes(&out(&rule), here), there),
                _ => (comes(&into(&rule), there), here),
            };
            let expected =
                (!expected.starts_with("does not pass")).then(|| (0, expected.to_owned()));
            assert_eq!(mapped, expected, "{row}");
        }
        assert_eq!(rows.lines().count(), 8, "{rows}");
    }

    #[test]
    fn the_documented_topics_of_wildcards_are_made_as_documented() {
        let document = include_str!("../../../docs/bridges.md");
        let (_, rows) = document.split_once("| `to` | from | to |\n").expect("the table");
        let (rows, _) = rows.split_once("\n\n").expect("it ends");
        let none = String::new;
        for row in rows.lines().skip(1) {
            let cells: Vec<&str> =
                row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let [_, table, filter, to, from, expected, _] = cells[..] else { panic!("{row}") };
            let (filter, to) = (filter.to_owned(), to.to_owned());
            let (local_prefix, remote_prefix) = (none(), none());
            let mapped = match table {
                "out" => {
                    let rule = OutRule { filter, qos_max: 2, local_prefix, remote_prefix, to };
                    goes(&OutMap::new(&[rule]), from)
                }
                _ => {
                    let rule = InRule { filter, qos: 2, local_prefix, remote_prefix, to };
                    comes(&InMap::new(&[rule]), from)
                }
            };
            assert_eq!(mapped, Some((0, expected.to_owned())), "{row}");
        }
        assert_eq!(rows.lines().count(), 5, "{rows}");
    }

    #[test]
    fn each_filter_is_subscribed_to_once_with_the_highest_qos_of_its_rules() {
        let rule = |filter: &str, qos_max| OutRule {
            filter: filter.to_owned(),
            qos_max,
            local_prefix: String::new(),
            remote_prefix: String::new(),
            to: String::new(),
        };
        let map = OutMap::new(&[rule("a", 0), rule("b", 2), rule("a", 1)]);
        let filters: Vec<_> = map.local_filters().collect();
        assert_eq!(filters, [("a", Qos::AtLeastOnce), ("b", Qos::ExactlyOnce)]);
        let mut mapped = String::new();
        assert_eq!(map.map_out("a", &mut mapped), Some((0, Qos::AtMostOnce)), "the first rule");
        let map = into(&[("x/#", "", ""), ("x/#", "", "x/")]);
        assert_eq!(map.remote_filters().collect::<Vec<_>>(), [("x/#", Qos::AtLeastOnce)]);
    }

    /// Topics and filters that often match.
    fn levels(of: &'static [&'static str]) -> impl Strategy<Value = String> {
        let level = prop::sample::select(of);
        prop::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn messages_pass_exactly_where_the_index_of_subscriptions_finds_a_filter(
            filters in prop::collection::vec(levels(&["a", "b", "", "+", "#", "$a", "ab"]), 1..6),
            topics in prop::collection::vec(levels(&["a", "b", "", "$a", "ab"]), 1..20),
        ) {
            let filters: Vec<_> =
                filters.iter().filter(|text| TopicFilter::parse(text, 128).is_ok()).collect();
            let map = out(&filters.iter().map(|text| (text.as_str(), "", "")).collect::<Vec<_>>());
            let mut index = SubscriptionIndex::new(1);
            for (number, text) in filters.iter().enumerate() {
                let filter = TopicFilter::parse(text, 128).expect("valid");
                let options = SubscriptionOptions::new(0, false, false);
                let subscriber = SubscriberId(number as u32);
                index.subscribe(&filter, Subscription { subscriber, options, identifier: 0 });
            }
            for topic in topics.iter().filter(|topic| check_topic_name(topic, 128).is_ok()) {
                let mut found = Matches::default();
                index.matches(topic, &mut found);
                let first = found.subscriptions.iter().map(|of| of.subscriber.0 as usize).min();
                prop_assert_eq!(goes(&map, topic), first.map(|of| (of, topic.clone())), "{}", topic);
            }
        }

        #[test]
        fn what_goes_out_and_comes_back_by_the_reverse_rule_has_its_topic_again(
            topic in levels(&["a", "b", "", "ab"]),
            (local, remote) in (levels(&["a", "", "ab"]), levels(&["b", "", "c"])),
        ) {
            prop_assume!(!topic.is_empty());
            if let Some((_, remote_topic)) = goes(&out(&[("#", &local, &remote)]), &topic) {
                let back = comes(&into(&[("#", &local, &remote)]), &remote_topic);
                prop_assert_eq!(back, Some((0, topic)));
            }
        }
    }
}
