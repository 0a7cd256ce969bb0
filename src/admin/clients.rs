//! Clients: listings, those with the highest values, one client's details, disconnecting.

use std::time::Instant;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::auth::Caller;
use crate::admin::questions::{self, Listing, ask_about, ask_all, command_about, limit};
use crate::admin::routes::{Route, delete, get};
use crate::admin::topics::{Payload, SubscriptionList};
use crate::admin::{Answer, Problem, Shared};
use crate::base::limits;
use crate::config::Role;
use crate::control::answer::{ClientDetail, ClientSummary, QueuedMessage};
use crate::control::question::{ClientFilter, ListingPlace, PageRequest, Question, TopBy};
use crate::wire::Version;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    let read = Role::Read;
    vec![
        get("/api/v1/clients", read, "Clients, in pages", clients)
            .query::<ClientQuery>()
            .answers::<ClientList>(),
        get("/api/v1/clients/top", read, "The clients with the highest values", top)
            .query::<TopQuery>()
            .answers::<Top>(),
        get("/api/v1/clients/{id}", read, "Everything about one client", client)
            .answers::<ClientDetail>(),
        get("/api/v1/clients/{id}/subscriptions", read, "A client's subscriptions", subscriptions)
            .query::<PageQuery>()
            .answers::<SubscriptionList>(),
        get("/api/v1/clients/{id}/queue", read, "Messages that wait for a client", queue)
            .query::<QueueQuery>()
            .answers::<Queue>(),
        get("/api/v1/clients/{id}/inflight", read, "Messages in flight to a client", inflight)
            .query::<LimitQuery>()
            .answers::<Inflight>(),
        delete("/api/v1/clients/{id}/connection", Role::Operate, "Disconnect a client", disconnect)
            .query::<ReasonQuery>()
            .answers_nothing(),
        delete("/api/v1/clients/{id}/session", Role::Admin, "End a client's session", end_session)
            .query::<ReasonQuery>()
            .answers_nothing(),
        delete(
            "/api/v1/clients/{id}/subscriptions",
            Role::Operate,
            "End one subscription of a client",
            end_subscription,
        )
        .query::<FilterQuery>()
        .answers_nothing(),
    ]
}

/// The state of a client.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Connectedness {
    /// The client is connected.
    Connected,
    /// Only the client's session is there.
    Disconnected,
}

/// Which clients are listed. All conditions that are set apply.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ClientQuery {
    /// Entries of the page at most: 1 to 1,000, by default 100.
    limit: Option<usize>,
    /// The value of next of the page before.
    cursor: Option<String>,
    /// Whether the client is connected.
    state: Option<Connectedness>,
    /// The user that owns the session.
    user: Option<String>,
    /// The beginning of the Client Identifier.
    id_prefix: Option<String>,
    /// The client's address, or its network (10.0.0.0/8).
    address: Option<String>,
    /// The number of the listener.
    listener: Option<u16>,
    /// The protocol version: 3.1, 3.1.1 or 5.0.
    version: Option<String>,
    /// Messages in the queue at least.
    queued_min: Option<u64>,
    /// Dropped messages at least.
    dropped_min: Option<u64>,
}

impl ClientQuery {
    fn filter(&self) -> Result<ClientFilter, Problem> {
        let version = match self.version.as_deref() {
            None => None,
            Some("3.1") => Some(Version::V31),
            Some("3.1.1") => Some(Version::V311),
            Some("5.0" | "5") => Some(Version::V5),
            Some(other) => {
                let detail = format!("version is {other:?}; it must be 3.1, 3.1.1 or 5.0");
                return Err(Problem::bad_request(detail));
            }
        };
        Ok(ClientFilter {
            is_connected: self.state.map(|state| matches!(state, Connectedness::Connected)),
            user: self.user.as_deref().map(Into::into),
            id_prefix: self.id_prefix.as_deref().map(Into::into),
            network: self.address.as_deref().map(network).transpose()?,
            listener: self.listener,
            version,
            queued_min: self.queued_min.unwrap_or(0),
            dropped_min: self.dropped_min.unwrap_or(0),
        })
    }
}

/// An address or a network.
pub(super) fn network(text: &str) -> Result<IpNet, Problem> {
    let address = text.parse().map(|address: std::net::IpAddr| address.to_canonical().into());
    address.or_else(|_| text.parse()).map_err(|_| {
        let detail = format!("{text:?} is neither an address nor a network such as 10.0.0.0/8");
        Problem::bad_request(detail)
    })
}

