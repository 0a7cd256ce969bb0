//! Whether what goes to the other broker comes back from it: rules of both directions that share a topic there.

use super::template::{Piece, Template, is_open};
use super::{Bridge, InRule, OutRule};

impl Bridge {
    /// Whether the other broker sends messages back that it has from this one, unless it knows that they are of a bridge.
    pub fn has_overlap(&self) -> bool {
        self.outgoing.iter().any(|out| self.incoming.iter().any(|r#in| overlap(out, r#in)))
    }
}

fn overlap(out: &OutRule, r#in: &InRule) -> bool {
    let go = Topics::there(out);
    let come = Topics::of(&r#in.filter, &r#in.remote_prefix);
    // [MQTT-4.7.2-1]
    let is_hidden = out.remote_prefix.starts_with('$') || out.to.starts_with('$');
    let is_hidden = is_hidden && r#in.filter.starts_with(['+', '#']);
    matches!((go, come), (Some(go), Some(come)) if !is_hidden && go.meets(&come))
}

/// A level of topics.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(String),
    /// Any that begins so.
    Begins(String),
}

/// Topics that have these levels, and with `has_more` any further ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topics {
    levels: Vec<Level>,
    has_more: bool,
}

impl Topics {
    /// The topics at the other broker of messages that a rule lets go out; none if there are none.
    pub(super) fn there(rule: &OutRule) -> Option<Self> {
        if rule.to.is_empty() {
            let topics = Self::of(&rule.filter, &rule.local_prefix)?;
            return Some(topics.moved(&rule.local_prefix, &rule.remote_prefix));
        }
        let template = Template::parse(&rule.to, &rule.filter).ok()?;
        Some(Self::made(&template, &rule.filter))
    }

    /// The topics that a template makes of those of a filter, and maybe others.
    fn made(template: &Template, filter: &str) -> Self {
        let mut topics = Self { levels: Vec::new(), has_more: false };
        // The level that is being made, and whether its end is open.
        let (mut level, mut is_any) = (String::new(), false);
        let close = |level: &mut String, is_any: &mut bool| match std::mem::take(is_any) {
            true => Level::Begins(std::mem::take(level)),
            false => Level::Text(std::mem::take(level)),
        };
        for piece in template.pieces() {
            match piece {
                Piece::Wildcard(number) if is_open(filter, *number) => {
                    // Without a level, the `/` before it is gone, too.
                    if !level.is_empty() || is_any {
                        topics.levels.push(Level::Begins(level));
                    }
                    topics.has_more = true;
                    return topics;
                }
                Piece::Wildcard(_) => is_any = true,
                Piece::Text(text) => {
                    for (at, part) in text.split('/').enumerate() {
                        if at > 0 {
                            topics.levels.push(close(&mut level, &mut is_any));
                        }
                        if !is_any {
                            level.push_str(part);
                        }
                    }
                }
            }
        }
        topics.levels.push(close(&mut level, &mut is_any));
        topics
    }

    /// The topics of a filter that begin with a prefix; none if there are none.
    pub(super) fn of(filter: &str, prefix: &str) -> Option<Self> {
        let mut topics = Self { levels: Vec::new(), has_more: false };
        for level in filter.split('/') {
            match level {
                "#" => topics.has_more = true,
                "+" => topics.levels.push(Level::Begins(String::new())),
                text => topics.levels.push(Level::Text(text.to_owned())),
            }
        }
        let levels_of_prefix = prefix.split('/').count();
        for (at, beginning) in prefix.split('/').enumerate() {
            let is_whole = at + 1 < levels_of_prefix;
            if at == topics.levels.len() && topics.has_more && !prefix.is_empty() {
                topics.levels.push(Level::Begins(String::new()));
            }
            match (topics.levels.get_mut(at), is_whole) {
                (Some(Level::Text(text)), true) if text == beginning => {}
                (Some(Level::Text(text)), false) if text.starts_with(beginning) => {}
                (Some(level @ Level::Begins(_)), true) => {
                    *level = Level::Text(beginning.to_owned())
                }
                (Some(level @ Level::Begins(_)), false) => {
                    *level = Level::Begins(beginning.to_owned());
                }
                (None, _) if prefix.is_empty() => {}
                _ => return None,
            }
        }
        Some(topics)
    }

