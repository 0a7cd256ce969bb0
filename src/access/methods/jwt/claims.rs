//! Access rules in a claim of a token, in the two forms that EMQX has defined
//! (<https://docs.emqx.com/en/emqx/latest/access-control/authn/acl.html>): an object of lists of topics, `{"pub": […],
//! "sub": […], "all": […]}`, and a list of rules, each with `permission`, `action` and `topic`, of which the first that
//! matches decides. What no rule allows is denied.

use serde::Deserialize;
use serde_json::Value;

use crate::access::acl::{Brought, Rules};
use crate::access::grants::Grants;
use crate::base::log_rate::Name;

/// Bytes of all topics together at most.
const TOPICS_BYTES_MAX: usize = 8 * 1024;

/// Levels of a topic at most.
const LEVELS_MAX: usize = 128;

/// Lists of topics, which a client may publish to, subscribe to, or both.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(default, rename = "pub")]
    publish: Vec<String>,
    #[serde(default, rename = "sub")]
    subscribe: Vec<String>,
    #[serde(default)]
    all: Vec<String>,
}

/// A rule of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    permission: Permission,
    action: Action,
    topic: String,
    #[serde(default)]
    qos: Option<Vec<u8>>,
    #[serde(default)]
    retain: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Permission {
    Allow,
    Deny,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Publish,
    Subscribe,
    All,
}

/// The rules in a claim. The error says which rule is wrong, and how.
pub(super) fn read(claim: &Value, rules_max: u32) -> Result<Grants, String> {
    let mut reader = Reader { rules: Rules::default(), left: TOPICS_BYTES_MAX, rules_max };
    match claim {
        Value::Object(_) => {
            let Lists { publish, subscribe, all } =
                Lists::deserialize(claim).map_err(|error| error.to_string())?;
            for (topics, action) in
                [(publish, Action::Publish), (subscribe, Action::Subscribe), (all, Action::All)]
            {
                for topic in topics {
                    let permission = Permission::Allow;
                    reader.add(&Rule { permission, action, topic, qos: None, retain: None })?;
                }
            }
        }
        Value::Array(rules) => {
            for (number, rule) in rules.iter().enumerate() {
                let located = |what: &dyn std::fmt::Display| format!("rule {}: {what}", number + 1);
                let rule = Rule::deserialize(rule).map_err(|error| located(&error))?;
                reader.add(&rule).map_err(|what| located(&what))?;
            }
        }
        _ => {
            return Err(
                "an object with pub, sub and all, or a list of rules, is expected".to_owned()
            );
        }
    }
    Ok(Grants::new(reader.rules, claim.is_array()))
}

struct Reader {
    rules: Rules,
    /// Bytes of topics that there is room for.
    left: usize,
    rules_max: u32,
}

impl Reader {
    fn add(&mut self, rule: &Rule) -> Result<(), String> {
        let Rule { permission, action, topic, qos, retain } = rule;
        let located = |what: &str| format!("topic \"{}\": {what}", Name(topic));
        self.left = self.left.checked_sub(topic.len()).ok_or_else(|| {
            format!("its topics have more than {TOPICS_BYTES_MAX} bytes together")
        })?;
        if topic.split('/').count() > LEVELS_MAX {
            return Err(located(&format!("it has more than {LEVELS_MAX} levels")));
        }
        if topic.starts_with("eq ") {
            return Err(located("eq is not supported"));
        }
        if retain.is_some() && *action != Action::Publish {
            return Err(located("retain applies to publishing only"));
        }
        let topic = with_names(topic).map_err(located)?;
        for qos in ranges(qos.as_deref()).map_err(located)? {
            if self.rules.len() >= self.rules_max as usize {
                let max = self.rules_max;
                return Err(format!("there are more than {max} rules (access.jwt.acl_rules_max)"));
            }
            let brought = Brought {
                allows: *permission == Permission::Allow,
                publish: *action != Action::Subscribe,
                subscribe: *action != Action::Publish,
                qos,
                retain: *retain,
                topic: &topic,
            };
            self.rules.add(&brought).map_err(|what| located(&what))?;
        }
        Ok(())
    }
}

/// A topic with `%u` and `%c` for the placeholders of EMQX.
fn with_names(topic: &str) -> Result<String, &'static str> {
    let escaped = topic.replace('%', "%%");
    let named = escaped.replace("${username}", "%u").replace("${clientid}", "%c");
    match named.contains("${") {
        true => Err("${username} and ${clientid} are the only placeholders"),
        false => Ok(named),
    }
}

