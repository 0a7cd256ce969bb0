//! Topic Names and Topic Filters: syntax, and matching as in chapter 4.7 of the specification.
//! Knows no index.

use std::fmt;

/// The longest Topic Name or Topic Filter that a packet can carry: the length of a UTF-8 Encoded
/// String has two bytes ([MQTT-4.7.3-3]).
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// The prefix of every Shared Subscription's Topic Filter.
pub(crate) const SHARE_PREFIX: &str = "$share/";

/// The syntax error in a Topic Name or a Topic Filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicError {
    /// Empty ([MQTT-4.7.3-1]).
    Empty,
    /// Contains U+0000 ([MQTT-4.7.3-2]).
    NullCharacter,
    /// Longer than [`TOPIC_BYTES_MAX`] ([MQTT-4.7.3-3]).
    TooLong,
    /// More levels than this broker allows.
    TooManyLevels,
    /// A Topic Name contains `+` or `#` ([MQTT-3.3.2-2]).
    WildcardInTopicName,
    /// A wildcard does not occupy an entire level, or `#` is not last ([MQTT-4.7.1-1],
    /// [MQTT-4.7.1-2]).
    MisplacedWildcard,
    /// `$share/` is not followed by a ShareName, `/` and a filter, or the ShareName contains a
    /// wildcard ([MQTT-4.8.2-1], [MQTT-4.8.2-2]).
    ShareName,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::NullCharacter => "contains U+0000",
            Self::TooLong => "longer than 65,535 bytes",
            Self::TooManyLevels => "more levels than allowed",
            Self::WildcardInTopicName => "a Topic Name must not contain + or #",
            Self::MisplacedWildcard => {
                "a wildcard must occupy an entire level, and # must be the last one"
            }
            Self::ShareName => "a shared subscription has the form $share/NAME/FILTER",
        })
    }
}

impl std::error::Error for TopicError {}

/// The number of levels of a Topic Name or Topic Filter, including empty ones.
pub fn levels(topic: &str) -> usize {
    1 + topic.bytes().filter(|&byte| byte == b'/').count()
}

/// Whether a Topic Name or Topic Filter has more levels than `levels_max`. Counted only where the text is long enough.
#[inline]
pub fn exceeds_levels(text: &str, levels_max: usize) -> bool {
    text.len() >= levels_max && levels(text) > levels_max
}

/// Checks the syntax of a Topic Name.
pub fn check_topic_name(topic: &str, levels_max: usize) -> Result<(), TopicError> {
    check_characters(topic)?;
    // [MQTT-3.3.2-2]
    if topic.bytes().any(is_wildcard) {
        return Err(TopicError::WildcardInTopicName);
    }
    check_levels(topic, levels_max)
}

fn check_characters(text: &str) -> Result<(), TopicError> {
    match text {
        // [MQTT-4.7.3-1]
        "" => Err(TopicError::Empty),
        // [MQTT-4.7.3-3]
        _ if text.len() > TOPIC_BYTES_MAX => Err(TopicError::TooLong),
        // [MQTT-4.7.3-2]
        _ if text.bytes().any(|byte| byte == 0) => Err(TopicError::NullCharacter),
        _ => Ok(()),
    }
}

fn check_levels(text: &str, levels_max: usize) -> Result<(), TopicError> {
    if exceeds_levels(text, levels_max) { Err(TopicError::TooManyLevels) } else { Ok(()) }
}

fn is_wildcard(byte: u8) -> bool {
    matches!(byte, b'+' | b'#')
}

/// Whether a filter (without its `$share/NAME/`) contains a wildcard.
pub fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(is_wildcard)
}

/// A valid Topic Filter, shared or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicFilter<'a> {
    text: &'a str,
    /// Offset of `filter` in `text`: 0 if not shared.
    filter_start: u32,
    wildcard: bool,
}

impl<'a> TopicFilter<'a> {
    /// Checks `text`. `levels_max` bounds the levels of the filter; `$share/NAME/` is not counted.
    pub fn parse(text: &'a str, levels_max: usize) -> Result<Self, TopicError> {
        check_characters(text)?;
        let filter = match text.strip_prefix(SHARE_PREFIX) {
            Some(rest) => strip_share_name(rest)?,
            None => text,
        };
        check_levels(filter, levels_max)?;
        let wildcard = check_wildcards(filter)?;
        Ok(Self { text, filter_start: (text.len() - filter.len()) as u32, wildcard })
    }

