//! Topics: subscriptions, who would receive a message, retained messages, publishing.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shards::TopicFilter;

use crate::admin::questions::{self, Listing, ask, ask_all, limit};
use crate::admin::routes::{Route, delete, get, post};
use crate::admin::{Answer, Problem, Shared};
use crate::config::Role;
use crate::control::answer::{
    Cleared, NotPublished, QueuedMessage, RetainedMessage, SubscriptionEntry,
};
use crate::control::question::{NewMessage, Question};
use crate::wire::{ForwardedProperties, Qos, UserProperties};

/// The core that keeps the retained messages which are shown: every core has all of them. Messages of operators
/// are published there, so that they stay in order.
const CORE: usize = 0;

/// Bytes of a text in a property at most.
const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    let (read, operate, admin) = (Role::Read, Role::Operate, Role::Admin);
    let of_filter = "Remove the retained messages that match a filter";
    vec![
        get("/api/v1/subscriptions", read, "Subscriptions, or who receives a topic", subscriptions)
            .query::<SubscriptionQuery>()
            .answers::<Subscriptions>(),
        get("/api/v1/retained", read, "Retained messages that match a filter", retained)
            .query::<RetainedQuery>()
            .answers::<RetainedList>(),
        delete("/api/v1/retained", admin, of_filter, clear_filter)
            .query::<ClearQuery>()
            .answers::<ClearedList>(),
        get("/api/v1/retained/{*topic}", operate, "A retained message with its payload", message)
            .answers::<Retained>(),
        delete("/api/v1/retained/{*topic}", admin, "Remove a retained message", clear)
            .answers_nothing(),
        post("/api/v1/publish", operate, "Publish a message", publish)
            .body::<ToPublish>()
            .answers::<PublishedTo>(),
    ]
}

/// A payload, as text if it is UTF-8.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Payload {
    /// The payload, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The payload in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Payload {
    /// Shows these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self { text: Some(text), base64: None },
            Err(other) => Self { text: None, base64: Some(STANDARD.encode(other.as_bytes())) },
        }
    }
}

/// A page of subscriptions.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SubscriptionList {
    /// The subscriptions. There may be fewer than the limit although there is a next page.
    pub subscriptions: Vec<SubscriptionEntry>,
    /// The cursor of the next page; null at the end.
    pub next: Option<String>,
}

/// Which subscriptions are listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SubscriptionQuery {
    /// A Topic Name: the subscriptions that a message to this topic matches.
    topic: Option<String>,
    /// Entries at most: 1 to 1,000, by default 100.
    limit: Option<usize>,
    /// The value of next of the page before, in a listing of all subscriptions.
    cursor: Option<String>,
}

/// Subscriptions.
#[derive(Debug, Serialize, JsonSchema)]
struct Subscriptions {
    /// The subscriptions. Of the members of a shared subscription one receives each message.
    subscriptions: Vec<SubscriptionEntry>,
    /// The cursor of the next page; null at the end, and for a topic.
    next: Option<String>,
    /// For a topic: subscriptions that match, with those that are not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    matching: Option<u64>,
}

async fn subscriptions(
    State(admin): State<Shared>,
    Query(query): Query<SubscriptionQuery>,
) -> Answer<Subscriptions> {
    let limit = limit(query.limit)?;
    let Some(topic) = query.topic else {
        let ask = |page, reply| Question::Subscriptions { client_identifier: None, page, reply };
        let cursor = query.cursor.as_deref();
        let page = questions::list(&admin, Listing::Subscriptions, cursor, limit, ask).await?;
        let (subscriptions, next) = (page.entries, page.next);
        return Ok(Json(Subscriptions { subscriptions, next, matching: None }));
    };
    check_topic(&topic)?;
    let topic: Box<str> = topic.into();
    let ask = |reply| Question::Recipients { topic: topic.clone(), limit, reply };
    let cores = ask_all(&admin, ask).await?;
    let matching = cores.iter().map(|core| core.subscriptions_total).sum();
    let mut shown: Vec<_> = cores.into_iter().flat_map(|core| core.subscriptions).collect();
    shown.truncate(limit);
    Ok(Json(Subscriptions { subscriptions: shown, next: None, matching: Some(matching) }))
}

fn check_topic(topic: &str) -> Result<(), Problem> {
    shards::check_topic_name(topic, usize::MAX).map_err(|_| {
        Problem::bad_request(format!("{topic:?} is no Topic Name: it is empty or has a wildcard"))
    })
}