/// Ranges of QoS with exactly these values.
fn ranges(values: Option<&[u8]>) -> Result<Vec<(u8, u8)>, &'static str> {
    let Some(values) = values else { return Ok(vec![(0, 2)]) };
    if values.is_empty() || values.iter().any(|&qos| qos > 2) {
        return Err("qos is a list of 0, 1 and 2");
    }
    let has = |qos: u8| values.contains(&qos);
    Ok(match (has(0), has(1), has(2)) {
        (true, false, true) => vec![(0, 0), (2, 2)],
        _ => vec![(*values.iter().min().unwrap_or(&0), *values.iter().max().unwrap_or(&2))],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::access::acl::{Subject, Wish};
    use crate::wire::Qos;

    const ALICE: Subject<'_> = Subject { user: Some("alice"), client_identifier: "c" };

    fn publishes(grants: &Grants, topic: &str, qos: Qos, retain: bool) -> bool {
        grants.decide(&ALICE, &Wish::Publish { topic, qos, retain }).qos.is_some()
    }

    fn subscribes(grants: &Grants, filter: &str) -> Option<Qos> {
        grants.decide(&ALICE, &Wish::Subscribe { filter, qos: Qos::ExactlyOnce }).qos
    }

    #[test]
    fn lists_of_topics_allow_these_and_nothing_else() {
        let lists = json!({"pub": ["up/${clientid}/#", "50%"], "sub": ["down/${username}"], "all": ["both/+"]});
        let grants = read(&lists, 4).expect("valid");
        let at_once = Qos::AtMostOnce;
        for (topic, may) in [
            ("up/c/x", true),
            ("up/d/x", false),
            ("50%", true),
            ("down/alice", false),
            ("both/x", true),
            ("x", false),
        ] {
            assert_eq!(publishes(&grants, topic, at_once, true), may, "{topic}");
        }
        for (filter, may) in
            [("down/alice", true), ("down/#", false), ("both/+", true), ("50%", false)]
        {
            assert_eq!(subscribes(&grants, filter).is_some(), may, "{filter}");
        }
        let other = Subject { user: Some("a/b"), client_identifier: "#" };
        let wish = Wish::Subscribe { filter: "down/a/b", qos: at_once };
        assert!(grants.decide(&other, &wish).qos.is_none(), "a name is one level");
        for nothing in [json!({}), json!([])] {
            let grants = read(&nothing, 4).expect("valid");
            assert!(!publishes(&grants, "x", at_once, false) && subscribes(&grants, "x").is_none());
        }
    }

    #[test]
    fn the_first_rule_of_a_list_that_matches_decides() {
        let rule = |permission: &str, action: &str, topic: &str| json!({ "permission": permission, "action": action, "topic": topic });
        let mut limited = rule("allow", "publish", "t/+");
        limited["qos"] = json!([0, 2]);
        limited["retain"] = json!(false);
        let mut once = rule("allow", "subscribe", "t/#");
        once["qos"] = json!([0, 1]);
        let grants = read(&json!([rule("deny", "all", "t/no"), limited, once]), 4).expect("valid");
        assert!(publishes(&grants, "t/a", Qos::AtMostOnce, false));
        assert!(publishes(&grants, "t/a", Qos::ExactlyOnce, false));
        assert!(!publishes(&grants, "t/a", Qos::AtLeastOnce, false));
        assert!(!publishes(&grants, "t/a", Qos::AtMostOnce, true));
        assert!(!publishes(&grants, "t/no", Qos::AtMostOnce, false));
        assert_eq!(subscribes(&grants, "t/a"), Some(Qos::AtLeastOnce));
        assert_eq!(subscribes(&grants, "t/#"), None, "it covers a topic that is denied");
    }

    #[test]
    fn a_claim_that_is_wrong_or_too_large_is_refused_with_the_rule_and_the_reason() {
        let allow = |topic: &str| json!({ "permission": "allow", "action": "all", "topic": topic });
        let long = "x".repeat(TOPICS_BYTES_MAX / 2 + 1);
        let deep = vec!["x"; LEVELS_MAX + 1].join("/");
        for (claim, says) in [
            (json!("all"), "an object with pub, sub and all"),
            (json!({"pub": "t"}), "a sequence"),
            (json!({"publish": []}), "unknown field `publish`"),
            (json!({"pub": ["a/#/b"]}), "topic \"a/#/b\": invalid Topic Filter"),
            (json!({"sub": ["$share/g/t"]}), "without $share"),
            (json!({"sub": [""]}), "a Topic Filter is expected"),
            (json!({"sub": ["t/${ip}"]}), "the only placeholders"),
            (json!({"sub": [deep]}), "more than 128 levels"),
            (json!({"sub": [long, long]}), "more than 8192 bytes together"),
            (json!({"all": ["1", "2", "3"], "sub": ["4"]}), "more than 3 rules"),
            (json!([allow("t"), allow("eq t")]), "rule 2: topic \"eq t\": eq is not"),
            (json!([7]), "rule 1: "),
            (
                json!([{"permission": "maybe", "action": "all", "topic": "t"}]),
                "rule 1: unknown variant",
            ),
            (
                json!([{"permission": "allow", "action": "all", "topic": "t", "qos": [3]}]),
                "qos is a list",
            ),
            (
                json!([{"permission": "allow", "action": "all", "topic": "t", "retain": true}]),
                "publishing only",
            ),
            (
                json!([{"permission": "allow", "action": "all", "topic": "t", "ipaddr": "::1"}]),
                "`ipaddr`",
            ),
        ] {
            let error = read(&claim, 3).err().unwrap_or_else(|| panic!("{claim}"));
            assert!(error.contains(says), "{claim}: {error}");
        }
    }
}
