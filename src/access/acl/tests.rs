//! What rules decide, and what is said about a text that holds none.

use proptest::prelude::*;

use super::*;

const FILE: &str = include_str!("../../../deploy/acl.txt");

fn rules(text: &str) -> Rules {
    Rules::parse(text, "acl").unwrap_or_else(|error| panic!("{error}"))
}

fn of<'a>(user: &'a str, client_identifier: &'a str) -> Subject<'a> {
    Subject { user: Some(user).filter(|user| !user.is_empty()), client_identifier }
}

fn publish(topic: &str) -> Wish<'_> {
    Wish::Publish { topic, qos: Qos::AtMostOnce, retain: false }
}

fn subscribe(filter: &str) -> Wish<'_> {
    Wish::Subscribe { filter, qos: Qos::ExactlyOnce }
}

fn allows(rules: &Rules, who: &Subject<'_>, wish: &Wish<'_>) -> bool {
    rules.decide_once(who, wish).qos.is_some()
}

#[test]
fn the_first_rule_that_fits_decides_and_without_one_the_answer_is_no() {
    let rules =
        rules("for everyone\n deny publish a/secret\n allow publish a/#\n deny publish a/b\n");
    for (topic, expected) in [("a/b", true), ("a", true), ("a/secret", false), ("b", false)] {
        assert_eq!(allows(&rules, &of("u", "c"), &publish(topic)), expected, "{topic}");
    }
    assert!(!allows(&rules, &of("u", "c"), &subscribe("a/b")), "no rule is about subscriptions");
    let verdict = rules.decide_once(&of("u", "c"), &publish("a/secret"));
    assert_eq!(verdict.by.map(|(rule, section)| (rule.line, section)), Some((2, 1)));
    assert!(rules.decide_once(&of("u", "c"), &publish("b")).by.is_none());
}

#[test]
fn rules_are_for_those_they_name() {
    let rules = rules(
        "group admins: alice bob\n\
         for user alice\n allow all alice/#\n\
         for group admins\n allow all admin/#\n\
         for anonymous\n allow all public/#\n\
         for users\n allow all users/#\n\
         for client panel-*-x\n allow all panels/#\n\
         for user carol client \"only this\"\n allow all both/#\n",
    );
    let who = ["alice", "bob", "carol", ""];
    for (topic, expected) in [
        ("alice/1", [true, false, false, false]),
        ("admin/1", [true, true, false, false]),
        ("public/1", [false, false, false, true]),
        ("users/1", [true, true, true, false]),
        ("both/1", [false; 4]),
    ] {
        let seen = who.map(|user| allows(&rules, &of(user, "c"), &publish(topic)));
        assert_eq!(seen, expected, "{topic}");
    }
    let client = |client| allows(&rules, &of("", client), &publish("panels/1"));
    assert!(client("panel-1-x") && client("panel--x"));
    assert!(!client("panel-1") && !client("xpanel-1-x") && !client("panel-x"));
    assert!(allows(&rules, &of("carol", "only this"), &publish("both/1")));
    assert!(!allows(&rules, &of("dave", "only this"), &publish("both/1")));
}

#[test]
fn names_stand_for_whoever_asks_and_reach_no_further_than_their_level() {
    let text =
        "for everyone\n deny publish private/%u/#\n allow all home/%u/%c-x/#\n allow all 100%%\n";
    let rules = rules(text);
    assert!(allows(&rules, &of("u", "c"), &publish("home/u/c-x/1")));
    assert!(allows(&rules, &of("u", "c"), &publish("100%")));
    assert!(!allows(&rules, &of("v", "c"), &publish("home/u/c-x/1")));
    for user in ["+", "#", "u/c-x", "/", ""] {
        for topic in ["home/u/c-x/1", "home/+/c-x/1", "home/u/c-x/c-x/1"] {
            assert!(!allows(&rules, &of(user, "c"), &publish(topic)), "{user} {topic}");
        }
        // What denies holds all the more for names that fit no level.
        let verdict = rules.decide_once(&of(user, "c"), &publish("private/x/1"));
        assert_eq!(verdict.by.map(|(rule, _)| rule.line), Some(2), "{user}");
    }
}