fn check_filter(filter: &str) -> Result<(), Problem> {
    match TopicFilter::parse(filter, usize::MAX) {
        Ok(parsed) if parsed.share_name().is_none() => Ok(()),
        _ => Err(Problem::bad_request(format!("{filter:?} is no Topic Filter"))),
    }
}

/// Which retained messages are listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RetainedQuery {
    /// The Topic Filter; by default `#`, which leaves out topics that begin with `$`.
    filter: Option<String>,
    /// Messages of the page at most: 1 to 1,000, by default 100.
    limit: Option<usize>,
    /// The value of next of the page before.
    cursor: Option<String>,
}

/// A page of retained messages.
#[derive(Debug, Serialize, JsonSchema)]
struct RetainedList {
    /// The messages, without their payloads.
    messages: Vec<QueuedMessage>,
    /// The cursor of the next page; null at the end.
    next: Option<String>,
    /// Retained messages in all.
    retained: u64,
}

async fn retained(
    State(admin): State<Shared>,
    Query(query): Query<RetainedQuery>,
) -> Answer<RetainedList> {
    let (filter, limit) = (query.filter.as_deref().unwrap_or("#"), limit(query.limit)?);
    check_filter(filter)?;
    let from = match &query.cursor {
        Some(cursor) => Some(questions::verify(Listing::Retained, cursor)?),
        None => None,
    };
    let from = from.map(|topic| String::from_utf8_lossy(&topic).into());
    let filter = filter.into();
    let question = |reply| Question::Retained { filter, from, limit, reply };
    let page = ask(&admin, CORE, question).await?;
    let next = page.next.map(|topic| questions::sign(Listing::Retained, topic.as_bytes()));
    Ok(Json(RetainedList { messages: page.messages, next, retained: page.retained }))
}

/// A retained message.
#[derive(Debug, Serialize, JsonSchema)]
struct Retained {
    /// The message.
    message: QueuedMessage,
    /// Its payload.
    payload: Payload,
    /// Content Type.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// Response Topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<String>,
    /// User Properties, in order.
    user_properties: Vec<(String, String)>,
    /// The core on which it was published.
    core: u16,
}

impl From<RetainedMessage> for Retained {
    fn from(mut of: RetainedMessage) -> Self {
        Self {
            payload: Payload::new(of.message.payload.take().unwrap_or_default()),
            message: of.message,
            content_type: of.content_type,
            response_topic: of.response_topic,
            user_properties: of.user_properties,
            core: of.core,
        }
    }
}

fn not_retained(topic: &str) -> Problem {
    Problem::not_found(format!("{topic:?} has no retained message"))
}

async fn message(State(admin): State<Shared>, Path(topic): Path<String>) -> Answer<Retained> {
    let question = |reply| Question::RetainedMessage { topic: topic.as_str().into(), reply };
    match ask(&admin, CORE, question).await? {
        Some(message) => Ok(Json((*message).into())),
        None => Err(not_retained(&topic)),
    }
}

/// Which retained messages are removed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ClearQuery {
    /// The Topic Filter.
    filter: String,
    /// Messages that are removed at most.
    max: u64,
}

/// Messages that were removed.
#[derive(Debug, Serialize, JsonSchema)]
struct ClearedList {
    /// Messages that were removed.
    removed: u64,
    /// Whether no matching message is left.
    complete: bool,
}

async fn clear_filter(
    State(admin): State<Shared>,
    Query(query): Query<ClearQuery>,
) -> Answer<ClearedList> {
    check_filter(&query.filter)?;
    let Cleared { messages, is_complete } = clear_some(&admin, &query.filter, query.max).await?;
    Ok(Json(ClearedList { removed: messages, complete: is_complete }))
}

async fn clear_some(admin: &Shared, filter: &str, messages_max: u64) -> Result<Cleared, Problem> {
    let filter = filter.into();
    ask(admin, CORE, |reply| Question::ClearRetained { filter, messages_max, reply }).await
}