/// A page of clients.
#[derive(Debug, Serialize, JsonSchema)]
struct ClientList {
    /// The clients. There may be fewer than the limit although there is a next page.
    clients: Vec<ClientSummary>,
    /// The cursor of the next page; null at the end.
    next: Option<String>,
    /// Sessions, with and without a connection, whether or not they are selected.
    sessions: u64,
}

async fn clients(
    State(admin): State<Shared>,
    Query(query): Query<ClientQuery>,
) -> Answer<ClientList> {
    let (filter, limit) = (query.filter()?, limit(query.limit)?);
    let ask = |page, reply| {
        let filter = Box::new(filter.clone());
        Question::Clients { filter, page, reply }
    };
    let cursor = query.cursor.as_deref();
    let page = questions::list(&admin, Listing::Clients, cursor, limit, ask).await?;
    Ok(Json(ClientList { clients: page.entries, next: page.next, sessions: page.sessions }))
}

/// Which values are compared.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TopQuery {
    /// queued, dropped, inflight, outbox, `bytes_in` or `bytes_out`; by default queued.
    by: Option<String>,
    /// How many clients: 1 to 1,000, by default 10.
    n: Option<usize>,
}

/// The clients with the highest values.
#[derive(Debug, Serialize, JsonSchema)]
struct Top {
    /// The value.
    by: &'static str,
    /// The clients, the highest value first; clients whose value is 0 are left out.
    clients: Vec<TopClient>,
    /// Sessions that were looked at.
    looked_at: u64,
    /// Whether these were all sessions.
    complete: bool,
    /// Milliseconds that the answer took.
    took_ms: u64,
}

/// A client with its value.
#[derive(Debug, Serialize, JsonSchema)]
struct TopClient {
    /// The value.
    value: u64,
    /// The client.
    client: ClientSummary,
}

async fn top(State(admin): State<Shared>, Query(query): Query<TopQuery>) -> Answer<Top> {
    let asked = query.by.as_deref().unwrap_or("queued");
    let Some(by) = TopBy::named(asked) else {
        let names: Vec<&str> = TopBy::ALL.iter().map(|(_, name)| *name).collect();
        let detail = format!("by is {asked:?}; it must be one of {}", names.join(", "));
        return Err(Problem::bad_request(detail));
    };
    let (count, began) = (limit(query.n.or(Some(10)))?, Instant::now());
    let cores = ask_all(&admin, |reply| Question::TopClients { by, count, reply }).await?;
    let looked_at = cores.iter().map(|core| core.looked_at).sum();
    let complete = cores.iter().all(|core| core.is_complete);
    let mut clients: Vec<_> = cores.into_iter().flat_map(|core| core.clients).collect();
    clients.sort_by_key(|(value, _)| std::cmp::Reverse(*value));
    clients.truncate(count);
    Ok(Json(Top {
        by: TopBy::ALL.iter().find(|(known, _)| *known == by).map_or("", |(_, name)| name),
        clients: clients.into_iter().map(|(value, client)| TopClient { value, client }).collect(),
        looked_at,
        complete,
        took_ms: began.elapsed().as_millis() as u64,
    }))
}

async fn client(State(admin): State<Shared>, Path(id): Path<String>) -> Answer<ClientDetail> {
    let ask = |client_identifier, reply| Question::Client { client_identifier, reply };
    Ok(Json(*ask_about(&admin, &id, ask).await?))
}

/// Which page is listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    /// Entries of the page at most: 1 to 1,000, by default 100.
    limit: Option<usize>,
    /// The value of next of the page before.
    cursor: Option<String>,
}

async fn subscriptions(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Answer<SubscriptionList> {
    let within = number_of(Listing::Subscriptions, query.cursor.as_deref())? as u32;
    let from = ListingPlace { within, ..ListingPlace::default() };
    let page = PageRequest { from, limit: limit(query.limit)? };
    let ask = |client, reply| {
        let client_identifier = Some(client);
        Question::Subscriptions { client_identifier, page, reply }
    };
    let page = ask_about(&admin, &id, ask).await?;
    let next = page.next.map(|at| cursor_at(Listing::Subscriptions, at.within.into()));
    Ok(Json(SubscriptionList { subscriptions: page.entries, next }))
}

/// The number in a cursor of a listing of one client.
fn number_of(listing: Listing, cursor: Option<&str>) -> Result<u64, Problem> {
    let Some(cursor) = cursor else { return Ok(0) };
    let position = questions::verify(listing, cursor)?;
    let Ok(number) = position.try_into().map(u64::from_le_bytes) else {
        return Err(Problem::bad_request("cursor is of the listing of all clients"));
    };
    Ok(number)
}

fn cursor_at(listing: Listing, number: u64) -> String {
    questions::sign(listing, &number.to_le_bytes())
}

/// Which messages are listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QueueQuery {
    /// Messages of the page at most: 1 to 1,000, by default 100.
    limit: Option<usize>,
    /// The value of next of the page before.
    cursor: Option<String>,
    /// Bytes of each payload that are shown; by default 0. Requires the role operate.
    payload: Option<usize>,
}