    /// The same topics with another prefix in the place of the one that all have.
    pub(super) fn moved(mut self, taken: &str, put: &str) -> Self {
        if self.levels.is_empty() && !put.is_empty() {
            // `#`: at least one level follows the prefix.
            self.levels.push(Level::Begins(String::new()));
        }
        let whole = taken.matches('/').count();
        let cut = taken.rsplit('/').next().unwrap_or_default().len();
        self.levels.drain(..whole);
        let mut put: Vec<&str> = put.split('/').collect();
        let last = put.pop().unwrap_or_default();
        if let Some(first) = self.levels.first_mut() {
            *first = match &*first {
                Level::Text(text) => Level::Text(format!("{last}{}", &text[cut..])),
                Level::Begins(_) => Level::Begins(last.to_owned()),
            };
        }
        let before = put.into_iter().map(|level| Level::Text(level.to_owned()));
        self.levels = before.chain(self.levels).collect();
        self
    }

    /// The fewest levels that one of them has.
    pub(super) fn levels(&self) -> usize {
        self.levels.len()
    }

    /// Whether there is one that begins so; the beginning ends with a level.
    pub(super) fn meets_below(&self, beginning: &str) -> bool {
        Self::of(&format!("{beginning}#"), "").is_some_and(|below| self.meets(&below))
    }

    /// Whether there is a topic that both have.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.levels.len(), other.levels.len());
        let is_long_enough =
            (ours >= theirs || self.has_more) && (theirs >= ours || other.has_more);
        is_long_enough && self.levels.iter().zip(&other.levels).all(|(a, b)| a.meets(b))
    }
}