    /// The full text, with `$share/NAME/` if shared.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The filter that Topic Names are matched against: the text without `$share/NAME/`.
    pub fn filter(&self) -> &'a str {
        &self.text[self.filter_start as usize..]
    }

    /// The ShareName of a Shared Subscription.
    pub fn share_name(&self) -> Option<&'a str> {
        let end = (self.filter_start as usize).checked_sub(1)?;
        Some(&self.text[SHARE_PREFIX.len()..end])
    }

    /// Whether [`filter`](Self::filter) contains `+` or `#`.
    pub fn has_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether the Topic Name `topic` matches, level by level, without an index.
    pub fn matches(&self, topic: &str) -> bool {
        filter_matches(self.filter(), topic)
    }
}

/// Whether `filter`, without any `$share/NAME/`, matches `topic`.
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for level in filter.split('/') {
        match (level, topic_levels.next()) {
            // `#` also matches the parent level: `sport/#` matches `sport`.
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (_, Some(topic_level)) if level == topic_level => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

/// Checks `NAME/FILTER` and returns the filter.
fn strip_share_name(rest: &str) -> Result<&str, TopicError> {
    // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    let (name, filter) = rest.split_once('/').ok_or(TopicError::ShareName)?;
    if name.is_empty() || filter.is_empty() || has_wildcard(name) {
        return Err(TopicError::ShareName);
    }
    Ok(filter)
}

/// Checks the positions of wildcards; returns whether there are any.
fn check_wildcards(filter: &str) -> Result<bool, TopicError> {
    // Most filters have none, which one pass over the bytes shows.
    if !has_wildcard(filter) {
        return Ok(false);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let in_place = match level {
            // [MQTT-4.7.1-1]
            "#" => levels.peek().is_none(),
            "+" => true,
            // [MQTT-4.7.1-2]
            _ => !has_wildcard(level),
        };
        if !in_place {
            return Err(TopicError::MisplacedWildcard);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        TopicFilter::parse(filter, 128).expect(filter).matches(topic)
    }

    fn error(filter: &str) -> Option<TopicError> {
        TopicFilter::parse(filter, 4).err()
    }

    #[test]
    fn mqtt_4_7_1_1_multi_level_wildcard_is_last_and_fills_its_level() {
        for good in ["#", "sport/tennis/#", "/#", "+/#"] {
            assert_eq!(error(good), None, "{good}");
        }
        for bad in ["sport/tennis#", "sport/#/ranking", "#/", "##", "#a"] {
            assert_eq!(error(bad), Some(TopicError::MisplacedWildcard), "{bad}");
        }
    }

    #[test]
    fn mqtt_4_7_1_2_single_level_wildcard_fills_its_level() {
        for good in ["+", "+/tennis/#", "sport/+/player1", "+/+", "/+", "+/"] {
            assert_eq!(error(good), None, "{good}");
        }
        for bad in ["sport+", "a/+b", "++", "+#"] {
            assert_eq!(error(bad), Some(TopicError::MisplacedWildcard), "{bad}");
        }
    }

    #[test]
    fn mqtt_4_7_1_wildcards_match_as_the_specification_says() {
        for topic in ["sport/tennis/player1", "sport/tennis/player1/ranking"] {
            assert!(matches("sport/tennis/player1/#", topic));
        }
        assert!(matches("sport/#", "sport"));
        assert!(matches("sport/tennis/+", "sport/tennis/player1"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport"));
        assert!(matches("sport/+", "sport/"));
        assert!(matches("+/+", "/finance") && matches("/+", "/finance"));
        assert!(!matches("+", "/finance"));
        assert!(matches("#", "/") && matches("+/+", "/") && !matches("+", "/"));
    }

    #[test]
    fn mqtt_4_7_2_1_leading_wildcard_does_not_match_dollar_topics() {
        for filter in ["#", "+/monitor/Clients", "+/#", "+", "$share/g/#", "$share/g/+/#"] {
            assert!(!matches(filter, "$SYS/monitor/Clients"), "{filter}");
            assert!(!matches(filter, "$SYS"), "{filter}");
        }
        assert!(matches("$SYS/#", "$SYS/monitor/Clients") && matches("$SYS/#", "$SYS"));
        assert!(matches("$SYS/monitor/+", "$SYS/monitor/Clients"));
        assert!(matches("a/+", "a/$b") && matches("a/#", "a/$b"));
    }

    #[test]
    fn mqtt_4_7_3_1_at_least_one_character() {
        assert_eq!(check_topic_name("", 4), Err(TopicError::Empty));
        assert_eq!(error(""), Some(TopicError::Empty));
        assert_eq!(check_topic_name("/", 4), Ok(()));
        assert_eq!(check_topic_name(" ", 4), Ok(()));
    }

    #[test]
    fn mqtt_4_7_3_2_no_null_character() {
        assert_eq!(check_topic_name("a\0", 4), Err(TopicError::NullCharacter));
        assert_eq!(error("a/\0"), Some(TopicError::NullCharacter));
    }

    #[test]
    fn mqtt_4_7_3_3_no_longer_than_65535_bytes() {
        let longest = "é".repeat(TOPIC_BYTES_MAX / 2) + "e";
        assert_eq!(check_topic_name(&longest, 4), Ok(()));
        assert_eq!(check_topic_name(&(longest.clone() + "e"), 4), Err(TopicError::TooLong));
        assert_eq!(error(&longest), None);
        assert_eq!(error(&(longest + "e")), Some(TopicError::TooLong));
    }

    #[test]
    fn mqtt_4_7_3_4_characters_are_compared_as_they_are() {
        assert!(!matches("ACCOUNTS", "Accounts"));
        assert!(!matches("caf\u{e9}", "cafe\u{301}"));
    }

    #[test]
    fn mqtt_3_3_2_2_topic_name_has_no_wildcard() {
        for bad in ["+", "a/+", "a/#", "a+b", "#"] {
            assert_eq!(check_topic_name(bad, 4), Err(TopicError::WildcardInTopicName));
        }
    }

    #[test]
    fn levels_are_limited_and_empty_levels_count() {
        assert_eq!((levels("a"), levels("/"), levels("a//b"), levels("a/b/")), (1, 2, 3, 3));
        assert_eq!(check_topic_name("a/b/c/d", 4), Ok(()));
        assert_eq!(check_topic_name("////", 4), Err(TopicError::TooManyLevels));
        assert_eq!(error("a/b/c/d"), None);
        assert_eq!(error("a/b/c/d/#"), Some(TopicError::TooManyLevels));
        assert_eq!(error("$share/g/a/b/c/d"), None, "the ShareName is not a level");
    }

    #[test]
    fn mqtt_4_8_2_1_share_name_has_a_character_and_no_wildcard() {
        for bad in ["$share//a", "$share/+/a", "$share/g#/a", "$share/#", "$share/a+b/c"] {
            assert_eq!(error(bad), Some(TopicError::ShareName), "{bad}");
        }
    }

    #[test]
    fn mqtt_4_8_2_2_share_name_is_followed_by_a_filter() {
        for bad in ["$share/", "$share/g", "$share/g/"] {
            assert_eq!(error(bad), Some(TopicError::ShareName), "{bad}");
        }
        assert_eq!(error("$share/g/a#"), Some(TopicError::MisplacedWildcard));
        let shared = TopicFilter::parse("$share/group//+", 4).expect("well formed");
        assert_eq!(shared.share_name(), Some("group"));
        assert_eq!((shared.filter(), shared.text()), ("/+", "$share/group//+"));
        assert!(shared.has_wildcard() && shared.matches("/a"));
    }

    #[test]
    fn a_filter_that_only_resembles_a_shared_one_is_ordinary() {
        for text in ["$share", "$shared/g/a", "a/$share/g/a", "$SHARE/g/a"] {
            let filter = TopicFilter::parse(text, 4).expect("well formed");
            assert_eq!((filter.share_name(), filter.filter()), (None, text));
            assert!(!filter.has_wildcard() && filter.matches(text));
        }
    }
}
