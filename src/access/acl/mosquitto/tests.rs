//! What files of Mosquitto decide, rule by rule.

use proptest::prelude::*;

use crate::access::acl::{Covered, Rules, Subject, Wish};
use crate::wire::Qos;

fn rules(text: &str) -> Rules {
    Rules::parse_mosquitto(text, "acl").unwrap_or_else(|error| panic!("{error}"))
}

fn of<'a>(user: &'a str, client_identifier: &'a str) -> Subject<'a> {
    Subject { user: Some(user).filter(|user| !user.is_empty()), client_identifier }
}

fn writes(rules: &Rules, who: &Subject<'_>, topic: &str) -> bool {
    let wish = Wish::Publish { topic, qos: Qos::AtMostOnce, retain: false };
    rules.decide_once(who, &wish).qos.is_some()
}

fn reads(rules: &Rules, who: &Subject<'_>, topic: &str) -> bool {
    rules.decide_once(who, &Wish::Receive { topic }).qos.is_some()
}

fn covered(rules: &Rules, who: &Subject<'_>, filter: &str) -> Covered {
    rules.covered(&rules.sections_of(who), who, filter)
}

/// Whether a client may read and write a topic.
fn both(rules: &Rules, who: (&str, &str), topic: &str) -> (bool, bool) {
    let who = of(who.0, who.1);
    (reads(rules, &who, topic), writes(rules, &who, topic))
}

#[test]
fn lines_before_the_first_user_are_for_clients_without_a_name_and_a_name_without_a_list_has_patterns()
 {
    let rules =
        rules("topic a\nuser alice\ntopic b\nuser bob\nuser alice\ntopic c\npattern read p\n");
    for (user, allowed) in [("", "a p"), ("alice", "b c p"), ("bob", "p"), ("eve", "p")] {
        for topic in ["a", "b", "c", "p"] {
            assert_eq!(
                both(&rules, (user, "c"), topic).0,
                allowed.contains(topic),
                "{user} {topic}"
            );
        }
    }
}

#[test]
fn denials_of_a_list_go_first_and_patterns_decide_only_what_it_leaves_open() {
    let rules = rules(
        "user alice\ntopic readwrite a/#\ntopic read b\ntopic write b\ntopic deny a/secret\n\
         pattern deny a/x\npattern deny c/#\npattern readwrite c/y\npattern readwrite a/secret\n",
    );
    for (topic, expected) in [
        ("a/secret", (false, false)),
        ("a/x", (true, true)),
        ("b", (true, true)),
        ("c/y", (false, false)),
        ("d", (false, false)),
    ] {
        assert_eq!(both(&rules, ("alice", "c"), topic), expected, "{topic}");
    }
    let nothing = self::rules("# empty\n\n");
    assert!(nothing.is_empty() && !reads(&nothing, &of("alice", "c"), "a"));
    assert_eq!(covered(&nothing, &of("", "c"), "#"), Covered::Nothing { is_denied: false });
}

#[test]
fn a_topic_of_the_server_is_fitted_only_by_a_rule_that_names_it() {
    let rules = rules("topic read #\ntopic read +/b\npattern read $SYS/broker/%c\n");
    for (topic, expected) in
        [("a/b", true), ("$SYS/b", false), ("$SYS/broker/c", true), ("$SYS/broker/d", false)]
    {
        assert_eq!(both(&rules, ("", "c"), topic).0, expected, "{topic}");
    }
}

#[test]
fn names_are_inserted_anywhere_and_a_name_with_a_separator_or_wildcard_fits_nowhere() {
    let rules =
        rules("pattern readwrite pre%upost/%c\npattern write 100%/%%u\npattern read open\n");
    for (who, topic, expected) in [
        (("alice", "1"), "prealicepost/1", (true, true)),
        (("alice", "1"), "prebobpost/1", (false, false)),
        (("alice", "1"), "100%/%alice", (false, true)),
        (("alice", "1"), "open", (true, false)),
        (("", "1"), "prepost/1", (false, false)),
        (("a/b", "1"), "prea/bpost/1", (false, false)),
        (("a/b", "1"), "open", (true, false)),
        (("a+", "1"), "open", (false, false)),
        (("alice", "#"), "open", (false, false)),
    ] {
        assert_eq!(both(&rules, who, topic), expected, "{who:?} {topic}");
    }
    // A topic is taken literally.
    let literal = self::rules("user alice\ntopic read x/%u\n");
    assert!(both(&literal, ("alice", "c"), "x/%u").0);
    assert!(!both(&literal, ("alice", "c"), "x/alice").0);
    // Without a name, a denial that inserts one does not apply.
    let denied = self::rules("pattern deny %u/#\npattern read +/x\n");
    assert_eq!(
        (both(&denied, ("", "c"), "a/x").0, both(&denied, ("a", "c"), "a/x").0),
        (true, false)
    );
}

