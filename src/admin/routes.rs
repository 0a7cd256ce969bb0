//! The table of routes, from which the router and the OpenAPI document are made.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::admin::gate::{self, BODY_BYTES_MAX};
use crate::admin::problem::Problem;
use crate::admin::{
    Shared, bans, bridges, clients, cluster, configuration, dashboard, drain, health, log, login,
    metrics, openapi, status, stream, topics, trace, users, webhooks,
};
use crate::config::Role;

/// The routes of each module.
const PARTS: &[fn() -> Vec<Route>] = &[
    health::routes,
    status::routes,
    metrics::routes,
    configuration::routes,
    log::routes,
    login::routes,
    openapi::routes,
    clients::routes,
    topics::routes,
    bans::routes,
    users::routes,
    webhooks::routes,
    bridges::routes,
    cluster::routes,
    drain::routes,
    stream::routes,
    trace::routes,
    dashboard::routes,
];

/// All routes.
pub fn table() -> Vec<Route> {
    PARTS.iter().flat_map(|part| part()).collect()
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Everybody; nobody is asked for credentials.
    Anyone,
    /// Those that `admin.metrics` admits.
    Scrapers,
    /// Callers with this role, or a higher one.
    Role(Role),
}

/// Makes the JSON Schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// An answer that a route gives when all is well.
#[derive(Clone, Copy, Debug)]
pub struct Success {
    /// Status.
    pub status: u16,
    /// Media type; empty for no content.
    pub media_type: &'static str,
    /// Schema of the content, or of each of its parts; none for other content than JSON.
    pub schema: Option<SchemaOf>,
}

/// What the OpenAPI document says of a route besides its path. A test makes the document, so that the broker has no
/// code for that.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// What the route does, in one line.
    pub summary: &'static str,
    /// Parameters in the query.
    pub query: Option<SchemaOf>,
    /// Content of the request.
    pub body: Option<SchemaOf>,
    /// Answers other than errors.
    pub answers: Vec<Success>,
}

impl Description {
    fn answers_with(&mut self, status: u16, media_type: &'static str, schema: Option<SchemaOf>) {
        self.answers.push(Success { status, media_type, schema });
    }
}

/// The function that makes the schema of a type.
fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// One method of one resource.
#[derive(Clone)]
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path, with parameters as `{name}`, and `{*name}` for the rest of the path.
    pub path: &'static str,
    /// Who may use the route.
    pub allowed: Allowed,
    /// What the document says of the route.
    #[cfg(test)]
    pub description: Description,
    /// Whether the route answers while the broker stops.
    pub serves_while_stopping: bool,
    /// Whether the route is served on the connection that is reserved for health.
    pub is_for_health: bool,
    /// Whether requests are logged although they change nothing.
    pub is_audited: bool,
    handler: MethodRouter<Shared>,
}

/// A route that reads.
pub fn get<H, T>(path: &'static str, role: Role, summary: &'static str, handler: H) -> Route
where
    H: Handler<T, Shared>,
    T: 'static,
{
    Route::new((Method::GET, MethodFilter::GET), path, role, summary, handler)
}

/// A route that does something.
pub fn post<H, T>(path: &'static str, role: Role, summary: &'static str, handler: H) -> Route
where
    H: Handler<T, Shared>,
    T: 'static,
{
    Route::new((Method::POST, MethodFilter::POST), path, role, summary, handler)
}

/// A route that replaces something.
pub fn put<H, T>(path: &'static str, role: Role, summary: &'static str, handler: H) -> Route
where
    H: Handler<T, Shared>,
    T: 'static,
{
    Route::new((Method::PUT, MethodFilter::PUT), path, role, summary, handler)
}

/// A route that deletes something.
pub fn delete<H, T>(path: &'static str, role: Role, summary: &'static str, handler: H) -> Route
where
    H: Handler<T, Shared>,
    T: 'static,
{
    Route::new((Method::DELETE, MethodFilter::DELETE), path, role, summary, handler)
}