impl Level {
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Text(text), Self::Begins(beginning))
            | (Self::Begins(beginning), Self::Text(text)) => text.starts_with(&**beginning),
            (Self::Begins(a), Self::Begins(b)) => a.starts_with(&**b) || b.starts_with(&**a),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shards::filter_matches;

    use super::*;

    fn rules(out: (&str, &str, &str), r#in: (&str, &str)) -> (OutRule, InRule) {
        let (filter, local, remote) = out;
        let out = OutRule {
            filter: filter.to_owned(),
            qos_max: 2,
            local_prefix: local.to_owned(),
            remote_prefix: remote.to_owned(),
            to: String::new(),
        };
        let (filter, remote) = r#in;
        let r#in = InRule {
            filter: filter.to_owned(),
            qos: 2,
            local_prefix: String::new(),
            remote_prefix: remote.to_owned(),
            to: String::new(),
        };
        (out, r#in)
    }

    #[test]
    fn rules_of_both_directions_overlap_if_they_share_a_topic_at_the_other_broker() {
        for (out, r#in, expected) in [
            (("#", "", ""), ("#", ""), true),
            (("a/#", "", ""), ("a", ""), true),
            (("a/#", "", ""), ("b/#", ""), false),
            (("a/+", "", ""), ("+/b/#", ""), true),
            (("a/+", "", ""), ("+/b/c", ""), false),
            (("site/#", "site/", "plant7/"), ("plant7/cmd/#", ""), true),
            (("site/a/#", "site/", "plant7/"), ("plant7/cmd/#", ""), false),
            (("site/#", "", "plant7/"), ("plant7/cmd/#", ""), false),
            (("site/#", "", "plant7/"), ("plant7/+/x", "plant7/si"), true),
            (("site/#", "", "plant7/"), ("#", "plant8/"), false),
            (("a", "a", "$x"), ("#", ""), false),
            (("a", "a", "$x"), ("$x", ""), true),
            (("#", "", "x/"), ("x", ""), false),
            (("+/b", "", "x"), ("x/b", ""), true),
            (("#", "x/y", "z"), ("zz", ""), true),
            (("x", "x/", "y"), ("#", ""), false),
        ] {
            let (out, r#in) = rules(out, r#in);
            assert_eq!(overlap(&out, &r#in), expected, "{out:?} {in:?}");
        }
    }

    fn levels(of: &'static [&'static str]) -> impl Strategy<Value = String> {
        let level = prop::sample::select(of);
        prop::collection::vec(level, 1..4).prop_map(|levels| levels.join("/"))
    }

    /// A rule that makes topics of the wildcards of its filter.
    fn made(filter: &str, to: &str) -> OutRule {
        let (out, _) = rules((filter, "", ""), ("x", ""));
        OutRule { to: to.to_owned(), ..out }
    }

    #[test]
    fn a_topic_that_is_made_of_wildcards_and_comes_back_is_of_rules_that_overlap() {
        for (filter, to, into, expected) in [
            ("a/+", "x/{1}/y", "x/+/y", true),
            ("a/+", "x/{1}/y", "x/+/z", false),
            ("a/+", "x/p-{1}", "x/p-1", true),
            ("a/+", "x/p-{1}", "x/q", false),
            ("a/#", "x/{1}", "x", true),
            ("a/#", "x/{1}", "x/b/c", true),
            ("a/#", "x/{1}", "y/#", false),
            ("+/+", "{2}/{1}", "b/a", true),
            ("a/b", "x", "x", true),
            ("a/+", "$x/{1}", "#", false),
        ] {
            let (_, r#in) = rules(("x", "", ""), (into, ""));
            assert_eq!(overlap(&made(filter, to), &r#in), expected, "{filter} {to} {into}");
        }
    }

    proptest! {
        #[test]
        fn a_topic_that_is_made_of_wildcards_is_among_those_that_a_rule_is_known_to_make(
            filter in levels(&["a", "b", "+"]),
            has_end in any::<bool>(),
            topic in levels(&["a", "b", "", "ab"]),
            into in levels(&["a", "b", "+", "x", "xa"]),
            pieces in prop::collection::vec(
                prop::sample::select(&["x", "/", "a/", "{1}", "{2}", "{3}"][..]), 1..5),
        ) {
            let filter = if has_end { format!("{filter}/#") } else { filter };
            let to = pieces.concat();
            let template = Template::parse(&to, &filter);
            prop_assume!(template.is_ok());
            let rule = made(&filter, &to);
            let (_, r#in) = rules(("x", "", ""), (&into, ""));
            if filter_matches(&filter, &topic) {
                let mut there = String::new();
                template.expect("checked").write(&filter, &topic, &mut there);
                if filter_matches(&into, &there) {
                    prop_assert!(overlap(&rule, &r#in), "{} {}", topic, there);
                }
            }
        }
        #[test]
        fn a_topic_that_goes_and_comes_back_is_of_rules_that_overlap(
            (filter, local, remote) in (
                levels(&["a", "b", "+", "ab"]), levels(&["a", "b", ""]), levels(&["a", "", "ab"])),
            (into, taken) in (levels(&["a", "b", "+", "ab"]), levels(&["a", "", "b"])),
            (ends, topic) in (any::<[bool; 2]>(), levels(&["a", "b", "", "ab"])),
        ) {
            let end = |filter: &str, has_end: bool| match has_end {
                true => format!("{filter}/#"),
                false => filter.to_owned(),
            };
            let (filter, into) = (end(&filter, ends[0]), end(&into, ends[1]));
            let topic = format!("{local}{topic}");
            let there = format!("{remote}{}", &topic[local.len()..]);
            let (out, r#in) = rules((&filter, &local, &remote), (&into, &taken));
            let goes = filter_matches(&filter, &topic);
            let comes = filter_matches(&into, &there) && there.starts_with(&taken);
            if goes && comes {
                prop_assert!(overlap(&out, &r#in), "{} {}", topic, there);
            }
        }
    }
}
