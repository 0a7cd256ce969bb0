//! The OpenAPI document as it follows from the table of routes.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::admin::openapi::document;
use crate::admin::problem::{self, Sent};
use crate::admin::routes::{Allowed, Route, table};

/// The document, with the version that it is served with.
fn made() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for route in table() {
        let operation = operation(&route, &mut schemas);
        // A parameter for the rest of a path is written like any other.
        let path = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ringmq admin interface",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.into_definitions(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "password": { "type": "http", "scheme": "basic" },
            },
        },
    })
}

#[test]
fn the_document_describes_every_route() {
    let (made, path) =
        (made(), concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/openapi/document.json"));
    if std::env::var_os("WRITE_OPENAPI").is_some() {
        let mut written = made.clone();
        written["info"]["version"] = "".into();
        let text = serde_json::to_string_pretty(&written).expect("JSON");
        return std::fs::write(path, text + "\n").expect("the file can be written");
    }
    assert!(
        made == document(),
        "{path} does not describe the routes: WRITE_OPENAPI=1 cargo test --lib openapi writes it"
    );
}

/// Schemas of requests, and of answers: a member that a request may leave out is always part of an answer.
struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Default for Schemas {
    fn default() -> Self {
        // OpenAPI 3.1 has the schemas of this draft.
        let mut settings = SchemaSettings::draft2020_12();
        settings.meta_schema = None;
        settings.definitions_path = "/components/schemas".into();
        Self {
            requests: settings.clone().for_deserialize().into_generator(),
            answers: settings.for_serialize().into_generator(),
        }
    }
}

impl Schemas {
    fn into_definitions(mut self) -> Map<String, Value> {
        let mut definitions = self.requests.take_definitions(true);
        definitions.extend(self.answers.take_definitions(true));
        definitions
    }
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let mut parameters: Vec<Value> = path_parameters(route.path);
    if let Some(query) = route.description.query {
        parameters.extend(query_parameters(&query(&mut schemas.requests), &schemas.requests));
    }
    let mut operation = json!({
        "summary": route.description.summary,
        "parameters": parameters,
        "responses": responses(route, &mut schemas.answers),
    });
    if let Some(body) = route.description.body {
        let schema = body(&mut schemas.requests);
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    match route.allowed {
        Allowed::Anyone => operation["security"] = json!([]),
        Allowed::Scrapers => operation["x-role"] = json!("admin.metrics"),
        Allowed::Role(role) => operation["x-role"] = json!(role.name()),
    }
    if !matches!(route.allowed, Allowed::Anyone) {
        operation["security"] = json!([{ "token": [] }, { "password": [] }]);
    }
    operation
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for answer in &route.description.answers {
        let what = if answer.status < 400 { "Success" } else { "Failure" };
        // A status can have answers of several media types.
        let response = responses.entry(answer.status.to_string());
        let response = response.or_insert_with(|| json!({ "description": what }));
        if !answer.media_type.is_empty() {
            let schema = answer.schema.map_or(json!({}), |schema| schema(generator).into());
            response["content"][answer.media_type] = json!({ "schema": schema });
        }
    }
    let schema = generator.subschema_for::<Sent>();
    let error = json!({
        "description": "Error",
        "content": { problem::MEDIA_TYPE: { "schema": schema } },
    });
    responses.insert("default".to_owned(), error);
    responses.into()
}

/// The parameters in a path.
fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let parameter = |name: &str| {
        json!({
            "name": name.trim_start_matches('*'),
            "in": "path",
            "required": true,
            "schema": { "type": "string" },
        })
    };
    names.map(parameter).collect()
}

/// A parameter of the query for each property of this schema.
fn query_parameters(schema: &Schema, generator: &SchemaGenerator) -> Vec<Value> {
    let schema: Value = schema.clone().into();
    let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    let schema = name.and_then(|name| generator.definitions().get(name)).unwrap_or(&schema);
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let parameter = |(name, schema): (&String, &Value)| {
        json!({
            "name": name,
            "in": "query",
            "required": required.contains(&&**name),
            "schema": schema,
        })
    };
    properties.map(parameter).collect()
}