#[test]
fn a_subscription_is_allowed_where_all_of_it_is_and_denied_where_part_of_it_is() {
    let allowing = rules("for everyone\n allow subscribe a/+/c\n allow subscribe b/#\n");
    for (filter, expected) in [
        ("a/x/c", true),
        ("a/+/c", true),
        ("a/#", false),
        ("a/+/#", false),
        ("b", true),
        ("b/#", true),
        ("b/+/c", true),
        ("+/x", false),
        ("#", false),
        ("$share/g/b/#", true),
        ("$share/g/a/#", false),
    ] {
        assert_eq!(allows(&allowing, &of("u", "c"), &subscribe(filter)), expected, "{filter}");
    }
    let denying = rules("for everyone\n deny subscribe a/secret/+\n allow subscribe #\n");
    for (filter, expected) in [
        ("a/secret/1", false),
        ("a/#", false),
        ("#", false),
        ("+/+/+", false),
        ("a/secret", true),
        ("+/+", true),
        ("a/+/1/2", true),
        ("a/secret/1/#", false),
        ("$share/g/#", false),
        ("b/#", true),
    ] {
        assert_eq!(allows(&denying, &of("u", "c"), &subscribe(filter)), expected, "{filter}");
    }
}

#[test]
fn mqtt_4_7_2_1_wildcards_in_front_do_not_reach_topics_that_begin_with_a_dollar_sign() {
    let rules = rules("for user a\n allow all #\n allow all +/x\nfor user b\n allow all $SYS/#\n");
    assert!(!allows(&rules, &of("a", "c"), &subscribe("$SYS/#")));
    assert!(!allows(&rules, &of("a", "c"), &publish("$x/x")));
    assert!(allows(&rules, &of("b", "c"), &subscribe("$SYS/broker/+")));
    let denying = self::rules("for everyone\n deny all $SYS/#\n allow all #\n");
    assert!(allows(&denying, &of("u", "c"), &subscribe("#")), "# does not match $SYS");
}

