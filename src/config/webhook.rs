//! Webhooks: events that the broker reports to HTTP servers of the operator.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shards::TopicFilter;

use super::number::between;

/// Webhooks at most: each has a thread.
const WEBHOOKS_MAX: usize = 16;

/// Topic Filters of a webhook at most: each is compared with the topic of every message.
const FILTERS_MAX: usize = 64;

/// Headers of a webhook at most.
const HEADERS_MAX: usize = 32;

/// Bytes of a name at most.
const NAME_BYTES_MAX: usize = 64;

/// Headers that the broker sets itself.
const OWN_HEADERS: [&str; 5] =
    ["content-length", "content-type", "host", "transfer-encoding", "connection"];

/// One webhook.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Name, by which a reload, metrics and the log know the webhook.
    pub name: String,
    /// URL of the server, which may have a name and a password.
    pub url: String,
    /// Events that are reported.
    pub events: Vec<WebhookEvent>,
    /// Topic Filters of the messages that are reported.
    #[serde(default)]
    pub filters: Vec<String>,
    /// Headers of the requests.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Token for the header `Authorization`; empty for none.
    #[serde(default)]
    pub token: String,
    /// File with that token; empty for none.
    #[serde(default)]
    pub token_file: PathBuf,
    /// PEM file with certificate authorities for the server; empty for those in the file that the environment variable
    /// `SSL_CERT_FILE` names, otherwise those that browsers trust.
    #[serde(default)]
    pub ca: PathBuf,
    /// Events of a request at most.
    #[serde(default = "batch_events", deserialize_with = "between::<_, _, 1, 10_000>")]
    pub batch_events: u32,
    /// Milliseconds that an event waits for others that are sent with it.
    #[serde(default = "linger_ms", deserialize_with = "between::<_, _, 0, 60_000>")]
    pub linger_ms: u32,
    /// Events that wait to be sent at most.
    #[serde(default = "queue_events", deserialize_with = "between::<_, _, 1, 10_000_000>")]
    pub queue_events: u32,
    /// Bytes of the events that wait to be sent at most.
    #[serde(default = "queue_bytes", deserialize_with = "between::<_, _, 65_536, 4_294_967_295>")]
    pub queue_bytes: u32,
    /// Bytes of a payload that are sent; the rest is left out.
    #[serde(default = "payload_bytes_max", deserialize_with = "between::<_, _, 0, 1_048_576>")]
    pub payload_bytes_max: u32,
    /// Timeout of a request in milliseconds.
    #[serde(default = "timeout_ms", deserialize_with = "between::<_, _, 1, 60_000>")]
    pub timeout_ms: u32,
    /// How often a failed request is repeated before its events are dropped.
    #[serde(default = "retries_max", deserialize_with = "between::<_, _, 0, 1_000>")]
    pub retries_max: u32,
    /// Milliseconds before the first repetition; the time doubles with each one, up to 30 s.
    #[serde(default = "backoff_ms", deserialize_with = "between::<_, _, 1, 30_000>")]
    pub backoff_ms: u32,
}

fn batch_events() -> u32 {
    100
}

fn linger_ms() -> u32 {
    100
}

fn queue_events() -> u32 {
    10_000
}

fn queue_bytes() -> u32 {
    16 << 20
}

fn payload_bytes_max() -> u32 {
    4_096
}

fn timeout_ms() -> u32 {
    5_000
}

fn retries_max() -> u32 {
    8
}

fn backoff_ms() -> u32 {
    500
}

/// A kind of event.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WebhookEvent {
    /// A client was admitted.
    Connect,
    /// The connection of an admitted client ended.
    Disconnect,
    /// A client subscribed.
    Subscribe,
    /// A subscription ended before its session.
    Unsubscribe,
    /// A message was published.
    Publish,
}

impl WebhookEvent {
    /// Name in the configuration and in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
        }
    }
}