impl Route {
    fn new<H, T>(
        (method, filter): (Method, MethodFilter),
        path: &'static str,
        role: Role,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        let route = Self {
            method,
            path,
            allowed: Allowed::Role(role),
            #[cfg(test)]
            description: Description::default(),
            serves_while_stopping: false,
            is_for_health: false,
            is_audited: false,
            handler: on(filter, erased(handler)),
        };
        route.described(|of| of.summary = summary)
    }

    #[cfg(test)]
    fn described(mut self, describe: impl FnOnce(&mut Description)) -> Self {
        describe(&mut self.description);
        self
    }

    #[cfg(not(test))]
    fn described(self, _: impl FnOnce(&mut Description)) -> Self {
        self
    }

    /// Who may use the route, if not the callers with a role.
    pub fn for_whom(self, allowed: Allowed) -> Self {
        Self { allowed, ..self }
    }

    /// The query's parameters.
    pub fn query<T: JsonSchema>(self) -> Self {
        self.described(|of| of.query = Some(schema_of::<T>))
    }

    /// The content of the request, in JSON.
    pub fn body<T: JsonSchema>(self) -> Self {
        self.described(|of| of.body = Some(schema_of::<T>))
    }

    /// An answer in JSON with status 200.
    pub fn answers<T: JsonSchema>(self) -> Self {
        self.answers_with::<T>(200)
    }

    /// An answer in JSON with another status.
    pub fn answers_with<T: JsonSchema>(self, status: u16) -> Self {
        self.described(|of| of.answers_with(status, "application/json", Some(schema_of::<T>)))
    }

    /// An answer of another media type with status 200.
    pub fn answers_as(self, media_type: &'static str) -> Self {
        self.described(|of| of.answers_with(200, media_type, None))
    }

    /// An answer of another media type with status 200, in parts that have this schema.
    pub fn answers_in_parts<T: JsonSchema>(self, media_type: &'static str) -> Self {
        self.described(|of| of.answers_with(200, media_type, Some(schema_of::<T>)))
    }

    /// Logs requests like those that change something.
    pub fn audited(self) -> Self {
        Self { is_audited: true, ..self }
    }

    /// An answer without content: status 204.
    pub fn answers_nothing(self) -> Self {
        self.described(|of| of.answers_with(204, "", None))
    }

    /// Answers while the broker stops, too.
    pub fn while_stopping(self) -> Self {
        Self { serves_while_stopping: true, ..self }
    }

    /// Answers everybody, while the broker stops, and on the connection that is reserved for health.
    pub fn for_health(self) -> Self {
        Self { is_for_health: true, ..self.for_whom(Allowed::Anyone).while_stopping() }
    }

    /// Whether the route changes something.
    pub fn is_change(&self) -> bool {
        self.method != Method::GET
    }
}

/// A handler of which the type is hidden, so that the program has the code around a handler once.
type Erased = Arc<dyn Fn(Request, Shared) -> Answering + Send + Sync>;
type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

#[derive(Clone)]
struct Hidden(Erased);

impl Handler<(), Shared> for Hidden {
    type Future = Answering;

    fn call(self, request: Request, admin: Shared) -> Answering {
        (self.0)(request, admin)
    }
}

fn erased<H: Handler<T, Shared>, T: 'static>(handler: H) -> Hidden {
    Hidden(Arc::new(move |request, admin| Box::pin(handler.clone().call(request, admin))))
}

/// The router of these routes.
pub(super) fn router(admin: &Shared, routes: Vec<Route>) -> Router {
    let mut router = Router::new();
    for route in routes {
        let gate = Arc::new(gate::Gate::new(Arc::clone(admin), &route));
        let handler = route.handler.route_layer(from_fn_with_state(gate, gate::pass));
        router = router.route(route.path, handler);
    }
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(gate::check_size))
        .layer(map_response(Problem::from_plain))
        .layer(map_response(gate::add_headers))
        .with_state(Arc::clone(admin))
}