/// Messages that wait for a client.
#[derive(Debug, Serialize, JsonSchema)]
struct Queue {
    /// The messages, the oldest first.
    messages: Vec<Waiting>,
    /// The cursor of the next page; null at the end.
    next: Option<String>,
    /// Messages in the queue.
    queued: u64,
    /// Their bytes.
    queue_bytes: u64,
}

/// A message that waits.
#[derive(Debug, Serialize, JsonSchema)]
struct Waiting {
    /// Number of the message among all that were ever queued for the client.
    number: u64,
    /// The message.
    message: QueuedMessage,
    /// The beginning of its payload, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Payload>,
}

async fn queue(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(query): Query<QueueQuery>,
) -> Answer<Queue> {
    let (limit, from) = (limit(query.limit)?, query.cursor.as_deref());
    let from = number_of(Listing::Queue, from)?;
    let payload_bytes_max = query.payload.unwrap_or(0);
    if payload_bytes_max > 0 && caller.role < Role::Operate {
        return Err(Problem::forbidden("payloads require the role operate"));
    }
    let ask = |client_identifier, reply| Question::Queue {
        client_identifier,
        from,
        limit,
        payload_bytes_max,
        reply,
    };
    let page = ask_about(&admin, &id, ask).await?;
    let waiting = |(number, mut message): (u64, QueuedMessage)| {
        let payload = message.payload.take().map(Payload::new);
        Waiting { number, message, payload }
    };
    Ok(Json(Queue {
        messages: page.messages.into_iter().map(waiting).collect(),
        next: page.next.map(|number| cursor_at(Listing::Queue, number)),
        queued: page.queued,
        queue_bytes: page.queue_bytes,
    }))
}

/// How many messages are listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LimitQuery {
    /// Messages at most: 1 to 100, by default 100.
    limit: Option<usize>,
}

/// Messages in flight to a client.
#[derive(Debug, Serialize, JsonSchema)]
struct Inflight {
    /// The messages, in the order in which they were sent.
    messages: Vec<InFlight>,
    /// Messages in flight, with those that are not shown.
    inflight: u64,
}

/// A message in flight.
#[derive(Debug, Serialize, JsonSchema)]
struct InFlight {
    /// Packet Identifier.
    packet_id: u16,
    /// unsent, sent, held (until the store has it) or released (PUBREL was sent).
    stage: &'static str,
    /// The message; null once it is released.
    message: Option<QueuedMessage>,
}

async fn inflight(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<LimitQuery>,
) -> Answer<Inflight> {
    let limit = limit(query.limit)?.min(limits::INFLIGHT_SHOWN_MAX);
    let ask = |client_identifier, reply| Question::Inflight { client_identifier, limit, reply };
    let page = ask_about(&admin, &id, ask).await?;
    let in_flight = |(packet_id, stage, message)| InFlight { packet_id, stage, message };
    let messages = page.messages.into_iter().map(in_flight).collect();
    Ok(Json(Inflight { messages, inflight: page.inflight }))
}

/// Why, for the audit log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasonQuery {
    /// The reason, which the audit log shows.
    #[expect(dead_code, reason = "the audit log has the whole request")]
    reason: Option<String>,
}

async fn disconnect(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    Query(_): Query<ReasonQuery>,
) -> Result<StatusCode, Problem> {
    let unknown = || Problem::not_found(format!("no client {id:?} is connected"));
    let ask = |reply| Question::Disconnect { client_identifier: id.as_str().into(), reply };
    command_about(&admin, unknown, ask).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn end_session(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    Query(_): Query<ReasonQuery>,
) -> Result<StatusCode, Problem> {
    let unknown = || questions::unknown_client(&id);
    let ask = |reply| Question::EndSession { client_identifier: id.as_str().into(), reply };
    command_about(&admin, unknown, ask).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which subscription ends.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FilterQuery {
    /// The Topic Filter, as the client subscribed to it.
    filter: String,
}

async fn end_subscription(
    State(admin): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<FilterQuery>,
) -> Result<StatusCode, Problem> {
    let filter = &query.filter;
    let unknown = || Problem::not_found(format!("{id:?} has no subscription to {filter:?}"));
    let ask = |reply| Question::EndSubscription {
        client_identifier: id.as_str().into(),
        filter: filter.as_str().into(),
        reply,
    };
    command_about(&admin, unknown, ask).await?;
    Ok(StatusCode::NO_CONTENT)
}