impl Webhook {
    /// Checks conditions that involve several keys, and texts.
    fn check(&self) -> Result<(), String> {
        let wrong = |what: String| Err(format!("[[webhooks]] name = \"{}\": {what}", self.name));
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=NAME_BYTES_MAX).contains(&self.name.len()) || !self.name.bytes().all(is_letter) {
            return wrong("a name has 1 to 64 of the characters A-Z a-z 0-9 - _".to_owned());
        }
        if self.events.is_empty() {
            return wrong(
                "events is empty; name connect, disconnect, subscribe, unsubscribe or publish"
                    .to_owned(),
            );
        }
        if self.events.contains(&WebhookEvent::Publish) == self.filters.is_empty() {
            return wrong(
                "filters and the event publish belong together: name Topic Filters of the messages that are \
                 reported, such as \"alarms/#\", or \"#\" for all"
                    .to_owned(),
            );
        }
        if self.filters.len() > FILTERS_MAX {
            return wrong(format!("filters: more than {FILTERS_MAX} Topic Filters"));
        }
        for filter in &self.filters {
            match TopicFilter::parse(filter, usize::MAX) {
                Ok(parsed) if parsed.share_name().is_none() => {}
                _ => return wrong(format!("filters: {filter:?} is no Topic Filter")),
            }
        }
        if !self.token.is_empty() && !self.token_file.as_os_str().is_empty() {
            return wrong("token and token_file exclude each other".to_owned());
        }
        self.check_headers().or_else(wrong)
    }

    /// Errors do not repeat values, which may be secrets.
    fn check_headers(&self) -> Result<(), String> {
        if self.headers.len() > HEADERS_MAX {
            return Err(format!("headers: more than {HEADERS_MAX} headers"));
        }
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(format!("headers: {name:?} is no name of a header"));
            }
            if OWN_HEADERS.contains(&lower.as_str()) {
                return Err(format!("headers: the broker sets {name} itself"));
            }
            if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                return Err(format!("headers: the value of {name} is not printable ASCII"));
            }
            let has_token = !self.token.is_empty() || !self.token_file.as_os_str().is_empty();
            if lower == "authorization" && (has_token || self.url.contains('@')) {
                return Err(
                    "headers: Authorization is set twice; use one of the header, the token and the password in \
                     the URL"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// Checks all webhooks; the error has the number of the one that is wrong.
pub(super) fn check(webhooks: &[Webhook]) -> Result<(), (usize, String)> {
    if !webhooks.is_empty() && !cfg!(feature = "webhooks") {
        let what = "[[webhooks]]: this broker was built without webhooks; build it with --features webhooks";
        return Err((0, what.to_owned()));
    }
    if webhooks.len() > WEBHOOKS_MAX {
        return Err((WEBHOOKS_MAX, format!("[[webhooks]]: more than {WEBHOOKS_MAX} webhooks")));
    }
    for (number, webhook) in webhooks.iter().enumerate() {
        webhook.check().map_err(|what| (number, what))?;
        if webhooks[..number].iter().any(|other| other.name == webhook.name) {
            let what = format!("[[webhooks]] name = \"{}\": the name is used twice", webhook.name);
            return Err((number, what));
        }
    }
    Ok(())
}

#[cfg(all(test, feature = "webhooks"))]
mod tests {
    use crate::config::Settings;

    fn error(keys: &str) -> String {
        let text = format!("[[webhooks]]\nname = \"a\"\nurl = \"http://h/\"\n{keys}");
        match Settings::from_toml(&text) {
            Ok(settings) => {
                settings.check().map_or_else(|error| error.to_string(), |()| String::new())
            }
            Err(error) => error,
        }
    }

    #[test]
    fn what_is_wrong_with_a_webhook_is_said() {
        assert_eq!(error("events = [\"connect\"]"), "");
        assert_eq!(error("events = [\"publish\"]\nfilters = [\"#\", \"a/+\"]"), "");
        for (keys, expected) in [
            ("events = []", "events is empty"),
            ("events = [\"connects\"]", "unknown variant `connects`"),
            ("events = [\"publish\"]", "belong together"),
            ("events = [\"connect\"]\nfilters = [\"#\"]", "belong together"),
            ("events = [\"publish\"]\nfilters = [\"a/#/b\"]", "is no Topic Filter"),
            ("events = [\"publish\"]\nfilters = [\"$share/g/a\"]", "is no Topic Filter"),
            ("events = [\"connect\"]\ntoken = \"a\"\ntoken_file = \"b\"", "exclude each other"),
            ("events = [\"connect\"]\nheaders = { \"a b\" = \"x\" }", "no name of a header"),
            ("events = [\"connect\"]\nheaders = { a = \"\\n\" }", "not printable ASCII"),
            ("events = [\"connect\"]\nheaders = { Host = \"x\" }", "sets Host itself"),
            (
                "events = [\"connect\"]\ntoken = \"x\"\nheaders = { Authorization = \"y\" }",
                "Authorization is set twice",
            ),
            ("events = [\"connect\"]\nqueue_bytes = 1", "1 is not from 65536"),
            (
                "events = [\"connect\"]\n[[webhooks]]\nname = \"a\"\nurl = \"x\"\nevents = [\"connect\"]",
                "the name is used twice",
            ),
        ] {
            let found = error(keys);
            assert!(found.contains(expected), "{keys}: {found}");
        }
    }

    #[test]
    fn a_secret_of_a_webhook_is_not_repeated_by_an_error() {
        for keys in
            ["token = \"hush\" x", "headers = { a = \"hush\", ", "events = 1\ntoken = \"hush\""]
        {
            let found = error(keys);
            assert!(!found.is_empty() && !found.contains("hush"), "{found}");
        }
    }
}
