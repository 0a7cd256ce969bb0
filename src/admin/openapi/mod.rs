//! The OpenAPI document. A test makes it from the table of routes and holds `document.json` against that, so that the
//! broker has neither the code that makes schemas nor the texts that it is made from.

#[cfg(test)]
mod made;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value};

use crate::admin::compression::unpack;
use crate::admin::routes::{Route, get};
use crate::admin::{Answer, Shared};
use crate::config::Role;

/// The document without the version, packed while the broker was built.
const DOCUMENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/document.json.gz"));

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/openapi.json", Role::Read, "This document (OpenAPI 3.1)", serve)
            .answers::<Map<String, Value>>(),
    ]
}

async fn serve(State(_): State<Shared>) -> Answer<Value> {
    Ok(Json(document()))
}

/// The document.
pub fn document() -> Value {
    let mut document: Value =
        serde_json::from_slice(&unpack(DOCUMENT)).expect("a test has read it");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document
}