#[test]
fn qos_retain_and_shared_subscriptions_are_told_apart() {
    let rules = rules(
        "for everyone\n deny publish retain=yes a\n allow publish qos<=1 a\n allow publish qos=2 b\n\
         \x20deny subscribe shared=yes s\n allow subscribe qos<=1 s\n deny subscribe qos>=1 t\n \
         allow subscribe t\n",
    );
    let of = of("u", "c");
    let publish = |topic, qos, retain| allows(&rules, &of, &Wish::Publish { topic, qos, retain });
    assert!(publish("a", Qos::AtLeastOnce, false));
    assert!(!publish("a", Qos::AtLeastOnce, true) && !publish("a", Qos::ExactlyOnce, false));
    assert!(publish("b", Qos::ExactlyOnce, true) && !publish("b", Qos::AtLeastOnce, true));
    let subscribe = |filter, qos| rules.decide_once(&of, &Wish::Subscribe { filter, qos }).qos;
    assert_eq!(subscribe("s", Qos::ExactlyOnce), Some(Qos::AtLeastOnce), "less than asked for");
    assert_eq!(subscribe("s", Qos::AtMostOnce), Some(Qos::AtMostOnce));
    assert_eq!(subscribe("$share/g/s", Qos::AtMostOnce), None);
    assert_eq!(subscribe("t", Qos::AtMostOnce), Some(Qos::AtMostOnce));
    assert_eq!(subscribe("t", Qos::AtLeastOnce), None);
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_was_expected() {
    for (text, place, expected) in [
        ("allow all #", "acl:1:1", "`for …` has to come before"),
        ("for everyone\n  permit all #", "acl:2:3", "`allow` or `deny` is expected"),
        ("for everyone\nallow read a", "acl:2:7", "`publish`, `subscribe`, `all` or `client`"),
        ("for everyone\nallow all", "acl:2:10", "a Topic Filter is expected"),
        ("for everyone\nallow all a/#/b", "acl:2:11", "invalid Topic Filter"),
        ("for everyone\nallow all ä/%x", "acl:2:13", "%u, %c or %%"),
        ("for everyone\nallow publish qos<2 a", "acl:2:15", "`qos<=N`"),
        ("for everyone\nallow publish qos<=3 a", "acl:2:15", "0, 1 or 2"),
        ("for everyone\nallow publish shared=yes a", "acl:2:15", "applies to subscriptions only"),
        ("for everyone\nallow subscribe retain=no a", "acl:2:17", "applies to publishing only"),
        ("for everyone\nallow subscribe shared=1 a", "acl:2:17", "`yes` or `no`"),
        ("for everyone\nallow all $share/g/a", "acl:2:11", "without $share"),
        ("for everyone\nallow all \"a", "acl:2:11", "quotation mark"),
        ("for everyone\nallow all \"a\" b", "acl:2:15", "nothing is expected"),
        ("for everyone\nallow client", "acl:2:13", "a Client Identifier, or a pattern"),
        ("for everyone\nallow client ä%c", "acl:2:15", "%u or %%"),
        ("for everyone\nallow client %u*", "acl:2:16", "between %u and *"),
        ("for everyone\nallow client a*%u", "acl:2:16", "between %u and *"),
        ("for", "acl:1:4", "`everyone`"),
        ("for user", "acl:1:9", "the user's name is expected"),
        ("for friends", "acl:1:5", "`everyone`"),
        ("\n\nfor group x", "acl:3:11", "unknown group \"x\""),
        ("group admins alice", "acl:1:7", "with a colon"),
        ("group admins:", "acl:1:14", "the names of users"),
    ] {
        let error = Rules::parse(text, "acl").expect_err(text).to_string();
        assert!(error.starts_with(&format!("{place}: ")), "{text:?}: {error}");
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

fn may_use(rules: &Rules, user: &str, client: &str) -> Option<(bool, bool)> {
    let verdict = rules.decide_identifier(&of(user, client))?;
    Some((verdict.is_allowed, verdict.is_own))
}

#[test]
fn client_identifiers_are_for_whom_the_rules_say_and_for_everybody_where_they_say_nothing() {
    assert_eq!(may_use(&rules("for everyone\n allow all #\n"), "u", "c"), None);
    let rules = rules(
        "group admins: root\n\
         for group admins\n allow client *\n\
         for user carol\n allow client panel-*\n\
         for users\n deny client %u-secret\n allow client %u-*\n allow client %u\n allow all #\n\
         for anonymous\n allow client guest-*\n",
    );
    let (no, open, own) = (Some((false, false)), Some((true, false)), Some((true, true)));
    for (user, client, expected) in [
        ("u", "u-1", own),
        ("u", "u", own),
        ("u", "u-secret", no),
        ("u", "v-1", no),
        ("u", "u1", no),
        ("u", "", no),
        ("", "u-1", no),
        ("", "guest-1", open),
        ("root", "u-1", open),
        ("carol", "panel-1", own),
        ("carol", "carol-1", own),
        // Stars of a name are no stars, and a name that holds what separates it is no one's.
        ("*", "u-1", no),
        ("*", "*-1", own),
        ("u*", "u-1", no),
        ("a", "a-b-1", own),
        ("a-b", "a-b-1", no),
        ("a-b", "a-b", own), // there is no star from which it would have to be told apart
    ] {
        assert_eq!(may_use(&rules, user, client), expected, "{user} {client}");
    }
}

#[test]
fn a_name_stands_in_a_pattern_as_it_is() {
    let allows = |pattern: &str, user, client| {
        let rules = rules(&format!("for users\n allow client {pattern}\n"));
        may_use(&rules, user, client) == Some((true, true))
    };
    assert!(allows("x-%u/*", "a-b", "x-a-b/1") && !allows("x-%u/*", "a/b", "x-a/b/1"));
    assert!(allows("*/%u", "b", "a/b") && !allows("*/%u", "a/b", "x/a/b"));
    assert!(allows("%%%u%%", "u", "%u%") && allows("%u%%u", "50", "50%u"));
    assert!(allows("\" %u \"", "u", " u ") && !allows("\" %u \"", "u", "u"));
    let denying = rules("for everyone\n deny client %u-*\n allow client *\n");
    assert_eq!(may_use(&denying, "a-b", "whatever"), Some((false, false)), "the safe way");
    assert_eq!(may_use(&denying, "a", "whatever"), Some((true, false)));
}

#[test]
fn a_rule_is_shown_as_it_could_stand_in_the_file() {
    let line = "allow publish retain=no qos>=1 qos<=1 home/%u/with space/#";
    let rules = rules(&format!("for everyone\n{line}\n deny all \" x\"\n"));
    let shown: Vec<String> = rules.sections[0].rules.iter().map(ToString::to_string).collect();
    assert_eq!(shown, [line, "deny all \" x\""]);
    let rules = self::rules("for users\nallow client %u-*\ndeny client \" %% \"\n");
    let shown: Vec<String> =
        rules.sections[0].identifiers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["allow client %u-*", "deny client \" %% \""]);
    assert_eq!(rules.len(), 2);
}

#[test]
fn publishing_everything_without_a_look_needs_a_first_rule_that_allows_it() {
    let all = |text: &str| {
        let rules = rules(&format!("for everyone\n{text}\n"));
        rules.lets_publish_all(&rules.sections_of(&of("u", "c")))
    };
    assert!(all("allow all #") && all("deny subscribe x\nallow publish #"));
    assert!(!all("deny publish x\nallow all #") && !all("allow all qos<=1 #"));
    assert!(!all("allow publish retain=no #") && !all("allow subscribe #"));
}

#[test]
fn the_file_in_deploy_says_what_its_comments_say() {
    let rules = rules(FILE);
    assert!(!rules.is_empty());
    for (user, client, wish, expected) in [
        ("alice", "x", subscribe("#"), true),
        ("meter-1", "m", publish("meters/meter-1/power"), true),
        ("meter-1", "m", publish("meters/meter-2/power"), false),
        ("meter-1", "m", subscribe("commands/meter-1/#"), true),
        ("meter-1", "m", subscribe("commands/#"), false),
        ("", "panel-7", subscribe("public/weather"), true),
        ("", "panel-7", publish("public/weather"), false),
    ] {
        assert_eq!(allows(&rules, &of(user, client), &wish), expected, "{user} {wish:?}");
    }
}

#[test]
fn the_example_in_the_documentation_is_that_file() {
    let document = include_str!("../../../docs/access.md");
    let (_, example) = document.split_once("```text\n").expect("an example");
    let (example, _) = example.split_once("```").expect("it ends");
    let without_comments = |text: &str| {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_comments(example), without_comments(FILE));
}

/// Levels of few kinds, so that filters and topics meet often.
fn levels(kinds: &'static [&'static str], rest: bool) -> impl Strategy<Value = String> {
    let level = proptest::sample::select(kinds);
    let end = proptest::bool::weighted(if rest { 0.4 } else { 0.0 });
    (proptest::collection::vec(level, 1..4), end).prop_map(|(levels, has_rest)| {
        let text = levels.join("/");
        if has_rest { text + "/#" } else { text }
    })
}

fn filter() -> impl Strategy<Value = String> {
    prop_oneof![4 => levels(&["a", "b", "", "+", "$x"], true), 1 => Just("#".to_owned())]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_096) })]

    /// What a subscription can bring is judged as if each of its topics were published.
    #[test]
    fn a_filter_that_is_covered_brings_nothing_else_and_one_that_does_not_overlap_nothing_of_it(
        rule in filter(),
        wanted in filter(),
        topic in levels(&["a", "b", "", "$x"], false),
    ) {
        let of = of("u", "c");
        let (of_rule, of_wanted) = (filter::Filter::new(&rule), filter::Filter::new(&wanted));
        let is_wanted = of_wanted.matches(&topic, &of, true);
        let is_ruled = of_rule.matches(&topic, &of, true);
        if of_rule.covers(&wanted, &of) && is_wanted {
            prop_assert!(is_ruled, "{rule} covers {wanted}, which brings {topic}");
        }
        if is_wanted && is_ruled {
            prop_assert!(of_rule.overlaps(&wanted, &of), "{rule} and {wanted} have {topic}");
        }
        if of_rule.covers(&wanted, &of) {
            prop_assert!(of_rule.overlaps(&wanted, &of), "{rule} covers {wanted}");
        }
    }

    #[test]
    fn whatever_the_text_it_is_read_or_refused_and_never_harms(
        lines in proptest::collection::vec("(group g:|for |allow |deny )?[a-z%#+/\"=< ]{0,20}", 0..5),
    ) {
        if let Ok(rules) = Rules::parse(&lines.join("\n"), "acl") {
            rules.decide_once(&of("u", "c"), &publish("a/b"));
            rules.decide_once(&of("", "c"), &subscribe("a/#"));
        }
    }

    #[test]
    fn a_pattern_fits_as_its_stars_say(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
        fn naive(pattern: &[u8], text: &[u8]) -> bool {
            match pattern.split_first() {
                None => text.is_empty(),
                Some((b'*', rest)) => (0..=text.len()).any(|from| naive(rest, &text[from..])),
                Some((one, rest)) => text.first() == Some(one) && naive(rest, &text[1..]),
            }
        }
        let expected = naive(pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(filter::fits(&pattern, &text), expected, "{} {}", pattern, text);
    }
}