#[test]
fn a_subscription_is_covered_whole_in_part_or_not_at_all() {
    let rules = rules(
        "user alice\ntopic read a/#\ntopic deny a/b/secret\ntopic write w/#\n\
         user bob\ntopic read #\nuser carol\ntopic deny x/#\ntopic read x/y\ntopic read z\n",
    );
    let (part, denied) = (Covered::Part { is_denied: true }, Covered::Nothing { is_denied: true });
    for (user, filter, expected) in [
        ("alice", "a/c/#", Covered::Whole),
        ("alice", "a/b/#", part),
        ("alice", "#", part),
        ("alice", "a/b/secret", denied),
        ("alice", "w/#", Covered::Nothing { is_denied: false }),
        ("alice", "$share/group/a/c", Covered::Whole),
        ("bob", "#", Covered::Whole),
        ("bob", "$SYS/#", Covered::Nothing { is_denied: false }),
        ("carol", "x/#", denied),
        ("carol", "+", part),
        ("eve", "#", Covered::Nothing { is_denied: false }),
    ] {
        assert_eq!(covered(&rules, &of(user, "c"), filter), expected, "{user} {filter}");
    }
}

#[test]
fn a_wrong_line_is_named_with_its_place() {
    for (text, place) in [
        ("topic read a\ntopics b\n", "acl:2:1: `user`, `topic` or `pattern`"),
        ("topic\n", "acl:1:6: a Topic Filter"),
        ("topic reed a\n", "acl:1:7: `read`"),
        ("topic read a/#/b\n", "acl:1:12: invalid Topic Filter"),
        ("pattern %u+/b\n", "acl:1:9: invalid Topic Filter"),
        ("user   \n", "acl:1:5: the user's name"),
        (" # no comment\n", "acl:1:2: `user`"),
        ("topic\tread a\n", "acl:1:1: `user`"),
    ] {
        let error = Rules::parse_mosquitto(text, "acl").expect_err(text).to_string();
        assert!(error.starts_with(place), "{error}");
    }
    let blanks = rules("  topic  read   a b  \r\n\n\t\nuser  x y \ntopic read\n");
    assert!(reads(&blanks, &of("", "c"), "a b") && reads(&blanks, &of("x y", "c"), "read"));
}

/// A level of a filter.
fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("+"), Just("%c"), Just("$s"), Just("")]
}

fn filter() -> impl Strategy<Value = String> {
    (prop::collection::vec(level(), 1..4), any::<bool>()).prop_map(|(levels, is_open)| {
        let levels = levels.join("/");
        if is_open { format!("{levels}/#") } else { levels }
    })
}

fn line() -> impl Strategy<Value = String> {
    let kind = prop_oneof![Just("topic"), Just("pattern")];
    let access = prop_oneof![Just("read"), Just("write"), Just("readwrite"), Just("deny")];
    let filter = prop_oneof![4 => filter(), 1 => Just("#".to_owned())];
    (kind, access, filter).prop_map(|(kind, access, filter)| format!("{kind} {access} {filter}\n"))
}

/// All topics of up to three levels.
fn topics() -> Vec<String> {
    let levels = ["a", "b", "c", "$s", ""];
    let mut topics: Vec<String> = levels.iter().map(|&level| level.to_owned()).collect();
    for _ in 0..2 {
        let longer = topics.iter().flat_map(|topic| levels.map(|level| format!("{topic}/{level}")));
        topics = topics.iter().cloned().chain(longer).collect();
    }
    topics.retain(|topic| !topic.is_empty());
    topics
}

proptest! {
    #[test]
    fn what_is_covered_whole_is_read_whole_and_what_is_not_covered_is_never_read(
        lines in prop::collection::vec(line(), 0..6),
        subscription in prop_oneof![4 => filter(), 1 => Just("#".to_owned())],
    ) {
        let subscription = subscription.replace("%c", "c");
        let rules = rules(&lines.concat());
        let parsed = shards::TopicFilter::parse(&subscription, usize::MAX);
        prop_assume!(parsed.is_ok());
        let who = of("", "c");
        let covered = covered(&rules, &who, &subscription);
        for topic in topics().iter().filter(|topic| parsed.as_ref().is_ok_and(|of| of.matches(topic))) {
            let may_read = reads(&rules, &who, topic);
            prop_assert!(covered != Covered::Whole || may_read, "{topic}");
            prop_assert!(!matches!(covered, Covered::Nothing { .. }) || !may_read, "{topic}");
        }
    }
}