async fn clear(
    State(admin): State<Shared>,
    Path(topic): Path<String>,
) -> Result<StatusCode, Problem> {
    check_topic(&topic)?;
    match clear_some(&admin, &topic, 1).await?.messages {
        0 => Err(not_retained(&topic)),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// A message to publish.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ToPublish {
    /// Topic Name.
    topic: String,
    /// The payload, as text.
    payload: Option<String>,
    /// The payload, in base64.
    payload_base64: Option<String>,
    /// QoS: 0, 1 or 2.
    #[serde(default)]
    qos: u8,
    /// Whether the message is retained.
    #[serde(default)]
    retain: bool,
    /// Message Expiry Interval in seconds.
    message_expiry_interval_s: Option<u32>,
    /// Content Type.
    content_type: Option<String>,
    /// Response Topic.
    response_topic: Option<String>,
    /// Correlation Data, in base64.
    correlation_data_base64: Option<String>,
    /// Whether the Payload Format Indicator says that the payload is text.
    #[serde(default)]
    payload_is_text: bool,
    /// User Properties: pairs of name and value.
    #[serde(default)]
    user_properties: Vec<(String, String)>,
}

impl ToPublish {
    fn message(&self) -> Result<NewMessage, Problem> {
        let payload = match (&self.payload, &self.payload_base64) {
            (Some(_), Some(_)) => {
                let detail = "payload and payload_base64 exclude each other";
                return Err(Problem::bad_request(detail));
            }
            (Some(text), None) => text.as_bytes().into(),
            (None, Some(encoded)) => decode("payload_base64", encoded)?.into(),
            (None, None) => Box::default(),
        };
        if self.payload_is_text && std::str::from_utf8(&payload).is_err() {
            return Err(Problem::bad_request(
                "payload_is_text is set, but the payload is no UTF-8",
            ));
        }
        let qos = Qos::try_from(self.qos)
            .map_err(|qos| Problem::bad_request(format!("qos is {qos}; it must be 0, 1 or 2")))?;
        Ok(NewMessage {
            topic: self.topic.as_str().into(),
            payload,
            qos,
            retain: self.retain,
            message_expiry_interval_s: self.message_expiry_interval_s,
            properties: self.properties()?.into(),
        })
    }

    fn properties(&self) -> Result<Vec<u8>, Problem> {
        let mut pairs = Vec::new();
        for (name, value) in &self.user_properties {
            check_text("user_properties", name)?;
            check_text("user_properties", value)?;
            UserProperties::push(&mut pairs, name, value);
        }
        if let Some(text) = &self.content_type {
            check_text("content_type", text)?;
        }
        if let Some(topic) = &self.response_topic {
            check_text("response_topic", topic)?;
            check_topic(topic)?;
        }
        let encoded = self.correlation_data_base64.as_deref();
        let correlation_data =
            encoded.map(|data| decode("correlation_data_base64", data)).transpose()?;
        if correlation_data.as_ref().is_some_and(|data| data.len() > TEXT_BYTES_MAX) {
            return Err(too_long("correlation_data_base64"));
        }
        let mut properties = Vec::new();
        let values = ForwardedProperties {
            payload_format_indicator: self.payload_is_text.then_some(1),
            response_topic: self.response_topic.as_deref(),
            correlation_data: correlation_data.as_deref(),
            content_type: self.content_type.as_deref(),
            user_properties: UserProperties::encoded(&pairs),
        };
        values.encode(&mut properties);
        Ok(properties)
    }
}

fn decode(name: &str, encoded: &str) -> Result<Vec<u8>, Problem> {
    let problem = |error| Problem::bad_request(format!("{name} is no base64: {error}"));
    STANDARD.decode(encoded).map_err(problem)
}

fn check_text(name: &str, text: &str) -> Result<(), Problem> {
    match text {
        text if text.len() > TEXT_BYTES_MAX => Err(too_long(name)),
        text if text.contains('\0') => {
            Err(Problem::bad_request(format!("{name} has a null character")))
        }
        _ => Ok(()),
    }
}

fn too_long(name: &str) -> Problem {
    Problem::bad_request(format!("{name} is longer than {TEXT_BYTES_MAX} bytes"))
}

/// Whom a message has reached.
#[derive(Debug, Serialize, JsonSchema)]
struct PublishedTo {
    /// Clients and shared subscriptions that the message goes to.
    recipients: u64,
}

async fn publish(State(admin): State<Shared>, Json(body): Json<ToPublish>) -> Answer<PublishedTo> {
    let message = Box::new(body.message()?);
    let topic = message.topic.clone();
    let published = ask(&admin, CORE, |reply| Question::Publish { message, reply }).await?;
    let published = published.map_err(|why| match why {
        NotPublished::RetainedFull | NotPublished::MemoryFull => {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, why.to_string())
        }
        NotPublished::TooLarge => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why.to_string()),
        _ => Problem::bad_request(why.to_string()),
    })?;
    if !published.is_acknowledged {
        let detail =
            "not every core, or not the store, has confirmed the message; it may be delivered";
        return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, detail));
    }
    let mut recipients = published.recipients;
    for core in (0..admin.broker.cores.count()).filter(|&core| core != CORE) {
        let topic = topic.clone();
        recipients += ask(&admin, core, |reply| Question::CountRecipients { topic, reply }).await?;
    }
    Ok(Json(PublishedTo { recipients }))
}
